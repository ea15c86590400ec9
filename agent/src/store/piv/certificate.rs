//! The certificate that goes beside a key, so that other programs see it: self-signed, without
//! meaning. notary takes a card's key for a root key when the common name is `root`.

use jiff::Timestamp;
use signet_trust::{Algorithm, PublicKey};

use super::{facts::unsigned, tlv::tlv};

/// `[0] { INTEGER 2 }`
const VERSION_3: &[u8] = b"\xa0\x03\x02\x01\x02";
/// 2.5.4.3
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
/// `SEQUENCE { ecdsa-with-SHA256 }` (RFC 5758 §3.2)
const ECDSA: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// `SEQUENCE { sha256WithRSAEncryption, NULL }` (RFC 4055 §5)
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
/// `SEQUENCE { Ed25519 }` (RFC 8410)
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
/// `SEQUENCE { SEQUENCE { Ed25519 }, BIT STRING … }` (RFC 8410)
const ED25519_KEY: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// No end that is known (RFC 5280 §4.1.2.5).
const NEVER: &[u8] = b"99991231235959Z";
/// Bytes of a common name (RFC 5280, ub-common-name).
const MAX_NAME: usize = 64;

/// TBSCertificate of a key, named `name`.
pub(super) fn to_be_signed(
    name: &str,
    algorithm: Algorithm,
    key: &PublicKey,
    serial: [u8; 16],
) -> Vec<u8> {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = name.get(..end).unwrap_or_default();
    let attribute = tlv(0x30, &[COMMON_NAME, &tlv(0x0c, &[name.as_bytes()])]);
    let name = tlv(0x30, &[&tlv(0x31, &[&attribute])]);
    let now = Timestamp::now().strftime("%Y%m%d%H%M%SZ").to_string();
    let validity = tlv(0x30, &[&tlv(0x18, &[now.as_bytes()]), &tlv(0x18, &[NEVER])]);
    let spki = match algorithm {
        Algorithm::Ed25519 => [ED25519_KEY, key.public()].concat(),
        _ => key.public().to_vec(),
    };
    tlv(
        0x30,
        &[
            VERSION_3,
            &unsigned(&serial),
            identifier(algorithm),
            &name,
            &validity,
            &name,
            &spki,
        ],
    )
    .to_vec()
}

/// The certificate. `signature` is as the card made it.
pub(super) fn finish(to_be_signed: &[u8], algorithm: Algorithm, signature: &[u8]) -> Vec<u8> {
    tlv(
        0x30,
        &[
            to_be_signed,
            identifier(algorithm),
            &tlv(0x03, &[&[0], signature]),
        ],
    )
    .to_vec()
}

fn identifier(algorithm: Algorithm) -> &'static [u8] {
    match algorithm {
        Algorithm::P256 | Algorithm::P384 => ECDSA,
        Algorithm::Rsa(_) => RSA,
        Algorithm::Ed25519 => ED25519,
    }
}
