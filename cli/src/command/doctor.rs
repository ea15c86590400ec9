//! `signet doctor`: what keeps keys, cards or the agent from working, and what puts it right.
//!
//! It changes nothing. The agent says what it sees of the cards; the rest is read from this host:
//! files below `/proc`, `/etc`, `/usr` and the user's own. A check ends as `ok`, `note` (worth
//! knowing), `warning` (works, but should be put right) or `failed` (does not work); any `failed`
//! is exit 1, and nothing else is.

mod agent;
mod cards;
mod gnupg;
mod host;
mod pcscd;

use serde_json::{Value, json};

use crate::{
    Context,
    failure::{Failure, exit},
    ui::text::{columns, escape},
};
use host::Host;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Note,
    Warning,
    Failed,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    state: State,
    message: String,
    fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, message: impl Into<String>) -> Self {
        Self {
            check,
            state,
            message: message.into(),
            fix: None,
        }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "check": self.check,
            "state": self.state.as_str(),
            "message": self.message,
            "fix": self.fix,
        })
    }
}

/// Looks at everything.
pub(crate) async fn run(ctx: &mut Context) -> Result<(), Failure> {
    let seen = agent::look(ctx).await;
    let host = Host::of_this_process();
    let mut findings = seen.findings;
    findings.push(host.socket_directory(&ctx.places.socket));
    findings.push(host.unit());
    findings.push(host.swap());
    findings.push(host.locked_memory(seen.pid));
    findings.push(host.clock(seen.last_entry));
    let cards = seen.cards.unwrap_or_default();
    let wanted = seen.default_store.starts_with("piv") || cards.cards.iter().any(cards::matters);
    findings.push(pcscd::daemon(&host, wanted));
    findings.push(pcscd::drivers(&host, wanted));
    findings.push(pcscd::polkit(&host, wanted, &cards.problems));
    findings.push(gnupg::scdaemon(&host, wanted, &cards));
    findings.extend(cards::look(&cards, wanted, &findings));

    let failed = findings
        .iter()
        .filter(|one| one.state == State::Failed)
        .count();
    if ctx.ui.is_json() {
        let checks: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        ctx.ui
            .json(&json!({ "v": 1, "ok": failed == 0, "checks": checks }));
    } else {
        for line in lines(&findings) {
            ctx.ui.data(line);
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(
            exit::FAILED,
            "doctor",
            format!("{failed} of {} checks failed", findings.len()),
        )
        .fix("each is on stdout with what puts it right")),
    }
}

/// State, check and message in columns; what to do below it.
fn lines(findings: &[Finding]) -> Vec<String> {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|one| {
            vec![
                one.state.as_str().to_owned(),
                one.check.to_owned(),
                escape(&one.message),
            ]
        })
        .collect();
    let mut all = Vec::new();
    for (line, finding) in columns(&rows).into_iter().zip(findings) {
        all.push(line);
        if let Some(fix) = &finding.fix {
            all.push(format!("         fix: {}", escape(fix)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_fix_another() {
        let findings = [
            Finding::new("agent", State::Ok, "it runs"),
            Finding::new("pcscd", State::Failed, "not\x1bthere").fix("install it"),
        ];
        assert_eq!(
            lines(&findings),
            [
                "ok      agent  it runs",
                "failed  pcscd  not\\u{1b}there",
                "         fix: install it",
            ]
        );
        let checks: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        let object = json!({ "v": 1, "ok": false, "checks": checks });
        crate::schema::assert_fits("signet doctor", &object);
    }
}
