//! What a restore changes in the ledger, in one transaction, and which keys were rehearsed when.

use rusqlite::{OptionalExtension as _, params};
use signet_trust::{KeyId, RoleName, guard::State};

use super::{
    Claim, IndexEntry, Ledger, LedgerError, NewEntry, Tombstone, claim, index,
    migration::{self, Record},
    state,
};
use crate::backup::state::{Claimed, highest, raised};

/// `meta`: the restore that was recorded last.
const RESTORED: &str = "restored";
/// `meta`: when a key was last opened from an archive; followed by its ID in hex.
const REHEARSED: &str = "rehearsed/";

/// What a restore records: all or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    /// Of this restore alone: recording it again changes nothing.
    pub(crate) id: String,
    /// Keys to be enrolled, each with its log entry.
    pub(crate) keys: Vec<(IndexEntry, NewEntry)>,
    /// Guard state that rises to what the archive claims.
    pub(crate) state: Vec<Claimed>,
    /// A move that brought the keys: how far it is then.
    pub(crate) migration: Option<Record>,
    /// Keys among them whose tombstones are lifted.
    pub(crate) revived: Vec<KeyId>,
    /// Tombstones of the archive that are recorded here.
    pub(crate) stones: Vec<Tombstone>,
    /// The archive, in words, for what only it claims.
    pub(crate) source: String,
    /// For the log, after the keys.
    pub(crate) entry: NewEntry,
}

impl Ledger {
    /// Records a restore; the number of its entry. One that is recorded already is left alone.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn restore(&mut self, restored: &Restored) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            let before: Option<Vec<u8>> = writing
                .db
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([RESTORED], |row| row.get(0))
                .optional()?;
            if before.as_deref() == Some(restored.id.as_bytes()) {
                return Ok(writing.head.0);
            }
            for id in &restored.revived {
                index::unbury(writing.db, id)?;
            }
            for (key, entry) in &restored.keys {
                let mut key = key.clone();
                match index::enrol(writing.db, &key) {
                    // A label that somebody here has taken meanwhile stays his.
                    Err(LedgerError::LabelTaken { .. }) => {
                        key.label.clear();
                        key.label_claimed = false;
                        index::enrol(writing.db, &key)?;
                    }
                    enrolled => enrolled?,
                }
                writing.append(entry)?;
                if let Some(moved) = &restored.migration {
                    // What is taken in by a move was opened, and its proof is released with it.
                    writing.append(&NewEntry {
                        kind: "prove",
                        summary: format!("possession proof for migration {}", moved.id),
                        ..entry.clone()
                    })?;
                }
            }
            for claimed in &restored.state {
                let (gun, lineage) = (&claimed.gun, claimed.lineage);
                let mut known = writing.known(gun)?;
                let here = known.history.collections.get(&lineage);
                // The root that is recorded here was verified; the archive's is only claimed.
                let root = claimed.root.as_deref().filter(|_| here.is_none());
                let before = here.cloned().unwrap_or_default();
                let state = raised(&before, &claimed.state);
                for (role, version) in rises(&before, &state) {
                    let claim = Claim {
                        lineage,
                        role,
                        version,
                        source: restored.source.clone(),
                    };
                    claim::record(writing.db, gun, &claim)?;
                }
                state::write(writing.db, &mut known, gun, lineage, root, &state)?;
                writing.changed.insert(gun.clone(), known);
            }
            if let Some(record) = &restored.migration {
                migration::write(writing.db, record)?;
            }
            for stone in &restored.stones {
                index::claim_tombstone(writing.db, stone)?;
            }
            writing
                .db
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                .execute(params![RESTORED, restored.id.as_bytes()])?;
            writing.append(&restored.entry)
        })
    }

    /// Remembers that these keys were opened from an archive, with a log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn rehearsed(
        &mut self,
        keys: &[KeyId],
        entry: &NewEntry,
    ) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            for id in keys {
                writing
                    .db
                    .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                    .execute(params![
                        format!("{REHEARSED}{id}"),
                        entry.time.to_be_bytes()
                    ])?;
            }
            writing.append(entry)
        })
    }

    /// When each key was last opened from an archive, in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn rehearsals(&self) -> Result<Vec<(KeyId, i64)>, LedgerError> {
        self.reading(|ledger| {
            let mut select = ledger
                .db
                .prepare_cached("SELECT key, value FROM meta WHERE key GLOB 'rehearsed/*'")?;
            let mut rows = select.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, value): (String, [u8; 8]) = (row.get(0)?, row.get(1)?);
                let id = key.strip_prefix(REHEARSED).and_then(|id| id.parse().ok());
                let wrong = || LedgerError::Row("a rehearsal of no key".to_owned());
                found.push((id.ok_or_else(wrong)?, i64::from_be_bytes(value)));
            }
            Ok(found)
        })
    }

    /// What is left of each of these keys, where one was removed.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn tombstones(&self, keys: &[KeyId]) -> Result<Vec<Tombstone>, LedgerError> {
        let found = keys.iter().map(|id| self.tombstone(id));
        found.filter_map(Result::transpose).collect()
    }
}

/// Roles whose highest version rises, and to which one.
fn rises(before: &State, after: &State) -> Vec<(String, u32)> {
    let of = |state: &State, role: &RoleName| state.roles.get(role).and_then(highest);
    let mut rises: Vec<(String, u32)> = after
        .roles
        .keys()
        .filter_map(|role| {
            let version = of(after, role)?;
            (of(before, role) < Some(version)).then(|| (role.to_string(), version))
        })
        .collect();
    if before.timestamp < after.timestamp {
        let timestamp = RoleName::Timestamp.to_string();
        rises.extend(after.timestamp.map(|version| (timestamp, version)));
    }
    rises
}
