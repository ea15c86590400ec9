//! RSA without any padding: the card sees whole blocks only.

use rsa::hazmat::rsa_decrypt_and_check;
use rsa::rand_core::UnwrapErr;
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, RsaPrivateKey};

/// The exponent of every key that a card makes or takes.
const EXPONENT: u32 = 65537;

/// An RSA key.
#[derive(Clone, Debug)]
pub struct RsaKey(RsaPrivateKey);

impl RsaKey {
    pub(super) fn generate(bits: usize) -> Option<Self> {
        let mut random = UnwrapErr(getrandom::SysRng);
        RsaPrivateKey::new(&mut random, bits).ok().map(Self)
    }

    pub(super) fn import(bits: usize, p: &[u8], q: &[u8]) -> Option<Self> {
        if p.len() != bits / 16 || q.len() != bits / 16 {
            return None;
        }
        let precision = u32::try_from(bits / 2).ok()?;
        let p = BoxedUint::from_be_slice(p, precision).ok()?;
        let q = BoxedUint::from_be_slice(q, precision).ok()?;
        let key = RsaPrivateKey::from_p_q(p, q, BoxedUint::from(EXPONENT)).ok()?;
        (key.size() * 8 == bits).then_some(Self(key))
    }

    pub(super) fn bits(&self) -> usize {
        self.0.size() * 8
    }

    pub(super) fn modulus(&self) -> Vec<u8> {
        self.0.n_bytes().into_vec()
    }

    pub(super) fn exponent(&self) -> Vec<u8> {
        self.0.e_bytes().into_vec()
    }

    /// The private operation on one block; `None` when it is not as long as the modulus, or not
    /// below it.
    pub(super) fn raw(&self, block: &[u8]) -> Option<Vec<u8>> {
        if block.len() != self.0.size() {
            return None;
        }
        let block = BoxedUint::from_be_slice(block, self.0.n_bits_precision()).ok()?;
        let none = None::<&mut UnwrapErr<getrandom::SysRng>>;
        let result = rsa_decrypt_and_check(&self.0, none, &block).ok()?;
        let bytes = result.to_be_bytes();
        let start = bytes.len().checked_sub(self.0.size())?;
        bytes.get(start..).map(<[u8]>::to_vec)
    }
}
