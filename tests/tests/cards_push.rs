//! Images signed with root and targets key on two YubiKeys, by a person at a terminal, and what
//! Docker and notary say to that. The commands of the cards themselves: `cards_cli.rs`.

use std::collections::BTreeMap;

use signet_tests::lab::cards::ykman;
use signet_tests::{Cards, Cli, Firmware, Home, Lab, Run, Terminal};

const ROOTS: u32 = 11_111_111;
const TARGETS: u32 = 22_222_222;
const ROOT_PIN: &str = "73aBc!";
const TARGETS_PIN: &str = "90xYz?";

/// Two cards that were somebody's first thing today, and a publisher.
struct Desk {
    // Dropped in this order: the agent of the home ends while its directory is there.
    home: Home,
    cards: Cards,
    lab: Lab,
}

impl Desk {
    fn new(targets: Firmware) -> Self {
        let lab = Lab::start();
        let cards = Cards::builder()
            .card(Firmware::V5_7, ROOTS)
            .card(targets, TARGETS)
            .start();
        let home = lab.home().with_cards(&cards);
        Self { lab, cards, home }
    }

    fn set_up(&self, serial: u32, pin: &str) {
        let sheet = self.home.user_home().join(format!("sheet-{serial}"));
        self.home
            .with_descriptors(&[(3, pin)])
            .args(["card", "setup", &serial.to_string(), "--pin-fd", "3"])
            .arg("--recovery-sheet")
            .arg(&sheet)
            .run()
            .ok();
    }

    /// The same by the program of the cards' maker; nothing of ours has seen the card before.
    fn set_up_by_ykman(&self, serial: u32, pin: &str) {
        let algorithm = ["--algorithm", "AES256"];
        let default = "010203040506070801020304050607080102030405060708";
        let access = |args: &[&str]| {
            let mut command = self.cards.command(ykman());
            command
                .args(["--reader", self.cards.card(serial).reader()])
                .args(["piv", "access"])
                .args(args);
            command.run().ok();
        };
        access(&["change-pin", "-P", "123456", "-n", pin]);
        access(&["change-puk", "-p", "12345678", "-n", "87234509"]);
        let protected = ["change-management-key", "--generate", "--protect"];
        let old = ["-P", pin, "-m", default];
        access(&[&protected[..], &algorithm, &old].concat());
    }

    /// A key made on the card, of which nothing is ever outside; returns its ID.
    fn generate(&self, pin: &str, role: &[&str], store: &str) -> String {
        self.home
            .with_descriptors(&[(3, pin)])
            .args(["key", "generate", "--pin-fd", "3", "--store", store])
            .args(["--touch-policy", "always", "--pin-policy", "once"])
            .arg("--role")
            .args(role)
            .run()
            .ok()
            .stdout
            .trim()
            .to_owned()
    }

    /// Root key on one card, targets key on the other, both waiting for nobody.
    fn generate_both(&self, image: &str) -> String {
        let (gun, _) = image.rsplit_once(':').expect("a tag");
        let root = self.generate(ROOT_PIN, &["root"], &format!("piv:{ROOTS}"));
        let role = ["targets", "--gun", gun];
        self.generate(TARGETS_PIN, &role, &format!("piv:{TARGETS}:9a"));
        // What was typed to make them is forgotten.
        self.home.signet().arg("lock").run().ok();
        for card in self.cards.all() {
            card.touch_never();
            card.reset_stats();
        }
        root
    }

    /// Pushes, answers each PIN and touches each card that a line asks for; how often each was
    /// asked for: PINs, touches.
    fn push(&self, image: &str, more: &[&str]) -> BTreeMap<u32, (usize, usize)> {
        let mut push = self.home.signet();
        push.args(["push", image]).args(more);
        let mut terminal = Terminal::start(push);
        let mut asked: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        // A touch is announced with its whole time; the same line with less is the countdown.
        let next =
            r"(PIN of the YubiKey [^\n]*: |Touch the YubiKey [^\n]*\[15 s\]|Successfully signed)";
        loop {
            let said = terminal.expect(next);
            let line = said.rsplit('\n').next().unwrap_or(&said);
            if line.contains("Successfully signed") {
                break;
            }
            let serial = [ROOTS, TARGETS]
                .into_iter()
                .find(|serial| line.contains(&format!("serial {serial}")))
                .unwrap_or_else(|| panic!("no card is named: {line}"));
            let card = self.cards.card(serial);
            let asked = asked.entry(serial).or_default();
            if line.contains("PIN of the YubiKey") {
                asked.0 += 1;
                terminal.type_line(if serial == ROOTS {
                    ROOT_PIN
                } else {
                    TARGETS_PIN
                });
            } else {
                asked.1 += 1;
                let _since = card.await_touch();
                assert!(card.stats().waiting, "it was said before it was done");
                card.touch();
            }
        }
        let seen = terminal.exits(0);
        for pin in [ROOT_PIN, TARGETS_PIN] {
            assert!(!seen.contains(pin), "{pin} was shown: {seen}");
        }
        for (serial, (_, touches)) in &asked {
            let waits = self.cards.card(*serial).stats().touches;
            assert!(waits.iter().all(|wait| wait.touched), "{waits:?}");
            assert_eq!(*touches, waits.len(), "a line a touch of {serial}:\n{seen}");
        }
        for card in self.cards.all() {
            assert_eq!(card.stats().pin_tries, 3, "no try was spent");
            card.reset_stats();
        }
        asked
    }

    /// Both Docker CLIs and notary take the first and refuse the second, which nobody signed.
    fn everybody_agrees(&self, signed: &str, unsigned: &str) {
        let config = self.lab.client_config();
        self.lab
            .docker(Cli::Debian12, &config)
            .args(["push", unsigned])
            .run()
            .ok();
        self.lab.everybody_pulls(signed);
        self.lab.nobody_pulls(unsigned);
        let (gun, tag) = signed.rsplit_once(':').expect("a tag");
        let rows = self.lab.notary_list(self.lab.trust_server(), gun);
        let of_tag: Vec<_> = rows.iter().filter(|row| row[0] == tag).collect();
        assert_eq!(of_tag.len(), 1, "{rows:?}");
        assert_eq!(of_tag[0][3], "targets", "{rows:?}");
        let digest = self.lab.registry_digest(signed).expect("it was pushed");
        assert_eq!(digest.trim_start_matches("sha256:"), of_tag[0][1]);
    }

    /// First push and second one, as a person meets them.
    fn pushes_are_signed_and_accepted(&self) {
        let image = self.lab.import_image("acme/app:v1");
        let unsigned = self.lab.import_image("acme/app:unsigned");
        let root = self.generate_both(&image);
        let asked = self.push(&image, &["--root", &root]);
        for serial in [ROOTS, TARGETS] {
            let (pins, touches) = asked.get(&serial).copied().unwrap_or_default();
            assert_eq!(pins, 1, "one PIN a card: {asked:?}");
            assert!(touches > 0, "{asked:?}");
        }
        self.everybody_agrees(&image, &unsigned);
        // The root key is not needed again.
        let second = self.lab.import_image("acme/app:v2");
        let asked = self.push(&second, &[]);
        assert_eq!(
            asked.keys().collect::<Vec<_>>(),
            [&TARGETS],
            "the root key rests: {asked:?}"
        );
        assert_eq!(asked[&TARGETS].1, 1, "one touch: {asked:?}");
        self.lab.everybody_pulls(&second);
    }
}

#[test]
fn keys_made_on_two_cards_that_we_set_up_sign_what_docker_and_notary_take() {
    let desk = Desk::new(Firmware::V5_4);
    desk.set_up(ROOTS, ROOT_PIN);
    desk.set_up(TARGETS, TARGETS_PIN);
    desk.pushes_are_signed_and_accepted();
}

#[test]
fn keys_made_on_two_cards_that_ykman_set_up_sign_what_docker_and_notary_take() {
    let desk = Desk::new(Firmware::V5_7);
    desk.set_up_by_ykman(ROOTS, ROOT_PIN);
    desk.set_up_by_ykman(TARGETS, TARGETS_PIN);
    desk.pushes_are_signed_and_accepted();
}
