//! `$DOCKER_CONFIG/config.json`, as far as it concerns us.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
};

use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

/// The members that are read; everything else is docker's own business.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    /// By registry.
    pub(super) auths: BTreeMap<String, Auth>,
    /// Suffix of the `docker-credential-…` program for all registries.
    pub(super) creds_store: String,
    /// The same by registry.
    pub(super) cred_helpers: BTreeMap<String, String>,
    /// The context that is used when nothing names another.
    pub(super) current_context: String,
}

/// What `docker login` left for one registry.
#[derive(Deserialize)]
pub(super) struct Auth {
    /// Base64 of `user:password`.
    #[serde(default)]
    pub(super) auth: String,
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) password: String,
    #[serde(default)]
    pub(super) identitytoken: String,
}

impl Drop for Auth {
    fn drop(&mut self) {
        self.auth.zeroize();
        self.password.zeroize();
        self.identitytoken.zeroize();
    }
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerConfig")
            .field("auths", &self.auths.keys())
            .field("creds_store", &self.creds_store)
            .field("cred_helpers", &self.cred_helpers)
            .field("current_context", &self.current_context)
            .finish()
    }
}

/// Nobody's configuration is larger.
const MAX_CONFIG: u64 = 4 << 20;

impl DockerConfig {
    /// Reads `config.json` below `directory`; empty when there is none.
    ///
    /// # Errors
    ///
    /// In words that name the file, when it cannot be read.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        let file = directory.join("config.json");
        match read_bounded(&file, MAX_CONFIG) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(Self::default()),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("{} is not as docker writes it: {error}", file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }
}

/// A file of at most `limit` bytes; it may hold secrets.
pub(crate) fn read_bounded(file: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(file)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("larger than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_empty_and_a_broken_one_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            DockerConfig::read(directory.path())
                .unwrap()
                .auths
                .is_empty()
        );
        fs::write(directory.path().join("config.json"), "{\"auths\":1}").unwrap();
        assert!(
            DockerConfig::read(directory.path())
                .unwrap_err()
                .contains("config.json")
        );
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("config.json"),
            r#"{"detachKeys":"x","credsStore":"pass","currentContext":"far","HttpHeaders":{}}"#,
        )
        .unwrap();
        let config = DockerConfig::read(directory.path()).unwrap();
        assert_eq!(
            (config.creds_store.as_str(), config.current_context.as_str()),
            ("pass", "far")
        );
    }
}
