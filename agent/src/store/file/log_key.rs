//! The log key: what checkpoints of the log are signed with.
//!
//! It is derived from the repository keyring's identity and lies nowhere: it goes into a backup, is
//! rotated, and is locked with the keyring, and no file of it can be lost, planted or forgotten. It
//! signs checkpoints only; keys of repositories are never used for them.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use signet_trust::{Algorithm, PrivateKey};
use zeroize::Zeroizing;

use super::{FileStore, keyring::OpenKeyring};

/// HKDF's salt (RFC 5869): this use and no other.
const SALT: &[u8] = b"signet log key v1";
/// Of an Ed25519 seed (RFC 8032, 5.1.5).
const SEED: usize = 32;

/// A signature by the log key.
#[derive(Debug)]
pub(crate) struct LogSignature {
    /// Ed25519 public key.
    pub(crate) public: [u8; 32],
    /// Ed25519 signature.
    pub(crate) signature: [u8; 64],
}

impl FileStore {
    /// Signs a checkpoint's message; `None` while the repository keyring is neither held nor open
    /// for a request. It is nobody's request: whoever opened the keyring, the log is one.
    pub(crate) fn sign_checkpoint(&self, message: &[u8]) -> Option<LogSignature> {
        let now = (self.clock)();
        let held = self.held.as_ref();
        let held = held.filter(|held| !held.grants.list(now).is_empty());
        let mut requests = self.requests.values();
        let keyring = held
            .map(|held| &held.keyring)
            .or_else(|| requests.find_map(|request| Some(&request.repository.as_ref()?.keyring)))?;
        let key = log_key(keyring)?;
        Some(LogSignature {
            public: key.public().public().try_into().ok()?,
            signature: key.sign(message).ok()?.try_into().ok()?,
        })
    }
}

/// `None` only if the primitive fails.
fn log_key(keyring: &OpenKeyring) -> Option<PrivateKey> {
    let mut seed = Zeroizing::new(vec![0; SEED]);
    Salt::new(HKDF_SHA256, SALT)
        .extract(keyring.first_identity())
        .expand(&[], HKDF_SHA256)
        .ok()?
        .fill(&mut seed)
        .ok()?;
    PrivateKey::from_material(Algorithm::Ed25519, seed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_has_one_log_key_and_a_rotated_one_another() {
        let keyring = OpenKeyring::generate();
        let id = |keyring: &OpenKeyring| log_key(keyring).unwrap().id();
        assert_eq!(id(&keyring), id(&keyring));
        assert_ne!(id(&keyring), id(&OpenKeyring::generate()));
        let rotating = keyring.with_new_identity();
        assert_ne!(id(&keyring), id(&rotating));
        assert_eq!(id(&rotating), id(&rotating.without_old_identity()));
    }
}
