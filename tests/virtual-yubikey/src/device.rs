//! A card that can be pulled out, swapped, slowed down, made to fail, and counted.
//!
//! The [`Device`] is shared by the thread that serves the reader and those that serve the
//! control socket. While the reader's thread waits for a touch it holds the card and nothing
//! else, so that a test can touch, look and unplug meanwhile.

mod faults;
mod person;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::faults::Fault;
use self::faults::Faults;
use self::person::Person;
pub use self::person::Touching;
use crate::firmware::Firmware;
use crate::piv::{Kind, Piv};
use crate::stats::Stats;

/// How long a YubiKey waits for a touch (Yubico, "PIN and touch policies").
const TOUCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What comes back from a card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Bytes.
    Answer(Vec<u8>),
    /// Nothing, ever: it is gone.
    Vanished,
}

/// A card in its case. Clones are the same card.
#[derive(Clone, Debug)]
pub struct Device {
    drawer: Arc<Mutex<Drawer>>,
    shared: Arc<Shared>,
}

/// All cards that were ever in the case, by serial, so that one swapped out can come back.
#[derive(Debug)]
struct Drawer {
    serial: u32,
    cards: BTreeMap<u32, Piv>,
}

impl Drawer {
    fn card(&mut self) -> &mut Piv {
        let card = self.cards.get_mut(&self.serial);
        card.expect("the serial is always of a card in the drawer")
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    present: bool,
    connection: Option<TcpStream>,
    faults: Faults,
    delays: BTreeMap<u8, Duration>,
    signature_delay: Duration,
    touching: Touching,
    touch_timeout: Duration,
    touch_window: Duration,
    waiting: Option<u64>,
    finger: bool,
    waited: Duration,
    stats: Stats,
    trace: Option<File>,
    serial: u32,
    firmware: Firmware,
    pin_tries: u8,
    puk_tries: u8,
    pin_verified: bool,
    managed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while the state is held")
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, comparable with that of any other process.
#[must_use]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

impl Device {
    /// A factory-new card, plugged in.
    #[must_use]
    pub fn new(serial: u32, firmware: Firmware, kind: Kind) -> Self {
        let state = State {
            present: true,
            connection: None,
            faults: Faults::default(),
            delays: BTreeMap::new(),
            signature_delay: Duration::ZERO,
            touching: Touching::After(Duration::ZERO),
            touch_timeout: TOUCH_TIMEOUT,
            touch_window: crate::touch::CACHED,
            waiting: None,
            finger: false,
            waited: Duration::ZERO,
            stats: Stats::default(),
            trace: None,
            serial,
            firmware,
            pin_tries: 0,
            puk_tries: 0,
            pin_verified: false,
            managed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let person = Box::new(Person(Arc::clone(&shared)));
        let card = Piv::new(serial, firmware, kind, person);
        let drawer = Drawer {
            serial,
            cards: BTreeMap::from([(serial, card)]),
        };
        let device = Self {
            drawer: Arc::new(Mutex::new(drawer)),
            shared,
        };
        device.look(device.drawer().card());
        device
    }

    fn drawer(&self) -> MutexGuard<'_, Drawer> {
        self.drawer
            .lock()
            .expect("nobody panics while the card is held")
    }

    /// Notes what the card looks like, for those who ask while it is busy.
    fn look(&self, card: &Piv) {
        let mut state = self.shared.lock();
        state.serial = card.serial();
        state.firmware = card.firmware();
        state.pin_tries = card.pin_tries();
        state.puk_tries = card.puk_tries();
        state.pin_verified = card.pin_verified();
        state.managed = card.managed();
    }

    /// What the card answers to a reset.
    #[must_use]
    pub fn atr(&self) -> &'static [u8] {
        self.drawer().card().atr()
    }

    /// The reader switches power on or off.
    pub fn power(&self, on: bool) {
        if on {
            self.shared.lock().stats.powers += 1;
        }
        self.reset_session();
    }

    /// The reader resets the card.
    pub fn reset(&self) {
        self.shared.lock().stats.resets += 1;
        self.reset_session();
    }

    /// Has the card forget its session, nobody having asked for it.
    pub fn reset_session(&self) {
        let mut drawer = self.drawer();
        drawer.card().reset_session();
        self.look(drawer.card());
    }

    /// One command of the reader's, answered by the card or by whatever fault is in force.
    #[must_use]
    pub fn exchange(&self, command: &[u8]) -> Outcome {
        let header = command.first_chunk().copied();
        let whole = header.filter(|header: &[u8; 4]| header[0] & 0x10 == 0);
        let fault = {
            let mut state = self.shared.lock();
            state.stats.exchanges += 1;
            state.waited = Duration::ZERO;
            state.trace('>', command);
            whole.and_then(|header| state.faults.next(header[1]))
        };
        let started = Instant::now();
        let answer = match fault {
            Some(Fault::Answer(bytes)) => Some(bytes),
            Some(Fault::Vanish) => {
                self.remove();
                None
            }
            None => {
                let mut drawer = self.drawer();
                let answer = drawer.card().transmit(command);
                self.look(drawer.card());
                drop(drawer);
                if let Some(header) = whole {
                    self.linger(header, started);
                }
                Some(answer)
            }
        };
        let mut state = self.shared.lock();
        let answer = answer.filter(|_| state.present);
        if let Some(header) = whole {
            let status = answer
                .as_ref()
                .and_then(|bytes| bytes.last_chunk().copied());
            state.stats.command(header, status);
        }
        let Some(answer) = answer else {
            return Outcome::Vanished;
        };
        state.trace('<', &answer);
        Outcome::Answer(answer)
    }

    /// Computes as slowly as a real card: the command took so long in all, waits for a touch not
    /// counted.
    fn linger(&self, [_, ins, _, place]: [u8; 4], started: Instant) {
        const MANAGEMENT: u8 = 0x9b;
        let mut state = self.shared.lock();
        let mut delay = state.delays.get(&ins).copied().unwrap_or_default();
        if ins == 0x87 && place != MANAGEMENT {
            delay = delay.max(state.signature_delay);
        }
        let until = started + delay + state.waited;
        while state.present {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.expect("nobody panics while the state is held").0;
        }
    }

    /// Pulls the card out: in the middle of whatever it is doing.
    pub fn remove(&self) {
        let mut state = self.shared.lock();
        state.present = false;
        if let Some(connection) = state.connection.take() {
            // Fails when the other side was faster; gone is gone.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// Plugs the card in.
    pub fn insert(&self) {
        self.shared.lock().present = true;
        self.shared.changed.notify_all();
    }

    /// Whether the card is plugged in.
    #[must_use]
    pub fn present(&self) -> bool {
        self.shared.lock().present
    }

    /// Has another card in the case: one that was there before, or a factory-new one.
    ///
    /// The one that was in it must have been pulled out, as in life.
    pub fn swap(&self, serial: u32, firmware: Firmware, kind: Kind) {
        let mut drawer = self.drawer();
        drawer.serial = serial;
        let person = || Box::new(Person(Arc::clone(&self.shared)));
        let card = drawer.cards.entry(serial);
        let card = card.or_insert_with(|| Piv::new(serial, firmware, kind, person()));
        card.reset_session();
        self.look(card);
    }

    /// Puts a data object on the card without any command; `None` removes it.
    pub fn put_object(&self, id: u32, content: Option<Vec<u8>>) {
        self.drawer().card().put_object(id, content);
    }

    /// Has all data objects together take at most this many bytes.
    pub fn set_capacity(&self, bytes: usize) {
        self.drawer().card().set_capacity(bytes);
    }

    /// Answers the next `times` commands of this instruction otherwise than the card would.
    pub fn fail(&self, ins: u8, fault: Fault, times: u32) {
        self.shared.lock().faults.add(ins, fault, times);
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.faults = Faults::default();
        state.delays.clear();
        state.signature_delay = Duration::ZERO;
    }

    /// Has each signature take this long in all.
    pub fn delay_signatures(&self, delay: Duration) {
        self.shared.lock().signature_delay = delay;
    }

    /// Has each command of this instruction take this long in all.
    pub fn delay(&self, ins: u8, delay: Duration) {
        self.shared.lock().delays.insert(ins, delay);
    }

    /// Writes every exchange to a file: PINs and all.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn trace(&self, path: &Path) -> io::Result<()> {
        self.shared.lock().trace = Some(File::create(path)?);
        Ok(())
    }

    /// Counts afresh.
    pub fn reset_stats(&self) {
        self.shared.lock().stats = Stats::default();
    }

    /// What happened since the counting began, and what the card looks like.
    #[must_use]
    pub fn stats(&self) -> Value {
        let state = self.shared.lock();
        let mut stats = state.stats.json();
        stats["serial"] = json!(state.serial);
        stats["firmware"] = json!(state.firmware.to_string());
        stats["present"] = json!(state.present);
        stats["connected"] = json!(state.connection.is_some());
        stats["pin_tries"] = json!(state.pin_tries);
        stats["puk_tries"] = json!(state.puk_tries);
        stats["pin_verified"] = json!(state.pin_verified);
        stats["managed"] = json!(state.managed);
        stats["waiting"] = json!(state.waiting.is_some());
        stats
    }

    /// Waits until the card is plugged in.
    pub(crate) fn wait_present(&self) {
        let mut state = self.shared.lock();
        while !state.present {
            let waited = self.shared.changed.wait(state);
            state = waited.expect("nobody panics while the state is held");
        }
    }

    /// Waits this long, or until the card is pulled out.
    pub(crate) fn pause(&self, time: Duration) {
        let state = self.shared.lock();
        // Woken early by something else, the caller only asks the reader again a little sooner.
        drop(
            self.shared
                .changed
                .wait_timeout_while(state, time, |state| state.present),
        );
    }

    /// Takes note of a connection to the reader, to cut it when the card is pulled out.
    pub(crate) fn connected(&self, connection: TcpStream) {
        let mut state = self.shared.lock();
        if state.present {
            state.connection = Some(connection);
            self.shared.changed.notify_all();
        } else {
            // As in `remove`.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The reader is gone, and the card's power with it.
    pub(crate) fn disconnected(&self) {
        self.shared.lock().connection = None;
        self.reset_session();
    }
}

impl State {
    fn trace(&mut self, direction: char, bytes: &[u8]) {
        if let Some(trace) = &mut self.trace {
            // A trace that cannot be written is missed by whoever reads it.
            let _ = writeln!(trace, "{} {direction} {}", now(), hex::encode(bytes));
        }
    }
}

#[cfg(test)]
mod tests;
