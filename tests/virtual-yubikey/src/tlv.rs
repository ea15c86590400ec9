//! BER-TLV as PIV uses it: tags of one or two bytes, definite lengths of up to three.

/// One element, and what follows it.
///
/// `None` when the bytes end too soon, or the length is none that PIV knows.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut tag = u16::from(first);
    // ISO/IEC 7816-4, 5.2.2.1: five low bits set announce a second byte.
    if first & 0x1f == 0x1f {
        let (&second, after) = rest.split_first()?;
        tag = tag << 8 | u16::from(second);
        rest = after;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (&high, rest) = rest.split_first()?;
            let (&low, rest) = rest.split_first()?;
            (usize::from(high) << 8 | usize::from(low), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// Every element of `bytes`; `None` when they are no row of elements.
#[must_use]
pub fn all(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, value, rest) = split(bytes)?;
        found.push((tag, value));
        bytes = rest;
    }
    Some(found)
}

/// The value of the first element with this tag.
#[must_use]
pub fn find<'a>(elements: &[(u16, &'a [u8])], tag: u16) -> Option<&'a [u8]> {
    let mut matching = elements.iter().filter(|element| element.0 == tag);
    matching.next().map(|element| element.1)
}

/// An element with this tag and value.
///
/// # Panics
/// When the value has 64 KiB or more: nothing that a card says is that long.
#[must_use]
pub fn encode(tag: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 5);
    match tag.to_be_bytes() {
        [0, low] => bytes.push(low),
        both => bytes.extend(both),
    }
    let length = u16::try_from(value.len()).expect("a card's elements are short");
    match length.to_be_bytes() {
        [0, low @ 0..=0x7f] => bytes.push(low),
        [0, low] => bytes.extend([0x81, low]),
        both => {
            bytes.push(0x82);
            bytes.extend(both);
        }
    }
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back_at_every_length_of_length() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 3000] {
            for tag in [0x53, 0x7f49] {
                let value = vec![0xa5; length];
                let mut bytes = encode(tag, &value);
                bytes.push(9);
                assert_eq!(split(&bytes), Some((tag, &value[..], &[9][..])));
            }
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_no_element() {
        for bytes in [
            &[][..],
            &[0x53],
            &[0x53, 1],
            &[0x53, 0x81],
            &[0x53, 0x82, 1],
            &[0x53, 0x80],
            &[0x7f],
        ] {
            assert_eq!(split(bytes), None, "{bytes:02x?}");
        }
    }
}
