//! Docker's key files as they lie, for archives.

use signet_trust::{KeyId, PrivateKey};

use super::{DockerStore, MAX_KEY, walk};
use crate::{
    key::Secret,
    store::{NewKey, StoreError, ask, atomic, file::foreign::Content, opened::docker_file},
};

impl DockerStore {
    /// Every key file that docker would load, byte for byte; one that vanishes meanwhile is left
    /// out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the directory cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<(KeyId, Content)>, StoreError> {
        let mut files = Vec::new();
        for id in walk::walk(&self.private)?.ids {
            let content = atomic::read(&self.path(&id), MAX_KEY);
            files.extend(content.transpose().map(|content| (id, content)));
        }
        Ok(files)
    }

    /// A key file in Docker's format for a key from elsewhere, not written.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadPassphrase`].
    pub(crate) fn seal(
        key: &PrivateKey,
        new: &NewKey,
        passphrase: &Secret,
    ) -> Result<Vec<u8>, StoreError> {
        let what = ask::what(&crate::presence::SecretName::Key(key.id()));
        docker_file(key, &new.role, new.gun.as_deref(), passphrase, &what)
    }
}
