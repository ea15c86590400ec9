//! The little DER that key files need: definite lengths, minimal encodings, no recursion.
//!
//! General libraries refuse what Go writes (ECDSA in PKCS#8 version 1, RSA without NULL), so keys
//! are taken apart here by hand, each element once and within its parent's bounds.

use zeroize::Zeroizing;

/// Tags used in key files.
pub(super) mod tag {
    pub(in crate::keyfile) const INTEGER: u8 = 0x02;
    pub(in crate::keyfile) const BIT_STRING: u8 = 0x03;
    pub(in crate::keyfile) const OCTET_STRING: u8 = 0x04;
    pub(in crate::keyfile) const NULL: u8 = 0x05;
    pub(in crate::keyfile) const OID: u8 = 0x06;
    pub(in crate::keyfile) const SEQUENCE: u8 = 0x30;
    /// Constructed, context-specific `[0]`.
    pub(in crate::keyfile) const CONTEXT_0: u8 = 0xa0;
    /// Constructed, context-specific `[1]`.
    pub(in crate::keyfile) const CONTEXT_1: u8 = 0xa1;
}

/// Object identifiers, as content bytes.
pub(super) mod oid {
    /// 1.2.840.113549.1.5.13
    pub(in crate::keyfile) const PBES2: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    /// 1.2.840.113549.1.5.12
    pub(in crate::keyfile) const PBKDF2: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
    /// 1.2.840.113549.2.7
    pub(in crate::keyfile) const HMAC_SHA1: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x07];
    /// 1.2.840.113549.2.9
    pub(in crate::keyfile) const HMAC_SHA256: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
    /// 1.2.840.113549.2.11
    pub(in crate::keyfile) const HMAC_SHA512: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0b];
    /// 2.16.840.1.101.3.4.1.42
    pub(in crate::keyfile) const AES_256_CBC: &[u8] =
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
    /// 1.2.840.10045.2.1
    pub(in crate::keyfile) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// 1.2.840.10045.3.1.7
    pub(in crate::keyfile) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// 1.3.132.0.33
    pub(in crate::keyfile) const P224: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x21];
    /// 1.3.132.0.34
    pub(in crate::keyfile) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    /// 1.3.132.0.35
    pub(in crate::keyfile) const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    /// 1.2.840.113549.1.1.1
    pub(in crate::keyfile) const RSA: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    /// 1.3.101.112 (RFC 8410)
    pub(in crate::keyfile) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    /// 1.3.6.1.4.1.11591.15.1: what notary writes for Ed25519
    pub(in crate::keyfile) const ED25519_GNU: &[u8] =
        &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
}

/// What is wrong, for a person.
pub(super) type Fault = &'static str;

/// Elements one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether the next element has this tag.
    pub(super) fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn read(&mut self, tag: u8) -> Result<&'a [u8], Fault> {
        match self.rest.first() {
            None => return Err("a DER element is missing"),
            Some(found) if *found != tag => return Err("a DER element is of another type"),
            Some(_) => {}
        }
        let (length, header) = read_length(&self.rest[1..])?;
        let start = 1 + header;
        let end = start
            .checked_add(length)
            .ok_or("a DER length is too large")?;
        let content = self
            .rest
            .get(start..end)
            .ok_or("a DER element is cut short")?;
        self.rest = &self.rest[end..];
        Ok(content)
    }

    /// The elements within the next one.
    pub(super) fn enter(&mut self, tag: u8) -> Result<Self, Fault> {
        self.read(tag).map(Reader::new)
    }

    /// A non-negative integer of at most 32 bits.
    pub(super) fn small_integer(&mut self) -> Result<u32, Fault> {
        let bytes = self.read(tag::INTEGER)?;
        if bytes.is_empty() || bytes[0] & 0x80 != 0 {
            return Err("a DER integer is empty or negative");
        }
        if bytes.len() > 1 && bytes[0] == 0 && bytes[1] & 0x80 == 0 {
            return Err("a DER integer is not in its shortest form");
        }
        let digits = if bytes[0] == 0 { &bytes[1..] } else { bytes };
        if digits.len() > 4 {
            return Err("a DER integer is too large");
        }
        Ok(digits.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
    }
}

/// Length and the bytes it takes.
fn read_length(bytes: &[u8]) -> Result<(usize, usize), Fault> {
    let first = *bytes.first().ok_or("a DER element is cut short")?;
    if first < 0x80 {
        return Ok((usize::from(first), 1));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 {
        return Err("a DER length is indefinite");
    }
    // Key files are far below 16 MiB.
    if count > 3 {
        return Err("a DER length is too large");
    }
    let digits = bytes.get(1..=count).ok_or("a DER element is cut short")?;
    let length = digits.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    if digits[0] == 0 || length < 0x80 {
        return Err("a DER length is not in its shortest form");
    }
    Ok((length, 1 + count))
}

/// Writes one element: tag, length, and the parts of its content. The buffer never grows, so no
/// copy of a key is left behind.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length + 5));
    out.push(tag);
    let digits = length.to_be_bytes();
    if length < 0x80 {
        out.push(digits[digits.len() - 1]);
    } else {
        let skip = digits.iter().take_while(|digit| **digit == 0).count();
        let count = u8::try_from(digits.len() - skip).expect("a usize has at most eight bytes");
        out.push(0x80 | count);
        out.extend_from_slice(&digits[skip..]);
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
    fn what_is_written_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 65535, 65536] {
            let content = vec![7; length];
            let der = element(tag::OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&der);
            assert_eq!(reader.read(tag::OCTET_STRING), Ok(&content[..]));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [
            &[0x04][..],
            &[0x04, 0x01],
            &[0x04, 0x80, 0, 0],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x04, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x04, 0xff],
        ] {
            assert!(
                Reader::new(bytes).read(tag::OCTET_STRING).is_err(),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn an_integer_is_small_positive_and_short() {
        for (bytes, wanted) in [
            (&[2, 1, 0][..], Some(0)),
            (&[2, 2, 8, 0], Some(2048)),
            (&[2, 5, 0, 0xff, 0xff, 0xff, 0xff], Some(u32::MAX)),
            (&[2, 0], None),
            (&[2, 1, 0x80], None),
            (&[2, 2, 0, 1], None),
            (&[2, 5, 1, 0, 0, 0, 0], None),
        ] {
            assert_eq!(
                Reader::new(bytes).small_integer().ok(),
                wanted,
                "{bytes:x?}"
            );
        }
    }
}
