//! What the kernel says of the process at the other end of the socket.
//!
//! Facts are taken once, at accept. Rules that rest on them prevent accidents, not a hostile
//! process of the same user: whoever may open the socket may also be somebody else's child.
#![allow(unsafe_code)]

use std::{
    fmt::Write as _,
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use signet_trust::payload::escape;
use tokio::net::UnixStream;

use super::helper;
use crate::presence::SessionId;

/// Programs that carry other machines' requests: what comes through them is treated as forwarded.
const FORWARDERS: [&str; 6] = [
    "ssh",
    "sshd",
    "sshd-session",
    "sshd-auth",
    "socat",
    "socat1",
];

/// `SO_PEERPIDFD` (Linux 6.5), the same number on every architecture but parisc and sparc.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process on the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// User ID when it connected.
    pub uid: u32,
    /// Process ID when it connected; 0 when it lives in a namespace that we do not see.
    pub pid: i32,
    /// Its program, if the helper knew: the kernel keeps it from us where the process is undumpable
    /// and we are not root, as it is with `signet` and `sshd`.
    pub exe: Option<PathBuf>,
    /// The name that it gives itself, and its controlling terminal.
    stat: Option<Stat>,
    /// Kernel session: the terminal session whose held secrets it may use.
    pub session: Option<SessionId>,
    /// The facts above belong to the process that connected; false when it may have been replaced
    /// while they were read.
    pub confirmed: bool,
    /// It came by the forward socket.
    pub forwarded: bool,
    /// Its program, so that its digest is of what ran when it connected.
    program: Option<Arc<Program>>,
    facts: OnceLock<CallerFacts>,
    /// Keeps the process's ID from being used again while the connection lives.
    _pidfd: Option<OwnedFd>,
}

/// What the log holds of a caller. Members in alphabetical order: its JSON is canonical. Texts are
/// escaped and cut.
#[derive(Debug, Serialize)]
pub(crate) struct CallerFacts {
    /// Control group (version 2), such as that of its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<String>,
    /// The name that it gave itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<String>,
    /// In hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_sha256: Option<String>,
    forwarded: bool,
    pid: i32,
    /// Clock ticks after the system's start (proc(5)).
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal: Option<String>,
    uid: u32,
}

/// Longest text of a fact.
const MAX_FACT: usize = 512;
/// The largest program whose digest is computed.
const MAX_PROGRAM: u64 = 64 * 1024 * 1024;
/// Programs that are remembered, with their digests: more than ever speak to an agent.
const MAX_PROGRAMS: usize = 32;

impl CallerFacts {
    /// The control group, escaped.
    pub(crate) fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_deref()
    }

    /// Its controlling terminal, `pts/3`.
    pub(crate) fn terminal(&self) -> Option<&str> {
        self.terminal.as_deref()
    }
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
        let (exe, file) = match pid {
            1.. => helper::program_of(pid),
            _ => (None, None),
        };
        let program = file.and_then(Program::shared);
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
            session: after.as_ref().map(|stat| SessionId(stat.session)),
            stat: after,
            confirmed,
            forwarded: false,
            program,
            facts: OnceLock::new(),
            _pidfd: pidfd,
        })
    }

    /// The facts of this very process.
    #[must_use]
    pub fn this_process() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let stat = Stat::of(pid);
        Self {
            uid: rustix::process::geteuid().as_raw(),
            pid,
            exe: std::env::current_exe().ok(),
            session: stat.as_ref().map(|stat| SessionId(stat.session)),
            stat,
            confirmed: true,
            forwarded: false,
            program: None,
            facts: OnceLock::new(),
            _pidfd: None,
        }
    }

    /// Whether it carries requests of somebody else: never prompted on its stream, never satisfied
    /// by a held secret alone.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        let program = self.exe.as_deref().and_then(Path::file_name);
        // sshd gives up its user: the kernel hides its program, but not its name. Who calls himself
        // by one of these names is taken at his word.
        let name = self.stat.as_ref().map(|stat| stat.comm.as_str());
        let mut names = [program.and_then(|name| name.to_str()), name].into_iter();
        self.forwarded
            || names.any(|name| {
                // A replaced binary shows as `ssh (deleted)`.
                name.is_some_and(|name| FORWARDERS.contains(&name.trim_end_matches(" (deleted)")))
            })
    }

    /// For the log: `pid 4711 /usr/bin/signet`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("pid {}", self.pid);
        let name = self.program_name();
        if !name.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, " {name}");
        }
        if !self.confirmed {
            text.push_str(" (unconfirmed)");
        }
        if self.is_forwarded() {
            text.push_str(" (forwarded)");
        }
        text
    }

    /// Its program, or the name that it gives itself, for people; empty if neither is known.
    #[must_use]
    pub fn program_name(&self) -> String {
        match (&self.exe, &self.stat) {
            (Some(exe), _) => fact(&exe.to_string_lossy()),
            (None, Some(stat)) => fact(&stat.comm),
            (None, None) => String::new(),
        }
    }

    /// All facts, for the log; computed once.
    pub(crate) fn facts(&self) -> &CallerFacts {
        self.facts.get_or_init(|| CallerFacts {
            cgroup: self.cgroup().map(|text| fact(&text)),
            comm: self.stat.as_ref().map(|stat| fact(&stat.comm)),
            confirmed: self.confirmed,
            exe: self.exe.as_deref().map(|exe| fact(&exe.to_string_lossy())),
            exe_sha256: self
                .program
                .as_deref()
                .and_then(Program::digest)
                .map(hex::encode),
            forwarded: self.is_forwarded(),
            pid: self.pid,
            started: self.stat.as_ref().map(|stat| stat.started),
            terminal: self.stat.as_ref().and_then(|stat| terminal(stat.terminal)),
            uid: self.uid,
        })
    }

    /// From `/proc/<pid>/cgroup`, if the process still is the one that connected.
    fn cgroup(&self) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        if self.stat.is_none() || Stat::of(self.pid) != self.stat {
            return None;
        }
        // "0::" is the unified hierarchy (cgroups(7)).
        let line = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(line.to_owned())
    }
}

/// A text from outside as a fact.
fn fact(text: &str) -> String {
    escape(text).chars().take(MAX_FACT).collect()
}

/// The name of a terminal by its device number (proc(5), `tty_nr`; Linux devices.txt).
fn terminal(number: i32) -> Option<String> {
    const PTS: std::ops::RangeInclusive<u32> = 136..=143;
    let number = number.cast_unsigned();
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
    match major {
        0 => None,
        4 if minor < 64 => Some(format!("tty{minor}")),
        _ if PTS.contains(&major) => Some(format!("pts/{}", (major - PTS.start()) * 256 + minor)),
        _ => Some(format!("{major}:{minor}")),
    }
}

/// A program, open. All callers that run it share it, and its digest is computed once.
#[derive(Debug)]
struct Program {
    file: File,
    /// Device, inode, time of the last change, size.
    identity: (u64, u64, i64, i64, u64),
    digest: OnceLock<Option<[u8; 32]>>,
}

impl Program {
    /// The one that is known already, else this one; `None` for what is no file, or too large.
    fn shared(file: File) -> Option<Arc<Self>> {
        static KNOWN: Mutex<Vec<Arc<Program>>> = Mutex::new(Vec::new());
        let facts = file.metadata().ok()?;
        if !facts.is_file() || facts.len() > MAX_PROGRAM {
            return None;
        }
        let (seconds, nanos) = (facts.ctime(), facts.ctime_nsec());
        let identity = (facts.dev(), facts.ino(), seconds, nanos, facts.len());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = known.iter().find(|one| one.identity == identity) {
            return Some(Arc::clone(program));
        }
        if known.len() == MAX_PROGRAMS {
            known.remove(0);
        }
        let program = Arc::new(Self {
            file,
            identity,
            digest: OnceLock::new(),
        });
        known.push(Arc::clone(&program));
        Some(program)
    }

    /// SHA-256.
    fn digest(&self) -> Option<[u8; 32]> {
        *self.digest.get_or_init(|| {
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 256 * 1024];
            let mut at = 0;
            while at < MAX_PROGRAM {
                match self.file.read_at(&mut buffer, at).ok()? {
                    0 => break,
                    len => {
                        hash.update(buffer.get(..len)?);
                        at += len as u64;
                    }
                }
            }
            Some(hash.finalize().into())
        })
    }
}

/// What identifies a process beyond its ID.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    session: i32,
    terminal: i32,
    started: u64,
}

impl Stat {
    /// Fields 2 (name), 6 (session), 7 (terminal) and 22 (start time) of `/proc/<pid>/stat`.
    fn of(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the name in parentheses and may hold anything, so fields count from the
    /// last `)`.
    fn parse(text: &str) -> Option<Self> {
        let (before, rest) = text.rsplit_once(')')?;
        let (_, comm) = before.split_once('(')?;
        let mut fields = rest.split_ascii_whitespace();
        let session = fields.nth(3)?.parse().ok()?;
        let terminal = fields.next()?.parse().ok()?;
        let started = fields.nth(14)?.parse().ok()?;
        Some(Self {
            comm: comm.to_owned(),
            session,
            terminal,
            started,
        })
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
                comm: "a) b".to_owned(),
                session: 34,
                terminal: 0,
                started: 987
            })
        );
        assert_eq!(Stat::parse("12 (cut"), None);
    }

    #[test]
    fn the_facts_name_terminal_and_program() {
        assert_eq!(terminal(0), None);
        assert_eq!(terminal(34_819).as_deref(), Some("pts/3"));
        assert_eq!(terminal(0x8903).as_deref(), Some("pts/259"));
        assert_eq!(terminal(1025).as_deref(), Some("tty1"));
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"abc").unwrap();
        // FIPS 180-4, "abc".
        let program = Program::shared(file.try_clone().unwrap()).unwrap();
        let digest = hex::encode(program.digest().unwrap());
        assert!(digest.starts_with("ba7816bf8f01cfea"), "{digest}");
        assert!(Arc::ptr_eq(&program, &Program::shared(file).unwrap()));
    }

    #[test]
    fn what_ssh_carries_is_forwarded() {
        let mut caller = Caller {
            exe: Some("/usr/sbin/sshd".into()),
            ..Caller::this_process()
        };
        assert!(caller.is_forwarded());
        // The kernel hides the program of a process that gave up its user.
        caller.exe = None;
        caller.stat.as_mut().unwrap().comm = "sshd".to_owned();
        assert!(caller.is_forwarded());
        assert!(caller.describe().contains(" sshd (forwarded)"));
        caller.exe = Some("/usr/bin/ssh (deleted)".into());
        assert!(caller.is_forwarded());
        caller.exe = Some("/usr/bin/signet".into());
        assert!(caller.is_forwarded(), "by the name that it gives itself");
        caller.stat.as_mut().unwrap().comm = "signet".to_owned();
        assert!(!caller.is_forwarded());
        caller.exe = Some("/usr/bin/socat1".into());
        assert!(caller.is_forwarded());
    }
}
