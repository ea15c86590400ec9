//! What a test can do to the cards, seen from PC/SC's side: touch, unplug, swap, reset, hold,
//! break.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use signet_tests::lab::cards::{Card, Hold, now};
use signet_tests::{Cards, Firmware, Lab, Run};

const SELECT: &str = "00a4040005a000000308";
const SELECTED: &str = "61114f0600001000010079074f05a0000003089000";
const PIN: &str = "0020008008313233343536ffff";
const PIN_STATUS: &str = "00200080";
const SERIAL: &str = "00f8000000";
/// A signature by 9a over a digest of zeros, without and with a policy of its own.
const SIGN: &str =
    "0087119a267c24820081200000000000000000000000000000000000000000000000000000000000000000";

/// Generates a P-256 key in 9a with this touch policy, by Debian's ykman.
fn generate(cards: &Cards, card: &Card, touch: &str) {
    let mut ykman = cards.command("/usr/bin/ykman");
    ykman
        .env("HOME", cards.dir())
        .args(["--reader", card.reader()]);
    ykman.args("piv keys generate -m 010203040506070801020304050607080102030405060708".split(' '));
    ykman.args(["-a", "ECCP256", "--touch-policy", touch, "9a", "-"]);
    ykman.run().ok();
}

fn ends_with(answers: &[String], status: &str) {
    let last = answers.last().expect("there is an answer");
    assert!(last.ends_with(status), "{last} does not end with {status}");
}

#[test]
fn four_cards_have_four_serials() {
    let cards = Cards::builder()
        .card(Firmware::V5_7, 1001)
        .card(Firmware::V4_3, 1002)
        .foreign(3)
        .card(Firmware::V5_2, 1004)
        .start();
    for serial in [1001, 1004] {
        let answers = cards.card(serial).send(&[SELECT, SERIAL]);
        assert_eq!(answers, [SELECTED.to_owned(), format!("{serial:08x}9000")]);
    }
    // Firmware 4 tells its serial elsewhere, and another maker's card has none of Yubico's.
    ends_with(&cards.card(1002).send(&[SELECT, SERIAL]), "6d00");
    let foreign = cards.card(3).send(&[SELECT, "00fd000000"]);
    assert!(
        foreign[0].ends_with("9000") && foreign[0] != SELECTED,
        "{foreign:?}"
    );
    assert_eq!(foreign[1], "6d00");
}

#[test]
fn an_unplugged_card_is_gone_and_comes_back_as_it_was() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    generate(&cards, card, "never");
    ends_with(&card.send(&[SELECT, PIN, SIGN]), "9000");
    for _ in 0..3 {
        card.remove();
        let gone = card.client(&["send", "--reader", card.reader(), SELECT]);
        gone.exits(1);
        card.insert();
        // The session went with the power, the key did not.
        ends_with(&card.send(&[SELECT, SIGN]), "6982");
        ends_with(&card.send(&[SELECT, PIN, SIGN]), "9000");
    }
    card.swap(2002, Firmware::V5_7);
    ends_with(&card.send(&[SELECT, SERIAL]), "000007d29000");
    ends_with(&card.send(&[SELECT, PIN, SIGN]), "6a80");
    card.swap_foreign();
    ends_with(&card.send(&[SELECT, SERIAL]), "6d00");
    card.swap(1001, Firmware::V5_4);
    ends_with(&card.send(&[SELECT, PIN, SIGN]), "9000");
}

#[test]
fn a_card_pulled_out_in_a_command_comes_back() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    card.vanish_at(0x20);
    // vpcd hands back no bytes at all, and no error.
    let answers = card.send(&[SELECT, PIN]);
    assert_eq!(answers, [SELECTED, ""]);
    assert!(!card.stats().present);
    card.insert();
    ends_with(&card.send(&[SELECT, PIN]), "9000");
}

#[test]
fn a_touch_is_waited_for_and_its_times_are_known() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    generate(&cards, card, "always");
    card.touch_never();
    assert!(card.control("touch").is_err(), "nobody waits for it");
    card.reset_stats();
    let before = now();
    thread::scope(|scope| {
        let signing = scope.spawn(|| card.send(&[SELECT, PIN, SIGN]));
        let begin = card.await_touch();
        assert!(before < begin && begin < now());
        let stats = card.stats();
        assert!(stats.waiting && stats.pin_verified);
        card.touch();
        ends_with(&signing.join().expect("it does not panic"), "9000");
    });
    let stats = card.stats();
    assert!(!stats.waiting && stats.touches.len() == 1 && stats.touches[0].touched);
    card.touch_timeout(Duration::from_millis(50));
    ends_with(&card.send(&[SELECT, PIN, SIGN]), "6982");
    let missed = card.stats().touches[1];
    assert!(!missed.touched);
    let waited = missed.end.expect("it is over") - missed.begin;
    assert!(waited >= 50_000_000, "{waited} ns");
    card.touch_after(Duration::from_millis(10));
    ends_with(&card.send(&[SELECT, PIN, SIGN]), "9000");
}

#[test]
fn one_touch_counts_for_a_while_where_the_policy_is_cached() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    generate(&cards, card, "cached");
    card.reset_stats();
    ends_with(&card.send(&[SELECT, PIN, SIGN, SIGN, SIGN]), "9000");
    assert_eq!(card.stats().touches.len(), 1);
    card.touch_cache(Duration::ZERO);
    ends_with(&card.send(&[SELECT, PIN, SIGN, SIGN]), "9000");
    assert_eq!(card.stats().touches.len(), 3);
}

#[test]
fn another_program_resets_holds_and_looks() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    generate(&cards, card, "never");
    // Left verified, a card signs for whoever comes next.
    ends_with(&card.send(&[SELECT, PIN]), "9000");
    ends_with(&card.send(&[SIGN]), "9000");
    assert!(card.stats().pin_verified);
    ends_with(&card.send(&["0020ff80"]), "9000");
    ends_with(&card.send(&[SIGN, PIN_STATUS]), "63c3");
    ends_with(&card.send(&[SELECT, PIN]), "9000");
    card.reset();
    assert!(!card.stats().pin_verified);
    let holder = card.hold(Hold::Exclusive);
    let kept_out = card.client(&["send", "--reader", card.reader(), SELECT]);
    kept_out.exits(1).says("cannot connect");
    drop(holder);
    ends_with(&card.send(&[SELECT]), "9000");
    drop(card.hold(Hold::Transaction));
    ends_with(&card.send(&[SELECT]), "9000");
}

#[test]
fn faults_are_answered_and_end() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let card = cards.card(1001);
    card.reset_stats();
    card.fault(0x20, 0x6f00, 2);
    card.garbage(0xf8, b"\xff");
    card.raw(0xfd, &[]);
    let answers = card.send(&[SELECT, PIN, PIN, PIN, SERIAL, SERIAL]);
    let expected = [SELECTED, "6f00", "6f00", "9000", "ff9000", "000003e99000"];
    assert_eq!(answers, expected);
    let stats = card.stats();
    assert_eq!(
        (stats.count(0x20), stats.exchanges, stats.pin_tries),
        (3, 6, 3)
    );
    assert_eq!(
        stats.sequence[1..4],
        ["00200080 6f00", "00200080 6f00", "00200080 9000"]
    );
    card.heal();
    card.put_object(0x5f_c10a, &[0xde, 0xad]);
    ends_with(
        &card.send(&[SELECT, "00cb3fff055c035fc10a"]),
        "5302dead9000",
    );
    card.delay_of(0xfd, Duration::from_millis(80));
    card.fault(0xfd, 0x6f00, 0);
    let before = now();
    ends_with(&card.send(&[SELECT, "00fd000000"]), "0504039000");
    assert!(now() - before >= 80_000_000);
}

#[test]
fn pcscd_comes_back_and_sees_the_cards_again() {
    let mut cards = Cards::builder()
        .card(Firmware::V5_4, 1001)
        .card(Firmware::V5_7, 1002)
        .start();
    cards.card(1002).remove();
    for _ in 0..2 {
        cards.stop_pcscd();
        cards.card(1001).client(&["serials"]).exits(1);
        cards.start_pcscd();
        ends_with(&cards.card(1001).send(&[SELECT, SERIAL]), "000003e99000");
    }
    cards.card(1002).insert();
    ends_with(&cards.card(1002).send(&[SELECT, SERIAL]), "000003ea9000");
    cards.restart_pcscd();
    ends_with(&cards.card(1002).send(&[SELECT, SERIAL]), "000003ea9000");
}

#[test]
fn two_fixtures_side_by_side_see_each_its_own() {
    let one = Cards::builder().card(Firmware::V5_4, 1001).start();
    let other = Cards::builder().card(Firmware::V5_4, 2002).start();
    ends_with(&one.card(1001).send(&[SELECT, SERIAL]), "000003e99000");
    ends_with(&other.card(2002).send(&[SELECT, SERIAL]), "000007d29000");
    let there = one.command("/bin/ls").arg("/run/pcscd").run().ok();
    assert!(there.stdout.contains("pcscd.comm"), "{there:?}");
    let at = one.command("/bin/pwd").current_dir("/usr/share").run().ok();
    assert_eq!(at.stdout.trim(), "/usr/share");
}

#[test]
fn an_agent_started_among_the_cards_sees_their_pcscd() {
    let cards = Cards::builder().card(Firmware::V5_4, 1001).start();
    let lab = Lab::builder().build();
    let home = lab.home().with_cards(&cards);
    home.signet().args(["agent", "start"]).run().ok();
    let agent = home.agent_pid().expect("it listens");
    let process = Path::new("/proc").join(agent.as_raw_pid().to_string());
    assert!(process.join("root/run/pcscd/pcscd.comm").exists());
    // Of the host it sees the files, and the network of everybody else.
    let same = |namespace: &str| {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        let agents = link(&agent.as_raw_pid().to_string()).expect("it is ours");
        agents == link("self").expect("it is ours")
    };
    assert!(same("net") && !same("mnt"));
}
