//! The only secret type.

use std::fmt;

/// A passphrase, PIN, age identity or key material. Lives in locked memory where the limit allows,
/// is wiped on drop, and prints as `Secret(..)`.
pub struct Secret {
    bytes: Vec<u8>,
}

impl Secret {
    /// Moves `bytes` into locked memory and wipes the source.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The bytes themselves. Grep for this name to find every use of a secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
