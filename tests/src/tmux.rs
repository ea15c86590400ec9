//! A full-screen command on a terminal of tmux's, whose screen can be read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::lab::command::{Run as _, clean};

/// A command in a tmux server of its own, 100 columns and 30 lines.
#[derive(Debug)]
pub struct Screen {
    socket: PathBuf,
    /// Where the exit code is, once there is one.
    status: PathBuf,
}

impl Screen {
    /// Starts a command; `dir` is one that nobody else has a screen in.
    ///
    /// # Panics
    /// When tmux does not start.
    #[must_use]
    pub fn start(dir: &Path, command: &Command) -> Self {
        let config = dir.join("tmux.conf");
        let settings = "set -g status off\nset -s escape-time 0\n";
        std::fs::write(&config, settings).expect("the directory is ours");
        let screen = Self {
            socket: dir.join("tmux"),
            status: dir.join("status"),
        };
        let mut tmux = screen.tmux();
        // The server hands its own environment on.
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                tmux.env(name, value);
            }
        }
        tmux.arg("-f")
            .arg(config)
            .args(["new-session", "-d", "-x", "100", "-y", "30"])
            // What ended is still to be read, and how: tmux itself may miss that.
            .args(["sh", "-c", "s=$0; \"$@\"; echo $? >\"$s\"; read -r _"])
            .arg(&screen.status)
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            tmux.current_dir(dir);
        }
        tmux.run().ok();
        screen
    }

    fn tmux(&self) -> Command {
        let mut tmux = clean("tmux");
        tmux.arg("-u").arg("-S").arg(&self.socket);
        tmux
    }

    fn fact(&self, format: &str) -> String {
        let mut tmux = self.tmux();
        let said = tmux.args(["display-message", "-p", format]).run().ok();
        said.stdout.trim().to_owned()
    }

    /// What is on the screen.
    ///
    /// # Panics
    /// When tmux has ended.
    #[must_use]
    pub fn text(&self) -> String {
        self.tmux().args(["capture-pane", "-p"]).run().ok().stdout
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Panics
    /// When it is not after a minute.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "not {what}:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until these words are on it, and returns it.
    ///
    /// # Panics
    /// As [`Screen::until`].
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "its panic is what most callers want"
    )]
    pub fn shows(&self, words: &str) -> String {
        self.until(words, |text| text.contains(words))
    }

    /// Types text as it is.
    ///
    /// # Panics
    /// When tmux has ended.
    pub fn types(&self, text: &str) {
        self.tmux().args(["send-keys", "-l", text]).run().ok();
    }

    /// Presses a key by tmux's name: `Enter`, `Escape`, `C-c`.
    ///
    /// # Panics
    /// When tmux has ended.
    pub fn press(&self, key: &str) {
        self.tmux().args(["send-keys", key]).run().ok();
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// When tmux has ended.
    pub fn resize(&self, columns: u32, lines: u32) {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let size = ["resize-window", "-x", &columns, "-y", &lines];
        self.tmux().args(size).run().ok();
    }

    /// The command's process.
    ///
    /// # Panics
    /// When tmux has ended.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let shell = self.fact("#{pane_pid}");
        let children = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(children).expect("the shell is there");
        let pid = children.trim().parse().ok();
        pid.and_then(Pid::from_raw).expect("a process ID")
    }

    /// Waits for the end, which must be this exit code. What it left may be shown a moment later.
    ///
    /// # Panics
    /// When it ends otherwise, or does not.
    #[track_caller]
    pub fn exits(&self, code: i32) {
        let ended = || std::fs::read_to_string(&self.status).unwrap_or_default();
        let text = self.until("ended", |_| ended().ends_with('\n'));
        assert_eq!(ended().trim(), code.to_string(), "{text}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // One that has ended by itself is what we want.
        let _ = self.tmux().arg("kill-server").run();
    }
}

/// Debug builds derive keys from passphrases in a second or two, on a busy machine in some more.
const PATIENCE: Duration = Duration::from_secs(60);
