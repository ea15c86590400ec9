//! What a restore brings back and what it leaves away; shares; and everything that goes wrong on the
//! way, with the key directories as they were.

mod cards;
mod guide;
mod hostile;
mod shares;
mod tombstones;

use std::fs;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519;
use serde_json::Value;
use signet_tests::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::files;
use signet_tests::{Home, Lab, Output, Run};

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

/// A backup of a home, to an identity that lies beside it: no passphrase to derive keys from.
fn backup(lab: &Lab, home: &Home) -> PathBuf {
    let dir = lab.fresh_dir("b");
    let file = dir.join("keys.age");
    let identity = x25519::Identity::generate();
    let secret = identity.to_string();
    write(&identity_of(&file), secret.expose_secret().as_bytes());
    let recipient = identity.to_public().to_string();
    let create = ["backup", "create", "-r", &recipient, "-o", text(&file)];
    signet(home, "", &create).ok();
    file
}

/// The file of the identity that opens such a backup.
fn identity_of(file: &Path) -> PathBuf {
    file.with_extension("txt")
}

/// `signet restore` of such a backup.
fn restore(home: &Home, flags: &[&str], file: &Path) -> Output {
    let identity = identity_of(file);
    let args = [&["restore", "-i", text(&identity)], flags, &[text(file)]].concat();
    signet(home, "", &args)
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

/// What the log says, newest last: kind, grade and summary.
fn logged(home: &Home) -> Vec<(String, u64, String)> {
    let log = home.log();
    let entries = log["entries"].as_array().expect("entries");
    entries
        .iter()
        .map(|entry| {
            let text = |name: &str| match &entry[name] {
                Value::Array(lines) => {
                    let lines = lines.iter().filter_map(Value::as_str);
                    lines.collect::<Vec<_>>().join("\n")
                }
                other => other.as_str().unwrap_or_default().to_owned(),
            };
            let grade = entry["grade"].as_u64().unwrap_or_default();
            (text("kind"), grade, text("summary"))
        })
        .collect()
}

/// Overwrites a file of the lab.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the lab is ours");
}
