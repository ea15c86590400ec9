//! The helper itself: a process that runs programs and tells what `/proc` says of callers.
//!
//! It is forked before the agent opens anything, so it has no key and no secret; it is neither
//! sandboxed nor may it be reached by anybody but the agent, over sockets that both were born with.
//! When the agent ends, however it does, the sockets close: the helper kills what it runs, and ends.
#![allow(unsafe_code)]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::permitted::Permitted;
use super::wire::{self, MAX_PACKET, News, Question, Spawn};

/// Programs that run at once; one more is refused.
const MAX_RUNNING: usize = 64;
/// Where programs look for others; the same for everybody.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The helper's ends of the sockets.
#[derive(Debug)]
pub(super) struct Ends {
    /// [`Spawn`] comes in, with descriptors.
    pub(super) orders: OwnedFd,
    /// Questions about processes come in, answers go out.
    pub(super) questions: OwnedFd,
}

/// Forks. In the child [`serve`] runs until the other ends are gone, and nothing else of the program
/// ever does.
///
/// # Safety
///
/// The process has one thread.
pub(super) unsafe fn fork(ends: Ends, settings: &Path) -> io::Result<()> {
    // SAFETY: with one thread nobody can hold a lock that the child would wait for.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let served = std::panic::catch_unwind(|| {
                settle(&ends);
                serve(&ends, Some(Permitted::new(settings.to_owned())));
            });
            // SAFETY: _exit(2) runs nothing of ours: what the agent registered for its end is not
            // the helper's.
            unsafe { libc::_exit(i32::from(served.is_err())) }
        }
        _ => Ok(()),
    }
}

/// Lets go of what the agent was born with. All of it is best effort: a helper that keeps a
/// descriptor still helps.
fn settle(ends: &Ends) {
    // A session of its own: no terminal of whoever started the agent is that of a pinentry.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"signet-helper");
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        // The pipe whose end tells a waiting command that the agent is ready.
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let mut kept = [ends.orders.as_raw_fd(), ends.questions.as_raw_fd()];
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        close(from, fd.saturating_sub(1));
        from = fd + 1;
    }
    close(from, u32::MAX);
    // What ends a service goes to all of its processes; the helper ends with the agent, which may
    // still need it. Programs are started with an empty mask.
    // SAFETY: a signal set on the stack, initialised by sigemptyset(3) before it is used.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            libc::sigaddset(&raw mut mask, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut());
    }
}

fn close(from: u32, to: u32) {
    if from <= to {
        // SAFETY: in the forked child: its copies of these descriptors have no owner that runs.
        unsafe {
            libc::close_range(from, to, 0);
        }
    }
}

/// A program that runs.
struct Running {
    child: Child,
    end: OwnedFd,
    /// The agent's interest in it.
    news: OwnedFd,
}

impl Running {
    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn kill(mut self) {
        // The group: what it started would hold its pipes open. It is not waited for yet, so that
        // nobody else has its ID.
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Serves until both sockets are closed from the other end. Without `permitted` it runs whatever it
/// is asked to: for the thread of a process that could run it itself.
pub(super) fn serve(ends: &Ends, mut permitted: Option<Permitted>) {
    let mut running: Vec<Running> = Vec::new();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut ready: Vec<PollFd<'_>> = vec![
            watched(ends.questions.as_fd()),
            watched(ends.orders.as_fd()),
        ];
        for one in &running {
            ready.push(watched(one.end.as_fd()));
            ready.push(watched(one.news.as_fd()));
        }
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        }
        let ready: Vec<bool> = ready.iter().map(|one| !one.revents().is_empty()).collect();
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        // From the last, as some are taken out.
        for at in (0..running.len()).rev() {
            if is_ready(2 + 2 * at) {
                let mut ended = running.swap_remove(at);
                if let Ok(status) = ended.child.wait() {
                    // The agent may not want to know any more.
                    let _ = wire::send(&ended.news, &News::Ended(status).encode(), &[]);
                }
            } else if is_ready(3 + 2 * at) {
                running.swap_remove(at).kill();
            }
        }
        if is_ready(0) && !answer(&ends.questions, &mut buffer) {
            break;
        }
        if is_ready(1) && !obey(&ends.orders, &mut buffer, &mut running, permitted.as_mut()) {
            break;
        }
    }
    for one in running {
        one.kill();
    }
}

/// Tells of one process; false when nobody asks any more.
fn answer(questions: &OwnedFd, buffer: &mut [u8]) -> bool {
    let len = match wire::receive(questions, buffer) {
        Ok((0, _)) | Err(_) => return false,
        Ok((len, _)) => len,
    };
    let Some((number, question, pid)) = buffer.get(..len).and_then(wire::read_ask) else {
        return true;
    };
    match question {
        Question::Program => {
            let (path, program) = program_of(pid);
            let fds: Vec<BorrowedFd<'_>> = program.iter().map(File::as_fd).collect();
            let packet = wire::tell(number, path.as_deref().map(Path::as_os_str));
            wire::send(questions, &packet, &fds).is_ok()
        }
        Question::Cards => {
            let yes = uses_cards(pid).then_some(OsStr::new("yes"));
            wire::send(questions, &wire::tell(number, yes), &[]).is_ok()
        }
    }
}

/// What a process runs: the path, as `/proc` shows it, and the file.
pub(super) fn program_of(pid: i32) -> (Option<PathBuf>, Option<File>) {
    let place = format!("/proc/{pid}/exe");
    (fs::read_link(&place).ok(), File::open(&place).ok())
}

/// Whether a process has the library of pcscd's clients loaded; only our own user's tell.
pub(super) fn uses_cards(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps"))
        .is_ok_and(|maps| maps.contains("libpcsclite.so"))
}

/// Starts one program; false when nobody orders any more.
fn obey(
    orders: &OwnedFd,
    buffer: &mut [u8],
    running: &mut Vec<Running>,
    permitted: Option<&mut Permitted>,
) -> bool {
    let (len, fds) = match wire::receive(orders, buffer) {
        Ok((0, _)) => return false,
        Ok(received) => received,
        Err(_) => return true,
    };
    let Ok([input, output, news]) = <[OwnedFd; 3]>::try_from(fds) else {
        return true;
    };
    let spawn = buffer.get(..len).and_then(Spawn::decode);
    let started = match spawn {
        _ if running.len() >= MAX_RUNNING => Err(rustix::io::Errno::AGAIN.into()),
        None => Err(rustix::io::Errno::INVAL.into()),
        Some(spawn) if permitted.is_some_and(|rules| !rules.allows(&spawn)) => {
            Err(rustix::io::Errno::PERM.into())
        }
        Some(spawn) => start(&spawn, input, output),
    };
    let told = match &started {
        Ok(_) => News::Started,
        Err(error) => News::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    // An agent that is gone already closed `news`, which is seen next.
    let _ = wire::send(&news, &told.encode(), &[]);
    if let Ok((child, end)) = started {
        running.push(Running { child, end, news });
    }
    true
}

fn start(spawn: &Spawn, input: OwnedFd, output: OwnedFd) -> io::Result<(Child, OwnedFd)> {
    let [program, arguments @ ..] = &spawn.argv[..] else {
        return Err(rustix::io::Errno::INVAL.into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "USER"))
        .env("PATH", PATH)
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let end = pid
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    match end {
        Ok(end) => Ok((child, end)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.into())
        }
    }
}
