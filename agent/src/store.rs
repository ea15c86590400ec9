//! Key stores: the places a private key can live.
//!
//! A [`KeyStore`] turns a key ID and some bytes into a signature and never hands the key out.
//! Stores block (scrypt burns a second of CPU); the keyring gives each its own thread.
//!
//! A secret given for a request lives as long as that request; for keys that are no root keys it
//! is then held for the caller's terminal session, and [`KeyStore::expire`] forgets it in time.
//! What the index knows of a key comes in as a [`Hint`]: it picks words and the keyring to try
//! first, and is never authority.

use std::{path::PathBuf, sync::Arc, time::Duration};

use signet_trust::{Algorithm, KeyId, PrivateKey, PublicKey, keyfile::KeyFileError};

use crate::{
    key::Secret,
    presence::{NoSecret, Presence, RequestId},
};

pub(crate) mod ask;
pub(crate) mod atomic;
#[cfg(test)]
mod contract;
pub mod docker;
pub mod file;
pub mod hold;
mod opened;
pub mod piv;
mod throttle;

pub use docker::DockerStore;
pub use file::FileStore;
pub use hold::Scope;

/// A key as a store sees it, without asking anybody anything.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// Canonical ID, from the file's name.
    pub id: KeyId,
    /// As the store has it; the native store knows it only once opened (the index fills in).
    pub role: Option<String>,
    /// GUN, if the file says so.
    pub gun: Option<String>,
    /// Public half, when known without a secret.
    pub public: Option<PublicKey>,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether a passphrase opens it.
    pub encrypted: bool,
    /// What is wrong with it; a key with a problem does not sign.
    pub problem: Option<String>,
}

/// What a store holds now.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Keys.
    pub keys: Vec<StoredKey>,
    /// Files that are no keys, in words, with their path.
    pub problems: Vec<String>,
}

/// What the bytes are, which decides their encoding for RSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `signed` bytes of a document.
    Document,
    /// TBSCertificate of a root certificate.
    Certificate,
}

/// A new key's facts.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// root, targets, snapshot, or a signer's name.
    pub role: String,
    /// For targets and snapshot.
    pub gun: Option<String>,
}

/// What the index knows of a key: for the words of a prompt, and for the keyring to try first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// root, targets, snapshot, or a signer's name; empty if unknown.
    pub role: String,
    /// GUN, empty if none.
    pub gun: String,
    /// Label, empty if none.
    pub label: String,
}

/// An opened key.
pub trait Signs: Send + Sync {
    /// Signs `message`; the result is in the documents' encoding and was verified with the public
    /// key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unverified`].
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Role by its file, if that says.
    fn role(&self) -> Option<&str>;

    /// GUN by its file, if that says.
    fn gun(&self) -> Option<&str>;
}

/// A place private keys live.
pub trait KeyStore: Send {
    /// `file` or `docker`: in logs and `key list`.
    fn name(&self) -> &'static str;

    /// Lists the keys held here, without asking anybody anything.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read; an absent one is an empty listing.
    fn list(&mut self) -> Result<Listing, StoreError>;

    /// Signs `message` with the key called `id`, asking through `presence` for what the key needs.
    /// The result is in the documents' encoding and was verified with the public key.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; with nobody to ask, [`StoreError::Locked`].
    fn sign(
        &mut self,
        id: &KeyId,
        purpose: Purpose,
        message: &[u8],
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError>;

    /// Opens the key far enough to know its public half, role and GUN.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`].
    fn open(&mut self, id: &KeyId, presence: &mut dyn Presence) -> Result<StoredKey, StoreError>;

    /// Makes a key here. Durable when it returns.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`].
    fn generate(
        &mut self,
        algorithm: Algorithm,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError>;

    /// Takes in a key made elsewhere; a key that is here already is left as it is.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`]; [`StoreError::Exists`] under another role.
    fn import(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError>;

    /// A Docker-format copy, encrypted with `passphrase` (asked for by the caller).
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`].
    fn export(
        &mut self,
        id: &KeyId,
        passphrase: &Secret,
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError>;

    /// Removes the key's file, durably.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Io`].
    fn remove(&mut self, id: &KeyId) -> Result<(), StoreError>;

    /// Changes the passphrase of one key (Docker's format).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] in the native store, whose keys have none of their own.
    fn change_passphrase(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<(), StoreError>;

    /// A Docker-format file as it lies here, byte for byte, under its own passphrase; `None` when
    /// the store keeps another format or the file is not encrypted.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Io`].
    fn verbatim(&mut self, id: &KeyId) -> Result<Option<Vec<u8>>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// The key, opened for this request as by [`KeyStore::open`], for signing outside the store's
    /// thread; `None` where a store cannot hand that out. Whoever has it keeps it for one request.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`].
    fn signer(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<Option<Arc<dyn Signs>>, StoreError> {
        let _ = (id, presence);
        Ok(None)
    }

    /// Takes note of what the index knows of a key, before it is used.
    fn hint(&mut self, id: &KeyId, hint: Hint) {
        let _ = (id, hint);
    }

    /// Forgets what has been held long enough; how long until there is something to forget again.
    fn expire(&mut self) -> Option<Duration> {
        None
    }

    /// The request has ended: forget what was opened for it alone.
    fn end_request(&mut self, request: RequestId);

    /// Forget every held secret.
    fn lock(&mut self);
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A card did not do it.
    #[error(transparent)]
    Card(#[from] piv::CardFault),
    /// The passphrase chosen for something new cannot be used.
    #[error("the new passphrase for {what} cannot be used: {why}")]
    BadPassphrase {
        /// `the keyring`, `the root keyring`, `key <id>`.
        what: String,
        /// It is empty, or not UTF-8.
        why: &'static str,
    },
    /// Another program changed the file between our reading and our writing.
    #[error("{} was changed by another program meanwhile; nothing was written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The person, or nobody, answered.
    #[error("no secret for it")]
    NoSecret(#[from] NoSecret),
    /// Structure broken.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is broken.
        why: String,
    },
    /// Here already, under another role or GUN.
    #[error("key {id} is here already, as {role}")]
    Exists {
        /// The key.
        id: KeyId,
        /// Its role and GUN here.
        role: String,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// `read`, `write`, `remove`, `sync`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An imported or stored key file cannot be used.
    #[error("cannot open {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyFileError,
    },
    /// One keyring is missing beside existing keys.
    #[error("{} is missing although keys/ holds keys", path.display())]
    KeyringMissing {
        /// The missing file.
        path: PathBuf,
    },
    /// Needs a secret, and nobody was there to give it.
    #[error("{what} is locked")]
    Locked {
        /// `the keyring`, `the root keyring`, `key <id>`.
        what: String,
    },
    /// No such key here.
    #[error("no key {0} here")]
    NotFound(KeyId),
    /// The signature did not verify: the file's key is not the one it claims to be.
    #[error("the signature by key {0} does not verify")]
    Unverified(KeyId),
    /// Too many wrong answers of late; this one was not looked at.
    #[error("too many wrong passphrases for {what}: the next one is looked at in {} s", wait.as_secs_f32().ceil())]
    TooManyWrong {
        /// `the keyring`, `the root keyring`, `key <id>`.
        what: String,
        /// How long until another answer is looked at.
        wait: Duration,
    },
    /// This store cannot do that.
    #[error("{0}")]
    Unsupported(String),
    /// The file parses to another key than its name says.
    #[error("{} holds key {found}, not the key that its name says", path.display())]
    WrongId {
        /// The file.
        path: PathBuf,
        /// ID of what is in it.
        found: KeyId,
    },
    /// All answers were wrong.
    #[error("wrong passphrase for {what}")]
    WrongPassphrase {
        /// `the keyring`, `the root keyring`, `key <id>`.
        what: String,
        /// For Docker's format: or the file is damaged.
        or_damaged: bool,
    },
}

impl StoreError {
    /// What the person can do about it, if that is not obvious from the message.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Card(fault) => return fault.fix(),
            Self::Damaged { path, .. } | Self::WrongId { path, .. } => format!(
                "put {} back from a backup; other keys are not affected",
                path.display()
            ),
            Self::KeyringMissing { path } => format!(
                "put {} back from a backup; without it the keys encrypted to it cannot be opened, \
                 and a new one would not open them",
                path.display()
            ),
            Self::Locked { what } if what.contains("root") => {
                "give its passphrase when asked, or by --passphrase-fd root:N or \
                 SIGNET_ROOT_PASSPHRASE_FILE"
                    .to_owned()
            }
            Self::Locked { what } if what.contains("keyring") => {
                "run `signet unlock`, or give its passphrase by --passphrase-fd keyring:N or \
                 SIGNET_PASSPHRASE_FILE"
                    .to_owned()
            }
            Self::TooManyWrong { .. } => {
                "wait that long; somebody, or something, gave wrong ones again and again".to_owned()
            }
            Self::WrongPassphrase {
                or_damaged: true, ..
            } => {
                "try again; if the passphrase is right, put the file back from a backup".to_owned()
            }
            _ => return None,
        })
    }
}
