//! Virtual YubiKeys in the readers of a real PC/SC daemon that nobody else sees.
//!
//! ```no_run
//! use signet_tests::{Cards, Firmware, Lab, Run};
//!
//! let cards = Cards::builder().card(Firmware::V5_7, 1001).card(Firmware::V5_4, 1002).start();
//! let lab = Lab::start();
//! let home = lab.home().with_cards(&cards);
//! cards.card(1001).touch_never();
//! home.signet().args(["card", "list"]).run().ok();
//! ```
//!
//! Every [`Cards`] is a `pcscd` of its own, in a network namespace (its reader driver listens on
//! all addresses) and a mount namespace (its socket has a fixed path). Programs that shall see
//! the cards enter the mount namespace only, where nothing but `/run/pcscd` differs: the lab's
//! peers stay reachable. The machine's own `pcscd` and the keys plugged into it are never touched.
//!
//! It all ends as a [`Lab`](super::Lab) does: on drop, or by the keeper when the test is killed.

mod card;
mod namespace;
mod watch;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

pub use signet_virtual_yubikey::Firmware;
pub use signet_virtual_yubikey::attest::{root as attestation_root, root_pem};
pub use signet_virtual_yubikey::device::now;

pub use self::card::{Card, Hold, Holder, Stats, TouchWait};
pub use self::namespace::Namespace;
use self::watch::Watch;
use super::command::Run as _;
use super::engine::cache;
use super::home::built;
use super::keeper::{Keeper, Peer};

/// PyPI's ykman, the current one, where `tests/lab/install.sh` puts it. Debian's is in `/usr/bin`.
#[must_use]
pub fn ykman() -> PathBuf {
    cache().join("ykman/bin/ykman")
}

/// Says which cards are plugged in.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    cards: Vec<Spec>,
}

#[derive(Clone, Copy, Debug)]
struct Spec {
    serial: u32,
    firmware: Firmware,
    foreign: bool,
}

/// Where the driver listens for its first card; for its second, on the next port.
const PORT: u16 = 35963;
/// How far apart the ports of two copies of the driver are.
const STRIDE: u16 = 10;
/// Debian's `vsmartcard-vpcd` is compiled for two cards.
const CARDS_PER_DRIVER: usize = 2;
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
/// ykman looks for "Yubico YubiKey" in a reader's name, and reads the interfaces from it.
const READER: &str = "Yubico YubiKey OTP+FIDO+CCID";
const NAMES: [&str; 8] = [
    "card0", "card1", "card2", "card3", "card4", "card5", "card6", "card7",
];

impl Builder {
    /// With one more factory-new YubiKey.
    #[must_use]
    pub fn card(mut self, firmware: Firmware, serial: u32) -> Self {
        self.cards.push(Spec {
            serial,
            firmware,
            foreign: false,
        });
        self
    }

    /// With one more PIV card that is none of Yubico's. Its serial is for [`Cards::card`] only:
    /// the card does not tell it.
    #[must_use]
    pub fn foreign(mut self, serial: u32) -> Self {
        self.cards.push(Spec {
            serial,
            firmware: Firmware::V5_7,
            foreign: true,
        });
        self
    }

    /// Starts `pcscd` and the cards, and returns when it has seen all of them.
    ///
    /// # Panics
    /// When one of them does not come up; the message ends with its log.
    #[must_use]
    pub fn start(self) -> Cards {
        match self.try_start() {
            Ok(cards) => cards,
            Err(err) => panic!("the cards do not start: {err:#}"),
        }
    }

    /// As [`Builder::start`], for those who would rather have the error.
    ///
    /// # Errors
    /// Names what did not start, with the end of its log.
    pub fn try_start(self) -> Result<Cards> {
        ensure!(self.cards.len() <= NAMES.len(), "too many cards");
        // Short, because the path of a unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("sc")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        let root = dir.path().to_path_buf();
        for sub in ["log", "readers"] {
            fs::create_dir(root.join(sub))?;
        }
        let drivers = self.cards.len().div_ceil(CARDS_PER_DRIVER).max(1);
        for driver in 0..drivers {
            describe_driver(&root, driver)?;
        }
        let mut keeper = Keeper::start(&root)?;
        let (holder, namespace) = namespace::make(&root, &mut keeper)?;
        let pcscd = spawn_pcscd(&root, namespace, &mut keeper)?;
        let watch = Watch::start(namespace)?;
        let mut cards = Cards {
            watch,
            cards: Vec::new(),
            peers: Vec::new(),
            pcscd: Some(pcscd),
            _holder: holder,
            keeper,
            namespace,
            root,
            _dir: dir,
        };
        cards.watch_pcscd()?;
        for (index, spec) in self.cards.iter().enumerate() {
            cards.plug(index, *spec)?;
        }
        cards.check_serials(&self.cards)?;
        for card in &cards.cards {
            card.reset_stats();
        }
        Ok(cards)
    }
}

/// One copy of the driver: one entry for pcscd, two readers.
fn describe_driver(root: &Path, number: usize) -> Result<()> {
    let library = match number {
        0 => PathBuf::from(DRIVER),
        // The same file under the same path would be the same two readers again.
        _ => {
            let copy = root.join(format!("libifdvpcd{number}.so"));
            fs::copy(DRIVER, &copy)
                .with_context(|| format!("{DRIVER}: run tests/lab/install.sh"))?;
            copy
        }
    };
    let port = port(number * CARDS_PER_DRIVER);
    // pcscd tells two drivers' readers apart by name only.
    let name = match number {
        0 => READER.to_owned(),
        _ => format!("{READER} ({number})"),
    };
    let text = format!(
        "FRIENDLYNAME \"{name}\"\nDEVICENAME /dev/null:{port}\nLIBPATH {}\nCHANNELID {port}\n",
        library.display()
    );
    fs::write(root.join(format!("readers/vpcd{number}")), text)?;
    Ok(())
}

/// The port at which the driver waits for a card.
fn port(card: usize) -> u16 {
    let number = |number| u16::try_from(number).expect("there are few cards");
    let driver = number(card / CARDS_PER_DRIVER);
    PORT + driver * STRIDE + number(card % CARDS_PER_DRIVER)
}

fn spawn_pcscd(root: &Path, namespace: Namespace, keeper: &mut Keeper) -> Result<Peer> {
    let mut command = namespace.command_with_network("/usr/sbin/pcscd");
    command
        .args(["--foreground", "--debug", "--config"])
        .arg(root.join("readers"));
    Peer::spawn("pcscd", &mut command, root, keeper)
}

/// Plugged-in cards, and the `pcscd` that sees them. Dropping it ends them all.
#[derive(Debug)]
pub struct Cards {
    // In the order in which they are dropped: those who look before those they look at.
    watch: Watch,
    cards: Vec<Card>,
    peers: Vec<Peer>,
    pcscd: Option<Peer>,
    _holder: Peer,
    keeper: Keeper,
    namespace: Namespace,
    root: PathBuf,
    _dir: TempDir,
}

impl Cards {
    /// No cards yet.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The card that had this serial when it was plugged in first.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn card(&self, serial: u32) -> &Card {
        let card = self.cards.iter().find(|card| card.serial() == serial);
        card.unwrap_or_else(|| panic!("there is no card with the serial {serial}"))
    }

    /// All cards, in the order in which they were asked for.
    #[must_use]
    pub fn all(&self) -> &[Card] {
        &self.cards
    }

    /// A program that sees the cards, in an environment as [`clean`](super::command::clean) makes it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.namespace.command(program)
    }

    /// The same command, where it sees the cards. Of its environment comes along what was set
    /// on it.
    #[must_use]
    pub fn enter(&self, command: &Command) -> Command {
        self.namespace.enter(command)
    }

    /// Where the cards are visible.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// What pcscd and the cards have written to their logs, one file each.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A directory that goes with the cards.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.root
    }

    /// Ends `pcscd`.
    ///
    /// # Panics
    /// When nobody notices.
    pub fn stop_pcscd(&mut self) {
        drop(self.pcscd.take());
        self.watch.wait("pcscd to be gone", |seen| !seen.service);
    }

    /// Starts `pcscd` again, and returns when it has seen all cards that are plugged in.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_pcscd(&mut self) {
        let pcscd = spawn_pcscd(&self.root, self.namespace, &mut self.keeper);
        self.pcscd = Some(pcscd.expect("pcscd was there before"));
        self.watch_pcscd().expect("pcscd came up before");
        for card in &self.cards {
            if card.stats().present {
                let reader = card.reader();
                self.watch
                    .wait(&format!("a card in {reader}"), |seen| seen.present(reader));
            }
        }
    }

    /// Ends `pcscd`, and starts it again.
    ///
    /// # Panics
    /// As the two.
    pub fn restart_pcscd(&mut self) {
        self.stop_pcscd();
        self.start_pcscd();
    }

    fn watch_pcscd(&mut self) -> Result<()> {
        let readers = 2 * fs::read_dir(self.root.join("readers"))?.count();
        let watch = &self.watch;
        let pcscd = self.pcscd.as_mut().context("pcscd has been stopped")?;
        pcscd.ready(|| watch.look(|seen| seen.service && seen.readers.len() == readers))
    }

    fn plug(&mut self, index: usize, spec: Spec) -> Result<()> {
        let empty = self.watch.empty_readers();
        let control = self.root.join(NAMES[index]);
        let mut command = self
            .namespace
            .command_with_network(built("virtual-yubikey"));
        command
            .arg(format!("--serial={}", spec.serial))
            .arg(format!("--firmware={}", spec.firmware))
            .arg(format!("--port={}", port(index)))
            .arg("--control")
            .arg(&control);
        if spec.foreign {
            command.arg("--foreign");
        }
        let mut peer = Peer::spawn(NAMES[index], &mut command, &self.root, &mut self.keeper)?;
        peer.ready(|| UnixStream::connect(&control).is_ok())?;
        self.peers.push(peer);
        // A connection is not yet a card: pcscd must have seen it.
        let reader = self.watch.newly_present(&empty).with_context(|| {
            format!(
                "pcscd does not see the card with the serial {}",
                spec.serial
            )
        })?;
        let card = Card::new(spec.serial, control, reader, &self.watch, self.namespace);
        self.cards.push(card);
        Ok(())
    }

    /// Two readers could be the same card twice.
    fn check_serials(&self, specs: &[Spec]) -> Result<()> {
        let output = self.client().arg("serials").run();
        ensure!(output.status.success(), "{}", output.text());
        for (card, spec) in self.cards.iter().zip(specs) {
            let lines = output.stdout.lines();
            let mut told = lines.filter_map(|line| serde_json::from_str(line).ok());
            let told = told.find(|line: &serde_json::Value| line["reader"] == card.reader());
            let Some(told) = told else {
                bail!("no card answers in {}: {}", card.reader(), output.text());
            };
            let wanted = (!spec.foreign).then_some(spec.serial);
            ensure!(
                told["serial"] == serde_json::json!(wanted),
                "the card in {} should have the serial {wanted:?}: {told}",
                card.reader()
            );
        }
        Ok(())
    }

    /// The second PC/SC client of the tests.
    #[must_use]
    pub fn client(&self) -> Command {
        self.command(built("card-client"))
    }
}

impl Drop for Cards {
    #[allow(
        clippy::print_stderr,
        reason = "the log of a failed test is for whoever reads its output"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(pcscd) = &self.pcscd {
                eprintln!("the end of pcscd's log:\n{}", pcscd.log());
            }
            for (card, peer) in self.cards.iter().zip(&self.peers) {
                let stats = card.control("stats").unwrap_or_else(|err| err);
                eprintln!("card {}: {stats}\n{}", card.serial(), peer.log());
            }
        }
    }
}
