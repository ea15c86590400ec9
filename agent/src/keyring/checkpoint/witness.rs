//! Who is told of each checkpoint: what lies outside the ledger makes tampering with it evident.
//!
//! Witnesses are the system's journal, which takes the line under the name `signetd`, and
//! `log.witness`: a file that the line is appended to, or a command that gets it on standard input.
//! The agent never opens another file or runs another command than `agent.toml` names.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Where journald takes entries (systemd.journal-fields(7), "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog(3): a normal but significant condition.
const NOTICE: u8 = 5;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The newest lines of a witness file that are read back: some 3,000 checkpoints.
const READ_BACK: u64 = 1024 * 1024;

/// What `log.witness` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Lines are appended to it.
    File(PathBuf),
    /// Program (absolute) and arguments.
    Command(Vec<String>),
}

/// Everybody who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnesses {
    /// The system's journal is not told.
    pub no_journal: bool,
    /// `log.witness`.
    pub witness: Option<Witness>,
}

impl Witnesses {
    /// Tells everybody; what fails is logged.
    pub(super) fn tell(&self, line: &str) {
        if !self.no_journal
            && let Err(error) = tell_journal(Path::new(JOURNAL), line)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the journal did not take a checkpoint of the log");
        }
        let told = match &self.witness {
            None => return,
            Some(Witness::File(path)) => append(path, line),
            Some(Witness::Command(command)) => run(command, line),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the witness did not take a checkpoint of the log");
        }
    }

    /// The newest lines of the witness file; none where the witness is no file.
    ///
    /// # Errors
    ///
    /// When there is a file that cannot be read.
    pub(crate) fn lines(&self) -> io::Result<Vec<String>> {
        let Some(Witness::File(path)) = &self.witness else {
            return Ok(Vec::new());
        };
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let len = file.metadata()?.len();
        let start = len.saturating_sub(READ_BACK);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.take(READ_BACK).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        // The first one may be half a line.
        let lines = text.lines().skip(usize::from(start > 0));
        Ok(lines.map(str::to_owned).collect())
    }
}

/// Sends the line to journald.
fn tell_journal(socket: &Path, line: &str) -> io::Result<()> {
    let journal = UnixDatagram::unbound()?;
    journal.set_nonblocking(true)?;
    let entry = format!(
        "MESSAGE={line}\nPRIORITY={NOTICE}\nSYSLOG_IDENTIFIER=signetd\nSIGNET_CHECKPOINT=1\n"
    );
    journal.send_to(entry.as_bytes(), socket).map(drop)
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A pipe without a reader is no reason to wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    // One write: two agents' lines do not mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

fn run(command: &[String], line: &str) -> io::Result<()> {
    let [program, arguments @ ..] = command else {
        return Err(io::Error::other("it names no program"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "USER"))
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let written = child
        .stdin
        .take()
        .expect("it was asked for")
        .write_all(format!("{line}\n").as_bytes());
    let status = wait(&mut child)?;
    match (status, written) {
        (Some(status), _) if !status.success() => {
            Err(io::Error::other(format!("{program}: {status}")))
        }
        (None, _) => Err(io::Error::other(format!("{program} took too long"))),
        // It may have known enough before it read everything.
        (Some(_), _) => Ok(()),
    }
}

/// Waits for its end, at most [`PATIENCE`]; `None` when it had to be killed.
fn wait(child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process ID"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    if poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience))? == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_journal_gets_the_line_as_a_message_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        tell_journal(&path, "{\"checkpoint\":1}").unwrap();
        let mut entry = [0; 1024];
        let len = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..len]);
        assert!(entry.starts_with("MESSAGE={\"checkpoint\":1}\n"), "{entry}");
        assert!(entry.contains("\nSYSLOG_IDENTIFIER=signetd\n"), "{entry}");
    }

    #[test]
    fn a_file_gets_a_line_each_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let witnesses = Witnesses {
            no_journal: true,
            witness: Some(Witness::File(path.clone())),
        };
        assert!(witnesses.lines().unwrap().is_empty());
        witnesses.tell("one");
        witnesses.tell("two");
        assert_eq!(witnesses.lines().unwrap(), ["one", "two"]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_command_gets_the_line_and_nothing_of_our_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat >{0}; env >>{0}", out.display());
        let command = ["/bin/sh", "-c", &script].map(str::to_owned);
        run(&command, "the line").unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.starts_with("the line\n"), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
        let failed = run(&["/bin/false".to_owned()], "x").unwrap_err();
        assert!(failed.to_string().contains("/bin/false"), "{failed}");
    }
}
