//! A publisher's home: `SIGNET_HOME`, Docker's configuration, and the agent that the command
//! started there.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Lab;
use super::cards::{Cards, Namespace};
use super::command::clean;
use super::keeper::end;
use super::ports::wait_until;

/// The passphrase in [`Home::passphrase_file`].
pub const KEYRING_PASSPHRASE: &str = "lab keyring passphrase";

/// One home of Signet's, empty at first. Dropping it stops the agent that runs there.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    docker: PathBuf,
    docker_host: Option<String>,
    trust_server: Option<String>,
    namespace: Option<Namespace>,
}

impl Lab {
    /// A new home with a Docker configuration of its own.
    ///
    /// # Panics
    /// When the lab's directory cannot be written.
    #[must_use]
    pub fn home(&self) -> Home {
        let config = self.client_config();
        self.home_with(&config)
    }

    /// A new home that shares a Docker configuration with others.
    ///
    /// # Panics
    /// When the lab's directory cannot be written.
    #[must_use]
    pub fn home_with(&self, docker_config: &Path) -> Home {
        self.home_at(self.fresh_dir("u"), docker_config)
    }

    /// A new home in an empty directory that is not the lab's: on another file system, say.
    ///
    /// # Panics
    /// When the directory cannot be written.
    #[must_use]
    pub fn home_at(&self, dir: PathBuf, docker_config: &Path) -> Home {
        for sub in ["run", "signet"] {
            let sub = dir.join(sub);
            fs::create_dir(&sub).expect("the lab's directory is ours");
            fs::set_permissions(&sub, fs::Permissions::from_mode(0o700)).expect("it is ours");
        }
        fs::write(dir.join("passphrase"), format!("{KEYRING_PASSPHRASE}\n"))
            .expect("the lab's directory is ours");
        Home {
            dir,
            docker: docker_config.to_path_buf(),
            docker_host: self.engine.is_some().then(|| self.docker_host()),
            trust_server: self
                .server
                .is_some()
                .then(|| self.trust_server().to_owned()),
            namespace: None,
        }
    }
}

impl Home {
    /// Itself, where these cards are plugged in. An agent that the command starts sees them too;
    /// files and network stay as they were.
    #[must_use]
    pub fn with_cards(mut self, cards: &Cards) -> Self {
        self.namespace = Some(cards.namespace());
        self
    }

    /// `signet`, as a user with nothing but this home would start it: engine and trust server
    /// of the lab in the environment, no passphrase.
    ///
    /// # Panics
    /// When the program has not been built.
    #[must_use]
    pub fn signet(&self) -> Command {
        let mut command = self.program("signet");
        self.environment(&mut command);
        command
    }

    /// As [`Home::signet`], with `--no-input` and the keyring's passphrase in a file.
    ///
    /// # Panics
    /// When the program has not been built.
    #[must_use]
    pub fn unattended(&self) -> Command {
        let mut command = self.signet();
        command
            .arg("--no-input")
            .env("SIGNET_PASSPHRASE_FILE", self.passphrase_file());
        command
    }

    /// `signetd`, with the same environment.
    ///
    /// # Panics
    /// When the program has not been built.
    #[must_use]
    pub fn signetd(&self) -> Command {
        let mut command = self.program("signetd");
        self.environment(&mut command);
        command
    }

    fn program(&self, name: &str) -> Command {
        match self.namespace {
            Some(namespace) => namespace.command(built(name)),
            None => clean(built(name)),
        }
    }

    fn environment(&self, command: &mut Command) {
        command
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env("SIGNET_HOME", self.path())
            .env("DOCKER_CONFIG", &self.docker);
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        if let Some(server) = &self.trust_server {
            command.env("DOCKER_CONTENT_TRUST_SERVER", server);
        }
    }

    /// `SIGNET_HOME`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join("signet")
    }

    /// `HOME`, with `XDG_RUNTIME_DIR` in `run/`.
    #[must_use]
    pub fn user_home(&self) -> &Path {
        &self.dir
    }

    /// `DOCKER_CONFIG`.
    #[must_use]
    pub fn docker_config(&self) -> &Path {
        &self.docker
    }

    /// A file with [`KEYRING_PASSPHRASE`].
    #[must_use]
    pub fn passphrase_file(&self) -> PathBuf {
        self.dir.join("passphrase")
    }

    /// Where the agent of this home listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join("agent.sock")
    }

    /// The pid of the agent that listens there, from the kernel.
    #[must_use]
    pub fn agent_pid(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        rustix::net::sockopt::socket_peercred(&stream)
            .ok()
            .map(|peer| peer.pid)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(pid) = self.agent_pid() else { return };
        // The agent is no child of ours: it is told, then killed, by the pid that the kernel gave
        // for the socket in this very home.
        // It is told from outside: the cards may be gone already, and their namespace with them.
        self.namespace = None;
        if let Ok(mut stop) = self.signet().args(["agent", "stop"]).spawn() {
            wait_until(GRACE, || !matches!(stop.try_wait(), Ok(None)));
            end(&mut stop);
        }
        let gone = || self.agent_pid().is_none_or(|now| now != pid);
        if !wait_until(GRACE, gone) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A program of this workspace, built beside the running one.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    find_built(name).unwrap_or_else(|| {
        panic!("{name} has not been built: cargo build --workspace --bins (or make test)")
    })
}

/// As [`built`], for those who can do without.
pub(super) fn find_built(name: &str) -> Option<PathBuf> {
    let exe = env::current_exe().expect("/proc is mounted");
    // Tests are in target/PROFILE/deps, binaries in target/PROFILE.
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

const GRACE: Duration = Duration::from_secs(5);
