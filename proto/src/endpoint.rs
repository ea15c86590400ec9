//! Where an agent lives: the rules by which daemon and command find the same home and socket.
//!
//! Pure: the environment comes in as a closure, paths go out, nothing is opened. Both sides use
//! these rules and no others, so that they cannot disagree.

use std::{
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Longest path of a unix socket, without the final zero (`sun_path` of Linux: 108 bytes).
pub const MAX_SOCKET_PATH: usize = 107;

/// Paths of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `SIGNET_HOME`, default `$XDG_DATA_HOME/signet`: keys, ledger, locks.
    pub home: PathBuf,
    /// `SIGNET_CONFIG`, default `$XDG_CONFIG_HOME/signet`.
    pub config: PathBuf,
    /// `SIGNET_SOCKET`, else by the rules of [`Endpoint::from_env`].
    pub socket: PathBuf,
    /// `DOCKER_CONFIG`, default `~/.docker`; Docker's keys lie in `trust/private` below it.
    pub docker: PathBuf,
}

/// Why no paths can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// Neither the variable nor `HOME` is set.
    NoHome,
    /// A variable holds a relative path.
    Relative {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The socket's path is too long for the kernel, and there is no `XDG_RUNTIME_DIR`.
    TooLong {
        /// The path.
        path: PathBuf,
    },
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHome => f.write_str("HOME is not set; set it, or SIGNET_HOME"),
            Self::Relative { variable, path } => {
                write!(
                    f,
                    "{variable} is {}, which is not an absolute path",
                    path.display()
                )
            }
            Self::TooLong { path } => write!(
                f,
                "the socket path {} is longer than {MAX_SOCKET_PATH} bytes; set SIGNET_SOCKET or \
                 XDG_RUNTIME_DIR",
                path.display()
            ),
        }
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// The restricted socket for other machines, beside the agent's own: `forward.sock` beside
    /// `agent.sock`, `NAME-forward.sock` beside any other.
    #[must_use]
    pub fn forward(&self) -> PathBuf {
        let stem = self.socket.file_stem().unwrap_or_default();
        let name = match stem.to_str() {
            Some("agent") => OsString::from("forward.sock"),
            _ => {
                let mut name = stem.to_owned();
                name.push("-forward.sock");
                name
            }
        };
        self.socket.with_file_name(name)
    }

    /// Paths by the environment.
    ///
    /// The socket is `SIGNET_SOCKET`; else, where `SIGNET_HOME` is set, `$SIGNET_HOME/agent.sock`
    /// (past 107 bytes `$XDG_RUNTIME_DIR/signet/<hash of the home>.sock`); else
    /// `$XDG_RUNTIME_DIR/signet/agent.sock`; else `run/agent.sock` below the default home.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, EndpointError> {
        let set = |name: &str| {
            var(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let own = |name: &'static str| match set(name) {
            Some(path) if !path.is_absolute() => Err(EndpointError::Relative {
                variable: name,
                path,
            }),
            path => Ok(path.map(tidy)),
        };
        // The base directory specification: relative values are to be ignored.
        let xdg = |name: &str| set(name).filter(|path| path.is_absolute());
        let below_home = |tail: &str| set("HOME").map(|home| home.join(tail));

        let named_home = own("SIGNET_HOME")?;
        let home = named_home
            .clone()
            .or_else(|| {
                xdg("XDG_DATA_HOME")
                    .or_else(|| below_home(".local/share"))
                    .map(|d| d.join("signet"))
            })
            .ok_or(EndpointError::NoHome)?;
        let config = own("SIGNET_CONFIG")?
            .or_else(|| {
                xdg("XDG_CONFIG_HOME")
                    .or_else(|| below_home(".config"))
                    .map(|d| d.join("signet"))
            })
            .unwrap_or_else(|| home.clone());
        let docker = set("DOCKER_CONFIG")
            .or_else(|| below_home(".docker"))
            .unwrap_or_else(|| home.join("docker"));
        let runtime = xdg("XDG_RUNTIME_DIR").map(|dir| dir.join("signet"));

        let socket = match (own("SIGNET_SOCKET")?, &named_home, runtime) {
            (Some(socket), _, _) => socket,
            (None, Some(home), runtime) => {
                let beside = home.join("agent.sock");
                match runtime {
                    Some(runtime) if !fits(&beside) => runtime.join(hashed(home)),
                    _ => beside,
                }
            }
            (None, None, Some(runtime)) => runtime.join("agent.sock"),
            (None, None, None) => home.join("run/agent.sock"),
        };
        if !fits(&socket) {
            return Err(EndpointError::TooLong { path: socket });
        }
        Ok(Self {
            home,
            config,
            socket,
            docker,
        })
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH
}

/// `<first 16 hex digits of the hash of the home>.sock`.
fn hashed(home: &Path) -> String {
    let digest = Sha256::digest(home.as_os_str().as_bytes());
    let mut name = String::with_capacity(21);
    for byte in &digest[..8] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + ".sock"
}

/// Without a trailing slash or `.` components, so that equal homes compare equal.
fn tidy(path: PathBuf) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Endpoint, EndpointError> {
        Endpoint::from_env(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_plain_login_gets_the_runtime_directory() {
        let at = of(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1")]).unwrap();
        assert_eq!(at.home, Path::new("/home/u/.local/share/signet"));
        assert_eq!(at.config, Path::new("/home/u/.config/signet"));
        assert_eq!(at.socket, Path::new("/run/user/1/signet/agent.sock"));
        assert_eq!(at.docker, Path::new("/home/u/.docker"));
    }

    #[test]
    fn without_a_runtime_directory_the_socket_is_below_the_data_directory() {
        let at = of(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(
            at.socket,
            Path::new("/home/u/.local/share/signet/run/agent.sock")
        );
    }

    #[test]
    fn a_home_of_its_own_has_a_socket_of_its_own() {
        let at = of(&[
            ("SIGNET_HOME", "/srv/s/"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ])
        .unwrap();
        assert_eq!(at.home, Path::new("/srv/s"));
        assert_eq!(at.socket, Path::new("/srv/s/agent.sock"));
    }

    #[test]
    fn a_long_home_gets_a_hashed_socket_or_an_error_that_says_what_to_set() {
        let home = format!("/{}", "x".repeat(110));
        let at = of(&[("SIGNET_HOME", &home), ("XDG_RUNTIME_DIR", "/run/user/1")]).unwrap();
        let socket = at.socket.to_str().unwrap();
        assert!(socket.starts_with("/run/user/1/signet/") && socket.len() == 19 + 16 + 5);
        let error = of(&[("SIGNET_HOME", &home)]).unwrap_err();
        assert!(error.to_string().contains("SIGNET_SOCKET"), "{error}");
    }

    #[test]
    fn relative_paths_are_refused_by_name() {
        let error = of(&[("HOME", "/h"), ("SIGNET_HOME", "here")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SIGNET_HOME is here, which is not an absolute path"
        );
    }
}
