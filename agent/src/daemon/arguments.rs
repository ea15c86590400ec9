//! The few arguments of `signetd`.

use std::ffi::OsString;

/// Text of `--help`.
pub(super) const HELP: &str = "\
signetd, the agent that owns a publisher's keys and signs with them

Usage: signetd [--background]

  --background  leave the caller's terminal session
  --help        this text
  --version     name and version

Environment:
  SIGNET_HOME    keys and ledger (default: $XDG_DATA_HOME/signet)
  SIGNET_CONFIG  directory of agent.toml (default: $XDG_CONFIG_HOME/signet)
  SIGNET_SOCKET  where it listens (default: by home)
  SIGNET_LOG     error, warn, info, debug or trace (default: info), to stderr
  DOCKER_CONFIG  Docker's directory (default: ~/.docker)

It serves one home and one user, and is usually started by `signet` itself.
";

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// `--help`
    Help,
    /// Nothing: serve.
    Serve {
        /// `--background`
        background: bool,
    },
    /// `--version`
    Version,
}

/// An argument that means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown argument {0:?}")]
pub(super) struct Unknown(OsString);

impl Arguments {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    ///
    /// The first one that means nothing.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Unknown> {
        let mut background = false;
        for argument in arguments {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(Self::Help),
                Some("--version" | "-V") => return Ok(Self::Version),
                Some("--background") => background = true,
                _ => return Err(Unknown(argument)),
            }
        }
        Ok(Self::Serve { background })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, Unknown> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn what_means_nothing_is_named() {
        assert_eq!(parse(&[]), Ok(Arguments::Serve { background: false }));
        assert_eq!(
            parse(&["--background"]),
            Ok(Arguments::Serve { background: true })
        );
        assert_eq!(parse(&["-V"]), Ok(Arguments::Version));
        let error = parse(&["--home"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown argument \"--home\"");
    }
}
