//! Public keys, key IDs and signatures.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p384::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::{Digest, Sha256};

use crate::{cert::Certificate, json};

mod spki;

pub(crate) use spki::{Spki, ec_spki, rsa_spki};

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
        match self {
            Self::Ecdsa => "ecdsa",
            Self::EcdsaX509 => "ecdsa-x509",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::RsaX509 => "rsa-x509",
        }
    }

    /// The inverse of [`KeyType::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "ecdsa" => Self::Ecdsa,
            "ecdsa-x509" => Self::EcdsaX509,
            "ed25519" => Self::Ed25519,
            "rsa" => Self::Rsa,
            "rsa-x509" => Self::RsaX509,
            _ => return None,
        })
    }

    /// Whether the public part is a certificate.
    #[must_use]
    pub fn is_x509(self) -> bool {
        matches!(self, Self::EcdsaX509 | Self::RsaX509)
    }
}

impl Method {
    /// `ecdsa`, `eddsa`, `rsapss`, `rsapkcs1v15`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Eddsa => "eddsa",
            Self::RsaPss => "rsapss",
            Self::RsaPkcs1v15 => "rsapkcs1v15",
        }
    }

    /// The inverse of [`Method::as_str`]; upper case is taken too, as Go does.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ecdsa, Self::Eddsa, Self::RsaPss, Self::RsaPkcs1v15]
            .into_iter()
            .find(|method| method.as_str().eq_ignore_ascii_case(name))
    }
}

impl Algorithm {
    /// `p256`, `p384`, `ed25519`; for RSA `rsa2048` and so on.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::P256 => "p256".to_owned(),
            Self::P384 => "p384".to_owned(),
            Self::Rsa(bits) => format!("rsa{bits}"),
            Self::Ed25519 => "ed25519".to_owned(),
        }
    }

    /// The inverse of [`Algorithm::name`], for RSA 2048, 3072 and 4096 only.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "p256" => Self::P256,
            "p384" => Self::P384,
            "ed25519" => Self::Ed25519,
            "rsa2048" => Self::Rsa(2048),
            "rsa3072" => Self::Rsa(3072),
            "rsa4096" => Self::Rsa(4096),
            _ => return None,
        })
    }
}

impl PublicKey {
    /// A key of the documents. Nothing is checked: whether it is a key shows when it is used.
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
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    /// Appends [`PublicKey::canonical_json`].
    pub(crate) fn write_canonical(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"keytype\":");
        json::write_string(out, self.key_type.as_str());
        out.extend_from_slice(b",\"keyval\":{\"private\":null,\"public\":");
        json::write_base64(out, &self.public);
        out.extend_from_slice(b"}}");
    }

    /// SHA-256 of [`PublicKey::canonical_json`].
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::digest(self.canonical_json()).into())
    }

    /// The bare key inside a certificate; the key itself when it is bare already.
    ///
    /// # Errors
    ///
    /// When the certificate does not parse, or holds another type of key than it should.
    pub fn bare(&self) -> Result<Self, KeyError> {
        let wanted = match self.key_type {
            KeyType::EcdsaX509 => KeyType::Ecdsa,
            KeyType::RsaX509 => KeyType::Rsa,
            KeyType::Ecdsa | KeyType::Ed25519 | KeyType::Rsa => return Ok(self.clone()),
        };
        let bare = Certificate::from_pem(&self.public)?.public;
        if bare.key_type != wanted {
            return Err(KeyError::Malformed(
                "the certificate holds another type of key",
            ));
        }
        Ok(bare)
    }

    /// ID of the bare key: what key files are named by.
    ///
    /// # Errors
    ///
    /// When the certificate does not parse.
    pub fn canonical_id(&self) -> Result<KeyId, KeyError> {
        if self.key_type.is_x509() {
            Ok(self.bare()?.id())
        } else {
            Ok(self.id())
        }
    }

    /// What kind of key it is.
    ///
    /// # Errors
    ///
    /// When the key is malformed or of a kind Signet does not compute with.
    pub fn algorithm(&self) -> Result<Algorithm, KeyError> {
        if self.key_type.is_x509() {
            return self.bare()?.algorithm();
        }
        if self.key_type == KeyType::Ed25519 {
            return match self.public.len() {
                ED25519_LEN => Ok(Algorithm::Ed25519),
                _ => Err(KeyError::Malformed("an Ed25519 key has 32 bytes")),
            };
        }
        match self.spki()? {
            Spki::P256(_) => Ok(Algorithm::P256),
            Spki::P384(_) => Ok(Algorithm::P384),
            Spki::Rsa { bits, .. } => Ok(Algorithm::Rsa(bits)),
            Spki::Unsupported(name) => Err(KeyError::Unsupported(name.to_owned())),
        }
    }

    /// The method with which this key signs.
    #[must_use]
    pub fn method(&self) -> Method {
        match self.key_type {
            KeyType::Ecdsa | KeyType::EcdsaX509 => Method::Ecdsa,
            KeyType::Ed25519 => Method::Eddsa,
            KeyType::Rsa | KeyType::RsaX509 => Method::RsaPss,
        }
    }

    /// Verifies `signature` (encoded as documents hold it, see [`Method`]) over `message`.
    ///
    /// # Errors
    ///
    /// [`KeyError::BadSignature`] when it does not hold; RSA below 2048 bits is unsupported.
    pub fn verify(&self, method: Method, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        if self.key_type.is_x509() {
            return self.bare()?.verify(method, message, signature);
        }
        let check = |algorithm: &'static dyn VerificationAlgorithm, public: &[u8]| {
            UnparsedPublicKey::new(algorithm, public)
                .verify(message, signature)
                .map_err(|_| KeyError::BadSignature)
        };
        if self.key_type == KeyType::Ed25519 {
            return match method {
                Method::Eddsa => check(&ED25519, &self.public),
                _ => Err(KeyError::BadSignature),
            };
        }
        match (self.spki()?, method) {
            (Spki::P256(point), Method::Ecdsa) => check(&ECDSA_P256_SHA256_FIXED, point),
            (Spki::P384(point), Method::Ecdsa) => verify_p384(point, message, signature),
            (Spki::Rsa { bits, .. }, _) if bits < MIN_RSA => {
                Err(KeyError::Unsupported(format!("RSA with {bits} bits")))
            }
            (Spki::Rsa { pkcs1, .. }, Method::RsaPss) => check(&RSA_PSS_2048_8192_SHA256, pkcs1),
            (Spki::Rsa { pkcs1, .. }, Method::RsaPkcs1v15) => {
                check(&RSA_PKCS1_2048_8192_SHA256, pkcs1)
            }
            (Spki::Unsupported(name), _) => Err(KeyError::Unsupported(name.to_owned())),
            _ => Err(KeyError::BadSignature),
        }
    }

    /// `-----BEGIN PUBLIC KEY-----` of the bare key, SPKI (RFC 8410 for Ed25519).
    ///
    /// # Errors
    ///
    /// When the certificate does not parse.
    pub fn to_spki_pem(&self) -> Result<String, KeyError> {
        let bare = self.bare()?;
        let der = match bare.key_type {
            KeyType::Ed25519 => [ED25519_SPKI_PREFIX, &bare.public].concat(),
            _ => bare.public,
        };
        Ok(to_pem("PUBLIC KEY", &der))
    }

    /// The SPKI of a bare key that is not Ed25519, checked to be of the type that it claims.
    pub(crate) fn spki(&self) -> Result<Spki<'_>, KeyError> {
        let spki = Spki::parse(&self.public)?;
        let fits = match self.key_type {
            KeyType::Ecdsa => !matches!(spki, Spki::Rsa { .. }),
            KeyType::Rsa => matches!(spki, Spki::Rsa { .. }),
            _ => false,
        };
        if fits {
            Ok(spki)
        } else {
            Err(KeyError::Malformed("it is another type of key"))
        }
    }
}

/// ECDSA over P-384 with SHA-256, as notary signs on every curve.
fn verify_p384(point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point)
        .map_err(|_| KeyError::Malformed("the point is not on the curve"))?;
    let signature =
        p384::ecdsa::Signature::from_slice(signature).map_err(|_| KeyError::BadSignature)?;
    key.verify_prehash(&Sha256::digest(message), &signature)
        .map_err(|_| KeyError::BadSignature)
}

/// A PEM block as Go's encoder writes it: 64 columns, final line end.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// RFC 8032
pub(crate) const ED25519_LEN: usize = 32;
/// `SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING … }` (RFC 8410)
const ED25519_SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// Below this Go's client refuses to verify (notary `tuf/signed/verifiers.go`).
const MIN_RSA: u32 = 2048;

#[cfg(test)]
mod tests;
