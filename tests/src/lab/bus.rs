//! Private message buses, and services mocked on them by `python3-dbusmock`.
//!
//! ```no_run
//! use signet_tests::lab::bus::{Bus, Mock};
//!
//! let system = Bus::start(Mock::Logind);
//! system.prepare_for_sleep(true);
//! ```
//!
//! A real `dbus-daemon` on a socket in a throwaway directory; the machine's own buses are never
//! touched. It ends as a [`Lab`](super::Lab) does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::command::{Run as _, clean};
use super::keeper::{Keeper, Peer};
use super::ports::{START, wait_until};

/// Who is mocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mock {
    /// `org.freedesktop.login1`.
    Logind,
    /// `org.freedesktop.Notifications`.
    Notifications,
}

impl Mock {
    fn template(self) -> &'static str {
        match self {
            Self::Logind => "logind",
            Self::Notifications => "notification_daemon",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logind => LOGIND,
            Self::Notifications => "org.freedesktop.Notifications",
        }
    }
}

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MOCK: &str = "org.freedesktop.DBus.Mock";

/// A bus with one mocked service. Dropping it ends both.
#[derive(Debug)]
pub struct Bus {
    // In the order in which they are dropped: those who call others before those they call.
    mock: Option<Peer>,
    daemon: Option<Peer>,
    keeper: Keeper,
    who: Mock,
    root: PathBuf,
    _dir: TempDir,
}

impl Bus {
    /// Starts a bus and the service, and returns when both answer.
    ///
    /// # Panics
    /// When one of them does not come up; the message ends with its log.
    #[must_use]
    pub fn start(who: Mock) -> Self {
        match Self::try_start(who) {
            Ok(bus) => bus,
            Err(err) => panic!("the bus does not start: {err:#}"),
        }
    }

    fn try_start(who: Mock) -> Result<Self> {
        // Short, because the path of a unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("sb")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        let root = dir.path().to_path_buf();
        fs::create_dir(root.join("log"))?;
        let config = CONFIG.replace("SOCKET", &root.join("bus").display().to_string());
        fs::write(root.join("bus.conf"), config)?;
        let mut bus = Self {
            mock: None,
            daemon: None,
            keeper: Keeper::start(&root)?,
            who,
            root,
            _dir: dir,
        };
        bus.come_up()?;
        Ok(bus)
    }

    fn come_up(&mut self) -> Result<()> {
        let socket = self.root.join("bus");
        let mut command = clean("/usr/bin/dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]);
        command.arg(self.root.join("bus.conf"));
        let mut daemon = Peer::spawn("dbus", &mut command, &self.root, &mut self.keeper)?;
        daemon.ready(|| UnixStream::connect(&socket).is_ok())?;
        self.daemon = Some(daemon);

        let mut command = clean("/usr/bin/python3");
        command
            .args(["-m", "dbusmock", "--template", self.who.template()])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .env("DBUS_SESSION_BUS_ADDRESS", self.address());
        let mut mock = Peer::spawn("mock", &mut command, &self.root, &mut self.keeper)?;
        let name = self.who.name();
        mock.ready(|| self.has(name))?;
        self.mock = Some(mock);
        Ok(())
    }

    /// Ends bus and service, and starts others in their place.
    ///
    /// # Panics
    /// As [`Bus::start`].
    pub fn restart(&mut self) {
        self.mock = None;
        self.daemon = None;
        let socket = self.root.join("bus");
        let _ = fs::remove_file(socket);
        if let Err(err) = self.come_up() {
            panic!("the bus does not start again: {err:#}");
        }
    }

    /// As environment variables name it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.root.join("bus").display())
    }

    fn has(&self, name: &str) -> bool {
        let asked = self.try_call(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus.NameHasOwner",
            &[name],
        );
        asked.is_ok_and(|answer| answer.contains("true"))
    }

    fn try_call(
        &self,
        service: &str,
        path: &str,
        method: &str,
        arguments: &[&str],
    ) -> Result<String> {
        let called = clean("/usr/bin/gdbus")
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .args(["call", "--session", "--dest", service])
            .args(["--object-path", path, "--method", method])
            .args(arguments)
            .run();
        ensure!(called.status.success(), "{method}: {}", called.stderr);
        Ok(called.stdout)
    }

    /// Calls a method with arguments in GVariant's text format, and returns the answer in the same.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn call(&self, path: &str, method: &str, arguments: &[&str]) -> String {
        match self.try_call(self.who.name(), path, method, arguments) {
            Ok(answer) => answer,
            Err(err) => panic!("{err:#}"),
        }
    }

    /// Has logind say that the machine is about to sleep, or awake again.
    ///
    /// # Panics
    /// When this bus has no logind.
    pub fn prepare_for_sleep(&self, asleep: bool) {
        let (interface, value) = (format!("{LOGIND}.Manager"), format!("[<{asleep}>]"));
        let arguments = [interface.as_str(), "PrepareForSleep", "b", &value];
        self.call(LOGIND_PATH, &format!("{MOCK}.EmitSignal"), &arguments);
    }

    /// Makes a session for a user; its path.
    ///
    /// # Panics
    /// When this bus has no logind.
    #[must_use]
    pub fn session(&self, id: &str, uid: u32) -> String {
        let uid = uid.to_string();
        let arguments = [id, "seat0", &uid, "somebody", "true"];
        self.call(LOGIND_PATH, &format!("{MOCK}.AddSession"), &arguments);
        format!("{LOGIND_PATH}/session/{id}")
    }

    /// Who keeps the machine from sleeping, as logind lists it.
    ///
    /// # Panics
    /// When this bus has no logind.
    #[must_use]
    pub fn inhibitors(&self) -> String {
        self.call(
            LOGIND_PATH,
            &format!("{LOGIND}.Manager.ListInhibitors"),
            &[],
        )
    }

    /// The calls that the service got so far, from their names on.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).expect("it is written from the start on");
        let mut calls: Vec<String> = Vec::new();
        for line in log.lines() {
            let timed = line.split_once(' ').filter(|(time, _)| is_time(time));
            match (timed, calls.last_mut()) {
                (Some((_, call)), _) => calls.push(call.to_owned()),
                // A text of several lines.
                (None, Some(call)) => *call = format!("{call}\n{line}"),
                (None, None) => {}
            }
        }
        calls
    }

    /// Waits for a notification that has these words in it: its number, and all of it.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_notification(&self, words: &str) -> (usize, String) {
        self.await_call("Notify ", words);
        let calls = self.calls().into_iter();
        let shown = calls.filter(|call| call.starts_with("Notify "));
        // The mock numbers them from 1.
        let mut numbered = (1..).zip(shown);
        let found = numbered.find(|(_, call)| call.contains(words));
        found.expect("just seen")
    }

    /// Whether the notification of this number was closed.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn is_closed(&self, number: usize) -> bool {
        let close = format!("CloseNotification {number}");
        self.calls().contains(&close)
    }

    /// Waits for a call that begins with `name` and has these words in it.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_call(&self, name: &str, words: &str) -> String {
        let mut found = None;
        wait_until(START, || {
            found = self
                .calls()
                .into_iter()
                .find(|call| call.starts_with(name) && call.contains(words));
            found.is_some()
        });
        match found {
            Some(call) => call,
            None => panic!("nobody called {name} with {words:?}; {:?}", self.calls()),
        }
    }

    fn log(&self) -> PathBuf {
        Path::new(&self.root).join("log/mock.log")
    }
}

/// Seconds and milliseconds, as python-dbusmock writes them.
fn is_time(word: &str) -> bool {
    word.split_once('.').is_some_and(|(seconds, fraction)| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        seconds.len() >= 10 && digits(seconds) && digits(fraction)
    })
}

/// A bus on which everybody may do everything.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
