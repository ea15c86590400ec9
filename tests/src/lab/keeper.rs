//! Who ends what the lab started.
//!
//! Each peer is a [`Peer`], which ends with its owner. When the owner cannot (a test killed with
//! SIGKILL drops nothing), the keeper does: a shell in a process group of its own, which reads
//! the peers' pids from a pipe and, at the end of the pipe without a word of farewell, ends them
//! and the agents, and removes the directory. A pid goes with its start time, so that a successor is spared.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::command::clean;
use super::home::find_built;
use super::ports::{START, free, listens, wait_until};

/// The process that outlives a killed test, for a moment.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    orders: Option<ChildStdin>,
    pids: Vec<u32>,
}

impl Keeper {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let mut child = clean("/bin/sh")
            .args(["-c", SCRIPT, "signet-lab-keeper"])
            .arg(dir)
            .arg(find_built("signet").unwrap_or_default())
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the keeper")?;
        let orders = child.stdin.take();
        Ok(Self {
            child,
            orders,
            pids: Vec::new(),
        })
    }

    fn order(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            // A keeper that is gone cannot be told; the peers still end with their owners.
            let _ = writeln!(orders, "{line}");
        }
    }

    /// Has a process ended with the lab, if nobody else ends it.
    pub(super) fn watch(&mut self, pid: u32) {
        if let Some(start) = start_time(pid) {
            self.order(&format!("watch {pid} {start}"));
            self.pids.push(pid);
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.pids.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.order("farewell");
        drop(self.orders.take());
        // It has nothing left to do, so this takes no time.
        let _ = self.child.wait();
    }
}

/// A running peer, with its log.
#[derive(Debug)]
pub(super) struct Peer {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Peer {
    /// Starts a peer in a process group of its own, its output in a file below `root`.
    pub(super) fn spawn(
        name: &'static str,
        command: &mut Command,
        root: &Path,
        keeper: &mut Keeper,
    ) -> Result<Self> {
        let log = root.join("log").join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                let program = command.get_program().display();
                format!("cannot run {program} for {name}; tests/lab/install.sh installs it")
            })?;
        keeper.watch(child.id());
        Ok(Self { name, child, log })
    }

    /// Starts a peer that listens on a port; `command` is asked again, with another port, when
    /// the first was taken in between.
    pub(super) fn listen(
        name: &'static str,
        root: &Path,
        keeper: &mut Keeper,
        mut command: impl FnMut(u16) -> Result<Command>,
    ) -> Result<(Self, u16)> {
        let mut tries = 0;
        loop {
            let port = free();
            let mut peer = Self::spawn(name, &mut command(port)?, root, keeper)?;
            let pid = peer.child.id();
            match peer.ready(|| listens(pid, port)) {
                Ok(()) => return Ok((peer, port)),
                Err(err) if tries == 3 || !peer.log().contains("address already in use") => {
                    return Err(err);
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// Waits until `answers` says yes.
    pub(super) fn ready(&mut self, mut answers: impl FnMut() -> bool) -> Result<()> {
        let mut ended = None;
        let child = &mut self.child;
        let ready = wait_until(START, || {
            let answered = answers();
            ended = child.try_wait().ok().flatten();
            ended.is_some() || answered
        });
        match ended {
            Some(status) => bail!("{} ended at once ({status}):\n{}", self.name, self.log()),
            None if ready => Ok(()),
            None => bail!(
                "{} does not answer after {START:?}:\n{}",
                self.name,
                self.log()
            ),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it has logged.
    pub(super) fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let tail = text.len().saturating_sub(LOG_TAIL);
        String::from_utf8_lossy(&text[tail..]).into_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child: politely, then not.
pub(super) fn end(child: &mut Child) {
    let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
    if !gone(child) {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // Not yet waited for, so the pid is still this child's.
            let _ = kill_process(pid, Signal::TERM);
        }
        if !wait_until(GRACE, || gone(child)) {
            let _ = child.kill();
        }
    }
    let _ = child.wait();
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)).
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

const GRACE: Duration = Duration::from_secs(10);
const LOG_TAIL: usize = 4096;

const SCRIPT: &str = r#"
trap '' HUP INT TERM
dir=$1 signet=$2 watched=
while read -r order pid start; do
  case $order in
    watch) watched="$watched $pid:$start" ;;
    farewell) exit 0 ;;
  esac
done
ours() {
  stat=$(cat "/proc/${1%:*}/stat" 2>/dev/null) || return 1
  set -- "${1#*:}" ${stat##*) }
  [ "$2" != Z ] && [ "${21}" = "$1" ]
}
for agent in "$dir"/u*/signet/agent.sock; do
  [ -S "$agent" ] && SIGNET_HOME=${agent%/*} timeout 5 "$signet" agent stop
done
for who in $watched; do ours "$who" && kill -TERM "${who%:*}"; done
tries=0
for who in $watched; do
  while ours "$who" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  ours "$who" && kill -KILL "${who%:*}"
done
rm -rf "$dir"
"#;
