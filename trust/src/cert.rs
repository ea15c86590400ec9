//! Root certificates: the form in which root keys enter root documents.
//!
//! A root key is listed by the ID of a self-signed certificate whose CN is the GUN (notary
//! `tuf/utils/x509.go`). Readers check CN and validity, never the certificate's own signature.

use crate::{
    gun::Gun,
    key::{KeyError, PublicKey},
    time::UnixTime,
};

/// What readers look at in the leaf certificate of a root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Common name of the subject.
    pub common_name: String,
    /// Start of validity.
    pub not_before: UnixTime,
    /// End of validity.
    pub not_after: UnixTime,
    /// A CA certificate cannot be a leaf.
    pub is_ca: bool,
    /// Signed with SHA-1: refused by readers.
    pub is_sha1: bool,
    /// The bare key inside.
    pub public: PublicKey,
}

/// Why a certificate cannot stand for a root key of a GUN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// CA flag set, or several leaves.
    #[error("the certificate is not a single leaf: {0}")]
    NotALeaf(&'static str),
    /// CN is neither the GUN nor a `prefix*` of it.
    #[error("the certificate is for {found:?}, not for {wanted}")]
    OtherName {
        /// CN found.
        found: String,
        /// GUN wanted.
        wanted: Gun,
    },
    /// Past `not_after`, or more than a day before `not_before`.
    #[error("the certificate is not valid now")]
    OutOfDate,
    /// Not X.509, or a key that is not supported.
    #[error("the certificate cannot be read")]
    Unreadable(#[source] KeyError),
    /// SHA-1, or RSA below 2048 bits.
    #[error("the certificate is too weak: {0}")]
    Weak(&'static str),
}

impl Certificate {
    /// Reads the first certificate of a PEM bundle (leaf first).
    ///
    /// # Errors
    ///
    /// When it is not a PEM bundle of X.509 certificates of at most 64 KiB.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let _ = pem;
        todo!()
    }

    /// Whether this leaf may stand for a root key of `gun` now (notary `trustpinning`).
    ///
    /// # Errors
    ///
    /// With the first rule that it breaks.
    pub fn check(&self, gun: &Gun, now: UnixTime) -> Result<(), CertError> {
        let _ = (gun, now);
        todo!()
    }
}

/// A root certificate to be signed: exactly the template of the Go client, ten years from `now`.
#[derive(Clone, Debug)]
pub struct Template {
    /// DER of TBSCertificate: the bytes to sign.
    pub to_be_signed: Vec<u8>,
}

/// Prepares the certificate of `key` for `gun`: serial of 128 random bits, CN only, KeyUsage,
/// ExtKeyUsage codeSigning, BasicConstraints; `ecdsa-with-SHA256`, `sha256WithRSAEncryption`.
///
/// # Errors
///
/// For keys that cannot sign X.509 here (Ed25519: the Go client knows no such root).
pub fn template(
    gun: &Gun,
    key: &PublicKey,
    serial: [u8; 16],
    now: UnixTime,
) -> Result<Template, KeyError> {
    let _ = (gun, key, serial, now);
    todo!()
}

impl Template {
    /// Puts the signature in and gives the key as documents list it (`ecdsa-x509`, PEM).
    ///
    /// `signature` is in the documents' encoding (r‖s for ECDSA; for RSA the caller signs PKCS#1
    /// v1.5). It is verified.
    ///
    /// # Errors
    ///
    /// When the signature does not hold.
    pub fn finish(self, key: &PublicKey, signature: &[u8]) -> Result<PublicKey, KeyError> {
        let _ = (key, signature);
        todo!()
    }
}
