//! Docker's and notary's PEM key files: strict writer, tolerant reader.
//!
//! Written: exactly Go's bytes (PKCS#8 with ECDSA version 1, RSA without NULL, Ed25519 under its
//! private OID; PBES2 with PBKDF2-HMAC-SHA1, 2048 rounds, AES-256-CBC), but for salt and IV. Read:
//! that, plain PKCS#8, SEC1, PKCS#1, notary's Ed25519, and RFC 1421 encryption.

use zeroize::Zeroizing;

use crate::{
    key::{KeyError, KeyId},
    private::PrivateKey,
};

/// One PEM block of a key file, not yet opened.
pub struct KeyFile {
    /// `role` header.
    pub role: Option<String>,
    /// `gun` header.
    pub gun: Option<String>,
    /// `path` header of an export bundle.
    pub path: Option<String>,
    label: String,
    headers: Vec<(String, String)>,
    der: Zeroizing<Vec<u8>>,
}

/// Why a key file cannot be read or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The structure is broken: not PEM, not DER, ciphertext of no whole blocks, …
    #[error("the key file is damaged: {0}")]
    Damaged(&'static str),
    /// A key that Signet does not compute with.
    #[error("the key is not usable")]
    Key(#[from] KeyError),
    /// It is encrypted and no passphrase was given.
    #[error("the key file is encrypted")]
    NeedsPassphrase,
    /// No key block in it at all.
    #[error("no private key in it")]
    NoKey,
    /// Larger than a key file can be (64 KiB).
    #[error("{0} bytes are too many for a key file")]
    TooLarge(usize),
    /// An encryption that docker and notary cannot open either.
    #[error("unsupported encryption: {0}")]
    UnsupportedEncryption(&'static str),
    /// The structure is sound but the content does not parse: Docker's format has no integrity check.
    #[error("wrong passphrase, or the file is damaged")]
    WrongPassphrase,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({}, role {:?}, gun {:?})", self.label, self.role, self.gun)
    }
}

impl KeyFile {
    /// Reads the first private-key block.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::NoKey`], [`KeyFileError::Damaged`], [`KeyFileError::TooLarge`].
    pub fn parse(pem: &[u8]) -> Result<Self, KeyFileError> {
        let _ = pem;
        todo!()
    }

    /// Reads every block of an export bundle (at most 16 MiB).
    ///
    /// # Errors
    ///
    /// As [`KeyFile::parse`].
    pub fn parse_all(pem: &[u8]) -> Result<Vec<Self>, KeyFileError> {
        let _ = pem;
        todo!()
    }

    /// Whether a passphrase is needed.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        todo!()
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::NeedsPassphrase`] when encrypted and none given,
    /// [`KeyFileError::WrongPassphrase`], [`KeyFileError::Damaged`],
    /// [`KeyFileError::UnsupportedEncryption`].
    pub fn open(&self, passphrase: Option<&[u8]>) -> Result<PrivateKey, KeyFileError> {
        let _ = passphrase;
        todo!()
    }

    /// Checks that an opened key is the one its file name claims.
    ///
    /// # Errors
    ///
    /// The ID found.
    pub fn check_id(key: &PrivateKey, expected: &KeyId) -> Result<(), KeyId> {
        let found = key.id();
        if found == *expected { Ok(()) } else { Err(found) }
    }
}

/// Salt and IV of an encrypted key, random for each writing.
#[derive(Clone, Copy, Debug)]
pub struct Nonces {
    /// PBKDF2 salt, 8 bytes.
    pub salt: [u8; 8],
    /// AES-CBC IV, 16 bytes.
    pub iv: [u8; 16],
}

/// Writes an encrypted key file as Go does. Roles: `gun` is dropped unless the role is one of
/// targets, snapshot, timestamp (§1.3).
#[must_use]
pub fn write_encrypted(
    key: &PrivateKey,
    role: &str,
    gun: Option<&str>,
    passphrase: &[u8],
    nonces: Nonces,
) -> Zeroizing<String> {
    let _ = (key, role, gun, passphrase, nonces);
    todo!()
}

/// Writes an unencrypted `PRIVATE KEY` block with the same headers: the plaintext of the native
/// store.
#[must_use]
pub fn write_plain(key: &PrivateKey, role: &str, gun: Option<&str>) -> Zeroizing<String> {
    let _ = (key, role, gun);
    todo!()
}
