//! `signet repo`.

use crate::{Context, args::RepoArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: RepoArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
