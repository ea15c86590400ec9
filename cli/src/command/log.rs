//! `signet log`.

use crate::{Context, args::LogArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: LogArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
