//! PEM with RFC 1421 headers, as Go's `encoding/pem` writes and reads it.
//!
//! PEM libraries refuse headers, and docker keeps role and GUN in them. Read: LF or CRLF, text
//! between blocks, any line width; strict base64. Written: LF, 64 columns, `Proc-Type` first and
//! the other headers sorted by name.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::KeyFileError;

/// More headers than any tool writes.
const MAX_HEADERS: usize = 32;
/// A role is shorter than 256 bytes, a GUN at most 255.
const MAX_HEADER_LINE: usize = 1024;
/// Columns of the body (RFC 7468 §2).
const WIDTH: usize = 64;

/// One block, its body decoded.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// All blocks of a text, in order. Text around them is skipped.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block>, KeyFileError> {
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(label) = marker(line, "BEGIN") {
            blocks.push(block(label, &mut lines)?);
        }
    }
    Ok(blocks)
}

/// The label of `-----BEGIN label-----`.
fn marker<'a>(line: &'a [u8], word: &str) -> Option<&'a str> {
    let line = std::str::from_utf8(line).ok()?;
    let label = line
        .strip_prefix("-----")?
        .strip_prefix(word)?
        .strip_prefix(' ')?;
    let label = label.strip_suffix("-----")?;
    let is_plain = label
        .bytes()
        .all(|b| b == b' ' || b.is_ascii_alphanumeric());
    is_plain.then_some(label)
}

fn block<'a>(
    label: &str,
    lines: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Block, KeyFileError> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut base64 = Zeroizing::new(Vec::new());
    let mut in_headers = true;
    for line in lines {
        if let Some(end) = marker(line, "END") {
            if end != label {
                return Err(KeyFileError::Damaged(
                    "its END line does not match its BEGIN line",
                ));
            }
            return Ok(Block {
                label: label.to_owned(),
                headers,
                body: decode(&base64)?,
            });
        }
        if line.starts_with(b"-----") {
            return Err(KeyFileError::Damaged(
                "a PEM block begins before another one ends",
            ));
        }
        if in_headers && let Some((name, value)) = header(line)? {
            if headers.len() == MAX_HEADERS {
                return Err(KeyFileError::Damaged("it has too many PEM headers"));
            }
            if headers.iter().any(|(known, _)| known == name) {
                return Err(KeyFileError::Damaged("a PEM header is given twice"));
            }
            headers.push((name.to_owned(), value.to_owned()));
            continue;
        }
        in_headers = false;
        grow(&mut base64, line.trim_ascii_start());
    }
    Err(KeyFileError::Damaged("it ends before its END line"))
}

/// Appends without leaving the old bytes behind when the buffer moves.
fn grow(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    if buffer.capacity() - buffer.len() < bytes.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((buffer.len() + bytes.len()) * 2));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(bytes);
}

fn header(line: &[u8]) -> Result<Option<(&str, &str)>, KeyFileError> {
    if !line.contains(&b':') {
        return Ok(None);
    }
    if line.len() > MAX_HEADER_LINE {
        return Err(KeyFileError::Damaged("a PEM header is too long"));
    }
    let line = std::str::from_utf8(line)
        .map_err(|_| KeyFileError::Damaged("a PEM header is not UTF-8 text"))?;
    if line.contains(char::is_control) {
        return Err(KeyFileError::Damaged("a PEM header has control characters"));
    }
    let (name, value) = line.split_once(':').expect("the line has a colon");
    Ok(Some((name.trim(), value.trim())))
}

fn decode(base64: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    // Sized beforehand: a buffer that grows leaves copies of the key behind.
    let mut body = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
    let length = STANDARD
        .decode_slice(base64, &mut body)
        .map_err(|_| KeyFileError::Damaged("its PEM body is not base64"))?;
    body.truncate(length);
    Ok(body)
}

/// Writes one block. Header values are one line each: line ends and other control characters in
/// them are left out, so that a name can never add a header of its own.
pub(super) fn write(label: &str, headers: &[(&str, &str)], body: &[u8]) -> Zeroizing<String> {
    let mut sorted: Vec<_> = headers.to_vec();
    sorted.sort_by_key(|(name, _)| (*name != "Proc-Type", *name));
    let encoded_len = base64::encoded_len(body.len(), true).expect("a key file is small");
    let mut encoded = Zeroizing::new(vec![0; encoded_len]);
    STANDARD
        .encode_slice(body, &mut encoded)
        .expect("the buffer has the encoded length");

    let header_len: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 3)
        .sum();
    let capacity = encoded_len + encoded_len / WIDTH + header_len + 2 * label.len() + 64;
    let mut out = Zeroizing::new(String::with_capacity(capacity));
    for part in ["-----BEGIN ", label, "-----\n"] {
        out.push_str(part);
    }
    for (name, value) in &sorted {
        out.push_str(name);
        out.push_str(": ");
        out.extend(value.chars().filter(|c| !c.is_control()));
        out.push('\n');
    }
    if !sorted.is_empty() {
        out.push('\n');
    }
    for line in encoded.chunks(WIDTH) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(text: &str) -> KeyFileError {
        match blocks(text.as_bytes()) {
            Ok(_) => panic!("accepted: {text:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn headers_are_sorted_after_proc_type() {
        let text = write(
            "X",
            &[("role", "a"), ("Proc-Type", "4,ENCRYPTED"), ("gun", "b")],
            b"abc",
        );
        let wanted = "-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\ngun: b\nrole: a\n\nYWJj\n\
                      -----END X-----\n";
        assert_eq!(text.as_str(), wanted);
    }

    #[test]
    fn a_value_cannot_add_a_header() {
        let text = write("X", &[("role", "a\ngun: evil")], b"abc");
        let read = blocks(text.as_bytes()).unwrap();
        assert_eq!(
            read[0].headers,
            [("role".to_owned(), "agun: evil".to_owned())]
        );
    }

    #[test]
    fn crlf_and_text_around_blocks_are_read() {
        let text = "Bag Attributes\r\n-----BEGIN X-----\r\nrole: a\r\n\r\nYWJj\r\n-----END X-----\r\n\
                    \r\nmore\r\n-----BEGIN Y-----\r\n ZGVm \r\n-----END Y-----";
        let read = blocks(text.as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].headers, [("role".to_owned(), "a".to_owned())]);
        assert_eq!(
            (&read[0].body[..], &read[1].body[..]),
            (&b"abc"[..], &b"def"[..])
        );
    }

    #[test]
    fn broken_blocks_say_what_is_broken() {
        for (text, why) in [
            ("-----BEGIN X-----\nYWJj\n", "it ends before its END line"),
            (
                "-----BEGIN X-----\nYWJj\n-----END Y-----\n",
                "its END line does not match its BEGIN line",
            ),
            (
                "-----BEGIN X-----\nYW-j\n-----END X-----\n",
                "its PEM body is not base64",
            ),
            (
                "-----BEGIN X-----\nYWJ\n-----END X-----\n",
                "its PEM body is not base64",
            ),
            (
                "-----BEGIN X-----\na: 1\na: 2\n\nYWJj\n-----END X-----\n",
                "a PEM header is given twice",
            ),
            (
                "-----BEGIN X-----\n-----BEGIN X-----\nYWJj\n-----END X-----\n",
                "a PEM block begins before another one ends",
            ),
        ] {
            assert_eq!(damage(text), KeyFileError::Damaged(why));
        }
        let long = format!(
            "-----BEGIN X-----\nrole: {}\n\n-----END X-----\n",
            "a".repeat(2000)
        );
        assert_eq!(
            damage(&long),
            KeyFileError::Damaged("a PEM header is too long")
        );
    }
}
