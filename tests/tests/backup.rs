//! Backups: made, rehearsed, restored on an empty machine, and recovered without Signet; and what
//! Docker's documentation taught to keep, restored.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use signet_proto::archive;
use signet_tests::lab::command::clean;
use signet_tests::lab::{KEYRING_PASSPHRASE, REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::{files, write_script};
use signet_tests::{Cli, Home, Lab, Output, Run, Terminal};

/// The backup's own passphrase.
const ARCHIVE: &str = "archive passphrase";

/// `signet ARGS --passphrase-fd archive:3`, unattended, with every passphrase of the keys.
fn signet(home: &Home, passphrase: &str, args: &[&str]) -> Output {
    home.with_descriptors(&[(3, passphrase)])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--passphrase-fd", "archive:3"])
        .args(args)
        .run()
}

/// A key pair of age's own: the file of the identity, and the recipient.
fn age_key(lab: &Lab) -> (PathBuf, String) {
    let file = lab.fresh_dir("k").join("key.txt");
    let made = clean("age-keygen").arg("-o").arg(&file).run().ok();
    let recipient = made.text();
    let recipient = recipient
        .split("Public key: ")
        .nth(1)
        .expect("its recipient");
    (file, recipient.trim().to_owned())
}

/// `age -d -i KEY FILE | tar xz`, in a directory of its own.
fn unpacked(lab: &Lab, key: &Path, file: &Path) -> PathBuf {
    let dir = lab.fresh_dir("x");
    clean("bash")
        .current_dir(&dir)
        .args([
            "-c",
            "set -o pipefail; age -d -i \"$1\" \"$2\" | tar xz",
            "-",
        ])
        .args([key, file])
        .run()
        .ok();
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the lab's paths are text")
}

/// A home with keys in both stores: native root and targets, a signer in Docker's directory.
fn with_keys(lab: &Lab) -> Home {
    let home = lab.home();
    home.has_keyrings();
    for args in [
        &["--role", "root", "--label", "main"][..],
        &["--role", "targets", "--gun", "reg.example.com/app"],
        &["--role", "alice", "--store", "docker"],
    ] {
        let args = [&["key", "generate"], args].concat();
        signet(&home, "", &args).ok();
    }
    home
}

/// Everything that a restore could touch.
fn state(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = files(&home.path());
    all.extend(files(home.docker_config()));
    all.retain(|path, _| {
        path.extension()
            .is_some_and(|end| end == "age" || end == "key" || end == "journal")
    });
    all.into_iter().collect()
}

#[test]
fn dockers_documented_tarball_restores_and_docker_and_signet_go_on() {
    let lab = Lab::start();
    let old = lab.client_config();
    let images = ["v1", "v2", "v3"].map(|tag| lab.import_image(&format!("acme/app:{tag}")));
    let docker_pushes = |config: &Path, image: &str| {
        lab.docker_trusted(Cli::Debian13, config)
            .args(["push", image])
            .run()
            .ok()
            .says("Successfully signed");
    };
    docker_pushes(&old, &images[0]);
    let tarball = lab.fresh_dir("t").join("private_keys_backup.tar.gz");
    // The command of Docker's documentation, word for word but for the home.
    clean("bash")
        .args([
            "-c",
            "umask 077; tar -zcvf \"$1\" \"$2\"/trust/private",
            "-",
        ])
        .args([&tarball, &old])
        .run()
        .ok();

    let new = lab.home();
    signet(&new, "", &["--yes", "restore", text(&tarball)]).ok();
    let kept = |config: &Path| {
        let all = files(&config.join("trust/private"));
        let names = all.into_iter();
        names
            .map(|(path, file)| (path.file_name().map(ToOwned::to_owned), file))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&old), kept(new.docker_config()), "byte for byte");
    for path in files(&new.docker_config().join("trust/private")).into_keys() {
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(new.keys().iter().all(|key| key["state"] == "enrolled"));
    docker_pushes(new.docker_config(), &images[1]);
    signet(&new, "", &["push", &images[2]]).ok();
    for image in &images {
        lab.everybody_pulls(image);
    }
}

#[test]
fn a_backup_restores_on_an_empty_machine_and_the_same_keys_push() {
    let lab = Lab::start();
    let old = lab.home();
    let images = ["v1", "v2"].map(|tag| lab.import_image(&format!("acme/app:{tag}")));
    signet(&old, "", &["push", &images[0]]).ok();
    let (root, targets) = (old.key_id("root"), old.key_id("targets"));
    let file = lab.fresh_dir("b").join("keys.tar.gz.age");
    signet(&old, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    let rehearsed = signet(&old, ARCHIVE, &["--json", "backup", "verify", text(&file)]);
    let rehearsed = rehearsed.ok().json();
    let keys = rehearsed["keys"].as_array().expect("keys");
    assert!(keys.len() == 2 && keys.iter().all(|key| key["proved"] == true));
    old.signet().args(["agent", "stop"]).run().ok();

    let new = lab.home();
    let plan = signet(&new, ARCHIVE, &["restore", "--dry-run", text(&file)]);
    plan.ok().says("would go into the store file");
    assert!(state(&new).is_empty(), "a plan writes nothing");
    // Root keys come back after a yes to their ID.
    signet(&new, ARCHIVE, &["restore", text(&file)])
        .exits(5)
        .says(&root);
    assert!(state(&new).is_empty());
    let restored = signet(&new, ARCHIVE, &["--yes", "--json", "restore", text(&file)]);
    let restored = restored.ok().json();
    assert_eq!(restored["changed"], true);
    assert_eq!((new.key_id("root"), new.key_id("targets")), (root, targets));
    assert_eq!(files(&old.path().join("keys")).len(), 2);
    signet(&new, "", &["push", &images[1]]).ok();
    for image in &images {
        lab.everybody_pulls(image);
    }
    // Once more: everything is here.
    let again = signet(&new, ARCHIVE, &["--json", "restore", text(&file)]);
    let again = again.ok().json();
    assert_eq!(again["changed"], false);
    let keys = again["keys"].as_array().expect("keys");
    assert!(keys.iter().all(|key| key["action"] == "same"), "{again:#}");
}

#[test]
fn age_tar_and_docker_do_without_signet() {
    let lab = Lab::start();
    let old = lab.home();
    let images = ["v1", "v2"].map(|tag| lab.import_image(&format!("acme/app:{tag}")));
    let store = ["push", "--store", "docker", &images[0]];
    signet(&old, "", &store).ok();
    let (key, recipient) = age_key(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    let create = ["backup", "create", "-o", text(&file), "-r", &recipient];
    signet(&old, "", &create).ok();
    old.signet().args(["agent", "stop"]).run().ok();
    let dir = unpacked(&lab, &key, &file);

    let config = lab.client_config();
    fs::rename(dir.join("docker/trust"), config.join("trust")).expect("both are the lab's");
    let private = config.join("trust/private");
    let mode = fs::metadata(&private)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    lab.docker_trusted(Cli::Debian13, &config)
        .args(["push", &images[1]])
        .run()
        .ok()
        .says("Successfully signed");
    lab.everybody_pulls(&images[1]);
}

#[test]
fn recover_sh_gives_native_keys_to_notary() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let (root, targets) = (home.key_id("root"), home.key_id("targets"));
    let (key, recipient) = age_key(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(
        &home,
        "",
        &["backup", "create", "-o", text(&file), "-r", &recipient],
    )
    .ok();
    let dir = unpacked(&lab, &key, &file);
    let mut script = clean("sh");
    script.current_dir(&dir).arg("recover.sh");
    let mut terminal = Terminal::start(script);
    terminal.answer("(?i)enter passphrase", KEYRING_PASSPHRASE);
    terminal.answer("(?i)enter passphrase", KEYRING_PASSPHRASE);
    terminal.exits(0);
    let trust = lab.fresh_dir("n");
    for id in [&root, &targets] {
        let plain = dir.join("recovered").join(format!("{id}.key"));
        lab.notary_at("https://127.0.0.1:1", &trust)
            .args(["key", "import"])
            .arg(&plain)
            .run()
            .ok();
        assert!(trust.join("private").join(format!("{id}.key")).is_file());
    }
    let left = fs::read_dir(dir.join("recovered"))
        .expect("it is there")
        .count();
    assert_eq!(left, 2, "the keyrings do not stay in clear");
}

#[test]
fn a_key_that_stays_closed_is_named_and_the_backup_is_done_in_part() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    let created = home
        .with_descriptors(&[(3, ARCHIVE)])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .args(["--json", "--passphrase-fd", "3", "backup", "create", "-o"])
        .arg(&file)
        .run()
        .exits(8);
    let missing = created.json()["missing"].clone();
    let missing = missing.as_array().expect("what is missing");
    let named: Vec<&str> = missing
        .iter()
        .filter_map(|one| one["what"].as_str())
        .collect();
    assert_eq!(named.len(), 2, "{missing:?}");
    assert!(named[0].starts_with("root") && named[1].starts_with("alice"));

    // It is in the backup all the same; the rehearsal and the restore get the passphrases.
    signet(&home, ARCHIVE, &["backup", "verify", text(&file)]).ok();
    let other = lab.home();
    signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).ok();
    assert_eq!(other.keys().len(), 3);
    // Show needs neither agent nor keys.
    other.signet().args(["agent", "stop"]).run().ok();
    let shown = signet(&other, ARCHIVE, &["--json", "backup", "show", text(&file)]);
    assert_eq!(shown.ok().json()["keys"].as_array().map(Vec::len), Some(3));
    assert_eq!(other.agent_pid(), None);
}

#[test]
fn without_their_passphrases_dockers_keys_come_back_unenrolled_and_native_ones_not_at_all() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    let other = lab.home();
    let bare = |args: &[&str]| {
        other
            .with_descriptors(&[(3, ARCHIVE)])
            .args(["--yes", "--passphrase-fd", "3", "restore", text(&file)])
            .args(args)
            .run()
    };
    bare(&[]).exits(8).says("locked");
    let keys = other.keys();
    assert_eq!(keys.len(), 1, "{keys:#?}");
    assert_eq!(
        (&keys[0]["role"], &keys[0]["state"]),
        (&"alice".into(), &"new".into())
    );
    assert!(!other.path().join("keyring.age").exists());
    signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).ok();
    assert!(other.keys().iter().all(|key| key["state"] == "enrolled"));
    assert_eq!(other.keys().len(), 3);
}

#[test]
fn keys_go_to_another_store_and_beside_other_keys() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    // A host with keyrings and keys of its own.
    let other = with_keys(&lab);
    let before = state(&other);
    let only = [
        "-y",
        "restore",
        "--only",
        "alice@",
        "--store",
        "file",
        text(&file),
    ];
    signet(&other, ARCHIVE, &only).ok();
    assert_eq!(other.keys().len(), 4);
    signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).ok();
    let keys = other.keys();
    assert_eq!(keys.len(), 6, "{keys:#?}");
    let of = |role: &str| keys.iter().filter(|key| key["role"] == role).count();
    assert_eq!((of("root"), of("targets"), of("alice")), (2, 2, 2));
    for (path, content) in before {
        assert_eq!(fs::read(&path).ok(), Some(content), "{}", path.display());
    }
    // They open with the keyrings of this host.
    let again = lab.fresh_dir("b").join("both.age");
    signet(&other, ARCHIVE, &["backup", "create", "-o", text(&again)]).ok();
}

/// What must be refused, with the exit code, and change nothing.
fn refused(home: &Home, passphrase: &str, file: &Path, exit: i32, says: &str) {
    let before = state(home);
    signet(home, passphrase, &["-y", "restore", text(file)])
        .exits(exit)
        .says(says);
    assert_eq!(state(home), before, "the key directories are as before");
}

#[test]
fn what_is_no_good_backup_is_refused_and_changes_nothing() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let dir = lab.fresh_dir("b");
    let file = dir.join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)])
        .exits(1)
        .says("exists already");
    let other = lab.home();
    refused(&other, "another one", &file, 5, "not the passphrase");
    let bytes = fs::read(&file).expect("it is there");
    let bad = dir.join("bad.age");
    let write = |bytes: &[u8], exit, says: &str| {
        fs::write(&bad, bytes).expect("the lab is ours");
        refused(&other, ARCHIVE, &bad, exit, says);
    };
    write(&bytes[..bytes.len() - 1], 1, "damaged");
    write(&bytes[..bytes.len() / 2], 1, "damaged");
    write(&[&bytes[..], b"x"].concat(), 1, "damaged");
    write(b"", 1, "no key");
    write(b"hello", 1, "no key");
    for at in [40, bytes.len() / 3, bytes.len() - 20] {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        fs::write(&bad, &changed).expect("the lab is ours");
        let before = state(&other);
        let output = signet(&other, ARCHIVE, &["-y", "restore", text(&bad)]);
        assert!(matches!(output.code(), Some(1 | 5)), "{}", output.text());
        assert_eq!(state(&other), before);
    }
}

#[test]
fn a_directory_that_cannot_be_written_leaves_everything_as_it_was() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    let other = lab.home();
    // A file stands where Docker's key directory would be: not even root gets past it.
    fs::write(other.docker_config().join("trust"), b"").expect("the lab is ours");
    let before = state(&other);
    signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).exits(1);
    assert_eq!(state(&other), before);
    assert!(other.keys().is_empty());
    fs::remove_file(other.docker_config().join("trust")).expect("the lab is ours");
    signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).ok();
    assert_eq!(other.keys().len(), 3);
}

#[test]
fn two_restores_at_once_are_one() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    let other = lab.home();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| signet(&other, ARCHIVE, &["-y", "restore", text(&file)]).ok());
        }
    });
    assert_eq!(other.keys().len(), 3);
    assert!(other.keys().iter().all(|key| key["state"] == "enrolled"));
}

#[test]
fn a_bundle_of_notarys_and_an_old_directory_restore() {
    let lab = Lab::builder().build();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/fixtures/keys");
    let id = "873cf6188180eca5ea1a42e7031178dd971eef6272508ec7c58c7acf06d794f7";
    let key = fs::read_to_string(fixtures.join("root-ecdsa-p256.key")).expect("a fixture");
    let bundle = lab.fresh_dir("t").join("bundle.pem");
    fs::write(
        &bundle,
        key.replacen("role:", &format!("path: {id}\nrole:"), 1),
    )
    .expect("ours");
    let old = lab.fresh_dir("t").join("private");
    fs::create_dir_all(old.join("root_keys")).expect("ours");
    fs::write(old.join(format!("root_keys/{id}_root.key")), &key).expect("ours");
    for source in [&bundle, &old] {
        let home = lab.home();
        home.signet()
            .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "rootpass123")
            .args(["--no-input", "-y", "restore"])
            .arg(source)
            .run()
            .ok();
        assert_eq!(home.key_id("root"), id);
        let restored = home.docker_config().join(format!("trust/private/{id}.key"));
        assert_eq!(fs::read_to_string(restored).ok().as_ref(), Some(&key));
    }
}

#[test]
fn ssh_keys_are_recipients() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let dir = lab.fresh_dir("k");
    let of_ssh = ["ed25519", "rsa"].map(|kind| {
        let ssh = dir.join(kind);
        clean("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-f", text(&ssh)])
            .run()
            .ok();
        ssh
    });
    let public = of_ssh.each_ref().map(|ssh| format!("{}.pub", text(ssh)));
    let (key, recipient) = age_key(&lab);
    let file = dir.join("keys.age");
    let create = [
        "backup",
        "create",
        "-o",
        text(&file),
        "-r",
        &public[0],
        "-r",
        &public[1],
        "-r",
        &recipient,
    ];
    signet(&home, "", &create).ok();
    for identity in [text(&of_ssh[0]), text(&of_ssh[1]), text(&key)] {
        let verify = ["backup", "verify", "-i", identity, text(&file)];
        signet(&home, "", &verify).ok();
    }
    let (stranger, _) = age_key(&lab);
    let verify = ["backup", "verify", "-i", text(&stranger), text(&file)];
    signet(&home, "", &verify)
        .exits(5)
        .says("not encrypted to any");
    signet(&home, "", &["backup", "verify", text(&file)])
        .exits(5)
        .says("--identity");
}

#[test]
fn age_plugins_are_recipients_and_age_opens_what_they_closed() {
    /// Bech32 of `test`, as the plugin `clear` has it.
    const RECIPIENT: &str = "age1clear1w3jhxaqlf2huv";
    const IDENTITY: &str = "AGE-PLUGIN-CLEAR-1W3JHXAQHCDGGX";

    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let dir = lab.fresh_dir("k");
    let plugin = include_str!("age-plugin-clear");
    write_script(&dir.join("age-plugin-clear"), plugin);
    let key = dir.join("clear.key");
    fs::write(&key, IDENTITY).expect("the lab is ours");
    let file = dir.join("keys.age");
    let path = format!("{}:/usr/bin:/bin", text(&dir));
    let run = |args: &[&str]| {
        let mut command = home.unattended();
        command
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            )
            .env("PATH", &path);
        command.args(args).run()
    };
    run(&["backup", "create", "-o", text(&file), "-r", RECIPIENT]).ok();
    run(&["backup", "verify", "-i", text(&key), text(&file)]).ok();
    let other = lab.home();
    let mut restore = other.unattended();
    restore
        .env("SIGNET_ROOT_PASSPHRASE_FILE", other.passphrase_file())
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .env("PATH", &path)
        .args(["-y", "restore", "-i", text(&key), text(&file)]);
    restore.run().ok();
    assert_eq!(other.keys().len(), 3);
    clean("age")
        .env("PATH", &path)
        .args(["-d", "-i", text(&key), "-o", "/dev/null", text(&file)])
        .run()
        .ok();
    // Where the plugin is not installed, that is what is said.
    let other = dir.join("other.age");
    let create = ["backup", "create", "-o", text(&other), "-r", RECIPIENT];
    signet(&home, "", &create)
        .exits(1)
        .says("no age-plugin-clear on the PATH");
}

#[test]
fn a_flipped_bit_anywhere_is_never_read_as_anything_else() {
    use age::{Decryptor, Encryptor, Identity, Recipient, x25519};

    const POSITIONS: u64 = 10_000;

    let identity = x25519::Identity::generate();
    let recipient = identity.to_public();
    let members: Vec<archive::Member> = (0..6_u8)
        .map(|n| archive::Member {
            path: archive::path::docker(&format!("{n:02x}").repeat(32)),
            data: (0..400).map(|at| n.wrapping_mul(at as u8)).collect(),
        })
        .collect();
    let recipients = std::iter::once(&recipient as &dyn Recipient);
    let encryptor = Encryptor::with_recipients(recipients).expect("one recipient");
    let sealed = encryptor.wrap_output(Vec::new()).expect("memory");
    let mut writer = archive::Writer::new(sealed, 0).expect("memory");
    for member in &members {
        writer.add(&member.path, &member.data).expect("memory");
    }
    let bytes = writer
        .finish()
        .and_then(|sealed| sealed.finish())
        .expect("memory");
    let read = |bytes: &[u8]| -> Option<Vec<archive::Member>> {
        let decryptor = Decryptor::new_buffered(Cursor::new(bytes)).ok()?;
        let identities = std::iter::once(&identity as &dyn Identity);
        let reader = std::io::BufReader::new(decryptor.decrypt(identities).ok()?);
        let mut found = Vec::new();
        archive::read(reader, archive::size_limit, |member| found.push(member)).ok()?;
        Some(found)
    };
    assert_eq!(read(&bytes).as_ref(), Some(&members));
    // Seeded: splitmix64.
    let mut seed = 20_261_121_u64;
    for _ in 0..POSITIONS {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let at = usize::try_from(z >> 8).expect("64 bits") % bytes.len();
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (z & 7);
        let found = read(&changed);
        assert!(
            found.is_none() || found.as_ref() == Some(&members),
            "byte {at}"
        );
    }
}

#[test]
fn the_log_says_what_left_and_what_came() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = lab.fresh_dir("b").join("keys.age");
    signet(&home, ARCHIVE, &["backup", "create", "-o", text(&file)]).ok();
    signet(&home, ARCHIVE, &["backup", "verify", text(&file)]).ok();
    let log = home.log();
    let entries = log["entries"].as_array().expect("entries");
    let kinds: Vec<&Value> = entries.iter().map(|entry| &entry["kind"]).collect();
    assert!(kinds.contains(&&Value::from("backup")) && kinds.contains(&&Value::from("rehearse")));
}
