//! One-time identities: what opens a package, kept until its keys are proved.
//!
//! `$SIGNET_HOME/migration/<id>.key`, mode 0600, in clear. What it opens are key files that are
//! encrypted as they were on the old host, so it guards no more than the key files of this home,
//! which lie beside it with the same mode; see `docs/decisions`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use age::x25519::Identity;
use secrecy::ExposeSecret as _;

use crate::store::{
    StoreError,
    atomic::{self, Existing},
};

/// Their directory in the home.
const DIR: &str = "migration";
/// Largest file: one line.
const MAX_FILE: usize = 256;
/// Most of them: offers that nobody used are few.
const MAX_FILES: usize = 256;

/// The identities of one home.
#[derive(Debug)]
pub(in crate::keyring) struct Identities {
    dir: PathBuf,
}

impl Identities {
    pub(in crate::keyring) fn of(home: &Path) -> Self {
        Self {
            dir: home.join(DIR),
        }
    }

    /// Makes their directory: from then on each start looks whether a migration is to be gone on
    /// with.
    pub(super) fn make_dir(&self) -> Result<(), StoreError> {
        atomic::create_dir(&self.dir)
    }

    pub(super) fn dir_exists(&self) -> bool {
        self.dir.is_dir()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.key"))
    }

    /// Keeps a new identity, durably.
    pub(super) fn keep(&self, id: &str, identity: &Identity) -> Result<(), StoreError> {
        self.make_dir()?;
        let text = identity.to_string();
        let bytes = text.expose_secret().as_bytes();
        atomic::write(&self.path(id), bytes, Existing::Keep)
    }

    /// The identity of a migration, while it is kept.
    pub(super) fn get(&self, id: &str) -> Result<Option<Identity>, StoreError> {
        let path = self.path(id);
        let Some(bytes) = atomic::read(&path, MAX_FILE)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).ok();
        let identity = text.and_then(|text| text.parse().ok());
        let damaged = || StoreError::Damaged {
            path,
            why: "it holds no age identity".to_owned(),
        };
        identity.map(Some).ok_or_else(damaged)
    }

    /// Overwrites and removes one; one that is gone is no error.
    pub(super) fn forget(&self, id: &str) -> Result<(), StoreError> {
        let path = self.path(id);
        let failed = |source| StoreError::Io {
            what: "remove",
            path: path.clone(),
            source,
        };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
            Ok(facts) => {
                let length = usize::try_from(facts.len()).unwrap_or(0).min(MAX_FILE);
                // As far as the file system writes in place; copies it keeps are not reached.
                let mut file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
                file.write_all(&vec![b'0'; length]).map_err(failed)?;
                file.sync_all().map_err(failed)?;
            }
        }
        atomic::remove(&path)
    }

    /// Removes those that no open migration needs: a killed run left them.
    pub(super) fn clean(&self, needed: &[&str]) -> Result<(), StoreError> {
        atomic::clean(&self.dir);
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Ok(());
        };
        for entry in entries.take(MAX_FILES).flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".key")
                && !needed.contains(&id)
            {
                self.forget(id)?;
            }
        }
        Ok(())
    }
}
