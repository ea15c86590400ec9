//! `signet key`.

use crate::{Context, args::KeyArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: KeyArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
