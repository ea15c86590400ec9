//! Docker's and notary's PEM key files: strict writer, tolerant reader.
//!
//! Written: exactly Go's bytes (PKCS#8 with ECDSA version 1, RSA without NULL, Ed25519 under its
//! private OID; PBES2 with PBKDF2-HMAC-SHA1, 2048 rounds, AES-256-CBC), but for salt and IV. Read:
//! that, plain PKCS#8, SEC1, PKCS#1, notary's Ed25519, and RFC 1421 encryption.
//!
//! The format has no integrity check and names no key: whoever opens a file compares the ID of
//! what comes out with the file name ([`KeyFile::check_id`]).

mod crypt;
mod der;
mod legacy;
mod pem;
mod plain;
mod public;

use zeroize::Zeroizing;

use self::{
    crypt::{Pbes2, Prf},
    plain::{Broken, Tail},
};
pub use self::{
    legacy::{LegacyName, legacy_name},
    public::{PublicFile, parse_public_pem},
};
use crate::{
    key::{KeyError, KeyId},
    private::PrivateKey,
};

/// A key file is some hundred bytes; RSA of 16,384 bits stays below 16 KiB.
const MAX_FILE: usize = 64 << 10;
/// Thousands of keys.
const MAX_BUNDLE: usize = 16 << 20;

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
    #[error("there is no key in it")]
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
        write!(
            f,
            "KeyFile({}, role {:?}, gun {:?})",
            self.label, self.role, self.gun
        )
    }
}

impl KeyFile {
    /// Reads the first private-key block.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::NoKey`], [`KeyFileError::Damaged`], [`KeyFileError::TooLarge`].
    pub fn parse(pem: &[u8]) -> Result<Self, KeyFileError> {
        let mut all = Self::read(pem, MAX_FILE)?;
        Ok(all.swap_remove(0))
    }

    /// Reads every block of an export bundle (at most 16 MiB).
    ///
    /// # Errors
    ///
    /// As [`KeyFile::parse`].
    pub fn parse_all(pem: &[u8]) -> Result<Vec<Self>, KeyFileError> {
        Self::read(pem, MAX_BUNDLE)
    }

    /// At least one, or an error.
    fn read(text: &[u8], limit: usize) -> Result<Vec<Self>, KeyFileError> {
        if text.len() > limit {
            return Err(KeyFileError::TooLarge(text.len()));
        }
        if text.is_empty() {
            return Err(KeyFileError::Damaged("it is empty"));
        }
        let blocks = pem::blocks(text)?;
        if blocks.is_empty() && std::str::from_utf8(text).is_err() {
            return Err(KeyFileError::Damaged(
                "it is not a text file, but PEM is wanted",
            ));
        }
        let files: Vec<_> = blocks
            .into_iter()
            .filter(|block| block.label.ends_with("PRIVATE KEY"))
            .map(Self::of_block)
            .collect::<Result<_, _>>()?;
        if files.is_empty() {
            Err(KeyFileError::NoKey)
        } else {
            Ok(files)
        }
    }

    fn of_block(block: pem::Block) -> Result<Self, KeyFileError> {
        if block.body.len() > MAX_FILE {
            return Err(KeyFileError::TooLarge(block.body.len()));
        }
        let mut headers = block.headers;
        let mut take = |wanted: &str| {
            let at = headers.iter().position(|(name, _)| name == wanted)?;
            Some(headers.swap_remove(at).1).filter(|value| !value.is_empty())
        };
        let (role, gun, path) = (take("role"), take("gun"), take("path"));
        Ok(Self {
            role,
            gun,
            path,
            label: block.label,
            headers,
            der: block.body,
        })
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a passphrase is needed.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.label == "ENCRYPTED PRIVATE KEY" || self.is_rfc1421()
    }

    fn is_rfc1421(&self) -> bool {
        self.header("DEK-Info").is_some()
            || self
                .header("Proc-Type")
                .is_some_and(|kind| kind.ends_with("ENCRYPTED"))
    }

    /// False for a PBES2 file that declares another PRF than HMAC-SHA1, as OpenSSL writes by
    /// default: it opens here, but docker and notary can never open it.
    #[must_use]
    pub fn declared_prf_is_sha1(&self) -> bool {
        self.label != "ENCRYPTED PRIVATE KEY"
            || Pbes2::parse(&self.der).map_or(true, |pbes2| pbes2.prf == Prf::Sha1)
    }

    /// PBKDF2 rounds that opening it takes, where it is PBES2: what a caller with little time looks
    /// at first.
    #[must_use]
    pub fn rounds(&self) -> Option<u32> {
        let encrypted = self.label == "ENCRYPTED PRIVATE KEY";
        encrypted
            .then(|| Pbes2::parse(&self.der).ok())
            .flatten()
            .map(|pbes2| pbes2.rounds)
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::NeedsPassphrase`] when encrypted and none given,
    /// [`KeyFileError::WrongPassphrase`], [`KeyFileError::Damaged`],
    /// [`KeyFileError::UnsupportedEncryption`].
    pub fn open(&self, passphrase: Option<&[u8]>) -> Result<PrivateKey, KeyFileError> {
        if self.label == "ENCRYPTED PRIVATE KEY" {
            // The structure first: nobody is asked for a passphrase that could not help.
            let pbes2 = Pbes2::parse(&self.der)?;
            let passphrase = passphrase.ok_or(KeyFileError::NeedsPassphrase)?;
            let open = |prf| plain::pkcs8(&pbes2.decrypt(prf, passphrase), Tail::Padding);
            return match open(pbes2.prf) {
                // What Go does with it, whatever it declares.
                Err(Broken::Structure(_)) if pbes2.prf != Prf::Sha1 => open(Prf::Sha1),
                result => result,
            }
            .map_err(behind_passphrase);
        }
        if !self.is_rfc1421() {
            return self.content(&self.der, Tail::None).map_err(in_clear);
        }
        let dek_info = self.header("DEK-Info").ok_or(KeyFileError::Damaged(
            "it is encrypted but has no DEK-Info header",
        ))?;
        let plaintext = crypt::rfc1421_decrypt(dek_info, &self.der, passphrase)?;
        self.content(&plaintext, Tail::Padding)
            .map_err(behind_passphrase)
    }

    fn content(&self, bytes: &[u8], tail: Tail) -> Result<PrivateKey, Broken> {
        match self.label.as_str() {
            "PRIVATE KEY" => plain::pkcs8(bytes, tail),
            "EC PRIVATE KEY" => plain::sec1(bytes, tail),
            "RSA PRIVATE KEY" => plain::pkcs1(bytes, tail),
            "ED25519 PRIVATE KEY" => plain::ed25519(bytes, tail),
            // Bounded: the label is a line of the file.
            other => Err(Broken::Key(KeyError::Unsupported(format!(
                "a block of type {:?}",
                other.chars().take(40).collect::<String>()
            )))),
        }
    }

    /// The block as PEM again, its content untouched, headers in the order of Go. The fields
    /// `role`, `gun` and `path` are written as they are now.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        for (name, value) in [
            ("role", &self.role),
            ("gun", &self.gun),
            ("path", &self.path),
        ] {
            if let Some(value) = value {
                headers.push((name, value));
            }
        }
        pem::write(&self.label, &headers, &self.der)
    }

    /// Checks that an opened key is the one its file name claims.
    ///
    /// # Errors
    ///
    /// The ID found.
    pub fn check_id(key: &PrivateKey, expected: &KeyId) -> Result<(), KeyId> {
        let found = key.id();
        if found == *expected {
            Ok(())
        } else {
            Err(found)
        }
    }
}

/// A plaintext that does not parse tells of a wrong passphrase.
fn behind_passphrase(broken: Broken) -> KeyFileError {
    match broken {
        Broken::Key(error @ KeyError::Unsupported(_)) => KeyFileError::Key(error),
        Broken::Structure(_) | Broken::Key(_) => KeyFileError::WrongPassphrase,
    }
}

fn in_clear(broken: Broken) -> KeyFileError {
    match broken {
        Broken::Structure(fault) => KeyFileError::Damaged(fault),
        Broken::Key(error) => KeyFileError::Key(error),
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

/// `gun` belongs to the keys of base roles other than root only (notary `trustmanager`).
fn headers<'a>(role: &'a str, gun: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let gun = gun.filter(|_| matches!(role, "targets" | "snapshot" | "timestamp"));
    let role = (!role.is_empty()).then_some(("role", role));
    role.into_iter()
        .chain(gun.map(|gun| ("gun", gun)))
        .collect()
}

/// Writes an encrypted key file as Go does. Roles: `gun` is dropped unless the role is one of
/// targets, snapshot, timestamp (notary `trustmanager/keystore.go`).
#[must_use]
pub fn write_encrypted(
    key: &PrivateKey,
    role: &str,
    gun: Option<&str>,
    passphrase: &[u8],
    nonces: Nonces,
) -> Zeroizing<String> {
    let der = crypt::pbes2_encrypt(&plain::encode_pkcs8(key), passphrase, &nonces);
    pem::write("ENCRYPTED PRIVATE KEY", &headers(role, gun), &der)
}

/// Writes an unencrypted `PRIVATE KEY` block with the same headers: the plaintext of the native
/// store.
#[must_use]
pub fn write_plain(key: &PrivateKey, role: &str, gun: Option<&str>) -> Zeroizing<String> {
    pem::write(
        "PRIVATE KEY",
        &headers(role, gun),
        &plain::encode_pkcs8(key),
    )
}

/// Writes an export bundle: each key's block with a `path` header that names it, which is what
/// `notary key import` and `docker trust key load` look for. Contents stay as they are encrypted.
#[must_use]
pub fn write_bundle(keys: &[(KeyId, &KeyFile)]) -> Zeroizing<String> {
    let mut blocks = Vec::with_capacity(keys.len());
    for (id, file) in keys {
        let named = KeyFile {
            path: Some(id.to_string()),
            role: file.role.clone(),
            gun: file.gun.clone(),
            label: file.label.clone(),
            headers: file.headers.clone(),
            der: file.der.clone(),
        };
        blocks.push(named.to_pem());
    }
    let mut bundle = Zeroizing::new(String::with_capacity(
        blocks.iter().map(|block| block.len()).sum(),
    ));
    for block in &blocks {
        bundle.push_str(block);
    }
    bundle
}
