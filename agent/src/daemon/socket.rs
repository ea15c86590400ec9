//! The home, its lock, and the socket.
//!
//! `agent.lock` is held before anything is bound or unlinked, and for life: one agent serves one
//! home, and a stale socket is removed only by the one who holds it. A socket that was inherited
//! (systemd) is never removed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another agent holds the lock of this home.
    #[error("another signetd{} already serves {}", pid.map_or(String::new(), |pid| format!(" (pid {pid})")), home.display())]
    AlreadyRunning {
        /// The home.
        home: PathBuf,
        /// From the lock file.
        pid: Option<u32>,
    },
    /// A directory that others could change.
    #[error("{} {why}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and the fix.
        why: String,
    },
    /// Somebody answers on the socket who does not hold this home's lock.
    #[error("an agent of another home already listens on {}; set SIGNET_SOCKET to another path", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// `create`, `lock`, `bind` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What systemd handed over is no unix stream socket.
    #[error("the inherited descriptor is not a unix stream socket: {0}")]
    NotASocket(io::Error),
    /// systemd handed over a socket by a name that says nothing.
    #[error(
        "a socket by the name {0:?} was handed over: FileDescriptorName= has to be \"forward\" for \
         the one of other machines, and the agent's own is signetd.socket's"
    )]
    Unnamed(String),
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SocketError + 'a {
    move |source| SocketError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The home of this agent, locked.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory where it is missing, checks it, and takes `agent.lock`.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn lock(path: &Path) -> Result<Self, SocketError> {
        private_directory(path)?;
        let lock_path = path.join("agent.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only for the message: an unreadable pid is no pid.
                let _ = (&lock).take(16).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(SocketError::AlreadyRunning {
                    home: path.to_owned(),
                    pid,
                });
            }
            Err(error) => return Err(io_error("lock", &lock_path)(error.into())),
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(io_error("write", &lock_path))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A listening socket, and whether it is ours to remove.
#[derive(Debug)]
pub struct Socket {
    /// Listening.
    pub listener: UnixListener,
    /// Path, device and inode of a socket that we made.
    made: Option<(PathBuf, u64, u64)>,
}

impl Socket {
    /// The sockets handed over by systemd, if any were: the agent's own, and the forward socket,
    /// which is the one that `FileDescriptorName=` calls `forward`.
    ///
    /// # Errors
    ///
    /// [`SocketError::NotASocket`], [`SocketError::Unnamed`].
    pub fn inherited() -> Result<(Option<Self>, Option<Self>), SocketError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut fds = listenfd::ListenFd::from_env();
        let (mut own, mut forward) = (None, None);
        let mut names = names.split(':');
        for place in 0..fds.len() {
            let name = names.next().unwrap_or_default();
            let listener = fds
                .take_unix_listener(place)
                .map_err(SocketError::NotASocket)?;
            let socket = listener.map(|listener| Self {
                listener,
                made: None,
            });
            match name {
                "forward" => forward = socket,
                // systemd's own name for it, systemd-socket-activate's for one without, and none.
                "signetd.socket" | "agent" | "unknown" | "connection" | "" => {
                    own = own.or(socket);
                }
                // It may be meant for other machines: it must not become the one that does all.
                name => return Err(SocketError::Unnamed(name.to_owned())),
            }
        }
        Ok((own, forward))
    }

    /// Binds `path`, mode 0600, in a directory of ours. A socket that nobody answers on is removed
    /// first: `home` is the proof that its agent is gone.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind(path: &Path, home: &Home) -> Result<Self, SocketError> {
        let _held: &File = &home._lock;
        if let Some(directory) = path.parent() {
            private_directory(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(SocketError::InUse {
                    path: path.to_owned(),
                });
            }
            Ok(_) => fs::remove_file(path).map_err(io_error("remove the stale socket", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("look at", path)(error)),
        }
        let listener = UnixListener::bind(path).map_err(io_error("bind", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(io_error("set the mode of", path))?;
        let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        Ok(Self {
            listener,
            made: Some((path.to_owned(), found.dev(), found.ino())),
        })
    }

    /// Splits off the listener; the rest removes the socket at the end.
    ///
    /// # Errors
    ///
    /// When the listener cannot be made non-blocking.
    pub fn into_parts(self) -> io::Result<(UnixListener, Made)> {
        self.listener.set_nonblocking(true)?;
        Ok((self.listener, Made(self.made)))
    }
}

/// What has to be removed at the end: the socket's path, if it is ours and still the same.
#[derive(Debug)]
#[must_use]
pub struct Made(Option<(PathBuf, u64, u64)>);

impl Made {
    /// Removes the socket that we made, unless something else took its place.
    pub fn remove(self) {
        let Some((path, device, inode)) = self.0 else {
            return;
        };
        if fs::symlink_metadata(&path).is_ok_and(|m| m.dev() == device && m.ino() == inode) {
            // The next agent removes what stays behind.
            let _ = fs::remove_file(path);
        }
    }
}

/// A directory that is ours alone: made with 0700 where it is missing; no symbolic link, not
/// another user's, and without access for others.
///
/// # Errors
///
/// [`SocketError::Directory`], [`SocketError::Io`].
pub fn private_directory(path: &Path) -> Result<(), SocketError> {
    let wrong = |why: String| {
        Err(SocketError::Directory {
            path: path.to_owned(),
            why,
        })
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("create", path))?,
        Err(error) => return Err(io_error("look at", path)(error)),
        Ok(_) => {}
    }
    let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    let uid = rustix::process::geteuid().as_raw();
    if found.file_type().is_symlink() {
        return wrong("is a symbolic link; name the directory itself".to_owned());
    }
    if !found.is_dir() {
        return wrong("is not a directory".to_owned());
    }
    if found.uid() != uid {
        return wrong(format!(
            "belongs to user {}, not to you (user {uid}); use a directory of your own",
            found.uid()
        ));
    }
    if found.mode() & 0o077 != 0 {
        return wrong(format!(
            "is open to others (mode {:03o}); run: chmod 700 {}",
            found.mode() & 0o777,
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_serves_one_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let first = Home::lock(&home).unwrap();
        let error = Home::lock(&home).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, SocketError::AlreadyRunning { pid: Some(p), .. } if p == pid));
        drop(first);
        Home::lock(&home).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::lock(&dir.path().join("home")).unwrap();
        let path = home.path().join("agent.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path, &home).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(
            Socket::bind(&path, &home),
            Err(SocketError::InUse { .. })
        ));
        let (listener, made) = socket.into_parts().unwrap();
        drop(listener);
        made.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_open_to_others_is_refused_with_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let error = private_directory(&open).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(
            private_directory(&link)
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
    }
}
