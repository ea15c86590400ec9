//! Files that are either the old ones or the new ones, whatever happens.
//!
//! Every file of a store is written here and nowhere else: a temporary file in the same directory
//! (mode 0600), fsync, rename, fsync of the directory. A new key never replaces a file
//! ([`Existing::Keep`]). A killed writer leaves at most a temporary file, which [`clean`] removes;
//! it cannot take one away from a writer that is alive, because a writer holds a `flock` on its
//! temporary file, and Docker's directory may be shared with another agent.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use zeroize::Zeroizing;

use super::StoreError;

/// What to do with a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it, and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Names of temporary files: `.signet-<16 hex digits>.tmp`. Docker and notary look for `*.key`.
const TEMP_PREFIX: &str = ".signet-";
const TEMP_SUFFIX: &str = ".tmp";
/// A name of 64 random bits that is taken means that something is wrong with the randomness.
const MAX_NAMES: u32 = 8;

/// Writes a file of mode 0600, durably. Nothing has changed when it fails.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn write(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), StoreError> {
    write_with(path, existing, |file| file.write_all(bytes))
}

/// As [`write()`], with what `fill` writes: for what need not be in memory as a whole.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn write_with(
    path: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), StoreError> {
    let dir = parent(path);
    let failed = |source| StoreError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let (temp, mut file) = create_temp(dir).map_err(failed)?;
    let written = (|| {
        step()?;
        fill(&mut file)?;
        step()?;
        file.sync_all()?;
        step()?;
        match existing {
            Existing::Replace => fs::rename(&temp, path),
            Existing::Keep => rename_to_new(&temp, path),
        }
    })();
    if let Err(source) = written {
        discard(&temp);
        return Err(failed(source));
    }
    sync_dir(dir)
}

/// A file that is whole and on the disk, and has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Prepared {
    temp: PathBuf,
    path: PathBuf,
    /// Holds the lock that keeps cleaners away.
    file: File,
    named: bool,
}

/// Writes a new file of mode 0600 beside its place, for many that get their names together.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn prepare(path: &Path, bytes: &[u8]) -> Result<Prepared, StoreError> {
    let failed = |source| StoreError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let (temp, file) = create_temp(parent(path)).map_err(failed)?;
    let mut prepared = Prepared {
        temp,
        path: path.to_owned(),
        file,
        named: false,
    };
    let written = step()
        .and_then(|()| prepared.file.write_all(bytes))
        .and_then(|()| step())
        .and_then(|()| prepared.file.sync_all());
    written.map_err(failed)?;
    Ok(prepared)
}

impl Prepared {
    /// Gives it its name, if nobody has that. Durable after [`sync_dir`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub(crate) fn keep(mut self) -> Result<PathBuf, StoreError> {
        let renamed = step().and_then(|()| rename_to_new(&self.temp, &self.path));
        renamed.map_err(|source| StoreError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })?;
        self.named = true;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.named {
            discard(&self.temp);
        }
    }
}

/// Removes a file, durably.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    step()
        .and_then(|()| fs::remove_file(path))
        .map_err(|source| StoreError::Io {
            what: "remove",
            path: path.to_owned(),
            source,
        })?;
    sync_dir(parent(path))
}

/// Renames within one directory, replacing, durably.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    step()
        .and_then(|()| fs::rename(from, to))
        .map_err(|source| StoreError::Io {
            what: "write",
            path: to.to_owned(),
            source,
        })?;
    sync_dir(parent(to))
}

/// Makes the directory and those above it that are missing, mode 0700, durably. One that exists is
/// left as it is.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    if above != dir {
        create_dir(above)?;
    }
    let made = step().and_then(|()| DirBuilder::new().mode(0o700).create(dir));
    match made {
        Ok(()) => sync_dir(above),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(source) => Err(StoreError::Io {
            what: "create",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Reads a regular file of at most `limit` bytes; `None` when there is none. The buffer is wiped
/// and never reallocated.
///
/// # Errors
///
/// [`StoreError::Damaged`] when it is larger, a symbolic link or no regular file;
/// [`StoreError::Io`].
pub(crate) fn read(path: &Path, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let failed = |source| StoreError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let damaged = |why: String| StoreError::Damaged {
        path: path.to_owned(),
        why,
    };
    // NONBLOCK: opening a pipe that somebody put there must not hang the store.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(damaged("it is a symbolic link".to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(damaged("it is not a regular file".to_owned()));
    }
    if facts.len() > limit as u64 {
        return Err(damaged(format!("it is larger than {limit} bytes")));
    }
    // One byte more than there should be: a file that grows meanwhile shows.
    let mut bytes = Zeroizing::new(vec![0; facts.size() as usize + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        match (&file).read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if filled == bytes.len() {
        return Err(StoreError::Changed {
            path: path.to_owned(),
        });
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

/// Removes temporary files that killed writers left in `dir`.
pub(crate) fn clean(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !is_temp(&entry.file_name()) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            discard(&path);
        }
    }
}

/// Whether a name is that of a temporary file.
pub(crate) fn is_temp(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with(TEMP_PREFIX) && name.ends_with(TEMP_SUFFIX))
}

/// The directory that a file or directory lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}

/// A new, locked temporary file.
fn create_temp(dir: &Path) -> io::Result<(PathBuf, File)> {
    for _ in 0..MAX_NAMES {
        step()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let path = dir.join(format!("{TEMP_PREFIX}{}{TEMP_SUFFIX}", hex::encode(random)));
        let file = match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // A cleaner may have been quicker than our lock; then the file has no name any more.
            Ok(()) if file.metadata()?.nlink() > 0 => return Ok((path, file)),
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
            // A file system without locks: then nobody cleans there, either.
            Err(_) => return Ok((path, file)),
        }
    }
    Err(io::Error::other("no free name for a temporary file"))
}

fn rename_to_new(temp: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
        // A file system without the flag: a hard link refuses an existing name as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(temp, path)?;
            step()?;
            fs::remove_file(temp)
        }
        renamed => Ok(renamed?),
    }
}

/// A failure to remove a temporary file is no failure of the operation; the next start tries again.
fn discard(temp: &Path) {
    let _ = step().and_then(|()| fs::remove_file(temp));
}

/// Makes the names in a directory durable.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    step()
        .and_then(|()| File::open(dir))
        .and_then(|dir| dir.sync_all())
        .map_err(|source| StoreError::Io {
            what: "sync",
            path: dir.to_owned(),
            source,
        })
}

/// Called before every operation that changes a disk: where a test kills the writer.
#[cfg(not(test))]
#[inline]
#[allow(clippy::unnecessary_wraps, reason = "fails under test")]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use fault::step;

/// A writer that dies before its n-th file operation: that one and all later ones fail, so that no
/// clean-up runs either, as after SIGKILL.
#[cfg(test)]
pub(crate) mod fault {
    use std::{cell::Cell, io};

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// From now on `operations` more succeed on this thread.
    pub(crate) fn die_after(operations: u32) {
        LEFT.set(Some(operations));
    }

    /// Ends it; whether the writer died.
    pub(crate) fn revive() -> bool {
        LEFT.take() == Some(0)
    }

    /// One more operation of the writer that dies.
    pub(crate) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("killed here")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one", Existing::Keep).unwrap();
        write(&path, b"two", Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one", Existing::Keep).unwrap();
        let error = write(&path, b"two", Existing::Keep).unwrap_err();
        assert!(
            matches!(&error, StoreError::Io { source, .. }
                if source.kind() == io::ErrorKind::AlreadyExists),
            "{error:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_writer_killed_anywhere_leaves_the_old_file_or_the_new_one() {
        for point in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            write(&path, b"one", Existing::Keep).unwrap();
            fault::die_after(point);
            let written = write(&path, b"two", Existing::Replace);
            let died = fault::revive();
            clean(dir.path());
            let content = fs::read(&path).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{point}");
            if !died {
                written.unwrap();
                assert_eq!(content, b"two");
                assert!(point >= 4);
                return;
            }
            assert!(content == b"one" || content == b"two", "{point}");
        }
    }

    #[test]
    fn the_temporary_file_of_a_living_writer_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = create_temp(dir.path()).unwrap();
        clean(dir.path());
        assert!(path.exists());
        drop(file);
        clean(dir.path());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_regular_file_of_bounded_size_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(read(&path, 10).unwrap().is_none());
        fs::write(&path, [7; 11]).unwrap();
        assert!(matches!(read(&path, 10), Err(StoreError::Damaged { .. })));
        assert_eq!(read(&path, 11).unwrap().unwrap().len(), 11);
        let link = dir.path().join("b");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(read(&link, 11), Err(StoreError::Damaged { .. })));
        assert!(matches!(
            read(dir.path(), 11),
            Err(StoreError::Damaged { .. })
        ));
    }

    #[test]
    fn missing_directories_are_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir(&deep).unwrap();
        create_dir(&deep).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(made))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
