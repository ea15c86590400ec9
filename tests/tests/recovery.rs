//! Keys come back without Signet: with age, and the tools that were there before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Home, Lab, Run, Terminal};

const GUN: &str = "registry.example.com/acme/app";

/// `age -d -i KEYRING keys/ID.age`, the passphrase typed.
fn decrypt(home: &Home, keyring: &str, id: &str) -> PathBuf {
    let plain = home.user_home().join(format!("{id}.pem"));
    let mut age = clean("age");
    age.arg("-d").arg("-o").arg(&plain).arg("-i");
    age.arg(home.path().join(keyring));
    age.arg(home.path().join("keys").join(format!("{id}.age")));
    let mut terminal = Terminal::start(age);
    terminal.answer("(?i)passphrase", KEYRING_PASSPHRASE);
    terminal.exits(0);
    // Docker refuses key files that others can read.
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).expect("it is ours");
    plain
}

fn import(lab: &Lab, trust: &Path, file: &Path) {
    lab.notary(trust)
        .args(["key", "import"])
        .arg(file)
        .run()
        .ok();
}

#[test]
fn age_and_notary_recover_native_keys_without_signet() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    home.signs(&format!("{GUN}:v1"));
    let (targets, root) = (home.key_id("targets"), home.key_id("root"));
    home.signet().args(["agent", "stop"]).run().ok();

    let trust = lab.fresh_dir("n");
    let targets_file = decrypt(&home, "keyring.age", &targets);
    let text = fs::read_to_string(&targets_file).expect("it is text");
    assert!(
        text.starts_with("-----BEGIN PRIVATE KEY-----\ngun: "),
        "no headers"
    );
    assert!(
        text.contains(&format!("gun: {GUN}\nrole: targets\n\n")),
        "no headers"
    );
    import(&lab, &trust, &targets_file);
    assert!(
        trust
            .join("private")
            .join(format!("{targets}.key"))
            .is_file()
    );
    let digest = DIGEST.trim_start_matches("sha256:");
    lab.notary(&trust)
        .args(["addhash", GUN, "v2", SIZE, "--sha256", digest, "--publish"])
        .run()
        .ok();

    // The root key is in the other keyring; it signs a new root.
    let root_file = decrypt(&home, "root.age", &root);
    import(&lab, &trust, &root_file);
    lab.notary(&trust)
        .args(["key", "rotate", GUN, "targets"])
        .run()
        .ok();
    let rows = lab.notary_list(lab.trust_server(), GUN);
    let tags: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(tags, ["v1", "v2"]);
}

#[test]
fn the_repository_keyring_does_not_open_root_keys() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.unattended()
        .args(["key", "generate", "--role", "root"])
        .run()
        .ok();
    let id = home.key_id("root");
    let mut age = clean("age");
    age.arg("-d").arg("-i").arg(home.path().join("keyring.age"));
    age.arg(home.path().join("keys").join(format!("{id}.age")));
    let mut terminal = Terminal::start(age);
    terminal.answer("(?i)passphrase", KEYRING_PASSPHRASE);
    let said = terminal.exits(1);
    assert!(said.contains("no identity matched"), "{said}");
    assert!(!said.contains("PRIVATE KEY"));
}
