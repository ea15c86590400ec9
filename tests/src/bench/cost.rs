//! What a process costs: wall time, CPU time, peak memory.

use std::{
    fs,
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::libc;

/// What one run of a command cost, and optionally what a daemon spent on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system time, all threads; the daemon's included where one was named.
    pub cpu: Duration,
    /// Largest resident size in KiB; with a daemon, both added up.
    pub peak: u64,
}

/// Runs `command` to its end and says what it cost. `daemon` names a process that works for it.
/// The command gets the arguments, the directory and the environment that were set for it, and
/// nothing else: no descriptors.
///
/// It is a grandchild: the kernel counts to the peak of a process what its parent had resident when
/// it was started (getrusage(2) of what `vfork` and `exec` hand on), so a copy of this program that
/// has done nothing yet starts it: see [`measured_run`].
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub fn of(command: &mut Command, daemon: Option<u32>) -> Result<Cost> {
    if let Some(pid) = daemon {
        // "5" resets the peak resident size (proc(5), clear_refs).
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    }
    let before = daemon.map(cpu_of).transpose()?.unwrap_or_default();
    let output = tempfile::NamedTempFile::new()?;
    let report = tempfile::NamedTempFile::new()?;
    let mut spawner = Command::new(std::env::current_exe()?);
    spawner
        .arg(MEASURED_RUN)
        .arg(report.path())
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .stderr(output.reopen()?);
    if let Some(directory) = command.get_current_dir() {
        spawner.current_dir(directory);
    }
    let status = spawner
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!(
            "{command:?} failed:\n{}",
            fs::read_to_string(output.path())?
        );
    }
    let mut cost = read_report(&fs::read_to_string(report.path())?)?;
    if let Some(pid) = daemon {
        cost.cpu += cpu_of(pid)?.saturating_sub(before);
        cost.peak += peak_of(pid)?;
    }
    Ok(cost)
}

/// Runs `command`, just as it is, to its end and says how long it took.
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub fn wall_of(command: &mut Command) -> Result<Duration> {
    let output = tempfile::NamedTempFile::new()?;
    command.stdout(output.reopen()?).stderr(output.reopen()?);
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    let wall = start.elapsed();
    if !status.success() {
        bail!(
            "{command:?} failed:\n{}",
            fs::read_to_string(output.path())?
        );
    }
    Ok(wall)
}

/// What the copy of the program is called with that starts the command which [`of`] measures; it
/// must ask [`measured_run`] first of all.
const MEASURED_RUN: &str = "--measured-run";

/// When this process is that copy: runs the command, writes down what it cost, and says how it
/// ended. `None` in any other process.
#[must_use]
pub fn measured_run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != MEASURED_RUN {
        return None;
    }
    let run = || -> Result<bool> {
        let report = args.next().context("no report")?;
        let mut command = Command::new(args.next().context("no command")?);
        let start = Instant::now();
        let child = command.args(args).spawn()?;
        let (status, usage) = wait4(child.id())?;
        let wall = start.elapsed();
        let cpu = time(usage.ru_utime) + time(usage.ru_stime);
        let figures = [wall.as_nanos(), cpu.as_nanos(), usage.ru_maxrss as u128];
        fs::write(report, figures.map(|figure| figure.to_string()).join(" "))?;
        Ok(status == 0)
    };
    Some(match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn read_report(text: &str) -> Result<Cost> {
    let figures: Vec<u64> = text
        .split(' ')
        .map(|figure| figure.parse().context("a report that is none"))
        .collect::<Result<_>>()?;
    let [wall, cpu, peak] = figures[..] else {
        bail!("a report of {} figures", figures.len());
    };
    Ok(Cost {
        wall: Duration::from_nanos(wall),
        cpu: Duration::from_nanos(cpu),
        peak,
    })
}

/// The figure in the middle of several runs, each column by itself.
#[must_use]
pub fn median(mut runs: Vec<Cost>) -> Cost {
    let middle = runs.len() / 2;
    runs.sort_by_key(|run| run.wall);
    let wall = runs[middle].wall;
    runs.sort_by_key(|run| run.cpu);
    let cpu = runs[middle].cpu;
    runs.sort_by_key(|run| run.peak);
    Cost {
        wall,
        cpu,
        peak: runs[middle].peak,
    }
}

/// CPU time of a running process: the run time of each of its threads (proc(5), schedstat).
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        total += stat
            .split(' ')
            .next()
            .and_then(|ns| ns.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Peak resident size in KiB.
///
/// # Errors
///
/// When there is no such process.
pub fn peak_of(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// Resident size in KiB.
///
/// # Errors
///
/// When there is no such process.
pub fn resident_of(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .context(field.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn wait4(pid: u32) -> Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: both pointers are to live, writable locals of the types that wait4(2) fills in, and
    // a zeroed rusage is a valid one.
    #[allow(unsafe_code)]
    let (pid, usage) = unsafe {
        let mut usage = std::mem::zeroed();
        (
            libc::wait4(pid as i32, &raw mut status, 0, &raw mut usage),
            usage,
        )
    };
    if pid < 0 {
        return Err(std::io::Error::last_os_error()).context("wait4");
    }
    Ok((status, usage))
}

fn time(at: libc::timeval) -> Duration {
    Duration::from_micros(at.tv_sec as u64 * 1_000_000 + at.tv_usec as u64)
}
