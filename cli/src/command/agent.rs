//! `signet agent`.

use crate::{Context, args::AgentArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: AgentArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
