//! Root certificates: the form in which root keys enter root documents.
//!
//! A root key is listed by the ID of a self-signed certificate whose CN is the GUN (notary
//! `tuf/utils/x509.go`). Readers check CN and validity, never the certificate's own signature.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::{Decode, Tag, Tagged};
use x509_cert::{Certificate as X509, ext::pkix::BasicConstraints, spki::ObjectIdentifier};

use crate::{
    gun::Gun,
    key::{Algorithm, KeyError, KeyType, Method, PublicKey, to_pem},
    time::{Expiry, UnixTime},
};

pub(crate) mod der_write;

use der_write::{
    BIT_STRING, GENERALIZED_TIME, PRINTABLE_STRING, SEQUENCE, SET, UTC_TIME, UTF8_STRING, tlv,
    unsigned,
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
    /// The bundle holds certificates after this one that are no CAs: refused by readers.
    pub other_leaves: bool,
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
        let mut ders = pem_certificates(pem)?.into_iter();
        let first = ders
            .next()
            .ok_or(KeyError::Malformed("it holds no PEM certificate"))?;
        let mut leaf = Self::from_der(&first)?;
        for der in ders {
            leaf.other_leaves |= !is_ca(&parse(&der)?)?;
        }
        Ok(leaf)
    }

    /// Reads one certificate.
    ///
    /// # Errors
    ///
    /// When it is not X.509.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let certificate = parse(der)?;
        let body = certificate.tbs_certificate();
        let validity = body.validity();
        let seconds = |time: x509_cert::time::Time| {
            UnixTime::try_from(time.to_unix_duration().as_secs()).unwrap_or(UnixTime::MAX)
        };
        let spki = der::Encode::to_der(body.subject_public_key_info())
            .map_err(|_| KeyError::Malformed("its public key cannot be read"))?;
        let key_type = match body.subject_public_key_info().algorithm.oid {
            RSA_ENCRYPTION => KeyType::Rsa,
            EC_PUBLIC_KEY => KeyType::Ecdsa,
            _ => {
                return Err(KeyError::Unsupported(
                    "a certificate of this type of key".to_owned(),
                ));
            }
        };
        Ok(Self {
            common_name: common_name(body.subject()),
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            is_ca: is_ca(&certificate)?,
            is_sha1: SHA1_SIGNATURES.contains(&certificate.signature_algorithm().oid),
            other_leaves: false,
            public: PublicKey::new(key_type, spki),
        })
    }

    /// Whether this leaf may stand for a root key of `gun` now (notary `trustpinning`).
    ///
    /// # Errors
    ///
    /// With the first rule that it breaks.
    pub fn check(&self, gun: &Gun, now: UnixTime) -> Result<(), CertError> {
        self.check_form(gun)?;
        if now > self.not_after || self.not_before > now.saturating_add(MAX_SKEW) {
            return Err(CertError::OutOfDate);
        }
        Ok(())
    }

    /// [`Certificate::check`] without the dates, as is asked of the certificates of a root that was
    /// trusted before.
    ///
    /// # Errors
    ///
    /// With the first rule that it breaks.
    pub fn check_form(&self, gun: &Gun) -> Result<(), CertError> {
        if self.is_ca {
            return Err(CertError::NotALeaf("it is a certificate of a CA"));
        }
        if self.other_leaves {
            return Err(CertError::NotALeaf("several of them are in one key"));
        }
        let fits = match self.common_name.strip_suffix('*') {
            Some(prefix) => gun.as_str().starts_with(prefix),
            None => self.common_name == gun.as_str(),
        };
        if !fits {
            return Err(CertError::OtherName {
                found: self.common_name.clone(),
                wanted: gun.clone(),
            });
        }
        if self.is_sha1 {
            return Err(CertError::Weak("it is signed with SHA-1"));
        }
        match self.public.algorithm() {
            Ok(Algorithm::Rsa(..2048)) => Err(CertError::Weak("RSA below 2048 bits")),
            Ok(_) => Ok(()),
            Err(error) => Err(CertError::Unreadable(error)),
        }
    }
}

/// The DER of every `CERTIFICATE` block, other text around them ignored.
fn pem_certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, KeyError> {
    if pem.len() > MAX_BUNDLE {
        return Err(KeyError::Malformed("more than 64 KiB"));
    }
    let text = std::str::from_utf8(pem).map_err(|_| KeyError::Malformed("it is not PEM text"))?;
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let (body, after) = after
            .split_once("-----END CERTIFICATE-----")
            .ok_or(KeyError::Malformed("a PEM block has no end"))?;
        let body: String = body.split_ascii_whitespace().collect();
        found.push(
            STANDARD
                .decode(body)
                .map_err(|_| KeyError::Malformed("a PEM block is not base64"))?,
        );
        rest = after;
    }
    Ok(found)
}

fn parse(der: &[u8]) -> Result<X509, KeyError> {
    X509::from_der(der).map_err(|_| KeyError::Malformed("it is not an X.509 certificate"))
}

fn is_ca(certificate: &X509) -> Result<bool, KeyError> {
    certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>()
        .map(|found| found.is_some_and(|(_, constraints)| constraints.ca))
        .map_err(|_| KeyError::Malformed("its basic constraints cannot be read"))
}

/// The last common name (Go `pkix.Name.FillFromRDNSequence`), empty when there is none.
fn common_name(name: &x509_cert::name::Name) -> String {
    name.iter()
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .filter(|attribute| {
            matches!(
                attribute.value.tag(),
                Tag::PrintableString | Tag::Utf8String | Tag::Ia5String | Tag::TeletexString
            )
        })
        .filter_map(|attribute| std::str::from_utf8(attribute.value.value()).ok())
        .last()
        .unwrap_or_default()
        .to_owned()
}

/// A root certificate to be signed: exactly the template of the Go client, ten years from `now`.
#[derive(Clone, Debug)]
pub struct Template {
    /// DER of TBSCertificate: the bytes to sign.
    pub to_be_signed: Vec<u8>,
}

/// Prepares the certificate of `key` for `gun`: serial of 128 random bits, CN only, KeyUsage,
/// ExtKeyUsage codeSigning, BasicConstraints; `ecdsa-with-SHA256`, `sha256WithRSAEncryption`
/// (notary `cryptoservice/certificate.go` and `tuf/utils/x509.go`, `NewCertificate`).
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
    let (_, algorithm) = forms(key)?;
    let name = name(gun.as_str());
    let validity = tlv(SEQUENCE, &[&time(now), &time(now.saturating_add(LIFETIME))]);
    let to_be_signed = tlv(
        SEQUENCE,
        &[
            VERSION_3,
            &unsigned(&serial),
            algorithm,
            &name,
            &validity,
            &name,
            key.public(),
            EXTENSIONS,
        ],
    );
    Ok(Template { to_be_signed })
}

impl Template {
    /// Puts the signature in and gives the key as documents list it (`ecdsa-x509`, PEM).
    ///
    /// `signature` is what [`crate::private::sign_certificate_with`] makes: r‖s for ECDSA, PKCS#1
    /// v1.5 for RSA. It is verified.
    ///
    /// # Errors
    ///
    /// When the signature does not hold.
    pub fn finish(self, key: &PublicKey, signature: &[u8]) -> Result<PublicKey, KeyError> {
        let (listed_as, algorithm) = forms(key)?;
        let bits = match listed_as {
            KeyType::EcdsaX509 => {
                key.verify(Method::Ecdsa, &self.to_be_signed, signature)?;
                let (r, s) = signature.split_at(signature.len() / 2);
                tlv(SEQUENCE, &[&unsigned(r), &unsigned(s)])
            }
            _ => {
                key.verify(Method::RsaPkcs1v15, &self.to_be_signed, signature)?;
                signature.to_vec()
            }
        };
        let der = tlv(
            SEQUENCE,
            &[
                &self.to_be_signed,
                algorithm,
                &tlv(BIT_STRING, &[&[0], &bits]),
            ],
        );
        Ok(PublicKey::new(
            listed_as,
            to_pem("CERTIFICATE", &der).into_bytes(),
        ))
    }
}

/// How documents list a certificate of this key, and its AlgorithmIdentifier.
fn forms(key: &PublicKey) -> Result<(KeyType, &'static [u8]), KeyError> {
    match key.algorithm()? {
        Algorithm::P256 | Algorithm::P384 => Ok((KeyType::EcdsaX509, ECDSA_WITH_SHA256)),
        Algorithm::Rsa(_) => Ok((KeyType::RsaX509, SHA256_WITH_RSA)),
        Algorithm::Ed25519 => Err(KeyError::Unsupported(
            "an Ed25519 key as a root key".to_owned(),
        )),
    }
}

/// `CN=<text>`, a PrintableString when the text can be one (Go `encoding/asn1`).
fn name(text: &str) -> Vec<u8> {
    let printable = text.bytes().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'\''..=b')' | b'+'..=b'/' | b' ' | b':' | b'=' | b'?')
    });
    let tag = if printable {
        PRINTABLE_STRING
    } else {
        UTF8_STRING
    };
    let attribute = tlv(SEQUENCE, &[OID_COMMON_NAME, &tlv(tag, &[text.as_bytes()])]);
    tlv(SEQUENCE, &[&tlv(SET, &[&attribute])])
}

/// UTCTime up to 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5).
fn time(at: UnixTime) -> Vec<u8> {
    let text = Expiry::at(at);
    let digits: Vec<u8> = text
        .as_str()
        .bytes()
        .filter(|byte| byte.is_ascii_digit() || *byte == b'Z')
        .collect();
    if (&b"1950"[..]..&b"2050"[..]).contains(&&digits[..4]) {
        tlv(UTC_TIME, &[&digits[2..]])
    } else {
        tlv(GENERALIZED_TIME, &[&digits])
    }
}

/// `[0] { INTEGER 2 }`
const VERSION_3: &[u8] = b"\xa0\x03\x02\x01\x02";
/// 2.5.4.3
const OID_COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
/// `SEQUENCE { 1.2.840.10045.4.3.2 }` (RFC 5758 §3.2)
const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// `SEQUENCE { 1.2.840.113549.1.1.11, NULL }` (RFC 4055 §5)
const SHA256_WITH_RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
/// `[3] { SEQUENCE { keyUsage critical digitalSignature+keyEncipherment, extKeyUsage codeSigning,
/// basicConstraints critical {} } }`
const EXTENSIONS: &[u8] = b"\xa3\x35\x30\x33\
    \x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x05\xa0\
    \x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x03\
    \x30\x0c\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x02\x30\x00";

const DAY: UnixTime = 24 * 60 * 60;
/// Ten years of 365 days (notary `tuf/utils/x509.go`).
const LIFETIME: UnixTime = 3650 * DAY;
/// How far a clock may be behind (notary `tuf/utils/x509.go`, `ValidateCertificate`).
const MAX_SKEW: UnixTime = DAY;
const MAX_BUNDLE: usize = 64 << 10;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// sha1WithRSAEncryption, dsa-with-sha1, ecdsa-with-SHA1, and the two old names of the first
/// (RFC 3279 §2.2).
const SHA1_SIGNATURES: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
    ObjectIdentifier::new_unwrap("1.3.14.3.2.29"),
];

#[cfg(test)]
mod tests;
