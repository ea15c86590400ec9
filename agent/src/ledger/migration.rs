//! Migrations, one record for each side of each, and the keys that one retires: each change is one
//! transaction with its log entries.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, NewEntry, RETIRED, Tombstone, index};

/// A migration as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 32 hex digits.
    pub(crate) id: String,
    /// `old` or `new`: which host this one is.
    pub(crate) side: String,
    /// Its state, as JSON.
    pub(crate) json: String,
}

/// Writes a record, in a transaction of the caller's.
pub(super) fn write(db: &Connection, record: &Record) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO migration (id, side, record) VALUES (?1, ?2, ?3)")?
        .execute(params![record.id, record.side, record.json])?;
    Ok(())
}

impl Ledger {
    /// Every migration of this host.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn migrations(&self) -> Result<Vec<Record>, LedgerError> {
        self.reading(|ledger| {
            let mut select = ledger
                .db
                .prepare_cached("SELECT id, side, record FROM migration ORDER BY id, side")?;
            let rows = select.query_map([], |row| {
                Ok(Record {
                    id: row.get(0)?,
                    side: row.get(1)?,
                    json: row.get(2)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Records how far a migration is, with log entries; the number of the last one, or 0.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn migrated(
        &mut self,
        record: &Record,
        entries: &[NewEntry],
    ) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            write(writing.db, record)?;
            let mut number = 0;
            for entry in entries {
                number = writing.append(entry)?;
            }
            Ok(number)
        })
    }

    /// Retires keys: they leave the index, whether they were in it or not they are refused from now
    /// on, and the log says where they went. With the record of the migration.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn moved_away(
        &mut self,
        record: &Record,
        keys: &[(Tombstone, NewEntry)],
    ) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            let mut number = 0;
            for (stone, entry) in keys {
                index::bury(writing.db, &stone.id, RETIRED, &stone.detail, entry.time)?;
                // One that was never enrolled is in no index to be buried from.
                index::claim_tombstone(writing.db, stone)?;
                number = writing.append(entry)?;
            }
            write(writing.db, record)?;
            Ok(number)
        })
    }
}
