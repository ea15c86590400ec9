//! The few pieces of DER that a certificate is made of (X.690).

use crate::tlv::encode;

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    encode(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    encode(0x31, &parts.concat())
}

/// A positive integer, from big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    let mut value = Vec::with_capacity(digits.len() + 1);
    if digits.first().is_none_or(|first| first & 0x80 != 0) {
        value.push(0);
    }
    value.extend_from_slice(digits);
    encode(0x02, &value)
}

/// An object identifier, its content already encoded.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    encode(0x06, content)
}

pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    encode(0x03, &[&[0], bytes].concat())
}

pub(crate) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    encode(0x04, bytes)
}

pub(crate) fn null() -> Vec<u8> {
    encode(0x05, &[])
}

/// A name of one common name.
pub(crate) fn common_name(name: &str) -> Vec<u8> {
    let attribute = [oid(&[0x55, 4, 3]), encode(0x0c, name.as_bytes())];
    sequence(&[set(&[sequence(&attribute)])])
}

/// An element of a certificate that is there under a number: `[n] EXPLICIT`.
pub(crate) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    encode(0xa0 | u16::from(number), content)
}
