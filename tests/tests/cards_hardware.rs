//! `make test-card`, which is for real YubiKeys, on a virtual one: it passes, says so, and leaves
//! the card as it was.

use std::fs;
use std::path::Path;

use signet_tests::lab::{built, command::clean};
use signet_tests::steps::write_script;
use signet_tests::{Cards, Firmware, Home, Lab, Output, Run};

const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";

fn test_card(lab: &Lab, cards: &Cards, serial: u32) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/test-card");
    let pin = lab.dir().join("card-pin");
    fs::write(&pin, format!("{PIN}\n")).expect("the lab's directory is ours");
    let mut command = clean(script);
    command
        .arg(serial.to_string())
        .env("HOME", lab.dir().join("home"))
        .env("XDG_RUNTIME_DIR", lab.fresh_dir("r"))
        .env("DOCKER_CONFIG", lab.client_config())
        .env("DOCKER_CONTENT_TRUST_SERVER", lab.trust_server())
        .env("LAB_DIR", lab.fresh_dir("t"))
        .env("LAB_BIN", built("signet").with_file_name(""))
        .env("SIGNET_TEST_CARD_PIN_FILE", pin);
    cards.enter(&command).run()
}

/// `make test-card` itself, with the programs that are being tested instead of a build.
fn make_test_card(lab: &Lab, cards: &Cards, serial: u32) -> Output {
    let programs = lab.fresh_dir("p");
    write_script(&programs.join("cargo"), "#!/bin/sh\n");
    let pin = lab.dir().join("card-pin");
    fs::write(&pin, format!("{PIN}\n")).expect("the lab's directory is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let built = built("signet");
    let target = built.parent().and_then(Path::parent);
    let mut command = clean("make");
    command
        .arg("--no-print-directory")
        .arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["test-card", &format!("SERIAL={serial}")])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("CARGO_TARGET_DIR", target.expect("below target"))
        .env("SIGNET_TEST_CARD_PIN_FILE", pin);
    if let Some(cache) = std::env::var_os("SIGNET_LAB_CACHE") {
        command.env("SIGNET_LAB_CACHE", cache);
    }
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    cards.enter(&command).run()
}

fn prepared(home: &Home) {
    let with_pin = |args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, PIN)]);
        command.args(args).args(["--pin-fd", "3"]).run().ok();
    };
    let sheet = home.user_home().join("sheet").display().to_string();
    with_pin(&["card", "setup", "--recovery-sheet", &sheet]);
    with_pin(&["key", "generate", "--role", "root", "--store", "piv"]);
    home.signet().args(["agent", "stop"]).run().ok();
}

#[test]
fn the_harmless_half_passes_and_leaves_the_card_as_it_was() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    prepared(&lab.home().with_cards(&cards));
    let report = make_test_card(&lab, &cards, SERIAL).ok();
    let report = report
        .says("Firmware 5.7")
        .says("| collection 2, verified | passed |")
        .says("| no signature without the PIN after `lock` | passed |")
        .says("| the card is as it was | passed |");
    assert!(!report.stdout.contains("failed"), "{}", report.text());
    assert!(!report.text().contains(PIN), "{}", report.text());
    assert_eq!(cards.card(SERIAL).stats().pin_tries, 3);

    // One that is not there is named, and nothing is done.
    let missing = test_card(&lab, &cards, 1).exits(7);
    missing.says("serial number 1 is plugged in");
}
