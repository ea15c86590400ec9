//! `manifest.json`: what an archive holds, without a secret.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{MAX_MEMBERS, Member, digest, is_id, key_of, path};

/// The format that this Signet writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Longest role, GUN, label, host or problem.
const MAX_TEXT: usize = 1024;
/// Most cards of one key, and the largest certificate of one (objects of a card have at most 3 KiB,
/// SP 800-73-4, part 1, table 10).
const MAX_CARDS: usize = 64;
const MAX_CERTIFICATE: usize = 4096;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadManifest {
    /// A file is not what the manifest says.
    #[error("{0} is not what the manifest says")]
    Digest(String),
    /// A file that the manifest does not name.
    #[error("{0} is in the archive, but not in its manifest")]
    Extra(String),
    /// A file that only the manifest names.
    #[error("{0} is in the manifest, but not in the archive")]
    Missing(String),
    /// Written by a newer Signet.
    #[error("the archive is of format {0}, and this Signet reads up to {FORMAT}")]
    Newer(u32),
    /// Not what a Signet writes.
    #[error("the manifest is damaged: {0}")]
    Syntax(String),
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// 32 hex digits, of this archive alone.
    pub id: String,
    /// Where it was made.
    pub host: String,
    /// Unix seconds.
    pub created: i64,
    /// Version of the Signet that made it.
    pub signet: String,
    /// Every key, in the order of the list.
    pub keys: Vec<Key>,
    /// Every other member.
    pub files: Vec<File>,
    /// The log as it was, if the ledger is in it.
    pub log: Option<Log>,
    /// What is not in it, in words.
    pub notes: Vec<String>,
}

/// A key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Canonical ID.
    pub id: String,
    /// root, targets, snapshot or a signer's name; empty if unknown.
    pub role: String,
    /// Empty if none.
    pub gun: String,
    /// Empty if none.
    pub label: String,
    /// Empty if unknown.
    pub algorithm: String,
    /// Type of the public key; empty if unknown.
    pub key_type: String,
    /// Public key in hex; empty if unknown.
    pub public: String,
    /// IDs of root certificates made for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// `file`, `docker` or `piv`.
    pub store: String,
    /// Generated, imported or accepted where the archive was made.
    pub enrolled: bool,
    /// Its member; empty where the private key is not in the archive.
    pub file: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// It was opened and made a signature while it was packed.
    pub proved: bool,
    /// Why it was not proved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// Cards that hold it: its private key is on them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Card>,
}

/// A card that holds a key, as it was when the key came to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Card {
    /// Printed on it.
    pub serial: u32,
    /// 9a 9c 9d 9e 82-95.
    pub slot: String,
    /// `generated` `imported`; empty if unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Of the card.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub firmware: String,
    /// DER of the attestation of the key, in hex; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attestation: String,
    /// DER of the card's own certificate, which signed that, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub own: String,
    /// What the attestation proved then, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proves: String,
}

/// A member that is no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path.
    pub path: String,
    /// SHA-256 of it.
    pub sha256: String,
}

/// Where the log stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Entries.
    pub entries: u64,
    /// Hash of the newest, in hex.
    pub head: String,
    /// The checkpoint made of it, as its line (`docs/log-format.md`); absent while the log is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

impl Manifest {
    /// Reads a manifest, strictly.
    ///
    /// # Errors
    ///
    /// [`BadManifest::Newer`], [`BadManifest::Syntax`].
    pub fn parse(json: &[u8]) -> Result<Self, BadManifest> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let syntax = |error: serde_json::Error| BadManifest::Syntax(error.to_string());
        // The number first: a newer format may have other members.
        let Format { format } = serde_json::from_slice(json).map_err(syntax)?;
        if format > FORMAT {
            return Err(BadManifest::Newer(format));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(syntax)?;
        manifest.bounded()?;
        Ok(manifest)
    }

    /// As it lies in the archive.
    ///
    /// # Panics
    ///
    /// Never: strings and numbers are JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).expect("strings and numbers are JSON");
        json.push(b'\n');
        json
    }

    fn bounded(&self) -> Result<(), BadManifest> {
        let bad = |what: &str| Err(BadManifest::Syntax(what.to_owned()));
        if self.keys.len() + self.files.len() > MAX_MEMBERS {
            return bad("it names too many files");
        }
        if self.format == 0 || !is_hex(&self.id, 32) {
            return bad("its format or archive ID is none");
        }
        let mut texts = vec![&self.host, &self.signet];
        texts.extend(&self.notes);
        let mut ids = HashSet::new();
        let mut paths = HashSet::new();
        for key in &self.keys {
            texts.extend([&key.role, &key.gun, &key.label, &key.algorithm]);
            texts.extend([&key.key_type, &key.store, &key.problem]);
            if !is_id(&key.id) || !key.certificates.iter().all(|id| is_id(id)) {
                return bad("a key has no key ID");
            }
            if !ids.insert((&key.id, &key.store)) {
                return bad("it names a key twice");
            }
            if key.public.len() > 4096 || !key.public.bytes().all(|b| b.is_ascii_hexdigit()) {
                return bad("a public key is none");
            }
            if key.cards.len() > MAX_CARDS {
                return bad("it names too many cards");
            }
            for card in &key.cards {
                texts.extend([&card.slot, &card.origin, &card.firmware, &card.proves]);
                let sound = |der: &String| {
                    der.len() <= 2 * MAX_CERTIFICATE && der.bytes().all(|b| b.is_ascii_hexdigit())
                };
                if !sound(&card.attestation) || !sound(&card.own) {
                    return bad("a card's certificate is none");
                }
            }
            if key.file.is_empty() {
                continue;
            }
            if key_of(&key.file) != Some(key.id.as_str()) || !is_id(&key.sha256) {
                return bad("a key is in a file that is not called by its ID");
            }
            if !paths.insert(&key.file) {
                return bad("it names a file twice");
            }
        }
        for file in &self.files {
            texts.push(&file.path);
            if !is_id(&file.sha256) || !paths.insert(&file.path) {
                return bad("it names a file twice, or without its digest");
            }
        }
        if texts.iter().any(|text| text.len() > MAX_TEXT) {
            return bad("a text in it is too long");
        }
        if let Some(log) = &self.log {
            if !is_id(&log.head) {
                return bad("the head of its log is none");
            }
            if log
                .checkpoint
                .as_ref()
                .is_some_and(|line| line.len() > MAX_TEXT)
            {
                return bad("a text in it is too long");
            }
        }
        Ok(())
    }

    /// Whether `members` are exactly what it names, itself apart.
    ///
    /// # Errors
    ///
    /// [`BadManifest::Digest`], [`BadManifest::Extra`], [`BadManifest::Missing`].
    pub fn check(&self, members: &[Member]) -> Result<(), BadManifest> {
        let keys = self.keys.iter().filter(|key| !key.file.is_empty());
        let keys = keys.map(|key| (key.file.as_str(), key.sha256.as_str()));
        let files = self.files.iter();
        let files = files.map(|file| (file.path.as_str(), file.sha256.as_str()));
        let mut named: HashMap<&str, &str> = keys.chain(files).collect();
        for member in members.iter().filter(|m| m.path != path::MANIFEST) {
            let Some(wanted) = named.remove(member.path.as_str()) else {
                return Err(BadManifest::Extra(member.path.clone()));
            };
            if digest(&member.data) != wanted {
                return Err(BadManifest::Digest(member.path.clone()));
            }
        }
        match named.into_keys().min() {
            Some(path) => Err(BadManifest::Missing(path.to_owned())),
            None => Ok(()),
        }
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}
