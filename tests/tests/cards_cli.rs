//! YubiKeys as a person at the command line meets them: every command against the real agent and
//! virtual cards. What is signed, and what happens when a card misbehaves: `yubikey.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use signet_tests::lab::cards::now;
use signet_tests::schema::Schemas;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Cards, Firmware, Home, Lab, Run, Terminal};

const GUN: &str = "registry.example.com/acme/app";
const FIRST: u32 = 11_111_111;
const SECOND: u32 = 22_222_222;
const PIN: &str = "73aBc!";
const OTHER_PIN: &str = "90xYz?";

/// VERIFY (SP 800-73-4 part 2, section 3.2.1).
const VERIFY: u8 = 0x20;

/// Names the root of the virtual cards in `agent.toml`, as the owner of other ones would name
/// Yubico's, and has the agent read it.
fn trust_attestations(home: &Home, root: &Result<String, String>) {
    let der = root.as_deref().expect("the card tells its root");
    let config = home.user_home().join(".config/signet");
    fs::create_dir_all(&config).expect("the home is ours");
    let file = config.join("roots.pem");
    fs::write(&file, signet_agent::store::piv::attest::pem(&hex(der))).expect("the same");
    let setting = format!("attestation_roots = \"{}\"\n", file.display());
    fs::write(config.join("agent.toml"), setting).expect("the same");
    home.signet().args(["agent", "stop"]).run().ok();
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("two digits")
    };
    digits.trim().as_bytes().chunks(2).map(byte).collect()
}

/// A card made somebody's, without a terminal.
fn set_up(home: &Home, serial: u32, pin: &str, label: &str) {
    let sheet = home.user_home().join(format!("sheet-{serial}"));
    let serial = serial.to_string();
    home.with_descriptors(&[(3, pin)])
        .args(["card", "setup", &serial, "--label", label, "--pin-fd", "3"])
        .arg("--recovery-sheet")
        .arg(&sheet)
        .run()
        .ok();
}

/// Makes a key on a card, unattended.
fn generate(home: &Home, pin: &str, args: &[&str]) -> String {
    home.with_descriptors(&[(3, pin)])
        .args(["key", "generate", "--pin-fd", "3"])
        .args(args)
        .run()
        .ok()
        .stdout
        .trim()
        .to_owned()
}

fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.signet();
    command.args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE]);
    command
}

/// What a terminal shows next that wants something of the person.
enum Wanted {
    Pin(u32),
    Touch(u32),
    Done,
}

/// Waits for the next prompt for a PIN, line about a touch, or the end.
fn wanted(terminal: &mut Terminal, end: &str) -> Wanted {
    // A touch is announced with its whole time; the same line with less is the countdown.
    let seen = terminal.expect(&format!(
        r"(PIN of the YubiKey [^\n]*: |Touch the YubiKey [^\n]*\[15 s\]|{end})"
    ));
    let line = seen.rsplit('\n').next().unwrap_or(&seen);
    let serial = [FIRST, SECOND]
        .into_iter()
        .find(|serial| line.contains(&format!("serial {serial}")));
    match serial {
        Some(serial) if line.contains("PIN of the YubiKey") => Wanted::Pin(serial),
        Some(serial) => Wanted::Touch(serial),
        None => Wanted::Done,
    }
}

#[test]
fn a_push_asks_one_pin_a_card_and_says_each_touch_before_the_card_is_touched() {
    let lab = Lab::start();
    let cards = Cards::builder()
        .card(Firmware::V5_7, FIRST)
        .card(Firmware::V5_7, SECOND)
        .start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "desk");
    set_up(&home, SECOND, OTHER_PIN, "drawer");
    let image = lab.import_image("acme/app:v1");
    let (gun, _) = image.rsplit_once(':').expect("a tag");
    let always = ["--touch-policy", "always", "--pin-policy", "once"];
    let on = |serial: u32, slot: &str| format!("piv:{serial}:{slot}");
    let mut root = vec!["--role", "root", "--store"];
    let (first, second) = (on(FIRST, "9c"), on(SECOND, "9a"));
    root.push(&first);
    root.extend(always);
    let root = generate(&home, PIN, &root);
    let mut targets = vec!["--role", "targets", "--gun", gun, "--store", &second];
    targets.extend(always);
    generate(&home, OTHER_PIN, &targets);
    home.signet().arg("lock").run().ok();
    for card in cards.all() {
        card.touch_never();
        card.reset_stats();
    }

    let mut push = home.signet();
    push.args(["push", &image, "--root", &root]);
    let mut terminal = Terminal::start(push);
    let (mut pins, mut touches) = (Vec::new(), Vec::new());
    loop {
        match wanted(&mut terminal, "Successfully signed") {
            Wanted::Pin(serial) => {
                pins.push(serial);
                terminal.type_line(if serial == FIRST { PIN } else { OTHER_PIN });
            }
            Wanted::Touch(serial) => {
                touches.push(serial);
                let card = cards.card(serial);
                let _since = card.await_touch();
                assert!(card.stats().waiting, "it was said before it was done");
                card.touch();
            }
            Wanted::Done => break,
        }
    }
    let seen = terminal.exits(0);
    pins.sort_unstable();
    assert_eq!(pins, [FIRST, SECOND], "one PIN a card:\n{seen}");
    for serial in [FIRST, SECOND] {
        let said = touches.iter().filter(|one| **one == serial).count();
        let waits = cards.card(serial).stats().touches;
        assert_eq!(said, waits.len(), "one line a touch of {serial}:\n{seen}");
        assert!(said > 0 && waits.iter().all(|wait| wait.touched));
    }
    assert!(!seen.contains(PIN) && !seen.contains(OTHER_PIN));
    lab.everybody_pulls(&image);
}

#[test]
fn a_touch_is_said_as_soon_as_the_card_waits_for_it() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "desk");
    let store = format!("piv:{FIRST}:9c");
    let mut targets = vec!["--role", "targets", "--gun", GUN, "--store", &store];
    targets.extend(["--touch-policy", "always", "--pin-policy", "never"]);
    generate(&home, PIN, &targets);
    home.signs(&format!("{GUN}:v0"));
    let card = cards.card(FIRST);
    card.touch_never();
    let mut late = Vec::new();
    for number in 1..=5 {
        let mut command = sign(&home, &format!("v{number}"));
        let mut running = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(running.stderr.take().expect("it is a pipe"));
        let line = said.lines().map_while(Result::ok);
        let touch = line.into_iter().find(|line| line.starts_with("Touch the"));
        let seen = now();
        assert!(touch.is_some(), "no touch was asked for");
        late.push(seen.saturating_sub(card.await_touch()));
        card.touch();
        assert!(running.wait().expect("it ends").success());
    }
    // Whatever else the machine does can only make it later.
    let soonest = late.iter().min().expect("five");
    assert!(*soonest < 50_000_000, "nanoseconds: {late:?}");
}

#[test]
fn every_card_command_prints_what_its_schema_says() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    let schemas = Schemas::of_the_docs();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    let mut look = |name: &str, command: &mut Command| -> Value {
        let output = command.arg("--json").run();
        if name != "signet doctor" {
            output.clone().ok();
        }
        let value: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|err| panic!("{name}: no JSON ({err}): {}", output.text()));
        faults.extend(schemas.faults(name, &value));
        seen.insert(name.to_owned());
        value
    };
    let signet = |args: &[&str]| {
        let mut command = home.signet();
        command.args(args);
        command
    };
    let with_pin = |pin: &str, args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, pin), (4, OTHER_PIN)]);
        command.args(args).args(["--pin-fd", "3"]);
        command
    };
    let serial = FIRST.to_string();

    let list = look("signet card list", &mut signet(&["card", "list"]));
    assert_eq!(list["cards"][0]["serial"], FIRST);
    assert_eq!(list["cards"][0]["default_pin"], true);
    let doctor = look("signet doctor", &mut signet(&["doctor"]));
    let text = doctor.to_string();
    assert!(
        text.contains(&format!("signet card setup {FIRST}")),
        "{doctor:#}"
    );

    let sheet = home.user_home().join("sheet");
    let mut setup = with_pin(PIN, &["card", "setup", "--label", "work"]);
    setup.arg("--recovery-sheet").arg(&sheet);
    let setup = look("signet card setup", &mut setup);
    assert_eq!(setup["recovery_sheet"], sheet.display().to_string());
    let text = fs::read_to_string(&sheet).expect("it is written");
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        let secret = line.split_whitespace().find(|word| word.len() >= 8);
        let secret = secret.filter(|word| *word != "management");
        if let Some(secret) = secret {
            assert!(!setup.to_string().contains(secret), "{secret}");
        }
    }

    let store = format!("piv:{FIRST}:9c");
    let generated = look(
        "signet key show",
        &mut with_pin(
            PIN,
            &["key", "generate", "--role", "alice", "--store", &store],
        ),
    );
    assert_eq!(generated["cards"][0]["slot"], "9c");
    assert_eq!(generated["cards"][0]["origin"], "generated");
    look("signet key list", &mut signet(&["key", "list"]));
    let status = look("signet status", &mut signet(&["status"]));
    assert_eq!(status["cards"][0]["label"], "work");
    let attest = look("signet card attest", &mut signet(&["card", "attest", "9c"]));
    assert_eq!(attest["certificates"].as_array().map(Vec::len), Some(2));
    let result = attest["result"].as_str().expect("one line");
    let nobody = "not verified: no root bundled for its issuer CN=";
    assert!(result.starts_with(nobody), "{result}");
    trust_attestations(&home, &cards.card(FIRST).control("attestation-root"));
    let attest = look("signet card attest", &mut signet(&["card", "attest", "9c"]));
    let result = attest["result"].as_str().expect("one line");
    assert!(
        result.starts_with("verified: made on YubiKey 5.7"),
        "{result}"
    );
    let id = generated["id"].as_str().expect("every key has one");
    let shown = look("signet key show", &mut signet(&["key", "show", id]));
    assert_eq!(shown["cards"][0]["attestation"], result);
    look(
        "signet card pin",
        &mut with_pin(PIN, &["card", "pin", "--new-passphrase-fd", "4"]),
    );
    let list = look("signet card list", &mut signet(&["card", "list"]));
    assert_eq!(list["cards"][0]["slots"][0]["state"], "enrolled");
    let forget = ["--yes", "card", "forget", &serial];
    let forgotten = look("signet card forget", &mut signet(&forget));
    assert_eq!(forgotten["lost"].as_array().map(Vec::len), Some(1));
    let reset = ["--no-input", "card", "reset", "--confirm", &serial];
    look("signet card pin", &mut signet(&reset));
    let list = look("signet card list", &mut signet(&["card", "list"]));
    assert_eq!(list["cards"][0]["default_pin"], true);

    assert_eq!(faults, Vec::<String>::new());
    let page: BTreeSet<String> = schemas
        .names()
        .filter(|name| name.starts_with("signet card ") || *name == "signet doctor")
        .map(str::to_owned)
        .collect();
    assert!(page.is_subset(&seen), "{page:?} and {seen:?}");
}

#[test]
fn a_wrong_pin_of_a_descriptor_costs_one_try_and_ends_the_command() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "work");
    let store = format!("piv:{FIRST}");
    let wrong = home
        .with_descriptors(&[(3, OTHER_PIN)])
        .args([
            "key", "generate", "--role", "alice", "--pin-fd", "3", "--store", &store,
        ])
        .run()
        .exits(5);
    wrong.clone().says("2 tries left");
    assert!(!wrong.text().contains(OTHER_PIN));
    assert_eq!(cards.card(FIRST).stats().pin_tries, 2, "{}", wrong.text());
    // The right one gives them back.
    generate(&home, PIN, &["--role", "alice", "--store", &store]);
    assert_eq!(cards.card(FIRST).stats().pin_tries, 3);
}

#[test]
fn a_pin_without_a_serial_is_refused_before_any_card_is_spoken_to_where_there_are_two() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder()
        .card(Firmware::V5_7, FIRST)
        .card(Firmware::V5_4, SECOND)
        .start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "desk");
    set_up(&home, SECOND, OTHER_PIN, "drawer");
    let (first, second) = (format!("piv:{FIRST}:9c"), format!("piv:{SECOND}:9c"));
    let root = generate(
        &home,
        PIN,
        &[
            "--role",
            "root",
            "--store",
            &first,
            "--touch-policy",
            "never",
        ],
    );
    let targets = [
        "--role",
        "targets",
        "--gun",
        GUN,
        "--store",
        &second,
        "--touch-policy",
        "never",
    ];
    generate(&home, OTHER_PIN, &targets);
    home.signet().arg("lock").run().ok();
    for card in cards.all() {
        card.reset_stats();
    }
    let reference = format!("{GUN}:v1@{DIGEST}");
    let args = ["sign", &reference, "--size", SIZE, "--root", &root];
    home.with_descriptors(&[(3, PIN)])
        .args(args)
        .args(["--pin-fd", "3"])
        .run()
        .exits(2)
        .says("--pin-fd");
    for card in cards.all() {
        assert_eq!(card.stats().count(VERIFY), 0);
    }
    // One for each, and it is done.
    let (first, second) = (format!("{FIRST}:3"), format!("{SECOND}:4"));
    home.with_descriptors(&[(3, PIN), (4, OTHER_PIN)])
        .args(args)
        .args(["--pin-fd", &first, "--pin-fd", &second])
        .run()
        .ok();
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
}

#[test]
fn a_card_in_the_drawer_is_waited_for_by_name() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "drawer");
    let store = format!("piv:{FIRST}:9c");
    let targets = [
        "--role",
        "targets",
        "--gun",
        GUN,
        "--store",
        &store,
        "--touch-policy",
        "never",
    ];
    generate(&home, PIN, &targets);
    let card = cards.card(FIRST);
    card.remove();
    // Nobody to put it in.
    let mut alone = sign(&home, "v1");
    alone
        .arg("--no-input")
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file());
    alone.run().exits(7).says("drawer").says(&FIRST.to_string());

    let mut command = sign(&home, "v1");
    command
        .args(["--root", "root"])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
    let mut terminal = Terminal::start(command);
    terminal.expect(&format!(
        r"Insert the YubiKey 'drawer' \(serial {FIRST}\) \[\d+ s\]"
    ));
    card.insert();
    terminal.answer(r"PIN of the YubiKey 'drawer'[^\n]*: ", PIN);
    terminal.exits(0);
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
}

#[test]
fn a_blocked_pin_is_said_with_the_way_out_and_the_puk_is_the_way() {
    let lab = Lab::builder().build();
    let cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "work");
    let sheet = fs::read_to_string(home.user_home().join(format!("sheet-{FIRST}")));
    let sheet = sheet.expect("the sheet is there");
    let puk = sheet
        .lines()
        .find_map(|line| line.trim().strip_prefix("PUK"))
        .map(|rest| rest.trim().to_owned())
        .expect("the PUK is on it");
    let change = |more: &[&str]| {
        let mut command = home.signet();
        command.args(["card", "pin"]).args(more);
        Terminal::start(command)
    };
    // Each is asked for with the new one; what the card refuses ends the command.
    for tries in ["3 tries left", "2 tries left"] {
        let mut terminal = change(&[]);
        terminal.answer(&format!("PIN of the YubiKey 'work'.*{tries}: "), "nobody");
        terminal.answer("New PIN for the YubiKey 'work'", OTHER_PIN);
        terminal.answer("once more", OTHER_PIN);
        let (code, said) = terminal.end();
        assert_eq!(code, Some(5), "{said}");
    }
    // The last try is not spent unasked.
    assert_eq!(cards.card(FIRST).stats().pin_tries, 1);
    let (code, said) = change(&[]).end();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("--use-last-try"), "{said}");
    assert_eq!(cards.card(FIRST).stats().pin_tries, 1);
    let mut terminal = change(&["--use-last-try"]);
    terminal.answer("the last try: ", "nobody");
    terminal.answer("New PIN for the YubiKey 'work'", OTHER_PIN);
    terminal.answer("once more", OTHER_PIN);
    let (code, said) = terminal.end();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("PUK"), "{said}");
    // What doctor says is what helps.
    let doctor = home.signet().arg("doctor").run();
    assert!(
        doctor
            .text()
            .contains(&format!("signet card pin {FIRST} --puk"))
    );
    let mut terminal = change(&["--puk"]);
    terminal.answer("PUK of the YubiKey 'work'", &puk);
    terminal.answer("New PIN for the YubiKey 'work'", OTHER_PIN);
    terminal.answer("once more", OTHER_PIN);
    terminal.exits(0);
    assert_eq!(cards.card(FIRST).stats().pin_tries, 3);
}

#[test]
fn doctor_names_a_program_that_is_not_there_and_a_card_that_is() {
    let lab = Lab::builder().build();
    let mut cards = Cards::builder().card(Firmware::V5_7, FIRST).start();
    let home = lab.home().with_cards(&cards);
    set_up(&home, FIRST, PIN, "work");
    let said = home.signet().arg("doctor").run().text();
    assert!(said.contains("ready, firmware 5.7"), "{said}");
    assert!(
        said.contains("pcscd listens at /run/pcscd/pcscd.comm"),
        "{said}"
    );
    let store = format!("piv:{FIRST}");
    generate(&home, PIN, &["--role", "alice", "--store", &store]);
    cards.stop_pcscd();
    let stopped = home.signet().arg("doctor").run().exits(1);
    stopped.says("systemctl").says("pcscd");
    cards.start_pcscd();
    let again = home.signet().arg("doctor").run().text();
    assert!(again.contains("ready, firmware 5.7"), "{again}");
}
