//! Where the native store keeps what: names, sizes, and what a killed run may have left.
//!
//! ```text
//! $SIGNET_HOME/keyring.age        identity for repository and signer keys, under its passphrase
//! $SIGNET_HOME/root.age           identity for root keys, under its own
//! $SIGNET_HOME/keys/<keyid>.age   keys, each encrypted to one of the two
//! $SIGNET_HOME/same-passphrase    there while both passphrases are known to be equal
//! $SIGNET_HOME/<keyring>.pair     both keyrings, complete, before either gets its name
//! ```
//!
//! The two keyrings are made together. Files get their names one at a time, so both are first
//! written as `.pair`: when a run is killed between the two renames, the next start does the second
//! one; when it is killed before the first, nothing was ever encrypted to them and they go.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use signet_trust::KeyId;
use zeroize::Zeroizing;

use super::keyring::{MAX_KEYRING, Ring};
use crate::store::{
    StoreError,
    atomic::{self, Existing},
};

/// An RSA-4096 key needs 3.5 KiB; the limit is that of any key file.
const MAX_KEY: usize = 64 * 1024;

/// The directory of the native store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    home: PathBuf,
}

/// What tells one version of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

/// What `keys/` holds.
#[derive(Debug, Default)]
pub(super) struct KeyFiles {
    pub(super) ids: Vec<KeyId>,
    /// Entries that are no key files, with the reason.
    pub(super) others: Vec<String>,
}

impl Layout {
    /// The layout below `home`; finishes or undoes what a killed run left there. The caller holds
    /// the agent's lock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub(super) fn open(home: &Path) -> Result<Self, StoreError> {
        let layout = Self {
            home: home.to_owned(),
        };
        atomic::clean(home);
        atomic::clean(&layout.keys());
        layout.finish_pair()?;
        Ok(layout)
    }

    pub(super) fn keyring(&self, ring: Ring) -> PathBuf {
        self.home.join(ring.file_name())
    }

    fn pair(&self, ring: Ring) -> PathBuf {
        self.home.join(format!("{}.pair", ring.file_name()))
    }

    fn same_passphrase_mark(&self) -> PathBuf {
        self.home.join("same-passphrase")
    }

    fn keys(&self) -> PathBuf {
        self.home.join("keys")
    }

    pub(super) fn key(&self, id: &KeyId) -> PathBuf {
        self.keys().join(format!("{id}.age"))
    }

    pub(super) fn has(&self, ring: Ring) -> bool {
        // A dangling link or a directory of that name is there, too: and an error when read.
        fs::symlink_metadata(self.keyring(ring)).is_ok()
    }

    pub(super) fn read_keyring(&self, ring: Ring) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let path = self.keyring(ring);
        atomic::read(&path, MAX_KEYRING)?.ok_or(StoreError::KeyringMissing { path })
    }

    pub(super) fn replace_keyring(&self, ring: Ring, file: &[u8]) -> Result<(), StoreError> {
        atomic::write(&self.keyring(ring), file, Existing::Replace)
    }

    /// Writes one keyring where the other exists and no key does.
    pub(super) fn add_keyring(&self, ring: Ring, file: &[u8]) -> Result<(), StoreError> {
        atomic::write(&self.keyring(ring), file, Existing::Keep)
    }

    /// Writes both keyrings, or, as far as the next start is concerned, none.
    pub(super) fn add_keyrings(&self, repository: &[u8], root: &[u8]) -> Result<(), StoreError> {
        atomic::create_dir(&self.home)?;
        atomic::write(&self.pair(Ring::Repository), repository, Existing::Replace)?;
        atomic::write(&self.pair(Ring::Root), root, Existing::Replace)?;
        atomic::rename(
            &self.pair(Ring::Repository),
            &self.keyring(Ring::Repository),
        )?;
        atomic::rename(&self.pair(Ring::Root), &self.keyring(Ring::Root))
    }

    fn finish_pair(&self) -> Result<(), StoreError> {
        let begun = self.has(Ring::Repository) || self.has(Ring::Root);
        for ring in [Ring::Repository, Ring::Root] {
            let pair = self.pair(ring);
            if !pair.exists() {
                continue;
            }
            if begun && !self.has(ring) {
                atomic::rename(&pair, &self.keyring(ring))?;
            } else {
                atomic::remove(&pair)?;
            }
        }
        Ok(())
    }

    /// Whether both passphrases are known to be equal.
    pub(super) fn same_passphrase(&self) -> bool {
        self.same_passphrase_mark().exists()
    }

    /// A mark that cannot be written is a warning that is not given, no failure.
    pub(super) fn mark_same_passphrase(&self, same: bool) {
        let mark = self.same_passphrase_mark();
        let _ = match same {
            true => atomic::write(&mark, b"", Existing::Replace),
            false if mark.exists() => atomic::remove(&mark),
            false => Ok(()),
        };
    }

    pub(super) fn read_key(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        atomic::read(&self.key(id), MAX_KEY)?.ok_or(StoreError::NotFound(*id))
    }

    /// Writes a key that is not here yet.
    pub(super) fn add_key(&self, id: &KeyId, file: &[u8]) -> Result<(), StoreError> {
        atomic::create_dir(&self.keys())?;
        atomic::write(&self.key(id), file, Existing::Keep)
    }

    /// Writes the same key encrypted anew.
    pub(super) fn replace_key(&self, id: &KeyId, file: &[u8]) -> Result<(), StoreError> {
        atomic::write(&self.key(id), file, Existing::Replace)
    }

    pub(super) fn remove_key(&self, id: &KeyId) -> Result<(), StoreError> {
        let path = self.key(id);
        if fs::symlink_metadata(&path).is_err() {
            return Err(StoreError::NotFound(*id));
        }
        atomic::remove(&path)
    }

    /// The key's file as it is now.
    pub(super) fn stamp(&self, id: &KeyId) -> Result<Stamp, StoreError> {
        let path = self.key(id);
        match fs::symlink_metadata(&path) {
            Ok(facts) => Ok(Stamp {
                inode: facts.ino(),
                size: facts.len(),
                modified: facts.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                changed: (facts.ctime(), facts.ctime_nsec()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NotFound(*id)),
            Err(source) => Err(StoreError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }

    /// What lies in `keys/`, in the order of IDs.
    pub(super) fn key_files(&self) -> Result<KeyFiles, StoreError> {
        let dir = self.keys();
        let failed = |source| StoreError::Io {
            what: "read",
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeyFiles::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = KeyFiles::default();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_suffix(".age"))
                .map(str::parse);
            match id {
                Some(Ok(id)) if entry.file_type().is_ok_and(|kind| kind.is_file()) => {
                    found.ids.push(id);
                }
                _ if atomic::is_temp(&name) => {}
                Some(Ok(_)) => found
                    .others
                    .push(format!("{} is not a regular file", entry.path().display())),
                _ => found.others.push(format!(
                    "{} is not named <key ID>.age",
                    entry.path().display()
                )),
            }
        }
        found.ids.sort_unstable();
        found.others.sort_unstable();
        Ok(found)
    }
}
