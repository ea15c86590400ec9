//! An agent on a home of its own, with the keys to be measured.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::collection::Collection;
use crate::{
    Home, Lab, Run as _,
    lab::{REPOSITORY_PASSPHRASE, ports::wait_until},
};

/// The home, and the agent that its first command starts.
#[derive(Debug)]
pub struct OwnAgent {
    /// Its home.
    pub home: Home,
    /// Docker's configuration directory.
    pub config: PathBuf,
}

impl OwnAgent {
    /// On the file system of the lab.
    #[must_use]
    pub fn in_lab(lab: &Lab) -> Self {
        let config = lab.client_config();
        let home = lab.home_with(&config);
        home.has_keyrings();
        Self { home, config }
    }

    /// In this empty directory.
    #[must_use]
    pub fn at(lab: &Lab, dir: &Path) -> Self {
        let config = lab.client_config();
        let home = lab.home_at(dir.to_path_buf(), &config);
        home.has_keyrings();
        Self { home, config }
    }

    /// Gives it the targets keys of these collections. Tags are all that is signed here: root keys
    /// stay where they are.
    ///
    /// # Errors
    ///
    /// When a key cannot be written.
    pub fn import(&self, collections: &[&Collection]) -> Result<()> {
        for collection in collections {
            let dir = tempfile::tempdir()?;
            let [_, targets] = collection.write_keys(dir.path())?;
            self.home
                .unattended()
                .args(["--yes", "key", "import", "--store", "file"])
                .arg(&targets)
                .env(
                    "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                    REPOSITORY_PASSPHRASE,
                )
                .run()
                .ok();
        }
        Ok(())
    }

    /// For as long as a measurement takes.
    pub fn unlock(&self) {
        self.home
            .unattended()
            .args(["unlock", "--for", "1h"])
            .run()
            .ok();
    }

    /// The agent's process.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.home.agent_pid().context("no agent runs")?;
        Ok(pid.as_raw_nonzero().get().try_into()?)
    }

    /// Ends the agent; the home stays.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.home.signet().args(["agent", "stop"]).run().ok();
        wait_until(super::PATIENCE, || self.home.agent_pid().is_none())
            .then_some(())
            .context("the agent does not end")
    }
}
