//! The native format where it lies elsewhere than in this home: in an archive.

use std::path::Path;

use signet_trust::{
    KeyId, PrivateKey,
    keyfile::{KeyFile, write_plain},
};
use zeroize::Zeroizing;

use super::{
    FileStore,
    keyring::{Decrypted, OpenKeyring, Ring},
};
use crate::{
    key::Secret,
    presence::Presence,
    store::{NewKey, StoreError, ask::Rejected, opened::file_error},
};

/// A keyring of an archive, opened.
#[derive(Debug)]
pub(crate) struct ForeignKeyring {
    ring: Ring,
    keyring: OpenKeyring,
}

/// A key of an archive, opened: role and GUN as its file says.
#[derive(Debug)]
pub(crate) struct ForeignKey {
    pub(crate) key: PrivateKey,
    pub(crate) role: String,
    pub(crate) gun: Option<String>,
}

impl ForeignKeyring {
    /// Opens a keyring file; `path` is for the words.
    ///
    /// # Errors
    ///
    /// [`Rejected`].
    pub(crate) fn open(
        ring: Ring,
        path: &Path,
        file: &[u8],
        passphrase: &Secret,
    ) -> Result<Self, Rejected> {
        let keyring = OpenKeyring::open(path, file, passphrase)?;
        Ok(Self { ring, keyring })
    }

    /// Opens a key file; `None` when it is encrypted to another keyring.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], [`StoreError::KeyFile`], [`StoreError::WrongId`].
    pub(crate) fn key(
        &self,
        path: &Path,
        file: &[u8],
        id: &KeyId,
    ) -> Result<Option<ForeignKey>, StoreError> {
        let damaged = |why: &str| StoreError::Damaged {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        let plain = match self.keyring.decrypt(file, false) {
            Decrypted::Plain(plain) => plain,
            Decrypted::NotOurs => return Ok(None),
            Decrypted::Damaged(why) => return Err(damaged(&why)),
        };
        let pem = KeyFile::parse(&plain).map_err(|error| file_error(path, error))?;
        let role = pem
            .role
            .clone()
            .ok_or_else(|| damaged("the key in it names no role"))?;
        if Ring::of_role(&role) != self.ring {
            return Err(damaged("its role belongs to the other keyring"));
        }
        let key = pem.open(None).map_err(|error| file_error(path, error))?;
        KeyFile::check_id(&key, id).map_err(|found| StoreError::WrongId {
            path: path.to_owned(),
            found,
        })?;
        Ok(Some(ForeignKey {
            key,
            role,
            gun: pem.gun,
        }))
    }
}

/// A file, or why it cannot be one of its kind.
pub(crate) type Content = Result<Zeroizing<Vec<u8>>, StoreError>;

/// The native files of a home, as they lie there at one time.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) repository: Option<Zeroizing<Vec<u8>>>,
    pub(crate) root: Option<Zeroizing<Vec<u8>>>,
    pub(crate) keys: Vec<(KeyId, Content)>,
}

impl Files {
    /// Whether there is nothing native here.
    pub(crate) fn is_empty(&self) -> bool {
        self.repository.is_none() && self.root.is_none() && self.keys.is_empty()
    }
}

impl FileStore {
    /// Every native file as it lies; one that vanishes meanwhile is left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] for a keyring that is none by its size or kind, [`StoreError::Io`].
    pub(crate) fn files(&self) -> Result<Files, StoreError> {
        let ring = |ring| match self.layout.has(ring) {
            true => self.layout.read_keyring(ring).map(Some),
            false => Ok(None),
        };
        let mut files = Files {
            repository: ring(Ring::Repository)?,
            root: ring(Ring::Root)?,
            keys: Vec::new(),
        };
        for id in self.layout.key_files()?.ids {
            match self.layout.read_key(&id) {
                Err(StoreError::NotFound(_)) => {}
                content => files.keys.push((id, content)),
            }
        }
        Ok(files)
    }

    /// A key file for a key from elsewhere, encrypted to this home's keyring, not written.
    ///
    /// # Errors
    ///
    /// As [`crate::store::KeyStore::import`].
    pub(crate) fn seal(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError> {
        let keyring = self.keyring_for_new(Ring::of_role(&new.role), presence)?;
        let plain = write_plain(key, &new.role, new.gun.as_deref());
        Ok(keyring.encrypt(plain.as_bytes()))
    }
}
