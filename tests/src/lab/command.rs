//! Commands as tests want them: started from a clean environment, and judged by one word.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// A command that inherits neither environment nor input.
///
/// What Rust's own tooling needs (backtraces, coverage) is passed on.
#[must_use]
pub fn clean(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear().stdin(Stdio::null());
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LANG", "C.UTF-8");
    for name in ["LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Running a command to its end.
pub trait Run {
    /// Runs it and collects what it says.
    ///
    /// # Panics
    /// When the program cannot be started at all.
    fn run(&mut self) -> Output;
}

impl Run for Command {
    fn run(&mut self) -> Output {
        let line = format!("{self:?}");
        match self.output() {
            Ok(output) => Output {
                line,
                status: output.status,
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(err) => panic!("cannot run {line}: {err}"),
        }
    }
}

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, as text.
    pub stdout: String,
    /// Its standard error, as text.
    pub stderr: String,
}

impl Output {
    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Both outputs, for assertions on words that may be on either.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Itself, if the command succeeded.
    ///
    /// # Panics
    /// When it did not, with everything it said.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Itself, if the command ended with this exit code.
    ///
    /// # Panics
    /// When it did not, with everything it said.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\n{}\nstdout:\n{}\nstderr:\n{}",
            self.line,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Itself, if `words` occur in one of the two outputs.
    ///
    /// # Panics
    /// When they do not, with everything the command said.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.stdout.contains(words) || self.stderr.contains(words),
            "{} does not say {words:?}\n{}\nstdout:\n{}\nstderr:\n{}",
            self.line,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(err) => panic!("{} printed no JSON ({err}):\n{}", self.line, self.stdout),
        }
    }
}
