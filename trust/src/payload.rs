//! What a request asks to sign: bytes → payload, base and payload → change → words.

mod added;
mod change;
mod escape;
mod summary;

use sha2::{Digest, Sha256};

pub use self::{added::added_digests, change::change_digest, escape::escape, summary::summarise};
use crate::{
    document::{Document, DocumentError},
    key::KeyId,
    role::RoleName,
};

/// The bytes of one item, read.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    hash: [u8; 32],
    document: Result<Document, DocumentError>,
}

impl Payload {
    /// Reads the canonical bytes of a `signed` member. Anything else is opaque.
    #[must_use]
    pub fn read(bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).into();
        let document = Document::from_canonical(&bytes);
        Self {
            bytes,
            hash,
            document,
        }
    }

    /// The bytes to be signed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of them.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The document, or why it is opaque.
    ///
    /// # Errors
    ///
    /// The reason for which the bytes did not parse.
    pub fn document(&self) -> Result<&Document, &DocumentError> {
        self.document.as_ref()
    }

    /// The bytes, their hash, and the document where it is one.
    pub(crate) fn into_parts(self) -> (Vec<u8>, [u8; 32], Option<Document>) {
        (self.bytes, self.hash, self.document.ok())
    }

    /// Whether its `_type` is what `role` signs.
    #[must_use]
    pub fn fits(&self, role: &RoleName) -> bool {
        match &self.document {
            Ok(Document::Root(_)) => *role == RoleName::Root,
            Ok(Document::Targets(_)) => role.is_targets_like(),
            Ok(Document::Snapshot(_)) => *role == RoleName::Snapshot,
            Ok(Document::Timestamp(_)) => *role == RoleName::Timestamp,
            Err(_) => false,
        }
    }
}

/// One item of a request.
#[derive(Clone, Debug)]
pub struct Item {
    /// Claimed role.
    pub role: RoleName,
    /// What is to be signed.
    pub payload: Payload,
    /// Keys that should sign, as the documents list them.
    pub key_ids: Vec<KeyId>,
}

/// The words a person is asked to approve: one line each, names escaped, longest lists cut to
/// three and a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Lines without line ends.
    pub lines: Vec<String>,
}
