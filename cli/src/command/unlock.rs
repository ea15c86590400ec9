//! `signet unlock`.

use crate::{Context, args::UnlockArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: UnlockArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
