//! Signing with keys on YubiKeys, and what happens when a card, its reader or its person does not
//! do what is hoped for: virtual cards behind the real PC/SC daemon.

use std::fs;
use std::time::Duration;

use signet_tests::lab::cards::{Hold, ykman};
use signet_tests::lab::command::Output;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Cards, Firmware, Home, Lab, Run, Terminal};

const GUN: &str = "registry.example.com/acme/app";
const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";
/// VERIFY and GENERAL AUTHENTICATE (SP 800-73-4, part 2, §3.2.1 and §3.2.4).
const VERIFY: u8 = 0x20;
const SIGN: u8 = 0x87;

/// A lab with a trust server, one card that was set up, and a collection whose keys lie on it.
struct Bench {
    // Dropped in this order: the agent of the home ends while its directory is there.
    home: Home,
    cards: Cards,
    lab: Lab,
    tags: u32,
}

fn set_up(home: &Home, serial: u32) {
    home.with_descriptors(&[(3, PIN)])
        .args(["card", "setup", &serial.to_string(), "--pin-fd", "3"])
        .arg("--recovery-sheet")
        .arg(home.user_home().join(format!("sheet-{serial}")))
        .run()
        .ok();
}

impl Bench {
    fn new(firmware: Firmware, touch: &str) -> Self {
        let lab = Lab::builder().notary().build();
        let cards = Cards::builder().card(firmware, SERIAL).start();
        let home = lab.home().with_cards(&cards);
        set_up(&home, SERIAL);
        for role in [&["root"][..], &["targets", "--gun", GUN]] {
            home.with_descriptors(&[(3, PIN)])
                .args(["key", "generate", "--store", "piv", "--pin-fd", "3"])
                .args(["--touch-policy", touch, "--role"])
                .args(role)
                .run()
                .ok();
        }
        let mut bench = Self {
            lab,
            cards,
            home,
            tags: 0,
        };
        bench.signs().ok();
        bench
    }

    fn sign_with(&mut self, pin: &str) -> Output {
        self.tags += 1;
        let image = format!("{GUN}:t{}@{DIGEST}", self.tags);
        self.home
            .with_descriptors(&[(3, pin)])
            .args(["sign", &image, "--size", SIZE, "--pin-fd", "3"])
            .run()
    }

    fn signs(&mut self) -> Output {
        self.sign_with(PIN)
    }

    fn tries(&self) -> u64 {
        self.cards.card(SERIAL).stats().pin_tries
    }

    fn terminal(&mut self) -> Terminal {
        self.tags += 1;
        let image = format!("{GUN}:t{}@{DIGEST}", self.tags);
        let mut command = self.home.signet();
        command.args(["sign", &image, "--size", SIZE]);
        Terminal::start(command)
    }
}

#[test]
fn every_fault_of_a_card_has_its_message_and_the_next_signature_succeeds() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    // Where a status word comes out of nowhere, or an answer makes no sense.
    for status in [0x6f00, 0x6985, 0x6a86] {
        bench.cards.card(SERIAL).fault(SIGN, status, 1);
        bench
            .signs()
            .exits(1)
            .says(&format!("answered {status:04x}"));
        bench.cards.card(SERIAL).heal();
    }
    bench.cards.card(SERIAL).garbage(SIGN, &[0x7c, 0x80]);
    bench.signs().exits(1).says("makes no sense");
    bench.cards.card(SERIAL).heal();
    bench.signs().ok();

    // Another program resets the card, makes it forget the PIN, or restarts the service.
    bench.cards.card(SERIAL).reset();
    bench.signs().ok();
    bench.cards.card(SERIAL).forget();
    bench.signs().ok();
    bench.cards.restart_pcscd();
    bench.signs().ok();

    // It is unplugged, in the middle of a signature too.
    bench.cards.card(SERIAL).remove();
    bench.signs().exits(7).says("in no reader");
    bench.cards.card(SERIAL).insert();
    bench.signs().ok();
    bench.cards.card(SERIAL).vanish_at(SIGN);
    bench.signs().exits(7).says(&SERIAL.to_string());
    bench.cards.card(SERIAL).heal();
    bench.cards.card(SERIAL).remove();
    bench.cards.card(SERIAL).insert();
    bench.signs().ok();

    // Somebody else keeps it.
    let holder = bench.cards.card(SERIAL).hold(Hold::Transaction);
    bench.signs().exits(7).says("is used by");
    drop(holder);
    bench.signs().ok();

    assert_eq!(bench.tries(), 3, "no try was spent");
}

#[test]
fn a_wrong_pin_costs_one_try_and_the_last_one_is_not_spent() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    bench.cards.card(SERIAL).reset_stats();
    bench
        .sign_with("000000")
        .exits(5)
        .says("wrong PIN")
        .says("2 tries left");
    assert_eq!(bench.tries(), 2);
    assert_eq!(bench.cards.card(SERIAL).stats().count(VERIFY), 1);
    bench.signs().ok();
    assert_eq!(bench.tries(), 3);

    // What a touch types is not sent.
    bench.cards.card(SERIAL).reset_stats();
    bench
        .sign_with("cccccckbhvdgtjrdffndkhvcgkgvvhnrlkjubllrldcl")
        .exits(5);
    assert_eq!(bench.cards.card(SERIAL).stats().count(VERIFY), 0);

    bench.sign_with("000000").exits(5);
    bench.sign_with("000001").exits(5).says("one try left");
    bench.signs().exits(5).says("one try left");
    assert_eq!(bench.tries(), 1);
    // Somebody else spends it.
    let wrong = "0020008008393939393939ffff";
    let _ = bench
        .cards
        .card(SERIAL)
        .send(&["00a4040005a000000308", wrong]);
    bench.signs().exits(5).says("blocked").says("--puk");
}

#[test]
fn a_missed_touch_is_told_and_the_next_one_signs() {
    let mut bench = Bench::new(Firmware::V5_4, "always");
    let card = bench.cards.card(SERIAL);
    card.touch_never();
    card.touch_timeout(Duration::from_millis(300));
    bench.signs().exits(7).says("not touched in time");
    bench.cards.card(SERIAL).touch_auto();
    bench.signs().ok();
    assert_eq!(bench.tries(), 3);
    let log = bench.home.log().to_string();
    assert!(log.contains("card.touch_timeout"), "{log}");
    assert!(log.contains("\"grade\":4"), "{log}");
}

#[test]
fn nobody_else_signs_with_the_pin_that_was_given_to_us() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    // A P-256 signature by the key in 9c, after selecting the application.
    let digest = "11".repeat(32);
    let sign = format!("0087119c267c2482008120{digest}00");
    let others_sign = |bench: &Bench, when: &str| {
        // Without SELECT, which would make the card forget a PIN by itself.
        let answers = bench.cards.card(SERIAL).send(&[&sign]);
        let last = answers.last().expect("an answer").to_lowercase();
        assert!(last.ends_with("6982"), "{when}: {answers:?}");
        assert!(!bench.cards.card(SERIAL).stats().pin_verified, "{when}");
    };
    bench.signs().ok();
    others_sign(&bench, "after a signature");
    bench.home.signet().arg("lock").run().ok();
    others_sign(&bench, "after lock");
    bench.signs().ok();
    let agent = bench.home.agent_pid().expect("it runs");
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).expect("it is ours");
    others_sign(&bench, "after a crash");
    bench.signs().ok();
}

#[test]
fn a_card_that_is_missing_is_waited_for_and_signs_when_it_comes() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    bench.cards.card(SERIAL).remove();
    let mut terminal = bench.terminal();
    terminal.expect("Insert");
    bench.cards.card(SERIAL).insert();
    terminal.answer("PIN of the YubiKey [^\n]*: ", PIN);
    terminal.exits(0);
    // Held for this terminal's session only; another card gets nothing of it.
    bench.cards.card(SERIAL).swap(22_222_222, Firmware::V5_7);
    bench.signs().exits(7).says("in no reader");
    bench.cards.card(SERIAL).swap_foreign();
    bench.signs().exits(7);
    bench
        .home
        .signet()
        .args(["card", "list"])
        .run()
        .ok()
        .says("no YubiKey");
}

#[test]
fn a_card_set_up_by_ykman_is_used_as_it_is() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let home = lab.home().with_cards(&cards);
    let run = |arguments: &[&str]| {
        let mut command = cards.command(ykman());
        command
            .args(["--device", &SERIAL.to_string(), "piv"])
            .args(arguments);
        command.run().ok();
    };
    run(&["access", "change-pin", "-P", "123456", "-n", PIN]);
    run(&["access", "change-puk", "-p", "12345678", "-n", "87234509"]);
    run(&[
        "access",
        "change-management-key",
        "--generate",
        "--protect",
        "-a",
        "AES256",
        "-P",
        PIN,
        "-m",
        "010203040506070801020304050607080102030405060708",
    ]);
    home.with_descriptors(&[(3, PIN)])
        .args(["key", "generate", "--role", "root", "--store", "piv"])
        .args(["--pin-fd", "3"])
        .run()
        .ok();
    // And what we set up is what ykman finds.
    let info = cards
        .command(ykman())
        .args(["--device", &SERIAL.to_string(), "piv", "info"])
        .run()
        .ok();
    info.says("protected by PIN").says("CN=root");
}

#[test]
fn one_pin_is_given_for_all_that_a_card_signs_together_and_9e_proves_a_card_that_was_away() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    // A new collection: its root certificate, then root and targets, which the same card signs.
    let again = "registry.example.com/acme/other";
    bench
        .home
        .with_descriptors(&[(3, PIN)])
        .args(["key", "generate", "--store", "piv", "--pin-fd", "3"])
        .args(["--touch-policy", "never", "--role", "targets"])
        .args(["--gun", again])
        .run()
        .ok();
    let commands = |bench: &Bench| -> Vec<String> {
        let sent = bench.cards.card(SERIAL).stats().sequence;
        let heads = sent.iter().map(|line| line[..8].to_lowercase());
        heads.collect()
    };
    let of = |sent: &[String], head: &str| sent.iter().filter(|at| at.starts_with(head)).count();
    bench.cards.card(SERIAL).reset_stats();
    bench
        .home
        .with_descriptors(&[(3, PIN)])
        .args(["sign", &format!("{again}:one@{DIGEST}"), "--size", SIZE])
        .args(["--pin-fd", "3"])
        .run()
        .ok();
    let sent = commands(&bench);
    assert_eq!(of(&sent, "008711"), 3, "{sent:?}");
    assert_eq!(of(&sent, "00200080"), 2, "{sent:?}");
    assert_eq!(of(&sent, "0020ff80"), 2, "{sent:?}");

    bench
        .home
        .with_descriptors(&[(3, PIN)])
        .args(["key", "generate", "--role", "proof", "--pin-policy"])
        .args(["never", "--touch-policy", "never", "--pin-fd", "3"])
        .args(["--store", &format!("piv:{SERIAL}:9e")])
        .run()
        .ok();
    bench.signs().ok();
    bench.cards.card(SERIAL).reset_stats();
    bench.signs().ok();
    assert_eq!(of(&commands(&bench), "0087119e"), 0, "it was not away");
    bench.cards.card(SERIAL).remove();
    bench.cards.card(SERIAL).insert();
    bench.cards.card(SERIAL).reset_stats();
    bench.signs().ok();
    let sent = commands(&bench);
    let proof = sent.iter().position(|at| at == "0087119e");
    let pin = sent.iter().position(|at| at == "00200080");
    assert!(proof.is_some() && proof < pin, "{sent:?}");
}

#[test]
fn a_set_up_that_is_killed_half_way_is_finished_and_its_lost_puk_replaced() {
    /// CHANGE REFERENCE DATA, and Yubico's SET MANAGEMENT KEY.
    const CHANGE: u8 = 0x24;
    const SET_MANAGEMENT_KEY: u8 = 0xff;
    let lab = Lab::builder().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let home = lab.home().with_cards(&cards);
    let card = cards.card(SERIAL);
    let setup = |sheet: &str, args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, PIN)]);
        command
            .args(["card", "setup", "--pin-fd", "3", "--recovery-sheet"])
            .arg(home.user_home().join(sheet))
            .args(args);
        command
    };
    card.delay_of(SET_MANAGEMENT_KEY, Duration::from_secs(2));
    let running = std::thread::scope(|scope| {
        let running = scope.spawn(|| setup("first", &[]).run());
        while card.stats().count(CHANGE) < 2 {
            assert!(!running.is_finished(), "it sets PIN and PUK first");
            std::thread::yield_now();
        }
        let agent = home.agent_pid().expect("it runs");
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).expect("it is ours");
        running.join().expect("no panic")
    });
    assert_ne!(running.status.code(), Some(0), "{}", running.text());
    assert!(
        !home.user_home().join("first").exists(),
        "a sheet that says nothing is not left"
    );
    card.heal();

    // The next run finishes, and says that the PUK is nobody's.
    setup("second", &[]).run().ok();
    let sheet = |name: &str| fs::read_to_string(home.user_home().join(name)).expect("it is there");
    let again = format!("signet card setup {SERIAL} --pin-tries 3 --puk-tries 3");
    assert!(sheet("second").contains(&again), "{}", sheet("second"));
    setup("third", &["--pin-tries", "3", "--puk-tries", "3"])
        .run()
        .ok();
    let third = sheet("third");
    let puk = third
        .lines()
        .find_map(|line| line.trim().strip_prefix("PUK "))
        .expect("a PUK")
        .trim();
    // It is the card's PUK, and the PIN is the one that it had.
    let ykman = |args: &[&str]| {
        let mut command = cards.command(ykman());
        command.args(["--device", &SERIAL.to_string(), "piv", "access"]);
        command.args(args).run().ok();
    };
    ykman(&["change-puk", "-p", puk, "-n", "87234509"]);
    ykman(&["change-pin", "-P", PIN, "-n", "90xYz?"]);
}

#[test]
fn no_pin_is_left_anywhere() {
    let mut bench = Bench::new(Firmware::V5_7, "never");
    let log = bench.home.user_home().join("agent.log");
    bench.home.signet().args(["agent", "stop"]).run().ok();
    let mut agent = bench.home.signetd();
    agent
        .env("SIGNET_LOG", "trace")
        .stderr(fs::File::create(&log).expect("the home is ours"));
    let mut agent = agent.spawn().expect("it starts");
    bench.signs().ok();
    bench.sign_with("98zYx#").exits(5);
    bench.home.signet().args(["agent", "stop"]).run().ok();
    agent.wait().expect("it ends");
    let mut looked = 0;
    for (path, content) in signet_tests::steps::files(bench.home.user_home()) {
        // Where the test itself put them.
        if path.to_string_lossy().contains("secret") {
            continue;
        }
        looked += 1;
        for canary in [PIN, "98zYx#"] {
            let found = content
                .windows(canary.len())
                .any(|window| window == canary.as_bytes());
            assert!(!found, "{} holds a PIN", path.display());
        }
    }
    assert!(looked > 3, "there was something to look at");
    drop(bench.lab);
}
