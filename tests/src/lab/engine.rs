//! Docker's engine (Debian 12's 20.10.24), and the Docker CLIs that talk to it.
//!
//! The engine runs in a mount namespace of its own, where `/run` is empty and `/etc/docker` is
//! the lab's; without root also in a user namespace of its own, in which the user is root. So it
//! neither needs the machine's root nor leaves anything on it, and two labs never meet.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::command::{Run, clean};
use super::keeper::{Keeper, Peer};
use super::{Lab, REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};

/// A Docker CLI. Which of them are there depends on the machine; the first two always are, once
/// `tests/lab/install.sh` has run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cli {
    /// Debian 12's, 20.10.24.
    Debian12,
    /// Debian 13's, 26.1.5, unpacked beside.
    Debian13,
    /// Docker's static build, 28.2.2, where somebody has installed it.
    Static28,
}

impl Cli {
    /// The two that every lab has.
    pub const BOTH: [Self; 2] = [Self::Debian12, Self::Debian13];

    /// Where the program is, whether it is there or not.
    ///
    /// # Panics
    /// When neither `SIGNET_LAB_CACHE` nor `HOME` says where Debian 13's is kept.
    #[must_use]
    pub fn program(self) -> PathBuf {
        match self {
            Self::Debian12 => "/usr/bin/docker".into(),
            Self::Debian13 => cache().join("trixie/usr/bin/docker"),
            Self::Static28 => "/usr/local/bin/docker".into(),
        }
    }

    /// Whether the program is there, in the version that its name says.
    #[must_use]
    pub fn available(self) -> bool {
        let version = match self {
            Self::Debian12 => "20.10.",
            Self::Debian13 => "26.1.",
            Self::Static28 => "28.2.",
        };
        let output = clean(self.program()).arg("--version").output();
        let wanted = format!("Docker version {version}");
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(&wanted))
    }

    /// Those of the three that are there.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let all = [Self::Debian12, Self::Debian13, Self::Static28];
        all.into_iter().filter(|cli| cli.available()).collect()
    }
}

/// `SIGNET_LAB_CACHE`, else where `install.sh` puts things by default.
pub(super) fn cache() -> PathBuf {
    if let Some(dir) = env::var_os("SIGNET_LAB_CACHE") {
        return dir.into();
    }
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache");
    base.unwrap_or_else(home).join("signet-lab")
}

#[derive(Debug)]
pub(super) struct Engine {
    peer: Peer,
    socket: PathBuf,
}

impl Engine {
    pub(super) fn spawn(root: &Path, keeper: &mut Keeper) -> Result<Self> {
        let dir = root.join("docker");
        fs::create_dir(&dir)?;
        fs::write(dir.join("daemon.json"), "{}")?;
        let mut command = clean("unshare");
        if rustix::process::geteuid().is_root() {
            command.arg("--mount");
        } else {
            command.args(["--mount", "--user", "--map-root-user"]);
        }
        command.args(["/bin/sh", "-c", SCRIPT, "dockerd"]);
        command.arg(root.join("etc-docker")).arg(&dir);
        if !rustix::process::geteuid().is_root() {
            command.arg("--rootless").env("XDG_RUNTIME_DIR", &dir);
        }
        command.env("HOME", &dir).current_dir(&dir);
        let peer = Peer::spawn("dockerd", &mut command, root, keeper)?;
        Ok(Self {
            peer,
            socket: dir.join("sock"),
        })
    }

    pub(super) fn ready(&mut self) -> Result<()> {
        let socket = &self.socket;
        self.peer
            .ready(|| ping(socket).is_ok_and(|answer| answer.contains(" 200 ")))
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Makes an image of one file that no other image has.
    pub(super) fn import(&self, image: &str, number: u32) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970");
        let content = format!("image {number} of {}, {now:?}\n", std::process::id());
        let mut command = clean(Cli::Debian12.program());
        command
            .env("DOCKER_HOST", self.url())
            .env("DOCKER_CONFIG", "/nonexistent");
        command.args(["import", "-", image]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker is installed");
        let tar = tar_of("content", content.as_bytes());
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(&tar)
            .expect("docker import reads");
        let output = child
            .wait_with_output()
            .expect("docker import is our child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker import {image}: {stderr}");
    }
}

fn ping(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A tar file of one small file (POSIX.1-1988 ustar, fields by offset).
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

impl Lab {
    /// The engine's address, for `DOCKER_HOST`.
    ///
    /// # Panics
    /// When this lab has no engine.
    #[must_use]
    pub fn docker_host(&self) -> String {
        self.engine
            .as_ref()
            .expect("this lab was built without an engine")
            .url()
    }

    /// A fresh `DOCKER_CONFIG` that knows the lab's certificate authority.
    ///
    /// # Panics
    /// When the lab's directory cannot be written.
    #[must_use]
    pub fn client_config(&self) -> PathBuf {
        let config = self.fresh_dir("docker");
        for server in [&self.server, &self.local_server].into_iter().flatten() {
            self.trust_host(&config, server.host());
        }
        if let Some(registry) = &self.registry {
            self.trust_host(&config, registry.host());
        }
        config
    }

    /// Has a `DOCKER_CONFIG` know the lab's certificate authority for one more host, such as a
    /// proxy.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn trust_host(&self, config: &Path, host: &str) {
        let dir = config.join("tls").join(host);
        fs::create_dir_all(&dir).expect("the configuration is ours");
        fs::copy(self.certs.ca(), dir.join("ca.crt")).expect("the configuration is ours");
    }

    /// A Docker CLI with this configuration, content trust off.
    #[must_use]
    pub fn docker(&self, cli: Cli, config: &Path) -> Command {
        let mut command = clean(cli.program());
        command
            .env("HOME", self.dir().join("home"))
            .env("DOCKER_CONFIG", config);
        if let Some(engine) = &self.engine {
            command.env("DOCKER_HOST", engine.url());
        }
        if let Some(server) = &self.server {
            command.env("DOCKER_CONTENT_TRUST_SERVER", server.url());
        }
        command
    }

    /// A Docker CLI with this configuration, content trust on and the passphrases given.
    #[must_use]
    pub fn docker_trusted(&self, cli: Cli, config: &Path) -> Command {
        let mut command = self.docker(cli, config);
        command
            .env("DOCKER_CONTENT_TRUST", "1")
            .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            );
        command
    }

    /// Has the engine forget an image, so that a pull has something to do.
    ///
    /// # Panics
    /// When the engine has no such image.
    pub fn forget_image(&self, image: &str) {
        let config = Path::new("/nonexistent");
        self.docker(Cli::Debian12, config)
            .args(["rmi", "--force", image])
            .run()
            .ok();
    }
}

/// Debian's AppArmor and iptables have no part in this: no container is ever run.
const SCRIPT: &str = r#"
set -e
etc=$1 dir=$2; shift 2
mount -t tmpfs none /run
mount --bind "$etc" /etc/docker
exec dockerd "$@" --config-file "$dir/daemon.json" --data-root "$dir/data" \
  --exec-root "$dir/exec" --pidfile "$dir/pid" -H "unix://$dir/sock" --group 0 \
  --storage-driver=vfs --iptables=false --ip6tables=false --bridge=none
"#;
