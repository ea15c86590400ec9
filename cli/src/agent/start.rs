//! Starting `signetd` when none answers.
//!
//! The program is taken from this one's own directory or from the place it was built for, never
//! from `PATH`, and only where nobody else may write. It is given a small environment and `/` as
//! its directory; `--background` makes it leave this session and close every descriptor it inherited.
//! Its stderr is a pipe until it is ready, when it turns to `/dev/null`: the end of the pipe is the
//! signal that it is ready, or else what stands in the pipe is why it is not. Several commands that
//! start at once queue on a lock, and all but the first find the agent of the first.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use signet_proto::endpoint::Endpoint;
use tokio::time::{Instant, sleep, timeout};

use super::{
    AgentClient,
    connect::{Tolerance, connect},
};
use crate::{
    failure::{Failure, exit},
    ui::blocking,
};

/// Where packages put the daemon, if not beside the command; set when building.
const LIBEXEC: Option<&str> = option_env!("SIGNET_LIBEXEC");

/// How long a start may take.
const START: Duration = Duration::from_secs(10);

/// Most bytes of a failed start's words that are shown, 16 KiB.
const MAX_WORDS: u64 = 16 * 1024;

/// Connects; where nothing answers and `autostart` allows it, starts an agent and connects to it.
///
/// # Errors
///
/// Exit 6, naming why.
pub(crate) async fn connect_or_start(
    places: &Endpoint,
    autostart: bool,
) -> Result<AgentClient, Failure> {
    if let Some(agent) = connect(places, Tolerance::OwnHome).await? {
        return Ok(agent);
    }
    if !autostart {
        return Err(Failure::new(
            exit::NO_AGENT,
            "no_agent",
            format!("no agent answers at {}", places.socket.display()),
        )
        .fix("`signet agent start` starts it; or leave out --no-autostart"));
    }
    if by_systemd(places).await? {
        // systemd listens already, and starts the agent behind its socket for this.
        return connect(places, Tolerance::OwnHome).await?.ok_or_else(|| {
            Failure::new(
                exit::NO_AGENT,
                "no_agent",
                format!(
                    "systemd listens for the agent, but none answers at {}",
                    places.socket.display()
                ),
            )
            .fix("`systemctl --user status signetd.socket signetd.service` says why")
        });
    }
    let program = program()?;
    // Held until the agent answers; released when this function returns.
    let _first = start_lock(places).await?;
    if let Some(agent) = connect(places, Tolerance::OwnHome).await? {
        return Ok(agent);
    }
    spawn(&program, places).await
}

/// How `signetd` ends when its ledger does not hold.
const DAMAGED: i32 = 3;
/// The failure's word then.
pub(crate) const LEDGER_DAMAGED: &str = "ledger_damaged";
/// From its last words to its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the daemon and waits until it is ready.
async fn spawn(program: &Path, places: &Endpoint) -> Result<AgentClient, Failure> {
    let mut child = Command::new(program)
        .arg("--background")
        .env_clear()
        .envs(environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::file("start", program, error).in_class(exit::NO_AGENT, "no_agent")
        })?;
    let words = child.stderr.take().expect("stderr was piped");
    let words = timeout(
        START,
        blocking(move || {
            let mut text = Vec::new();
            let _ = words.take(MAX_WORDS).read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        }),
    )
    .await
    .unwrap_or_else(|_| format!("it was not ready within {} seconds", START.as_secs()));
    if let Some(agent) = await_agent(places).await? {
        return Ok(agent);
    }
    let ended = timeout(LAST_WORDS, blocking(move || child.wait())).await;
    let ended = ended.ok().and_then(Result::ok);
    let code = match ended.and_then(|status| status.code()) {
        Some(DAMAGED) => LEDGER_DAMAGED,
        _ => "agent_start",
    };
    let why = match (words.is_empty(), ended) {
        (false, _) => words,
        (true, Some(status)) => format!("it ended with {status}"),
        (true, None) => format!("nothing answers at {}", places.socket.display()),
    };
    Err(Failure::new(
        exit::NO_AGENT,
        code,
        format!("the agent {} did not start: {why}", program.display()),
    )
    .fix("`signet agent run` runs it in the foreground, where it says more"))
}

/// Becomes the daemon, in the foreground of this terminal.
///
/// Returns only when it could not be run.
pub(crate) fn in_foreground() -> Failure {
    // What a service manager hands to its services is for the daemon; secrets of the caller's
    // environment are not.
    const ALSO: [&str; 7] = [
        "SIGNET_LOG",
        "NOTIFY_SOCKET",
        "LISTEN_PID",
        "LISTEN_FDS",
        "TERM",
        "NO_COLOR",
        "TZ",
    ];
    let program = match program() {
        Ok(program) => program,
        Err(failure) => return failure,
    };
    let also = ALSO
        .into_iter()
        .filter_map(|name| Some((name, env::var_os(name)?)));
    let error = Command::new(&program)
        .env_clear()
        .envs(environment())
        .envs(also)
        .exec();
    Failure::file("run", &program, error).in_class(exit::NO_AGENT, "no_agent")
}

/// Connects; as long as some agent holds the home, tries again for a while: the socket of one that
/// another process has begun to start may appear only now, and no event tells of a listener.
async fn await_agent(places: &Endpoint) -> Result<Option<AgentClient>, Failure> {
    let until = Instant::now() + START;
    let mut pause = Duration::from_millis(2);
    loop {
        let taken = is_taken(&places.home);
        if let Some(agent) = connect(places, Tolerance::OwnHome).await? {
            return Ok(Some(agent));
        }
        if !taken || Instant::now() + pause > until {
            return Ok(None);
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Whether an agent holds the lock of this home.
fn is_taken(home: &Path) -> bool {
    let lock = OpenOptions::new().read(true).open(home.join("agent.lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The variables that a daemon of this user needs; nothing that could hold a secret.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    const KEPT: [&str; 10] = [
        "HOME",
        "USER",
        "LANG",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "DOCKER_CONFIG",
        "SIGNET_HOME",
        "SIGNET_CONFIG",
        "SIGNET_SOCKET",
    ];
    env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| name.starts_with("XDG_") || KEPT.contains(&name))
    })
}

/// The daemon's program: beside this one, else where packages put it.
///
/// # Errors
///
/// Exit 6: it is in neither place, or somebody else could have replaced it.
fn program() -> Result<PathBuf, Failure> {
    let own = env::current_exe().and_then(|path| path.canonicalize());
    let beside = own
        .ok()
        .and_then(|path| Some(path.parent()?.join("signetd")));
    let places: Vec<PathBuf> = beside
        .into_iter()
        .chain(LIBEXEC.map(|dir| Path::new(dir).join("signetd")))
        .collect();
    for path in &places {
        if let Ok(path) = path.canonicalize() {
            only_ours(&path)?;
            return Ok(path);
        }
    }
    let tried: Vec<String> = places
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(Failure::new(
        exit::NO_AGENT,
        "no_signetd",
        format!(
            "the agent's program signetd is not there (looked at {})",
            tried.join(", ")
        ),
    )
    .fix("install signetd beside signet"))
}

/// Refuses a program that others could have put there.
fn only_ours(program: &Path) -> Result<(), Failure> {
    let uid = rustix::process::geteuid().as_raw();
    for path in [program, program.parent().unwrap_or(Path::new("/"))] {
        let found = fs::metadata(path).map_err(|error| Failure::file("look at", path, error))?;
        let refused = |what: String, fix: String| {
            Err(Failure::new(exit::NO_AGENT, "unsafe_signetd", what).fix(fix))
        };
        if found.mode() & 0o022 != 0 {
            return refused(
                format!(
                    "{} is writable by others, so the agent is not started from there",
                    path.display()
                ),
                format!("chmod go-w {}", path.display()),
            );
        }
        if found.uid() != 0 && found.uid() != uid {
            return refused(
                format!(
                    "{} belongs to uid {}, neither root nor you, so the agent is not started from there",
                    path.display(),
                    found.uid()
                ),
                "install signet and signetd as root, or as yourself".into(),
            );
        }
    }
    Ok(())
}

/// Queues with the other commands that are starting an agent for this home.
async fn start_lock(places: &Endpoint) -> Result<File, Failure> {
    let dir = places.home.join("lock");
    let path = dir.join("start");
    let open = || -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    let file = open().map_err(|error| Failure::file("make", &path, error))?;
    let lock = blocking(move || file.lock().map(|()| file));
    match timeout(START * 2, lock).await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(Failure::file("lock", &path, error)),
        Err(_) => Err(Failure::new(
            exit::NO_AGENT,
            "agent_start",
            format!(
                "another signet has been starting the agent for {} seconds",
                START.as_secs() * 2
            ),
        )
        .fix("try again; `signet agent run` shows what keeps it")),
    }
}

/// Where the user's systemd knows `signetd.socket`, asks it to listen; whether that is so.
async fn by_systemd(places: &Endpoint) -> Result<bool, Failure> {
    // The unit serves the default home only.
    let own = ["SIGNET_HOME", "SIGNET_SOCKET"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    let manager = env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("systemd/private"));
    if own || !manager.is_some_and(|socket| socket.exists()) {
        return Ok(false);
    }
    let systemctl = |args: &'static [&'static str]| {
        let run = tokio::process::Command::new("/usr/bin/systemctl")
            .arg("--user")
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(START, run)
    };
    match systemctl(&["show", "--property=LoadState", "--value", "signetd.socket"]).await {
        Ok(Ok(shown)) if shown.stdout.trim_ascii() == b"loaded" => {}
        _ => return Ok(false),
    }
    match systemctl(&["start", "signetd.socket"]).await {
        Ok(Ok(started)) if started.status.success() => Ok(true),
        _ => Err(Failure::new(
            exit::NO_AGENT,
            "agent_start",
            format!(
                "systemd could not listen for the agent at {}",
                places.socket.display()
            ),
        )
        .fix("`systemctl --user status signetd.socket` says why")),
    }
}
