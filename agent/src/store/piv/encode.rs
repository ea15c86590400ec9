//! What a card is given to sign, and what is made of its answer. The card computes; padding and
//! hashing are the host's (SP 800-73-4, part 2, §3.2.4), but for Ed25519, which signs the message.

use sha2::{Digest, Sha256};
use signet_trust::Algorithm;

use super::{card::CardError, tlv};
use crate::store::Purpose;

/// Longest message of an Ed25519 key: what clients of cards are known to send (the `yubikey` crate
/// takes 1,014 bytes). Yubico does not say how much more the card would take.
pub(super) const MAX_MESSAGE: usize = 1014;
/// Of PSS, as documents have it (RFC 8017 §9.1; notary `tuf/signed/verifiers.go`).
const SALT: usize = 32;
/// `SEQUENCE { SEQUENCE { sha256, NULL }, OCTET STRING … }` (RFC 8017 §9.2, note 1).
const SHA256_PREFIX: &[u8] =
    b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// The input of GENERAL AUTHENTICATE; `None` where the message is too long.
///
/// # Errors
///
/// When the system has no randomness.
pub(super) fn input(
    algorithm: Algorithm,
    purpose: Purpose,
    message: &[u8],
) -> Result<Option<Vec<u8>>, getrandom::Error> {
    let digest: [u8; 32] = Sha256::digest(message).into();
    Ok(Some(match (algorithm, purpose) {
        (Algorithm::P256, _) => digest.to_vec(),
        // A digest shorter than the curve is the same number with zeros before it (FIPS 186-5 §6.4).
        (Algorithm::P384, _) => [&[0; 16][..], &digest].concat(),
        (Algorithm::Ed25519, _) if message.len() > MAX_MESSAGE => return Ok(None),
        (Algorithm::Ed25519, _) => message.to_vec(),
        (Algorithm::Rsa(bits), Purpose::Certificate) => {
            let len = bits as usize / 8;
            let tail = SHA256_PREFIX.len() + digest.len();
            let mut block = vec![0xff; len];
            block[0] = 0;
            block[1] = 1;
            block[len - tail - 1] = 0;
            block[len - tail..len - digest.len()].copy_from_slice(SHA256_PREFIX);
            block[len - digest.len()..].copy_from_slice(&digest);
            block
        }
        (Algorithm::Rsa(bits), Purpose::Document) => {
            let mut salt = [0; SALT];
            getrandom::fill(&mut salt)?;
            pss(bits as usize / 8, &digest, &salt)
        }
    }))
}

/// EMSA-PSS with SHA-256 and MGF1 (RFC 8017 §9.1.1), for a modulus of whole bytes.
fn pss(len: usize, digest: &[u8; 32], salt: &[u8; SALT]) -> Vec<u8> {
    let hash: [u8; 32] = Sha256::new()
        .chain_update([0; 8])
        .chain_update(digest)
        .chain_update(salt)
        .finalize()
        .into();
    let db_len = len - hash.len() - 1;
    let mut block = vec![0; len];
    block[db_len - SALT - 1] = 1;
    block[db_len - SALT..db_len].copy_from_slice(salt);
    for (counter, chunk) in (0u32..).zip(block[..db_len].chunks_mut(32)) {
        let mask = Sha256::new()
            .chain_update(hash)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    block[0] &= 0x7f;
    block[db_len..len - 1].copy_from_slice(&hash);
    block[len - 1] = 0xbc;
    block
}

/// The card's answer in the documents' encoding.
pub(super) fn signature(algorithm: Algorithm, answer: &[u8]) -> Result<Vec<u8>, CardError> {
    let size = match algorithm {
        Algorithm::P256 => 32,
        Algorithm::P384 => 48,
        _ => return Ok(answer.to_vec()),
    };
    let numbers = tlv::all(tlv::only(answer, 0x30)?)?;
    let [r, s] = numbers.as_slice() else {
        return Err(CardError::Malformed("a signature that is none"));
    };
    let mut out = vec![0; 2 * size];
    for (number, place) in [r, s].into_iter().zip(out.chunks_mut(size)) {
        let zeros = number.value.iter().take_while(|byte| **byte == 0).count();
        let digits = &number.value[zeros..];
        if number.tag != 0x02 || digits.len() > size {
            return Err(CardError::Malformed("a signature that is none"));
        }
        place[size - digits.len()..].copy_from_slice(digits);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_numbers_of_a_signature_fill_their_halves() {
        let der = b"\x30\x08\x02\x02\x00\x81\x02\x02\x01\x02";
        let out = signature(Algorithm::P256, der).unwrap();
        assert_eq!((out[31], &out[62..]), (0x81, &[1, 2][..]));
        for bad in [
            &b""[..],
            b"\x30\x00",
            b"\x30\x03\x02\x01\x01",
            b"\x30\x06\x04\x01\x01\x02\x01\x01",
            b"\x31\x06\x02\x01\x01\x02\x01\x01",
        ] {
            assert!(signature(Algorithm::P256, bad).is_err());
        }
        let long = tlv::tlv(0x30, &[&tlv::tlv(2, &[&[9; 40]]), &tlv::tlv(2, &[&[1]])]);
        assert!(signature(Algorithm::P256, &long).is_err());
    }

    #[test]
    fn a_message_that_ed25519_cannot_take_has_no_input() {
        let input =
            |len: usize| input(Algorithm::Ed25519, Purpose::Document, &vec![b'a'; len]).unwrap();
        assert_eq!(input(255).unwrap().len(), 255);
        assert_eq!(input(MAX_MESSAGE).unwrap().len(), MAX_MESSAGE);
        assert!(input(MAX_MESSAGE + 1).is_none());
    }
}
