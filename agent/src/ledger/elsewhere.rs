//! Documents that were published, and of which this log knows nothing.
//!
//! A key that was generated here, and of which no copy was given away, signs through this log or
//! not at all. So a published document that it signed, and that the log does not have, means that
//! somebody took a copy behind our back, or that this ledger was put back to an older one.

use rusqlite::{Connection, OptionalExtension, params};
use signet_trust::KeyId;

use super::{Ledger, LedgerError, NewEntry};

/// Kind of an entry that reports such a document.
pub const ALARM: &str = "alarm";
/// `meta`: how many were reported (u64), and when the last one was (i64), big-endian.
const REPORTED: &str = "alarms";

/// Reports so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarms {
    /// How many.
    pub count: u64,
    /// Unix seconds of the newest.
    pub last: i64,
}

impl Ledger {
    /// Whether a key was generated here and no copy of it was given away since: exported, backed up
    /// or moved. What the log says of archives does not name keys, so each counts for all that were
    /// there. Reads the whole log.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn is_only_here(&self, key: &KeyId) -> Result<bool, LedgerError> {
        self.reading(|ledger| Ok(is_only_here(&ledger.db, key)?))
    }

    /// Whether the log has a signature of this payload, or has reported that it has none. Reads the
    /// whole log where it has not.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn knows_payload(&self, payload: &[u8; 32]) -> Result<bool, LedgerError> {
        self.reading(|ledger| {
            let mut select = ledger.db.prepare_cached(
                "SELECT 1 FROM log WHERE payload = ?1 AND kind IN ('sign', 'alarm') LIMIT 1",
            )?;
            Ok(select.exists([&payload[..]])?)
        })
    }

    /// Reports a document that the log does not have.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn alarm(&mut self, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            let before = alarms(writing.db)?.map_or(0, |alarms| alarms.count);
            let mut value = before.saturating_add(1).to_be_bytes().to_vec();
            value.extend(entry.time.to_be_bytes());
            writing
                .db
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                .execute(params![REPORTED, value])?;
            writing.append(entry)
        })
    }

    /// What was reported, if anything was.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn alarms(&self) -> Result<Option<Alarms>, LedgerError> {
        self.reading(|ledger| Ok(alarms(&ledger.db)?))
    }
}

fn alarms(db: &Connection) -> rusqlite::Result<Option<Alarms>> {
    let value: Option<Vec<u8>> = db
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([REPORTED], |row| row.get(0))
        .optional()?;
    Ok(value.and_then(|value| {
        let (count, last) = value.split_first_chunk()?;
        Some(Alarms {
            count: u64::from_be_bytes(*count),
            last: i64::from_be_bytes(last.try_into().ok()?),
        })
    }))
}

fn is_only_here(db: &Connection, key: &KeyId) -> rusqlite::Result<bool> {
    let mut select = db.prepare_cached("SELECT kind, key FROM log ORDER BY number")?;
    let mut rows = select.query([])?;
    let mut here = false;
    while let Some(row) = rows.next()? {
        let kind = row.get_ref(0)?.as_str()?;
        if matches!(kind, "backup" | "migrate") {
            here = false;
            continue;
        }
        if row.get_ref(1)?.as_bytes_or_null()? != Some(&key.0[..]) {
            continue;
        }
        match kind {
            "generate" => here = true,
            "export" | "import" | "restore" | "revive" | "move" => here = false,
            _ => {}
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries = [(&'static str, Option<KeyId>)];

    fn ledger(entries: &Entries) -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&dir.path().join("home")).unwrap();
        for (kind, key) in entries {
            let entry = NewEntry {
                kind,
                key: *key,
                ..NewEntry::default()
            };
            ledger.append(&entry).unwrap();
        }
        (dir, ledger)
    }

    #[test]
    fn a_key_is_only_here_until_a_copy_is_given_away() {
        let (ours, other) = (Some(KeyId([1; 32])), Some(KeyId([2; 32])));
        let table: [(&Entries, bool); 9] = [
            (&[], false),
            (&[("generate", ours)], true),
            (&[("generate", other)], false),
            (&[("import", ours)], false),
            (&[("generate", ours), ("export", ours)], false),
            (&[("generate", ours), ("export", other)], true),
            (&[("generate", ours), ("backup", None)], false),
            (&[("backup", None), ("generate", ours)], true),
            (&[("generate", ours), ("migrate", None)], false),
        ];
        for (entries, wanted) in table {
            let (_dir, ledger) = ledger(entries);
            let key = ours.unwrap();
            assert_eq!(ledger.is_only_here(&key).unwrap(), wanted, "{entries:?}");
        }
    }

    #[test]
    fn a_document_is_reported_once_and_counted() {
        let (_dir, mut ledger) = ledger(&[]);
        assert_eq!(ledger.alarms().unwrap(), None);
        for (payload, time) in [([7; 32], 100), ([8; 32], 200)] {
            assert!(!ledger.knows_payload(&payload).unwrap());
            let entry = NewEntry {
                kind: ALARM,
                time,
                payload: Some(payload),
                ..NewEntry::default()
            };
            ledger.alarm(&entry).unwrap();
            assert!(ledger.knows_payload(&payload).unwrap());
        }
        let wanted = Alarms {
            count: 2,
            last: 200,
        };
        assert_eq!(ledger.alarms().unwrap(), Some(wanted));
        assert_eq!(ledger.verify_chain().unwrap(), 2);
    }
}
