//! Bad input: a clear error that names the file, role or URL and what is wrong, an exit code of the
//! contract, and nothing written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use signet_tests::lab::command::clean;
use signet_tests::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Fault, Home, Lab, Output, Run};

const GUN: &str = "registry.example.com/acme/app";

/// Signs a tag, unattended.
fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.unattended();
    command
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE]);
    command
}

/// Signs a tag with keys in Docker's directory.
fn sign_in_docker(home: &Home, tag: &str) -> Command {
    let mut command = home.signet();
    command
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--no-input", "sign", &format!("{GUN}:{tag}@{DIGEST}")])
        .args(["--size", SIZE]);
    command
}

fn verify(home: &Home, tag: &str) -> Command {
    let mut command = home.signet();
    command.args(["verify", &format!("{GUN}:{tag}")]);
    command
}

/// Every file that matters: all but the ledger, which logs failures, and locks.
fn state(home: &Home) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = files(&home.path());
    all.retain(|path, _| {
        let name = path.strip_prefix(home.path()).expect("below the home");
        let name = name.to_string_lossy();
        !name.starts_with("ledger.sqlite") && !name.starts_with("lock/") && name != "agent.lock"
    });
    all.extend(files(home.docker_config()));
    all
}

/// Fails with this code, names this, and writes nothing.
#[track_caller]
fn fails(home: &Home, what: &str, command: &mut Command, code: i32, names: &str) -> Output {
    let before = state(home);
    let output = command.run();
    assert_eq!(output.code(), Some(code), "{what}: {}", output.text());
    assert!(
        output.stderr.contains(names),
        "{what}: {names} is not named: {}",
        output.stderr
    );
    assert!(output.stderr.len() < 4000, "{what}: {}", output.stderr);
    assert!(
        !output.stderr.contains("panicked"),
        "{what}: {}",
        output.stderr
    );
    let after = state(home);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{what} wrote {changed:?}");
    output
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_named() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let newcomer = lab.home();
    lab.trust_host(newcomer.docker_config(), proxy.host());

    let error = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you","detail":null}]}"#;
    let cases = [
        ("401", Fault::Status(401, error), 1),
        ("403", Fault::Status(403, error), 1),
        ("500", Fault::Status(500, r#"{"errors":[]}"#), 1),
        ("503 without JSON", Fault::Status(503, "down"), 1),
        ("HTML", Fault::Html, 1),
        ("endless", Fault::Endless, 1),
        ("cut at once", Fault::Cut(0), 1),
        ("cut half-way", Fault::Cut(200), 1),
        ("no answer", Fault::Drop, 1),
        ("not JSON", Fault::Body(b"{\"signed\":".to_vec()), 3),
        (
            "not UTF-8",
            Fault::Body(b"{\"signed\":\"\xff\xfe\"}".to_vec()),
            3,
        ),
        (
            "deeply nested",
            Fault::Body([&b"{\"signed\":"[..], &[b'['; 60_000]].concat()),
            3,
        ),
        (
            "another type",
            Fault::Body(b"{\"signed\":{},\"signatures\":[]}".to_vec()),
            3,
        ),
        ("empty", Fault::Body(Vec::new()), 1),
    ];
    for (what, fault, code) in cases {
        for file in ["root", "timestamp", "snapshot", "targets"] {
            proxy.behave();
            proxy.on(&format!("GET */{file}.*json"), fault.clone());
            proxy.on(&format!("GET */{file}.json"), fault.clone());
            let what = format!("{what}, {file}");
            let through = |command: &mut Command| {
                command.env("DOCKER_CONTENT_TRUST_SERVER", proxy.url());
            };
            let mut command = verify(&newcomer, "v1");
            through(&mut command);
            let named = if code == 1 { proxy.host() } else { GUN };
            fails(&newcomer, &what, &mut command, code, named);
            // Those who sign have all but the timestamp in their cache.
            if file == "timestamp" {
                let mut command = sign(&home, "v2");
                through(&mut command);
                fails(&home, &what, &mut command, code, named);
            }
        }
    }
    proxy.behave();
    let mut command = verify(&newcomer, "v1");
    command
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .run()
        .ok();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let lab = Lab::builder().build();
    let home = lab.home();
    for (server, code, names) in [
        ("https://127.0.0.1:1", 1, "127.0.0.1:1"),
        ("https://trust.invalid", 1, "trust.invalid"),
        ("http://127.0.0.1:1", 2, "https"),
        ("nonsense", 2, "https"),
        ("https://", 2, "https://"),
    ] {
        for mut command in [verify(&home, "v1"), sign(&home, "v1")] {
            command.env("DOCKER_CONTENT_TRUST_SERVER", server);
            fails(&home, server, &mut command, code, names);
        }
    }
    assert!(
        !home.path().join("keyring.age").exists(),
        "a server is asked before keys are made"
    );
}

#[test]
fn an_upload_that_is_refused_is_named_and_costs_no_key() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let cases = [
        ("401", Fault::Status(401, "{}")),
        ("404", Fault::Status(404, "{}")),
        ("413", Fault::Status(413, "too large")),
        ("500", Fault::Status(500, "{}")),
        ("HTML", Fault::Html),
        ("endless", Fault::Endless),
        ("no answer", Fault::Drop),
        (
            "another reason",
            Fault::Status(
                400,
                r#"{"errors":[{"code":"INVALID_UPDATE","message":"Update sent by the client is invalid.","detail":"x"}]}"#,
            ),
        ),
    ];
    for (what, fault) in cases {
        proxy.behave();
        proxy.on("POST *", fault);
        let mut command = sign(&home, "v2");
        command.env("DOCKER_CONTENT_TRUST_SERVER", proxy.url());
        let host = proxy.host().to_owned();
        fails(&home, what, &mut command, 1, &host);
    }
    proxy.behave();
    sign(&home, "v2")
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .run()
        .ok();
    assert_eq!(home.keys().len(), 2);
}

#[test]
fn names_out_of_form_are_usage_errors_before_anything_is_asked() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let long = "a".repeat(300);
    let images = [
        "registry.example.com/Acme/app:v1",
        "registry.example.com/acme//app:v1",
        "registry.example.com/acme/app:",
        "registry.example.com/acme/app:v 1",
        "registry.example.com/acme/app:v1/../v2",
        "registry.example.com/acme/../../etc:v1",
        "registry.example.com/acme/app:-v1",
        "registry.example.com/acme/app\u{202e}:v1",
        "https://registry.example.com/acme/app:v1",
        "*",
        "",
        &format!("registry.example.com/{long}:v1"),
        &format!("registry.example.com/app:{long}"),
    ];
    for image in images {
        for verb in ["verify", "inspect", "revoke", "push", "sign"] {
            let mut command = home.unattended();
            command.args([verb, image]);
            let output = fails(&home, image, &mut command, 2, "");
            assert!(!output.stderr.trim().is_empty(), "{verb} {image}");
            assert!(!output.stderr.contains('\u{202e}'), "{}", output.stderr);
        }
    }
    for digest in [
        "sha256:abc",
        "md5:00",
        &format!("sha256:{}", "G".repeat(64)),
    ] {
        let mut command = home.unattended();
        command.args(["sign", &format!("{GUN}:v1@{digest}"), "--size", SIZE]);
        fails(&home, digest, &mut command, 2, "sha256:");
    }
    for size in ["-1", "x", "99999999999999999999"] {
        let mut command = home.unattended();
        command.args(["sign", &format!("{GUN}:v1@{DIGEST}"), "--size", size]);
        fails(&home, size, &mut command, 2, "size");
    }
    for gun in ["*", "../../etc", "a b", &long] {
        let mut command = home.unattended();
        command.args(["key", "generate", "--role", "targets", "--gun", gun]);
        let output = command.run();
        assert_eq!(output.code(), Some(2), "{gun}: {}", output.text());
    }
    for role in ["../x", "a b", "", "targets/a/../b", "A"] {
        let mut command = home.unattended();
        command.args(["key", "generate", "--role", role]);
        let output = command.run();
        assert_eq!(output.code(), Some(2), "{role}: {}", output.text());
    }
    assert!(!home.path().join("keyring.age").exists(), "no key was made");
}

#[test]
fn a_wrong_passphrase_writes_nothing() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let wrong = home.user_home().join("wrong");
    fs::write(&wrong, "not the passphrase\n").expect("the home is ours");
    home.signet().arg("lock").run().ok();
    let with = |args: &[&str]| {
        let mut command = home.signet();
        command
            .arg("--no-input")
            .env("SIGNET_PASSPHRASE_FILE", &wrong)
            .env("SIGNET_ROOT_PASSPHRASE_FILE", &wrong)
            .args(args);
        command
    };
    let image = format!("{GUN}:v2@{DIGEST}");
    let other = format!("registry.example.com/acme/other:v2@{DIGEST}");
    for args in [
        &["sign", &image, "--size", SIZE][..],
        // Another repository: the root keyring is asked for.
        &["sign", &other, "--size", SIZE],
        &["unlock"],
        &["key", "generate", "--role", "alice"],
        &["keyring", "rotate"],
        &["keyring", "rotate", "--root"],
    ] {
        fails(&home, args[0], &mut with(args), 5, "passphrase");
    }
    sign(&home, "v2").run().ok();
}

/// Docker's key directory, with the keys of one repository in it.
fn docker_home(lab: &Lab) -> (Home, PathBuf, String) {
    let home = lab.home();
    sign_in_docker(&home, "v1")
        .args(["--store", "docker"])
        .run()
        .ok();
    let private = home.docker_config().join("trust/private");
    let targets = home.key_id("targets");
    (home, private, targets)
}

#[test]
fn bad_files_in_dockers_directory_are_named_and_left_alone() {
    let lab = Lab::builder().notary().build();
    let (home, private, targets) = docker_home(&lab);
    let good = fs::read(private.join(format!("{targets}.key"))).expect("docker's key");
    let text = String::from_utf8(good.clone()).expect("PEM");
    let id = |digit: char| digit.to_string().repeat(64);
    let mut binary = good.clone();
    binary[80] = 0xff;
    let cases: Vec<(String, Vec<u8>)> = vec![
        (format!("{}.key", id('1')), Vec::new()),
        (format!("{}.key", id('2')), good[..good.len() / 2].to_vec()),
        (format!("{}.key", id('3')), vec![b'A'; 64 << 20]),
        (format!("{}.key", id('4')), binary),
        (
            format!("{}.key", id('5')),
            b"-----BEGIN PRIVATE KEY-----\n".to_vec(),
        ),
        (format!("{}.key", id('6')), {
            let der = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff].repeat(8);
            pem("ENCRYPTED PRIVATE KEY", &der).into_bytes()
        }),
        ("not-an-id.key".to_owned(), good.clone()),
        (
            format!("{}.key", id('8')),
            text.replace("role: targets", "role: ../../x").into_bytes(),
        ),
    ];
    for (name, content) in &cases {
        fs::write(private.join(name), content).expect("the directory is ours");
    }
    fs::create_dir(private.join(format!("{}.key", id('9')))).expect("the directory is ours");
    symlink("/etc/passwd", private.join(format!("{}.key", id('a')))).expect("it is ours");
    let before = state(&home);

    let list = home.signet().args(["key", "list"]).run().ok();
    let listed = list.text();
    for name in [
        id('1'),
        id('2'),
        id('3'),
        id('5'),
        "not-an-id".to_owned(),
        id('a'),
    ] {
        assert!(
            listed.contains(&name[..8]),
            "{name} is not named:\n{listed}"
        );
    }
    assert!(listed.len() < 20_000, "{}", listed.len());
    // They stand in nobody's way.
    sign_in_docker(&home, "v2").run().ok();
    let keys = |state: BTreeMap<PathBuf, Vec<u8>>| {
        state
            .into_iter()
            .filter(|(path, _)| path.starts_with(&private))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(keys(before), keys(state(&home)), "nothing was touched");
}

#[test]
fn the_key_that_is_needed_being_damaged_or_anothers_is_said_of_its_file() {
    let lab = Lab::builder().notary().build();
    let (home, private, targets) = docker_home(&lab);
    let file = private.join(format!("{targets}.key"));
    let good = fs::read(&file).expect("docker's key");
    let made = home
        .signet()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args([
            "--no-input",
            "--json",
            "key",
            "generate",
            "--store",
            "docker",
        ])
        .args(["--role", "targets", "--gun", GUN])
        .run()
        .ok()
        .json();
    let other = made["id"].as_str().expect("an ID").to_owned();
    let other = fs::read(private.join(format!("{other}.key"))).expect("docker's key");
    let mut flipped = good.clone();
    let at = flipped.len() - 60;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    home.signet().arg("lock").run().ok();
    for (what, content, codes) in [
        ("truncated", good[..good.len() / 2].to_vec(), &[1][..]),
        ("empty", Vec::new(), &[1]),
        ("oversized", vec![b'A'; 64 << 20], &[1]),
        ("of another key", other, &[1]),
        // No integrity check: the passphrase or the file.
        ("with a byte flipped", flipped, &[1, 5]),
    ] {
        fs::write(&file, content).expect("the directory is ours");
        let before = state(&home);
        let output = sign_in_docker(&home, "v2").run();
        let code = output.code().unwrap_or_default();
        assert!(codes.contains(&code), "{what}: {}", output.text());
        assert!(
            output.stderr.contains(&targets[..7]),
            "{what}: the key is not named: {}",
            output.stderr
        );
        assert_eq!(before, state(&home), "{what}");
    }
    fs::write(&file, good).expect("the directory is ours");
    sign_in_docker(&home, "v2").run().ok();
}

#[test]
fn a_wrong_passphrase_for_a_key_of_dockers_says_that_it_may_be_damaged() {
    let lab = Lab::builder().notary().build();
    let (home, _, targets) = docker_home(&lab);
    home.signet().arg("lock").run().ok();
    let mut command = sign_in_docker(&home, "v2");
    command.env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "wrong one");
    let said = fails(&home, "wrong", &mut command, 5, "damaged");
    assert!(said.stderr.contains(&targets[..7]), "{}", said.stderr);
}

#[test]
fn native_files_that_are_damaged_or_swapped_are_named() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let targets = home.key_id("targets");
    let other = home
        .unattended()
        .args([
            "--json", "key", "generate", "--role", "targets", "--gun", GUN,
        ])
        .run()
        .ok()
        .json();
    let other = other["id"].as_str().expect("an ID").to_owned();
    let key = |id: &str| home.path().join("keys").join(format!("{id}.age"));
    home.signet().args(["agent", "stop"]).run().ok();

    let keyring = home.path().join("keyring.age");
    for (what, file, content, names) in [
        ("truncated", key(&targets), Bad::Truncated, &targets[..]),
        ("flipped", key(&targets), Bad::Flipped, &targets),
        ("empty", key(&targets), Bad::Bytes(Vec::new()), &targets),
        (
            "oversized",
            key(&targets),
            Bad::Bytes(vec![b'a'; 64 << 20]),
            &targets,
        ),
        (
            "another key's",
            key(&targets),
            Bad::Bytes(fs::read(key(&other)).expect("it is there")),
            &targets,
        ),
        (
            "keyring truncated",
            keyring.clone(),
            Bad::Truncated,
            "keyring.age",
        ),
        (
            "keyring flipped",
            keyring.clone(),
            Bad::Flipped,
            "keyring.age",
        ),
        (
            "keyring oversized",
            keyring.clone(),
            Bad::Bytes(vec![b'a'; 64 << 20]),
            "keyring.age",
        ),
        (
            "keyring is the root one",
            keyring.clone(),
            Bad::Bytes(fs::read(home.path().join("root.age")).expect("it is there")),
            "",
        ),
    ] {
        let good = fs::read(&file).expect("it is there");
        fs::write(&file, content.of(&good)).expect("the home is ours");
        fails(&home, what, &mut sign(&home, "v2"), 1, names);
        home.signet().args(["agent", "stop"]).run().ok();
        fs::write(&file, good).expect("the home is ours");
    }
    sign(&home, "v2").run().ok();
}

/// What becomes of a file.
enum Bad {
    Truncated,
    Flipped,
    Bytes(Vec<u8>),
}

impl Bad {
    fn of(self, good: &[u8]) -> Vec<u8> {
        match self {
            Self::Truncated => good[..good.len() - 7].to_vec(),
            Self::Flipped => {
                let mut bytes = good.to_vec();
                let last = bytes.len() - 3;
                bytes[last] ^= 1;
                bytes
            }
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[test]
fn a_bad_cache_is_named_or_ignored() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let metadata = home
        .docker_config()
        .join("trust/tuf")
        .join(GUN)
        .join("metadata");
    // Without the root that was trusted there is no going on.
    let root = metadata.join("root.json");
    let good = fs::read(&root).expect("it is cached");
    for content in [
        b"{".to_vec(),
        good[..good.len() - 9].to_vec(),
        vec![b' '; 64 << 20],
    ] {
        fs::write(&root, &content).expect("the cache is ours");
        fails(&home, "root", &mut verify(&home, "v1"), 3, "root");
        fails(&home, "root", &mut sign(&home, "v2"), 3, "root");
    }
    fs::write(&root, good).expect("the cache is ours");
    // The rest is fetched again.
    for name in ["timestamp.json", "snapshot.json", "targets.json"] {
        fs::write(metadata.join(name), b"{\"signed\":\xff").expect("the cache is ours");
        verify(&home, "v1").run().ok();
    }
    sign(&home, "v2").run().ok();
}

#[test]
fn configuration_files_that_cannot_be_read_are_named() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let config = home.user_home().join(".config/signet");
    fs::create_dir_all(&config).expect("the home is ours");
    let docker = home.docker_config().join("config.json");
    let kept = fs::read(&docker).ok();
    for (file, content) in [
        (config.join("config.toml"), &b"[servers\n"[..]),
        (config.join("agent.toml"), b"unlok = \"15m\"\n"),
        (docker.clone(), b"{\"auths\":"),
    ] {
        fs::write(&file, content).expect("the home is ours");
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name");
        let mut command = sign(&home, "v1");
        command.env_remove("DOCKER_CONTENT_TRUST_SERVER");
        let output = command.run();
        assert_ne!(output.code(), Some(0), "{name}");
        assert!(output.stderr.contains(name), "{name}: {}", output.stderr);
        match (&kept, file == docker) {
            (Some(kept), true) => fs::write(&file, kept).expect("the home is ours"),
            _ => fs::remove_file(&file).expect("the home is ours"),
        }
    }
    sign(&home, "v1").run().ok();
}

#[test]
fn a_command_killed_while_it_uploads_costs_nothing_but_the_run() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let victim: Arc<Mutex<Option<Pid>>> = Arc::default();
    let kill = {
        let victim = Arc::clone(&victim);
        Fault::Call(Arc::new(move |_: &_| {
            let pid = victim.lock().expect("no panic holds it").take();
            if let Some(pid) = pid {
                kill_process(pid, Signal::KILL).expect("it is our child");
            }
        }))
    };
    for (number, pattern) in ["GET */timestamp.json", "POST *"].into_iter().enumerate() {
        proxy.behave();
        proxy.on_next(1, pattern, kill.clone());
        let tag = format!("killed{number}");
        // Held until the child's pid is there to be taken.
        let mut held = victim.lock().expect("no panic holds it");
        let mut child = sign(&home, &tag)
            .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
            .spawn()
            .expect("signet runs");
        *held = Some(Pid::from_child(&child));
        drop(held);
        let status = child.wait().expect("it is our child");
        assert_eq!(status.code(), None, "{pattern}: it was killed");
        sign(&home, &format!("after{number}")).run().ok();
        sign(&home, &tag).run().ok();
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let Some(disk) = SmallDisk::at(&home.path()) else {
        return;
    };
    sign(&home, "v1").run().ok();
    let keys = home.keys();

    let filler = home.path().join("filler");
    let fill = || {
        let mut size = 1 << 20;
        let mut content = Vec::new();
        while size > 0 {
            let mut more = content.clone();
            more.resize(content.len() + size, 0);
            if fs::write(&filler, &more).is_ok() {
                content = more;
            } else {
                size /= 2;
            }
        }
        fs::write(&filler, content).expect("as much as went in before");
    };
    fill();
    let failed = sign(&home, "v2").run();
    assert_eq!(failed.code(), Some(1), "{}", failed.text());
    assert!(
        failed.stderr.contains("full") || failed.stderr.contains("space"),
        "{}",
        failed.stderr
    );
    let failed = home
        .unattended()
        .args(["key", "generate", "--role", "alice"])
        .run();
    assert_eq!(failed.code(), Some(1), "{}", failed.text());
    assert_eq!(
        lab.notary_list(lab.trust_server(), GUN).len(),
        1,
        "nothing was published that could not be recorded"
    );

    fs::remove_file(&filler).expect("the home is ours");
    assert_eq!(home.keys(), keys, "no key was lost, none half-made");
    sign(&home, "v2").run().ok();
    let left: Vec<_> = files(&home.path())
        .into_keys()
        .filter(|path| path.extension().is_some_and(|kind| kind == "tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    drop(home);
    drop(disk);
}

/// A command that only root may run: by sudo, where that asks nothing.
fn as_root(program: &str) -> Command {
    if rustix::process::getuid().is_root() {
        return clean(program);
    }
    let mut command = clean("sudo");
    command.args(["-n", program]);
    command
}

/// A file system of two megabytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted over a directory; where that is not allowed, the test says so, and does nothing.
    fn at(dir: &Path) -> Option<Self> {
        // The one thing here that only root can do.
        let owner = format!(
            "size=2m,mode=0700,uid={},gid={}",
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw()
        );
        let mounted = as_root("mount")
            .args(["-t", "tmpfs", "-o", &owner, "tmpfs"])
            .arg(dir)
            .run();
        if mounted.code() != Some(0) {
            let said = format!("NOT TESTED: a full disk needs mount: {}", mounted.stderr);
            let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
            return None;
        }
        Some(Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root("umount").arg("--lazy").arg(&self.0).run();
    }
}

/// A PEM block.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
