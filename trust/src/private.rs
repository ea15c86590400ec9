//! Private keys: made, held for a moment, wiped.

use std::fmt;

use zeroize::Zeroizing;

use crate::key::{Algorithm, KeyError, KeyId, PublicKey};

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
        todo!("{algorithm:?}")
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
        let _ = (algorithm, material);
        todo!()
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
    let _ = (algorithm, material, public, message);
    todo!()
}
