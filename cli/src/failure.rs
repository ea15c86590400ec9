//! The one error of the command: what went wrong, which exit code that is, and what to do.
//!
//! Everything that can fail ends as a [`Failure`]; `main` prints it (for people, or as JSON) and
//! exits with its code. The agent sends the same facts in the details of a gRPC status, so that an
//! error reads the same whichever side found it.

use std::{
    error::Error,
    fmt, io,
    ops::{Deref, DerefMut},
    path::Path,
};

use prost::Message as _;
use signet_proto::v1;

/// Exit codes of the contract.
pub(crate) mod exit {
    /// It failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No valid trust data, or verification failed.
    pub(crate) const UNTRUSTED: u8 = 3;
    /// Refused by policy, guard or the person.
    pub(crate) const REFUSED: u8 = 4;
    /// A secret was wrong or missing, or nobody is there to answer.
    pub(crate) const LOCKED: u8 = 5;
    /// No agent.
    pub(crate) const NO_AGENT: u8 = 6;
    /// A card is missing, or was not touched in time.
    pub(crate) const CARD: u8 = 7;
    /// Done in part.
    pub(crate) const PARTIAL: u8 = 8;
    /// Interrupted, and then nothing half done.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why the command ends with another code than 0.
pub(crate) struct Failure(Box<Facts>);

/// What a [`Failure`] says. Reached through it: `failure.exit`, `failure.code`.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Exit code, see [`exit`].
    pub(crate) exit: u8,
    /// A stable word for scripts: `locked`, `guard.rollback`, `unknown_key` …
    pub(crate) code: String,
    /// What is wrong, naming the file, role or URL.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
    /// The override that would allow it.
    pub(crate) rule: Option<String>,
    /// Guard: the version that would pass; 0 when there is none.
    pub(crate) next: u32,
    /// What an ambiguous name may have meant.
    pub(crate) candidates: Vec<String>,
    /// What was not done, where the rest was.
    pub(crate) missing: Vec<Missing>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// One thing that was not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Missing {
    /// A file, key or step.
    pub(crate) what: String,
    /// Why not.
    pub(crate) reason: String,
    /// The exit code that this alone would have had.
    pub(crate) exit: u8,
}

impl Failure {
    /// A failure with an exit code of [`exit`] and a stable word.
    pub(crate) fn new(exit: u8, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            exit,
            code: code.into(),
            message: message.into(),
            fix: None,
            rule: None,
            next: 0,
            candidates: Vec::new(),
            missing: Vec::new(),
            source: None,
        }))
    }

    /// Exit 2: the command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, "usage", message)
    }

    /// Exit 130.
    pub(crate) fn interrupted() -> Self {
        Self::new(
            exit::INTERRUPTED,
            "interrupted",
            "interrupted; nothing was left half done",
        )
    }

    /// A file that could not be read or written.
    pub(crate) fn file(doing: &str, path: &Path, error: io::Error) -> Self {
        Self::new(
            exit::FAILED,
            "file",
            format!("cannot {doing} {}: {}", path.display(), io_words(&error)),
        )
        .source(error)
    }

    /// The same words under another exit code and word.
    pub(crate) fn in_class(mut self, exit: u8, code: impl Into<String>) -> Self {
        self.exit = exit;
        self.code = code.into();
        self
    }

    /// Says what to do.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Names the override that would allow it.
    pub(crate) fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Names what may have been meant.
    pub(crate) fn candidates(mut self, candidates: Vec<String>) -> Self {
        self.candidates = candidates;
        self
    }

    /// Adds what was not done.
    pub(crate) fn missing(mut self, missing: impl IntoIterator<Item = Missing>) -> Self {
        self.missing.extend(missing);
        self
    }

    /// Keeps the error below, for `--debug` output and tests.
    pub(crate) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// This failure as one of several things that were not done.
    pub(crate) fn as_missing(&self, what: impl Into<String>) -> Missing {
        let what = what.into();
        // Named once: many messages begin with the file that they are about.
        let reason = self
            .message
            .strip_prefix(&format!("{what}: "))
            .unwrap_or(&self.message);
        Missing {
            reason: reason.to_owned(),
            exit: self.exit,
            what,
        }
    }

    /// The object printed on stderr with `--json`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({
            "exit": self.exit,
            "code": self.code,
            "message": self.message,
            "fix": self.fix,
        });
        if let Some(rule) = &self.rule {
            error["rule"] = rule.as_str().into();
        }
        if self.next != 0 {
            error["next"] = self.next.into();
        }
        if !self.candidates.is_empty() {
            error["candidates"] = self.candidates.clone().into();
        }
        if !self.missing.is_empty() {
            error["missing"] = serde_json::json!(self.missing);
        }
        serde_json::json!({ "v": 1, "error": error })
    }
}

/// An I/O error in the system's words, without the number that Rust appends.
pub(crate) fn io_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

impl Deref for Failure {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.0
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

impl From<tonic::Status> for Failure {
    /// Takes the agent's own words from the details; a status without them means that the
    /// connection broke or that something else than the agent answered.
    fn from(status: tonic::Status) -> Self {
        if !status.details().is_empty()
            && let Ok(sent) = v1::Failure::decode(status.details())
        {
            return sent.into();
        }
        let reason = match status.message() {
            "" => status.code().to_string(),
            message => message.to_owned(),
        };
        match status.code() {
            tonic::Code::Cancelled => Self::interrupted(),
            tonic::Code::Unavailable | tonic::Code::Unknown => Self::new(
                exit::NO_AGENT,
                "agent_gone",
                format!("the agent went away: {reason}"),
            )
            .fix("`signet status` says whether it runs; the same command can be run again"),
            tonic::Code::Unimplemented => Self::new(
                exit::NO_AGENT,
                "agent_version",
                format!("the agent does not know this request: {reason}"),
            )
            .fix("it is of another version: `signet agent stop`, then run the command again"),
            _ => Self::new(
                exit::FAILED,
                "agent",
                format!("the agent answered: {reason}"),
            ),
        }
    }
}

impl From<v1::Failure> for Failure {
    fn from(sent: v1::Failure) -> Self {
        if sent.exit == u32::from(exit::INTERRUPTED) {
            return Self::interrupted();
        }
        // A code that no exit status can carry is a failure like any other.
        let exit = u8::try_from(sent.exit)
            .ok()
            .filter(|exit| *exit != 0)
            .unwrap_or(exit::FAILED);
        let mut failure = Self::new(exit, sent.code, sent.message);
        failure.fix = Some(sent.fix).filter(|fix| !fix.is_empty());
        failure.rule = Some(sent.rule).filter(|rule| !rule.is_empty());
        failure.next = sent.next;
        failure.candidates = sent.candidates;
        failure
    }
}

impl From<tonic::transport::Error> for Failure {
    fn from(error: tonic::transport::Error) -> Self {
        let mut below: &dyn Error = &error;
        while let Some(source) = below.source() {
            below = source;
        }
        Self::new(
            exit::NO_AGENT,
            "agent_gone",
            format!("the agent cannot be talked to: {below}"),
        )
        .source(error)
    }
}

impl From<anyhow::Error> for Failure {
    /// Finds the failure inside, else reports the chain of causes.
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(other) => Self::new(exit::FAILED, "failed", format!("{other:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_words_survive_the_wire() {
        let sent = v1::Failure {
            exit: 4,
            code: "guard.rollback".into(),
            message: "targets v7 is older than v8".into(),
            fix: "fetch again".into(),
            rule: "rollback".into(),
            next: 9,
            candidates: vec!["a".into()],
        };
        let status = tonic::Status::with_details(
            tonic::Code::FailedPrecondition,
            "targets v7 is older than v8",
            sent.encode_to_vec().into(),
        );
        let failure = Failure::from(status);
        assert_eq!((failure.exit, failure.next), (4, 9));
        assert_eq!(failure.rule.as_deref(), Some("rollback"));
        assert_eq!(failure.to_json()["error"]["code"], "guard.rollback");
        crate::schema::assert_fits("Errors", &failure.to_json());
    }

    #[test]
    fn a_broken_connection_is_no_agent() {
        assert_eq!(
            Failure::from(tonic::Status::unavailable("broken pipe")).exit,
            exit::NO_AGENT
        );
        // Details that are no failure of ours do not hide the status.
        let odd = tonic::Status::with_details(tonic::Code::Internal, "odd", vec![0xff].into());
        assert_eq!(Failure::from(odd).exit, exit::FAILED);
    }

    #[test]
    fn json_always_has_the_four_members_of_the_contract() {
        let json = Failure::usage("no").to_json();
        assert_eq!(
            json.to_string(),
            r#"{"error":{"code":"usage","exit":2,"fix":null,"message":"no"},"v":1}"#
        );
    }
}
