//! `signet revoke`.

use crate::{Context, args::RevokeArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: RevokeArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
