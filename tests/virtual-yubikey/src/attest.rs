//! Attestation: a certificate that a key was made in this slot, and the chain above it.
//!
//! The chain is a root that all virtual cards share, each card's own certificate in slot F9, and
//! the attestation. Names and extensions are as on a YubiKey
//! (<https://developers.yubico.com/PIV/Introduction/PIV_attestation.html>); the root is not
//! Yubico's, and nobody but a test may trust it: its private key follows from this source.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256, Sha384};

use crate::der::{bit_string, common_name, explicit, integer, octet_string, oid, sequence};
use crate::firmware::Firmware;
use crate::keys::{Algorithm, PrivateKey, random};
use crate::tlv::encode;

/// What an attestation says of a key, beside the key itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    pub(crate) firmware: Firmware,
    pub(crate) serial: u32,
    pub(crate) slot: u8,
    pub(crate) pin_policy: u8,
    pub(crate) touch_policy: u8,
    pub(crate) form: u8,
}

const ROOT: &str = "Virtual YubiKey PIV Root CA, for tests only";
const INTERMEDIATE: &str = "Yubico PIV Attestation";

/// The certificate of the root that all virtual cards share, in DER.
#[must_use]
pub fn root() -> &'static [u8] {
    static ROOT_CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();
    ROOT_CERTIFICATE.get_or_init(|| {
        let key = root_key();
        let extensions = [authority(&[encode(0x01, &[0xff])])];
        certificate(&[1], ROOT, ROOT, &key, &key, &extensions)
    })
}

/// The same in PEM.
#[must_use]
pub fn root_pem() -> String {
    pem(root())
}

/// A certificate in PEM (RFC 7468).
#[must_use]
pub fn pem(certificate: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        for group in line.chunks(3) {
            let bytes = [0, 1, 2].map(|at| group.get(at).copied().unwrap_or(0));
            let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for position in 0..4 {
                let digit = (bits >> (18 - 6 * position) & 0x3f) as usize;
                text.push(if position > group.len() {
                    '='
                } else {
                    char::from(ALPHABET[digit])
                });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn root_key() -> PrivateKey {
    let scalar = Sha256::digest(b"the root of attestation of Signet's virtual YubiKeys");
    let key = p256::SecretKey::from_slice(&scalar).expect("this very digest is a scalar");
    PrivateKey::P256(key)
}

/// A card's key for slot F9: RSA, as Yubico's factory puts there, up to firmware 5.4, and P-256
/// from 5.7. Making an RSA key takes a while, so that all cards of a process share one.
pub(crate) fn key(firmware: Firmware) -> PrivateKey {
    static RSA: OnceLock<PrivateKey> = OnceLock::new();
    let made = |algorithm| PrivateKey::generate(algorithm).expect("such keys can be made");
    if firmware.is_5_7() {
        return made(Algorithm::P256);
    }
    RSA.get_or_init(|| made(Algorithm::Rsa(2048))).clone()
}

/// A card's certificate for slot F9, over the key that the card signs attestations with.
pub(crate) fn intermediate(key: &PrivateKey) -> Vec<u8> {
    let extensions = [authority(&[encode(0x01, &[0xff]), integer(&[0])])];
    let root = root_key();
    certificate(&random::<8>(), ROOT, INTERMEDIATE, key, &root, &extensions)
}

/// The attestation of a key, signed by the key in slot F9.
pub(crate) fn attest(statement: Statement, key: &PrivateKey, signer: &PrivateKey) -> Vec<u8> {
    let subject = format!("YubiKey PIV Attestation {:02x}", statement.slot);
    let serial = integer(&statement.serial.to_be_bytes());
    let policies = [statement.pin_policy, statement.touch_policy];
    // Of these four only the serial is DER within; the others are bare bytes.
    let extensions = [
        yubico(3, &statement.firmware.bytes()),
        yubico(7, &serial),
        yubico(8, &policies),
        yubico(9, &[statement.form]),
    ];
    let number = random::<16>();
    certificate(&number, INTERMEDIATE, &subject, key, signer, &extensions)
}

/// 1.3.6.1.4.1.41482.3.`number`.
fn yubico(number: u8, value: &[u8]) -> Vec<u8> {
    let id = [0x2b, 6, 1, 4, 1, 0x82, 0xc4, 0x0a, 3, number];
    sequence(&[oid(&id), octet_string(value)])
}

/// Basic constraints, critical (RFC 5280, 4.2.1.9).
fn authority(constraints: &[Vec<u8>]) -> Vec<u8> {
    let critical = encode(0x01, &[0xff]);
    sequence(&[
        oid(&[0x55, 0x1d, 0x13]),
        critical,
        octet_string(&sequence(constraints)),
    ])
}

fn certificate(
    number: &[u8],
    issuer: &str,
    subject: &str,
    key: &PrivateKey,
    signer: &PrivateKey,
    extensions: &[Vec<u8>],
) -> Vec<u8> {
    let mut number = number.to_vec();
    if let Some(first) = number.first_mut() {
        *first &= 0x7f;
    }
    let algorithm = signature_algorithm(signer);
    // As Yubico's: from March 2016 to April 2052, the latter beyond UTCTime.
    let from = encode(0x17, b"160314000000Z");
    let until = encode(0x18, b"20520417000000Z");
    let body = sequence(&[
        explicit(0, &integer(&[2])),
        integer(&number),
        algorithm.clone(),
        common_name(issuer),
        sequence(&[from, until]),
        common_name(subject),
        key.spki(),
        explicit(3, &sequence(extensions)),
    ]);
    let signature = sign(signer, &body);
    sequence(&[body, algorithm, bit_string(&signature)])
}

fn signature_algorithm(signer: &PrivateKey) -> Vec<u8> {
    match signer.algorithm() {
        // 1.2.840.113549.1.1.11, `sha256WithRSAEncryption`.
        Algorithm::Rsa(_) => sequence(&[
            oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b]),
            crate::der::null(),
        ]),
        // 1.2.840.10045.4.3.2 and .3, `ecdsa-with-SHA256` and `-SHA384`.
        Algorithm::P256 => sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]),
        Algorithm::P384 => sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3])]),
        Algorithm::Ed25519 => sequence(&[oid(&[0x2b, 0x65, 0x70])]),
    }
}

fn sign(signer: &PrivateKey, body: &[u8]) -> Vec<u8> {
    let input = match signer.algorithm() {
        Algorithm::Rsa(bits) => pkcs1(&Sha256::digest(body), bits / 8),
        Algorithm::P256 => Sha256::digest(body).to_vec(),
        Algorithm::P384 => Sha384::digest(body).to_vec(),
        Algorithm::Ed25519 => body.to_vec(),
    };
    signer.sign(&input).expect("the input is made for this key")
}

/// EMSA-PKCS1-v1_5 of a SHA-256 digest (RFC 8017, 9.2).
fn pkcs1(digest: &[u8], length: usize) -> Vec<u8> {
    const PREFIX: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20,
    ];
    let mut block = vec![0, 1];
    block.resize(length - PREFIX.len() - digest.len() - 1, 0xff);
    block.push(0);
    block.extend(PREFIX);
    block.extend(digest);
    block
}
