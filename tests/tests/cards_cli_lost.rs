//! `docs/guides/lost-card.md` works as it is written: its shell blocks, in order, with one virtual
//! card after the other removed for good.

use std::fs;
use std::path::{Path, PathBuf};

use signet_tests::lab::command::clean;
use signet_tests::{Cards, Firmware, Home, Lab, Output, Run};

/// As the guide has them: the lost card, the spare, the new one.
const LOST: u32 = 11_111_111;
const SPARE: u32 = 22_222_222;
const NEW: u32 = 33_333_333;
const PIN: &str = "73aBc!";

fn guide() -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/lost-card.md");
    fs::read_to_string(file).expect("the guide is there")
}

/// The shell blocks below a heading, which may be part of a list.
fn blocks(text: &str, heading: &str) -> Vec<String> {
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let mut blocks = Vec::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```sh" {
            let block = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(block.map(|line| format!("{}\n", line.trim())).collect());
        }
    }
    blocks
}

/// Runs a block in the home; what a person would type comes from descriptors and files.
fn run(home: &Home, block: &str) -> Output {
    let signet = home.signet();
    let words: Vec<String> = std::iter::once(signet.get_program())
        .chain(signet.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let pins: Vec<String> = [LOST, SPARE, NEW]
        .iter()
        .map(|serial| format!("--pin-fd {serial}:3"))
        .collect();
    let function = format!(
        "signet() {{ {} --no-input --yes {} --passphrase-fd root:4 --new-passphrase-fd 5 \"$@\" \
         3<pin 4<of-backup 5<of-backup; }}\n",
        words.join(" "),
        pins.join(" ")
    );
    let mut shell = clean("bash");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
        .current_dir(home.user_home())
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "of the backup")
        .args(["-euc", &format!("{function}{block}")])
        .run()
}

#[test]
fn the_guide_brings_signing_back_after_each_kind_of_loss() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder()
        .card(Firmware::V5_7, LOST)
        .card(Firmware::V5_4, SPARE)
        .card(Firmware::V5_7, NEW)
        .start();
    let home = lab.home().with_cards(&cards);
    for (file, line) in [("pin", PIN), ("of-backup", "of the backup")] {
        fs::write(home.user_home().join(file), format!("{line}\n")).expect("the home is ours");
    }
    for card in cards.all() {
        let sheet = home.user_home().join(format!("sheet-{}", card.serial()));
        home.with_descriptors(&[(3, PIN)])
            .args(["card", "setup", &card.serial().to_string(), "--pin-fd", "3"])
            .arg("--recovery-sheet")
            .arg(sheet)
            .run()
            .ok();
    }
    let guide = guide();
    let section = |heading: &str| blocks(&guide, heading);
    let of_root = |state: &str| {
        let keys = home.keys();
        let root = keys.iter().find(|key| key["label"] == "release");
        let root = root.unwrap_or_else(|| panic!("no root key: {keys:#?}"));
        assert_eq!(root["state"], state, "{root:#}");
        let serials = root["cards"].as_array().expect("places").iter();
        serials
            .filter_map(|place| place["serial"].as_u64())
            .collect::<Vec<_>>()
    };

    // Before: the same key on two cards, the file gone.
    for block in section("Before") {
        run(&home, &block).ok();
    }
    let mut places = of_root("enrolled");
    places.sort_unstable();
    assert_eq!(places, [u64::from(LOST), u64::from(SPARE)]);

    // The first card is lost, the spare is in the drawer.
    cards.card(LOST).remove();
    for block in section("A spare") {
        let output = run(&home, &block).ok();
        if block.contains("forget") {
            output.says("kept: ").says("keys lost 0");
        }
    }
    assert_eq!(of_root("enrolled"), [u64::from(SPARE)]);

    // The spare is lost, too: the backup is left.
    cards.card(SPARE).remove();
    let blocks = section("No spare");
    let (forget, recover) = blocks.split_first().expect("blocks");
    run(&home, forget)
        .ok()
        .says("lost: ")
        .says("rotate it in registry.example.com/acme/app");
    for block in recover {
        run(&home, block).ok();
    }
    assert_eq!(of_root("enrolled"), [u64::from(NEW)]);

    // And so is the last one.
    cards.card(NEW).remove();
    lab.notary(&lab.fresh_dir("n"))
        .args(["delete", "registry.example.com/acme/app", "--remote"])
        .run()
        .ok();
    for block in section("Neither") {
        run(&home, &block).ok();
    }
    let gun = "registry.example.com/acme/app";
    let keys = home.keys();
    let anew = keys
        .iter()
        .find(|key| key["role"] == "root" && key["state"] == "enrolled");
    assert!(anew.is_some_and(|key| key["store"] == "file"), "{keys:#?}");
    home.signs(&format!("{gun}:v1"));
    home.signet()
        .args(["verify", &format!("{gun}:v1")])
        .run()
        .ok();
}
