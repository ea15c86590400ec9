//! Keys on YubiKeys in a backup: everything but the private key.

use signet_tests::{Cards, Firmware};

use super::*;

const SERIAL: u32 = 12_345_678;
const PIN: &str = "73aBc!";

#[test]
fn of_a_key_on_a_card_all_is_in_a_backup_but_the_private_key() {
    let lab = Lab::builder().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let home = lab.home().with_cards(&cards);
    let sheet = home.user_home().join("sheet");
    let with_pin = |args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, PIN)]);
        command.args(args).args(["--pin-fd", "3"]).run().ok()
    };
    let serial = SERIAL.to_string();
    with_pin(&["card", "setup", &serial, "--recovery-sheet", text(&sheet)]);
    let store = format!("piv:{SERIAL}:9c");
    let generate = [
        "key",
        "generate",
        "--role",
        "root",
        "--touch-policy",
        "never",
    ];
    with_pin(&[&generate[..], &["--store", &store]].concat());
    let file = lab.fresh_dir("b").join("keys.age");
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let create = ["backup", "create", "-r", &recipient, "-o", text(&file)];
    signet(&home, "", &create).ok().says("NOT in the backup");
    let secret = identity.to_string();
    write(&identity_of(&file), secret.expose_secret().as_bytes());
    let identity = identity_of(&file);
    let show = ["backup", "show", "-i", text(&identity), text(&file)];
    let shown = signet(&home, "", &show).ok();
    shown
        .says(&format!("is on YubiKey {SERIAL} in slot 9c"))
        .says("private keys cannot leave a card and are NOT in this backup");
    let shown = signet(&home, "", &[&["--json"], &show[..]].concat())
        .ok()
        .json();
    let key = &shown["keys"][0];
    assert_eq!(
        (&key["file"], &key["id"]),
        (&Value::Null, &home.key_id("root").into())
    );
    let card = &key["cards"][0];
    assert_eq!(
        (&card["origin"], &card["firmware"]),
        (&"generated".into(), &"5.7.1".into())
    );
    let der = |name: &str| card[name].as_str().expect("DER in hex").len();
    assert!(der("attestation") > 600 && der("own") > 600, "{card:#}");
}
