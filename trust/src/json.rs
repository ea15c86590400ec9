//! JSON as Notary signs it and as Go writes it. The only file that prints either.
//!
//! Canonical bytes are what is signed: members sorted by the bytes of their names, no white space,
//! only `"` and `\` escaped, integers only (docker/go `canonical/json`). Wire bytes are what is
//! stored and hashed: the canonical bytes with `<`, `>`, `&`, U+2028 and U+2029 written as
//! `\u00XX`. A document is never re-parsed and re-printed between the two.

use std::borrow::Cow;

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
    Array(Vec<Value<'a>>),
    /// An object; members in the order of the input, names unique.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
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

/// Parses one JSON value and nothing after it (trailing white space excepted).
///
/// Refused: duplicate members, more than 64 levels, invalid UTF-8, lone surrogates, raw control
/// characters in strings, fractions, exponents, integers beyond 2^53.
///
/// # Errors
///
/// With the offset of the first byte that does not fit.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, JsonError> {
    let _ = bytes;
    todo!()
}

impl Value<'_> {
    /// The bytes that are signed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        todo!()
    }
}

/// What Go would put on the wire for these canonical bytes.
#[must_use]
pub fn wire(canonical: &[u8]) -> Vec<u8> {
    let _ = canonical;
    todo!()
}
