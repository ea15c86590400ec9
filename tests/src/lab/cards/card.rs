//! One card: what a person does to it, what goes wrong with it, and what happened to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::super::command::{Output, Run as _};
use super::super::home::built;
use super::super::keeper::end;
use super::Firmware;
use super::namespace::Namespace;
use super::watch::{View, Watch};

/// A virtual card, in its reader or out of it.
#[derive(Debug)]
pub struct Card {
    serial: u32,
    control: PathBuf,
    reader: String,
    view: View,
    namespace: Namespace,
}

/// What [`Card::hold`] keeps from others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The card: nobody else can connect.
    Exclusive,
    /// A transaction: others connect, and wait.
    Transaction,
}

/// Another program that holds the card, until it is dropped.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input is the end of its hold.
        drop(self.0.stdin.take());
        end(&mut self.0);
    }
}

/// One time that a card waited for a touch, in nanoseconds of `CLOCK_MONOTONIC` (see
/// [`super::now`]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TouchWait {
    /// When it began to wait.
    pub begin: u64,
    /// When it no longer did; `None` while it still does.
    pub end: Option<u64>,
    /// Whether it was touched.
    pub touched: bool,
}

/// What happened to a card since [`Card::reset_stats`], and what it looks like now.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Exchanges with the reader, pieces of long commands and answers each counted.
    pub exchanges: u64,
    /// Resets by whichever handle.
    pub resets: u64,
    /// Times that power was switched on.
    pub powers: u64,
    /// Header and status word of every whole command, in order: `00200080 9000`.
    pub sequence: Vec<String>,
    /// Waits for a touch, in order.
    pub touches: Vec<TouchWait>,
    /// Tries left for the PIN.
    pub pin_tries: u64,
    /// Tries left for the PUK.
    pub puk_tries: u64,
    /// Whether the card counts the PIN as verified.
    pub pin_verified: bool,
    /// Whether the card counts the management key as proved.
    pub managed: bool,
    /// Whether it waits for a touch.
    pub waiting: bool,
    /// Whether it is plugged in.
    pub present: bool,
    instructions: Value,
}

impl Stats {
    fn read(json: &Value) -> Self {
        let number = |name: &str| json[name].as_u64().expect("the card counts it");
        let flag = |name: &str| json[name].as_bool().expect("the card says so");
        let list = |name: &str| json[name].as_array().expect("the card lists them").iter();
        Self {
            exchanges: number("exchanges"),
            resets: number("resets"),
            powers: number("powers"),
            sequence: list("sequence")
                .filter_map(|line| line.as_str().map(str::to_owned))
                .collect(),
            touches: list("touches")
                .map(|wait| TouchWait {
                    begin: wait["begin"].as_u64().expect("every wait began"),
                    end: wait["end"].as_u64(),
                    touched: wait["touched"] == true,
                })
                .collect(),
            pin_tries: number("pin_tries"),
            puk_tries: number("puk_tries"),
            pin_verified: flag("pin_verified"),
            managed: flag("managed"),
            waiting: flag("waiting"),
            present: flag("present"),
            instructions: json["ins"].clone(),
        }
    }

    /// Whole commands of this instruction: 0x87 for GENERAL AUTHENTICATE.
    #[must_use]
    pub fn count(&self, ins: u8) -> u64 {
        self.instructions[format!("{ins:02X}")]
            .as_u64()
            .unwrap_or(0)
    }
}

impl Card {
    pub(super) fn new(
        serial: u32,
        control: PathBuf,
        reader: String,
        watch: &Watch,
        namespace: Namespace,
    ) -> Self {
        Self {
            serial,
            control,
            reader,
            view: watch.view(),
            namespace,
        }
    }

    /// The serial that it was plugged in with first.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The reader's name in PC/SC.
    #[must_use]
    pub fn reader(&self) -> &str {
        &self.reader
    }

    /// Sends a line to the card's control socket, and returns the data of the answer.
    ///
    /// # Errors
    /// What the card says is wrong, or why it does not say anything.
    pub fn control(&self, line: &str) -> Result<String, String> {
        let lost = |err| format!("card {}: {err}", self.serial);
        let mut stream = UnixStream::connect(&self.control).map_err(lost)?;
        stream
            .write_all(format!("{line}\n").as_bytes())
            .map_err(lost)?;
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .map_err(lost)?;
        let answer = answer.trim_end();
        match answer.strip_prefix("ok") {
            Some(data) => Ok(data.trim_start().to_owned()),
            None => Err(answer.to_owned()),
        }
    }

    #[track_caller]
    fn tell(&self, line: &str) -> String {
        match self.control(line) {
            Ok(data) => data,
            Err(err) => panic!("card {}, {line}: {err}", self.serial),
        }
    }

    /// Touches the card, which must be waiting for that: see [`Card::await_touch`].
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn touch(&self) {
        self.tell("touch");
    }

    /// From now on the card is touched as soon as it waits, as at the start.
    pub fn touch_auto(&self) {
        self.tell("touch-auto");
    }

    /// From now on the card is touched so long after it began to wait.
    pub fn touch_after(&self, delay: Duration) {
        self.tell(&format!("touch-after {}", delay.as_millis()));
    }

    /// From now on the card is touched only by [`Card::touch`].
    pub fn touch_never(&self) {
        self.tell("touch-never");
    }

    /// How long the card waits for a touch: 15 seconds, if it is not told.
    pub fn touch_timeout(&self, timeout: Duration) {
        self.tell(&format!("touch-timeout {}", timeout.as_millis()));
    }

    /// How long a touch counts where the policy is *cached*: 15 seconds, if it is not told.
    pub fn touch_cache(&self, window: Duration) {
        self.tell(&format!("touch-cache {}", window.as_millis()));
    }

    /// Waits until the card waits for a touch, and returns since when, in nanoseconds of
    /// `CLOCK_MONOTONIC`.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    #[must_use]
    #[track_caller]
    pub fn await_touch(&self) -> u64 {
        let since = self.tell("await-touch");
        since.parse().expect("the card says a time")
    }

    /// Pulls the card out, and returns when pcscd has noticed.
    ///
    /// # Panics
    /// When it does not notice.
    #[track_caller]
    pub fn remove(&self) {
        self.pull();
        self.view
            .wait(&format!("{} to be empty", self.reader), |seen| {
                !seen.present(&self.reader)
            });
    }

    /// Pulls the card out, and returns at once.
    pub fn pull(&self) {
        self.tell("remove");
    }

    /// Plugs the card in, and returns when pcscd has noticed.
    ///
    /// # Panics
    /// When it does not notice, or the card has not been pulled out.
    #[track_caller]
    pub fn insert(&self) {
        let before = self.view.settle_empty(&self.reader);
        self.tell("insert");
        self.view
            .wait(&format!("a card in {}", self.reader), |seen| {
                let reader = seen.readers.get(&self.reader);
                reader.is_some_and(|reader| reader.present && reader.count != before)
            });
    }

    /// Pulls the card out and plugs another one in: one that was there before, or a factory-new
    /// one with this firmware.
    ///
    /// # Panics
    /// As the two.
    #[track_caller]
    pub fn swap(&self, serial: u32, firmware: Firmware) {
        self.remove();
        self.tell(&format!("swap {serial} {firmware}"));
        self.insert();
    }

    /// As [`Card::swap`], for a PIV card that is none of Yubico's.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn swap_foreign(&self) {
        self.remove();
        self.tell("swap 0 foreign");
        self.insert();
    }

    /// Resets the card as another program's handle does: all others are told.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn reset(&self) {
        self.client(&["reset", "--reader", &self.reader]).ok();
    }

    /// Has the card forget PIN and selection, and nobody is told.
    pub fn forget(&self) {
        self.tell("reset");
    }

    /// Sends commands in hex by another program's handle, which selects nothing before and leaves
    /// the card as it is; returns the answers in hex.
    ///
    /// # Panics
    /// When it cannot connect, or no answer comes.
    #[must_use]
    #[track_caller]
    pub fn send(&self, commands: &[&str]) -> Vec<String> {
        let arguments = [&["send", "--reader", &self.reader], commands].concat();
        let output = self.client(&arguments).ok();
        output.stdout.lines().map(str::to_owned).collect()
    }

    /// Runs the second PC/SC client.
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> Output {
        let mut command = self.namespace.command(built("card-client"));
        command.args(arguments).run()
    }

    /// Has another program hold the card.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    #[track_caller]
    pub fn hold(&self, hold: Hold) -> Holder {
        let mode = match hold {
            Hold::Exclusive => "exclusive",
            Hold::Transaction => "transaction",
        };
        let mut child = self
            .namespace
            .command(built("card-client"))
            .args(["hold", "--mode", mode, "--reader", &self.reader])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("card-client can be run");
        let output = child.stdout.take().expect("it is piped");
        let holder = Holder(child);
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert!(
            read.is_ok() && line.trim_end() == "held",
            "card-client cannot hold {}",
            self.reader
        );
        holder
    }

    /// Each signature takes so long in all.
    pub fn delay(&self, delay: Duration) {
        self.tell(&format!("delay {}", delay.as_millis()));
    }

    /// Each command of this instruction takes so long in all.
    pub fn delay_of(&self, ins: u8, delay: Duration) {
        self.tell(&format!("delay {ins:02X} {}", delay.as_millis()));
    }

    /// The next `times` commands of this instruction are answered with this status word, and not
    /// carried out.
    pub fn fault(&self, ins: u8, status: u16, times: u32) {
        self.tell(&format!("fault {ins:02X} {status:04X} {times}"));
    }

    /// The next command of this instruction is answered with these bytes and 9000.
    pub fn garbage(&self, ins: u8, content: &[u8]) {
        self.tell(&format!("garbage {ins:02X} {}", hex(content)));
    }

    /// The next command of this instruction is answered with exactly these bytes.
    pub fn raw(&self, ins: u8, answer: &[u8]) {
        self.tell(&format!("raw {ins:02X} {}", hex(answer)));
    }

    /// The card is pulled out in the middle of the next command of this instruction.
    pub fn vanish_at(&self, ins: u8) {
        self.tell(&format!("drop {ins:02X}"));
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        self.tell("heal");
    }

    /// Puts a data object's content on the card behind everybody's back: 0x5fc10a is the
    /// certificate of slot 9c.
    pub fn put_object(&self, id: u32, content: &[u8]) {
        self.tell(&format!("object {id:06X} {}", hex(content)));
    }

    /// Leaves so much room for all data objects together.
    pub fn capacity(&self, bytes: usize) {
        self.tell(&format!("capacity {bytes}"));
    }

    /// What happened.
    ///
    /// # Panics
    /// When the card process is gone.
    #[must_use]
    #[track_caller]
    pub fn stats(&self) -> Stats {
        let answer = self.tell("stats");
        Stats::read(&serde_json::from_str(&answer).expect("the card speaks JSON"))
    }

    /// Counts afresh.
    pub fn reset_stats(&self) {
        self.tell("stats-reset");
    }

    /// Writes all exchanges to this file from now on, PINs included.
    pub fn trace(&self, path: &Path) {
        self.tell(&format!("trace {}", path.display()));
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
