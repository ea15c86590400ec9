//! A migration as each of its two hosts sees it: pure, without disk, network or clock.
//!
//! ```text
//! new:  offered ──package──► received ──proofs──► proved ──note──► closed
//! old:            sent ──receipt──► retired
//! ```
//!
//! Either side may cancel before its last step. Until the old host has read the receipt both can
//! sign, and each knows that. Messages may be lost, repeated or come in any order: a step that was
//! done is answered as before, one that does not fit changes nothing.

mod new;
mod old;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use signet_proto::migration::{BadMessage, Note};
use signet_trust::{KeyId, KeyType, PublicKey};

pub(crate) use self::{
    new::{Arrival, New, NewState},
    old::{Departure, Moved, Old},
};

/// Why a message changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It was cancelled here.
    #[error("migration {0} was cancelled on this host")]
    Cancelled(String),
    /// A proof that does not verify.
    #[error("the receipt is forged or damaged: its proof for key {0} was not made by that key")]
    Forged(KeyId),
    /// A message that cannot be read.
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// A closing note that the old host did not make.
    #[error(
        "the closing note is forged or damaged: it was not made by the host that sent the keys"
    )]
    NotSealed,
    /// Of another migration.
    #[error("it belongs to migration {found}, and this is {wanted}")]
    Other {
        /// What it names.
        found: String,
        /// What was expected.
        wanted: String,
    },
    /// A receipt for another package.
    #[error("the receipt is for another package than this host wrote for migration {0}")]
    OtherPackage(String),
    /// A key that this migration does not move.
    #[error("it names key {0}, which this migration does not move")]
    OtherKey(KeyId),
    /// A second package with other keys or from somebody else.
    #[error("migration {0} has received another package already")]
    SecondPackage(String),
    /// Nothing was received yet.
    #[error("migration {0} has not received its package yet")]
    TooEarly(String),
    /// It is over.
    #[error("migration {0} is finished")]
    Finished(String),
}

/// A key as a migration remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// Canonical ID in hex.
    pub(crate) id: String,
    pub(crate) role: String,
    /// Empty if none.
    pub(crate) gun: String,
    pub(crate) label: String,
    pub(crate) store: String,
}

impl Named {
    /// The ID; a record that has none was not written by us.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.id.parse().ok()
    }
}

/// A public key as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Public {
    key_type: String,
    public: String,
}

impl Public {
    pub(crate) fn new(key: &PublicKey) -> Self {
        Self {
            key_type: key.key_type().as_str().to_owned(),
            public: hex::encode(key.public()),
        }
    }

    pub(crate) fn read(&self) -> Option<PublicKey> {
        let key_type = KeyType::from_name(&self.key_type)?;
        Some(PublicKey::new(key_type, hex::decode(&self.public).ok()?))
    }
}

fn seal(note: &Note, nonce: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(nonce.as_bytes()).expect("a key of any length");
    mac.update(note.statement().as_bytes());
    mac
}

#[cfg(test)]
mod tests;
