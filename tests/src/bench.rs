//! What the benchmarks of `make bench` are made of.

use std::time::{Duration, SystemTime};

use anyhow::Result;

pub mod agent;
pub mod backup;
pub mod cards;
pub mod collection;
pub mod connections;
pub mod cost;
pub mod decision;
pub mod ledger;
pub mod notary;
pub mod signatures;
pub mod socket;
pub mod table;

/// How long an agent may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unix seconds.
///
/// # Errors
///
/// When the clock stands before 1970.
pub fn now() -> Result<i64> {
    Ok(SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs()
        .try_into()?)
}
