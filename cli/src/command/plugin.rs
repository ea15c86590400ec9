//! `docker signet …`: the command as a plugin of the Docker CLI.
//!
//! Docker finds `docker-signet` in its plugin directories, asks it for metadata, and then runs it
//! with its own whole command line, so the verb stands behind the word `signet`.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use crate::{failure::Failure, ui::Ui};

/// The word by which docker asks for metadata.
const METADATA: &str = "docker-cli-plugin-metadata";

/// What docker wants.
pub(crate) enum Call {
    /// Metadata, which is printed already.
    Metadata,
    /// The command line, as if `signet` had been called.
    Command(Vec<OsString>),
    /// Something that a plugin cannot do.
    Unusable(Failure),
}

/// Whether this process was started under the plugin's name.
pub(crate) fn is_plugin(program: &OsStr) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == "docker-signet")
}

/// Reads docker's call.
pub(crate) fn arguments(args: Vec<OsString>, ui: &Ui) -> Call {
    if args.get(1).is_some_and(|word| word == METADATA) {
        ui.data(metadata());
        return Call::Metadata;
    }
    match args.iter().skip(1).position(|word| word == "signet") {
        // Called by hand: the same as `signet`.
        None => Call::Command(args),
        Some(0) => Call::Command(
            args.into_iter()
                .enumerate()
                .filter(|(at, _)| *at != 1)
                .map(|(_, arg)| arg)
                .collect(),
        ),
        Some(_) => Call::Unusable(
            Failure::usage("options between `docker` and `signet` do not reach the plugin")
                .fix("set DOCKER_CONTEXT, DOCKER_HOST or DOCKER_CONFIG instead"),
        ),
    }
}

fn metadata() -> serde_json::Value {
    serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Signet",
        "Version": concat!("v", env!("CARGO_PKG_VERSION")),
        "ShortDescription": "Sign images on push and verify them before pull",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        let ui = Ui::new(&crate::args::Globals::default());
        arguments(line.split(' ').map(OsString::from).collect(), &ui)
    }

    #[test]
    fn dockers_own_word_is_dropped() {
        assert!(is_plugin(OsStr::new(
            "/usr/libexec/docker/cli-plugins/docker-signet"
        )));
        assert!(!is_plugin(OsStr::new("/usr/bin/signet")));
        let Call::Command(args) = call("docker-signet signet push signet") else {
            panic!("refused")
        };
        assert_eq!(args, ["docker-signet", "push", "signet"]);
    }

    #[test]
    fn dockers_global_options_are_refused_by_name() {
        let Call::Unusable(failure) = call("docker-signet --context x signet push a") else {
            panic!("taken")
        };
        assert_eq!(failure.exit, 2);
    }

    #[test]
    fn metadata_is_what_docker_asks_for() {
        assert_eq!(metadata()["SchemaVersion"], "0.1.0");
        assert_eq!(metadata()["Vendor"], "Signet");
    }
}
