//! Collections to measure on: built with our own library, uploaded to a real server.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use signet_trust::{
    Algorithm, Gun, KeyId, KeyType, PrivateKey, PublicKey, RoleName, Signature, cert,
    document::Target,
    edit::{Edit, InitVersions, NewCollection},
    keyfile,
};

use crate::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};

/// Keys of a collection, and where it is called what.
#[derive(Debug)]
pub struct Collection {
    /// Its name.
    pub gun: Gun,
    /// Signs the root document.
    pub root: PrivateKey,
    /// In the form that documents list.
    pub root_certificate: PublicKey,
    /// Signs tags.
    pub targets: PrivateKey,
}

impl Collection {
    /// Makes the keys and the root certificate.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn new(gun: &str, algorithm: Algorithm, now: i64) -> Result<Self> {
        let gun: Gun = gun.parse()?;
        let root = PrivateKey::generate(Algorithm::P256)?;
        let template = cert::template(&gun, root.public(), [7; 16], now)?;
        let signature = root.sign(&template.to_be_signed)?;
        let root_certificate = template.finish(root.public(), &signature)?;
        Ok(Self {
            gun,
            root,
            root_certificate,
            targets: PrivateKey::generate(algorithm)?,
        })
    }

    /// Root and targets documents with this many tags, in wire form, by the client's keys; the
    /// other two roles are for the keys given.
    ///
    /// # Errors
    ///
    /// When a document cannot be made.
    pub fn documents(
        &self,
        tags: usize,
        snapshot: PublicKey,
        timestamp: PublicKey,
        now: i64,
    ) -> Result<BTreeMap<RoleName, Vec<u8>>> {
        let keys = NewCollection {
            root: self.root_certificate.clone(),
            targets: self.targets.public().clone(),
            snapshot,
            timestamp,
            snapshot_is_ours: false,
        };
        let mut edit = Edit::init(self.gun.clone(), keys, InitVersions::default(), now)?;
        for number in 0..tags {
            edit.add(
                &RoleName::Targets,
                &format!("v1.0.{number}"),
                target(number as u64),
            )?;
        }
        for request in edit.requests(&|_: &KeyId| true)? {
            let key = if request.role == RoleName::Root {
                &self.root
            } else {
                &self.targets
            };
            let signature = Signature {
                key_id: request.key_ids[0],
                method: key.public().method(),
                bytes: key.sign(&request.payload)?,
            };
            edit.sign(&request.role, vec![signature])?;
        }
        Ok(edit.finish())
    }

    /// Publishes it with this many tags, snapshot and timestamp by the server.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn publish(&self, server: &str, tags: usize, now: i64) -> Result<()> {
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        let url = format!("{server}/v2/{}/_trust/tuf/", self.gun);
        let mut keys = Vec::new();
        for role in ["snapshot", "timestamp"] {
            let text = client
                .get(format!("{url}{role}.key"))
                .send()
                .await?
                .text()
                .await?;
            keys.push(server_key(&text)?);
        }
        let timestamp = keys.pop().context("two keys")?;
        let snapshot = keys.pop().context("two keys")?;
        let mut body = Vec::new();
        for (role, wire) in self.documents(tags, snapshot, timestamp, now)? {
            write!(
                body,
                "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{role}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )?;
            body.extend_from_slice(&wire);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--x--\r\n");
        let answer = client
            .post(&url)
            .header("Content-Type", "multipart/form-data; boundary=x")
            .body(body)
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("{url}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// Puts both keys into a trust directory, as docker and notary keep them.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_keys(&self, trust: &Path) -> Result<[PathBuf; 2]> {
        let private = trust.join("private");
        fs::create_dir_all(&private)?;
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
        let write = |key: &PrivateKey, role: &str, passphrase: &str| -> Result<PathBuf> {
            let nonces = keyfile::Nonces {
                salt: [3; 8],
                iv: [4; 16],
            };
            let gun = Some(self.gun.as_str());
            let pem = keyfile::write_encrypted(key, role, gun, passphrase.as_bytes(), nonces);
            let path = private.join(format!("{}.key", key.id()));
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?
                .write_all(pem.as_bytes())?;
            Ok(path)
        };
        Ok([
            write(&self.root, "root", ROOT_PASSPHRASE)?,
            write(&self.targets, "targets", REPOSITORY_PASSPHRASE)?,
        ])
    }
}

/// A tag's target, different for each number.
#[must_use]
pub fn target(number: u64) -> Target {
    let mut digest = vec![0xab; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Target {
        custom: None,
        hashes: BTreeMap::from([("sha256".to_owned(), digest)]).into(),
        length: 528,
    }
}

/// A key as the server's key endpoint answers it.
fn server_key(text: &str) -> Result<PublicKey> {
    let json: serde_json::Value = serde_json::from_str(text)?;
    let key_type = json["keytype"]
        .as_str()
        .and_then(KeyType::from_name)
        .context("keytype")?;
    let public = STANDARD.decode(json["keyval"]["public"].as_str().context("public")?)?;
    Ok(PublicKey::new(key_type, public))
}
