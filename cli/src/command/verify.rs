//! `signet verify`.

use crate::{Context, args::VerifyArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: VerifyArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
