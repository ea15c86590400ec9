//! What the kernel says of the process at the other end of the socket.
//!
//! Facts are taken once, at accept. Rules that rest on them prevent accidents, not a hostile
//! process of the same user: whoever may open the socket may also be somebody else's child.
#![allow(unsafe_code)]

use std::{
    fmt::Write as _,
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use signet_trust::payload::escape;
use tokio::net::UnixStream;

use crate::presence::SessionId;

/// Programs that carry other machines' requests: what comes through them is treated as forwarded.
const FORWARDERS: [&str; 5] = ["ssh", "sshd", "sshd-session", "sshd-auth", "socat"];

/// `SO_PEERPIDFD` (Linux 6.5), the same number on every architecture but parisc and sparc.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process on the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// User ID when it connected.
    pub uid: u32,
    /// Process ID when it connected; 0 when it lives in a namespace that we do not see.
    pub pid: i32,
    /// Its program, if `/proc` told.
    pub exe: Option<PathBuf>,
    /// Kernel session: the terminal session whose held secrets it may use.
    pub session: Option<SessionId>,
    /// The facts above belong to the process that connected; false when it may have been replaced
    /// while they were read.
    pub confirmed: bool,
    /// Keeps the process's ID from being used again while the connection lives.
    _pidfd: Option<OwnedFd>,
}

impl Caller {
    /// Reads the facts of the peer of `stream`.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell the peer's credentials.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().unwrap_or(0);
        let pinned = peer_pidfd(stream);
        let had_pidfd = pinned.is_some();
        let before = Stat::of(pid);
        let pidfd = pinned.or_else(|| open_pidfd(pid));
        let exe = (pid > 0)
            .then(|| fs::read_link(format!("/proc/{pid}/exe")).ok())
            .flatten();
        let after = Stat::of(pid);
        let steady = before.is_some() && before == after;
        // With the peer's own pidfd the process that connected still runs under this ID unless it
        // has ended; without, the same start time before and after is the best there is.
        let confirmed = steady
            && pidfd
                .as_ref()
                .is_some_and(|fd| !has_ended(fd) || !had_pidfd);
        Ok(Self {
            uid: credentials.uid(),
            pid,
            exe,
            session: after.map(|stat| SessionId(stat.session)),
            confirmed,
            _pidfd: pidfd,
        })
    }

    /// The facts of this very process.
    #[must_use]
    pub fn this_process() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            pid,
            exe: std::env::current_exe().ok(),
            session: Stat::of(pid).map(|stat| SessionId(stat.session)),
            confirmed: true,
            _pidfd: None,
        }
    }

    /// Whether it carries requests of somebody else: never prompted on its stream, never satisfied
    /// by a held secret alone.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        let name = self
            .exe
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        // A replaced binary shows as `ssh (deleted)`.
        name.is_some_and(|name| FORWARDERS.contains(&name.trim_end_matches(" (deleted)")))
    }

    /// For the log: `pid 4711 /usr/bin/signet`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("pid {}", self.pid);
        if let Some(exe) = &self.exe {
            // Writing to a string cannot fail.
            let _ = write!(text, " {}", escape(&exe.to_string_lossy()));
        }
        if !self.confirmed {
            text.push_str(" (unconfirmed)");
        }
        if self.is_forwarded() {
            text.push_str(" (forwarded)");
        }
        text
    }
}

/// What identifies a process beyond its ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    session: i32,
    started: u64,
}

impl Stat {
    /// Fields 6 (session) and 22 (start time) of `/proc/<pid>/stat`.
    fn of(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the name in parentheses and may hold anything, so fields count from the
    /// last `)`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let session = fields.nth(3)?.parse().ok()?;
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { session, started })
    }
}

/// The peer's pidfd as the kernel pinned it at connect.
fn peer_pidfd(stream: &UnixStream) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).ok()?;
    // SAFETY: `fd` and `size` are valid for writes of an int and a socklen_t for the call's length,
    // and `stream` is an open socket.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut size,
        )
    };
    if result != 0 || fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// A pidfd becomes readable when its process ends.
fn has_ended(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_peer_of_a_socket_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let caller = Caller::of(&a).unwrap();
        assert_eq!(caller.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
        assert!(caller.confirmed && caller.session.is_some() && !caller.is_forwarded());
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let text = "12 (a) b) S 1 12 34 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 1 1";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                session: 34,
                started: 987
            })
        );
        assert_eq!(Stat::parse("12 (cut"), None);
    }

    #[test]
    fn what_ssh_carries_is_forwarded() {
        let mut caller = Caller {
            uid: 0,
            pid: 1,
            exe: Some("/usr/sbin/sshd".into()),
            session: None,
            confirmed: true,
            _pidfd: None,
        };
        assert!(caller.is_forwarded());
        caller.exe = Some("/usr/bin/ssh (deleted)".into());
        assert!(caller.is_forwarded());
        caller.exe = Some("/usr/bin/signet".into());
        assert!(!caller.is_forwarded());
    }
}
