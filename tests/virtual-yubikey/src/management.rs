//! The management key: 3DES or AES, and the two ways to prove it.

#[cfg(test)]
use aes::cipher::BlockCipherDecrypt;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use des::TdesEde3;

use crate::firmware::Firmware;

/// An algorithm of management keys, by its number in P1 of GENERAL AUTHENTICATE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Algorithm {
    TripleDes = 0x03,
    Aes128 = 0x08,
    Aes192 = 0x0a,
    Aes256 = 0x0c,
}

impl Algorithm {
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        let all = [Self::TripleDes, Self::Aes128, Self::Aes192, Self::Aes256];
        all.into_iter().find(|algorithm| algorithm.id() == id)
    }

    pub(crate) fn id(self) -> u8 {
        self as u8
    }

    pub(crate) fn block(self) -> usize {
        if self == Self::TripleDes { 8 } else { 16 }
    }

    fn length(self) -> usize {
        match self {
            Self::TripleDes | Self::Aes192 => 24,
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }
}

/// The factory's key: 01 to 08, three times (Yubico, "default values").
const DEFAULT: [u8; 24] = [
    1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
];

#[derive(Debug)]
pub(crate) struct ManagementKey {
    algorithm: Algorithm,
    key: Vec<u8>,
    /// Whether proving it takes a touch.
    pub(crate) touch: bool,
}

impl ManagementKey {
    pub(crate) fn factory(firmware: Firmware) -> Self {
        Self {
            algorithm: if firmware.is_5_7() {
                Algorithm::Aes192
            } else {
                Algorithm::TripleDes
            },
            key: DEFAULT.to_vec(),
            touch: false,
        }
    }

    /// `None` when the key is not as long as its algorithm wants it.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8], touch: bool) -> Option<Self> {
        (key.len() == algorithm.length()).then(|| Self {
            algorithm,
            key: key.to_vec(),
            touch,
        })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn is_default(&self) -> bool {
        self.key == DEFAULT
    }

    /// One block, encrypted; `None` when it is not one block.
    pub(crate) fn encrypt(&self, block: &[u8]) -> Option<Vec<u8>> {
        match self.algorithm {
            Algorithm::TripleDes => encrypt::<TdesEde3>(&self.key, block),
            Algorithm::Aes128 => encrypt::<Aes128>(&self.key, block),
            Algorithm::Aes192 => encrypt::<Aes192>(&self.key, block),
            Algorithm::Aes256 => encrypt::<Aes256>(&self.key, block),
        }
    }

    /// One block, decrypted: what a client does with the witness. For tests.
    #[cfg(test)]
    pub(crate) fn decrypt(&self, block: &[u8]) -> Option<Vec<u8>> {
        match self.algorithm {
            Algorithm::TripleDes => decrypt::<TdesEde3>(&self.key, block),
            Algorithm::Aes128 => decrypt::<Aes128>(&self.key, block),
            Algorithm::Aes192 => decrypt::<Aes192>(&self.key, block),
            Algorithm::Aes256 => decrypt::<Aes256>(&self.key, block),
        }
    }
}

fn encrypt<C: KeyInit + BlockCipherEncrypt>(key: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let cipher = C::new_from_slice(key).ok()?;
    let mut block = Array::try_from(block).ok()?;
    cipher.encrypt_block(&mut block);
    Some(block.to_vec())
}

#[cfg(test)]
fn decrypt<C: KeyInit + BlockCipherDecrypt>(key: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let cipher = C::new_from_slice(key).ok()?;
    let mut block = Array::try_from(block).ok()?;
    cipher.decrypt_block(&mut block);
    Some(block.to_vec())
}
