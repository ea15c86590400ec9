//! SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), as far as Notary's keys go.

use der::{Decode, Reader, asn1::UintRef};
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::KeyError;

/// What a SubjectPublicKeyInfo holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spki<'a> {
    /// Uncompressed point, 65 bytes.
    P256(&'a [u8]),
    /// Uncompressed point, 97 bytes.
    P384(&'a [u8]),
    /// PKCS#1 `RSAPublicKey`.
    Rsa {
        /// Bits of the modulus.
        bits: u32,
        /// DER.
        pkcs1: &'a [u8],
    },
    /// Something that has a name and a key ID, and with which nothing is computed here.
    Unsupported(&'static str),
}

impl<'a> Spki<'a> {
    /// Reads DER.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, KeyError> {
        let malformed = |_| KeyError::Malformed("it is not a SubjectPublicKeyInfo");
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(KeyError::Malformed("its bits are not whole bytes"))?;
        match info.algorithm.oid {
            EC_PUBLIC_KEY => {
                let curve = info
                    .algorithm
                    .parameters
                    .and_then(|any| any.decode_as::<ObjectIdentifier>().ok())
                    .ok_or(KeyError::Malformed("it names no curve"))?;
                let point = |len: usize| match key {
                    [4, ..] if key.len() == len => Ok(key),
                    _ => Err(KeyError::Malformed("the point is not an uncompressed one")),
                };
                Ok(match curve {
                    P256 => Self::P256(point(65)?),
                    P384 => Self::P384(point(97)?),
                    P224 => Self::Unsupported("the curve P-224"),
                    P521 => Self::Unsupported("the curve P-521"),
                    _ => Self::Unsupported("a curve that is none of NIST's"),
                })
            }
            RSA_ENCRYPTION => {
                let bits = rsa_bits(key).map_err(|_| {
                    KeyError::Malformed("it does not hold an RSA modulus and exponent")
                })?;
                Ok(Self::Rsa { bits, pkcs1: key })
            }
            _ => Ok(Self::Unsupported("a key that is neither EC nor RSA")),
        }
    }
}

fn rsa_bits(pkcs1: &[u8]) -> der::Result<u32> {
    let mut reader = der::SliceReader::new(pkcs1)?;
    let modulus = reader.sequence(|inner| {
        let modulus = UintRef::decode(inner)?;
        UintRef::decode(inner)?;
        Ok::<_, der::Error>(modulus.as_bytes())
    })?;
    reader.finish()?;
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    // `der` bounds lengths to 2^28, so that the bits fit.
    Ok(u32::try_from(modulus.len() * 8).unwrap_or(u32::MAX) - unused)
}

/// The SPKI of an uncompressed point of P-256 (65 bytes) or P-384 (97 bytes).
pub(crate) fn ec_spki(point: &[u8]) -> Vec<u8> {
    let prefix: &[u8] = match point.len() {
        65 => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        _ => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
    };
    [prefix, point].concat()
}

/// The SPKI of a PKCS#1 `RSAPublicKey`, with the NULL that RFC 3279 §2.3.1 wants.
pub(crate) fn rsa_spki(pkcs1: &[u8]) -> Vec<u8> {
    use crate::cert::der_write::{BIT_STRING, SEQUENCE, tlv};

    tlv(SEQUENCE, &[RSA_ALGORITHM, &tlv(BIT_STRING, &[&[0], pkcs1])])
}

/// `SEQUENCE { rsaEncryption, NULL }`
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// RFC 3279 §2.3.5
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P224: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.33");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
/// RFC 8017 appendix C
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
