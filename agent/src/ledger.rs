//! The durable state: index of keys, collections, guard state, and the hash-chained log.
//!
//! SQLite in WAL mode with `synchronous=FULL`. Signatures are released only after the transaction
//! that holds their log entries and guard state is durable. No setting turns it off.
//!
//! Every change is one transaction of state and log entries together; when it fails, for a full
//! disk or any other reason, nothing has changed and the next one may succeed. Releases of several
//! collections that wait at the same time share a transaction, and with it an fsync
//! ([`Ledger::release_many`]); each of them stands or falls by itself as far as the guard goes.
//!
//! At start the newest entries of the chain are checked, on request all of them
//! ([`Ledger::verify_chain`]); `ledger/log.rs` says how an entry is hashed.

use std::{
    cell::{Cell, RefCell},
    io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use signet_trust::{
    Gun, KeyId, RoleName,
    base::{Lineage, RecordedRoot},
    guard::{History, Mark, Pass, State, published},
};

use crate::store::{StoreError, atomic};

pub(crate) mod checkpoint;
mod claim;
mod elsewhere;
mod error;
mod index;
mod log;
pub(crate) mod migration;
mod place;
mod record;
pub(crate) mod restore;
mod schema;
mod state;

pub use claim::Claim;
pub use elsewhere::{ALARM, Alarms};
pub use error::LedgerError;
pub use place::refuse_network;
pub use record::{
    Entry, IndexEntry, KnownCard, NewEntry, Place, REMOVED, RETIRED, Release, Report, Tombstone,
    Write,
};

use error::of;
use state::{Cache, Known};

/// The file's name in the home.
pub const FILE_NAME: &str = "ledger.sqlite";
/// Entries that are checked at each start: a few milliseconds, and more than a damaged page holds.
const CHECKED_AT_START: u64 = 256;
/// GUNs whose history stays in memory: more than anybody signs for, and some megabytes.
const MAX_KNOWN: usize = 4096;
/// Never a `data_version`: everything is read again.
const NOTHING_READ: i64 = -1;

/// The open ledger; one per agent, on one thread at a time.
#[derive(Debug)]
pub struct Ledger {
    db: Connection,
    path: PathBuf,
    head: Cell<log::Head>,
    known: RefCell<Cache>,
    /// `data_version` at which `head` and `known` were true.
    version: Cell<i64>,
}

/// A transaction under way: what it has written stays here until it is durable.
struct Writing<'a> {
    db: &'a Connection,
    known: &'a Cache,
    changed: Cache,
    head: log::Head,
}

impl Writing<'_> {
    fn append(&mut self, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.head = log::append(self.db, self.head, entry)?;
        Ok(self.head.0)
    }

    /// What is recorded for a GUN, to be changed.
    fn known(&mut self, gun: &Gun) -> Result<Known, LedgerError> {
        match self.changed.get(gun).or_else(|| self.known.get(gun)) {
            Some(known) => Ok(known.clone()),
            None => state::read(self.db, gun),
        }
    }

    fn release(&mut self, release: &Release) -> Result<Vec<u64>, LedgerError> {
        let mut known = self.known(&release.gun)?;
        state::release(self.db, &mut known, release)?;
        self.changed.insert(release.gun.clone(), known);
        release
            .entries
            .iter()
            .map(|entry| self.append(entry))
            .collect()
    }
}

impl Writing<'_> {
    fn report(&mut self, report: &Report) -> Result<u64, LedgerError> {
        let Report {
            gun,
            lineage,
            released,
            arrived,
            entry,
        } = report;
        if *arrived {
            let mut known = self.known(gun)?;
            if let Some(state) = known.history.collections.get(lineage) {
                let state = published(state, released);
                state::write(self.db, &mut known, gun, *lineage, None, &state)?;
                self.changed.insert(gun.clone(), known);
            }
        }
        self.append(entry)
    }
}

impl Ledger {
    /// Opens or creates `ledger.sqlite` in `home`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub fn open(home: &Path) -> Result<Self, LedgerError> {
        let path = home.join(FILE_NAME);
        atomic::create_dir(home).map_err(|error| match error {
            StoreError::Io { path, source, .. } => LedgerError::Io { path, source },
            other => LedgerError::Io {
                path: home.to_owned(),
                source: io::Error::other(other),
            },
        })?;
        refuse_network(home)?;
        let db = schema::open(&path).map_err(|error| of(&path, error))?;
        let ledger = Self {
            db,
            path,
            head: Cell::new((0, [0; 32])),
            known: RefCell::default(),
            version: Cell::new(NOTHING_READ),
        };
        ledger.reading(|ledger| {
            let newest = log::head(&ledger.db)?.0;
            ledger.check(newest.saturating_sub(CHECKED_AT_START) + 1)?;
            Ok(())
        })?;
        Ok(ledger)
    }

    /// Everything recorded for a GUN.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn history(&self, gun: &Gun) -> Result<History, LedgerError> {
        self.reading(|ledger| {
            ledger.refresh()?;
            let mut known = ledger.known.borrow_mut();
            if let Some(known) = known.get(gun) {
                return Ok(known.history.clone());
            }
            let read = state::read(&ledger.db, gun)?;
            let history = read.history.clone();
            known.insert(gun.clone(), read);
            Ok(history)
        })
    }

    /// Newest recorded root of each lineage of a GUN (wire bytes), for verifying bases.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn roots(&self, gun: &Gun) -> Result<Vec<RecordedRoot>, LedgerError> {
        self.reading(|ledger| Ok(state::roots(&ledger.db, gun)?))
    }

    /// Every GUN that has a collection here, in order.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn guns(&self) -> Result<Vec<Gun>, LedgerError> {
        self.reading(|ledger| {
            let names = state::guns(&ledger.db)?;
            let parsed = names.into_iter().map(|name| {
                name.parse()
                    .map_err(|_| LedgerError::Row(format!("a collection has the name {name:?}")))
            });
            parsed.collect()
        })
    }

    /// Remembers the newest root of a lineage (wire bytes) and the state seen in a verified base.
    /// What is recorded already is not written again.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn observe(
        &mut self,
        gun: &Gun,
        lineage: Lineage,
        root_wire: Option<&[u8]>,
        state: &State,
    ) -> Result<(), LedgerError> {
        if root_wire.is_none() && self.history(gun)?.collections.get(&lineage) == Some(state) {
            return Ok(());
        }
        self.writing(|writing| {
            let mut known = writing.known(gun)?;
            state::write(writing.db, &mut known, gun, lineage, root_wire, state)?;
            writing.changed.insert(gun.clone(), known);
            Ok(())
        })
    }

    /// One transaction: re-checks that the recorded history still is `decided_on`, writes the new
    /// state and one entry per payload and key. Durable when it returns; entry numbers in order.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Moved`], [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn release(
        &mut self,
        gun: &Gun,
        decided_on: &History,
        pass: &Pass,
        root_wire: Option<&[u8]>,
        entries: &[NewEntry],
    ) -> Result<Vec<u64>, LedgerError> {
        let release = Release {
            gun: gun.clone(),
            decided_on: decided_on.clone(),
            pass: pass.clone(),
            root_wire: root_wire.map(<[u8]>::to_vec),
            entries: entries.to_vec(),
        };
        self.writing(|writing| writing.release(&release))
    }

    /// Several releases in one transaction: as [`Ledger::write_many`].
    pub fn release_many(&mut self, releases: Vec<Release>) -> Vec<Result<Vec<u64>, LedgerError>> {
        self.write_many(&releases.into_iter().map(Write::Release).collect::<Vec<_>>())
    }

    /// Releases and reports in one transaction: a release that the guard state moved away from
    /// fails alone, a transaction that cannot be made durable fails them all. In the order given;
    /// each gives the numbers of its entries.
    pub fn write_many(&mut self, writes: &[Write]) -> Vec<Result<Vec<u64>, LedgerError>> {
        let written = self.writing(|writing| {
            let mut results = Vec::with_capacity(writes.len());
            for write in writes {
                let numbers = match write {
                    Write::Release(release) => writing.release(release),
                    Write::Report(report) => writing.report(report).map(|number| vec![number]),
                };
                match numbers {
                    Err(moved @ LedgerError::Moved(_)) => results.push(Err(moved)),
                    Err(failed) => return Err(failed),
                    Ok(numbers) => results.push(Ok(numbers)),
                }
            }
            Ok(results)
        });
        match written {
            Ok(results) => results,
            Err(error) => writes.iter().map(|_| Err(error.again())).collect(),
        }
    }

    /// Marks released documents published (or not), with a log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn report(
        &mut self,
        gun: &Gun,
        lineage: Lineage,
        released: &[(RoleName, Mark)],
        arrived: bool,
        entry: &NewEntry,
    ) -> Result<(), LedgerError> {
        let report = Report {
            gun: gun.clone(),
            lineage,
            released: released.to_vec(),
            arrived,
            entry: entry.clone(),
        };
        self.writing(|writing| writing.report(&report).map(drop))
    }

    /// Appends an entry that moves no guard state.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn append(&mut self, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.writing(|writing| writing.append(entry))
    }

    /// All enrolled keys.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn index(&self) -> Result<Vec<IndexEntry>, LedgerError> {
        self.reading(|ledger| index::list(&ledger.db))
    }

    /// Enrols (or re-labels) a key, with its log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::LabelTaken`], [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn enrol(&mut self, key: &IndexEntry, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            index::enrol(writing.db, key)?;
            writing.append(entry)
        })
    }

    /// Cards that were named here.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn cards(&self) -> Result<Vec<KnownCard>, LedgerError> {
        self.reading(|ledger| index::cards(&ledger.db))
    }

    /// Names a card, with its log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn name_card(&mut self, card: &KnownCard, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            index::name_card(writing.db, card)?;
            writing.append(entry)
        })
    }

    /// Forgets a card and every place on it; keys that lie nowhere else leave the index. With its
    /// log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn forget_card(
        &mut self,
        serial: u32,
        lost: &[KeyId],
        entry: &NewEntry,
    ) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            index::forget_card(writing.db, serial)?;
            for id in lost {
                index::bury(writing.db, id, REMOVED, "", entry.time)?;
            }
            writing.append(entry)
        })
    }

    /// Takes a key out of the index and leaves a tombstone, with its log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn remove(&mut self, id: &KeyId, entry: &NewEntry) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            index::bury(writing.db, id, REMOVED, "", entry.time)?;
            writing.append(entry)
        })
    }

    /// Takes keys out of the index that were moved to another host, `to`, each with its log entry;
    /// what is left of them keeps them from coming back unasked.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn retire(&mut self, keys: &[(KeyId, NewEntry)], to: &str) -> Result<(), LedgerError> {
        self.writing(|writing| {
            for (id, entry) in keys {
                index::bury(writing.db, id, RETIRED, to, entry.time)?;
                writing.append(entry)?;
            }
            Ok(())
        })
    }

    /// Lifts a key's tombstone, enrols the key if it is there again, and logs it.
    ///
    /// # Errors
    ///
    /// [`LedgerError::LabelTaken`], [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn revive(
        &mut self,
        id: &KeyId,
        key: Option<&IndexEntry>,
        entry: &NewEntry,
    ) -> Result<u64, LedgerError> {
        self.writing(|writing| {
            index::unbury(writing.db, id)?;
            if let Some(key) = key {
                index::enrol(writing.db, key)?;
            }
            writing.append(entry)
        })
    }

    /// What is left of every key that was here.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn all_tombstones(&self) -> Result<Vec<Tombstone>, LedgerError> {
        self.reading(|ledger| index::tombstones(&ledger.db))
    }

    /// What is left of a key that was removed.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn tombstone(&self, id: &KeyId) -> Result<Option<Tombstone>, LedgerError> {
        self.reading(|ledger| index::tombstone(&ledger.db, id))
    }

    /// Entries `from..` (1-based), at most `count`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn entries(&self, from: u64, count: u64) -> Result<Vec<Entry>, LedgerError> {
        self.reading(|ledger| Ok(log::entries(&ledger.db, from, count)?))
    }

    /// Signatures that a key made since a time, in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn signed_since(&self, key: &KeyId, since: i64) -> Result<u64, LedgerError> {
        self.reading(|ledger| Ok(log::signed_since(&ledger.db, key, since)?))
    }

    /// Number and hash of the newest entry; zeros when empty.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn head(&self) -> Result<(u64, [u8; 32]), LedgerError> {
        self.reading(|ledger| {
            ledger.refresh()?;
            Ok(ledger.head.get())
        })
    }

    /// The number of the newest entry, as far as this connection knows.
    #[must_use]
    pub(crate) fn newest(&self) -> u64 {
        let (newest, _) = self.head.get();
        newest
    }

    /// Computes the whole chain anew; how many entries hold.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Damaged`], naming the first entry that does not hold; [`LedgerError::Sqlite`].
    pub fn verify_chain(&self) -> Result<u64, LedgerError> {
        self.reading(|ledger| ledger.check(1))
    }

    fn check(&self, from: u64) -> Result<u64, LedgerError> {
        log::check(&self.db, from, |_, _| {})?.map_err(|why| LedgerError::Damaged {
            path: self.path.clone(),
            why,
        })
    }

    /// Forgets what is in memory if somebody else has written since it was read.
    fn refresh(&self) -> Result<(), LedgerError> {
        let version = state::data_version(&self.db)?;
        if version != self.version.get() {
            self.known.borrow_mut().clear();
            self.head.set(log::head(&self.db)?);
            self.version.set(version);
        }
        Ok(())
    }

    fn reading<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        work(self).map_err(|error| of(&self.path, error))
    }

    /// One transaction. What `work` changed is in memory only once it is durable.
    fn writing<T>(
        &mut self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let written = self.transaction(work);
        if written.is_err() {
            // A failed COMMIT may leave the transaction open.
            if !self.db.is_autocommit() {
                let _ = self.db.execute_batch("ROLLBACK");
            }
            // What a failed write did to the file is read, not guessed.
            self.version.set(NOTHING_READ);
        }
        written.map_err(|error| of(&self.path, error))
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.refresh()?;
        let mut writing = Writing {
            db: &self.db,
            known: self.known.get_mut(),
            changed: Cache::new(),
            head: self.head.get(),
        };
        let done = work(&mut writing)?;
        let (head, changed) = (writing.head, writing.changed);
        self.db.prepare_cached("COMMIT")?.execute([])?;
        self.head.set(head);
        let known = self.known.get_mut();
        if known.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(changed);
        Ok(done)
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
