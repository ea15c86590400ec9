//! Notary 0.7.0 from Debian: server, signer and client.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::certs::Certs;
use super::command::clean;
use super::keeper::{Keeper, Peer};
use super::{Lab, REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};

/// `notary-signer`: holds the ECDSA timestamp and snapshot keys of a [`Server`], in memory.
#[derive(Debug)]
pub(super) struct Signer {
    port: u16,
    host: String,
    _peer: Peer,
}

impl Signer {
    pub(super) fn start(root: &Path, certs: &Certs, keeper: &mut Keeper) -> Result<Self> {
        let (peer, port) = Peer::listen("signer", root, keeper, |port| {
            let config = json!({
                "server": {
                    "grpc_addr": format!("127.0.0.1:{port}"),
                    "tls_cert_file": certs.server(),
                    "tls_key_file": certs.server_key(),
                    "client_ca_file": certs.ca(),
                },
                "logging": {"level": "info"},
                "storage": {"backend": "memory"},
            });
            configured("notary-signer", root, "signer", &config)
        })?;
        Ok(Self {
            port,
            host: format!("127.0.0.1:{port}"),
            _peer: peer,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// `notary-server`, its metadata in memory.
#[derive(Debug)]
pub(super) struct Server {
    host: String,
    url: String,
    _peer: Peer,
}

impl Server {
    pub(super) fn start(
        root: &Path,
        name: &'static str,
        certs: &Certs,
        signer: Option<&Signer>,
        keeper: &mut Keeper,
    ) -> Result<Self> {
        let trust_service = match signer {
            None => json!({"type": "local"}),
            Some(signer) => json!({
                "type": "remote",
                "hostname": "127.0.0.1",
                "port": signer.port.to_string(),
                "tls_ca_file": certs.ca(),
                "tls_client_cert": certs.client(),
                "tls_client_key": certs.client_key(),
                "key_algorithm": "ecdsa",
            }),
        };
        let (peer, port) = Peer::listen(name, root, keeper, |port| {
            let config = json!({
                "server": {
                    "http_addr": format!("127.0.0.1:{port}"),
                    "tls_cert_file": certs.server(),
                    "tls_key_file": certs.server_key(),
                },
                "trust_service": trust_service,
                "logging": {"level": "debug"},
                "storage": {"backend": "memory"},
            });
            configured("notary-server", root, name, &config)
        })?;
        let host = format!("127.0.0.1:{port}");
        Ok(Self {
            url: format!("https://{host}"),
            host,
            _peer: peer,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

fn configured(
    program: &str,
    root: &Path,
    name: &str,
    config: &serde_json::Value,
) -> Result<Command> {
    let file = root.join(format!("{name}.json"));
    fs::write(&file, config.to_string())?;
    let mut command = clean(program);
    command.arg("-config").arg(file).current_dir(root);
    Ok(command)
}

impl Lab {
    /// The `notary` command with this directory as its trust directory (a Docker configuration's
    /// `trust`, say), against the trust server with ECDSA keys.
    ///
    /// # Panics
    /// When this lab has no such server.
    #[must_use]
    pub fn notary(&self, trust_dir: &Path) -> Command {
        self.notary_at(self.trust_server(), trust_dir)
    }

    /// As [`Lab::notary`], against the server at `url`.
    ///
    /// # Panics
    /// When the lab's directory cannot be written.
    #[must_use]
    pub fn notary_at(&self, url: &str, trust_dir: &Path) -> Command {
        let file = self.fresh_dir("notary").join("config.json");
        let config = json!({
            "trust_dir": trust_dir,
            "remote_server": {"url": url, "root_ca": self.certs().ca()},
        });
        fs::write(&file, config.to_string()).expect("the lab's directory is ours");
        let mut command = clean("notary");
        command
            .arg("-c")
            .arg(file)
            .env("HOME", self.dir().join("home"))
            // Without credentials it asks the terminal for some, whether they are needed or not.
            .env("NOTARY_AUTH", "bGFiOmxhYiBwYXNzd29yZA==")
            .env("NOTARY_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
            .env("NOTARY_TARGETS_PASSPHRASE", REPOSITORY_PASSPHRASE)
            .env("NOTARY_SNAPSHOT_PASSPHRASE", REPOSITORY_PASSPHRASE)
            .env("NOTARY_DELEGATION_PASSPHRASE", REPOSITORY_PASSPHRASE);
        command
    }
}
