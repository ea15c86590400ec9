//! What the agent says of itself and of the cards.

use signet_proto::v1::{ListCardsReply, LogRequest, StatusRequest};

use super::{Finding, State};
use crate::{
    Context,
    agent::AgentClient,
    failure::{Failure, exit},
};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    /// The agent's process, if one runs.
    pub(super) pid: Option<i32>,
    pub(super) default_store: String,
    /// Unix seconds of the newest entry of its log.
    pub(super) last_entry: Option<i64>,
    pub(super) cards: Option<ListCardsReply>,
}

/// Asks the agent, which is started if none runs.
pub(super) async fn look(ctx: &mut Context) -> Seen {
    let mut seen = Seen::default();
    let agent = match ctx.agent().await {
        Ok(agent) => agent,
        Err(failure) => {
            seen.findings.push(of(&failure, "agent"));
            return seen;
        }
    };
    let hello = agent.hello();
    let own = env!("CARGO_PKG_VERSION");
    seen.pid = Some(hello.pid);
    seen.findings.push(if hello.version == own {
        Finding::new(
            "agent",
            State::Ok,
            format!("signetd {} runs with pid {}", hello.version, hello.pid),
        )
    } else {
        Finding::new(
            "agent",
            State::Warning,
            format!(
                "signetd {} runs with pid {}, and this command is of version {own}",
                hello.version, hello.pid
            ),
        )
        .fix("signet agent stop; the next command starts the one that belongs to it")
    });
    if let Ok(status) = agent.daemon().status(StatusRequest {}).await {
        seen.default_store = status.into_inner().default_store;
    }
    seen.last_entry = last_entry(&agent).await;
    match agent.list_cards().await {
        Ok(cards) => seen.cards = Some(cards),
        Err(failure) => seen.findings.push(of(&failure, "cards")),
    }
    seen
}

async fn last_entry(agent: &AgentClient) -> Option<i64> {
    let newest = LogRequest {
        from: 0,
        count: 1,
        newest: true,
    };
    let mut entries = agent.log().show(newest).await.ok()?.into_inner();
    Some(entries.message().await.ok()??.time)
}

/// A failure as a finding.
fn of(failure: &Failure, check: &'static str) -> Finding {
    let finding = Finding::new(check, State::Failed, failure.message.clone());
    match &failure.fix {
        Some(fix) => finding.fix(fix.clone()),
        None if failure.exit == exit::NO_AGENT => {
            finding.fix("`signet agent run` runs it in the foreground, where it says more")
        }
        None => finding,
    }
}
