//! BER-TLV as cards speak it (ISO 7816-4 §5.2.2), read strictly and bounded.
//!
//! What a card answers is an outside input: tags have one or two bytes, lengths at most three, a
//! value never goes beyond what holds it, and nothing may follow the last element. A card that
//! answers otherwise is told so, never trusted and never a reason to panic.

use zeroize::Zeroizing;

/// Why bytes are no TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlvError {
    /// An element that should be there is not.
    #[error("the element {0:x} is missing")]
    Missing(u16),
    /// It ends in the middle of an element.
    #[error("it ends in the middle of an element")]
    Short,
    /// A length or tag of a form that no card uses.
    #[error("a tag or length has a form that no card uses")]
    Form,
    /// Something follows the last element.
    #[error("something follows the last element")]
    Trailing,
    /// More elements than any answer has.
    #[error("it has too many elements")]
    Many,
}

/// Elements of one answer: GET METADATA has six, the configuration of a YubiKey a few dozen.
const MAX_ELEMENTS: usize = 128;

/// A tag with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// One byte, or two where the first says so.
    pub tag: u16,
    /// What it holds.
    pub value: &'a [u8],
}

/// Takes one element off the front.
///
/// # Errors
///
/// [`TlvError::Short`], [`TlvError::Form`].
pub fn take(bytes: &[u8]) -> Result<(Tlv<'_>, &[u8]), TlvError> {
    let (&first, rest) = bytes.split_first().ok_or(TlvError::Short)?;
    let (tag, rest) = if first & 0x1f == 0x1f {
        let (&second, rest) = rest.split_first().ok_or(TlvError::Short)?;
        if second & 0x80 != 0 {
            return Err(TlvError::Form);
        }
        (u16::from_be_bytes([first, second]), rest)
    } else {
        (u16::from(first), rest)
    };
    let (&first, rest) = rest.split_first().ok_or(TlvError::Short)?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&len, rest) = rest.split_first().ok_or(TlvError::Short)?;
            (usize::from(len), rest)
        }
        0x82 => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or(TlvError::Short)?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return Err(TlvError::Form),
    };
    let (value, rest) = rest.split_at_checked(len).ok_or(TlvError::Short)?;
    Ok((Tlv { tag, value }, rest))
}

/// Every element, in order.
///
/// # Errors
///
/// [`TlvError`].
pub fn all(mut bytes: &[u8]) -> Result<Vec<Tlv<'_>>, TlvError> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        if elements.len() == MAX_ELEMENTS {
            return Err(TlvError::Many);
        }
        let (element, rest) = take(bytes)?;
        elements.push(element);
        bytes = rest;
    }
    Ok(elements)
}

/// The value of the only element, which must have this tag.
///
/// # Errors
///
/// [`TlvError`].
pub fn only(bytes: &[u8], tag: u16) -> Result<&[u8], TlvError> {
    let (element, rest) = take(bytes)?;
    if element.tag != tag {
        return Err(TlvError::Missing(tag));
    }
    if rest.is_empty() {
        Ok(element.value)
    } else {
        Err(TlvError::Trailing)
    }
}

/// The value of the first element with this tag among several.
///
/// # Errors
///
/// [`TlvError`].
pub fn find(bytes: &[u8], tag: u16) -> Result<&[u8], TlvError> {
    all(bytes)?
        .into_iter()
        .find(|element| element.tag == tag)
        .map(|element| element.value)
        .ok_or(TlvError::Missing(tag))
}

/// One element, from its parts; wiped, because some hold keys.
#[must_use]
pub fn tlv(tag: u16, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(len + 5));
    let tag = tag.to_be_bytes();
    out.extend_from_slice(if tag[0] == 0 { &tag[1..] } else { &tag });
    let bytes = u16::try_from(len)
        .expect("what goes to a card is bounded by its callers")
        .to_be_bytes();
    match len {
        0..0x80 => out.push(bytes[1]),
        0x80..0x100 => out.extend_from_slice(&[0x81, bytes[1]]),
        _ => out.extend_from_slice(&[0x82, bytes[0], bytes[1]]),
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whatever_its_length() {
        for len in [0, 1, 127, 128, 255, 256, 3000] {
            let value = vec![7; len];
            for tag in [0x53, 0x7f49] {
                let bytes = tlv(tag, &[&value]);
                assert_eq!(only(&bytes, tag), Ok(&value[..]));
            }
        }
    }

    #[test]
    fn what_no_card_says_is_refused_and_nothing_panics() {
        let table: [(&[u8], TlvError); 8] = [
            (b"", TlvError::Short),
            (b"\x53", TlvError::Short),
            (b"\x53\x05abcd", TlvError::Short),
            (b"\x53\x82\xff", TlvError::Short),
            (b"\x53\x83\0\0\x01a", TlvError::Form),
            (b"\x53\x80", TlvError::Form),
            (b"\x7f\x81\x01\x00", TlvError::Form),
            (b"\x53\x01ab", TlvError::Trailing),
        ];
        for (bytes, error) in table {
            assert_eq!(only(bytes, 0x53), Err(error), "{bytes:02x?}");
        }
        assert_eq!(only(b"\x70\x00", 0x53), Err(TlvError::Missing(0x53)));
        assert_eq!(all(&[0x01, 0x00].repeat(200)), Err(TlvError::Many));
    }
}
