//! The reader: strict, bounded in depth, one pass.

use std::{borrow::Cow, ops::Range};

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
    Parser::new(bytes, &mut |_, _| false)?.whole(None)
}

/// What [`parse_streaming`] read.
#[derive(Debug)]
pub(crate) struct Streamed<'a> {
    /// All of it, but that the object which was streamed is empty.
    pub(crate) value: Value<'a>,
    /// Where the object that holds it stands, in canonical form.
    pub(crate) canonical: Range<usize>,
}

/// As [`parse`], without a tree for one very large object: `path` leads to it, and its members go
/// to `each`, one by one.
///
/// The object that holds it must be in canonical form. `None` when it is not, when anything is
/// wrong with the bytes, or when `each` said false: [`parse`] then says what, if anything.
pub(crate) fn parse_streaming<'a>(
    bytes: &'a [u8],
    path: &[&str],
    each: &mut dyn FnMut(&str, &Value<'a>) -> bool,
) -> Option<Streamed<'a>> {
    let mut parser = Parser::new(bytes, each).ok()?;
    let value = parser.whole(Some(path)).ok()?;
    let canonical = parser.canonical?;
    Some(Streamed { value, canonical })
}

struct Parser<'a, 's> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
    /// Nothing read so far was other than canonical.
    plain: bool,
    /// Where the parent of the streamed object is.
    canonical: Option<Range<usize>>,
    each: &'s mut dyn FnMut(&str, &Value<'a>) -> bool,
}

/// The names that lead from a value to the object that is streamed; `None` when it is not in there.
type Path<'p> = Option<&'p [&'p str]>;

impl<'a, 's> Parser<'a, 's> {
    fn new(
        bytes: &'a [u8],
        each: &'s mut dyn FnMut(&str, &Value<'a>) -> bool,
    ) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
            at: error.valid_up_to(),
            why: "invalid UTF-8",
        })?;
        Ok(Self {
            text,
            bytes,
            at: 0,
            values_left: MIN_VALUES + bytes.len() / BYTES_PER_VALUE,
            plain: true,
            canonical: None,
            each,
        })
    }

    /// The value, and nothing after it.
    fn whole(&mut self, path: Path<'_>) -> Result<Value<'a>, JsonError> {
        self.skip_space();
        let value = self.value(0, path)?;
        self.skip_space();
        if self.at < self.bytes.len() {
            return self.fail("something follows the value");
        }
        Ok(value)
    }

    fn fail<T>(&self, why: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, why })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.plain = false;
            self.at += 1;
        }
    }

    /// `depth` is the number of arrays and objects that this value is in.
    fn value(&mut self, depth: usize, path: Path<'_>) -> Result<Value<'a>, JsonError> {
        self.values_left = match self.values_left.checked_sub(1) {
            Some(left) => left,
            None => return self.fail("more values than a file of this size may hold"),
        };
        match self.peek() {
            Some(b'{') => match path {
                None | Some([_, _, ..]) => self.object(depth + 1, path),
                Some([_]) => self.parent(depth + 1, path),
                Some([]) => self.streamed(depth + 1),
            },
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
            items.push(self.value(depth, None)?);
            if self.ends(b']')? {
                return Ok(Value::Array(items));
            }
        }
    }

    /// The object that holds the one which is streamed: its place is noted if it is canonical.
    fn parent(&mut self, depth: usize, path: Path<'_>) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        self.plain = true;
        let value = self.object(depth, path)?;
        self.canonical = self.plain.then_some(start..self.at);
        Ok(value)
    }

    /// An object whose members are handed out instead of kept.
    fn streamed(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.enter(depth)?;
        let mut last: Option<Cow<'a, str>> = None;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Vec::new()));
        }
        loop {
            let name = self.name()?;
            // Sorted, so that none occurs twice.
            if last.is_some_and(|last| last >= name) {
                return self.fail("members that do not rise");
            }
            let value = self.value(depth, None)?;
            if !(self.each)(&name, &value) {
                return self.fail("not taken");
            }
            last = Some(name);
            if self.ends(b'}')? {
                return Ok(Value::Object(Vec::new()));
            }
        }
    }

    /// The name of a member, up to its value.
    fn name(&mut self) -> Result<Cow<'a, str>, JsonError> {
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
        Ok(name)
    }

    fn object(&mut self, depth: usize, path: Path<'_>) -> Result<Value<'a>, JsonError> {
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
            let name = self.name()?;
            let path =
                path.and_then(|path| path.split_first().filter(|(first, _)| **first == name));
            let value = self.value(depth, path.map(|(_, rest)| rest))?;
            sorted = sorted && members.last().is_none_or(|(last, _)| *last < name);
            members.push((name, value));
            if self.ends(b'}')? {
                break;
            }
        }
        if !sorted {
            self.plain = false;
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
            Some(byte @ (b'"' | b'\\')) => char::from(byte),
            other => {
                // Written as itself in canonical form.
                self.plain = false;
                return self.other_escape(start, other);
            }
        };
        self.at += 1;
        Ok(plain)
    }

    /// An escape that canonical JSON does not have, from its second character on.
    fn other_escape(&mut self, start: usize, byte: Option<u8>) -> Result<char, JsonError> {
        let plain = match byte {
            Some(b'/') => '/',
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
