//! Signature after signature by a card that is unplugged, reset and used by others at random: none
//! is wrong, none is lost without a word, and no try of the PIN is spent.
//!
//! `SIGNET_CARDS_SOAK` is how many signatures are made, `SIGNET_CARDS_SEED` draws what happens to
//! the card and when; `SIGNET_CARDS_REPORT` names a file that gets the table of `docs/soak-cards.md`
//! (`make soak`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use signet_tests::lab::cards::ykman;
use signet_tests::lab::command::Output;
use signet_tests::steps::SIZE;
use signet_tests::{Cards, Firmware, Home, Lab, Run};

/// Signatures in CI.
const SIGNATURES: u64 = 50;
const SEED: u64 = 20_261_121;

const GUN: &str = "registry.example.com/acme/app";
const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";
/// GENERAL AUTHENTICATE (SP 800-73-4, part 2, §3.2.4).
const SIGN: u8 = 0x87;
/// A signature by the command takes about so long; what happens to the card happens within it.
const SPAN: u64 = 600;

/// What happens to the card while one signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Nothing,
    /// Pulled out at some moment, and plugged in again when the command has ended.
    Unplugged,
    /// Pulled out in the middle of the exchange that signs.
    UnpluggedSigning,
    /// Reset by another program, at some moment.
    Reset,
    /// It forgets PIN and selection, and tells nobody.
    Forgot,
    /// `ykman piv info` of Debian, which begins at some moment.
    DebiansYkman,
    /// `ykman piv info` of PyPI.
    Ykman,
}

impl Event {
    fn draw(random: &mut Random) -> Self {
        match random.below(16) {
            0..=5 => Self::Nothing,
            6 => Self::Unplugged,
            7 => Self::UnpluggedSigning,
            8..=10 => Self::Reset,
            11..=12 => Self::Forgot,
            13 => Self::DebiansYkman,
            _ => Self::Ykman,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Unplugged => "unplugged",
            Self::UnpluggedSigning => "unplugged while it signs",
            Self::Reset => "reset by another program",
            Self::Forgot => "forgot the PIN",
            Self::DebiansYkman => "Debian's `ykman piv info`",
            Self::Ykman => "`ykman piv info`",
        }
    }

    fn is_away(self) -> bool {
        matches!(self, Self::Unplugged | Self::UnpluggedSigning)
    }
}

/// What came of the signatures to which the same happened.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    signatures: u64,
    at_once: u64,
    again: u64,
    longest: Duration,
}

struct Site {
    // Dropped in this order: the agent of the home ends while its directory is there.
    home: Home,
    cards: Cards,
    lab: Lab,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::builder().notary().build();
        let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
        let home = lab.home().with_cards(&cards);
        let with_pin = |args: &[&str]| {
            let mut command = home.with_descriptors(&[(3, PIN)]);
            command.args(args).args(["--pin-fd", "3"]).run().ok();
        };
        let sheet = home.user_home().join("sheet").display().to_string();
        with_pin(&["card", "setup", "--recovery-sheet", &sheet]);
        let generate = ["key", "generate", "--store", "piv", "--touch-policy"];
        for role in [
            &["never", "--role", "root"][..],
            &["never", "--role", "targets", "--gun", GUN],
        ] {
            with_pin(&[&generate, role].concat());
        }
        Self { lab, cards, home }
    }

    fn sign(&self, number: u64) -> Output {
        let image = format!("{GUN}:t{number}@sha256:{}", digest(number));
        self.home
            .with_descriptors(&[(3, PIN)])
            .args(["sign", &image, "--size", SIZE, "--pin-fd", "3"])
            .run()
    }

    /// Signs while something happens to the card.
    fn sign_while(&self, number: u64, event: Event, delay: Duration) -> Output {
        let card = self.cards.card(SERIAL);
        if event == Event::UnpluggedSigning {
            card.vanish_at(SIGN);
            return self.sign(number);
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                // When the card meets its fate is drawn, not awaited.
                thread::sleep(delay);
                match event {
                    Event::Nothing | Event::UnpluggedSigning => {}
                    Event::Unplugged => card.pull(),
                    Event::Reset => drop(card.client(&["reset", "--reader", card.reader()])),
                    Event::Forgot => card.forget(),
                    Event::DebiansYkman => self.ykman("/usr/bin/ykman".as_ref()),
                    Event::Ykman => self.ykman(&ykman()),
                }
            });
            self.sign(number)
        })
    }

    /// Whether it finds the card free is its own affair.
    fn ykman(&self, program: &std::path::Path) {
        let mut command = self.cards.command(program);
        command
            .env("HOME", self.cards.dir())
            .args(["--reader", self.cards.card(SERIAL).reader()]);
        drop(command.args(["piv", "info"]).run());
    }

    fn plug_in(&self, event: Event) {
        let card = self.cards.card(SERIAL);
        card.heal();
        if event.is_away() {
            card.remove();
            card.insert();
        }
    }

    /// Every tag is published with its digest, and nothing else is.
    fn check(&self, signatures: u64) {
        let mut rows = self.lab.notary_list(self.lab.trust_server(), GUN);
        rows.sort();
        let mut wanted: Vec<_> = (0..signatures)
            .map(|number| {
                [
                    format!("t{number}"),
                    digest(number),
                    SIZE.into(),
                    "targets".into(),
                ]
            })
            .collect();
        wanted.sort();
        assert_eq!(rows, wanted, "what is published is what was signed");
        // And it is all in the log.
        let log = self.home.log();
        let entries = log["entries"].as_array().map_or(0, Vec::len);
        assert!(u64::try_from(entries).is_ok_and(|entries| entries >= signatures));
    }
}

#[test]
fn a_card_that_comes_and_goes_loses_no_signature_and_no_try() {
    let signatures = number("SIGNET_CARDS_SOAK", SIGNATURES);
    let seed = number("SIGNET_CARDS_SEED", SEED);
    let mut random = Random(seed);
    let site = Site::new();
    let card = site.cards.card(SERIAL);
    let agent = site.home.agent_pid().expect("it runs");
    let mut counts: BTreeMap<Event, Count> = BTreeMap::new();
    let start = Instant::now();
    for number in 0..signatures {
        let event = match number {
            // The root key's only signature.
            0 => Event::Nothing,
            _ => Event::draw(&mut random),
        };
        let delay = Duration::from_millis(random.below(SPAN));
        let story = format!("signature {number} of seed {seed}: {event:?} after {delay:?}");
        let count = counts.entry(event).or_default();
        let began = Instant::now();
        let first = site.sign_while(number, event, delay);
        count.signatures += 1;
        count.longest = count.longest.max(began.elapsed());
        let code = first.code();
        if code == Some(0) {
            count.at_once += 1;
        } else {
            assert!(
                event.is_away(),
                "{story}: nobody took the card away: {}",
                first.text()
            );
            assert_eq!(code, Some(7), "{story}: {}", first.text());
            assert!(
                first.stderr.contains(&SERIAL.to_string()),
                "{story}: {}",
                first.text()
            );
        }
        site.plug_in(event);
        if code != Some(0) {
            count.again += 1;
            let again = site.sign(number);
            assert_eq!(
                again.code(),
                Some(0),
                "{story}, then again: {}",
                again.text()
            );
        }
        let stats = card.stats();
        assert_eq!((stats.pin_tries, stats.puk_tries), (3, 3), "{story}");
        assert_eq!(
            site.home.agent_pid(),
            Some(agent),
            "{story}: the agent lives"
        );
    }
    let took = start.elapsed();
    site.check(signatures);
    report(&counts, seed, took);
}

fn report(counts: &BTreeMap<Event, Count>, seed: u64, took: Duration) {
    let Some(path) = env::var_os("SIGNET_CARDS_REPORT") else {
        return;
    };
    let mut text = format!(
        "- seed {seed}, {} signatures in {} s\n\n\
         | what happened to the card | signatures | at once | when asked again | longest |\n\
         |---|---|---|---|---|\n",
        counts.values().map(|count| count.signatures).sum::<u64>(),
        took.as_secs(),
    );
    for (event, count) in counts {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} s |",
            event.words(),
            count.signatures,
            count.at_once,
            count.again,
            count.longest.as_secs_f64()
        );
    }
    fs::write(path, text).expect("the report can be written");
}

/// A manifest's digest, as good as any, and of this signature only.
fn digest(number: u64) -> String {
    format!("{number:064x}")
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| {
        u64::from_str(&text).unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014): what happens is the seed's doing.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
