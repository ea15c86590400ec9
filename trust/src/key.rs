//! Public keys, key IDs and signatures.

use std::{fmt, str::FromStr};

/// SHA-256 of the canonical JSON of a public key (notary `tuf/data/keys.go`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

/// A string that is not 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key ID (64 lower-case hex digits)")]
pub struct BadKeyId(pub String);

impl FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let bad = || BadKeyId(text.chars().take(80).collect());
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id).map_err(|_| bad())?;
        Ok(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The `keytype` member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// `ecdsa`: DER SubjectPublicKeyInfo.
    Ecdsa,
    /// `ecdsa-x509`: PEM text of a certificate (chain).
    EcdsaX509,
    /// `ed25519`: the raw 32 bytes.
    Ed25519,
    /// `rsa`: DER SubjectPublicKeyInfo.
    Rsa,
    /// `rsa-x509`: PEM text of a certificate (chain).
    RsaX509,
}

/// What a key can do arithmetic with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// NIST P-256, the default.
    P256,
    /// NIST P-384.
    P384,
    /// RSA with this many bits.
    Rsa(u32),
    /// Ed25519.
    Ed25519,
}

/// A public key as the documents hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    key_type: KeyType,
    public: Vec<u8>,
}

/// The `method` of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `ecdsa`: r‖s over SHA-256, for all curves.
    Ecdsa,
    /// `eddsa`: Ed25519 over the message itself.
    Eddsa,
    /// `rsapss`: PSS, SHA-256, MGF1-SHA-256, salt of 32 bytes.
    RsaPss,
    /// `rsapkcs1v15`: read, never written.
    RsaPkcs1v15,
}

/// A member of a document's `signatures`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// As the document's key list names the key: for root, the certificate's.
    pub key_id: KeyId,
    /// How it was made.
    pub method: Method,
    /// Raw bytes (base64 on the wire).
    pub bytes: Vec<u8>,
}

/// Why a public key or a signature is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The signature does not belong to this key and message.
    #[error("the signature does not verify")]
    BadSignature,
    /// The public part does not parse as its type says.
    #[error("the public key is malformed: {0}")]
    Malformed(&'static str),
    /// A curve, size or type that Signet does not compute with.
    #[error("{0} is not supported")]
    Unsupported(String),
}

impl KeyType {
    /// `ecdsa`, `ecdsa-x509`, `ed25519`, `rsa`, `rsa-x509`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        todo!()
    }

    /// The inverse of [`KeyType::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        todo!("{name}")
    }
}

impl Method {
    /// `ecdsa`, `eddsa`, `rsapss`, `rsapkcs1v15`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        todo!()
    }

    /// The inverse of [`Method::as_str`]; upper case is taken too, as Go does.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        todo!("{name}")
    }
}

impl Algorithm {
    /// `p256`, `p384`, `ed25519`; for RSA `rsa2048` and so on.
    #[must_use]
    pub fn name(self) -> String {
        todo!()
    }

    /// The inverse of [`Algorithm::name`], for RSA 2048, 3072 and 4096 only.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        todo!("{name}")
    }
}

impl PublicKey {
    /// A key of the documents: checks only that `public` is not larger than 64 KiB.
    #[must_use]
    pub fn new(key_type: KeyType, public: Vec<u8>) -> Self {
        Self { key_type, public }
    }

    /// The `keytype`.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The `public` bytes (base64 in the documents): SPKI DER, 32 raw bytes, or PEM text.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// `{"keytype":…,"keyval":{"private":null,"public":…}}`, as documents embed it.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        todo!()
    }

    /// SHA-256 of [`PublicKey::canonical_json`].
    #[must_use]
    pub fn id(&self) -> KeyId {
        todo!()
    }

    /// The bare key inside a certificate; the key itself when it is bare already.
    ///
    /// # Errors
    ///
    /// When the certificate does not parse.
    pub fn bare(&self) -> Result<Self, KeyError> {
        todo!()
    }

    /// ID of the bare key: what key files are named by.
    ///
    /// # Errors
    ///
    /// When the certificate does not parse.
    pub fn canonical_id(&self) -> Result<KeyId, KeyError> {
        Ok(self.bare()?.id())
    }

    /// What kind of key it is.
    ///
    /// # Errors
    ///
    /// When the key is malformed or of a kind Signet does not compute with.
    pub fn algorithm(&self) -> Result<Algorithm, KeyError> {
        todo!()
    }

    /// The method with which this key signs.
    #[must_use]
    pub fn method(&self) -> Method {
        todo!()
    }

    /// Verifies `signature` (encoded as in documents, §Method) over `message`.
    ///
    /// # Errors
    ///
    /// [`KeyError::BadSignature`] when it does not hold; RSA below 2048 bits is unsupported.
    pub fn verify(&self, method: Method, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let _ = (method, message, signature);
        todo!()
    }

    /// `-----BEGIN PUBLIC KEY-----` of the bare key, SPKI (RFC 8410 for Ed25519).
    ///
    /// # Errors
    ///
    /// When the certificate does not parse.
    pub fn to_spki_pem(&self) -> Result<String, KeyError> {
        todo!()
    }
}
