//! `signet keyring`.

use crate::{Context, args::KeyringArgs, failure::Failure};

/// Runs it.
pub(crate) async fn run(_args: KeyringArgs, _ctx: &mut Context) -> Result<(), Failure> {
    Err(Failure::new(1, "unfinished", "not written yet"))
}
