//! Public key files: `NAME.pub` of docker, PEM of OpenSSL, certificates.

use super::{
    KeyFileError, MAX_FILE,
    der::{Fault, Reader, oid, tag},
    pem,
};
use crate::{
    cert::Certificate,
    key::{KeyError, KeyType, PublicKey},
};

/// A public key file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFile {
    /// The key; for a certificate of x509 type, as documents would list it.
    pub key: PublicKey,
    /// `role` header: the name of the signer, with docker.
    pub role: Option<String>,
}

/// Reads the first `PUBLIC KEY` or `CERTIFICATE` block. Certificates are not checked for validity.
///
/// # Errors
///
/// [`KeyFileError::NoKey`] when there is neither, [`KeyFileError::Damaged`],
/// [`KeyFileError::Key`], [`KeyFileError::TooLarge`].
pub fn parse_public_pem(text: &[u8]) -> Result<PublicFile, KeyFileError> {
    if text.len() > MAX_FILE {
        return Err(KeyFileError::TooLarge(text.len()));
    }
    for block in pem::blocks(text)? {
        let key = match block.label.as_str() {
            "PUBLIC KEY" => spki(&block.body)?,
            "CERTIFICATE" => certificate(&block.body)?,
            _ => continue,
        };
        let role = block.headers.into_iter().find(|(name, _)| name == "role");
        return Ok(PublicFile {
            key,
            role: role.map(|(_, role)| role),
        });
    }
    Err(KeyFileError::NoKey)
}

fn damaged(fault: Fault) -> KeyFileError {
    KeyFileError::Damaged(fault)
}

fn spki(der: &[u8]) -> Result<PublicKey, KeyFileError> {
    let mut outer = Reader::new(der);
    let mut info = outer.enter(tag::SEQUENCE).map_err(damaged)?;
    let mut algorithm = info.enter(tag::SEQUENCE).map_err(damaged)?;
    let bits = info.read(tag::BIT_STRING).map_err(damaged)?;
    if !outer.is_empty() || !info.is_empty() {
        return Err(damaged("there are bytes after the public key"));
    }
    let key = match algorithm.read(tag::OID).map_err(damaged)? {
        oid::EC => PublicKey::new(KeyType::Ecdsa, der.to_vec()),
        oid::RSA => {
            // Go writes the NULL again when it takes the ID of a key that lacks it.
            if algorithm.read(tag::NULL).map_err(damaged)? != b"" {
                return Err(damaged("its RSA parameters are not NULL"));
            }
            PublicKey::new(KeyType::Rsa, der.to_vec())
        }
        oid::ED25519 => match bits.strip_prefix(&[0]) {
            Some(raw) if raw.len() == 32 => PublicKey::new(KeyType::Ed25519, raw.to_vec()),
            _ => return Err(damaged("its Ed25519 key does not have 32 bytes")),
        },
        _ => return Err(KeyError::Unsupported("its algorithm".to_owned()).into()),
    };
    key.algorithm()?;
    Ok(key)
}

fn certificate(der: &[u8]) -> Result<PublicKey, KeyFileError> {
    let pem = pem::write("CERTIFICATE", &[], der);
    let key_type = match Certificate::from_pem(pem.as_bytes())?.public.key_type() {
        KeyType::Ecdsa | KeyType::EcdsaX509 => KeyType::EcdsaX509,
        KeyType::Rsa | KeyType::RsaX509 => KeyType::RsaX509,
        KeyType::Ed25519 => {
            return Err(KeyError::Unsupported("a certificate of an Ed25519 key".to_owned()).into());
        }
    };
    Ok(PublicKey::new(key_type, pem.as_bytes().to_vec()))
}
