//! A card that notary prepared is used as it is.
//!
//! How far the Go client gets, with `notary` 0.7.0 and libykcs11 2.2.0 of Debian 12 on the virtual
//! card (`docs/hardware.md` says the same): it logs in with the factory's management key, takes the
//! first free slot, 9c, and writes a certificate with the common name `root` there. Then libykcs11
//! refuses the private key, whose template carries an attribute for touch that it does not know
//! (`CKR_ATTRIBUTE_VALUE_INVALID`), and notary says so only in its debug log: the key is in its file
//! and nowhere else, while `notary key list` shows it on the YubiKey. `notary init` then fails with
//! `CKR_DEVICE_ERROR`, because it believes its own list.
//!
//! So the last step is done here by `yubico-piv-tool`, with notary's own key and the policies that
//! notary asks for (PIN once, touch always): the card is then what notary leaves where its module
//! takes the attribute.

use std::fs;
use std::path::Path;

use signet_tests::lab::ROOT_PASSPHRASE;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Cards, Firmware, Lab, Run};

const GUN: &str = "registry.example.com/acme/app";
const SERIAL: u32 = 11_111_111;
/// Notary changes no PIN.
const FACTORY: &str = "123456";

/// Notary's file of this key, as OpenSSL and `yubico-piv-tool` read one.
fn plain_key(private: &Path, id: &str, dir: &Path) -> String {
    let file = fs::read_to_string(private.join(format!("{id}.key"))).expect("notary keeps a copy");
    let (head, body) = file
        .split_once("\n\n")
        .expect("headers end in an empty line");
    let label = head.lines().next().expect("a first line");
    let (encrypted, plain) = (dir.join("encrypted.pem"), dir.join("plain.pem"));
    fs::write(&encrypted, format!("{label}\n{body}")).expect("the directory is ours");
    clean("openssl")
        .args(["pkey", "-passin", &format!("pass:{ROOT_PASSPHRASE}"), "-in"])
        .arg(&encrypted)
        .arg("-out")
        .arg(&plain)
        .run()
        .ok();
    plain.display().to_string()
}

fn is_used_as_it_is(firmware: Firmware) {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(firmware, SERIAL).start();
    let card = cards.card(SERIAL);
    let config = lab.client_config();
    let trust = config.join("trust");
    let notary = |args: &[&str]| cards.enter(lab.notary(&trust).arg("-D").args(args)).run();

    let made = notary(&["key", "generate", "ecdsa"]).ok();
    let made = made.says("CKR_ATTRIBUTE_VALUE_INVALID");
    let id = made.stdout.split_whitespace().last().expect("the ID");
    let id = id.to_owned();
    let listed = notary(&["key", "list"]).ok();
    let on_the_card = listed.stdout.lines().any(|line| {
        line.contains(&id) && line.trim_end().ends_with("yubikey") && line.starts_with("root")
    });
    assert!(on_the_card, "{}", listed.text());
    notary(&["init", GUN]).exits(1).says("CKR_DEVICE_ERROR");

    let private = trust.join("private");
    let plain = plain_key(&private, &id, &lab.fresh_dir("k"));
    let mut import = cards.command("yubico-piv-tool");
    import
        .args(["--reader", card.reader(), "--slot", "9c"])
        .args(["--pin-policy", "once", "--touch-policy", "always"])
        .args(["--action", "import-key", "--input", &plain]);
    import.run().ok();
    // From now on the card alone has it.
    fs::rename(private.join(format!("{id}.key")), lab.dir().join("aside")).expect("ours");
    assert!(
        files(&private)
            .keys()
            .all(|path| !path.to_string_lossy().contains(&id))
    );

    let home = lab.home_with(&config).with_cards(&cards);
    let list = home.signet().args(["card", "list", "--json"]).run().ok();
    let list = list.json();
    let slots = list["cards"][0]["slots"].as_array().expect("slots").clone();
    let slot = slots.iter().find(|slot| slot["slot"] == "9c");
    let slot = slot.unwrap_or_else(|| panic!("no 9c: {list:#}"));
    assert_eq!(slot["key"], id, "{slot:#}");
    assert_eq!(slot["role"], "root", "{slot:#}");

    card.reset_stats();
    let image = format!("{GUN}:v1@{DIGEST}");
    home.with_descriptors(&[(3, FACTORY)])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .args(["sign", &image, "--size", SIZE, "--root", &id])
        .args(["--pin-fd", "3"])
        .run()
        .ok();
    let stats = card.stats();
    assert!(!stats.touches.is_empty(), "its policy is a touch each time");
    assert_eq!(stats.pin_tries, 3);
    // The certificate is valid, the role the card's key, and nothing on the card was changed.
    let rows = lab.notary_list(lab.trust_server(), GUN);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let key = home.signet().args(["key", "show", &id]).run().ok();
    key.says(&SERIAL.to_string()).says("root");
    let after = cards
        .command("yubico-piv-tool")
        .args(["--reader", card.reader(), "--slot", "9c"])
        .args(["--action", "status"])
        .run()
        .ok();
    after.says("Subject DN:\tCN=root");
}

#[test]
fn a_card_that_notary_prepared_makes_signets_first_root() {
    is_used_as_it_is(Firmware::V5_4);
}

#[test]
fn so_does_one_whose_firmware_tells_nothing_but_its_certificates() {
    is_used_as_it_is(Firmware::V4_3);
}
