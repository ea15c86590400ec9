//! What the person and the pipe see.
//!
//! Data goes to stdout and nothing else does; talk goes to stderr; questions go to the terminal
//! itself (`/dev/tty`), so that neither redirection hides them. With `--json` stdout holds exactly
//! one JSON object. Colours appear only on a terminal, and never with `NO_COLOR`. A reader that has
//! gone away (`signet key list | head`) is no error.

pub(crate) mod card;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod waiting;

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use crate::{
    args::Globals,
    failure::{Failure, exit},
};

pub(crate) use terminal::Asked;

/// Output and questions of one command.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    json: bool,
    input: bool,
    colour: bool,
    talk_is_terminal: bool,
}

impl Ui {
    /// Output as the global flags and the environment say.
    pub(crate) fn new(globals: &Globals) -> Self {
        let talk_is_terminal = io::stderr().is_terminal();
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            json: globals.json,
            input: !globals.no_input,
            colour: talk_is_terminal
                && !set("NO_COLOR")
                && env::var_os("TERM").is_none_or(|term| term != "dumb"),
            talk_is_terminal,
        }
    }

    /// Whether facts are to be printed as JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person may be asked (`--no-input` was not given).
    pub(crate) const fn may_ask(&self) -> bool {
        self.input
    }

    /// Whether stderr is a terminal: progress bars belong only there.
    pub(crate) const fn talk_is_terminal(&self) -> bool {
        self.talk_is_terminal
    }

    /// Prints one line of data.
    pub(crate) fn data(&self, line: impl Display) {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| {
                Failure::new(
                    exit::FAILED,
                    "stdout",
                    format!("cannot write to stdout: {error}"),
                )
            })
    }

    /// Prints the one object of a command called with `--json`.
    pub(crate) fn json(&self, value: &serde_json::Value) {
        // Pretty for eyes; every JSON reader takes it all the same.
        let text = serde_json::to_string_pretty(value).expect("a JSON value always prints");
        self.data(text);
    }

    /// Says one line to the person.
    pub(crate) fn say(&self, line: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Says that something is not as it should be, though the work goes on.
    pub(crate) fn warn(&self, line: impl Display) {
        self.say(format_args!("{} {line}", self.paint("warning:", "33")));
    }

    /// Prints a failure: as text, or as JSON where that was asked for.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            self.say(failure.to_json());
            return;
        }
        self.say(format_args!(
            "{} {}",
            self.paint("error:", "31"),
            failure.message
        ));
        for missing in &failure.missing {
            self.say(format_args!("  {}: {}", missing.what, missing.reason));
        }
        for candidate in &failure.candidates {
            self.say(format_args!("  {candidate}"));
        }
        if let Some(fix) = &failure.fix {
            self.say(format_args!("{} {fix}", self.paint("fix:", "32")));
        }
        if let Some(rule) = &failure.rule
            && failure
                .fix
                .as_ref()
                .is_none_or(|fix| !fix.contains("--allow"))
        {
            self.say(format_args!("to override: --allow {rule}"));
        }
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.colour {
            format!("\x1b[1;{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Asks a yes/no question; the default is no.
    ///
    /// # Errors
    ///
    /// Exit 5 when nobody may be or can be asked, exit 130 when the person interrupts.
    pub(crate) async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let question = question.to_owned();
        self.ask(move || terminal::confirm(&question)).await
    }

    /// Asks for a line.
    ///
    /// # Errors
    ///
    /// As [`Ui::confirm`].
    pub(crate) async fn line(&self, question: &str) -> Result<String, Failure> {
        let question = question.to_owned();
        self.ask(move || terminal::line(&question)).await
    }

    /// Asks for one of several; the answer is an index.
    ///
    /// # Errors
    ///
    /// As [`Ui::confirm`].
    pub(crate) async fn select(&self, question: &str, items: &[String]) -> Result<usize, Failure> {
        let (question, items) = (question.to_owned(), items.to_vec());
        self.ask(move || terminal::select(&question, &items)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Asked<T> + Send + 'static,
    ) -> Result<T, Failure> {
        if !self.input {
            return Err(nobody("--no-input forbids to ask"));
        }
        match blocking(question).await {
            Asked::Answer(answer) => Ok(answer),
            Asked::Cancelled => Err(Failure::interrupted()),
            Asked::NoTerminal => Err(nobody("there is no terminal to ask on")),
        }
    }
}

fn nobody(why: &str) -> Failure {
    Failure::new(
        exit::LOCKED,
        "nobody_to_ask",
        format!("a question needs an answer, and {why}"),
    )
    .fix("run it on a terminal, or answer yes/no questions with --yes")
}

/// Runs what waits for a person off the runtime, so that connections and Ctrl-C are still served.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task that has begun is never cancelled, and this one began at once.
            Err(error) => unreachable!("a blocking task was cancelled: {error}"),
        },
    }
}
