//! JSON as Notary signs it and as Go writes it. The only file that prints either.
//!
//! Canonical bytes are what is signed: members sorted by the bytes of their names, no white space,
//! only `"` and `\` escaped, integers only (docker/go `canonical/json`). Wire bytes are what is
//! stored and hashed: the canonical bytes with `<`, `>`, `&`, U+2028 and U+2029 written as
//! `\u00XX`. A document is never re-parsed and re-printed between the two.

use std::borrow::Cow;

mod parse;

pub use parse::parse;
pub(crate) use parse::{Streamed, parse_streaming};

/// A JSON value, borrowing from the input where nothing had to be unescaped.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer, at most 2^53 in size either way: the greatest that every reader agrees on.
    Int(i64),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Self>),
    /// An object; members in the order of the input, names unique.
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// Why bytes are not the JSON we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON at byte {at}: {why}")]
pub struct JsonError {
    /// Offset of the first byte that does not fit.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl<'a> Value<'a> {
    /// The bytes that are signed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    /// Appends the bytes that are signed.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => write_int(out, *number),
            Self::String(text) => write_string(out, text),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                if members.is_sorted_by(|(a, _), (b, _)| a < b) {
                    write_members(out, members.iter());
                } else {
                    let mut sorted: Vec<_> = members.iter().collect();
                    sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                    write_members(out, sorted.into_iter());
                }
            }
        }
    }

    /// The value of a member, if this is an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        members
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }
}

fn write_members<'v, 'a: 'v>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = &'v (Cow<'a, str>, Value<'a>)>,
) {
    out.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        value.write_canonical(out);
    }
    out.push(b'}');
}

/// Appends a canonical string: quoted, with `"` and `\` escaped and nothing else.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(byte, b'"' | b'\\') {
            out.extend_from_slice(&bytes[done..at]);
            out.push(b'\\');
            done = at;
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Appends a plain decimal number.
pub(crate) fn write_int(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a string of standard base64 with padding: how byte arrays are written.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("the slice was made to fit");
    out.truncate(start + written);
    out.push(b'"');
}

/// What Go would put on the wire for these canonical bytes.
#[must_use]
pub fn wire(canonical: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(canonical.len());
    write_wire(&mut out, canonical);
    out
}

/// Appends what Go would put on the wire: `json.Marshal` escapes five characters for the sake of
/// browsers (Go `encoding/json`, `appendCompact` with `escape`).
pub(crate) fn write_wire(out: &mut Vec<u8>, canonical: &[u8]) {
    let mut done = 0;
    for (at, byte) in canonical.iter().enumerate() {
        let (escaped, len): (&[u8], usize) = match byte {
            b'<' => (br"\u003c", 1),
            b'>' => (br"\u003e", 1),
            b'&' => (br"\u0026", 1),
            0xe2 => match canonical.get(at..at + 3) {
                Some([_, 0x80, 0xa8]) => (br"\u2028", 3),
                Some([_, 0x80, 0xa9]) => (br"\u2029", 3),
                _ => continue,
            },
            _ => continue,
        };
        out.extend_from_slice(&canonical[done..at]);
        out.extend_from_slice(escaped);
        done = at + len;
    }
    out.extend_from_slice(&canonical[done..]);
}

/// Whether [`wire`] would change these canonical bytes.
pub(crate) fn is_escaped(canonical: &[u8]) -> bool {
    let special = |byte: &u8| matches!(byte, b'<' | b'>' | b'&' | 0xe2);
    canonical.iter().any(special) && wire(canonical) != canonical
}

#[cfg(test)]
mod tests;
