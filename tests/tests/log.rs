//! The signature log: shown, taken out, and found out when somebody tampers with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_tests::schema::Schemas;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Home, Lab, Output, Run};

/// The verifier that is shipped beside the format's description.
fn verifier() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/log-verify.py")
}

fn python(export: &Path, against: &[&Path]) -> Output {
    Command::new("/usr/bin/python3")
        .arg(verifier())
        .arg(export)
        .args(against)
        .run()
}

/// Changes the ledger as somebody with an editor for SQLite would, agent stopped.
fn tamper(home: &Home, statement: &str) {
    home.signet().args(["agent", "stop"]).run().ok();
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1])\n\
                  for name, in db.execute(\"SELECT name FROM sqlite_master WHERE type = 'trigger'\").fetchall():\n\
                  \x20   db.execute(f'DROP TRIGGER {name}')\n\
                  db.executescript(sys.argv[2])\n\
                  db.commit()\n";
    Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(home.path().join("ledger.sqlite"))
        .arg(statement)
        .run()
        .ok();
}

fn generate(home: &Home, label: &str) {
    home.unattended()
        .args(["key", "generate", "--role", "alice", "--label", label])
        .run()
        .ok();
}

/// A home with a witness, some entries, and a signed checkpoint.
fn home(lab: &Lab) -> (Home, PathBuf) {
    let home = lab.home();
    let witness = home.user_home().join("witness");
    let config = home.user_home().join(".config/signet");
    fs::create_dir_all(&config).expect("the home is ours");
    let text = format!("[log]\njournal = false\nwitness = {:?}\n", witness);
    fs::write(config.join("agent.toml"), text).expect("the home is ours");
    for label in ["one", "two", "three"] {
        generate(&home, label);
    }
    home.unattended().arg("unlock").run().ok();
    home.signet().arg("lock").run().ok();
    // An agent that has stopped has told its witnesses.
    home.signet().args(["agent", "stop"]).run().ok();
    (home, witness)
}

fn export(home: &Home, name: &str) -> PathBuf {
    let file = home.user_home().join(name);
    home.signet()
        .args(["log", "export", "-o"])
        .arg(&file)
        .run()
        .ok();
    file
}

#[test]
fn signet_and_python_verify_the_log_up_to_the_newest_witness() {
    let lab = Lab::builder().build();
    let (home, witness) = home(&lab);
    generate(&home, "four");
    let verified = home.signet().args(["log", "verify", "--json"]).run().ok();
    let facts = verified.json();
    let faults = Schemas::of_the_docs().faults("signet log verify", &facts);
    assert!(faults.is_empty(), "{faults:?}");
    let (entries, proved) = (&facts["entries"], &facts["unchanged_up_to"]);
    assert_eq!(facts["holds"], true);
    assert_eq!(facts["from"], "the witness file");
    assert!(facts["checkpoint"]["key"].is_string(), "{facts}");
    assert!(entries.as_u64() > proved.as_u64() && proved.as_u64() >= Some(4));
    home.signet()
        .args(["log", "verify"])
        .run()
        .ok()
        .says("entries are consistent only");

    let file = export(&home, "log.jsonl");
    python(&file, &[&witness])
        .ok()
        .says(&format!("{entries} entries hold"))
        .says(&format!("unchanged up to entry {proved}"));
    python(&file, &[])
        .ok()
        .says("no checkpoint from elsewhere was compared");
    // Never overwritten.
    home.signet()
        .args(["log", "export", "-o"])
        .arg(&file)
        .run()
        .exits(1)
        .says("exists already");
    // Who asked is in it.
    let lines = fs::read_to_string(&file).expect("the home is ours");
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let caller = &first["facts"]["caller"];
    assert_eq!(caller["comm"], "signet", "{first}");
    assert_eq!(caller["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(first["facts"]["consent"]["channel"], "given");
}

#[test]
fn every_change_of_an_exported_log_is_found_by_python() {
    let lab = Lab::builder().build();
    let (home, witness) = home(&lab);
    let file = export(&home, "log.jsonl");
    let text = fs::read_to_string(&file).expect("the home is ours");
    let lines: Vec<&str> = text.lines().collect();
    let entries = lines
        .iter()
        .filter(|line| line.contains("\"number\":"))
        .count();
    let refused = |changed: &[&str], what: &str| {
        let file = home.user_home().join("changed");
        fs::write(&file, changed.join("\n")).expect("the home is ours");
        let output = python(&file, &[&witness]);
        assert_eq!(output.code(), Some(3), "{what}: {}", output.text());
    };
    for at in 0..entries {
        let mut without = lines.clone();
        without.remove(at);
        refused(&without, "an entry removed");
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % entries);
        refused(&swapped, "two entries swapped");
        for (what, from, to) in [
            ("time", "\"time\":\"20", "\"time\":\"19"),
            ("kind", "\"kind\":\"", "\"kind\":\"x"),
            ("outcome", "\"outcome\":\"done\"", "\"outcome\":\"failed\""),
            ("caller", "\"uid\":", "\"uid\":1"),
        ] {
            let entry = lines[at].replace(from, to);
            if entry == lines[at] {
                continue;
            }
            let mut changed = lines.clone();
            changed[at] = &entry;
            refused(&changed, what);
        }
    }
    for end in 1..lines.len() {
        refused(&lines[..end], "cut");
    }
    // Every member of every kind of line.
    let mut kinds = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        let Ok(Value::Object(members)) = serde_json::from_str(line) else {
            panic!("{line}")
        };
        let is_entry = members.contains_key("number");
        if !kinds.insert(members.keys().cloned().collect::<Vec<_>>()) {
            continue;
        }
        for name in members.keys() {
            let mut members = members.clone();
            let value = members.get_mut(name).expect("a member of it");
            *value = match value.take() {
                Value::Number(number) => Value::from(number.as_u64().unwrap_or(0) + 1),
                Value::String(text) if text.len() == 64 => {
                    Value::from(text.chars().rev().collect::<String>())
                }
                Value::String(text) => Value::from(format!("{text}x")),
                Value::Null if !is_entry => Value::from("00"),
                Value::Null => match name.as_str() {
                    "key" => Value::from("00".repeat(32)),
                    "payload" => Value::from(format!("sha256:{}", "00".repeat(32))),
                    "version" | "grade" => Value::from(1),
                    _ => Value::from("x"),
                },
                Value::Object(mut inner) => {
                    inner.insert("entries".to_owned(), Value::from(1));
                    Value::from(inner)
                }
                other => panic!("{name}: {other}"),
            };
            let line = Value::from(members).to_string();
            let mut changed = lines.clone();
            changed[at] = &line;
            refused(&changed, name);
        }
    }
}

#[test]
fn a_ledger_that_was_changed_cut_or_put_back_is_found() {
    let lab = Lab::builder().build();
    let (home, witness) = home(&lab);
    let ledger = home.path().join("ledger.sqlite");
    let whole = fs::read(&ledger).expect("the home is ours");
    let verify = || home.signet().args(["log", "verify"]).run();
    verify().ok();

    // Inside the chain: the agent does not even start on it.
    let columns = [
        "time = time + 1",
        "kind = 'unlock'",
        "gun = gun || 'x'",
        "role = 'root'",
        "version = version + 1",
        "key = zeroblob(32)",
        "payload = zeroblob(32)",
        "summary = summary || '.'",
        "caller = ''",
        "grade = grade + 1",
        "rule = 'gap'",
        "outcome = 'failed'",
        "facts = ''",
        "facts = replace(facts, 'uid', 'gid')",
        "hash = zeroblob(32)",
    ];
    let changed = columns.map(|set| format!("UPDATE log SET {set} WHERE number = 2"));
    let rows = [
        "DELETE FROM log WHERE number = 1",
        "DELETE FROM log WHERE number = 2",
        "UPDATE log SET number = 0 WHERE number = 2",
        "UPDATE log SET number = 99 WHERE number = 2; UPDATE log SET number = 2 WHERE number = 3;
         UPDATE log SET number = 3 WHERE number = 99",
        "UPDATE log SET number = number + 1000; UPDATE log SET number = number - 999;
         INSERT INTO log SELECT 1, time, kind, gun, role, version, key, payload, summary, caller,
                                grade, rule, outcome, hash, facts FROM log WHERE number = 2",
    ];
    for statement in changed.iter().map(String::as_str).chain(rows) {
        tamper(&home, statement);
        let found = verify();
        assert_eq!(found.code(), Some(3), "{statement}: {}", found.text());
        found.says("is damaged");
        fs::write(&ledger, &whole).expect("the home is ours");
    }
    // Cut at the end: only what lies elsewhere tells.
    tamper(
        &home,
        "DELETE FROM log WHERE number > 2; DELETE FROM checkpoint",
    );
    verify()
        .exits(3)
        .says("the log ends with entry")
        .says("the witness file");
    tamper(&home, "SELECT 1");
    fs::write(&ledger, &whole).expect("the home is ours");

    // An older ledger put back whole, and signed upon.
    generate(&home, "later");
    home.unattended().arg("unlock").run().ok();
    home.signet().args(["agent", "stop"]).run().ok();
    let kept = home.user_home().join("kept");
    fs::copy(&witness, &kept).expect("the home is ours");
    fs::remove_file(&witness).expect("the home is ours");
    fs::write(&ledger, &whole).expect("the home is ours");
    generate(&home, "instead");
    generate(&home, "of it");
    verify().ok().says("nothing from outside the ledger");
    home.signet()
        .args(["log", "verify", "--against"])
        .arg(&kept)
        .run()
        .exits(3)
        .says("against a checkpoint from");
}

#[test]
fn a_ledger_put_back_is_found_by_the_next_base() {
    const GUN: &str = "registry.example.com/acme/app";
    let lab = Lab::builder().notary().build();
    let (home, witness) = home(&lab);
    let sign = |tag: &str| {
        home.unattended()
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE])
            .run()
            .ok()
    };
    let stop = || home.signet().args(["agent", "stop"]).run().ok();
    let status = || home.signet().arg("status").run().ok();
    let alarms = || {
        let log = home.log();
        let entries = log["entries"].as_array().expect("entries").clone();
        entries
            .into_iter()
            .filter(|entry| entry["kind"] == "alarm")
            .collect::<Vec<_>>()
    };
    sign("v1");
    stop();
    let ledger = home.path().join("ledger.sqlite");
    let old = fs::read(&ledger).expect("the home is ours");
    let before = sign("v2");
    assert!(!before.text().contains("put back"), "{}", before.text());
    assert!(alarms().is_empty(), "{:#?}", alarms());
    home.unattended().arg("unlock").run().ok();
    stop();
    let kept = home.user_home().join("kept");
    fs::copy(&witness, &kept).expect("the home is ours");
    fs::write(&ledger, old).expect("the home is ours");

    // The chain holds, and nothing in the ledger says that it is old; what was published does.
    sign("v3").says("never given away").says("put back");
    let found = alarms();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["gun"], GUN, "{found:#?}");
    assert_eq!(found[0]["role"], "targets", "{found:#?}");
    status().says("the log has no entry for it");
    // Said once; the log and `status` keep it.
    let later = sign("v4");
    assert!(!later.text().contains("put back"), "{}", later.text());
    stop();
    status().says("the log has no entry for it");
    assert_eq!(alarms().len(), 1);
    home.signet()
        .args(["log", "verify", "--against"])
        .arg(&kept)
        .run()
        .exits(3);
}

#[test]
fn a_backup_bears_witness_to_the_log() {
    let lab = Lab::builder().build();
    let home = lab.home();
    generate(&home, "one");
    let file = home.user_home().join("backup.age");
    home.with_descriptors(&[(3, "of the archive")])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .args(["--passphrase-fd", "archive:3", "backup", "create", "-o"])
        .arg(&file)
        .run()
        .ok();
    let shown = home
        .with_descriptors(&[(3, "of the archive")])
        .args(["--passphrase-fd", "archive:3", "backup", "show"])
        .arg(&file)
        .run()
        .ok();
    let kept = home.user_home().join("kept");
    fs::write(&kept, &shown.stdout).expect("the home is ours");
    let verify = |against: &Path| {
        let mut command = home.signet();
        command.args(["log", "verify", "--against"]).arg(against);
        command.run()
    };
    verify(&kept)
        .ok()
        .says("unchanged up to entry")
        .says("signed by log key");
    // One that was altered is none.
    let altered = shown.stdout.replace("\"entry\":", "\"entry\":1");
    fs::write(&kept, altered).expect("the home is ours");
    verify(&kept).exits(3).says("does not verify");
}
