//! Archives: what goes into them and what may come out, without the path of a request.
//!
//! ```text
//! keyring::backup ──► state     guard state as it lies in an archive, bounded
//!                 ──► journal   a restore that is done wholly or not at all
//! ```
//!
//! The format itself is [`signet_proto::archive`], which the command shares.

pub(crate) mod journal;
pub(crate) mod state;

/// `recover.sh`, as it lies in every archive.
pub(crate) const RECOVER: &str = include_str!("backup/recover.sh");

#[doc(hidden)]
pub use state::read_state;
