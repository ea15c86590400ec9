//! Times as Notary's documents write them.

use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z. The time is always an argument in this crate.
pub type UnixTime = i64;

/// The `expires` member: RFC 3339, kept as it was written so that a document re-encodes to the
/// same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    text: String,
    at: UnixTime,
}

/// Text that is not an RFC 3339 time with a zone, or lies outside the years 0 to 9999.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time")]
pub struct BadTime(pub String);

impl Expiry {
    /// Reads the text of a document.
    ///
    /// # Errors
    ///
    /// When it is not RFC 3339 with a zone.
    pub fn parse(text: &str) -> Result<Self, BadTime> {
        todo!("{text}")
    }

    /// A time in UTC with `Z` and no fraction, as our writer always makes it.
    #[must_use]
    pub fn at(at: UnixTime) -> Self {
        todo!("{at}")
    }

    /// The instant.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        self.at
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `now` is past it.
    #[must_use]
    pub fn is_past(&self, now: UnixTime) -> bool {
        self.at < now
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Default lifetimes at each signing, in seconds (notary `tuf/data/types.go`, `NotaryDefaultExpiries`).
pub mod lifetime {
    use super::UnixTime;

    const DAY: UnixTime = 24 * 60 * 60;
    /// Ten years of 365 days.
    pub const ROOT: UnixTime = 10 * 365 * DAY;
    /// Three years of 365 days; targets and every delegation.
    pub const TARGETS: UnixTime = 3 * 365 * DAY;
    /// Three years of 365 days.
    pub const SNAPSHOT: UnixTime = 3 * 365 * DAY;
}
