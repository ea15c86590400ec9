//! The lab by hand.
//!
//! `signet-lab up` starts everything, prints the exports of a shell, and stays until Ctrl-C;
//! `signet-lab run COMMAND…` starts everything, runs a command with those variables, and ends
//! with its exit code; `signet-lab proxy UPSTREAM` puts the misbehaving proxy before a server.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is its purpose"
)]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};
use signet_tests::lab::{self, BASIC_PASSWORD, BASIC_USER};
use signet_tests::{Auth, Cli, Fault, Lab, Proxy};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(about = "Real peers for Signet's tests, on loopback, in a throwaway directory")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start everything, print what a shell must export, and stay until Ctrl-C
    Up {
        /// Also write the exports to this file, once everything answers
        #[arg(long, value_name = "FILE")]
        exports: Option<PathBuf>,
    },
    /// Start everything, run a command with the lab's variables, and end with its exit code
    Run {
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Start everything, and before the trust server a proxy that misbehaves
    Proxy(ProxyArgs),
}

#[derive(Debug, clap::Args)]
struct ProxyArgs {
    /// Stand before the registry, not the trust server
    #[arg(long)]
    registry: bool,

    /// Ask for credentials: user `lab`, password `lab password`
    #[arg(long, value_name = "basic|bearer")]
    ask: Option<String>,

    /// Which requests to misbehave to: `*/timestamp.json`, `POST /v2/*`
    #[arg(long, default_value = "*")]
    on: String,

    /// What to do to them
    #[arg(
        long,
        value_name = "delay|drop|lose|cut|corrupt|endless|pad|html|401|404|500"
    )]
    fault: Option<String>,
}

fn main() -> ExitCode {
    start(Args::parse()).unwrap_or_else(|err| {
        eprintln!("signet-lab: {err:#}");
        ExitCode::FAILURE
    })
}

fn start(args: Args) -> Result<ExitCode> {
    let lab = Lab::builder()
        .engine()
        .registry()
        .notary()
        .local_notary()
        .try_build()?;
    let exports = exports(&lab);
    match args.verb {
        Verb::Up { exports: file } => {
            let text = as_shell(&exports);
            if let Some(file) = file {
                fs::write(&file, &text)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
            println!(
                "{text}# The lab is up; logs are in {}. Ctrl-C ends it.",
                lab.logs().display()
            );
            until_told()?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Run { command } => run(&command, &exports),
        Verb::Proxy(args) => {
            let upstream = if args.registry {
                lab.registry()
            } else {
                lab.trust_server()
            };
            let proxy = lab.proxy(upstream);
            args.apply(&proxy)?;
            let config = PathBuf::from(
                &exports
                    .iter()
                    .find(|(n, _)| n == "DOCKER_CONFIG")
                    .expect("it is")
                    .1,
            );
            lab.trust_host(&config, proxy.host());
            println!(
                "{}# The proxy before {upstream} is {}. Ctrl-C ends it.",
                as_shell(&exports),
                proxy.url()
            );
            until_told()?;
            for seen in proxy.requests() {
                println!("{} {} {}", seen.method, seen.path, seen.query);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl ProxyArgs {
    fn apply(&self, proxy: &Proxy) -> Result<()> {
        let (user, password) = (BASIC_USER.to_owned(), BASIC_PASSWORD.to_owned());
        match self.ask.as_deref() {
            None => {}
            Some("basic") => proxy.ask_for(Auth::Basic { user, password }),
            Some("bearer") => proxy.ask_for(Auth::Bearer {
                user,
                password,
                refresh_token: Some("lab-refresh-token".to_owned()),
                anonymous_pull: true,
            }),
            Some(other) => bail!("--ask {other}: neither basic nor bearer"),
        }
        let fault = match self.fault.as_deref() {
            None => return Ok(()),
            Some("delay") => Fault::Delay(Duration::from_secs(5)),
            Some("drop") => Fault::Drop,
            Some("lose") => Fault::LoseAnswer,
            Some("cut") => Fault::Cut(100),
            Some("corrupt") => Fault::Corrupt(100),
            Some("endless") => Fault::Endless,
            Some("pad") => Fault::Pad(101 << 20),
            Some("html") => Fault::Html,
            Some("401") => Fault::Status(401, "{}"),
            Some("404") => Fault::Status(404, "{}"),
            Some("500") => Fault::Status(500, "{}"),
            Some(other) => bail!("--fault {other}: no such fault"),
        };
        proxy.on(&self.on, fault);
        Ok(())
    }
}

/// What a shell needs to use the lab.
fn exports(lab: &Lab) -> Vec<(String, String)> {
    let config = lab.client_config();
    [
        ("DOCKER_HOST", lab.docker_host()),
        ("DOCKER_CONFIG", config.display().to_string()),
        ("DOCKER_CONTENT_TRUST_SERVER", lab.trust_server().to_owned()),
        (
            "LAB_BIN",
            lab::built("signet-lab")
                .with_file_name("")
                .display()
                .to_string(),
        ),
        ("LAB_DIR", lab.dir().display().to_string()),
        ("LAB_CA", lab.certs().ca().display().to_string()),
        ("LAB_REGISTRY", lab.registry().to_owned()),
        ("LAB_TRUST_SERVER", lab.trust_server().to_owned()),
        (
            "LAB_LOCAL_TRUST_SERVER",
            lab.local_trust_server().to_owned(),
        ),
        (
            "LAB_DOCKER_12",
            Cli::Debian12.program().display().to_string(),
        ),
        (
            "LAB_DOCKER_13",
            Cli::Debian13.program().display().to_string(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn as_shell(exports: &[(String, String)]) -> String {
    exports
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect()
}

/// Runs a command of the same process group: Ctrl-C is its to answer, and the lab waits for it to
/// end; SIGTERM is passed on.
fn run(command: &[OsString], exports: &[(String, String)]) -> Result<ExitCode> {
    let [program, args @ ..] = command else {
        bail!("no command")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut child = Command::new(program)
            .args(args)
            .envs(exports.iter().cloned())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut ended = tokio::task::spawn_blocking(move || child.wait());
        loop {
            tokio::select! {
                status = &mut ended => {
                    let code = status??.code().and_then(|code| u8::try_from(code).ok());
                    return Ok(ExitCode::from(code.unwrap_or(1)));
                }
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {
                    // Not yet waited for, so the pid is still the child's.
                    pid.map(|pid| kill_process(pid, Signal::TERM)).transpose()?;
                }
            }
        }
    })
}

/// Waits for Ctrl-C or SIGTERM.
fn until_told() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done?,
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
