//! The reader: strict, bounded in depth, one pass.

use std::borrow::Cow;

use super::{JsonError, Value};

/// Parses one JSON value and nothing after it (white space around it excepted).
///
/// Refused: values far denser than Notary writes them (they would take fifty times their size in
/// memory), duplicate members, more than 64 levels, invalid UTF-8, lone surrogates, raw control
/// characters in strings, fractions, exponents, integers beyond 2^53.
///
/// # Errors
///
/// With the offset of the first byte that does not fit.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
        at: error.valid_up_to(),
        why: "invalid UTF-8",
    })?;
    let values_left = MIN_VALUES + bytes.len() / BYTES_PER_VALUE;
    let mut parser = Parser {
        text,
        bytes,
        at: 0,
        values_left,
    };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < bytes.len() {
        return parser.fail("something follows the value");
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, why: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, why })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// `depth` is the number of arrays and objects that this value is in.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.values_left = match self.values_left.checked_sub(1) {
            Some(left) => left,
            None => return self.fail("more values than a file of this size may hold"),
        };
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(_) => self.fail("no value starts like this"),
            None => self.fail("it ends too early"),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return self.fail("no value starts like this");
        }
        self.at += word.len();
        Ok(value)
    }

    fn enter(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return self.fail("it is nested more than 64 levels deep");
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.enter(depth)?;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.ends(b']')? {
                return Ok(Value::Array(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        self.enter(depth)?;
        // A target has two or three members, and there may be very many of them.
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::with_capacity(2);
        // What Notary writes is sorted, so that uniqueness costs one comparison a member.
        let mut sorted = true;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.fail("a member has no name");
            }
            let name = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.fail("a name without a colon");
            }
            self.at += 1;
            self.skip_space();
            let value = self.value(depth)?;
            sorted = sorted && members.last().is_none_or(|(last, _)| *last < name);
            members.push((name, value));
            if self.ends(b'}')? {
                break;
            }
        }
        if !sorted {
            let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(JsonError {
                    at: start,
                    why: "a member occurs twice",
                });
            }
        }
        Ok(Value::Object(members))
    }

    /// After an item: false at a comma (and the next item is up), true at `close`.
    fn ends(&mut self, close: u8) -> Result<bool, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                Ok(false)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => self.fail("neither a comma nor the end of the list"),
            None => self.fail("it ends too early"),
        }
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let digits = self.at;
        let mut number: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number * 10 + i64::from(digit - b'0');
            if number > MAX_INT {
                return Err(JsonError {
                    at: start,
                    why: "an integer beyond 2^53",
                });
            }
            self.at += 1;
        }
        let fault = match (&self.bytes[digits..self.at], self.peek()) {
            ([], _) => Some("a minus sign without digits"),
            ([b'0', _, ..], _) => Some("a number with a leading zero"),
            ([b'0'], _) if negative => Some("minus zero"),
            (_, Some(b'.' | b'e' | b'E')) => Some("a number that is not a plain integer"),
            _ => None,
        };
        match fault {
            Some(why) => Err(JsonError { at: start, why }),
            None => Ok(Value::Int(if negative { -number } else { number })),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut start = self.at;
        let mut owned: Option<String> = None;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let rest = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(rest),
                        Some(mut owned) => {
                            owned.push_str(rest);
                            Cow::Owned(owned)
                        }
                    });
                }
                Some(b'\\') => {
                    let owned = owned.get_or_insert_default();
                    owned.push_str(&self.text[start..self.at]);
                    owned.push(self.escape()?);
                    start = self.at;
                }
                Some(0..0x20) => return self.fail("a raw control character in a string"),
                Some(_) => {
                    let plain = self.bytes[self.at..]
                        .iter()
                        .position(|byte| ENDS_RUN[*byte as usize]);
                    self.at = plain.map_or(self.bytes.len(), |run| self.at + run);
                }
                None => return self.fail("it ends too early"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex4()?;
                let code = match first {
                    0xd800..0xdc00 if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        match self.hex4()? {
                            second @ 0xdc00..0xe000 => {
                                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                            }
                            _ => first,
                        }
                    }
                    _ => first,
                };
                return char::from_u32(code).ok_or(JsonError {
                    at: start,
                    why: "a lone surrogate",
                });
            }
            _ => {
                return Err(JsonError {
                    at: start,
                    why: "an unknown escape",
                });
            }
        };
        self.at += 1;
        Ok(plain)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let fault = JsonError {
            at: self.at,
            why: "four hex digits are missing",
        };
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(fault.clone())?;
        let mut code = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or(fault.clone())?;
            code = code * 16 + digit;
        }
        self.at += 4;
        Ok(code)
    }
}

/// What a run of plain bytes in a string ends at.
const ENDS_RUN: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};
/// A target, the densest that a document has in number, takes some 90 bytes for its four values.
const BYTES_PER_VALUE: usize = 16;
/// Any file may hold this many, however short it is.
const MIN_VALUES: usize = 1 << 16;
const MAX_DEPTH: usize = 64;
const MAX_INT: i64 = 1 << 53;
