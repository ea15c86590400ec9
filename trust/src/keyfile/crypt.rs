//! Encryption of key files: PBES2 as Go writes it, PBES2 as OpenSSL writes it, and RFC 1421.
//!
//! Go ignores the declared PRF and always takes HMAC-SHA1. A file that declares another one (the
//! default of OpenSSL) is therefore closed to docker and notary for ever; here it opens, so that a
//! person can import it and have it written anew.

use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    KeyInit, KeyIvInit, block_padding::NoPadding,
};
use hmac::Hmac;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use super::{
    KeyFileError, Nonces,
    der::{Fault, Reader, element, oid, tag},
};

/// What Go writes (notary `tuf/utils/pkcs8.go`).
const ROUNDS: u32 = 2048;
/// Some seconds of work: more is an attack on whoever opens the file.
const MAX_ROUNDS: u32 = 10_000_000;
const AES_BLOCK: usize = 16;
/// Longer salts are written by no tool.
const MAX_SALT: usize = 1024;

/// The pseudo-random function that a PBES2 file declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prf {
    Sha1,
    Sha256,
    Sha512,
}

/// An EncryptedPrivateKeyInfo, read.
pub(super) struct Pbes2<'a> {
    salt: &'a [u8],
    pub(super) rounds: u32,
    pub(super) prf: Prf,
    iv: [u8; AES_BLOCK],
    ciphertext: &'a [u8],
}

fn damaged(fault: Fault) -> KeyFileError {
    KeyFileError::Damaged(fault)
}

impl<'a> Pbes2<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, KeyFileError> {
        let mut outer = Reader::new(der);
        let mut info = outer.enter(tag::SEQUENCE).map_err(damaged)?;
        if !outer.is_empty() {
            return Err(damaged("there are bytes after the encrypted key"));
        }
        let mut scheme = info.enter(tag::SEQUENCE).map_err(damaged)?;
        let ciphertext = info.read(tag::OCTET_STRING).map_err(damaged)?;
        if scheme.read(tag::OID).map_err(damaged)? != oid::PBES2 {
            return Err(KeyFileError::UnsupportedEncryption("only PBES2 is read"));
        }
        let mut parameters = scheme.enter(tag::SEQUENCE).map_err(damaged)?;
        let mut kdf = parameters.enter(tag::SEQUENCE).map_err(damaged)?;
        let mut cipher = parameters.enter(tag::SEQUENCE).map_err(damaged)?;
        if kdf.read(tag::OID).map_err(damaged)? != oid::PBKDF2 {
            return Err(KeyFileError::UnsupportedEncryption(
                "only PBKDF2 is read in PBES2",
            ));
        }
        if cipher.read(tag::OID).map_err(damaged)? != oid::AES_256_CBC {
            return Err(KeyFileError::UnsupportedEncryption(
                "only AES-256-CBC is read in PBES2",
            ));
        }
        let iv = cipher.read(tag::OCTET_STRING).map_err(damaged)?;
        let iv = iv
            .try_into()
            .map_err(|_| damaged("its IV does not have 16 bytes"))?;
        let (salt, rounds, prf) = pbkdf2_parameters(kdf)?;
        // The Go client panics on these; they can only come from damage.
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(AES_BLOCK) {
            return Err(damaged("its ciphertext is not made of whole blocks"));
        }
        Ok(Self {
            salt,
            rounds,
            prf,
            iv,
            ciphertext,
        })
    }

    /// Decrypts with this PRF. The padding is left in place, as Go does: whoever parses the
    /// plaintext decides whether the passphrase was right.
    pub(super) fn decrypt(&self, prf: Prf, passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
        let key = derive(prf, passphrase, self.salt, self.rounds);
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        cbc_decrypt::<aes::Aes256>(&*key, &self.iv, &mut buffer);
        buffer
    }
}

fn pbkdf2_parameters<'a>(mut kdf: Reader<'a>) -> Result<(&'a [u8], u32, Prf), KeyFileError> {
    let mut parameters = kdf.enter(tag::SEQUENCE).map_err(damaged)?;
    let salt = parameters.read(tag::OCTET_STRING).map_err(damaged)?;
    if salt.len() > MAX_SALT {
        return Err(damaged("its salt is too long"));
    }
    let rounds = parameters.small_integer().map_err(damaged)?;
    if !(1..=MAX_ROUNDS).contains(&rounds) {
        return Err(damaged(
            "its number of PBKDF2 rounds is not between 1 and 10,000,000",
        ));
    }
    if parameters.next_is(tag::INTEGER) && parameters.small_integer().map_err(damaged)? != 32 {
        return Err(damaged("its key length is not that of AES-256"));
    }
    let prf = if parameters.next_is(tag::SEQUENCE) {
        let mut prf = parameters.enter(tag::SEQUENCE).map_err(damaged)?;
        match prf.read(tag::OID).map_err(damaged)? {
            oid::HMAC_SHA1 => Prf::Sha1,
            oid::HMAC_SHA256 => Prf::Sha256,
            oid::HMAC_SHA512 => Prf::Sha512,
            _ => {
                return Err(KeyFileError::UnsupportedEncryption(
                    "PBKDF2 with a function other than HMAC-SHA-1, -256 and -512",
                ));
            }
        }
    } else {
        Prf::Sha1
    };
    Ok((salt, rounds, prf))
}

fn derive(prf: Prf, passphrase: &[u8], salt: &[u8], rounds: u32) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    match prf {
        Prf::Sha1 => pbkdf2::pbkdf2::<Hmac<Sha1>>(passphrase, salt, rounds, &mut *key),
        Prf::Sha256 => pbkdf2::pbkdf2::<Hmac<Sha256>>(passphrase, salt, rounds, &mut *key),
        Prf::Sha512 => pbkdf2::pbkdf2::<Hmac<Sha512>>(passphrase, salt, rounds, &mut *key),
    }
    .expect("HMAC takes a key of any length");
    key
}

/// EncryptedPrivateKeyInfo, byte for byte as Go writes it for these nonces.
pub(super) fn pbes2_encrypt(
    plaintext: &[u8],
    passphrase: &[u8],
    nonces: &Nonces,
) -> Zeroizing<Vec<u8>> {
    let key = derive(Prf::Sha1, passphrase, &nonces.salt, ROUNDS);
    let padding = AES_BLOCK - plaintext.len() % AES_BLOCK;
    let length = plaintext.len() + padding;
    let mut buffer = Zeroizing::new(Vec::with_capacity(length));
    buffer.extend_from_slice(plaintext);
    buffer.resize(length, u8::try_from(padding).expect("at most a block"));
    cbc::Encryptor::<aes::Aes256>::new_from_slices(&*key, &nonces.iv)
        .expect("AES-256 has keys of 32 bytes and blocks of 16")
        .encrypt_padded::<NoPadding>(&mut buffer, length)
        .expect("the buffer holds whole blocks");

    let kdf = element(
        tag::SEQUENCE,
        &[
            &element(tag::OCTET_STRING, &[&nonces.salt]),
            &element(tag::INTEGER, &[&2048u16.to_be_bytes()]),
        ],
    );
    let kdf = element(tag::SEQUENCE, &[&element(tag::OID, &[oid::PBKDF2]), &kdf]);
    let cipher = element(
        tag::SEQUENCE,
        &[
            &element(tag::OID, &[oid::AES_256_CBC]),
            &element(tag::OCTET_STRING, &[&nonces.iv]),
        ],
    );
    let parameters = element(tag::SEQUENCE, &[&kdf, &cipher]);
    let scheme = element(
        tag::SEQUENCE,
        &[&element(tag::OID, &[oid::PBES2]), &parameters],
    );
    element(
        tag::SEQUENCE,
        &[&scheme, &element(tag::OCTET_STRING, &[&buffer])],
    )
}

/// Decrypts whole blocks in place.
fn cbc_decrypt<C>(key: &[u8], iv: &[u8], buffer: &mut [u8])
where
    C: BlockCipherDecrypt + BlockCipherEncrypt + BlockSizeUser + KeyInit,
{
    cbc::Decryptor::<C>::new_from_slices(key, iv)
        .expect("key and IV have the lengths of the cipher")
        .decrypt_padded::<NoPadding>(buffer)
        .expect("the buffer holds whole blocks");
}

/// Decrypts an RFC 1421 body (`DEK-Info: <cipher>,<IV in hex>`), padding left in place.
pub(super) fn rfc1421_decrypt(
    dek_info: &str,
    ciphertext: &[u8],
    passphrase: Option<&[u8]>,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let dek = DekInfo::parse(dek_info)?;
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(dek.iv.len()) {
        return Err(damaged("its ciphertext is not made of whole blocks"));
    }
    let passphrase = passphrase.ok_or(KeyFileError::NeedsPassphrase)?;
    let key = bytes_to_key(passphrase, &dek.iv[..8], dek.cipher.key_len());
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    match dek.cipher {
        Cipher::Aes128 => cbc_decrypt::<aes::Aes128>(&key, &dek.iv, &mut buffer),
        Cipher::Aes192 => cbc_decrypt::<aes::Aes192>(&key, &dek.iv, &mut buffer),
        Cipher::Aes256 => cbc_decrypt::<aes::Aes256>(&key, &dek.iv, &mut buffer),
        Cipher::TripleDes => cbc_decrypt::<des::TdesEde3>(&key, &dek.iv, &mut buffer),
    }
    Ok(buffer)
}

#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
}

impl Cipher {
    fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }
}

struct DekInfo {
    cipher: Cipher,
    iv: Vec<u8>,
}

impl DekInfo {
    fn parse(text: &str) -> Result<Self, KeyFileError> {
        let (name, iv) = text
            .split_once(',')
            .ok_or(damaged("its DEK-Info header names no IV"))?;
        let (cipher, block) = match name.trim() {
            "AES-128-CBC" => (Cipher::Aes128, AES_BLOCK),
            "AES-192-CBC" => (Cipher::Aes192, AES_BLOCK),
            "AES-256-CBC" => (Cipher::Aes256, AES_BLOCK),
            "DES-EDE3-CBC" => (Cipher::TripleDes, 8),
            _ => {
                return Err(KeyFileError::UnsupportedEncryption(
                    "DEK-Info with a cipher other than AES-CBC and DES-EDE3-CBC",
                ));
            }
        };
        let iv =
            hex::decode(iv.trim()).map_err(|_| damaged("the IV in its DEK-Info is not hex"))?;
        if iv.len() != block {
            return Err(damaged("the IV in its DEK-Info is not one block long"));
        }
        Ok(Self { cipher, iv })
    }
}

/// OpenSSL's EVP_BytesToKey with MD5 and one round.
fn bytes_to_key(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut digest = Zeroizing::new([0; 16]);
    while key.len() < length {
        let mut md5 = Md5::new();
        if !key.is_empty() {
            md5.update(*digest);
        }
        md5.update(passphrase);
        md5.update(salt);
        *digest = md5.finalize().into();
        key.extend_from_slice(&*digest);
    }
    key.truncate(length);
    key
}
