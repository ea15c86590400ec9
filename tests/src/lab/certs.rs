//! A certificate authority for one lab, made by the `openssl` command: the peers' certificates
//! then owe nothing to any library that Signet itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::command::clean;

/// Where the lab's certificates and keys are, in PEM.
#[derive(Debug)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    pub(super) fn make(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        openssl(
            dir,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
             -subj /CN=signet-lab -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt",
        )?;
        fs::write(
            dir.join("leaf.ext"),
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n\
             extendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n",
        )?;
        for name in ["server", "client"] {
            openssl(
                dir,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
                     -keyout {name}.key -out {name}.csr"
                ),
            )?;
            openssl(
                dir,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                     -days 3650 -extfile leaf.ext -out {name}.crt"
                ),
            )?;
        }
        Ok(Self {
            dir: dir.to_path_buf(),
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The certificate of every server, for `127.0.0.1` and `localhost`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.dir.join("server.crt")
    }

    /// The private key to [`Certs::server`].
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// The certificate with which clients, such as `notary-server`, show themselves.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.dir.join("client.crt")
    }

    /// The private key to [`Certs::client`].
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.dir.join("client.key")
    }
}

fn openssl(dir: &Path, args: &str) -> Result<()> {
    let mut command: Command = clean("openssl");
    let output = command
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .context("cannot run openssl; tests/lab/install.sh installs it")?;
    if !output.status.success() {
        bail!(
            "openssl {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
