//! A restore that is done wholly or not at all.
//!
//! Everything that a restore writes, key files and changes of the ledger, is first written as one
//! file, `restore.journal`, durably. From then on the restore counts as done: whatever interrupts
//! what follows, the next start does it again, and doing it twice changes nothing. Before that
//! nothing was written at all. When the system refuses a file (a full disk, a read-only
//! directory), those that were made are removed again, and the journal with them.
//!
//! It holds ciphertext, as an archive does, and has an archive's form.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Cursor},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use serde::{Deserialize, Serialize};
use signet_proto::archive::{self, Member, path as member};
use signet_trust::{KeyId, KeyType, PublicKey};

use super::state::{Collection, Stone};
use crate::{
    ledger::{IndexEntry, Ledger, NewEntry, migration::Record, restore::Restored},
    store::{
        StoreError,
        atomic::{self, Existing, Prepared},
    },
};

/// Its name in the home.
const FILE_NAME: &str = "restore.journal";
/// The member that holds the changes of the ledger.
const CHANGES: &str = "journal.json";
/// Largest journal: an archive's content, and the changes of the ledger.
const MAX_JOURNAL: usize = 96 * 1024 * 1024;
/// Largest member that holds the changes of the ledger.
const MAX_CHANGES: u64 = 2 * archive::MAX_DOCUMENT;
/// Threads that write files.
const WRITERS: usize = 8;
/// Files that are written before they get their names: each is an open descriptor until then.
const BATCH: usize = 128;

/// A restore, ready to be done.
#[derive(Debug)]
pub(crate) struct Journal {
    /// `$DOCKER_CONFIG/trust/private` of the agent that began it.
    pub(crate) private: PathBuf,
    /// Files by their paths in an archive.
    pub(crate) files: Vec<Member>,
    /// What the ledger records.
    pub(crate) restored: Restored,
}

#[derive(Serialize, Deserialize)]
struct Changes {
    private: PathBuf,
    id: String,
    time: i64,
    caller: String,
    grade: u32,
    summary: String,
    keys: Vec<Key>,
    state: Vec<Collection>,
    revived: Vec<String>,
    stones: Vec<Stone>,
    source: String,
    #[serde(default)]
    migration: Option<Record>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    role: String,
    gun: Option<String>,
    label: String,
    store: String,
    key_type: String,
    public: String,
    enrolled_at: i64,
    certificates: Vec<String>,
    used_opaque: bool,
    label_claimed: bool,
}

impl Journal {
    /// Writes it; from here on the restore counts as done.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub(crate) fn write(&self, home: &Path) -> Result<(), StoreError> {
        let path = home.join(FILE_NAME);
        let failed = |source| StoreError::Io {
            what: "write",
            path: path.clone(),
            source,
        };
        let changes = serde_json::to_vec(&self.changes()).map_err(|error| failed(error.into()))?;
        if changes.len() as u64 > MAX_CHANGES {
            return Err(failed(io::Error::other(
                "more changes than one restore makes",
            )));
        }
        atomic::create_dir(home)?;
        atomic::write_with(&path, Existing::Replace, |out| {
            let mut writer = archive::Writer::new(out, 0)?;
            writer.add(CHANGES, &changes)?;
            for file in &self.files {
                writer.add(&file.path, &file.data)?;
            }
            writer.finish().map(drop)
        })
    }

    /// Writes the files that are not there yet, or none of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; the files that this call made are gone again.
    pub(crate) fn place(&self, home: &Path) -> Result<(), StoreError> {
        let wanted: Vec<(PathBuf, &[u8])> = self
            .files
            .iter()
            .filter_map(|file| Some((self.target(home, &file.path)?, &file.data[..])))
            // One that is there already is the same, or another's: it is never replaced.
            .filter(|(path, _)| fs::symlink_metadata(path).is_err())
            .collect();
        let dirs: BTreeSet<&Path> = wanted
            .iter()
            .filter_map(|(path, _)| path.parent())
            .collect();
        for dir in &dirs {
            atomic::create_dir(dir)?;
        }
        let mut made = Vec::new();
        let placed = wanted
            .chunks(BATCH)
            .try_for_each(|batch| {
                for file in prepare(batch)? {
                    made.push(file.keep()?);
                }
                Ok(())
            })
            .and_then(|()| dirs.iter().try_for_each(|dir| atomic::sync_dir(dir)));
        if placed.is_err() {
            for path in &made {
                // What cannot be removed is whole, and found by the next listing as a new key.
                let _ = atomic::remove(path);
            }
        }
        placed
    }

    /// Removes the files that [`Journal::place`] made where the ledger then refused.
    pub(crate) fn undo(&self, home: &Path, existed: &[PathBuf]) {
        let paths = self.files.iter().filter_map(|f| self.target(home, &f.path));
        for path in paths.filter(|path| !existed.contains(path)) {
            let _ = atomic::remove(&path);
        }
    }

    /// Files of it that are there already.
    pub(crate) fn existing(&self, home: &Path) -> Vec<PathBuf> {
        let paths = self.files.iter().filter_map(|f| self.target(home, &f.path));
        paths
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect()
    }

    /// Where a member goes.
    fn target(&self, home: &Path, path: &str) -> Option<PathBuf> {
        match path {
            member::KEYRING => Some(home.join("keyring.age")),
            member::ROOT => Some(home.join("root.age")),
            _ => {
                let id = archive::key_of(path)?;
                Some(match path.starts_with("signet/") {
                    true => home.join("keys").join(format!("{id}.age")),
                    false => self.private.join(format!("{id}.key")),
                })
            }
        }
    }

    fn changes(&self) -> Changes {
        let restored = &self.restored;
        let key = |(key, _): &(IndexEntry, NewEntry)| Key {
            role: key.role.clone(),
            gun: key.gun.clone(),
            label: key.label.clone(),
            store: key.store.clone(),
            key_type: key.public.key_type().as_str().to_owned(),
            public: hex::encode(key.public.public()),
            enrolled_at: key.enrolled_at,
            certificates: key.certificates.iter().map(ToString::to_string).collect(),
            used_opaque: key.used_opaque,
            label_claimed: key.label_claimed,
        };
        Changes {
            private: self.private.clone(),
            id: restored.id.clone(),
            time: restored.entry.time,
            caller: restored.entry.caller.clone(),
            grade: restored.entry.grade,
            summary: restored.entry.summary.clone(),
            keys: restored.keys.iter().map(key).collect(),
            state: restored.state.iter().map(Collection::new).collect(),
            revived: restored.revived.iter().map(ToString::to_string).collect(),
            stones: restored.stones.iter().map(Stone::new).collect(),
            source: restored.source.clone(),
            migration: restored.migration.clone(),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut changes = None;
        let mut files = Vec::new();
        let wanted = |path: &str| match path {
            CHANGES => Some(MAX_CHANGES),
            path => archive::size_limit(path),
        };
        let most = archive::MAX_TOTAL + MAX_CHANGES;
        archive::read_up_to(most, Cursor::new(bytes), wanted, |file| {
            if file.path == CHANGES {
                changes = Some(file.data);
            } else {
                files.push(file);
            }
        })
        .map_err(|error| error.to_string())?;
        let changes = changes.ok_or("it holds no changes")?;
        let changes: Changes = serde_json::from_slice(&changes).map_err(|e| e.to_string())?;
        let entry = NewEntry {
            kind: "restore",
            time: changes.time,
            caller: changes.caller,
            grade: changes.grade,
            summary: changes.summary,
            outcome: "done".to_owned(),
            ..NewEntry::default()
        };
        let keys = changes
            .keys
            .iter()
            .map(|key| read_key(key, &entry))
            .collect::<Result<_, String>>()?;
        let stones = changes.stones.iter();
        let stones = stones.map(|stone| stone.read().map_err(|error| error.to_string()));
        let revived = changes.revived.iter().map(|id| id.parse());
        let revived: Result<Vec<KeyId>, _> = revived.collect();
        let state = changes.state.iter();
        let state = state.map(|state| state.read().map_err(|error| error.to_string()));
        Ok(Self {
            private: changes.private,
            files,
            restored: Restored {
                id: changes.id,
                keys,
                state: state.collect::<Result<_, String>>()?,
                revived: revived.map_err(|error| error.to_string())?,
                stones: stones.collect::<Result<_, String>>()?,
                source: changes.source,
                migration: changes.migration,
                entry,
            },
        })
    }
}

fn read_key(key: &Key, entry: &NewEntry) -> Result<(IndexEntry, NewEntry), String> {
    let key_type = KeyType::from_name(&key.key_type).ok_or("a key of no known type")?;
    let public = hex::decode(&key.public).map_err(|error| error.to_string())?;
    let public = PublicKey::new(key_type, public);
    let certificates: Result<Vec<KeyId>, _> =
        key.certificates.iter().map(|id| id.parse()).collect();
    let indexed = IndexEntry {
        id: public.id(),
        role: key.role.clone(),
        gun: key.gun.clone(),
        label: key.label.clone(),
        store: key.store.clone(),
        public,
        enrolled_at: key.enrolled_at,
        certificates: certificates.map_err(|error| error.to_string())?,
        used_opaque: key.used_opaque,
        places: Vec::new(),
        label_claimed: key.label_claimed,
    };
    let entry = of_key(&indexed, entry);
    Ok((indexed, entry))
}

/// The log entry of one restored key.
pub(crate) fn of_key(key: &IndexEntry, restore: &NewEntry) -> NewEntry {
    NewEntry {
        gun: key.gun.clone().unwrap_or_default(),
        role: key.role.clone(),
        key: Some(key.id),
        summary: format!("into the store {}", key.store),
        ..restore.clone()
    }
}

/// Writes files that get their names together. Several at a time: a disk that is asked for many
/// fsyncs at once does them in one go.
fn prepare(wanted: &[(PathBuf, &[u8])]) -> Result<Vec<Prepared>, StoreError> {
    let share = wanted.len().div_ceil(WRITERS).max(1);
    thread::scope(|scope| {
        let writers: Vec<_> = wanted
            .chunks(share)
            .map(|share| {
                scope.spawn(move || {
                    let files = share.iter().map(|(path, data)| atomic::prepare(path, data));
                    files.collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(wanted.len());
        let mut failed = None;
        for writer in writers {
            match writer.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                Ok(files) => all.extend(files),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(all), Err)
    })
}

/// Forgets the journal: the restore is done, or undone.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn remove(home: &Path) -> Result<(), StoreError> {
    atomic::remove(&home.join(FILE_NAME))
}

/// Finishes a restore that was interrupted. The caller holds the agent's lock and has not opened
/// the ledger yet.
///
/// # Errors
///
/// [`StoreError`] when a file cannot be written: then the next start tries again.
pub(crate) fn finish(home: &Path) -> Result<(), StoreError> {
    let path = home.join(FILE_NAME);
    let Some(bytes) = atomic::read(&path, MAX_JOURNAL)? else {
        return Ok(());
    };
    let damaged = |why: String| StoreError::Damaged {
        path: path.clone(),
        why,
    };
    let journal = Journal::read(&bytes).map_err(damaged)?;
    journal.place(home)?;
    let recorded = Ledger::open(home).and_then(|mut ledger| ledger.restore(&journal.restored));
    recorded.map_err(|error| damaged(crate::keyring::fault::chain(&error)))?;
    remove(home)?;
    tracing::info!(
        keys = journal.restored.keys.len(),
        "an interrupted restore was finished"
    );
    Ok(())
}
