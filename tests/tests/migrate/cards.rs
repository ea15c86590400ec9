//! Keys on a card move with their card, or are left out.

use std::process::Command;

use signet_tests::{Cards, Firmware, Home, Lab, Run};

use super::{state, text};

const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";

fn with_pin(home: &Home) -> Command {
    let mut command = home.with_descriptors(&[(3, PIN)]);
    command
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .args(["--yes", "--pin-fd", &format!("{SERIAL}:3")]);
    command
}

#[test]
fn a_key_on_a_card_is_proved_with_its_card_on_the_new_host_or_left_out() {
    let lab = Lab::builder().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let (old, new) = (lab.home().with_cards(&cards), lab.home().with_cards(&cards));
    old.with_descriptors(&[(3, PIN)])
        .args(["card", "setup", &SERIAL.to_string(), "--pin-fd", "3"])
        .arg("--recovery-sheet")
        .arg(old.user_home().join("sheet"))
        .run()
        .ok();
    let store = format!("piv:{SERIAL}:9c");
    with_pin(&old)
        .args(["key", "generate", "--role", "alice", "--store", &store])
        .run()
        .ok();
    let dir = lab.fresh_dir("m");
    let [offer, package, without, receipt, note] =
        ["offer", "package", "without", "receipt", "note"].map(|name| dir.join(name));
    let migrate = |home: &Home, args: &[&str]| with_pin(home).arg("migrate").args(args).run();
    migrate(&new, &["receive", "-o", text(&offer)]).ok();
    // Unless it is named a card's key stays where its card is.
    migrate(&old, &["send", text(&offer), "-o", text(&package)])
        .exits(2)
        .says("only when they are named");
    migrate(
        &old,
        &["send", text(&offer), "alice@", "-o", text(&package)],
    )
    .exits(2);
    let id = old.keys()[0]["id"].as_str().expect("an ID").to_owned();
    migrate(&old, &["send", text(&offer), &id, "-o", text(&package)]).ok();

    // The card is not there: the receipt proves nothing, and nothing is retired.
    cards.card(SERIAL).pull();
    migrate(&new, &["receive", text(&package), "-o", text(&without)])
        .exits(8)
        .says("its card is not plugged in here");
    migrate(&old, &["finish", text(&without)])
        .exits(8)
        .says("still leaving");
    assert_eq!(state(&old), "sent");

    // It is: the key proves itself, and is enrolled.
    cards.card(SERIAL).insert();
    migrate(&new, &["receive", text(&package), "-o", text(&receipt)]).ok();
    let there = new.keys();
    assert_eq!(
        (&there[0]["id"], &there[0]["state"]),
        (&id.clone().into(), &"enrolled".into())
    );
    migrate(&old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    migrate(&new, &["receive", text(&note)]).ok();
    assert_eq!(
        (state(&old), state(&new)),
        ("retired".into(), "closed".into())
    );
    // The card is still in the old host's reader, and refused there.
    assert_eq!(old.keys()[0]["state"], "retired");
}
