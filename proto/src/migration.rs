//! What two hosts hand each other when keys move, as text that survives a mail, a stick or a pipe.
//!
//! ```text
//! new host                                    old host
//!   offer    id, one-time recipient, name ──►
//!            ◄── package  an age file to that recipient: an archive with `migration.json` in it
//!   receipt  id, the package's digest, a
//!            proof by each key            ──►
//!            ◄── note     which keys are retired
//! ```
//!
//! All four are hostile input: bounded before they are read, strictly parsed, and nothing in them
//! is a time, so no clock matters. Nothing here is secret but the nonce in `migration.json`, which
//! only the two hosts ever see.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::archive::is_id;

/// The format that this Signet writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The member of a package that says what moves.
pub const MEMBER: &str = "migration.json";
/// Largest receipt, note or `migration.json`: 1 KiB for each of the most keys.
pub const MAX_DOCUMENT: usize = 10 * 1024 * 1024;
/// Longest offer.
pub const MAX_OFFER: usize = 512;
/// Most keys in one migration, as in one archive.
pub const MAX_KEYS: usize = 10_000;

/// First word of an offer.
const OFFER: &str = "signet-offer-1";
/// Longest name of a host.
const MAX_HOST: usize = 64;
/// Longest text: a role, a GUN, a label.
const MAX_TEXT: usize = 1024;
/// Longest signature in hex: RSA with 4,096 bits.
const MAX_SIGNATURE: usize = 2 * 512;
/// Longest line of a checkpoint.
const MAX_CHECKPOINT: usize = 4096;
/// An X25519 recipient: `age1` and 58 characters of Bech32 (age-encryption.org/v1).
const RECIPIENT: usize = 62;

/// Why one of them cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// Another kind of message, or none at all.
    #[error("it is no {expected} of a migration")]
    Kind {
        /// What was wanted: offer, receipt, note, package.
        expected: &'static str,
    },
    /// Written by a newer Signet.
    #[error("it is of format {0}, and this Signet reads up to {FORMAT}")]
    Newer(u32),
    /// Not what a Signet writes.
    #[error("it is damaged: {0}")]
    Syntax(String),
}

/// What the new host is ready to receive; one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Of the migration: 32 hex digits.
    pub id: String,
    /// To whom the package is encrypted, once.
    pub recipient: String,
    /// The new host's name, as it calls itself.
    pub host: String,
}

impl Offer {
    /// Reads an offer: the line, with or without its end.
    ///
    /// # Errors
    ///
    /// [`BadMessage`].
    pub fn parse(text: &str) -> Result<Self, BadMessage> {
        let kind = BadMessage::Kind { expected: "offer" };
        let line = text.trim();
        if text.len() > MAX_OFFER || !line.starts_with("signet-offer-") {
            return Err(kind);
        }
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        if word != OFFER {
            let format = word
                .strip_prefix("signet-offer-")
                .and_then(|n| n.parse().ok());
            return Err(format.map_or(kind, BadMessage::Newer));
        }
        let (Some(id), Some(recipient), Some(host), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(syntax("an offer is one line of four words"));
        };
        if !is_hex(id, 32) {
            return Err(syntax("its migration ID is none"));
        }
        if !is_recipient(recipient) {
            return Err(syntax("its recipient is no age recipient"));
        }
        if !is_host(host) {
            return Err(syntax("its host name is none"));
        }
        Ok(Self {
            id: id.to_owned(),
            recipient: recipient.to_owned(),
            host: host.to_owned(),
        })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OFFER} {} {} {}", self.id, self.recipient, self.host)
    }
}

/// `migration.json`: what a package moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the migration.
    pub id: String,
    /// What proofs and the closing note are bound to: 64 hex digits, made by the old host.
    pub nonce: String,
    /// The old host's name.
    pub host: String,
    /// What tells its directory of Docker's keys from another's, in 64 hex digits; empty if no key
    /// lies there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker: String,
    /// Every key that moves, those on cards too.
    pub keys: Vec<Key>,
}

/// A key that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Canonical ID.
    pub id: String,
    /// root, targets, snapshot or a signer's name.
    pub role: String,
    /// Empty if none.
    pub gun: String,
    /// Empty if none.
    pub label: String,
    /// `file`, `docker` or `piv`.
    pub store: String,
}

/// What the new host has proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// `receipt`.
    pub signet: String,
    /// [`FORMAT`].
    pub format: u32,
    /// Of the migration.
    pub id: String,
    /// The new host's name.
    pub host: String,
    /// SHA-256 of the package as it travelled.
    pub package: String,
    /// A possession proof for each key, by that key.
    pub proofs: Vec<Proof>,
    /// The checkpoint of the new host's log when it made them, as its line (`docs/log-format.md`);
    /// absent while that log was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// A possession proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The key's ID.
    pub key: String,
    /// The key's signature, in hex, over [`statement`].
    pub signature: String,
}

/// What the old host has retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// `note`.
    pub signet: String,
    /// [`FORMAT`].
    pub format: u32,
    /// Of the migration.
    pub id: String,
    /// The old host's name.
    pub host: String,
    /// Key IDs, in order.
    pub retired: Vec<String>,
    /// HMAC-SHA-256 over [`Note::statement`] with the nonce as the key, in hex.
    pub mac: String,
}

/// The bytes that a key signs to show that it is there.
#[must_use]
pub fn statement(id: &str, key: &str, nonce: &str) -> String {
    format!("signet possession proof v1\nmigration\n{id}\n{key}\n{nonce}\n")
}

impl Head {
    /// Reads `migration.json`, strictly.
    ///
    /// # Errors
    ///
    /// [`BadMessage`].
    pub fn parse(json: &[u8]) -> Result<Self, BadMessage> {
        let head: Self = read(json, "package", |_| true)?;
        if !is_hex(&head.id, 32) {
            return Err(syntax("its migration ID is none"));
        }
        if !is_id(&head.nonce) {
            return Err(syntax("its nonce is not 32 bytes in hex"));
        }
        if !is_host(&head.host) {
            return Err(syntax("its host name is none"));
        }
        if !head.docker.is_empty() && !is_id(&head.docker) {
            return Err(syntax("what it says of Docker's directory is no digest"));
        }
        ids(head.keys.iter().map(|key| key.id.as_str()))?;
        let texts = head
            .keys
            .iter()
            .flat_map(|key| [&key.role, &key.gun, &key.label, &key.store]);
        if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
            return Err(syntax("a text in it is too long"));
        }
        Ok(head)
    }

    /// As it lies in the package.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }
}

impl Receipt {
    /// What [`Receipt::signet`] says.
    pub const KIND: &'static str = "receipt";

    /// Reads a receipt, strictly.
    ///
    /// # Errors
    ///
    /// [`BadMessage`].
    pub fn parse(json: &[u8]) -> Result<Self, BadMessage> {
        let receipt: Self = read(json, "receipt", |kind| kind == Some(Self::KIND))?;
        if !is_hex(&receipt.id, 32) || !is_host(&receipt.host) {
            return Err(syntax("its migration ID or host name is none"));
        }
        if !is_id(&receipt.package) {
            return Err(syntax("the digest of its package is none"));
        }
        ids(receipt.proofs.iter().map(|proof| proof.key.as_str()))?;
        let no_signature = |proof: &Proof| {
            proof.signature.len() > MAX_SIGNATURE || hex::decode(&proof.signature).is_err()
        };
        if receipt.proofs.iter().any(no_signature) {
            return Err(syntax("a proof in it is no signature"));
        }
        let checkpoint = receipt.checkpoint.as_deref().unwrap_or_default();
        if checkpoint.len() > MAX_CHECKPOINT || checkpoint.contains(char::is_control) {
            return Err(syntax("the checkpoint in it is none"));
        }
        Ok(receipt)
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }
}

impl Note {
    /// What [`Note::signet`] says.
    pub const KIND: &'static str = "note";

    /// Reads a closing note, strictly.
    ///
    /// # Errors
    ///
    /// [`BadMessage`].
    pub fn parse(json: &[u8]) -> Result<Self, BadMessage> {
        let note: Self = read(json, "closing note", |kind| kind == Some(Self::KIND))?;
        if !is_hex(&note.id, 32) || !is_host(&note.host) {
            return Err(syntax("its migration ID or host name is none"));
        }
        ids(note.retired.iter().map(String::as_str))?;
        if !is_id(&note.mac) {
            return Err(syntax("its seal is none"));
        }
        Ok(note)
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }

    /// The bytes that are sealed with the nonce.
    #[must_use]
    pub fn statement(&self) -> String {
        let mut text = format!("signet closing note v1\n{}\n{}\n", self.id, self.host);
        for id in &self.retired {
            text.push_str(id);
            text.push('\n');
        }
        text
    }
}

/// What a file of a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line for the old host.
    Offer,
    /// An age file.
    Package,
    /// For the old host.
    Receipt,
    /// For the new host.
    Note,
}

/// What a file is, as far as its first bytes say.
#[must_use]
pub fn kind(bytes: &[u8]) -> Option<Kind> {
    let head = bytes.get(..bytes.len().min(MAX_OFFER)).unwrap_or_default();
    if head.starts_with(b"age-encryption.org/v1\n") {
        return Some(Kind::Package);
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start();
    if text.starts_with("signet-offer-") {
        return Some(Kind::Offer);
    }
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if compact.starts_with("{\"signet\":\"receipt\"") {
        Some(Kind::Receipt)
    } else if compact.starts_with("{\"signet\":\"note\"") {
        Some(Kind::Note)
    } else {
        None
    }
}

/// A host's name as far as a message can hold it.
#[must_use]
pub fn host_name(name: &str) -> String {
    let safe = name.chars().filter(|c| is_host_char(*c));
    let safe: String = safe.take(MAX_HOST).collect();
    if safe.is_empty() {
        "host".to_owned()
    } else {
        safe
    }
}

/// The number and kind first: a newer format may have other members.
fn read<T: DeserializeOwned>(
    json: &[u8],
    expected: &'static str,
    is: impl Fn(Option<&str>) -> bool,
) -> Result<T, BadMessage> {
    #[derive(Deserialize)]
    struct Format {
        signet: Option<String>,
        format: u32,
    }
    if json.len() > MAX_DOCUMENT {
        return Err(syntax("it is larger than any real one"));
    }
    let Ok(Format { signet, format }) = serde_json::from_slice(json) else {
        return Err(BadMessage::Kind { expected });
    };
    if !is(signet.as_deref()) {
        return Err(BadMessage::Kind { expected });
    }
    if format > FORMAT {
        return Err(BadMessage::Newer(format));
    }
    if format == 0 {
        return Err(syntax("its format is none"));
    }
    serde_json::from_slice(json).map_err(|error| BadMessage::Syntax(error.to_string()))
}

fn write(message: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(message).expect("strings and numbers are JSON");
    json.push(b'\n');
    json
}

fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), BadMessage> {
    let mut seen = HashSet::new();
    for id in ids {
        if !is_id(id) {
            return Err(syntax("a key in it has no key ID"));
        }
        if !seen.insert(id) {
            return Err(syntax("it names a key twice"));
        }
        if seen.len() > MAX_KEYS {
            return Err(syntax("it names too many keys"));
        }
    }
    Ok(())
}

fn syntax(what: &str) -> BadMessage {
    BadMessage::Syntax(what.to_owned())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_recipient(text: &str) -> bool {
    let rest = text.strip_prefix("age1");
    let rest = rest.filter(|_| text.len() == RECIPIENT).unwrap_or_default();
    !rest.is_empty()
        && rest
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_host_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._".contains(c)
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_HOST && text.chars().all(is_host_char)
}

#[cfg(test)]
mod tests;
