//! Private keys in slots: what they are, how they come to be, and what they compute.

mod rsa_key;

use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;

use self::rsa_key::RsaKey;
use crate::apdu::Status;
use crate::der;
use crate::firmware::Firmware;
use crate::tlv;

/// An algorithm of keys in slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// RSA with this many bits.
    Rsa(usize),
    /// ECDSA and ECDH over P-256.
    P256,
    /// ECDSA and ECDH over P-384.
    P384,
    /// Ed25519, the message itself signed.
    Ed25519,
}

impl Algorithm {
    /// The algorithm with this number in P1 (SP 800-78-4 table 6-2, and Yubico's additions).
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0x05 => Self::Rsa(3072),
            0x06 => Self::Rsa(1024),
            0x07 => Self::Rsa(2048),
            0x16 => Self::Rsa(4096),
            0x11 => Self::P256,
            0x14 => Self::P384,
            0xe0 => Self::Ed25519,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Rsa(1024) => 0x06,
            Self::Rsa(3072) => 0x05,
            Self::Rsa(4096) => 0x16,
            Self::Rsa(_) => 0x07,
            Self::P256 => 0x11,
            Self::P384 => 0x14,
            Self::Ed25519 => 0xe0,
        }
    }

    /// Whether this firmware has it.
    #[must_use]
    pub fn known_to(self, firmware: Firmware) -> bool {
        match self {
            Self::Rsa(3072 | 4096) | Self::Ed25519 => firmware.is_5_7(),
            Self::Rsa(_) | Self::P256 | Self::P384 => true,
        }
    }
}

/// Bytes of a message for Ed25519 at most: the size of the application's buffer.
const MESSAGE: usize = 3072;

/// A private key.
#[derive(Clone, Debug)]
pub enum PrivateKey {
    /// RSA.
    Rsa(Box<RsaKey>),
    /// P-256.
    P256(p256::SecretKey),
    /// P-384.
    P384(p384::SecretKey),
    /// Ed25519.
    Ed25519(ed25519_dalek::SigningKey),
}

impl PrivateKey {
    /// A new key, from the system's randomness.
    ///
    /// # Errors
    /// [`Status::DATA`] when the algorithm cannot do it.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Status> {
        match algorithm {
            Algorithm::Rsa(bits) => {
                let key = RsaKey::generate(bits).ok_or(Status::DATA)?;
                Ok(Self::Rsa(Box::new(key)))
            }
            Algorithm::P256 => loop {
                // One in 2^32 is no scalar.
                if let Ok(key) = p256::SecretKey::from_slice(&random::<32>()) {
                    return Ok(Self::P256(key));
                }
            },
            Algorithm::P384 => loop {
                if let Ok(key) = p384::SecretKey::from_slice(&random::<48>()) {
                    return Ok(Self::P384(key));
                }
            },
            Algorithm::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&random());
                Ok(Self::Ed25519(key))
            }
        }
    }

    /// A key made elsewhere, from the elements of IMPORT KEY.
    ///
    /// # Errors
    /// [`Status::DATA`] when the elements are no key of this algorithm.
    pub fn import(algorithm: Algorithm, elements: &[(u16, &[u8])]) -> Result<Self, Status> {
        let element = |tag| tlv::find(elements, tag).ok_or(Status::DATA);
        Ok(match algorithm {
            Algorithm::Rsa(bits) => {
                let key = RsaKey::import(bits, element(1)?, element(2)?).ok_or(Status::DATA)?;
                Self::Rsa(Box::new(key))
            }
            Algorithm::P256 => {
                let key = p256::SecretKey::from_slice(element(6)?).map_err(|_| Status::DATA)?;
                Self::P256(key)
            }
            Algorithm::P384 => {
                let key = p384::SecretKey::from_slice(element(6)?).map_err(|_| Status::DATA)?;
                Self::P384(key)
            }
            Algorithm::Ed25519 => {
                let seed = element(7)?.try_into().map_err(|_| Status::DATA)?;
                Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
            }
        })
    }

    /// What it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(key) => Algorithm::Rsa(key.bits()),
            Self::P256(_) => Algorithm::P256,
            Self::P384(_) => Algorithm::P384,
            Self::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The public key as a card gives it: what is within 7F49.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let modulus = tlv::encode(0x81, &key.modulus());
                [modulus, tlv::encode(0x82, &key.exponent())].concat()
            }
            _ => tlv::encode(0x86, &self.point()),
        }
    }

    /// The public key as X.509 has it: a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        /// 1.2.840.10045.2.1, `id-ecPublicKey`.
        const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
        let (algorithm, key) = match self {
            Self::Rsa(key) => {
                let public = [der::integer(&key.modulus()), der::integer(&key.exponent())];
                // 1.2.840.113549.1.1.1, `rsaEncryption`.
                let oid = der::oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
                (vec![oid, der::null()], der::sequence(&public))
            }
            Self::P256(_) => {
                let curve = der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
                (vec![der::oid(EC), curve], self.point())
            }
            Self::P384(_) => {
                let curve = der::oid(&[0x2b, 0x81, 4, 0, 0x22]);
                (vec![der::oid(EC), curve], self.point())
            }
            Self::Ed25519(_) => (vec![der::oid(&[0x2b, 0x65, 0x70])], self.point()),
        };
        der::sequence(&[der::sequence(&algorithm), der::bit_string(&key)])
    }

    /// The point, uncompressed where there is a choice; nothing for RSA.
    fn point(&self) -> Vec<u8> {
        match self {
            Self::Rsa(_) => Vec::new(),
            Self::P256(key) => key.public_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.public_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::Ed25519(key) => key.verifying_key().to_bytes().to_vec(),
        }
    }

    /// Signs: a digest (EC; shorter ones count as padded in front), a message (Ed25519), or a
    /// padded block as long as the modulus (RSA).
    ///
    /// # Errors
    /// [`Status::DATA`] when the input is none of these.
    pub fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Status> {
        match self {
            Self::Rsa(key) => key.raw(input).ok_or(Status::DATA),
            Self::P256(key) => {
                let digest: [u8; 32] = padded(input)?;
                let signature: p256::ecdsa::DerSignature = p256::ecdsa::SigningKey::from(key)
                    .sign_prehash(&digest)
                    .map_err(|_| Status::DATA)?;
                Ok(signature.as_bytes().to_vec())
            }
            Self::P384(key) => {
                let digest: [u8; 48] = padded(input)?;
                let signature: p384::ecdsa::DerSignature = p384::ecdsa::SigningKey::from(key)
                    .sign_prehash(&digest)
                    .map_err(|_| Status::DATA)?;
                Ok(signature.as_bytes().to_vec())
            }
            Self::Ed25519(key) if input.len() <= MESSAGE => Ok(key.sign(input).to_bytes().to_vec()),
            Self::Ed25519(_) => Err(Status::DATA),
        }
    }

    /// The secret shared with the owner of another point.
    ///
    /// # Errors
    /// [`Status::DATA`] when this is no point of the key's curve, or the key is for signing only.
    pub fn agree(&self, point: &[u8]) -> Result<Vec<u8>, Status> {
        match self {
            Self::P256(key) => {
                let other = p256::PublicKey::from_sec1_bytes(point).map_err(|_| Status::DATA)?;
                let shared = other.to_projective() * *key.to_nonzero_scalar();
                Ok(shared.to_affine().x().to_vec())
            }
            Self::P384(key) => {
                let other = p384::PublicKey::from_sec1_bytes(point).map_err(|_| Status::DATA)?;
                let shared = other.to_projective() * *key.to_nonzero_scalar();
                Ok(shared.to_affine().x().to_vec())
            }
            Self::Rsa(_) | Self::Ed25519(_) => Err(Status::DATA),
        }
    }
}

fn padded<const N: usize>(digest: &[u8]) -> Result<[u8; N], Status> {
    let mut block = [0; N];
    let start = N.checked_sub(digest.len()).ok_or(Status::DATA)?;
    let end = block.get_mut(start..).ok_or(Status::DATA)?;
    if digest.is_empty() {
        return Err(Status::DATA);
    }
    end.copy_from_slice(digest);
    Ok(block)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives randomness");
    bytes
}
