//! x
use crate::{Context, failure::Failure};
pub(crate) async fn run(_ctx: &mut Context) -> Result<(), Failure> {
    Ok(())
}
