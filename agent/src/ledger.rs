//! The durable state: index of keys, collections, guard state, and the hash-chained log.
//!
//! SQLite in WAL mode with `synchronous=FULL`. Signatures are released only after the transaction
//! that holds their log entries and guard state is durable. No setting turns it off.

use std::path::{Path, PathBuf};

use signet_trust::{
    Gun, KeyId, PublicKey, RoleName,
    base::{Lineage, RecordedRoot},
    guard::{History, Mark, Pass},
};

/// Why the ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file is damaged, or its chain does not hold.
    #[error("the ledger {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// The guard state moved between decision and commit.
    #[error("the guard state of {0} changed meanwhile")]
    Moved(Gun),
    /// On a network file system.
    #[error("{} is on a network file system ({kind})", path.display())]
    Network {
        /// The home.
        path: PathBuf,
        /// nfs, cifs, …
        kind: &'static str,
    },
    /// Written by a newer Signet.
    #[error("the ledger is of version {found}; this Signet reads up to {known}")]
    Newer {
        /// In the file.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// SQLite failed; disk full among others.
    #[error("the ledger cannot be written or read")]
    Sqlite(#[from] rusqlite::Error),
}

/// A key that was generated, imported or accepted here.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// Canonical ID.
    pub id: KeyId,
    /// root, targets, snapshot, or a signer's name.
    pub role: String,
    /// For targets and snapshot.
    pub gun: Option<String>,
    /// Given by the person; empty if none.
    pub label: String,
    /// `file` or `docker`.
    pub store: String,
    /// The bare public key.
    pub public: PublicKey,
    /// Unix seconds.
    pub enrolled_at: i64,
    /// IDs of root certificates made for it here.
    pub certificates: Vec<KeyId>,
    /// Signed something opaque once.
    pub used_opaque: bool,
}

/// What happened, for the log. Strings are escaped before they get here.
#[derive(Clone, Debug, Default)]
pub struct NewEntry {
    /// sign certificate refuse fail publish generate import export label remove passphrase rotate
    /// unlock lock.
    pub kind: &'static str,
    /// Unix seconds.
    pub time: i64,
    /// GUN, empty if none.
    pub gun: String,
    /// Role, empty if none.
    pub role: String,
    /// Version of the document, 0 if none.
    pub version: u32,
    /// Key, if one was used.
    pub key: Option<KeyId>,
    /// SHA-256 of the payload.
    pub payload: Option<[u8; 32]>,
    /// In the words of the summary.
    pub summary: String,
    /// pid, exe.
    pub caller: String,
    /// What the answer was worth.
    pub grade: u32,
    /// Override used, or rule that refused.
    pub rule: String,
    /// released refused failed published rejected unknown …
    pub outcome: String,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From 1.
    pub number: u64,
    /// What happened.
    pub entry: NewEntry,
    /// Chain head after it.
    pub hash: [u8; 32],
}

/// One step of one collection: state and entries that are written together.
#[derive(Clone, Debug)]
pub struct Release {
    /// Of which collection.
    pub gun: Gun,
    /// The history that the guard decided on.
    pub decided_on: History,
    /// What it decided.
    pub pass: Pass,
    /// Root to record, wire bytes.
    pub root_wire: Option<Vec<u8>>,
    /// One entry per payload and key.
    pub entries: Vec<NewEntry>,
}

/// The open ledger; one per agent, on one thread at a time.
#[derive(Debug)]
pub struct Ledger {
    _private: (),
}

impl Ledger {
    /// Opens or creates `ledger.sqlite` in `home`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub fn open(home: &Path) -> Result<Self, LedgerError> {
        todo!("{home:?}")
    }

    /// Everything recorded for a GUN.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn history(&self, gun: &Gun) -> Result<History, LedgerError> {
        todo!("{gun}")
    }

    /// Newest recorded root of each lineage of a GUN (wire bytes), for verifying bases.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn roots(&self, gun: &Gun) -> Result<Vec<RecordedRoot>, LedgerError> {
        todo!("{gun}")
    }

    /// Remembers the newest root of a lineage (wire bytes) and the state seen in a verified base.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn observe(
        &mut self,
        gun: &Gun,
        lineage: Lineage,
        root_wire: Option<&[u8]>,
        state: &signet_trust::guard::State,
    ) -> Result<(), LedgerError> {
        let _ = (gun, lineage, root_wire, state);
        todo!()
    }

    /// One transaction: re-checks that the recorded history still is `decided_on`, writes the new
    /// state and one entry per payload and key. Durable when it returns; entry numbers in order.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Moved`], [`LedgerError::Sqlite`].
    pub fn release(
        &mut self,
        gun: &Gun,
        decided_on: &History,
        pass: &Pass,
        root_wire: Option<&[u8]>,
        entries: &[NewEntry],
    ) -> Result<Vec<u64>, LedgerError> {
        let _ = (gun, decided_on, pass, root_wire, entries);
        todo!()
    }

    /// As [`Ledger::release`] for several independent collections in one transaction.
    pub fn release_many(&mut self, releases: Vec<Release>) -> Vec<Result<Vec<u64>, LedgerError>> {
        releases
            .into_iter()
            .map(|r| {
                self.release(&r.gun, &r.decided_on, &r.pass, r.root_wire.as_deref(), &r.entries)
            })
            .collect()
    }

    /// All GUNs with a recorded collection.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn guns(&self) -> Result<Vec<Gun>, LedgerError> {
        todo!()
    }

    /// Marks released documents published (or not), with a log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn report(
        &mut self,
        gun: &Gun,
        lineage: Lineage,
        released: &[(RoleName, Mark)],
        published: bool,
        entry: &NewEntry,
    ) -> Result<(), LedgerError> {
        let _ = (gun, lineage, released, published, entry);
        todo!()
    }

    /// Appends an entry that moves no guard state.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn append(&mut self, entry: &NewEntry) -> Result<u64, LedgerError> {
        let _ = entry;
        todo!()
    }

    /// All enrolled keys.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn index(&self) -> Result<Vec<IndexEntry>, LedgerError> {
        todo!()
    }

    /// Enrols (or re-labels) a key, with its log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn enrol(&mut self, key: &IndexEntry, entry: &NewEntry) -> Result<u64, LedgerError> {
        let _ = (key, entry);
        todo!()
    }

    /// Takes a key out of the index and leaves a tombstone, with its log entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn remove(&mut self, id: &KeyId, entry: &NewEntry) -> Result<u64, LedgerError> {
        let _ = (id, entry);
        todo!()
    }

    /// Entries `from..` (1-based), at most `count`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn entries(&self, from: u64, count: u64) -> Result<Vec<Entry>, LedgerError> {
        let _ = (from, count);
        todo!()
    }

    /// Number and hash of the newest entry; zeros when empty.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`].
    pub fn head(&self) -> Result<(u64, [u8; 32]), LedgerError> {
        todo!()
    }
}
