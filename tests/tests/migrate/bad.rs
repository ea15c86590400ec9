//! Messages of a move that are damaged, forged, repeated, partial or somebody else's; and a move
//! that is given up, or goes back.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use signet_proto::archive::Writer;
use signet_tests::lab::command::clean;
use signet_tests::steps::files;
use signet_tests::{Home, Lab, Run};

use super::{Two, key_files, migrate, migrations, prepared, state, text};

/// Everything of a home that is a key, or opens one.
fn held(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = files(&home.path());
    all.extend(files(home.docker_config()));
    all.retain(|path, _| {
        path.extension()
            .is_some_and(|end| end == "age" || end == "key" || end == "journal")
    });
    all.into_iter().collect()
}

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn write(file: &Path, value: &Value) {
    // Members in the order of a receipt: what a file is, is read off its beginning.
    let mut text = serde_json::to_string(value).expect("it is JSON");
    let kind = format!("\"signet\":{},", value["signet"]);
    text = text.replace(&format!(",{}", kind.trim_end_matches(',')), "");
    fs::write(file, text.replacen('{', &format!("{{{kind}"), 1))
        .expect("the lab's directory is ours");
}

#[test]
fn a_damaged_offer_or_ones_own_is_told_and_sends_nothing() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let offer = two.file("offer");
    migrate(&two.new, &["receive", "-o", text(&offer)]).ok();
    let line = fs::read_to_string(&offer).expect("it was written");

    let cut = &line[..line.len() - 20];
    migrate(&two.old, &["send", cut])
        .exits(2)
        .says("the offer cannot be used");
    // One letter of the recipient: Bech32 has a checksum.
    let at = line.find("age1").expect("a recipient") + 20;
    let other = if line.as_bytes()[at] == b'q' {
        "p"
    } else {
        "q"
    };
    let mut typo = line.clone();
    typo.replace_range(at..=at, other);
    migrate(&two.old, &["send", typo.trim(), "-o", text(&two.file("p"))])
        .exits(2)
        .says("typing error");
    let newer = line.replace("signet-offer-1", "signet-offer-9");
    migrate(&two.old, &["send", newer.trim()])
        .exits(2)
        .says("format 9");
    migrate(
        &two.new,
        &["send", text(&offer), "-o", text(&two.file("p"))],
    )
    .exits(2)
    .says("this host's own");
    assert!(!two.file("p").exists());
    assert!(migrations(&two.old).is_empty());
    // Somebody says no to the recipient.
    two.old
        .unattended()
        .args(["migrate", "send", text(&offer), "-o", text(&two.file("p"))])
        .run()
        .exits(5)
        .says("same recipient");
    assert!(migrations(&two.old).is_empty());
}

#[test]
fn a_damaged_package_or_somebody_elses_changes_nothing() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let package = two.sent();
    let before = held(&two.new);
    let whole = fs::read(&package).expect("it was written");
    let bad = two.file("bad");
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&bad, bytes).expect("the lab's directory is ours");
        migrate(
            &two.new,
            &["receive", text(&bad), "-o", text(&two.file("none"))],
        )
        .exits(1)
        .says(words);
        assert_eq!(held(&two.new), before);
        assert!(!two.file("none").exists());
    };
    refused(&whole[..whole.len() / 2], "cannot be used");
    for at in [30, 120, whole.len() / 3, whole.len() - 5] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refused(&flipped, "cannot be used");
    }
    refused(b"age-encryption.org/v1\n", "cannot be used");
    refused(b"something else", "neither a package nor a closing note");

    // For another host's offer.
    let third = lab.home();
    migrate(&third, &["receive"]).ok();
    migrate(&third, &["receive", text(&package)])
        .exits(1)
        .says("none of the offers");
    assert_eq!(state(&two.new), "offered");
    migrate(
        &two.new,
        &["receive", text(&package), "-o", text(&two.file("receipt"))],
    )
    .ok();
}

/// A package for the offer of `two`, with this `migration.json`.
fn forged(two: &Two, head: &str) -> PathBuf {
    let line = fs::read_to_string(two.file("offer")).expect("it was written");
    let recipient = line.split(' ').nth(2).expect("its recipient");
    let mut writer = Writer::new(Vec::new(), 0).expect("memory");
    let manifest = format!(
        r#"{{"format":1,"id":"{}","host":"old","created":0,"signet":"0","keys":[],"files":[],"log":null,"notes":[]}}"#,
        line.split(' ').nth(1).expect("its ID")
    );
    writer
        .add("manifest.json", manifest.as_bytes())
        .expect("memory");
    writer
        .add("migration.json", head.as_bytes())
        .expect("memory");
    let (plain, package) = (two.file("plain"), two.file("forged"));
    fs::write(&plain, writer.finish().expect("memory")).expect("the lab's directory is ours");
    clean("age")
        .args(["-r", recipient, "-o", text(&package), text(&plain)])
        .run()
        .ok();
    package
}

#[test]
fn a_package_whose_nonce_is_a_targets_file_gets_no_signature() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    migrate(&two.new, &["receive", "-o", text(&two.file("offer"))]).ok();
    let line = fs::read_to_string(two.file("offer")).expect("it was written");
    let id = line.split(' ').nth(1).expect("its ID");
    let nonce = r#"{\"_type\":\"Targets\",\"version\":9}"#;
    let head = format!(r#"{{"format":1,"id":"{id}","nonce":"{nonce}","host":"old","keys":[]}}"#);
    let package = forged(&two, &head);
    migrate(&two.new, &["receive", text(&package)])
        .exits(1)
        .says("its nonce is not 32 bytes in hex");
    assert_eq!(state(&two.new), "offered");

    let nonce = "5".repeat(64);
    let head = format!(r#"{{"format":7,"id":"{id}","nonce":"{nonce}","host":"old","keys":[]}}"#);
    migrate(&two.new, &["receive", text(&forged_again(&two, &head))])
        .exits(1)
        .says("format 7");
}

fn forged_again(two: &Two, head: &str) -> PathBuf {
    fs::remove_file(two.file("forged")).expect("it was written");
    forged(two, head)
}

#[test]
fn a_receipt_retires_no_more_than_it_proves_and_never_twice() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let receipt = two.received();
    let before = held(&two.old);
    let good = json(&receipt);
    let bad = two.file("bad");
    let refused = |value: &Value, exit: i32, words: &str| {
        write(&bad, value);
        migrate(
            &two.old,
            &["finish", text(&bad), "-o", text(&two.file("none"))],
        )
        .exits(exit)
        .says(words);
        assert_eq!(held(&two.old), before);
        assert_eq!(state(&two.old), "sent");
    };
    // Forged: the proof of another key, or one bit.
    let mut forged = good.clone();
    forged["proofs"][0]["signature"] = good["proofs"][1]["signature"].clone();
    refused(&forged, 3, "forged");
    // For another package, of another migration, of a newer format.
    let mut other = good.clone();
    other["package"] = "a".repeat(64).into();
    refused(&other, 1, "another package");
    let mut other = good.clone();
    other["id"] = "f".repeat(32).into();
    refused(&other, 2, "sent no keys in migration");
    let mut newer = good.clone();
    newer["format"] = 2.into();
    refused(&newer, 1, "format 2");

    // Partial: one proof.
    let mut partial = good.clone();
    partial["proofs"] = Value::Array(vec![good["proofs"][0].clone()]);
    write(&bad, &partial);
    migrate(
        &two.old,
        &["finish", text(&bad), "-o", text(&two.file("first"))],
    )
    .exits(8)
    .says("2 keys are still leaving");
    assert_eq!(two.old.keys().len(), 2);

    // The whole one retires the rest; once more it changes nothing and writes the same note.
    let note = two.file("note");
    migrate(&two.old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    assert_eq!(key_files(&two.old).len(), 0);
    let again = two.file("again");
    migrate(&two.old, &["finish", text(&receipt), "-o", text(&again)]).ok();
    assert_eq!(
        fs::read(&note).expect("a note"),
        fs::read(&again).expect("a note")
    );

    // The receipt can be written again, and is the same.
    let id = good["id"].as_str().expect("an ID");
    let copy = two.file("copy");
    migrate(&two.new, &["receive", "--receipt", id, "-o", text(&copy)]).ok();
    assert_eq!(
        fs::read(&receipt).expect("a receipt"),
        fs::read(&copy).expect("a receipt")
    );

    // A forged note closes nothing; the first note only what it names.
    let mut forged = json(&note);
    forged["mac"] = "0".repeat(64).into();
    write(&bad, &forged);
    migrate(&two.new, &["receive", text(&bad)])
        .exits(3)
        .says("forged");
    migrate(&two.new, &["receive", text(&two.file("first"))]).ok();
    assert_eq!(state(&two.new), "proved");
    migrate(&two.new, &["receive", text(&note)]).ok();
    assert_eq!(state(&two.new), "closed");
}

#[test]
fn a_key_that_does_not_open_on_the_new_host_stays_until_it_does() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let package = two.sent();
    let receipt = two.file("receipt");
    prepared(&two.new)
        .env_remove("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE")
        .args(["receive", text(&package), "-o", text(&receipt)])
        .run()
        .exits(8)
        .says("1 of 3 keys were not proved here");
    migrate(
        &two.old,
        &["finish", text(&receipt), "-o", text(&two.file("n1"))],
    )
    .exits(8);
    let left = two.old.keys();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (&left[0]["role"], &left[0]["state"]),
        (&"alice".into(), &"enrolled".into())
    );

    // With the passphrase the same package proves the rest.
    let whole = two.file("whole");
    migrate(&two.new, &["receive", text(&package), "-o", text(&whole)]).ok();
    let note = two.file("note");
    migrate(&two.old, &["finish", text(&whole), "-o", text(&note)]).ok();
    migrate(&two.new, &["receive", text(&note)]).ok();
    assert_eq!(
        (state(&two.old), state(&two.new)),
        ("retired".into(), "closed".into())
    );
}

#[test]
fn what_is_cancelled_is_as_it_was_and_the_receipt_comes_too_late() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let before = held(&two.old);
    let receipt = two.received();
    migrate(&two.old, &["cancel"])
        .ok()
        .says("cannot be recalled");
    assert_eq!(state(&two.old), "cancelled");
    migrate(&two.old, &["finish", text(&receipt)])
        .exits(1)
        .says("was cancelled");
    assert_eq!(held(&two.old), before);
    assert!(two.old.keys().iter().all(|key| key["state"] == "enrolled"));
    // The same offer is spent; a new one is not.
    migrate(
        &two.old,
        &[
            "send",
            text(&two.file("offer")),
            "-o",
            text(&two.file("p2")),
        ],
    )
    .exits(1)
    .says("was cancelled");
    migrate(&two.new, &["cancel"]).ok();
    fs::remove_file(two.file("offer")).expect("it was written");
    fs::remove_file(two.file("package")).expect("it was written");
    fs::remove_file(&receipt).expect("it was written");
    let receipt = two.received();
    migrate(
        &two.old,
        &["finish", text(&receipt), "-o", text(&two.file("note"))],
    )
    .ok();
    assert_eq!(key_files(&two.old).len(), 0);
    // What is over cannot be undone.
    let id = json(&receipt)["id"].clone();
    migrate(&two.old, &["cancel", id.as_str().expect("an ID")])
        .exits(1)
        .says("is finished");
}

#[test]
fn keys_that_are_leaving_do_not_leave_twice() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    two.sent();
    let third = lab.home();
    let offer = two.file("third");
    migrate(&third, &["receive", "-o", text(&offer)]).ok();
    migrate(
        &two.old,
        &["send", text(&offer), "main", "-o", text(&two.file("p2"))],
    )
    .exits(2)
    .says("is leaving for");
    // The lost package is packed once more, for the same offer.
    migrate(
        &two.old,
        &[
            "send",
            text(&two.file("offer")),
            "-o",
            text(&two.file("p3")),
        ],
    )
    .ok();
    let receipt = two.file("r3");
    migrate(
        &two.new,
        &["receive", text(&two.file("p3")), "-o", text(&receipt)],
    )
    .ok();
    migrate(
        &two.old,
        &["finish", text(&receipt), "-o", text(&two.file("note"))],
    )
    .ok();
    assert_eq!(two.new.keys().len(), 3);
}

#[test]
fn a_move_back_lets_retired_keys_come_back_and_logs_it() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let receipt = two.received();
    let note = two.file("note");
    migrate(&two.old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    migrate(&two.new, &["receive", text(&note)]).ok();

    let back = Two {
        old: two.new,
        new: two.old,
        dir: lab.fresh_dir("b"),
    };
    let receipt = back.received();
    let keys = back.new.keys();
    assert_eq!(keys.len(), 3);
    assert!(
        keys.iter().all(|key| key["state"] == "enrolled"),
        "{keys:#?}"
    );
    back.new
        .signet()
        .args(["log", "show"])
        .run()
        .ok()
        .says("revive");
    migrate(
        &back.old,
        &["finish", text(&receipt), "-o", text(&back.file("note"))],
    )
    .ok();
    assert_eq!(back.old.keys().len(), 0);
}

#[test]
fn homes_that_share_dockers_directory_do_not_remove_each_others_keys() {
    let lab = Lab::builder().build();
    let old = super::with_keys(&lab);
    let new = lab.home_with(old.docker_config());
    let two = Two {
        old,
        new,
        dir: lab.fresh_dir("m"),
    };
    let package = two.sent();
    migrate(&two.new, &["receive", text(&package)])
        .exits(2)
        .says("share one directory of Docker's keys");
    assert_eq!(state(&two.new), "offered");
    assert_eq!(two.old.keys().len(), 3);
}

#[test]
fn a_key_that_does_not_open_on_the_old_host_is_told_and_moves_where_it_is_known() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    // One that docker made, say: its public key is nowhere in clear.
    let stranger = super::with_keys(&lab);
    for (path, bytes) in files(&stranger.docker_config().join("trust/private")) {
        let name = path.file_name().expect("a file");
        let dir = two.old.docker_config().join("trust/private");
        fs::write(dir.join(name), bytes).expect("the directory is ours");
    }
    let (offer, package) = (two.file("offer"), two.file("package"));
    migrate(&two.new, &["receive", "-o", text(&offer)]).ok();
    prepared(&two.old)
        .env_remove("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE")
        .args(["send", text(&offer), "-o", text(&package)])
        .run()
        .exits(8)
        .says("it did not open here")
        .says("was never enrolled here: its passphrase is needed");
    let receipt = two.file("receipt");
    migrate(&two.new, &["receive", text(&package), "-o", text(&receipt)]).ok();
    migrate(
        &two.old,
        &["finish", text(&receipt), "-o", text(&two.file("note"))],
    )
    .ok();
    assert_eq!((two.old.keys().len(), two.new.keys().len()), (1, 3));
}
