//! A share as a text file: to be kept as it is, printed, copied by hand, or scanned.
//!
//! ```text
//! # what it is, in words
//! signet-share: 1
//! set: <32 hex digits>
//! share: 2
//! needed: 3
//! of: 5
//! recipient: age1…
//! digest: <64 hex digits>          one line for each share of the set
//! words: <12 words of BIP39>       three lines: salt and y
//! # The same as a QR code:
//! …
//! ```
//!
//! What a scanned code holds is a share, too (one line, `SIGNET-SHARE-1:…`), and so are the lines
//! `share:` and `words:` alone beside a whole share of the same set.

use std::sync::Arc;

use bip39::{Language, Mnemonic};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use zeroize::Zeroizing;

use super::{Given, ID, SECRET, Set, Share, ShareError, Threshold};

/// Largest file taken: the largest share with its QR code is a fifth of it.
pub const MAX_FILE: u64 = 64 * 1024;
/// What a scanned code begins with.
const CODE: &str = "SIGNET-SHARE-1:";
/// Version of the text.
const VERSION: &str = "1";
/// Bytes that twelve words stand for (BIP39).
const TWELVE: usize = 16;
/// Longest line of twelve words: none has more than eight letters.
const LINE: usize = 128;
/// Where the part that is only to be looked at begins.
const PICTURE: &str = "# The same as a QR code:";

impl Share {
    /// The file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let set = &self.set;
        let threshold = set.threshold;
        // Reserved once: growing would leave copies of the words behind.
        let mut text = Zeroizing::new(String::with_capacity(32 * 1024));
        let mut line = |words: &str| {
            text.push_str(words);
            text.push('\n');
        };
        line(&format!(
            "# Share {} of {} of the key of a backup made by signet.",
            self.index, threshold.total
        ));
        line(&format!(
            "# Any {} of them open it:  signet restore FILE --share SHARE --share SHARE …",
            threshold.needed
        ));
        line("# Whoever has that many and the backup can try the passphrases of the keys in it:");
        line("# keep each share in another place, printed or as this file.");
        line(&format!("signet-share: {VERSION}"));
        line(&format!("set: {}", hex::encode(set.id)));
        line(&format!("share: {}", self.index));
        line(&format!("needed: {}", threshold.needed));
        line(&format!("of: {}", threshold.total));
        line(&format!("recipient: {}", set.recipient));
        for digest in &set.digests {
            line(&format!("digest: {}", hex::encode(digest)));
        }
        for part in self.secret.chunks(TWELVE) {
            let mut words = Zeroizing::new(String::with_capacity(LINE));
            words.push_str("words:");
            let mnemonic = Mnemonic::from_entropy(part).expect("BIP39 has words for 16 bytes");
            for word in mnemonic.words() {
                words.push(' ');
                words.push_str(word);
            }
            line(&words);
        }
        line(PICTURE);
        if let Some(picture) = self.picture() {
            line(&picture);
        }
        text
    }

    /// What its QR code holds: characters of the alphanumeric mode only (ISO/IEC 18004, 7.4.4).
    #[must_use]
    pub fn to_code(&self) -> Zeroizing<String> {
        let set = &self.set;
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        bytes.extend_from_slice(&set.id);
        bytes.extend_from_slice(&[set.threshold.needed, set.threshold.total, self.index]);
        bytes.extend_from_slice(&self.secret[..]);
        for digest in &set.digests {
            bytes.extend_from_slice(digest);
        }
        let hex = Zeroizing::new(hex::encode_upper(&bytes[..]));
        let recipient = set.recipient.to_ascii_uppercase();
        Zeroizing::new(format!("{CODE}{}:{recipient}", *hex))
    }

    fn picture(&self) -> Option<Zeroizing<String>> {
        let code = QrCode::with_error_correction_level(self.to_code().as_bytes(), EcLevel::L);
        let code = code.ok()?;
        // Dark on light paper: the light squares are what is left out.
        let picture = code
            .render::<Dense1x2>()
            .dark_color(Dense1x2::Dark)
            .light_color(Dense1x2::Light)
            .build();
        Some(Zeroizing::new(picture))
    }
}

/// Reads a share: a file, a scanned code, or words alone.
///
/// # Errors
///
/// [`ShareError::Syntax`], [`ShareError::Threshold`].
pub fn parse(bytes: &[u8]) -> Result<Given, ShareError> {
    let syntax = ShareError::Syntax;
    if bytes.len() as u64 > MAX_FILE {
        return Err(syntax("it is larger than any share"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| syntax("it is no text"))?;
    if text.trim_start().starts_with(CODE) {
        return parse_code(text.trim());
    }
    let mut fields = Fields::default();
    for line in text.lines().map(str::trim) {
        if line == PICTURE {
            break;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or(syntax("a line in it is no `name: value`"))?;
        fields.take(name.trim(), value.trim())?;
    }
    fields.read()
}

/// The lines of a share.
#[derive(Default)]
struct Fields<'a> {
    version: Option<&'a str>,
    set: Option<&'a str>,
    share: Option<&'a str>,
    needed: Option<&'a str>,
    of: Option<&'a str>,
    recipient: Option<&'a str>,
    digests: Vec<&'a str>,
    words: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &str, value: &'a str) -> Result<(), ShareError> {
        let once = match name {
            "signet-share" => &mut self.version,
            "set" => &mut self.set,
            "share" => &mut self.share,
            "needed" => &mut self.needed,
            "of" => &mut self.of,
            "recipient" => &mut self.recipient,
            "digest" if self.digests.len() < usize::from(super::MAX_SHARES) => {
                self.digests.push(value);
                return Ok(());
            }
            "words" if self.words.len() < SECRET / TWELVE => {
                self.words.push(value);
                return Ok(());
            }
            _ => return Err(ShareError::Syntax("it has lines that no share has")),
        };
        match once.replace(value) {
            None => Ok(()),
            Some(_) => Err(ShareError::Syntax("it says something twice")),
        }
    }

    fn read(&self) -> Result<Given, ShareError> {
        let syntax = ShareError::Syntax;
        if self.version.is_some_and(|version| version != VERSION) {
            return Err(syntax("it was written by a newer signet"));
        }
        let index = number(self.share)?;
        let secret = secret(&self.words)?;
        let Some(set) = self.set else {
            if self.version.is_some() || self.recipient.is_some() {
                return Err(syntax("it does not say which set it is of"));
            }
            return Ok(Given::Words { index, secret });
        };
        let mut id = [0; ID];
        hex::decode_to_slice(set, &mut id).map_err(|_| syntax("its set is no ID"))?;
        let threshold = Threshold::new(number(self.needed)?, number(self.of)?)?;
        let mut digests = Vec::new();
        for text in &self.digests {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest).map_err(|_| syntax("a digest is none"))?;
            digests.push(digest);
        }
        let recipient = self.recipient.ok_or(syntax("it names no recipient"))?;
        let set = Set::new(id, threshold, recipient, digests)?;
        whole(set, index, secret)
    }
}

fn whole(set: Set, index: u8, secret: Zeroizing<[u8; SECRET]>) -> Result<Given, ShareError> {
    if index == 0 || index > set.threshold.total {
        return Err(ShareError::Syntax("there is no share of that number"));
    }
    Ok(Given::Whole(Share {
        set: Arc::new(set),
        index,
        secret,
    }))
}

fn number(text: Option<&str>) -> Result<u8, ShareError> {
    let text = text.ok_or(ShareError::Syntax("a number is missing"))?;
    text.parse()
        .map_err(|_| ShareError::Syntax("a number is none"))
}

fn secret(lines: &[&str]) -> Result<Zeroizing<[u8; SECRET]>, ShareError> {
    let mut secret = Zeroizing::new([0; SECRET]);
    let parts = secret.chunks_mut(TWELVE);
    if lines.len() != parts.len() {
        return Err(ShareError::Syntax("it has not three lines of words"));
    }
    for (part, line) in parts.zip(lines) {
        let mut lower = Zeroizing::new(String::with_capacity(line.len() + 1));
        for word in line.split_whitespace() {
            if !lower.is_empty() {
                lower.push(' ');
            }
            lower.extend(word.chars().map(|c| c.to_ascii_lowercase()));
        }
        let mnemonic =
            Mnemonic::parse_in_normalized(Language::English, &lower).map_err(|error| {
                ShareError::Syntax(match error {
                    bip39::Error::UnknownWord(_) => "a word in it is none of the list",
                    bip39::Error::InvalidChecksum => "its words do not fit together: one is wrong",
                    _ => "a line of words has not twelve of them",
                })
            })?;
        let (entropy, length) = mnemonic.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        if length != part.len() {
            return Err(ShareError::Syntax("a line of words has not twelve of them"));
        }
        part.copy_from_slice(&entropy[..length]);
    }
    Ok(secret)
}

fn parse_code(text: &str) -> Result<Given, ShareError> {
    let syntax = ShareError::Syntax;
    let rest = text.strip_prefix(CODE).ok_or(syntax("it is no code"))?;
    let (hex, recipient) = rest.split_once(':').ok_or(syntax("its code is cut"))?;
    let bytes = hex::decode(hex).map_err(|_| syntax("its code is damaged"))?;
    let bytes = Zeroizing::new(bytes);
    let cut = || syntax("its code is cut");
    let (id, rest) = bytes.split_first_chunk::<ID>().ok_or_else(cut)?;
    let ([needed, total, index], rest) = rest.split_first_chunk::<3>().ok_or_else(cut)?;
    let (secret, rest) = rest.split_first_chunk::<SECRET>().ok_or_else(cut)?;
    let (digests, left) = rest.as_chunks::<32>();
    if !left.is_empty() {
        return Err(cut());
    }
    let threshold = Threshold::new(*needed, *total)?;
    let recipient = recipient.to_ascii_lowercase();
    let set = Set::new(*id, threshold, &recipient, digests.to_vec())?;
    whole(set, *index, Zeroizing::new(*secret))
}
