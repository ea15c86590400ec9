//! `signet inspect`.

use crate::{Context, args::InspectArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: InspectArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
