//! Debian's `sshd`, on loopback, as the way into one home: with a configuration, host key and user
//! key of its own, all in the lab's directory.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Lab;
use super::command::{Run as _, clean};
use super::home::{Home, built};
use super::keeper::Peer;
use crate::steps::write_script;

/// What a client calls the machine.
pub const SSH_HOST: &str = "newhost";

/// Where Debian's sshd keeps its unprivileged children; made at boot on a real machine.
const PRIVSEP: &str = "/run/sshd";

/// A way into a home by ssh.
#[derive(Debug)]
pub struct Ssh {
    dir: PathBuf,
    bin: PathBuf,
    log: PathBuf,
    _peer: Peer,
}

impl Lab {
    /// Starts an `sshd` whose sessions have the environment of `home`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn ssh_into(&mut self, home: &Home) -> Ssh {
        self.sshd(home).expect("sshd starts")
    }

    fn sshd(&mut self, home: &Home) -> Result<Ssh> {
        let dir = self.fresh_dir("ssh");
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all(PRIVSEP).context("cannot make /run/sshd")?;
            fs::set_permissions(PRIVSEP, fs::Permissions::from_mode(0o755))?;
        }
        for name in ["host", "user"] {
            let made = clean("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(dir.join(name))
                .run();
            ensure!(made.status.success(), "ssh-keygen: {}", made.text());
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized_keys"))?;
        let environment = environment(home)?;
        let (peer, port) = {
            let root = self.root.clone();
            Peer::listen("sshd", &root, &mut self.keeper, |port| {
                let config = dir.join("sshd_config");
                fs::write(&config, server_config(port, &dir, &environment))?;
                let mut command = clean("/usr/sbin/sshd");
                command.arg("-D").arg("-e").arg("-f").arg(&config);
                Ok(command)
            })?
        };
        let host_key = fs::read_to_string(dir.join("host.pub"))?;
        fs::write(
            dir.join("known_hosts"),
            format!("[127.0.0.1]:{port} {host_key}"),
        )?;
        let bin = wrapper(&dir, "bin", &client_config(port, &dir))?;
        Ok(Ssh {
            log: self.root.join("log/sshd.log"),
            dir,
            bin,
            _peer: peer,
        })
    }
}

impl Ssh {
    /// A directory for the PATH: its `ssh` knows [`SSH_HOST`], its key and the user's.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// As [`Ssh::bin`], through a command that carries the bytes.
    ///
    /// # Panics
    /// When the lab's directory cannot be written.
    #[must_use]
    pub fn bin_through(&self, name: &str, proxy: &str) -> PathBuf {
        let plain = fs::read_to_string(self.bin.join("config")).expect("it was written");
        wrapper(&self.dir, name, &format!("{plain}  ProxyCommand {proxy}\n"))
            .expect("the lab's directory is ours")
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Debian's `ssh` with a configuration: it looks for the user's own by the password file, not by
/// HOME.
fn wrapper(dir: &Path, name: &str, config: &str) -> Result<PathBuf> {
    let bin = dir.join(name);
    fs::create_dir(&bin)?;
    fs::write(bin.join("config"), config)?;
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -F '{}/config' \"$@\"\n",
        bin.display()
    );
    write_script(&bin.join("ssh"), &script);
    Ok(bin)
}

/// What a session of this home has: as [`Home::signet`], with `signet` on the PATH.
fn environment(home: &Home) -> Result<Vec<(String, String)>> {
    let bin = built("signet");
    let bin = bin.parent().context("it lies in a directory")?;
    let mut all = vec![(
        "PATH".to_owned(),
        format!("{}:/usr/bin:/bin", bin.display()),
    )];
    for (name, value) in home.signet().get_envs() {
        let name = name.to_string_lossy().into_owned();
        if name != "PATH"
            && let Some(value) = value
        {
            all.push((name, value.to_string_lossy().into_owned()));
        }
    }
    Ok(all)
}

fn server_config(port: u16, dir: &Path, environment: &[(String, String)]) -> String {
    let dir = dir.display();
    let mut config = format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey {dir}/host\n\
         PidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\n\
         StrictModes no\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         PermitUserRC no\n\
         LogLevel INFO\n\
         SetEnv"
    );
    for (name, value) in environment {
        let _ = write!(config, " \"{name}={value}\"");
    }
    config.push('\n');
    config
}

fn client_config(port: u16, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Host {SSH_HOST}\n  \
         HostName 127.0.0.1\n  \
         Port {port}\n  \
         IdentityFile {dir}/user\n  \
         IdentitiesOnly yes\n  \
         IdentityAgent none\n  \
         UserKnownHostsFile {dir}/known_hosts\n  \
         GlobalKnownHostsFile /dev/null\n  \
         StrictHostKeyChecking yes\n  \
         BatchMode yes\n"
    )
}
