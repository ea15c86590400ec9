//! What is left of a key that is gone, as it lies in an archive.

use serde::{Deserialize, Serialize};
use signet_trust::{KeyId, KeyType, PublicKey};

use super::BadState;
use crate::ledger::{REMOVED, RETIRED, Tombstone};

/// Longest text of a tombstone.
const MAX_TEXT: usize = 1024;
/// Largest public key: RSA of 16384 bits.
const MAX_PUBLIC: usize = 4096;

/// What is left of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stone {
    id: String,
    reason: String,
    detail: String,
    role: String,
    gun: Option<String>,
    label: String,
    store: String,
    key_type: String,
    public: String,
    time: i64,
}

impl Stone {
    /// As it is recorded.
    pub(crate) fn new(stone: &Tombstone) -> Self {
        Self {
            id: stone.id.to_string(),
            reason: stone.reason.clone(),
            detail: stone.detail.clone(),
            role: stone.role.clone(),
            gun: stone.gun.clone(),
            label: stone.label.clone(),
            store: stone.store.clone(),
            key_type: stone.public.key_type().as_str().to_owned(),
            public: hex::encode(stone.public.public()),
            time: stone.time,
        }
    }

    /// Checked and bounded.
    ///
    /// # Errors
    ///
    /// [`BadState`].
    pub(crate) fn read(&self) -> Result<Tombstone, BadState> {
        let bad = |what: &str| BadState(what.to_owned());
        let texts = [&self.detail, &self.role, &self.label, &self.store];
        let mut texts = texts.into_iter().chain(&self.gun);
        if texts.any(|text| text.len() > MAX_TEXT) || self.public.len() > 2 * MAX_PUBLIC {
            return Err(bad("a tombstone is too large"));
        }
        if ![REMOVED, RETIRED].contains(&self.reason.as_str()) {
            return Err(bad("a tombstone has no known reason"));
        }
        let public = KeyType::from_name(&self.key_type).zip(hex::decode(&self.public).ok());
        let (key_type, public) = public.ok_or_else(|| bad("a tombstone has no public key"))?;
        let public = PublicKey::new(key_type, public);
        let id: KeyId = self
            .id
            .parse()
            .map_err(|_| bad("a tombstone is of no key"))?;
        if public.id() != id {
            return Err(bad("a tombstone has the public key of another key"));
        }
        Ok(Tombstone {
            id,
            reason: self.reason.clone(),
            detail: self.detail.clone(),
            role: self.role.clone(),
            gun: self.gun.clone(),
            label: self.label.clone(),
            store: self.store.clone(),
            public,
            time: self.time,
        })
    }
}
