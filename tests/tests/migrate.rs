//! Keys that move between two homes, by files: signed with on the new host afterwards, refused on
//! the old one.

#[path = "migrate/bad.rs"]
mod bad;
#[path = "migrate/cards.rs"]
mod cards;
#[path = "migrate/clock.rs"]
mod clock;
#[path = "migrate/guide.rs"]
mod guide;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_tests::lab::ssh::SSH_HOST;
use signet_tests::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::files;
use signet_tests::{Cli, Home, Lab, Output, Run};

/// `signet migrate`, unattended, with every passphrase of the keys.
fn prepared(home: &Home) -> Command {
    let mut command = home.unattended();
    command
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--yes", "migrate"]);
    command
}

fn migrate(home: &Home, args: &[&str]) -> Output {
    prepared(home).args(args).run()
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
        home.unattended()
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            )
            .args(["key", "generate"])
            .args(args)
            .run()
            .ok();
    }
    home
}

/// Two homes and a directory for what goes between them.
struct Two {
    old: Home,
    new: Home,
    dir: PathBuf,
}

impl Two {
    fn new(lab: &Lab) -> Self {
        Self {
            old: with_keys(lab),
            new: lab.home(),
            dir: lab.fresh_dir("m"),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Offer and package.
    fn sent(&self) -> PathBuf {
        let (offer, package) = (self.file("offer"), self.file("package"));
        migrate(&self.new, &["receive", "-o", text(&offer)]).ok();
        migrate(&self.old, &["send", text(&offer), "-o", text(&package)]).ok();
        package
    }

    fn received(&self) -> PathBuf {
        let (package, receipt) = (self.sent(), self.file("receipt"));
        migrate(
            &self.new,
            &["receive", text(&package), "-o", text(&receipt)],
        )
        .ok();
        receipt
    }
}

fn migrations(home: &Home) -> Vec<Value> {
    let status = migrate(home, &["--json", "status"]).ok().json();
    status["migrations"].as_array().cloned().unwrap_or_default()
}

fn state(home: &Home) -> String {
    let all = migrations(home);
    let state = all.first().map(|one| one["state"].clone());
    state
        .and_then(|state| Some(state.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Key files of a home, in both stores.
fn key_files(home: &Home) -> Vec<PathBuf> {
    let mut all = files(&home.path().join("keys"));
    all.extend(files(&home.docker_config().join("trust/private")));
    all.into_keys().collect()
}

#[test]
fn keys_move_by_files_and_leave_nothing_behind() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let (offer, package) = (two.file("offer"), two.file("package"));
    let (receipt, note) = (two.file("receipt"), two.file("note"));

    let offered = migrate(&two.new, &["receive", "-o", text(&offer)]).ok();
    let line = fs::read_to_string(&offer).expect("it was written");
    let recipient = line.split(' ').nth(2).expect("its recipient").to_owned();
    offered.says(&recipient);
    assert_eq!(state(&two.new), "offered");

    migrate(&two.old, &["send", text(&offer), "-o", text(&package)])
        .ok()
        .says("both hosts can sign");
    assert_eq!(state(&two.old), "sent");
    two.old
        .signet()
        .arg("status")
        .run()
        .ok()
        .says("3 keys are leaving for");

    migrate(&two.new, &["receive", text(&package), "-o", text(&receipt)]).ok();
    assert_eq!(state(&two.new), "proved");
    let there = two.new.keys();
    assert_eq!(there.len(), 3);
    assert!(
        there.iter().all(|key| key["state"] == "enrolled"),
        "{there:#?}"
    );
    two.new
        .signet()
        .arg("status")
        .run()
        .ok()
        .says("may still hold 3 keys");
    assert_eq!(two.old.keys().len(), 3, "nothing has left yet");
    let identities = files(&two.new.path().join("migration"));
    assert!(identities.is_empty(), "the one-time identity is gone");

    let finished = migrate(&two.old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    finished.says("retired means");
    assert_eq!(key_files(&two.old), Vec::<PathBuf>::new());
    assert_eq!(two.old.keys(), Vec::<Value>::new());
    assert_eq!(state(&two.old), "retired");
    let log = two
        .old
        .signet()
        .args(["log", "show"])
        .run()
        .ok()
        .says("retire");
    log.says("moved to").says("checkpoint of");
    // The receipt is a witness of the new host's log, wherever it is kept.
    two.new
        .signet()
        .args(["log", "verify", "--against", text(&receipt)])
        .run()
        .ok()
        .says("unchanged");

    migrate(&two.new, &["receive", text(&note)]).ok();
    assert_eq!(state(&two.new), "closed");
    let status = two.new.signet().arg("status").run().ok();
    assert!(!status.text().contains("may still hold"));
}

/// `signet migrate send --ssh`, unattended, with every passphrase of the keys on this side.
fn over_ssh(home: &Home, bin: &Path) -> Output {
    let mut command = prepared(home);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    command.args(["send", "--ssh", SSH_HOST]).run()
}

#[test]
fn one_command_moves_keys_over_ssh() {
    let mut lab = Lab::builder().build();
    let (old, new) = (with_keys(&lab), lab.home());
    let ssh = lab.ssh_into(&new);
    let moved = over_ssh(&old, ssh.bin());
    assert_eq!(moved.code(), Some(0), "{}\n{}", moved.text(), ssh.log());
    moved.says("retired means");
    assert_eq!(
        (state(&old), state(&new)),
        ("retired".into(), "closed".into())
    );
    assert_eq!(key_files(&old), Vec::<PathBuf>::new());
    let there = new.keys();
    assert_eq!(there.len(), 3);
    assert!(
        there.iter().all(|key| key["state"] == "enrolled"),
        "{there:#?}"
    );
}

/// Carries so many bytes of the server's, then ends; counts them into a file.
const CUT: &str = r#"
import os, select, socket, sys
limit, count, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
peer = socket.create_connection(("127.0.0.1", port))
passed = 0
while True:
    ready, _, _ = select.select([0, peer], [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        peer.sendall(data)
    if peer in ready:
        data = peer.recv(65536)
        if not data:
            break
        data = data[: limit - passed] if limit else data
        passed += len(data)
        open(count, "w").write(str(passed))
        os.write(1, data)
        if limit and passed >= limit:
            break
"#;

#[test]
fn a_connection_that_drops_at_any_moment_is_gone_on_with() {
    let mut lab = Lab::builder().build();
    let script = lab.dir().join("cut.py");
    fs::write(&script, CUT).expect("the lab's directory is ours");
    let count = lab.dir().join("count");
    let proxy = |limit: usize| format!("python3 {} {limit} {} %p", text(&script), text(&count));
    let total: usize = {
        let (old, new) = (with_keys(&lab), lab.home());
        let ssh = lab.ssh_into(&new);
        over_ssh(&old, &ssh.bin_through("whole", &proxy(0))).ok();
        let counted = fs::read_to_string(&count).expect("it was counted");
        counted.parse().expect("a number")
    };
    // What comes first is ssh's own; the last bytes are its farewell.
    for cut in 1..=CUTS {
        let limit = total * cut / (CUTS + 1) + 200;
        let (old, new) = (with_keys(&lab), lab.home());
        let ssh = lab.ssh_into(&new);
        let dropped = over_ssh(&old, &ssh.bin_through("cut", &proxy(limit)));
        let usable = |home: &Home| -> Vec<Value> {
            let keys = home.keys().into_iter();
            keys.filter(|key| key["state"] == "enrolled")
                .map(|key| key["id"].clone())
                .collect()
        };
        let mut both = usable(&old);
        both.extend(usable(&new));
        both.sort_by_key(ToString::to_string);
        both.dedup();
        assert_eq!(
            both.len(),
            3,
            "cut at {limit} of {total}: {}",
            dropped.text()
        );
        let again = over_ssh(&old, ssh.bin());
        // Where all was done but the farewell there is nothing left to move.
        let ends = (state(&old), state(&new));
        assert_eq!(
            ends,
            ("retired".into(), "closed".into()),
            "cut at {limit} of {total}: {}\nthen: {}",
            dropped.text(),
            again.text()
        );
        assert_eq!(usable(&new).len(), 3);
        assert_eq!(key_files(&old), Vec::<PathBuf>::new());
    }
}

/// Places at which the connection is cut.
const CUTS: usize = 6;

#[test]
fn the_new_host_signs_with_the_moved_keys_and_the_old_one_does_not() {
    let lab = Lab::start();
    let (old, new) = (lab.home(), lab.home());
    let image = |tag: &str| lab.import_image(&format!("acme/app:{tag}"));
    let docker_pushes = |home: &Home, image: &str| {
        lab.docker_trusted(Cli::Debian13, home.docker_config())
            .args(["push", image])
            .run()
    };
    let signet_pushes = |home: &Home, image: &str| {
        home.unattended()
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            )
            .args(["push", image])
            .run()
    };
    docker_pushes(&old, &image("v1")).ok();
    signet_pushes(&old, &image("v2")).ok();
    let before = files(&old.docker_config().join("trust/private"));
    assert_eq!(before.len(), 2, "root and targets");

    let dir = lab.fresh_dir("m");
    let [offer, package, receipt, note] =
        ["offer", "package", "receipt", "note"].map(|name| dir.join(name));
    migrate(&new, &["receive", "-o", text(&offer)]).ok();
    migrate(&old, &["send", text(&offer), "-o", text(&package)]).ok();
    migrate(&new, &["receive", text(&package), "-o", text(&receipt)]).ok();
    // Until the receipt is read both sign.
    signet_pushes(&old, &image("v3")).ok();
    docker_pushes(&new, &image("v4")).ok();
    migrate(&old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    migrate(&new, &["receive", text(&note)]).ok();

    docker_pushes(&new, &image("v5"))
        .ok()
        .says("Successfully signed");
    let v6 = image("v6");
    signet_pushes(&new, &v6).ok();
    lab.everybody_pulls(&v6);

    let refused = docker_pushes(&old, &image("v7"));
    assert_ne!(refused.code(), Some(0), "{}", refused.text());
    let refused = signet_pushes(&old, &image("v8"));
    assert_ne!(refused.code(), Some(0), "{}", refused.text());

    // Somebody puts the files back.
    for (path, bytes) in before {
        fs::write(&path, bytes).expect("the directory is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
    let refused = signet_pushes(&old, &image("v9"));
    assert_ne!(refused.code(), Some(0), "{}", refused.text());
    refused.says("moved to");
    let listed = old.keys();
    assert!(
        listed.iter().all(|key| key["state"] == "retired"),
        "{listed:#?}"
    );
}
