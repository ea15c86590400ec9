//! The log and its hash chain.
//!
//! Entry *n* has the hash `SHA-256(prev ‖ encoding)`, where `prev` is the hash of entry *n*-1 (32
//! zero bytes before the first) and the encoding is, in this order:
//!
//! ```text
//! "signet log entry v1\n"
//! number u64 · time i64 · version u32 · grade u32          big-endian
//! kind · gun · role · key · payload · summary · caller · rule · outcome
//!                                     each as its length (u32, big-endian) and its bytes
//! ```
//!
//! `key` and `payload` have 32 bytes or none. An entry with facts has the first line
//! `signet log entry v2` and, after `outcome`, its facts in the same way. Lengths are written out,
//! so no two entries have the same encoding. `docs/log-format.md` says the same for others.
//!
//! The chain finds accidents and partial edits; who can write the file can write another chain.
//! Triggers keep the agent's own code, and a careless hand, from changing or deleting an entry.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row, params};
use sha2::{Digest, Sha256};
use signet_trust::KeyId;

use super::{Entry, NewEntry};

/// Number and hash of the newest entry.
pub(super) type Head = (u64, [u8; 32]);

const TAG: &[u8] = b"signet log entry v1\n";
/// Of entries with facts.
const TAG_FACTS: &[u8] = b"signet log entry v2\n";
/// The longest text of an entry: a summary may name many tags, nothing else is long.
const MAX_SUMMARY: usize = 64 * 1024;
const MAX_TEXT: usize = 4 * 1024;

/// Kinds that are written; others are read all the same.
const KINDS: [&str; 15] = [
    "sign",
    "certificate",
    "refuse",
    "fail",
    "publish",
    "generate",
    "import",
    "export",
    "label",
    "remove",
    "passphrase",
    "rotate",
    "unlock",
    "lock",
    "opaque",
];

/// Appends an entry after `head`; the new head.
pub(super) fn append(db: &Connection, head: Head, entry: &NewEntry) -> rusqlite::Result<Head> {
    let number = head.0 + 1;
    let entry = Bounded {
        number,
        time: entry.time,
        kind: cut(entry.kind, MAX_TEXT),
        gun: cut(&entry.gun, MAX_TEXT),
        role: cut(&entry.role, MAX_TEXT),
        version: entry.version,
        key: entry.key.as_ref().map(|key| &key.0[..]),
        payload: entry.payload.as_ref().map(|hash| &hash[..]),
        summary: cut(&entry.summary, MAX_SUMMARY),
        caller: cut(&entry.caller, MAX_TEXT),
        grade: entry.grade,
        rule: cut(&entry.rule, MAX_TEXT),
        outcome: cut(&entry.outcome, MAX_TEXT),
        // Cut, it would be no JSON any more; its parts are bounded where they are read.
        facts: match entry.facts.len() {
            0..=MAX_TEXT => &entry.facts,
            _ => "",
        },
    };
    let hash = entry.hash(&head.1);
    let mut insert = db.prepare_cached(
        "INSERT INTO log (number, time, kind, gun, role, version, key, payload, summary, caller,
                          grade, rule, outcome, facts, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    insert.execute(params![
        number.cast_signed(),
        entry.time,
        entry.kind,
        entry.gun,
        entry.role,
        entry.version,
        entry.key,
        entry.payload,
        entry.summary,
        entry.caller,
        entry.grade,
        entry.rule,
        entry.outcome,
        entry.facts,
        &hash[..],
    ])?;
    Ok((number, hash))
}

/// The newest entry.
pub(super) fn head(db: &Connection) -> rusqlite::Result<Head> {
    let mut newest =
        db.prepare_cached("SELECT number, hash FROM log ORDER BY number DESC LIMIT 1")?;
    let mut rows = newest.query([])?;
    match rows.next()? {
        Some(row) => Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)),
        None => Ok((0, [0; 32])),
    }
}

/// Entries from `from` (1-based), at most `count`.
pub(super) fn entries(db: &Connection, from: u64, count: u64) -> rusqlite::Result<Vec<Entry>> {
    let mut select = db.prepare_cached(&format!(
        "{SELECT} WHERE number >= ?1 ORDER BY number LIMIT ?2"
    ))?;
    let rows = select.query_map(params![signed(from), signed(count)], |row| {
        let stored = Stored::read(row)?;
        Ok(Entry {
            number: stored.number,
            hash: stored.hash,
            entry: stored.entry()?,
        })
    })?;
    rows.collect()
}

/// Signatures that a key made since a time. Entries are read from the newest on, so that the cost
/// is that of the time asked about; a clock that jumped back costs a look at older ones.
pub(super) fn signed_since(db: &Connection, key: &KeyId, since: i64) -> rusqlite::Result<u64> {
    let mut select = db.prepare_cached("SELECT time, kind, key FROM log ORDER BY number DESC")?;
    let mut rows = select.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? < since {
            break;
        }
        let made = row.get_ref(1)?.as_str()? == "sign";
        if made && row.get_ref(2)?.as_bytes_or_null()? == Some(&key.0[..]) {
            count += 1;
        }
    }
    Ok(count)
}

/// What does not hold from entry `from` on, if anything; the number of entries looked at. `seen`
/// gets number and hash of each entry that holds.
pub(super) fn check(
    db: &Connection,
    from: u64,
    mut seen: impl FnMut(u64, &[u8; 32]),
) -> rusqlite::Result<Result<u64, String>> {
    let from = from.max(1);
    let mut prev = [0; 32];
    if from > 1 {
        let mut before = db.prepare_cached("SELECT hash FROM log WHERE number = ?1")?;
        let mut rows = before.query([signed(from - 1)])?;
        match rows.next()? {
            Some(row) => prev = row.get(0)?,
            None => return Ok(Err(format!("entry {} is missing", from - 1))),
        }
    }
    let mut select = db.prepare_cached(&format!("{SELECT} WHERE number >= ?1 ORDER BY number"))?;
    let mut rows = select.query([signed(from)])?;
    let mut next = from;
    while let Some(row) = rows.next()? {
        let Ok(stored) = Stored::read(row) else {
            return Ok(Err(format!("entry {next} cannot be read")));
        };
        if stored.number != next {
            return Ok(Err(format!("entry {next} is missing")));
        }
        let hash = stored.bounded().hash(&prev);
        if hash != stored.hash {
            return Ok(Err(format!(
                "entry {next}, or the one before it, was changed"
            )));
        }
        seen(next, &hash);
        prev = hash;
        next += 1;
    }
    Ok(Ok(next - from))
}

const SELECT: &str = "SELECT number, time, kind, gun, role, version, key, payload, summary, caller,
                             grade, rule, outcome, facts, hash FROM log";

/// An entry as it is hashed.
struct Bounded<'a> {
    number: u64,
    time: i64,
    kind: &'a str,
    gun: &'a str,
    role: &'a str,
    version: u32,
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    summary: &'a str,
    caller: &'a str,
    grade: u32,
    rule: &'a str,
    outcome: &'a str,
    facts: &'a str,
}

impl Bounded<'_> {
    fn hash(&self, prev: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(prev);
        hash.update(match self.facts {
            "" => TAG,
            _ => TAG_FACTS,
        });
        hash.update(self.number.to_be_bytes());
        hash.update(self.time.to_be_bytes());
        hash.update(self.version.to_be_bytes());
        hash.update(self.grade.to_be_bytes());
        let fields = [
            self.kind.as_bytes(),
            self.gun.as_bytes(),
            self.role.as_bytes(),
            self.key.unwrap_or_default(),
            self.payload.unwrap_or_default(),
            self.summary.as_bytes(),
            self.caller.as_bytes(),
            self.rule.as_bytes(),
            self.outcome.as_bytes(),
        ];
        let facts = Some(self.facts.as_bytes()).filter(|facts| !facts.is_empty());
        for field in fields.into_iter().chain(facts) {
            let len = u32::try_from(field.len()).expect("texts are cut, hashes are short");
            hash.update(len.to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}

/// A row, whatever is in it.
struct Stored {
    number: u64,
    time: i64,
    kind: String,
    gun: String,
    role: String,
    version: u32,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    summary: String,
    caller: String,
    grade: u32,
    rule: String,
    outcome: String,
    facts: String,
    hash: [u8; 32],
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get::<_, i64>(0)?.cast_unsigned(),
            time: row.get(1)?,
            kind: row.get(2)?,
            gun: row.get(3)?,
            role: row.get(4)?,
            version: row.get(5)?,
            key: row.get(6)?,
            payload: row.get(7)?,
            summary: row.get(8)?,
            caller: row.get(9)?,
            grade: row.get(10)?,
            rule: row.get(11)?,
            outcome: row.get(12)?,
            facts: row.get(13)?,
            hash: row.get(14)?,
        })
    }

    fn bounded(&self) -> Bounded<'_> {
        Bounded {
            number: self.number,
            time: self.time,
            kind: &self.kind,
            gun: &self.gun,
            role: &self.role,
            version: self.version,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            summary: &self.summary,
            caller: &self.caller,
            grade: self.grade,
            rule: &self.rule,
            outcome: &self.outcome,
            facts: &self.facts,
        }
    }

    fn entry(self) -> rusqlite::Result<NewEntry> {
        let hash = |bytes: Vec<u8>| {
            <[u8; 32]>::try_from(bytes)
                .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(6, self.number.cast_signed()))
        };
        Ok(NewEntry {
            kind: intern(&self.kind),
            time: self.time,
            gun: self.gun,
            role: self.role,
            version: self.version,
            key: self.key.map(hash).transpose()?.map(KeyId),
            payload: self.payload.map(hash).transpose()?,
            summary: self.summary,
            caller: self.caller,
            grade: self.grade,
            rule: self.rule,
            outcome: self.outcome,
            facts: self.facts,
        })
    }
}

/// A kind as a static word. Kinds of a newer agent are few and short, so keeping them is no leak
/// to speak of; a file that has thousands was not written by an agent.
fn intern(kind: &str) -> &'static str {
    static OTHERS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    const MAX_OTHERS: usize = 64;
    const MAX_KIND: usize = 32;
    if let Some(known) = KINDS.iter().find(|known| **known == kind) {
        return known;
    }
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = others.iter().find(|known| **known == kind) {
        return known;
    }
    if others.len() == MAX_OTHERS || kind.len() > MAX_KIND {
        return "unknown";
    }
    let kept = Box::leak(kind.to_owned().into_boxed_str());
    others.push(kept);
    kept
}

/// At most `limit` bytes of a text, whole characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// SQLite's integers are signed; entry numbers beyond that do not exist.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
