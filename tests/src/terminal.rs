//! A command on a terminal of its own, and somebody who reads and types there.

use std::fmt;
use std::process::{Command, Stdio};

use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};

/// A command on a pseudo-terminal, in a session of its own.
pub struct Terminal {
    line: String,
    session: PtySession,
    seen: String,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal({})", self.line)
    }
}

impl Terminal {
    /// Starts a command on a new terminal, without colours.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let line = format!("{command:?}");
        command
            .stdin(Stdio::inherit())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1");
        match spawn_command(command, Some(PATIENCE)) {
            Ok(session) => Self {
                line,
                session,
                seen: String::new(),
            },
            Err(err) => panic!("cannot run {line} on a terminal: {err}"),
        }
    }

    /// Reads until something matches this regular expression, and returns all that came before
    /// it and itself.
    ///
    /// # Panics
    /// When it does not come, with everything that did.
    #[track_caller]
    pub fn expect(&mut self, regex: &str) -> String {
        match self.session.exp_regex(regex) {
            Ok((before, matched)) => {
                let text = format!("{before}{matched}");
                self.seen += &text;
                text
            }
            Err(err) => panic!(
                "{}: no {regex:?} came: {err}\nbefore:\n{}",
                self.line, self.seen
            ),
        }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When the terminal is closed.
    #[track_caller]
    pub fn type_line(&mut self, text: &str) {
        self.session.send_line(text).expect("the terminal is open");
    }

    /// Presses keys, as the terminal sends them: `\x1b[B` is the arrow down.
    ///
    /// # Panics
    /// When the terminal is closed.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        let sent = self.session.send(keys).and_then(|_| self.session.flush());
        sent.expect("the terminal is open");
    }

    /// Waits for a question that matches, and answers it.
    ///
    /// # Panics
    /// As [`Terminal::expect`].
    #[track_caller]
    pub fn answer(&mut self, regex: &str, text: &str) {
        self.expect(regex);
        self.type_line(text);
    }

    /// Types Ctrl-C.
    ///
    /// # Panics
    /// When the terminal is closed.
    #[track_caller]
    pub fn interrupt(&mut self) {
        self.session
            .send_control('c')
            .expect("the terminal is open");
    }

    /// Waits for the end, and returns the exit code (`None` when a signal ended it) and
    /// everything that was on the terminal.
    ///
    /// # Panics
    /// When the command does not end.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "some only want the command to end"
    )]
    pub fn end(mut self) -> (Option<i32>, String) {
        match self.session.exp_eof() {
            Ok(rest) => self.seen += &rest,
            Err(err) => panic!("{}: does not end: {err}\nbefore:\n{}", self.line, self.seen),
        }
        let code = match self.session.process_mut().wait() {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            Ok(_) => None,
            Err(err) => panic!("{}: cannot be waited for: {err}", self.line),
        };
        (code, self.seen)
    }

    /// Waits for the end, which must be this exit code, and returns everything that was on the
    /// terminal.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn exits(self, code: i32) -> String {
        let line = self.line.clone();
        let (ended, seen) = self.end();
        assert_eq!(ended, Some(code), "{line}\non the terminal:\n{seen}");
        seen
    }
}

/// Milliseconds. Debug builds derive keys from passphrases in a second or two, on a busy machine
/// in some more.
const PATIENCE: u64 = 60_000;
