//! Private keys: made, held for a moment, wiped.

use std::fmt;

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use p384::ecdsa::signature::hazmat::PrehashSigner;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::key::{Algorithm, KeyError, KeyId, KeyType, PublicKey, Spki, ec_spki, rsa_spki};

/// A private key and its public half.
///
/// The material is what [`sign_with`] takes: the big-endian scalar (P-256: 32 bytes, P-384: 48),
/// the Ed25519 seed (32 bytes), or the DER of PKCS#1 `RSAPrivateKey`. Wiped on drop.
pub struct PrivateKey {
    algorithm: Algorithm,
    material: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, {})", self.algorithm, self.public.id())
    }
}

impl PrivateKey {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    ///
    /// When the system has no randomness, or the size is unsupported.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        if let Algorithm::Rsa(bits) = algorithm {
            return Self::from_material(algorithm, generate_rsa(bits)?);
        }
        let size = fixed_len(algorithm).expect("only RSA has no fixed length");
        // A random scalar is out of range about once in 2^32 times (P-256); then another is drawn.
        for _ in 0..MAX_DRAWS {
            let mut material = Zeroizing::new(vec![0; size]);
            getrandom::fill(&mut material)
                .map_err(|_| KeyError::Unsupported("a system without randomness".to_owned()))?;
            if let Ok(key) = Self::from_material(algorithm, material) {
                return Ok(key);
            }
        }
        Err(KeyError::Unsupported(
            "a system whose randomness is not random".to_owned(),
        ))
    }

    /// Takes material as described on the type, and computes the public half.
    ///
    /// # Errors
    ///
    /// When the material is not a key of this algorithm.
    pub fn from_material(
        algorithm: Algorithm,
        material: Zeroizing<Vec<u8>>,
    ) -> Result<Self, KeyError> {
        check_len(algorithm, &material)?;
        let public = match algorithm {
            Algorithm::P256 => {
                let key = p256::SecretKey::from_slice(&material).map_err(|_| NOT_A_SCALAR)?;
                PublicKey::new(KeyType::Ecdsa, ec_spki(&key.public_key().to_sec1_bytes()))
            }
            Algorithm::P384 => {
                let key = p384::SecretKey::from_slice(&material).map_err(|_| NOT_A_SCALAR)?;
                PublicKey::new(KeyType::Ecdsa, ec_spki(&key.public_key().to_sec1_bytes()))
            }
            Algorithm::Ed25519 => {
                let key = Ed25519KeyPair::from_seed_unchecked(&material)
                    .map_err(|_| KeyError::Malformed("an Ed25519 seed has 32 bytes"))?;
                PublicKey::new(KeyType::Ed25519, key.public_key().as_ref().to_vec())
            }
            Algorithm::Rsa(bits) => {
                let key = RsaKeyPair::from_der(&material).map_err(|_| NOT_RSA)?;
                let public = PublicKey::new(KeyType::Rsa, rsa_spki(key.public_key().as_ref()));
                if public.algorithm()? != Algorithm::Rsa(bits) {
                    return Err(KeyError::Malformed("it has another number of bits"));
                }
                public
            }
        };
        Ok(Self {
            algorithm,
            material,
            public,
        })
    }

    /// What kind of key it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The secret itself, in the form described on the type.
    #[must_use]
    pub fn expose_material(&self) -> &[u8] {
        &self.material
    }

    /// The bare public key.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// ID of the bare public key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// Signs as the documents encode it; see [`sign_with`].
    ///
    /// # Errors
    ///
    /// When the primitive refuses the key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        sign_with(self.algorithm, &self.material, &self.public, message)
    }

    /// Signs a certificate; see [`sign_certificate_with`].
    ///
    /// # Errors
    ///
    /// When the primitive refuses the key.
    pub fn sign_certificate(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, KeyError> {
        sign_certificate_with(self.algorithm, &self.material, &self.public, to_be_signed)
    }
}

/// Signs with material that lives elsewhere (in locked memory), without copying it.
///
/// `public` is the bare public key that belongs to it. The result is what documents hold: r‖s for
/// ECDSA over SHA-256, PSS with a salt of 32 bytes for RSA, 64 bytes for Ed25519.
///
/// # Errors
///
/// When the material is not a key of this algorithm, or not of this public key.
pub fn sign_with(
    algorithm: Algorithm,
    material: &[u8],
    public: &PublicKey,
    message: &[u8],
) -> Result<Vec<u8>, KeyError> {
    check_len(algorithm, material)?;
    match algorithm {
        Algorithm::P256 => {
            let Spki::P256(point) = public.spki()? else {
                return Err(OTHER_KEY);
            };
            let sec1 = p256_sec1(material, point).ok_or(OTHER_KEY)?;
            let key =
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &sec1[..])
                    .map_err(|_| OTHER_KEY)?;
            let signature = key
                .sign(&SystemRandom::new(), message)
                .map_err(|_| KeyError::BadSignature)?;
            Ok(signature.as_ref().to_vec())
        }
        Algorithm::P384 => {
            let key = p384::SecretKey::from_slice(material).map_err(|_| NOT_A_SCALAR)?;
            if public.public() != ec_spki(&key.public_key().to_sec1_bytes()) {
                return Err(OTHER_KEY);
            }
            let signature: p384::ecdsa::Signature = p384::ecdsa::SigningKey::from(&key)
                .sign_prehash(&Sha256::digest(message))
                .map_err(|_| KeyError::BadSignature)?;
            Ok(signature.to_bytes().to_vec())
        }
        Algorithm::Ed25519 => {
            let key = Ed25519KeyPair::from_seed_and_public_key(material, public.public())
                .map_err(|_| OTHER_KEY)?;
            Ok(key.sign(message).as_ref().to_vec())
        }
        Algorithm::Rsa(_) => sign_rsa(&RSA_PSS_SHA256, material, public, message),
    }
}

/// Signs the body of a certificate: as [`sign_with`], but RSA with PKCS#1 v1.5, which is what
/// `sha256WithRSAEncryption` means (RFC 4055 §5).
///
/// # Errors
///
/// When the material is not a key of this algorithm, or not of this public key.
pub fn sign_certificate_with(
    algorithm: Algorithm,
    material: &[u8],
    public: &PublicKey,
    to_be_signed: &[u8],
) -> Result<Vec<u8>, KeyError> {
    match algorithm {
        Algorithm::Rsa(_) => sign_rsa(&RSA_PKCS1_SHA256, material, public, to_be_signed),
        _ => sign_with(algorithm, material, public, to_be_signed),
    }
}

/// Bytes of material, where the algorithm says.
fn fixed_len(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::P256 | Algorithm::Ed25519 => Some(32),
        Algorithm::P384 => Some(48),
        Algorithm::Rsa(_) => None,
    }
}

/// The curve crates would pad a short number; a short number here is a damaged one.
fn check_len(algorithm: Algorithm, material: &[u8]) -> Result<(), KeyError> {
    match fixed_len(algorithm) {
        Some(len) if len != material.len() => Err(KeyError::Malformed(
            "the private number has the wrong length",
        )),
        _ => Ok(()),
    }
}

fn sign_rsa(
    encoding: &'static dyn RsaEncoding,
    material: &[u8],
    public: &PublicKey,
    message: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let key = RsaKeyPair::from_der(material).map_err(|_| NOT_RSA)?;
    if public.public() != rsa_spki(key.public_key().as_ref()) {
        return Err(OTHER_KEY);
    }
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| KeyError::BadSignature)?;
    Ok(signature)
}

/// ECPrivateKey of a P-256 key (RFC 5915), with its public point. The primitive reads this in half
/// the time that the bare numbers take, and checks as well that the two belong together.
fn p256_sec1(scalar: &[u8], point: &[u8]) -> Option<Zeroizing<[u8; 121]>> {
    const HEAD: &[u8] = b"\x30\x77\x02\x01\x01\x04\x20";
    const CURVE_AND_POINT: &[u8] =
        b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00";
    if scalar.len() != 32 || point.len() != 65 {
        return None;
    }
    let mut der = Zeroizing::new([0; 121]);
    let mut rest = &mut der[..];
    for part in [HEAD, scalar, CURVE_AND_POINT, point] {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    Some(der)
}

/// PKCS#1 of a new RSA key.
fn generate_rsa(bits: u32) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(KeyError::Unsupported(format!("RSA with {bits} bits"))),
    };
    let failed = || KeyError::Unsupported("RSA key generation".to_owned());
    let pkcs8 = RsaKeyPair::generate(size)
        .and_then(|key| AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key))
        .map_err(|_| failed())?;
    // PrivateKeyInfo ends with the OCTET STRING that holds PKCS#1: a SEQUENCE with a length of two
    // bytes, preceded by a header of four bytes, after 22 bytes of version and algorithm.
    let pkcs1 = pkcs8.as_ref().get(PKCS8_RSA_HEADER..).ok_or_else(failed)?;
    Ok(Zeroizing::new(pkcs1.to_vec()))
}

/// Bytes before PKCS#1 in PKCS#8 of an RSA key of 2048 bits or more: `30 82 LL LL`, version
/// (3 bytes), rsaEncryption with NULL (15 bytes), `04 82 LL LL` (RFC 5208 §5).
const PKCS8_RSA_HEADER: usize = 26;
const MAX_DRAWS: usize = 8;
const NOT_A_SCALAR: KeyError = KeyError::Malformed("the private number is out of range");
const NOT_RSA: KeyError = KeyError::Malformed("it is not an RSA private key");
const OTHER_KEY: KeyError =
    KeyError::Malformed("the private key does not belong to the public one");

#[cfg(test)]
mod tests;
