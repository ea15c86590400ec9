//! The place where the cards are visible, and how to get in.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use super::super::command::clean;
use super::super::keeper::{Keeper, Peer};

/// A process in a mount namespace and a network namespace of its own; without root also in a
/// user namespace, in which the user is root. It is there as long as its [`super::Cards`].
#[derive(Clone, Copy, Debug)]
pub struct Namespace {
    holder: u32,
    user: bool,
}

pub(super) fn make(root: &Path, keeper: &mut Keeper) -> Result<(Peer, Namespace)> {
    let user = !geteuid().is_root();
    let ready = root.join("ready");
    let mut command = clean("unshare");
    command.args(["--net", "--mount"]);
    if user {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["/bin/sh", "-c", MAKE, "namespace"])
        .arg(&ready);
    let mut holder = Peer::spawn("namespace", &mut command, root, keeper)?;
    let made = holder.ready(|| ready.exists());
    made.context("the kernel gives no namespaces of mounts and network here")?;
    let namespace = Namespace {
        holder: holder.pid(),
        user,
    };
    Ok((holder, namespace))
}

impl Namespace {
    /// A program that sees the cards, and the host's network.
    #[must_use]
    pub fn command(self, program: impl AsRef<Path>) -> Command {
        self.entering(ENTER, program.as_ref())
    }

    /// A program in the cards' network, too.
    pub(super) fn command_with_network(self, program: impl AsRef<Path>) -> Command {
        self.entering(ENTER_WITH_NETWORK, program.as_ref())
    }

    /// The same command, where it sees the cards.
    #[must_use]
    pub fn enter(self, command: &Command) -> Command {
        let mut entering = self.command(command.get_program());
        entering.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entering.env(name, value),
                None => entering.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            entering.current_dir(dir);
        }
        entering
    }

    /// Every step replaces the one before: the pid is the program's in the end.
    fn entering(self, script: &str, program: &Path) -> Command {
        let mut command = clean("/bin/sh");
        let user = if self.user {
            "--user --preserve-credentials"
        } else {
            ""
        };
        command.args(["-c", script, "enter"]);
        command.arg(self.holder.to_string()).arg(user).arg(program);
        command
    }
}

/// Where there is no `/run/pcscd` to mount upon, there is an empty `/run` with one.
const MAKE: &str = r#"
set -e
if ! [ -d /run/pcscd ]; then mount -t tmpfs none /run; mkdir /run/pcscd; fi
mount -t tmpfs none /run/pcscd
ip link set lo up
: >"$1"
exec sleep infinity
"#;

/// A change of mount namespace is a change of directory to `/`.
const ENTER: &str = r#"
holder=$1 user=$2; shift 2
exec nsenter --target "$holder" --mount $user -- env --chdir="$PWD" -- "$@"
"#;

const ENTER_WITH_NETWORK: &str = r#"
holder=$1 user=$2; shift 2
exec nsenter --target "$holder" --mount --net $user -- env --chdir="$PWD" -- "$@"
"#;
