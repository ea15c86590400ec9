//! Where the engine listens: `DOCKER_HOST`, contexts, or the default socket.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::config::{DockerConfig, read_bounded};
use crate::failure::{Failure, exit};

/// How to reach the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP, with or without TLS.
    Tcp {
        /// `host:port`
        address: String,
        /// Absent: plain HTTP.
        tls: Option<EngineTls>,
    },
}

/// TLS towards an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineTls {
    /// With `ca.pem`, `cert.pem`, `key.pem`, each optional.
    pub(crate) directory: PathBuf,
    /// Whether its certificate is checked.
    pub(crate) verify: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// Where engines listen unless told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// A context's metadata.
const MAX_META: u64 = 1 << 20;

/// Finds the engine as the docker command does: `DOCKER_HOST`, else `DOCKER_CONTEXT`, else the
/// current context, else the default socket.
///
/// # Errors
///
/// For contexts that do not exist and addresses that cannot be spoken to.
pub(crate) fn resolve(
    directory: &Path,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Endpoint, Failure> {
    let text = |name: &str| -> Result<Option<String>, Failure> {
        match env(name)
            .filter(|value| !value.is_empty())
            .map(OsString::into_string)
            .transpose()
        {
            Ok(value) => Ok(value),
            Err(_) => Err(usage(format!("{name} is not UTF-8"))),
        }
    };
    if let Some(host) = text("DOCKER_HOST")? {
        let verify = text("DOCKER_TLS_VERIFY")?.is_some();
        let tls = (verify || text("DOCKER_TLS")?.is_some()).then(|| EngineTls {
            directory: env("DOCKER_CERT_PATH")
                .filter(|path| !path.is_empty())
                .map_or_else(|| directory.to_owned(), PathBuf::from),
            verify,
        });
        return parse(&host, tls, "DOCKER_HOST");
    }
    let context = match text("DOCKER_CONTEXT")? {
        Some(context) => context,
        None => {
            DockerConfig::read(directory)
                .map_err(|error| Failure::new(exit::FAILED, "docker.config", error))?
                .current_context
        }
    };
    match context.as_str() {
        "" | "default" => Ok(Endpoint::Unix(DEFAULT_SOCKET.into())),
        name => from_context(directory, name),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    endpoints: std::collections::BTreeMap<String, MetaEndpoint>,
}

#[derive(Deserialize)]
struct MetaEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

fn from_context(directory: &Path, name: &str) -> Result<Endpoint, Failure> {
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let file = directory.join("contexts/meta").join(&id).join("meta.json");
    let bytes = read_bounded(&file, MAX_META).map_err(|error| {
        usage(format!(
            "docker context {name:?} cannot be read: {}: {error}",
            file.display()
        ))
        .fix("`docker context ls` shows those that exist")
    })?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| {
        usage(format!(
            "docker context {name:?}: {}: {error}",
            file.display()
        ))
    })?;
    let endpoint = meta
        .endpoints
        .get("docker")
        .ok_or_else(|| usage(format!("docker context {name:?} names no docker endpoint")))?;
    let tls_directory = directory.join("contexts/tls").join(&id).join("docker");
    let tls = (tls_directory.is_dir() || endpoint.skip_tls_verify).then_some(EngineTls {
        directory: tls_directory,
        verify: !endpoint.skip_tls_verify,
    });
    parse(&endpoint.host, tls, &format!("docker context {name:?}"))
}

fn parse(host: &str, tls: Option<EngineTls>, from: &str) -> Result<Endpoint, Failure> {
    if host.is_empty() {
        return Ok(Endpoint::Unix(DEFAULT_SOCKET.into()));
    }
    let Some((scheme, rest)) = host.split_once("://") else {
        return Err(usage(format!(
            "{from}: {host:?} is not unix://PATH or tcp://HOST:PORT"
        )));
    };
    match scheme {
        "unix" if !rest.is_empty() => Ok(Endpoint::Unix(rest.into())),
        "tcp" | "http" | "https" if !rest.is_empty() => {
            let address = rest.trim_end_matches('/');
            // An engine's own defaults: 2376 with TLS, 2375 without.
            let port = if tls.is_some() { 2376 } else { 2375 };
            let bare = address
                .rsplit_once(':')
                .is_none_or(|(_, port)| port.ends_with(']'));
            let address = if bare {
                format!("{address}:{port}")
            } else {
                address.to_owned()
            };
            Ok(Endpoint::Tcp { address, tls })
        }
        "ssh" => Err(usage(format!(
            "{from}: engines behind ssh ({host}) are not spoken to"
        ))
        .fix(
            "forward the engine's socket, ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST, \
                 and set DOCKER_HOST=unix:///tmp/docker.sock",
        )),
        _ => Err(usage(format!(
            "{from}: {host:?} is not unix://PATH or tcp://HOST:PORT"
        ))),
    }
}

fn usage(message: String) -> Failure {
    Failure::new(exit::USAGE, "docker.endpoint", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(directory: &Path, env: &[(&str, &str)]) -> Result<Endpoint, Failure> {
        let env: Vec<(String, OsString)> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).into()))
            .collect();
        resolve(directory, &|name| {
            env.iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_host_variable_wins_over_contexts() {
        let none = Path::new("/nonexistent");
        assert_eq!(
            find(none, &[]).unwrap(),
            Endpoint::Unix(DEFAULT_SOCKET.into())
        );
        assert_eq!(
            find(
                none,
                &[("DOCKER_HOST", "unix:///x"), ("DOCKER_CONTEXT", "y")]
            )
            .unwrap(),
            Endpoint::Unix("/x".into())
        );
        assert_eq!(
            find(
                none,
                &[("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1")]
            )
            .unwrap(),
            Endpoint::Tcp {
                address: "h:2376".into(),
                tls: Some(EngineTls {
                    directory: none.into(),
                    verify: true
                })
            }
        );
        assert_eq!(
            find(none, &[("DOCKER_HOST", "tcp://[::1]:9")]).unwrap(),
            Endpoint::Tcp {
                address: "[::1]:9".into(),
                tls: None
            }
        );
    }

    #[test]
    fn ssh_and_nonsense_are_usage_errors() {
        let none = Path::new("/nonexistent");
        for host in ["ssh://me@h", "npipe:////./pipe/docker", "h:2375", "unix://"] {
            assert_eq!(
                find(none, &[("DOCKER_HOST", host)]).unwrap_err().exit,
                2,
                "{host}"
            );
        }
    }

    #[test]
    fn a_context_is_found_by_the_hash_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let id = hex::encode(Sha256::digest(b"far"));
        let meta = directory.path().join("contexts/meta").join(&id);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        std::fs::write(
            directory.path().join("config.json"),
            r#"{"currentContext":"far"}"#,
        )
        .unwrap();
        assert_eq!(
            find(directory.path(), &[]).unwrap(),
            Endpoint::Tcp {
                address: "h:1".into(),
                tls: None
            }
        );
        let error = find(directory.path(), &[("DOCKER_CONTEXT", "other")]).unwrap_err();
        assert!(error.message.contains("\"other\""));
    }
}
