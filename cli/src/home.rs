//! The places of this user, and whether they are this user's.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use signet_proto::endpoint::Endpoint;

use crate::failure::{Failure, exit};

/// Finds home, configuration, socket and Docker's directory.
///
/// # Errors
///
/// Exit 2 when the environment names none, exit 4 under `sudo -E`: root would leave files in
/// another user's directories that this user can no longer read.
pub(crate) fn places() -> Result<Endpoint, Failure> {
    let places = Endpoint::from_env(|name| env::var_os(name))
        .map_err(|error| Failure::usage(error.to_string()))?;
    if rustix::process::geteuid().is_root() {
        for name in ["HOME", "DOCKER_CONFIG", "SIGNET_HOME"] {
            let Some(path) = env::var_os(name).filter(|path| !path.is_empty()) else {
                continue;
            };
            not_of_another_user(name, &PathBuf::from(path))?;
        }
    }
    Ok(places)
}

fn not_of_another_user(name: &str, path: &Path) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(found) if found.uid() != 0 => Err(Failure::new(
            exit::REFUSED,
            "sudo_environment",
            format!("running as root, but {name} is {}, which belongs to uid {}", path.display(), found.uid()),
        )
        .fix("run it as that user, without sudo (the user needs no more than the docker group); or as root with `sudo -H`")),
        _ => Ok(()),
    }
}
