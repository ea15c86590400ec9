//! One run per collection: an exclusive `flock` from fetching the base to the server's answer, so
//! that runs of one user queue instead of racing.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use signet_trust::Gun;

use super::cache::make_directory;
use crate::{
    failure::Failure,
    ui::{self, Ui},
};

/// Held until dropped. The file stays: unlinking it would let two runs hold "the" lock.
#[derive(Debug)]
pub(crate) struct CollectionLock {
    _file: File,
}

/// Waits for the lock of `gun`, and says so when it has to.
///
/// # Errors
///
/// When the file cannot be made or locked.
pub(crate) async fn acquire(home: &Path, gun: &Gun, ui: &Ui) -> Result<CollectionLock, Failure> {
    let directory = home.join("lock");
    make_directory(&directory).map_err(|error| Failure::file("create", &directory, error))?;
    let path = directory.join(hex::encode(Sha256::digest(gun.as_str().as_bytes())));
    let failed = |error: std::io::Error| Failure::file("lock", &path, error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(CollectionLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failed(error.into())),
    }
    ui.say(format_args!(
        "waiting for another signet that is publishing {gun}"
    ));
    let file = ui::blocking(move || {
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(file),
            }
        }
    })
    .await
    .map_err(|error| failed(error.into()))?;
    Ok(CollectionLock { _file: file })
}
