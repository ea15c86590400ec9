//! `signet push`.

use crate::{Context, args::PushArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: PushArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
