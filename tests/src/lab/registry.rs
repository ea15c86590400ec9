//! Debian's `docker-registry` (2.8.2), with TLS, its blobs in the lab's directory.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::certs::Certs;
use super::command::clean;
use super::keeper::{Keeper, Peer};

/// The user whom a registry with basic authentication knows.
pub const BASIC_USER: &str = "lab";

/// The password of [`BASIC_USER`].
pub const BASIC_PASSWORD: &str = "lab password";

/// [`BASIC_PASSWORD`] in bcrypt, the only form that the registry takes; made by libxcrypt's
/// `crypt()` with the salt `$2b$04$abcdefghijklmnopqrstuu`.
const HTPASSWD: &str = "lab:$2b$04$abcdefghijklmnopqrstuuO8p6maephGvUPtogIa6N9g5737H/P9O\n";

#[derive(Debug)]
pub(super) struct Registry {
    host: String,
    _peer: Peer,
}

impl Registry {
    pub(super) fn start(
        root: &Path,
        certs: &Certs,
        basic_auth: bool,
        keeper: &mut Keeper,
    ) -> Result<Self> {
        let dir = root.join("registry");
        fs::create_dir(&dir)?;
        let users = dir.join("htpasswd");
        fs::write(&users, HTPASSWD)?;
        let auth = if basic_auth {
            serde_json::json!({"htpasswd": {"realm": "lab", "path": users}})
        } else {
            serde_json::json!({})
        };
        let (peer, port) = Peer::listen("registry", root, keeper, |port| {
            // Its configuration is YAML, and so are all of JSON's forms.
            let config = serde_json::json!({
                "version": "0.1",
                "log": {"level": "info"},
                "auth": auth,
                "storage": {
                    "filesystem": {"rootdirectory": dir.join("blobs")},
                    "delete": {"enabled": true},
                    "maintenance": {"uploadpurging": {"enabled": false}},
                },
                "http": {
                    "addr": format!("127.0.0.1:{port}"),
                    "tls": {"certificate": certs.server(), "key": certs.server_key()},
                },
            });
            let file = dir.join("config.yml");
            fs::write(&file, config.to_string())?;
            let mut command = clean("docker-registry");
            command
                .arg("serve")
                .arg(file)
                .current_dir(&dir)
                .env("OTEL_TRACES_EXPORTER", "none");
            Ok(command)
        })?;
        Ok(Self {
            host: format!("127.0.0.1:{port}"),
            _peer: peer,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}
