//! The process: what it gives up, where it listens, how it ends.
//!
//! [`run`] takes the listener and the reason to stop, so that tests bind what they like and stop
//! when they like; [`main`] finds both in the environment.

mod arguments;
pub mod caller;
pub mod harden;
pub(crate) mod helper;
pub mod incoming;
mod life;
pub mod sandbox;
pub mod socket;

use std::{
    ffi::OsString, io::Write as _, os::unix::net::UnixListener, path::PathBuf, process::ExitCode,
    sync::Arc, time::Duration,
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use signet_proto::endpoint::Endpoint;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::{
    arguments::Arguments,
    incoming::Incoming,
    sandbox::Sandbox,
    socket::{Home, Socket},
};
use crate::{
    config::Config,
    desktop::{self, Buses},
    keyring::Keyring,
    service::Shared,
};

/// Requests are short; more threads than this wake each other up more than they work.
const WORKERS: usize = 2;
/// Stack of a runtime thread. Parsing is bounded in depth.
const STACK: usize = 1024 * 1024;
/// How long releases in flight may take once the agent is to stop, their upload included.
const DRAIN: Duration = Duration::from_secs(30);
/// How long threads may take to end after that.
const LAST: Duration = Duration::from_secs(5);

/// Two for each connection (it, and its process), and what stores and buses have open.
const DESCRIPTORS: u64 = 2 * incoming::CONNECTIONS as u64 + 256;

/// Exit code by which `signet` knows that the ledger does not hold.
const DAMAGED: u8 = 3;

/// The whole life of `signetd`.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            complain(&format!("{error}; try signetd --help"));
            return ExitCode::from(2);
        }
    };
    match arguments {
        Arguments::Help => say(arguments::HELP),
        Arguments::Version => say(concat!("signetd ", env!("CARGO_PKG_VERSION"), "\n")),
        Arguments::Serve { background } => match serve(background) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("{error:#}"));
                match error.chain().any(is_damaged) {
                    true => ExitCode::from(DAMAGED),
                    false => ExitCode::FAILURE,
                }
            }
        },
    }
}

fn is_damaged(error: &(dyn std::error::Error + 'static)) -> bool {
    let ledger = match error.downcast_ref::<crate::keyring::Fault>() {
        Some(crate::keyring::Fault::Ledger(ledger)) => Some(ledger),
        _ => error.downcast_ref(),
    };
    matches!(ledger, Some(crate::ledger::LedgerError::Damaged { .. }))
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    // Nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "signetd: {text}");
}

fn serve(background: bool) -> anyhow::Result<()> {
    if background {
        harden::leave_caller();
    }
    harden::thrifty_memory();
    harden::apply().context("the system does not let this process be hardened")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    let endpoint = Endpoint::from_env(|name| std::env::var_os(name))?;
    // Before anything is opened that it should not have.
    helper::fork(&endpoint.config).context("cannot start the helper process")?;
    harden::more_descriptors(DESCRIPTORS);
    log();
    let config = Config::load(&endpoint.config)?;
    let home = Home::lock(&endpoint.home)?;
    let docker_dir = config
        .docker_dir
        .clone()
        .unwrap_or_else(|| endpoint.docker.clone());
    if let Some(directory) = endpoint.socket.parent() {
        socket::private_directory(directory)?;
    }
    // Before there are threads: each inherits it.
    Sandbox {
        home: home.path(),
        config: &endpoint.config,
        docker: &docker_dir,
        sockets: endpoint.socket.parent(),
        witness: config.witnesses.file(),
        roots: config.attestation_roots.as_deref(),
    }
    .apply()
    .context("cannot give up what the agent does not need")?;
    let keyring = Keyring::open(home.path(), &docker_dir, &config)?;
    let (socket, forward) = Socket::inherited()?;
    let socket = match socket {
        Some(socket) => socket,
        None => Socket::bind(&endpoint.socket, &home)?,
    };
    let forward = match forward {
        // Without keys to offer nobody is to come in.
        _ if config.forward.is_empty() => None,
        Some(socket) => Some(socket),
        None => Some(Socket::bind(&endpoint.forward(), &home)?),
    };
    let (listener, made) = socket.into_parts().context("cannot use the socket")?;
    let (forward, made_forward) = match forward.map(Socket::into_parts).transpose() {
        Ok(parts) => parts.unzip(),
        Err(error) => return Err(error).context("cannot use the forward socket"),
    };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(WORKERS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let shared = Arc::new(Shared::new(home.path(), &docker_dir, &config, keyring));
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let reloading = tokio::spawn(reload(
            signal(SignalKind::hangup())?,
            endpoint.config.clone(),
            Arc::clone(&shared),
        ));
        tracing::info!(
            home = %endpoint.home.display(),
            socket = %endpoint.socket.display(),
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        if background {
            // Whoever started it reads until here: the end of the pipe says that it is ready.
            harden::close_stderr()?;
        }
        let following = {
            let (shared, desktop) = (Arc::clone(&shared), config.desktop);
            let buses = Buses::from_env(|name| std::env::var_os(name));
            tokio::spawn(async move {
                desktop::follow(&shared.keyring, desktop, &buses).await;
            })
        };
        let feeding = tokio::spawn(life::feed_watchdog(Arc::clone(&shared)));
        // Without a supervisor there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let served = run(listener, forward, shared, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
        reloading.abort();
        following.abort();
        feeding.abort();
        // They hold the stores, which are not closed before they are gone.
        let _ = tokio::join!(reloading, following, feeding);
        served
    });
    // Dropped here: stores forget, the ledger is closed. Then the socket goes, then the lock.
    runtime.shutdown_timeout(LAST);
    made.remove();
    if let Some(made) = made_forward {
        made.remove();
    }
    drop(home);
    tracing::info!("stopped");
    result.context("cannot serve")
}

/// Reads `agent.toml` anew at each SIGHUP and puts its policy in force, whole or not at all. Other
/// settings wait for the next start.
async fn reload(mut asked: tokio::signal::unix::Signal, dir: PathBuf, shared: Arc<Shared>) {
    while asked.recv().await.is_some() {
        match Config::load(&dir) {
            Ok(config) => {
                shared.keyring.set_policy(config.policy);
                tracing::info!("the policy was read anew");
            }
            Err(error) => {
                tracing::error!(%error, "agent.toml cannot be used; the policy stays as it was");
            }
        }
    }
}

/// A thread for each processor, as far as there are that many requests' worth of work.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |all| all.get().min(WORKERS))
}

/// Serves until `shutdown` resolves or a caller asks for the end; then refuses new requests, lets
/// releases finish, and returns. Who comes by `forward` speaks for another machine.
///
/// # Errors
///
/// When the listener cannot be used.
pub async fn run(
    listener: UnixListener,
    forward: Option<UnixListener>,
    shared: Arc<Shared>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let mut incoming = Incoming::new(tokio::net::UnixListener::from_std(listener)?);
    if let Some(forward) = forward {
        incoming = incoming.and_forwarded(tokio::net::UnixListener::from_std(forward)?);
    }
    let connected = incoming.connected();
    let unneeded = async {
        match shared.idle_exit {
            Some(time) => life::unneeded(Arc::clone(&shared), connected, time).await,
            None => std::future::pending().await,
        }
    };
    let mut asked = shared.stopping();
    let stop = async {
        tokio::select! {
            () = shutdown => {}
            () = unneeded => {}
            // A sender that is gone asks for the end as well.
            _ = asked.wait_for(|stopping| *stopping) => {}
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        shared.stop();
        tracing::info!("draining");
    };
    let mut drained = shared.stopping();
    let late = async {
        let _ = drained.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = crate::service::serve(&shared, incoming, stop) => served.map_err(std::io::Error::other),
        () = late => {
            tracing::warn!("connections were still open at the end");
            Ok(())
        }
    }
}

/// Logs to stderr, at the level of `SIGNET_LOG` (`error`, `warn`, `info`, `debug`, `trace`).
///
/// Only our own modules: what libraries trace of a connection may hold a secret.
fn log() {
    let level = std::env::var("SIGNET_LOG")
        .ok()
        .and_then(|word| word.parse().ok())
        .unwrap_or(tracing::level_filters::LevelFilter::INFO);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // A subscriber that is there already (tests) stays.
    let _ = tracing_subscriber::registry()
        .with(Targets::new().with_target("signet_agent", level))
        .with(layer)
        .try_init();
}

/// For messages: the directory of Docker's configuration, whichever form a caller names it in.
#[must_use]
pub(crate) fn docker_config(path: PathBuf) -> PathBuf {
    let path = if path.ends_with("trust/private") {
        path.ancestors()
            .nth(2)
            .map_or_else(|| path.clone(), PathBuf::from)
    } else {
        path
    };
    std::fs::canonicalize(&path).unwrap_or(path)
}
