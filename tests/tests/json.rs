//! What `--json` prints is what `docs/json.md` says, command for command.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::schema::Schemas;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Home, Lab, Run};

const GUN: &str = "registry.example.com/acme/app";

/// Runs commands and compares what they print with the page.
struct Reader {
    schemas: Schemas,
    seen: BTreeSet<String>,
    faults: Vec<String>,
}

impl Reader {
    fn new() -> Self {
        Self {
            schemas: Schemas::of_the_docs(),
            seen: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    fn look(&mut self, section: &str, value: &Value) {
        self.seen.insert(section.to_owned());
        let faults = self.schemas.faults(section, value);
        self.faults.extend(faults);
    }

    fn run(&mut self, section: &str, command: &mut Command) -> Value {
        let value = command.arg("--json").run().ok().json();
        self.look(section, &value);
        value
    }

    fn fail(&mut self, exit: i32, command: &mut Command) {
        let output = command.arg("--json").run().exits(exit);
        let line = output.stderr.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|err| panic!("no JSON ({err}): {}", output.text()));
        assert_eq!(value["error"]["exit"], exit);
        self.look("Errors", &value);
    }
}

fn signet(home: &Home, args: &[&str]) -> Command {
    let mut command = home.signet();
    command.args(args);
    command
}

fn unattended(home: &Home, args: &[&str]) -> Command {
    let mut command = home.unattended();
    // Root keys ask each time.
    command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
    command.args(args);
    command
}

/// What is there when somebody begins to look: himself, and the newest entries of the log.
fn watch(home: &Home, reader: &mut Reader) {
    let mut watch = signet(home, &["watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(watch.stdout.take().expect("it was asked for")).lines();
    for line in lines.take(10) {
        let line = line.expect("its output can be read");
        let value = serde_json::from_str(&line).expect("each line is JSON");
        reader.look("signet watch", &value);
    }
    watch.kill().and_then(|()| watch.wait()).expect("it ends");
}

#[test]
fn every_command_prints_what_its_schema_says() {
    let lab = Lab::start();
    let home = lab.home();
    let mut reader = Reader::new();

    // Nothing is there yet.
    reader.run("signet lock", &mut signet(&home, &["lock"]));
    reader.run("signet agent stop", &mut signet(&home, &["agent", "stop"]));
    reader.run(
        "signet agent start",
        &mut signet(&home, &["agent", "start"]),
    );
    reader.run("signet status", &mut signet(&home, &["status"]));
    reader.run("signet key list", &mut signet(&home, &["key", "list"]));
    reader.run("signet log show", &mut signet(&home, &["log", "show"]));
    reader.run("signet log verify", &mut signet(&home, &["log", "verify"]));
    let explain = ["policy", "explain", "--gun", "reg.example/app"];
    reader.run("signet policy explain", &mut signet(&home, &explain));
    let lines = ["log", "export", "-o", "log.jsonl"];
    reader.run("signet log export", &mut signet(&home, &lines));

    // Repositories.
    let image = lab.import_image("acme/app:v1");
    reader.run("signet push", &mut unattended(&home, &["push", &image]));
    let other = format!("{GUN}:v1@{DIGEST}");
    let sign = ["sign", &other, "--size", SIZE];
    reader.run("signet sign", &mut unattended(&home, &sign));
    let name = "registry.example.com/acme/new";
    reader.run(
        "signet repo init",
        &mut unattended(&home, &["repo", "init", name]),
    );
    reader.run("signet verify", &mut signet(&home, &["verify", &image]));
    reader.run("signet inspect", &mut signet(&home, &["inspect", &image]));
    reader.run("signet revoke", &mut unattended(&home, &["revoke", &image]));

    // Keys.
    let generate = ["key", "generate", "--role", "alice", "--label", "mine"];
    let key = reader.run("signet key show", &mut unattended(&home, &generate));
    let id = key["id"].as_str().expect("an ID").to_owned();
    reader.run("signet key show", &mut signet(&home, &["key", "show", &id]));
    let label = ["key", "label", "mine", "hers"];
    reader.run("signet key show", &mut signet(&home, &label));
    let public = ["key", "export", "--public", "hers"];
    reader.run("signet key export", &mut signet(&home, &public));
    let export = ["key", "export", "hers", "--passphrase-fd", "keyring:3"];
    let file = home.user_home().join("alice.pem");
    let exported = reader.run(
        "signet key export",
        home.with_descriptors(&[(3, KEYRING_PASSPHRASE), (4, "for the export")])
            .args(export)
            .args(["--new-passphrase-fd", "4"]),
    );
    let pem = exported["pem"].as_str().expect("the file");
    fs::write(&file, pem).expect("the home is ours");
    let import = |passphrase: &str| {
        let mut command = home.with_descriptors(&[(3, passphrase)]);
        command
            .args(["key", "import", "--passphrase-fd", "3"])
            .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
            .arg(&file);
        command
    };
    reader.run("signet key import", &mut import("for the export"));
    let remove = ["--yes", "key", "remove", "hers"];
    reader.run("signet key show", &mut unattended(&home, &remove));
    reader.fail(5, &mut import("a wrong one"));
    reader.run("signet key import", &mut import("for the export"));

    // Backups.
    let backup = home.user_home().join("keys.age");
    let backup = backup.to_str().expect("the lab's paths are text");
    let archive = |args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, "archive passphrase")]);
        command
            .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["--yes", "--passphrase-fd", "archive:3"])
            .args(args);
        command
    };
    for (section, args) in [
        (
            "signet backup create",
            &["backup", "create", "-o", backup][..],
        ),
        ("signet backup show", &["backup", "show", backup]),
        ("signet backup verify", &["backup", "verify", backup]),
        ("signet restore", &["restore", "--dry-run", backup]),
        ("signet restore", &["restore", backup]),
    ] {
        reader.run(section, &mut archive(args));
    }
    reader.fail(1, &mut archive(&["backup", "create", "-o", backup]));

    // Keyrings and the agent.
    reader.run("signet unlock", &mut unattended(&home, &["unlock"]));
    reader.run("signet grant", &mut unattended(&home, &["grant"]));
    let digests = ["grant", "--digest", DIGEST, "--gun", "*/app", "--for", "1h"];
    reader.run("signet grant", &mut unattended(&home, &digests));
    reader.run("signet grant list", &mut signet(&home, &["grant", "list"]));
    reader.run("signet status", &mut signet(&home, &["status"]));
    let revoke = ["grant", "revoke", "--all"];
    reader.run("signet grant revoke", &mut signet(&home, &revoke));
    reader.fail(2, &mut signet(&home, &["grant", "revoke", "1f"]));
    watch(&home, &mut reader);
    reader.run("signet lock", &mut signet(&home, &["lock"]));
    let mut change = home.with_descriptors(&[(3, KEYRING_PASSPHRASE), (4, "another passphrase")]);
    change.args(["keyring", "passphrase"]);
    change.args(["--passphrase-fd", "3", "--new-passphrase-fd", "4"]);
    reader.run("signet keyring passphrase", &mut change);
    let mut rotate = home.with_descriptors(&[(3, "another passphrase")]);
    rotate.args(["keyring", "rotate", "--passphrase-fd", "3"]);
    reader.run("signet keyring rotate", &mut rotate);
    reader.run("signet status", &mut signet(&home, &["status"]));
    reader.run("signet key list", &mut signet(&home, &["key", "list"]));
    reader.run("signet log show", &mut signet(&home, &["log", "show"]));
    reader.run(
        "signet migrate",
        &mut signet(&home, &["migrate", "receive"]),
    );
    let status = ["migrate", "status"];
    reader.run("signet migrate status", &mut signet(&home, &status));
    reader.run("signet migrate", &mut signet(&home, &["migrate", "cancel"]));
    reader.run("signet agent stop", &mut signet(&home, &["agent", "stop"]));

    // What fails.
    reader.fail(2, &mut signet(&home, &["push"]));
    reader.fail(2, &mut signet(&home, &["key", "show", "nobody"]));
    reader.fail(3, &mut signet(&home, &["verify", &image]));
    reader.fail(5, &mut unattended(&home, &sign));
    signet(&home, &["agent", "stop"]).run().ok();
    reader.fail(6, &mut signet(&home, &["--no-autostart", "key", "list"]));

    assert_eq!(reader.faults, Vec::<String>::new());
    // What needs a card is run where there is one: cards_cli.rs.
    let of_cards = |name: &&str| name.starts_with("signet card ") || *name == "signet doctor";
    let page = reader.schemas.names().filter(|name| !of_cards(name));
    let page: BTreeSet<String> = page.map(str::to_owned).collect();
    assert_eq!(reader.seen, page, "what was run, and what is on the page");
}
