//! A file that a command makes: new, private, whole and on disk, or not there at all.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::failure::{Failure, exit};

/// A file under a name of its own, until it is kept; dropped, it is gone.
pub(crate) struct NewFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl NewFile {
    /// Begins a file that is to lie at `path`, where nothing may lie yet.
    ///
    /// # Errors
    ///
    /// Exit 1: something lies there, or the directory cannot be written.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        must_be_free(path)?;
        let temporary = tempfile::Builder::new()
            .prefix(".signet-")
            .tempfile_in(directory(path))
            .map_err(|error| Failure::file("write", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
        })
    }

    /// To be written to.
    pub(crate) fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Gives it its name, once it is on disk.
    ///
    /// # Errors
    ///
    /// Exit 1: the disk is full, or somebody was faster.
    pub(crate) fn keep(self) -> Result<(), Failure> {
        let Self { path, temporary } = self;
        let failed = |error| Failure::file("write", &path, error);
        temporary.as_file().sync_all().map_err(failed)?;
        temporary
            .persist_noclobber(&path)
            .map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => exists(&path),
                _ => failed(error.error),
            })?;
        File::open(directory(&path))
            .and_then(|dir| dir.sync_all())
            .map_err(failed)
    }
}

/// Refuses a name that is taken: before anything is asked for what could not be written.
///
/// # Errors
///
/// Exit 1.
pub(crate) fn must_be_free(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(path)),
        Err(_) => Ok(()),
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(
        exit::FAILED,
        "file_exists",
        format!("{} exists already", path.display()),
    )
    .fix("choose another name; nothing is ever overwritten")
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_is_new_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let mut new = NewFile::begin(&path).unwrap();
        let mut late = NewFile::begin(&path).unwrap();
        new.file().write_all(b"one").unwrap();
        new.keep().unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        late.file().write_all(b"two").unwrap();
        assert_eq!(late.keep().unwrap_err().code, "file_exists");
        let again = NewFile::begin(&path).err().unwrap();
        assert_eq!(again.code, "file_exists");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
