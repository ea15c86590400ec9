//! `signet sign`.

use crate::{Context, args::SignArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: SignArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
