//! The commands of a YubiKey's PIV application that signing needs (SP 800-73-4, part 2; Yubico,
//! "PIV extensions" and "PIV APDUs").

use signet_trust::Algorithm;
use zeroize::Zeroizing;

use super::{
    apdu::{self, command, send},
    card::{CardError, Exchange},
    pin::padded,
    slot::{Slot, Version},
    tlv::{self, TlvError},
};

/// The PIV application (SP 800-73-4, part 1, §2.2), without its version.
const PIV: &[u8] = &[0xa0, 0x00, 0x00, 0x03, 0x08];
/// Yubico's OTP application: asked for the serial number before firmware 5, and selected where
/// nothing else makes a card forget a PIN.
const OTP: &[u8] = &[0xa0, 0x00, 0x00, 0x05, 0x27, 0x20, 0x01];

/// Reference of the PIN.
pub(super) const PIN: u8 = 0x80;
/// Reference of the PUK.
pub(super) const PUK: u8 = 0x81;
/// Reference of the management key.
pub(super) const MANAGEMENT: u8 = 0x9b;

impl From<TlvError> for CardError {
    fn from(error: TlvError) -> Self {
        Self::Malformed(match error {
            TlvError::Missing(_) => "without an element that it must have",
            TlvError::Trailing => "with something after the last element",
            _ => "with something that is no TLV",
        })
    }
}

/// Selects the application; a PIN and a management key given before are forgotten by the card.
pub(super) fn select(card: &mut dyn Exchange) -> Result<(), CardError> {
    send(card, command(0xa4, 0x04, 0, PIV))?.ok().map(drop)
}

/// Firmware; only YubiKeys answer.
pub(super) fn version(card: &mut dyn Exchange) -> Result<Version, CardError> {
    match send(card, command(0xfd, 0, 0, &[]))?.ok()?[..] {
        [major, minor, patch] => Ok(Version(major, minor, patch)),
        _ => Err(CardError::Malformed("a version that is none")),
    }
}

/// The number printed on it. Before firmware 5 this leaves the application and comes back.
pub(super) fn serial(card: &mut dyn Exchange, version: Version) -> Result<u32, CardError> {
    let answer = if version < Version::SERIAL {
        send(card, command(0xa4, 0x04, 0, OTP))?.ok()?;
        let answer = send(card, command(0x01, 0x10, 0, &[]))?;
        select(card)?;
        answer
    } else {
        send(card, command(0xf8, 0, 0, &[]))?
    };
    let bytes = answer.ok()?;
    let bytes: [u8; 4] = bytes[..]
        .try_into()
        .map_err(|_| CardError::Malformed("a serial number that is none"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Gives the PIN; the status word says what the card made of it.
pub(super) fn verify(card: &mut dyn Exchange, pin: &[u8]) -> Result<u16, CardError> {
    let pin = padded(pin);
    Ok(send(card, command(0x20, 0, PIN, &pin[..]))?.status)
}

/// Makes the card forget the PIN. Firmware that does not know the command has another application
/// selected; then the result is `false`, and PIV is to be selected before the next command.
pub(super) fn forget(card: &mut dyn Exchange) -> Result<bool, CardError> {
    if send(card, command(0x20, 0xff, PIN, &[]))?.status == apdu::OK {
        return Ok(true);
    }
    send(card, command(0xa4, 0x04, 0, OTP))?;
    Ok(false)
}

/// Tries left of the PIN. Changes nothing, costs no try; `None`: a PIN was given in this session,
/// so that old firmware does not tell.
pub(super) fn pin_tries(
    card: &mut dyn Exchange,
    version: Version,
) -> Result<Option<u8>, CardError> {
    if version >= Version::METADATA {
        return Ok(Some(retries(card, PIN)?.left));
    }
    let status = send(card, command(0x20, 0, PIN, &[]))?.status;
    match status {
        apdu::OK => Ok(None),
        status => apdu::tries(status)
            .map(Some)
            .ok_or(CardError::Status(status)),
    }
}

/// What is known of PIN, PUK or management key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retries {
    pub(super) total: u8,
    pub(super) left: u8,
    pub(super) is_default: bool,
}

/// Tries of PIN or PUK, from firmware 5.3 on.
pub(super) fn retries(card: &mut dyn Exchange, reference: u8) -> Result<Retries, CardError> {
    let answer = metadata(card, reference)?;
    let is_default = tlv::find(&answer, 0x05)? == [1];
    match *tlv::find(&answer, 0x06)? {
        [total, left] => Ok(Retries {
            total,
            left,
            is_default,
        }),
        _ => Err(CardError::Malformed("tries that are none")),
    }
}

/// GET METADATA of a key, PIN, PUK or management key.
pub(super) fn metadata(
    card: &mut dyn Exchange,
    reference: u8,
) -> Result<Zeroizing<Vec<u8>>, CardError> {
    send(card, command(0xf7, 0, reference, &[]))?.ok()
}

/// A data object, without its wrapping (tag 53).
pub(super) fn get_data(
    card: &mut dyn Exchange,
    object: u32,
) -> Result<Option<Zeroizing<Vec<u8>>>, CardError> {
    let id = object.to_be_bytes();
    let list = tlv::tlv(0x5c, &[&id[1..]]);
    let answer = send(card, command(0xcb, 0x3f, 0xff, &list))?;
    if answer.status == apdu::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.ok()?;
    // An object that was emptied: some firmware answers it, some says that there is none.
    if answer.is_empty() {
        return Ok(None);
    }
    let value = Zeroizing::new(tlv::only(&answer, 0x53)?.to_vec());
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// Has the key in a slot sign what [`super::encode`] prepared.
pub(super) fn sign(
    card: &mut dyn Exchange,
    slot: Slot,
    algorithm: Algorithm,
    input: &[u8],
) -> Result<Vec<u8>, CardError> {
    let id = algorithm_id(algorithm).ok_or(CardError::Status(apdu::WRONG_DATA))?;
    let template = tlv::tlv(0x7c, &[&[0x82, 0x00], &tlv::tlv(0x81, &[input])]);
    let answer = send(card, command(0x87, id, slot.key(), &template))?.ok()?;
    Ok(tlv::only(tlv::only(&answer, 0x7c)?, 0x82)?.to_vec())
}

/// The card's number of an algorithm (SP 800-78-4, table 6-2; Yubico for RSA above 2048 and
/// Ed25519).
pub(super) fn algorithm_id(algorithm: Algorithm) -> Option<u8> {
    Some(match algorithm {
        Algorithm::P256 => 0x11,
        Algorithm::P384 => 0x14,
        Algorithm::Rsa(2048) => 0x07,
        Algorithm::Rsa(3072) => 0x05,
        Algorithm::Rsa(4096) => 0x16,
        Algorithm::Ed25519 => 0xe0,
        Algorithm::Rsa(_) => return None,
    })
}

/// The inverse of [`algorithm_id`].
pub(super) fn algorithm(id: u8) -> Option<Algorithm> {
    [
        Algorithm::P256,
        Algorithm::P384,
        Algorithm::Rsa(2048),
        Algorithm::Rsa(3072),
        Algorithm::Rsa(4096),
        Algorithm::Ed25519,
    ]
    .into_iter()
    .find(|algorithm| algorithm_id(*algorithm) == Some(id))
}
