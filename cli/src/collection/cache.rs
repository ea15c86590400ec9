//! Docker's TUF cache, `$DOCKER_CONFIG/trust/tuf/<GUN>/metadata`: the same files with the same
//! bytes, so that a repository pinned by docker stays pinned here, and the other way round.
//!
//! Unlike docker, which writes in place, files are replaced whole: a reader or a crash sees the
//! old document or the new one.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use signet_trust::{Gun, RoleName, update::Cached, verify::limit};

use crate::failure::Failure;

/// The cached documents of one collection.
#[derive(Clone, Debug)]
pub(crate) struct TufCache {
    directory: PathBuf,
}

/// Delegations nest; deeper than this nobody's do.
const MAX_DEPTH: usize = 8;

impl TufCache {
    /// The cache of `gun` below Docker's directory. A GUN is a relative path by its type.
    pub(crate) fn new(docker_dir: &Path, gun: &Gun) -> Self {
        let directory = docker_dir
            .join("trust/tuf")
            .join(gun.as_str())
            .join("metadata");
        Self { directory }
    }

    /// Where it is, for messages.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Everything that is there. Files whose names are no roles are not ours.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or is larger than any document may be.
    pub(crate) fn load(&self) -> Result<Cached, Failure> {
        let mut cached = Cached {
            root: self.read(&RoleName::Root)?,
            timestamp: self.read(&RoleName::Timestamp)?,
            snapshot: self.read(&RoleName::Snapshot)?,
            ..Cached::default()
        };
        if let Some(targets) = self.read(&RoleName::Targets)? {
            cached.targets.insert(RoleName::Targets, targets);
        }
        let mut found = Vec::new();
        list(
            &self.directory.join("targets"),
            "targets",
            MAX_DEPTH,
            &mut found,
        );
        for role in found {
            if let Some(bytes) = self.read(&role)? {
                cached.targets.insert(role, bytes);
            }
        }
        Ok(cached)
    }

    /// One document; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub(crate) fn read(&self, role: &RoleName) -> Result<Option<Vec<u8>>, Failure> {
        let file = self.file(role);
        let most = match role {
            RoleName::Timestamp => limit::TIMESTAMP,
            _ => limit::ROLE,
        } as u64;
        let failed = |error| Failure::file("read", &file, error);
        let opened = match fs::File::open(&file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let size = opened.metadata().map_err(failed)?.len();
        if size > most {
            return Err(failed(io::Error::other(format!(
                "larger than {most} bytes"
            ))));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        opened.take(most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Replaces documents. All are durable before the first takes the place of an old one.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; the old ones are still there then.
    pub(crate) fn save<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a RoleName, &'a [u8])>,
    ) -> Result<(), Failure> {
        make_directory(&self.directory)
            .map_err(|error| Failure::file("create", &self.directory, error))?;
        let _lock = self.lock()?;
        // All written before the first is waited for: the disk then takes them in one go.
        let mut directories: Vec<PathBuf> = Vec::new();
        let mut written = Vec::new();
        for (role, bytes) in documents {
            let file = self.file(role);
            let directory = file
                .parent()
                .expect("a file of the cache lies in its directory");
            make_directory(directory).map_err(|error| Failure::file("create", directory, error))?;
            if !directories.iter().any(|known| known == directory) {
                remove_stale(directory);
                directories.push(directory.to_owned());
            }
            let temporary =
                write_new(&file, bytes).map_err(|error| Failure::file("write", &file, error))?;
            written.push((temporary, file));
        }
        let mut ready = Vec::new();
        for (temporary, file) in written {
            temporary
                .as_file()
                .sync_all()
                .map_err(|error| Failure::file("write", &file, error))?;
            ready.push((temporary.into_temp_path(), file));
        }
        for (temporary, file) in ready {
            temporary
                .persist(&file)
                .map_err(|error| Failure::file("write", &file, error.error))?;
        }
        for directory in directories {
            fs::File::open(&directory)
                .and_then(|opened| opened.sync_all())
                .map_err(|error| Failure::file("sync", &directory, error))?;
        }
        Ok(())
    }

    /// Held while files are replaced, so that a temporary file which another run finds is one that
    /// a killed run left.
    fn lock(&self) -> Result<fs::File, Failure> {
        let failed = |error| Failure::file("lock", &self.directory, error);
        let directory = fs::File::open(&self.directory).map_err(failed)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(directory)
    }

    /// Forgets everything but the root: what comes next belongs to another collection.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    pub(crate) fn forget_all_but_root(&self) -> Result<(), Failure> {
        let mut roles = vec![RoleName::Timestamp, RoleName::Snapshot, RoleName::Targets];
        list(
            &self.directory.join("targets"),
            "targets",
            MAX_DEPTH,
            &mut roles,
        );
        for role in roles {
            let file = self.file(&role);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::file("remove", &file, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, role: &RoleName) -> PathBuf {
        self.directory.join(format!("{role}.json"))
    }
}

/// Creates a directory and those above it, 0700; existing ones are left as they are.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// The content in a new file beside `file`, durable, not yet in its place.
pub(crate) fn write_beside(file: &Path, bytes: &[u8]) -> io::Result<tempfile::TempPath> {
    let temporary = write_new(file, bytes)?;
    temporary.as_file().sync_all()?;
    Ok(temporary.into_temp_path())
}

/// Removes what killed runs left. What cannot be removed is in nobody's way.
pub(crate) fn remove_stale(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if is_ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Names of temporary files. They do not end in .json: no reader of the cache takes one for a
/// document.
const PREFIX: &str = ".signet-";
const SUFFIX: &str = ".tmp";

fn write_new(file: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .make_in(directory, |path| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })?;
    temporary.as_file_mut().write_all(bytes)?;
    Ok(temporary)
}

/// Roles of the files below `directory`, `name` being the role of the directory itself.
fn list(directory: &Path, name: &str, depth: usize, found: &mut Vec<RoleName>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else {
            continue;
        };
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            list(
                &entry.path(),
                &format!("{name}/{file_name}"),
                depth - 1,
                found,
            );
        } else if kind.is_file()
            && let Some(stem) = file_name.strip_suffix(".json")
            && let Ok(role) = format!("{name}/{stem}").parse()
        {
            found.push(role);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache() -> (tempfile::TempDir, TufCache) {
        let directory = tempfile::tempdir().unwrap();
        let gun = "127.0.0.1:5000/acme/app".parse().unwrap();
        let cache = TufCache::new(directory.path(), &gun);
        (directory, cache)
    }

    #[test]
    fn documents_lie_where_docker_puts_them() {
        let (directory, cache) = cache();
        let releases: RoleName = "targets/releases".parse().unwrap();
        cache
            .save([(&RoleName::Root, &b"{r}"[..]), (&releases, &b"{d}"[..])])
            .unwrap();
        let metadata = directory
            .path()
            .join("trust/tuf/127.0.0.1:5000/acme/app/metadata");
        assert_eq!(fs::read(metadata.join("root.json")).unwrap(), b"{r}");
        let file = metadata.join("targets/releases.json");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mode = fs::metadata(&metadata).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let cached = cache.load().unwrap();
        assert_eq!(cached.root.unwrap(), b"{r}");
        assert_eq!(cached.targets[&releases], b"{d}");
        assert!(cached.snapshot.is_none());
    }

    #[test]
    fn a_document_is_replaced_whole_and_leaves_no_litter() {
        let (_directory, cache) = cache();
        for bytes in [&b"{1}"[..], b"{2}"] {
            cache.save([(&RoleName::Targets, bytes)]).unwrap();
        }
        assert_eq!(cache.read(&RoleName::Targets).unwrap().unwrap(), b"{2}");
        assert_eq!(fs::read_dir(cache.directory()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_the_next() {
        let (_directory, cache) = cache();
        cache.save([(&RoleName::Root, &b"{1}"[..])]).unwrap();
        fs::write(cache.directory().join(".signet-abc.tmp"), "{").unwrap();
        cache.save([(&RoleName::Root, &b"{2}"[..])]).unwrap();
        assert_eq!(fs::read_dir(cache.directory()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_before_it_is_read() {
        let (_directory, cache) = cache();
        cache.save([(&RoleName::Timestamp, &b"{}"[..])]).unwrap();
        let file = fs::OpenOptions::new()
            .write(true)
            .open(cache.directory().join("timestamp.json"))
            .unwrap();
        file.set_len(limit::TIMESTAMP as u64 + 1).unwrap();
        let failure = cache.load().unwrap_err();
        assert!(failure.message.contains("timestamp.json"), "{failure}");
    }
}
