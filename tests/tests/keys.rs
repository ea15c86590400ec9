//! Keys: made, taken in from every tool's files, named, exported and deleted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::steps::files;
use signet_tests::{Home, Lab, Output, Run};

/// Key files made by docker, notary and OpenSSL; their README says which and how.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../trust/tests/fixtures/keys")
        .join(name)
}

/// A home whose keyrings exist and are open, so that an import asks for the file's passphrase only.
fn open_home(lab: &Lab) -> Home {
    let home = lab.home();
    home.unattended()
        .args(["key", "generate", "--role", "first"])
        .run()
        .ok();
    home.unattended()
        .args(["unlock", "--for", "10m"])
        .run()
        .ok();
    home
}

fn import(home: &Home, file: &Path, passphrase: &str, more: &[&str]) -> Output {
    home.with_descriptors(&[(3, passphrase)])
        .args(["key", "import", "--passphrase-fd", "3"])
        // A root key goes into the other keyring, which is never held open.
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .arg(file)
        .args(more)
        .run()
}

fn key(home: &Home, id: &str) -> Option<Value> {
    home.keys().into_iter().find(|key| key["id"] == id)
}

#[test]
fn every_form_of_key_file_is_taken_in() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    for (file, passphrase, more, role, id) in [
        (
            "root-ecdsa-p256.key",
            "rootpass123",
            "",
            "root",
            "873cf6188180eca5ea1a42e7031178dd971eef6272508ec7c58c7acf06d794f7",
        ),
        (
            "targets-ecdsa-p256-with-gun.key",
            "targetspass123",
            "",
            "targets",
            "993a3d026288d6c12ee82952b3662894aaf52939c81e9da521c4c5170360d2a0",
        ),
        (
            "generate-output-targets-key.pem",
            "delegpass123",
            "--gun docker.io/library/out",
            "targets",
            "a2ae70d6b771ef71a589d97cc3aaeb8ffb9bb91308301f5be2b1e6d2a6036f23",
        ),
        (
            "legacy-dekinfo-aes256cbc.pem",
            "targetspass123",
            "--role targets --gun docker.io/library/x",
            "targets",
            "d03c6cc5472cdf701208db919ed63663bf8a12fb57351d79c31a1c77057a5740",
        ),
        (
            "imported-rsa2048-alice.key",
            "delegpass123",
            "",
            "alice",
            "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db",
        ),
        (
            "imported-p384-bob.key",
            "delegpass123",
            "",
            "bob",
            "10deb8ac87a1f5c1bc3d034c4851622cdac6687a2ab6c7a45b60ed7773daaf33",
        ),
        (
            "imported-ed25519-edd.key",
            "delegpass123",
            "",
            "edd",
            "b9fe8d4b54e73abb584e2015aaa447047e53282f491dcc70c40d2474d3096a21",
        ),
    ] {
        let more: Vec<&str> = more.split_whitespace().collect();
        import(&home, &fixture(file), passphrase, &more).ok();
        let key = key(&home, id).unwrap_or_else(|| panic!("{file}: no {id}"));
        assert_eq!(key["role"], role, "{file}");
        assert!(
            home.path().join("keys").join(format!("{id}.age")).is_file(),
            "{file}"
        );
    }
    assert_eq!(home.keys().len(), 8);
}

#[test]
fn plain_keys_of_openssl_are_taken_in_with_the_role_they_are_given() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    for (file, role, algorithm, id) in [
        (
            "import-src-sec1-p256.pem",
            "carol",
            "p256",
            "d03c6cc5472cdf701208db919ed63663bf8a12fb57351d79c31a1c77057a5740",
        ),
        (
            "import-src-rsa2048-pkcs8.pem",
            "alice",
            "rsa2048",
            "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db",
        ),
        (
            "import-src-sec1-p384.pem",
            "bob",
            "p384",
            "10deb8ac87a1f5c1bc3d034c4851622cdac6687a2ab6c7a45b60ed7773daaf33",
        ),
        (
            "import-src-ed25519-legacy.pem",
            "edd",
            "ed25519",
            "b9fe8d4b54e73abb584e2015aaa447047e53282f491dcc70c40d2474d3096a21",
        ),
    ] {
        home.unattended()
            .args(["key", "import", "--role", role])
            .arg(fixture(file))
            .run()
            .ok();
        let key = key(&home, id).unwrap_or_else(|| panic!("{file}: no {id}"));
        assert_eq!(key["role"], role, "{file}");
        assert_eq!(key["algorithm"], algorithm, "{file}");
    }
    // A key that is there is not written over, whatever the second file calls it.
    let before = files(&home.path().join("keys"));
    let again = home
        .unattended()
        .args(["key", "import", "--role", "mallory"])
        .arg(fixture("import-src-sec1-p256.pem"))
        .run();
    assert_ne!(again.code(), Some(0), "{}", again.text());
    assert_eq!(files(&home.path().join("keys")), before);
}

#[test]
fn an_export_bundle_is_taken_in_as_far_as_its_passphrases_are_known() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    let bundle = fixture("export-bundle.pem");
    let partial = home
        .signet()
        .env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "delegpass123")
        .args(["--no-input", "--json", "key", "import"])
        .arg(&bundle)
        .run()
        .exits(8);
    let line = partial.stderr.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(line).expect("JSON");
    let missing = &error["error"]["missing"];
    assert_eq!(missing.as_array().map(Vec::len), Some(1), "{error:#}");
    assert_eq!(missing[0]["exit"], 5, "{error:#}");
    assert!(
        missing[0]["what"].to_string().contains("d03c6cc"),
        "{error:#}"
    );
    assert_eq!(home.keys().len(), 4);

    home.signet()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            "targetspass123",
        )
        .args(["--no-input", "key", "import"])
        .arg(&bundle)
        .run();
    assert_eq!(home.keys().len(), 5);
}

#[test]
fn whole_directories_of_docker_are_taken_in_flat_or_legacy() {
    let lab = Lab::builder().build();
    let flat = lab.fresh_dir("private");
    let legacy = lab.fresh_dir("private");
    let tree = fixture("docker-trust");
    let mut count = 0;
    for (path, content) in files(&tree) {
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        count += 1;
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        fs::write(flat.join(&name), &content).expect("the lab's directory is ours");
        // The old layout: by role, and the repository as directories.
        let text = String::from_utf8(content).expect("it is text");
        let below = if text.contains("role: root") {
            legacy.join("root_keys")
        } else if text.contains("role: targets") {
            legacy.join("tuf_keys/127.0.0.1:5000/acme/app")
        } else {
            legacy.join("tuf_keys")
        };
        fs::create_dir_all(&below).expect("the lab's directory is ours");
        let alias = if text.contains("role: root") {
            "_root"
        } else if text.contains("role: targets") {
            "_targets"
        } else {
            "_alice"
        };
        let bare: String = text
            .lines()
            .filter(|line| !line.starts_with("role: ") && !line.starts_with("gun: "))
            .filter(|line| !line.is_empty())
            .map(|line| format!("{line}\n"))
            .collect();
        let name = name.replace(".key", &format!("{alias}.key"));
        fs::write(below.join(name), bare).expect("the lab's directory is ours");
    }
    assert_eq!(count, 3);
    for dir in [&flat, &legacy] {
        let home = open_home(&lab);
        let before = files(dir);
        home.unattended()
            .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "rootpass123")
            .env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "repopass123")
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["key", "import"])
            .arg(dir)
            .run()
            .ok();
        assert_eq!(files(dir), before, "the source is left as it was");
        let mut found: Vec<String> = home
            .keys()
            .iter()
            .map(|key| format!("{} {}", key["role"], key["gun"]))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "\"alice\" null",
                "\"first\" null",
                "\"root\" null",
                "\"targets\" \"127.0.0.1:5000/acme/app\""
            ],
            "{}",
            dir.display()
        );
    }
}

#[test]
fn what_is_no_good_key_file_is_named_and_nothing_is_written() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    let before = files(&home.path().join("keys"));
    let good = fs::read(fixture("targets-ecdsa-p256-with-gun.key")).expect("it is there");
    let text = String::from_utf8(good.clone()).expect("it is text");
    let id = "993a3d026288d6c12ee82952b3662894aaf52939c81e9da521c4c5170360d2a0";
    let other = "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db";
    let mut binary = good.clone();
    binary[40] = 0xff;
    let cases: [(&str, Vec<u8>); 9] = [
        ("empty.key", Vec::new()),
        ("truncated.key", good[..good.len() / 2].to_vec()),
        ("no-utf8.key", binary),
        ("oversized.key", vec![b'A'; 20 << 20]),
        ("nonsense.key", b"hello\n".to_vec()),
        ("not-base64.key", text.replace("MI", "!!").into_bytes()),
        (
            "role.key",
            text.replace("role: targets", "role: ../../x").into_bytes(),
        ),
        (
            "gun.key",
            text.replace("library/vec1", "library/../1").into_bytes(),
        ),
        // Right in itself, but called by another key's name.
        (&format!("{other}.key"), good.clone()),
    ];
    for (name, content) in cases {
        let file = home.user_home().join(name);
        fs::write(&file, content).expect("the home is ours");
        let output = import(&home, &file, "targetspass123", &[]);
        assert!(
            matches!(output.code(), Some(1 | 2)),
            "{name}: {}",
            output.text()
        );
        assert!(
            output.stderr.contains(name),
            "{name} is not named: {}",
            output.stderr
        );
        assert!(output.stderr.len() < 2000, "{name}: {}", output.stderr);
        assert_eq!(files(&home.path().join("keys")), before, "{name}");
    }
    let file = home.user_home().join(format!("{id}.key"));
    fs::write(&file, &good).expect("the home is ours");
    import(&home, &file, "wrong", &[])
        .exits(5)
        .says("passphrase");
    // What only OpenSSL can open says so much at least.
    let foreign = import(
        &home,
        &fixture("reject-pbkdf2-hmacsha256.pem"),
        "targetspass123",
        &[],
    );
    assert!(matches!(foreign.code(), Some(1 | 5)), "{}", foreign.text());
    import(&home, Path::new("/nonexistent.key"), "x", &[])
        .exits(1)
        .says("/nonexistent.key");
    assert_eq!(files(&home.path().join("keys")), before);
    import(&home, &file, "targetspass123", &[]).ok();
}

#[test]
fn keys_are_made_of_every_kind_and_found_by_every_name() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    let generate = |args: &[&str]| {
        home.signet()
            .args(["--no-input", "key", "generate"])
            .args(args)
            .run()
    };
    let gun = "registry.example.com/acme/app";
    for algorithm in ["p256", "p384", "rsa2048", "ed25519"] {
        let label = format!("my-{algorithm}");
        let label = label.as_str();
        generate(&[
            "--role",
            algorithm,
            "--algorithm",
            algorithm,
            "--label",
            label,
        ])
        .ok()
        // Where it went is said.
        .says("file");
    }
    generate(&["--role", "targets", "--gun", gun]).ok();
    let show = |name: &str| home.signet().args(["--json", "key", "show", name]).run();
    let targets = home.key_id("targets");
    for name in [
        &targets,
        &targets[..7],
        &format!("targets@{gun}"),
        "my-p384",
    ] {
        show(name).ok();
    }
    assert_eq!(show("my-rsa2048").ok().json()["algorithm"], "rsa2048");
    show("nothing-of-that-name").exits(2);
    // Six digits are too few, even where they would do.
    show(&targets[..6]).exits(2);

    home.signet()
        .args(["key", "label", "my-p384", "the second"])
        .run()
        .ok();
    show("the second").ok();
    // One label names one key.
    home.signet()
        .args(["key", "label", "my-p256", "the second"])
        .run()
        .exits(2);

    let public = home
        .signet()
        .args(["key", "export", "--public", "my-p256"])
        .run()
        .ok();
    assert!(public.stdout.starts_with("-----BEGIN PUBLIC KEY-----\n"));

    // Deleting is a question.
    home.signet()
        .args(["--no-input", "key", "remove", "my-p256"])
        .run()
        .exits(5);
    home.signet()
        .args(["--no-input", "--yes", "key", "remove", "my-p256"])
        .run()
        .ok();
    show("my-p256").exits(2);
    assert_eq!(home.keys().len(), 5);
}

#[test]
fn keys_in_dockers_directory_are_made_opened_and_re_encrypted_there() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let private = home.docker_config().join("trust/private");
    home.signet()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            "the old passphrase",
        )
        .args([
            "--no-input",
            "key",
            "generate",
            "--role",
            "alice",
            "--store",
            "docker",
        ])
        .run()
        .ok();
    assert!(
        !home.path().join("keyring.age").exists(),
        "no keyring was needed"
    );
    let id = home.key_id("alice");
    let file = private.join(format!("{id}.key"));
    let old = fs::read_to_string(&file).expect("it is there");
    assert!(
        old.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\nrole: alice\n\n"),
        "{old}"
    );
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let change = |from: &str, to: &str| {
        home.with_descriptors(&[(3, from), (4, to)])
            .args(["key", "passphrase", &id, "--new-passphrase-fd", "4"])
            .args(["--passphrase-fd", &format!("{id}:3")])
            .run()
    };
    change("a wrong passphrase", "the new passphrase").exits(5);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), old);
    change("the old passphrase", "the new passphrase").ok();
    assert_ne!(fs::read_to_string(&file).expect("it is there"), old);
    change("the old passphrase", "the newest passphrase").exits(5);
    change("the new passphrase", "the newest passphrase").ok();
}

#[test]
fn the_keyrings_passphrase_and_identity_change_and_the_keys_stay() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    let id = home.key_id("first");
    let export = |passphrase: &str| {
        home.signet().arg("lock").run().ok();
        home.with_descriptors(&[(3, passphrase), (4, "for the export")])
            .args(["key", "export", "--format", "docker", &id])
            .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
            .run()
    };
    export(KEYRING_PASSPHRASE).ok();
    let change = |from: &str, to: &str| {
        home.with_descriptors(&[(3, from), (4, to)])
            .args(["keyring", "passphrase"])
            .args(["--passphrase-fd", "3", "--new-passphrase-fd", "4"])
            .run()
    };
    change("wrong", "another passphrase").exits(5);
    change(KEYRING_PASSPHRASE, "another passphrase").ok();
    export(KEYRING_PASSPHRASE).exits(5);
    export("another passphrase").ok();

    let sealed = home.path().join("keys").join(format!("{id}.age"));
    let before = fs::read(&sealed).expect("it is there");
    home.with_descriptors(&[(3, "another passphrase")])
        .args(["keyring", "rotate", "--passphrase-fd", "3"])
        .run()
        .ok();
    assert_ne!(fs::read(&sealed).expect("it is there"), before);
    export("another passphrase").ok();
    assert_eq!(home.key_id("first"), id);
}

#[test]
fn a_keyring_that_is_gone_is_an_error_and_never_made_anew() {
    let lab = Lab::builder().build();
    let home = open_home(&lab);
    home.signet().args(["agent", "stop"]).run().ok();
    let keyring = home.path().join("keyring.age");
    fs::remove_file(&keyring).expect("it is there");
    let output = home
        .unattended()
        .args(["key", "generate", "--role", "second"])
        .run();
    assert!(matches!(output.code(), Some(1 | 5)), "{}", output.text());
    assert!(output.stderr.contains("keyring.age"), "{}", output.stderr);
    assert!(!keyring.exists());
}
