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
    time::Duration,
};

use crate::daemon::helper;

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
    /// The witness file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.witness {
            Some(Witness::File(path)) => Some(path),
            Some(Witness::Command(_)) | None => None,
        }
    }

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
    let program = command.first().map_or("", String::as_str);
    match helper::run(command, &format!("{line}\n"), PATIENCE)?.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(io::Error::other(format!("{program}: {status}"))),
        None => Err(io::Error::other(format!("{program} took too long"))),
    }
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
    fn a_command_gets_the_line_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat >{}", out.display());
        let command = ["/bin/sh", "-c", &script].map(str::to_owned);
        run(&command, "the line").unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "the line\n");
        let failed = run(&["/bin/false".to_owned()], "x").unwrap_err();
        assert!(failed.to_string().contains("/bin/false"), "{failed}");
    }
}
