//! Keys in clear: PKCS#8 as Go writes it and as others do, SEC1, PKCS#1, notary's Ed25519.

use zeroize::Zeroizing;

use super::der::{Fault, Reader, element, oid, tag};
use crate::{
    key::{Algorithm, KeyError},
    private::PrivateKey,
};

/// Why bytes are no key.
#[derive(Debug)]
pub(super) enum Broken {
    /// The structure is not that of a key.
    Structure(Fault),
    /// It is a key, but not one to compute with.
    Key(KeyError),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Structure(fault)
    }
}

/// What follows the key in the bytes given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing may follow.
    None,
    /// CBC padding of at most a block, which Go never looks at.
    Padding,
}

fn outer<'a>(bytes: &'a [u8], tail: Tail) -> Result<Reader<'a>, Broken> {
    let mut reader = Reader::new(bytes);
    let inner = reader.enter(tag::SEQUENCE)?;
    let allowed = if tail == Tail::Padding { 16 } else { 0 };
    if reader.rest().len() > allowed {
        return Err(Broken::Structure("there are bytes after the key"));
    }
    Ok(inner)
}

/// PrivateKeyInfo: any version, with or without parameters, attributes and public key.
pub(super) fn pkcs8(bytes: &[u8], tail: Tail) -> Result<PrivateKey, Broken> {
    let mut info = outer(bytes, tail)?;
    info.small_integer()?;
    let mut algorithm = info.enter(tag::SEQUENCE)?;
    let key = info.read(tag::OCTET_STRING)?;
    match algorithm.read(tag::OID)? {
        oid::EC => {
            let curve = if algorithm.next_is(tag::OID) {
                Some(algorithm.read(tag::OID)?)
            } else {
                None
            };
            sec1_within(key, curve, Tail::None)
        }
        oid::RSA => pkcs1(key, Tail::None),
        oid::ED25519_GNU => ed25519(key, Tail::None),
        oid::ED25519 => {
            let mut reader = Reader::new(key);
            let seed = reader.read(tag::OCTET_STRING)?;
            if seed.len() != 32 || !reader.is_empty() {
                return Err(Broken::Structure("its Ed25519 seed does not have 32 bytes"));
            }
            material(Algorithm::Ed25519, seed)
        }
        _ => Err(unsupported("its algorithm")),
    }
}

fn unsupported(what: &str) -> Broken {
    Broken::Key(KeyError::Unsupported(what.to_owned()))
}

fn material(algorithm: Algorithm, secret: &[u8]) -> Result<PrivateKey, Broken> {
    PrivateKey::from_material(algorithm, Zeroizing::new(secret.to_vec())).map_err(Broken::Key)
}

/// SEC1 ECPrivateKey.
pub(super) fn sec1(bytes: &[u8], tail: Tail) -> Result<PrivateKey, Broken> {
    sec1_within(bytes, None, tail)
}

/// SEC1, the curve being named within or by what is around it.
fn sec1_within(bytes: &[u8], around: Option<&[u8]>, tail: Tail) -> Result<PrivateKey, Broken> {
    let mut key = outer(bytes, tail)?;
    if key.small_integer()? != 1 {
        return Err(Broken::Structure("its ECPrivateKey is not of version 1"));
    }
    let scalar = key.read(tag::OCTET_STRING)?;
    let within = if key.next_is(tag::CONTEXT_0) {
        Some(key.enter(tag::CONTEXT_0)?.read(tag::OID)?)
    } else {
        None
    };
    let point = if key.next_is(tag::CONTEXT_1) {
        let bits = key.enter(tag::CONTEXT_1)?.read(tag::BIT_STRING)?;
        Some(
            bits.strip_prefix(&[0])
                .ok_or("its public key is not made of whole bytes")?,
        )
    } else {
        None
    };
    let (algorithm, size) = match around.or(within) {
        Some(oid::P256) => (Algorithm::P256, 32),
        Some(oid::P384) => (Algorithm::P384, 48),
        Some(oid::P224) => return Err(unsupported("the curve P-224")),
        Some(oid::P521) => return Err(unsupported("the curve P-521")),
        Some(_) => return Err(unsupported("its elliptic curve")),
        None => return Err(Broken::Structure("it names no elliptic curve")),
    };
    // Some tools drop leading zeros, others add some (as Go's reader knows).
    let excess = scalar.len().saturating_sub(size);
    if scalar[..excess].iter().any(|byte| *byte != 0) {
        return Err(Broken::Structure("its EC scalar is too long"));
    }
    let digits = &scalar[excess..];
    let mut padded = Zeroizing::new(vec![0; size]);
    padded[size - digits.len()..].copy_from_slice(digits);
    let found = PrivateKey::from_material(algorithm, padded).map_err(Broken::Key)?;
    // One garbled block of ciphertext leaves a sound structure behind: the two halves tell.
    if point.is_some_and(|point| point.first() == Some(&4) && ec_point(&found) != Some(point)) {
        return Err(Broken::Structure(
            "its public half does not belong to its private half",
        ));
    }
    Ok(found)
}

/// PKCS#1 RSAPrivateKey.
pub(super) fn pkcs1(bytes: &[u8], tail: Tail) -> Result<PrivateKey, Broken> {
    let mut key = outer(bytes, tail)?;
    if key.small_integer()? != 0 {
        return Err(Broken::Structure("its RSAPrivateKey is not of version 0"));
    }
    let modulus = key.read(tag::INTEGER)?;
    let digits = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let first = *digits.first().ok_or("its RSA modulus is empty")?;
    let bits =
        u32::try_from(digits.len() * 8).expect("key files are small") - first.leading_zeros();
    let length = bytes.len() - trailing(bytes);
    material(Algorithm::Rsa(bits), &bytes[..length])
}

/// Bytes after the first element.
fn trailing(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    match reader.read(tag::SEQUENCE) {
        Ok(_) => reader.rest().len(),
        Err(_) => 0,
    }
}

/// Notary's Ed25519: public key, seed, public key again.
pub(super) fn ed25519(bytes: &[u8], tail: Tail) -> Result<PrivateKey, Broken> {
    const LENGTH: usize = 96;
    let allowed = if tail == Tail::Padding {
        LENGTH + 16
    } else {
        LENGTH
    };
    if !(LENGTH..=allowed).contains(&bytes.len()) {
        return Err(Broken::Structure("its Ed25519 key does not have 96 bytes"));
    }
    let (public, seed, again) = (&bytes[..32], &bytes[32..64], &bytes[64..LENGTH]);
    let found = material(Algorithm::Ed25519, seed)?;
    if found.public().public() != public || public != again {
        return Err(Broken::Structure(
            "its public half does not belong to its private half",
        ));
    }
    Ok(found)
}

/// The uncompressed point at the end of an EC key's SubjectPublicKeyInfo.
fn ec_point(key: &PrivateKey) -> Option<&[u8]> {
    let mut spki = Reader::new(key.public().public())
        .enter(tag::SEQUENCE)
        .ok()?;
    spki.read(tag::SEQUENCE).ok()?;
    spki.read(tag::BIT_STRING).ok()?.strip_prefix(&[0])
}

/// PrivateKeyInfo, byte for byte as Go writes it (notary `tuf/utils/pkcs8.go`).
pub(super) fn encode_pkcs8(key: &PrivateKey) -> Zeroizing<Vec<u8>> {
    let secret = key.expose_material();
    match key.algorithm() {
        Algorithm::P256 => encode_ec(key, secret, oid::P256),
        Algorithm::P384 => encode_ec(key, secret, oid::P384),
        Algorithm::Rsa(_) => info(0, &[&element(tag::OID, &[oid::RSA])], &[secret]),
        Algorithm::Ed25519 => {
            let public = key.public().public();
            info(
                0,
                &[&element(tag::OID, &[oid::ED25519_GNU])],
                &[public, secret, public],
            )
        }
    }
}

fn info(version: u8, algorithm: &[&[u8]], key: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    element(
        tag::SEQUENCE,
        &[
            &element(tag::INTEGER, &[&[version]]),
            &element(tag::SEQUENCE, algorithm),
            &element(tag::OCTET_STRING, key),
        ],
    )
}

fn encode_ec(key: &PrivateKey, scalar: &[u8], curve: &[u8]) -> Zeroizing<Vec<u8>> {
    let curve = element(tag::OID, &[curve]);
    let point = ec_point(key).expect("the public half was computed here");
    let sec1 = element(
        tag::SEQUENCE,
        &[
            &element(tag::INTEGER, &[&[1]]),
            &element(tag::OCTET_STRING, &[scalar]),
            &element(tag::CONTEXT_0, &[&curve]),
            &element(tag::CONTEXT_1, &[&element(tag::BIT_STRING, &[&[0], point])]),
        ],
    );
    info(1, &[&element(tag::OID, &[oid::EC]), &curve], &[&sec1])
}
