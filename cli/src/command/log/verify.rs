//! `signet log verify`: does the chain hold, and what proves that it was not written anew.
//!
//! The answer has two halves, and says which is which: up to the newest checkpoint that was kept
//! elsewhere the log is *unchanged*; after it, it is only *consistent*.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde_json::{Value, json};
use signet_proto::v1::{CheckedCheckpoint, LogVerifyReply, LogVerifyRequest};

use crate::{
    Context,
    agent::LEDGER_DAMAGED,
    args::LogVerifyArgs,
    failure::{Failure, exit},
    ui::text::escape,
};

/// How a checkpoint begins, whatever a journal writes before it.
const CHECKPOINT: &str = "{\"checkpoint\":";
/// Checkpoints taken of all files together: the newest of each, as they stand last.
const MAX_CHECKPOINTS: usize = 4096;
/// Bytes of a file that are looked through, and of a line that are kept.
const MAX_FILE: u64 = 1 << 32;
const MAX_LINE: u64 = 64 * 1024;

/// Verifies the log.
pub(super) async fn run(args: &LogVerifyArgs, ctx: &mut Context) -> Result<(), Failure> {
    let mut from = Vec::new();
    let mut against = Vec::new();
    let each = MAX_CHECKPOINTS / args.against.len().max(1);
    for path in &args.against {
        for line in checkpoints(path, each)? {
            from.push(path.display().to_string());
            against.push(line);
        }
    }
    let damaged = |failure: Failure| match failure.code == LEDGER_DAMAGED {
        true => failure.in_class(exit::UNTRUSTED, LEDGER_DAMAGED),
        false => failure,
    };
    let agent = ctx.agent().await.map_err(damaged)?;
    let reply = agent
        .log()
        .verify(LogVerifyRequest { against })
        .await?
        .into_inner();
    let seen = Seen::of(&reply, &from);
    if ctx.ui.is_json() {
        ctx.ui.json(&seen.to_json(&reply));
    } else {
        for line in seen.lines(&reply) {
            ctx.ui.data(line);
        }
    }
    match seen.problems.first() {
        None => Ok(()),
        Some(problem) => Err(Failure::new(
            exit::UNTRUSTED,
            "log",
            format!("the log does not hold: {problem}"),
        )
        .fix(
            "keep the ledger as it is for whoever looks into this; `signet log export` and an \
             older backup show what changed",
        )),
    }
}

/// The newest checkpoints in a file, a line each.
fn checkpoints(path: &Path, most: usize) -> Result<VecDeque<String>, Failure> {
    let failed = |error| Failure::file("read", path, error);
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut text = BufReader::new(source.take(MAX_FILE));
    let mut found = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if text
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(failed)?
            == 0
        {
            break;
        }
        let Ok(line) = std::str::from_utf8(&line) else {
            continue;
        };
        // A migration's receipt has it as a text, the last of its members.
        let member = format!("{{{}}}", line.trim());
        let member = serde_json::from_str(&member).unwrap_or(Value::Null);
        let line = member["checkpoint"].as_str().unwrap_or(line);
        if let Some(start) = line.find(CHECKPOINT) {
            if found.len() == most {
                found.pop_front();
            }
            found.push_back(line.get(start..).unwrap_or_default().trim_end().to_owned());
        }
    }
    if found.is_empty() {
        let what = format!("{} holds no checkpoint of a log", path.display());
        return Err(Failure::new(exit::FAILED, "no_checkpoint", what).fix(format!(
            "a checkpoint is a line that begins with {CHECKPOINT}; `journalctl -t signetd -o cat` \
             prints those of the journal"
        )));
    }
    Ok(found)
}

/// What the verification showed.
#[derive(Debug, Default)]
struct Seen {
    /// The newest entry up to which the log is proved to be unchanged, the checkpoint that proves
    /// it, and where that was kept.
    unchanged: Option<(u64, Value, String)>,
    problems: Vec<String>,
}

impl Seen {
    fn of(reply: &LogVerifyReply, from: &[String]) -> Self {
        let mut seen = Self::default();
        if !reply.problem.is_empty() {
            seen.problems.push(escape(&reply.problem));
        }
        let given = reply.against.iter().zip(from.iter().map(String::as_str));
        let witness = reply.witness.iter().map(|one| (one, "the witness file"));
        for (checked, from) in given.chain(witness) {
            seen.take(checked, from);
        }
        if !reply.own_problem.is_empty() {
            seen.problems.push(escape(&reply.own_problem));
        }
        if !reply.witness_problem.is_empty() {
            seen.problems.push(format!(
                "the witness file cannot be read: {}",
                escape(&reply.witness_problem)
            ));
        }
        seen
    }

    fn take(&mut self, checked: &CheckedCheckpoint, from: &str) {
        if !checked.problem.is_empty() {
            self.problems.push(format!(
                "against a checkpoint from {}: {}",
                escape(from),
                escape(&checked.problem)
            ));
            return;
        }
        let line: Value = serde_json::from_str(&checked.line).unwrap_or_default();
        let entry = line["entry"].as_u64().unwrap_or(0);
        if self
            .unchanged
            .as_ref()
            .is_none_or(|(newest, ..)| *newest < entry)
        {
            self.unchanged = Some((entry, line, from.to_owned()));
        }
    }

    fn lines(&self, reply: &LogVerifyReply) -> Vec<String> {
        let mut lines = vec![format!(
            "{} entries hold, the newest is {}",
            reply.entries,
            hex::encode(&reply.head)
        )];
        match &self.unchanged {
            Some((entry, checkpoint, from)) => {
                lines.push(format!(
                    "unchanged up to entry {entry}: checkpoint {} from {}",
                    words(checkpoint),
                    escape(from)
                ));
                if *entry < reply.entries {
                    lines.push(format!(
                        "after it, {} entries are consistent only",
                        reply.entries - entry
                    ));
                }
            }
            None => lines.push(
                "consistent only: nothing from outside the ledger was compared (--against FILE, \
                 or log.witness in agent.toml)"
                    .to_owned(),
            ),
        }
        let newest: Value = serde_json::from_str(&reply.newest_own).unwrap_or_default();
        if let Some(entry) = newest["entry"].as_u64() {
            lines.push(format!(
                "the ledger's own newest signed checkpoint is of entry {entry}, {}: it holds \
                 against whoever has not the keyring, unless a whole older ledger was put back",
                words(&newest)
            ));
        }
        lines.extend(
            self.problems
                .iter()
                .map(|problem| format!("DOES NOT HOLD: {problem}")),
        );
        lines
    }

    fn to_json(&self, reply: &LogVerifyReply) -> Value {
        let newest: Value = serde_json::from_str(&reply.newest_own).unwrap_or_default();
        json!({
            "v": 1,
            "holds": self.problems.is_empty(),
            "entries": reply.entries,
            "head": hex::encode(&reply.head),
            "unchanged_up_to": self.unchanged.as_ref().map(|(entry, ..)| entry),
            "checkpoint": self.unchanged.as_ref().map(|(_, checkpoint, _)| checkpoint),
            "from": self.unchanged.as_ref().map(|(.., from)| from),
            "checkpoints": reply.own,
            "newest_own": newest,
            "problems": self.problems,
        })
    }
}

/// When and by whom it was made.
fn words(checkpoint: &Value) -> String {
    let time = escape(checkpoint["time"].as_str().unwrap_or_default());
    match checkpoint["key"].as_str() {
        Some(key) => format!(
            "of {time}, signed by log key {}",
            key.get(..10).unwrap_or(key)
        ),
        None => format!("of {time}, not signed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_found_behind_what_a_journal_writes_before_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let line = "{\"checkpoint\":1,\"entry\":7}";
        let text = format!("Nov 22 08:00 host signetd[1]: {line}\nnothing\n{line}\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(checkpoints(&path, 9).unwrap(), [line, line]);
        assert_eq!(checkpoints(&path, 1).unwrap(), [line]);
        std::fs::write(&path, "nothing\n").unwrap();
        let failure = checkpoints(&path, 9).unwrap_err();
        assert!(failure.message.contains("holds no checkpoint"));
    }

    #[test]
    fn what_is_proved_and_what_is_only_consistent_are_told_apart() {
        let line = |entry: u64| {
            format!(
                "{{\"checkpoint\":1,\"entry\":{entry},\"time\":\"2026-11-22T08:00:00Z\",\
                 \"key\":null}}"
            )
        };
        let checked = |entry, problem: &str| CheckedCheckpoint {
            line: line(entry),
            problem: problem.to_owned(),
        };
        let reply = LogVerifyReply {
            entries: 10,
            head: vec![1; 32],
            against: vec![checked(7, ""), checked(4, "")],
            ..LogVerifyReply::default()
        };
        let from = ["a".to_owned(), "b".to_owned()];
        let seen = Seen::of(&reply, &from);
        let lines = seen.lines(&reply);
        assert!(lines[1].starts_with(
            "unchanged up to entry 7: checkpoint of 2026-11-22T08:00:00Z, not signed from a"
        ));
        assert_eq!(lines[2], "after it, 3 entries are consistent only");
        crate::schema::assert_fits("signet log verify", &seen.to_json(&reply));
        let cut = LogVerifyReply {
            against: vec![checked(12, "the log ends with entry 10")],
            ..reply
        };
        let seen = Seen::of(&cut, &from);
        assert!(seen.unchanged.is_none() && seen.problems.len() == 1);
        crate::schema::assert_fits("signet log verify", &seen.to_json(&cut));
    }
}
