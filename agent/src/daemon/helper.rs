//! Commands that `agent.toml` names, run for the agent: witnesses of the log, checks before a
//! signature.
//!
//! They get one text on standard input and nothing else of ours: no environment but HOME, USER and
//! a fixed PATH, no other descriptor, no key. What they say is bounded, and so is their time; one
//! that takes longer is killed with everything that it started.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

/// Bytes kept of what a command says; the rest is read and dropped.
const MAX_SAID: usize = 16 * 1024;

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended; `None`: it took too long and was killed.
    pub(crate) status: Option<ExitStatus>,
    /// The beginning of what it said.
    pub(crate) said: Vec<u8>,
}

/// Runs `command` (program, absolute, and arguments) with `input`, for at most `patience`. Blocks.
///
/// # Errors
///
/// When it cannot be started or waited for.
pub(crate) fn run(command: &[String], input: &str, patience: Duration) -> io::Result<Ran> {
    let [program, arguments @ ..] = command else {
        return Err(io::Error::other("it names no program"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "USER"))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let mut stdout = child.stdout.take().expect("it was asked for");
    let input = input.to_owned();
    // Ends with the command: its end closes the pipe.
    let writer = std::thread::spawn(move || {
        // It may know enough before it has read everything.
        let _ = stdin.write_all(input.as_bytes());
    });
    let ran = attend(&mut child, &mut stdout, Instant::now() + patience);
    if !matches!(
        ran,
        Ok(Ran {
            status: Some(_),
            ..
        })
    ) {
        // The group: what it started would hold the pipes open.
        if let Some(group) = pid(&child) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        child.wait()?;
    }
    // A grandchild in another group may keep the pipe; what it reads is not waited for.
    if writer.is_finished() {
        let _ = writer.join();
    }
    ran
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn attend(child: &mut Child, stdout: &mut ChildStdout, until: Instant) -> io::Result<Ran> {
    let pid = pid(child).ok_or_else(|| io::Error::other("it has no process ID"))?;
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    rustix::io::ioctl_fionbio(&*stdout, true)?;
    let mut said = Vec::new();
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut ready = [
            PollFd::new(&end, PollFlags::IN),
            PollFd::new(&*stdout, PollFlags::IN),
        ];
        let watched = if open { 2 } else { 1 };
        let count = poll(ready.get_mut(..watched).unwrap_or_default(), Some(&left))?;
        let [ended, _] = ready.map(|one| !one.revents().is_empty());
        if open {
            open = read(stdout, &mut said)?;
        }
        if ended {
            let status = Some(child.wait()?);
            return Ok(Ran { status, said });
        }
        if count == 0 {
            return Ok(Ran { status: None, said });
        }
    }
}

/// Reads what is there; whether there may be more.
fn read(stdout: &mut ChildStdout, said: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match stdout.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => {
                let room = MAX_SAID.saturating_sub(said.len()).min(len);
                said.extend(buffer.get(..room).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, patience: Duration) -> Ran {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&command, input, patience).unwrap()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_gets_the_text_and_nothing_of_our_environment() {
        let ran = shell("cat; env", "the line\n", MINUTE);
        let said = String::from_utf8(ran.said).unwrap();
        assert!(
            said.starts_with("the line\n") && !said.contains("CARGO"),
            "{said}"
        );
        assert!(ran.status.unwrap().success());
        assert_eq!(shell("exit 3", "", MINUTE).status.unwrap().code(), Some(3));
    }

    #[test]
    fn what_it_says_and_how_long_it_takes_is_bounded() {
        let ran = shell("head -c 1000000 /dev/zero", "", MINUTE);
        assert_eq!(
            (ran.said.len(), ran.status.unwrap().code()),
            (MAX_SAID, Some(0))
        );
        // It and its child, neither of which reads what it is sent.
        let long = "x".repeat(1 << 20);
        let ran = shell(
            "echo begun; sleep 1000 & sleep 1000",
            &long,
            Duration::from_millis(300),
        );
        assert!(ran.status.is_none());
        assert_eq!(ran.said, b"begun\n");
        let missing = run(&["/nowhere/at/all".to_owned()], "", MINUTE).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
