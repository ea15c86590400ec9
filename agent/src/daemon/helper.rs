//! Programs that run for the agent: witnesses of the log, checks before a signature, pinentries.
//!
//! The agent itself may start none (see `sandbox`): a child does, the *helper*, which was forked
//! before anything was opened, holds no key, and ends with the agent. Programs get their standard
//! input and output and nothing else of ours: no environment but HOME, USER, a fixed PATH and what
//! the request for them adds, no other descriptor. What they say is bounded, and so is their time;
//! one whose [`Child`] is dropped is killed with everything that it started.
//!
//! The helper also tells what a process runs and whether it uses cards, which the kernel does not
//! show to those in a sandbox.
//!
//! Where no helper was forked (the library in somebody else's process), a thread does its work.

mod permitted;
mod process;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::{Timeout, set_socket_timeout},
    pipe::{PipeFlags, pipe_with},
};
use tokio::sync::oneshot;

use self::{
    process::Ends,
    wire::{MAX_PACKET, News, Question, Spawn},
};

/// Bytes kept of what a command says; the rest is read and dropped.
const MAX_SAID: usize = 16 * 1024;
/// How long the helper may take to start a program.
const START: Duration = Duration::from_secs(10);
/// How long it may take to tell what a process runs: a caller waits for it to be accepted.
const TELL: Duration = Duration::from_millis(500);
/// How long it is not asked after it did not answer in time.
const PAUSE: Duration = Duration::from_secs(10);
/// Stack of a thread that waits for a program.
const STACK: usize = 256 * 1024;
/// Longest path that readlink(2) gives (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended; `None`: it took too long, or nobody wanted it any more, and was killed.
    pub(crate) status: Option<ExitStatus>,
    /// The beginning of what it said.
    pub(crate) said: Vec<u8>,
}

/// The agent's ends of the sockets.
#[derive(Debug)]
struct Helper {
    orders: OwnedFd,
    questions: Mutex<Questions>,
}

#[derive(Debug)]
struct Questions {
    socket: OwnedFd,
    /// Of the last question.
    number: u64,
    /// It did not answer, and is not asked again before this time.
    silent: Option<Instant>,
}

/// The forked one.
static FORKED: OnceLock<Helper> = OnceLock::new();
/// The thread that does its work where none was forked.
static THREAD: OnceLock<Helper> = OnceLock::new();
static FORKING: AtomicBool = AtomicBool::new(false);

/// Forks the helper. Called first thing, before anything is opened that it should not have. It runs
/// what `agent.toml` in `settings` names, and pinentries.
///
/// # Errors
///
/// When the process has more than one thread, or the system refuses.
pub(super) fn fork(settings: &Path) -> io::Result<()> {
    if FORKING.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("there is a helper already"));
    }
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    let (helper, ends) = Helper::pair()?;
    // SAFETY: it has one thread: that was just looked at, and only this thread could start others.
    #[allow(unsafe_code)]
    unsafe {
        process::fork(ends, settings)?;
    }
    // Nobody else sets it: `FORKING`.
    let _ = FORKED.set(helper);
    Ok(())
}

impl Helper {
    fn pair() -> io::Result<(Self, Ends)> {
        let (orders, their_orders) = wire::pair()?;
        let (socket, their_questions) = wire::pair()?;
        set_socket_timeout(&orders, Timeout::Send, Some(START))?;
        set_socket_timeout(&socket, Timeout::Send, Some(TELL))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TELL))?;
        let questions = Questions {
            socket,
            number: 0,
            silent: None,
        };
        let helper = Self {
            orders,
            questions: Mutex::new(questions),
        };
        let ends = Ends {
            orders: their_orders,
            questions: their_questions,
        };
        Ok((helper, ends))
    }

    /// The forked one, else the thread.
    fn any() -> io::Result<&'static Self> {
        if let Some(forked) = FORKED.get() {
            return Ok(forked);
        }
        static STARTING: Mutex<()> = Mutex::new(());
        let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = THREAD.get() {
            return Ok(thread);
        }
        let (helper, ends) = Self::pair()?;
        std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(move || process::serve(&ends, None))?;
        Ok(THREAD.get_or_init(|| helper))
    }

    fn start(
        &self,
        spawn: &Spawn,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
    ) -> io::Result<OwnedFd> {
        let packet = spawn.encode()?;
        let (news, theirs) = wire::pair()?;
        set_socket_timeout(&news, Timeout::Recv, Some(START))?;
        wire::send(&self.orders, &packet, &[input, output, theirs.as_fd()]).map_err(gone)?;
        drop(theirs);
        match next(&news)? {
            Some(News::Started) => Ok(news),
            Some(News::Failed(error)) => Err(io::Error::from_raw_os_error(error)),
            Some(News::Ended(_)) | None => Err(io::Error::other(
                "the agent's helper process is gone; restart the agent",
            )),
        }
    }
}

fn gone(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            io::Error::other("the agent's helper process is gone; restart the agent")
        }
        _ => error,
    }
}

/// The next news; `None` when there will be none.
fn next(news: &OwnedFd) -> io::Result<Option<News>> {
    let mut buffer = [0; 8];
    match wire::receive(news, &mut buffer) {
        Ok((len, _)) => Ok(buffer.get(..len).and_then(News::decode)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

/// A program that runs. Dropped, it is killed with everything that it started.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its standard input and output, both ways; blocking. At its end the program has closed its
    /// output, or is gone.
    pub(crate) stream: UnixStream,
    /// Closing it is what kills.
    news: OwnedFd,
}

impl Child {
    /// Waits for its end, `patience` at most; `None`: it still runs. Blocks.
    ///
    /// # Errors
    ///
    /// When the helper is gone.
    #[allow(dead_code, reason = "for programs that one talks with")]
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let mut ready = [PollFd::new(&self.news, PollFlags::IN)];
        if poll(&mut ready, Some(&timespec(patience)))? == 0 {
            return Ok(None);
        }
        ended(&self.news).map(Some)
    }
}

/// Starts a program (an absolute path) to talk with. Its environment is HOME, USER, PATH and `env`.
/// Blocks for as long as it takes to start it.
///
/// # Errors
///
/// When it cannot be started: as execve(2) says, or because the helper is gone or does not answer.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[OsString],
    env: &[(OsString, OsString)],
) -> io::Result<Child> {
    let mut argv = vec![program.as_os_str().to_owned()];
    argv.extend_from_slice(arguments);
    let env = env.to_vec();
    let (stream, theirs) = UnixStream::pair()?;
    let news = Helper::any()?.start(&Spawn { argv, env }, theirs.as_fd(), theirs.as_fd())?;
    Ok(Child { stream, news })
}

/// Runs `command` (program, absolute, and arguments) with `input`, for at most `patience`. Blocks.
///
/// # Errors
///
/// When it cannot be started or waited for.
pub(crate) fn run(command: &[String], input: &str, patience: Duration) -> io::Result<Ran> {
    run_unless(command, input, patience, None)
}

/// Like [`run`], on a thread of its own: it keeps nobody else waiting. Dropped, the program is
/// killed with everything that it started. `held` is dropped when it has ended, either way.
///
/// # Errors
///
/// As [`run`], and when there can be no thread.
pub(crate) async fn run_apart<T: Send + 'static>(
    command: Vec<String>,
    input: String,
    patience: Duration,
    held: T,
) -> io::Result<Ran> {
    // What the thread waits for as well: the other end is ours, and closes with this future.
    let (_wanted, unwanted) = UnixStream::pair()?;
    let (told, ran) = oneshot::channel();
    std::thread::Builder::new()
        .name("check".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let ran = run_unless(&command, &input, patience, Some(unwanted.as_fd()));
            drop(held);
            // Nobody may want to know any more.
            let _ = told.send(ran);
        })?;
    let ended = ran.await;
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that waited for it panicked")))
}

fn run_unless(
    command: &[String],
    input: &str,
    patience: Duration,
    unwanted: Option<BorrowedFd<'_>>,
) -> io::Result<Ran> {
    if command.is_empty() {
        return Err(io::Error::other("it names no program"));
    }
    let until = Instant::now() + patience;
    let (their_input, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout, their_output) = pipe_with(PipeFlags::CLOEXEC)?;
    let spawn = Spawn {
        argv: command.iter().map(OsString::from).collect(),
        env: Vec::new(),
    };
    let news = Helper::any()?.start(&spawn, their_input.as_fd(), their_output.as_fd())?;
    drop((their_input, their_output));
    attend(
        &news,
        File::from(stdin),
        File::from(stdout),
        input.as_bytes(),
        until,
        unwanted,
    )
}

/// Feeds a program and listens to it until it ends, or until something is heard of `unwanted`.
/// Returning closes `news`, which kills one that still runs.
fn attend(
    news: &OwnedFd,
    stdin: File,
    mut stdout: File,
    mut input: &[u8],
    until: Instant,
    unwanted: Option<BorrowedFd<'_>>,
) -> io::Result<Ran> {
    rustix::io::ioctl_fionbio(&stdin, true)?;
    rustix::io::ioctl_fionbio(&stdout, true)?;
    let mut stdin = Some(stdin).filter(|_| !input.is_empty());
    let mut said = Vec::new();
    let mut open = true;
    loop {
        let mut ready = vec![PollFd::new(news, PollFlags::IN)];
        if let Some(unwanted) = &unwanted {
            ready.push(PollFd::new(unwanted, PollFlags::IN));
        }
        if open {
            ready.push(PollFd::new(&stdout, PollFlags::IN));
        }
        if let Some(stdin) = &stdin {
            ready.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let left = until.saturating_duration_since(Instant::now());
        let count = match poll(&mut ready, Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => continue,
            count => count?,
        };
        let ready: Vec<bool> = ready.iter().map(|one| !one.revents().is_empty()).collect();
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        let has_ended = is_ready(0);
        let is_unwanted = unwanted.is_some() && is_ready(1);
        if let Some(pipe) = &mut stdin
            && !feed(pipe, &mut input)
        {
            // Closed: it has read everything, or enough.
            stdin = None;
        }
        if open {
            open = read(&mut stdout, &mut said)?;
        }
        if has_ended {
            let status = Some(ended(news)?);
            return Ok(Ran { status, said });
        }
        if count == 0 || is_unwanted {
            return Ok(Ran { status: None, said });
        }
    }
}

fn ended(news: &OwnedFd) -> io::Result<ExitStatus> {
    match next(news)? {
        Some(News::Ended(status)) => Ok(status),
        _ => Err(io::Error::other(
            "the agent's helper process is gone; restart the agent",
        )),
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Writes what the pipe takes; whether there is more.
fn feed(pipe: &mut File, input: &mut &[u8]) -> bool {
    loop {
        match pipe.write(input) {
            Ok(0) => return false,
            Ok(len) => {
                *input = input.get(len..).unwrap_or_default();
                if input.is_empty() {
                    return false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It may know enough before it has read everything.
            Err(_) => return false,
        }
    }
}

/// Reads what is there; whether there may be more.
fn read(stdout: &mut File, said: &mut Vec<u8>) -> io::Result<bool> {
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

/// What a process runs: the path, as `/proc` shows it, and the file, open. Either is missing where
/// the kernel does not tell.
pub(super) fn program_of(pid: i32) -> (Option<PathBuf>, Option<File>) {
    match FORKED.get() {
        None => process::program_of(pid),
        Some(helper) => helper.ask(Question::Program, pid).unwrap_or_default(),
    }
}

/// Whether a process, of our own user, is a client of pcscd; only ones that let others look tell.
pub(crate) fn uses_cards(pid: i32) -> bool {
    match FORKED.get() {
        None => process::uses_cards(pid),
        Some(helper) => helper
            .ask(Question::Cards, pid)
            .is_some_and(|(yes, _)| yes.is_some()),
    }
}

impl Helper {
    /// Asks about a process; `None` when the helper does not answer, which is said once.
    fn ask(&self, question: Question, pid: i32) -> Option<(Option<PathBuf>, Option<File>)> {
        let mut questions = self
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if questions.silent.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match questions.ask(question, pid) {
            Ok(told) => {
                questions.silent = None;
                Some(told)
            }
            Err(error) => {
                if questions.silent.is_none() {
                    tracing::warn!(
                        %error,
                        "the helper process does not answer: callers' programs are unknown"
                    );
                }
                questions.silent = Some(Instant::now() + PAUSE);
                None
            }
        }
    }
}

impl Questions {
    fn ask(&mut self, question: Question, pid: i32) -> io::Result<(Option<PathBuf>, Option<File>)> {
        self.number += 1;
        wire::send(&self.socket, &wire::ask(self.number, question, pid), &[])?;
        let mut buffer = [0; 8 + MAX_PATH];
        loop {
            let (len, fds) = wire::receive(&self.socket, &mut buffer)?;
            let told = buffer.get(..len).and_then(wire::read_told);
            let (number, path) = told.ok_or_else(|| io::Error::other("it is gone"))?;
            // Answers to earlier questions that came too late are passed over.
            if number == self.number {
                let program = fds.into_iter().next().map(File::from);
                return Ok((path.map(PathBuf::from), program));
            }
        }
    }
}

// Below what a socket holds by default.
const _: () = assert!(MAX_PACKET <= 128 * 1024);
