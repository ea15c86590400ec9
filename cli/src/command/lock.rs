//! `signet lock`.

use crate::{Context, failure::Failure};

/// Runs it.
pub(crate) async fn run(_ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
