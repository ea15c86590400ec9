//! Which programs the helper runs: those that `agent.toml` names, and pinentries. It reads the file
//! itself, so an agent that has come under somebody else's control cannot talk it into another.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::wire::Spawn;
use crate::{config::Config, presence::pinentry};

/// Commands that are remembered, should a file be changed again and again.
const MAX_COMMANDS: usize = 1024;

/// What the settings name, now or at any time since the start.
#[derive(Debug)]
pub(super) struct Permitted {
    /// The directory of `agent.toml`.
    settings: PathBuf,
    commands: Vec<Vec<OsString>>,
}

impl Permitted {
    pub(super) fn new(settings: PathBuf) -> Self {
        let mut permitted = Self {
            settings,
            commands: Vec::new(),
        };
        permitted.read();
        permitted
    }

    /// Whether it may be started, arguments and environment included.
    pub(super) fn allows(&mut self, spawn: &Spawn) -> bool {
        let known = |name: &OsStr| pinentry::ENVIRONMENT.iter().any(|known| name == *known);
        if !spawn.env.iter().all(|(name, _)| known(name)) {
            return false;
        }
        if self.names(&spawn.argv) {
            return true;
        }
        // The agent may have read it anew since.
        self.read();
        self.names(&spawn.argv)
    }

    fn names(&self, argv: &[OsString]) -> bool {
        let pinentry = match argv {
            [program] => pinentry::is_known(Path::new(program)),
            _ => false,
        };
        pinentry || self.commands.iter().any(|command| command == argv)
    }

    /// A file that cannot be used changes nothing, as it does in the agent.
    fn read(&mut self) {
        let Ok(config) = Config::load(&self.settings) else {
            return;
        };
        for command in config.commands() {
            if self.commands.len() < MAX_COMMANDS && !self.commands.contains(&command) {
                self.commands.push(command);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_settings_name_is_run_as_they_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let mut permitted = Permitted::new(dir.path().to_owned());
        let spawn = |argv: &[&str], env: &[&str]| Spawn {
            argv: argv.iter().map(OsString::from).collect(),
            env: env
                .iter()
                .map(|name| ((*name).into(), "x".into()))
                .collect(),
        };
        let witness = spawn(&["/bin/witness", "-v"], &[]);
        assert!(!permitted.allows(&witness));
        std::fs::write(
            &file,
            "[log]\nwitness = [\"/bin/witness\", \"-v\"]\n[presence]\npinentry = \"/opt/ask\"\n\
             [[policy]]\nname = \"scan\"\ndo = \"ask\"\ncheck = [\"/bin/scan\"]\n",
        )
        .unwrap();
        assert!(permitted.allows(&witness));
        assert!(permitted.allows(&spawn(&["/bin/scan"], &[])));
        assert!(permitted.allows(&spawn(&["/opt/ask"], &["DISPLAY"])));
        assert!(permitted.allows(&spawn(&["/usr/bin/pinentry-curses"], &[])));
        for other in [
            spawn(&["/bin/witness"], &[]),
            spawn(&["/bin/witness", "-v", "-x"], &[]),
            spawn(&["/bin/sh"], &[]),
            spawn(&["/usr/bin/pinentry-curses", "--debug"], &[]),
            spawn(&["/bin/scan"], &["LD_PRELOAD"]),
            spawn(&["/bin/scan"], &["PATH"]),
        ] {
            assert!(!permitted.allows(&other), "{other:?}");
        }
        // A half-written file takes nothing back.
        std::fs::write(&file, "[log\n").unwrap();
        assert!(permitted.allows(&witness));
        assert!(!permitted.allows(&spawn(&["/bin/sh"], &[])));
    }
}
