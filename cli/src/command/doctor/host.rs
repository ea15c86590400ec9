//! What is read from this host: the socket's directory, the unit, memory, the clock.

use std::{
    env, fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Finding, State};
use crate::ui::text::{local_time, span};

/// Most bytes of a file that are looked at, 1 MiB: `Info.plist` of libccid has some 60 KiB.
const MAX_FILE: u64 = 1 << 20;

/// Locked memory below this does not hold the agent's secrets, 64 KiB.
const SMALL_MEMLOCK: u64 = 64 * 1024;

/// No clock is right that shows an earlier time: 2026-11-01, before this was released.
const RELEASED: i64 = 1_793_491_200;

/// Where systemd finds the units of users (systemd.unit(5)), and the user's own.
const UNIT_DIRECTORIES: [&str; 4] = [
    "etc/systemd/user",
    "usr/local/lib/systemd/user",
    "usr/lib/systemd/user",
    "lib/systemd/user",
];

/// This host, as far as it is looked at. Tests give it another root.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) root: PathBuf,
    pub(super) uid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) variables: Vec<(String, String)>,
    now: i64,
}

impl Host {
    /// The host that this process runs on.
    pub(super) fn of_this_process() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        groups.push(rustix::process::getegid().as_raw());
        Self {
            root: PathBuf::from("/"),
            uid: rustix::process::geteuid().as_raw(),
            groups,
            variables: env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            now: now.map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            uid: rustix::process::geteuid().as_raw(),
            groups: Vec::new(),
            variables: vec![("HOME".to_owned(), "/home/me".to_owned())],
            now: RELEASED + 1_000,
        }
    }

    /// A path below the root.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The beginning of a file as text; nothing where it cannot be read.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.path(path)).ok()?;
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// Names in a directory, in order; none where it cannot be read.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// A variable of the environment that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether only the user can enter the directory of the agent's socket.
    pub(super) fn socket_directory(&self, socket: &Path) -> Finding {
        let dir = socket.parent().unwrap_or(socket);
        let shown = dir.display();
        let failed = |message: String| Finding::new("socket", State::Failed, message);
        let Ok(found) = fs::symlink_metadata(dir) else {
            return Finding::new(
                "socket",
                State::Ok,
                format!("{shown} is not there yet; the agent makes it"),
            );
        };
        if found.is_symlink() {
            return failed(format!("{shown} is a symbolic link, which others may turn")).fix(
                format!("rm {shown}; the agent makes a directory in its place"),
            );
        }
        if found.uid() != self.uid {
            return failed(format!(
                "{shown} belongs to uid {}, not to you",
                found.uid()
            ))
            .fix(format!(
                "remove {shown}, or set SIGNET_SOCKET to a path in a directory of yours"
            ));
        }
        if found.mode() & 0o077 != 0 {
            return failed(format!(
                "others can enter {shown} (mode {:03o})",
                found.mode() & 0o777
            ))
            .fix(format!("chmod 700 {shown}"));
        }
        Finding::new(
            "socket",
            State::Ok,
            format!("{} in a directory of mode 0700", socket.display()),
        )
    }

    /// Whether the user's systemd starts the agent.
    pub(super) fn unit(&self) -> Finding {
        let managed = self
            .variable("XDG_RUNTIME_DIR")
            .is_some_and(|dir| self.exists(Path::new(dir).join("systemd/private")));
        if !managed {
            return Finding::new(
                "unit",
                State::Ok,
                "no systemd of this user runs: the command starts the agent",
            );
        }
        let own = self
            .variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(self.variable("HOME")?).join(".config")))
            .map(|dir| dir.join("systemd/user"));
        let mut directories: Vec<PathBuf> = UNIT_DIRECTORIES.iter().map(PathBuf::from).collect();
        directories.extend(own);
        let has = |name: &str| directories.iter().any(|dir| self.exists(dir.join(name)));
        if !has("signetd.socket") {
            return Finding::new(
                "unit",
                State::Note,
                "signetd.socket is not installed: the command starts the agent itself",
            )
            .fix("`make install` puts it where systemd looks");
        }
        if !has("sockets.target.wants/signetd.socket") {
            return Finding::new(
                "unit",
                State::Note,
                "signetd.socket is installed and not enabled: the agent starts with the first command",
            )
            .fix("systemctl --user enable --now signetd.socket");
        }
        Finding::new("unit", State::Ok, "signetd.socket is enabled")
    }

    /// Whether what is swapped out can be read from the disk.
    pub(super) fn swap(&self) -> Finding {
        let swaps = self.read("proc/swaps").unwrap_or_default();
        let plain: Vec<&str> = swaps
            .lines()
            .skip(1)
            .filter_map(|line| line.split_ascii_whitespace().next())
            .filter(|name| !name.starts_with("/dev/zram") && !self.is_encrypted(name))
            .collect();
        if plain.is_empty() {
            return Finding::new("swap", State::Ok, "no swap on an unencrypted disk");
        }
        Finding::new(
            "swap",
            State::Warning,
            format!(
                "swap on {} is not encrypted: memory that is swapped out stays readable there",
                plain.join(", ")
            ),
        )
        .fix("use dm-crypt with a random key (crypttab(5): /dev/urandom swap), or zram")
    }

    /// Device-mapper names its own kind in `dm/uuid`: `CRYPT-…`.
    fn is_encrypted(&self, device: &str) -> bool {
        let Ok(real) = fs::canonicalize(self.path(device)) else {
            return false;
        };
        let Some(name) = real.file_name() else {
            return false;
        };
        self.read(Path::new("sys/block").join(name).join("dm/uuid"))
            .is_some_and(|uuid| uuid.starts_with("CRYPT-"))
    }

    /// Whether the agent may keep its secrets out of swap.
    pub(super) fn locked_memory(&self, agent: Option<i32>) -> Finding {
        let process = agent.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let limits = self
            .read(format!("proc/{process}/limits"))
            .unwrap_or_default();
        let limit = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))
            .and_then(|rest| rest.split_ascii_whitespace().next());
        match limit.map(str::parse::<u64>) {
            Some(Ok(bytes)) if bytes < SMALL_MEMLOCK => Finding::new(
                "memlock",
                State::Warning,
                format!("the agent may lock {bytes} bytes of memory: secrets may be swapped out"),
            )
            .fix("LimitMEMLOCK=8M in the unit, or `ulimit -l 8192` before the agent starts"),
            // "unlimited" is no number.
            Some(_) => Finding::new("memlock", State::Ok, "secrets can be locked in memory"),
            None => Finding::new(
                "memlock",
                State::Note,
                "how much memory the agent may lock cannot be seen",
            ),
        }
    }

    /// Whether the clock can be right: expiries and the log rest on it.
    pub(super) fn clock(&self, last_entry: Option<i64>) -> Finding {
        let set = "timedatectl set-ntp true";
        let behind = |message: String| Finding::new("clock", State::Failed, message).fix(set);
        if self.now < RELEASED {
            return behind(format!(
                "the clock shows {}, which is past: signatures would expire at the wrong time",
                local_time(self.now)
            ));
        }
        if let Some(last) = last_entry.filter(|last| *last > self.now.saturating_add(60)) {
            return behind(format!(
                "the clock is {} behind the newest entry of the signature log",
                span(last.saturating_sub(self.now))
            ));
        }
        let kept = "run/systemd/timesync";
        if self.exists(kept) && !self.exists(Path::new(kept).join("synchronized")) {
            return Finding::new(
                "clock",
                State::Warning,
                "the clock has not been set from the network since this host started",
            )
            .fix(set);
        }
        Finding::new("clock", State::Ok, local_time(self.now))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_directory_that_others_enter_is_named_with_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let dir = root.path().join("run");
        let socket = dir.join("agent.sock");
        assert_eq!(host.socket_directory(&socket).state, State::Ok);
        fs::create_dir(&dir).unwrap();
        let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        let finding = host.socket_directory(&socket);
        assert_eq!(finding.state, State::Failed);
        assert!(finding.message.contains("755"), "{finding:?}");
        assert!(finding.fix.unwrap().starts_with("chmod 700 "));
        mode(0o700);
        assert_eq!(host.socket_directory(&socket).state, State::Ok);
        let link = root.path().join("link");
        symlink(&dir, &link).unwrap();
        assert_eq!(
            host.socket_directory(&link.join("agent.sock")).state,
            State::Failed
        );
    }

    #[test]
    fn swap_in_memory_is_no_finding_and_on_disk_it_is() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let head = "Filename\tType\tSize\tUsed\tPriority\n";
        put(
            root.path(),
            "proc/swaps",
            &format!("{head}/dev/zram0 partition 1 0 5\n"),
        );
        assert_eq!(host.swap().state, State::Ok);
        put(
            root.path(),
            "proc/swaps",
            &format!("{head}/dev/sda2 partition 1 0 5\n"),
        );
        let finding = host.swap();
        assert!(finding.state == State::Warning && finding.message.contains("/dev/sda2"));
        put(root.path(), "dev/dm-1", "");
        put(root.path(), "sys/block/dm-1/dm/uuid", "CRYPT-PLAIN-swap");
        put(
            root.path(),
            "proc/swaps",
            &format!("{head}/dev/dm-1 partition 1 0 5\n"),
        );
        assert_eq!(host.swap().state, State::Ok);
    }

    #[test]
    fn a_small_limit_for_locked_memory_is_a_warning() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let limits = |value: &str| {
            let text =
                format!("Limit  Soft  Hard  Units\nMax locked memory  {value} {value} bytes\n");
            put(root.path(), "proc/7/limits", &text);
            host.locked_memory(Some(7)).state
        };
        assert_eq!(limits("16384"), State::Warning);
        assert_eq!(limits("8388608"), State::Ok);
        assert_eq!(limits("unlimited"), State::Ok);
        assert_eq!(host.locked_memory(Some(8)).state, State::Note);
    }

    #[test]
    fn a_clock_behind_release_or_log_has_failed() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::at(root.path());
        assert_eq!(host.clock(Some(RELEASED)).state, State::Ok);
        assert_eq!(host.clock(Some(RELEASED + 5_000)).state, State::Failed);
        put(root.path(), "run/systemd/timesync/clock", "");
        assert_eq!(host.clock(None).state, State::Warning);
        put(root.path(), "run/systemd/timesync/synchronized", "");
        assert_eq!(host.clock(None).state, State::Ok);
        host.now = 0;
        assert_eq!(host.clock(None).state, State::Failed);
    }

    #[test]
    fn the_unit_is_found_where_systemd_looks() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::at(root.path());
        assert_eq!(host.unit().state, State::Ok);
        host.variables
            .push(("XDG_RUNTIME_DIR".into(), "/run/user/1".into()));
        put(root.path(), "run/user/1/systemd/private", "");
        assert!(host.unit().message.contains("not installed"));
        put(root.path(), "usr/lib/systemd/user/signetd.socket", "");
        assert!(host.unit().fix.unwrap().contains("enable"));
        put(
            root.path(),
            "home/me/.config/systemd/user/sockets.target.wants/signetd.socket",
            "",
        );
        assert_eq!(host.unit().state, State::Ok);
    }
}
