//! `signet-faults`: runs a command and kills it before the N-th file operation.
//!
//! A tracer of our own, because strace's `when=` counts per thread: here the file operations of
//! the command, of every thread and of every process that it starts (an autostarted agent among
//! them) are counted in one sequence. Only operations on files below the given roots count;
//! sockets, pipes and eventfds do not. Linux, any architecture that has `PTRACE_GET_SYSCALL_INFO`.
//!
//! Processes that make themselves undumpable hide their paths from a tracer that is not root; on
//! `x86_64` that wish is then held back.
//!
//! ```text
//! signet-faults --root DIR [--root DIR] [--kill-at N] [--all] [--report FILE] -- COMMAND ARG…
//! ```
//!
//! Without `--kill-at` nothing is killed and the report lists every operation. With it the process
//! that is about to do operation N gets SIGKILL (with `--all`, every traced process, as in a power
//! cut). When COMMAND has ended, whatever it left running is killed. Exit status: COMMAND's, or
//! 137 where it was killed.

use std::{
    collections::HashSet,
    env,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

fn main() -> ExitCode {
    match Plan::from_args().and_then(Tracer::run) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "signet-faults: {err:#}");
            ExitCode::from(2)
        }
    }
}

/// What to run and when to kill it.
struct Plan {
    roots: Vec<PathBuf>,
    kill_at: Option<u64>,
    all: bool,
    report: Option<PathBuf>,
    command: Vec<String>,
}

impl Plan {
    fn from_args() -> Result<Self> {
        let mut plan = Self {
            roots: Vec::new(),
            kill_at: None,
            all: false,
            report: None,
            command: Vec::new(),
        };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--root" => plan.roots.push(fs::canonicalize(value()?)?),
                "--kill-at" => plan.kill_at = Some(value()?.parse()?),
                "--all" => plan.all = true,
                "--report" => plan.report = Some(value()?.into()),
                "--" => {
                    plan.command = args.collect();
                    break;
                }
                other => bail!("unknown argument {other}"),
            }
        }
        if plan.command.is_empty() || plan.roots.is_empty() {
            bail!(
                "usage: signet-faults --root DIR [--kill-at N] [--all] [--report FILE] -- COMMAND"
            );
        }
        Ok(plan)
    }
}

struct Tracer {
    plan: Plan,
    main: Pid,
    /// Thread groups alive under trace.
    groups: HashSet<Pid>,
    count: u64,
    report: Option<File>,
    killed: bool,
}

impl Tracer {
    fn run(plan: Plan) -> Result<u8> {
        // The shell stops itself before it becomes the command, so that it can be seized without
        // running code between fork and exec.
        let child = Command::new("/bin/sh")
            .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
            .args(&plan.command)
            .spawn()
            .context("cannot start /bin/sh")?;
        let main = Pid::from_raw(i32::try_from(child.id())?);
        // Left stopped in place: the stop is seen again by the tracer.
        waitid(Id::Pid(main), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT)?;
        ptrace::seize(
            main,
            Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_EXITKILL,
        )
        .context("cannot trace")?;
        kill(main, Signal::SIGCONT)?;
        let report = plan.report.as_ref().map(File::create).transpose()?;
        let mut tracer = Self {
            plan,
            main,
            groups: HashSet::from([main]),
            count: 0,
            report,
            killed: false,
        };
        let code = tracer.follow()?;
        for group in &tracer.groups {
            let _ = kill(*group, Signal::SIGKILL);
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) {
            // One that was born meanwhile, and nobody knew of: it waits for us in its first stop.
            let ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
            if let Some(pid) = status.pid().filter(|_| !ended) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        Ok(code)
    }

    /// Until the command itself has ended.
    fn follow(&mut self) -> Result<u8> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(err) => return Err(err).context("waitpid"),
            };
            let (pid, inject) = match status {
                WaitStatus::Exited(pid, code) => {
                    self.groups.remove(&pid);
                    if pid == self.main {
                        return Ok(u8::try_from(code & 0xff)?);
                    }
                    continue;
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.groups.remove(&pid);
                    if pid == self.main {
                        return Ok(128 + u8::try_from(signal as i32)?);
                    }
                    continue;
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.syscall(pid)?;
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, _, _) => {
                    self.groups.insert(thread_group(pid).unwrap_or(pid));
                    (pid, None)
                }
                WaitStatus::Stopped(pid, Signal::SIGTRAP) => (pid, None),
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                _ => continue,
            };
            match ptrace::syscall(pid, inject) {
                // It was killed meanwhile; its end is reported by itself.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(err) => return Err(err).context("cannot resume"),
            }
        }
    }

    fn syscall(&mut self, pid: Pid) -> Result<()> {
        let info = match ptrace::syscall_info(pid) {
            Ok(info) => info,
            Err(Errno::ESRCH) => return Ok(()),
            Err(err) => return Err(err).context("cannot read the system call"),
        };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(());
        }
        // SAFETY: the kernel says by `op` that `entry` is the member it filled in.
        #[allow(unsafe_code)]
        let entry = unsafe { info.u.entry };
        stay_readable(pid, entry.nr, &entry.args)?;
        let Some((name, target)) = file_operation(pid, entry.nr, &entry.args) else {
            return Ok(());
        };
        if !self.plan.roots.iter().any(|root| target.starts_with(root)) {
            return Ok(());
        }
        self.count += 1;
        if let Some(report) = &mut self.report {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let exe = exe
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            writeln!(report, "{} {exe} {name} {}", self.count, target.display())?;
        }
        if self.plan.kill_at == Some(self.count) && !self.killed {
            self.killed = true;
            if self.plan.all {
                for group in &self.groups {
                    let _ = kill(*group, Signal::SIGKILL);
                }
            } else {
                let _ = kill(thread_group(pid).unwrap_or(pid), Signal::SIGKILL);
            }
        }
        Ok(())
    }
}

/// Turns `prctl(PR_SET_DUMPABLE, 0)` into 1, where `/proc/PID/{mem,fd}` would be closed to us.
fn stay_readable(pid: Pid, nr: u64, args: &[u64; 6]) -> Result<()> {
    let hides = i64::try_from(nr) == Ok(libc::SYS_prctl)
        && args[0] == libc::PR_SET_DUMPABLE as u64
        && args[1] == 0;
    if !hides || nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    #[cfg(target_arch = "x86_64")]
    {
        let mut registers = ptrace::getregs(pid).context("cannot read the registers")?;
        // The second argument of a system call (x86-64 ABI, A.2.1).
        registers.rsi = 1;
        ptrace::setregs(pid, registers).context("cannot write the registers")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pid;
        bail!("only root can trace an undumpable process on this architecture")
    }
}

/// The operation's name and the file it would change, if it would change one.
fn file_operation(pid: Pid, nr: u64, args: &[u64; 6]) -> Option<(&'static str, PathBuf)> {
    let nr = i64::try_from(nr).ok()?;
    let by_fd = |name, fd: u64| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{}", fd as u32 as i32)).ok()?;
        target.is_absolute().then_some((name, target))
    };
    let by_path = |name, dir: Option<u64>, path: u64| Some((name, resolve(pid, dir, path)?));
    Some(match nr {
        libc::SYS_write => by_fd("write", args[0])?,
        libc::SYS_pwrite64 => by_fd("pwrite", args[0])?,
        libc::SYS_writev => by_fd("writev", args[0])?,
        libc::SYS_pwritev | libc::SYS_pwritev2 => by_fd("pwritev", args[0])?,
        libc::SYS_sendfile => by_fd("sendfile", args[0])?,
        libc::SYS_copy_file_range => by_fd("copy_file_range", args[2])?,
        libc::SYS_ftruncate => by_fd("ftruncate", args[0])?,
        libc::SYS_fallocate => by_fd("fallocate", args[0])?,
        libc::SYS_fsync => by_fd("fsync", args[0])?,
        libc::SYS_fdatasync => by_fd("fdatasync", args[0])?,
        libc::SYS_renameat => by_path("rename", Some(args[2]), args[3])?,
        libc::SYS_renameat2 => by_path("rename", Some(args[2]), args[3])?,
        libc::SYS_unlinkat => by_path("unlink", Some(args[0]), args[1])?,
        libc::SYS_linkat => by_path("link", Some(args[2]), args[3])?,
        libc::SYS_mkdirat => by_path("mkdir", Some(args[0]), args[1])?,
        libc::SYS_openat if args[2] & libc::O_CREAT as u64 != 0 => {
            by_path("create", Some(args[0]), args[1])?
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => by_path("rename", None, args[1])?,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink | libc::SYS_rmdir => by_path("unlink", None, args[0])?,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => by_path("link", None, args[1])?,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => by_path("mkdir", None, args[0])?,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open if args[1] & libc::O_CREAT as u64 != 0 => by_path("create", None, args[0])?,
        _ => return None,
    })
}

/// A path argument, made absolute.
fn resolve(pid: Pid, dir: Option<u64>, address: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = Vec::new();
    // Byte ranges that end at a page border at the latest, so that a path just before an unmapped
    // page is read whole.
    let mut at = address;
    while !bytes.contains(&0) && bytes.len() < MAX_PATH {
        let mut chunk = vec![0; usize::try_from(PAGE - at % PAGE).ok()?.min(256)];
        let read = memory
            .read_at(&mut chunk, at)
            .ok()
            .filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        at += read as u64;
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let path = PathBuf::from(String::from_utf8_lossy(&bytes[..end]).into_owned());
    if path.is_absolute() {
        return Some(path);
    }
    let from = match dir.map(|fd| fd as u32 as i32) {
        None | Some(libc::AT_FDCWD) => fs::read_link(format!("/proc/{pid}/cwd")).ok()?,
        Some(fd) => fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?,
    };
    Some(Path::new(&from).join(path))
}

/// The process that a thread belongs to.
fn thread_group(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Some(Pid::from_raw(line.trim().parse().ok()?))
}

/// Linux `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// Smallest page size.
const PAGE: u64 = 4096;
