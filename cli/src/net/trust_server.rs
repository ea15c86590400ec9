//! The notary server's HTTP API (§3), for one collection.

use std::{cell::Cell, path::Path};

use reqwest::{Method, header};
use serde::Deserialize;
use signet_trust::{Gun, KeyType, PublicKey, RoleName, update::File, verify::limit};

use super::{
    NetError,
    client::{Request, Server},
    error::{looks_like_html, what_it_is},
    multipart::Upload,
    tls::Trust,
};
use crate::{docker::credentials::CredentialSource, image::Image};

/// What the collection is opened for; decides the token that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// `pull`
    Read,
    /// `push,pull`
    Write,
}

/// The trust collection of one GUN at its server.
#[derive(Debug)]
pub(crate) struct TrustServer {
    server: Server,
    gun: Gun,
    fresh: Cell<bool>,
}

impl TrustServer {
    /// Nothing is connected yet. `insecure`: the registry is on loopback or in the engine's
    /// insecure list, so that certificates are not verified, its trust server's neither.
    ///
    /// # Errors
    ///
    /// [`NetError::Setup`] when the URL is not an https one.
    pub(crate) fn new(
        url: &str,
        image: &Image,
        insecure: bool,
        access: Access,
        docker_dir: &Path,
        credentials: CredentialSource,
    ) -> Result<Self, NetError> {
        if !url.starts_with("https://") {
            return Err(NetError::Setup(format!(
                "valid https URL required for trust server, got {url}"
            )));
        }
        let actions = match access {
            Access::Read => "pull",
            Access::Write => "push,pull",
        };
        let scope = format!("repository:{}:{actions}", image.gun);
        let host = url["https://".len()..]
            .split('/')
            .next()
            .unwrap_or_default();
        let trust = Trust {
            verify: !insecure,
            directories: vec![docker_dir.join("tls").join(host)],
        };
        let server = Server::new(url, "trust server", trust, credentials, scope)?;
        Ok(Self {
            server,
            gun: image.gun.clone(),
            fresh: Cell::new(false),
        })
    }

    /// Its URL, for messages.
    pub(crate) fn url(&self) -> &str {
        self.server.base()
    }

    /// `host[:port]`, for messages.
    pub(crate) fn host(&self) -> &str {
        self.server.host()
    }

    /// From now on asks caches on the way for the newest answer.
    pub(crate) fn bypass_caches(&self) {
        self.fresh.set(true);
    }

    /// One document, as it is on the wire.
    ///
    /// # Errors
    ///
    /// [`NetError::Missing`] for a 404; any other [`NetError`].
    pub(crate) async fn get(&self, file: &File, limit: usize) -> Result<Vec<u8>, NetError> {
        let name = match file {
            File::Current(role) => format!("{role}.json"),
            File::ByHash(role, hash) => format!("{role}.{hash}.json"),
            File::Version(version, role) => format!("{version}.{role}.json"),
        };
        let answer = self.fetch(&name, limit).await?;
        match answer.body.trim_ascii_start().first() {
            Some(b'{') => Ok(answer.body),
            _ => Err(NetError::NotTheService {
                what: what_it_is(&answer.body),
                url: answer.url,
                wanted: "trust server",
            }),
        }
    }

    /// The key that the server holds, or makes now, for `timestamp` or `snapshot`.
    ///
    /// # Errors
    ///
    /// [`NetError`]; [`NetError::NotTheService`] when the answer is no key.
    pub(crate) async fn key(&self, role: &RoleName) -> Result<PublicKey, NetError> {
        let answer = self.fetch(&format!("{role}.key"), limit::KEY).await?;
        read_key(&answer.body).ok_or(NetError::NotTheService {
            what: what_it_is(&answer.body),
            url: answer.url,
            wanted: "trust server",
        })
    }

    /// Publishes documents, all or none.
    ///
    /// # Errors
    ///
    /// [`NetError`]; see [`NetError::is_version_race`] and [`NetError::is_unsure`].
    pub(crate) async fn upload(&self, upload: &Upload) -> Result<(), NetError> {
        let request = Request {
            method: Method::POST,
            path: &format!("/v2/{}/_trust/tuf/", self.gun),
            headers: vec![(header::CONTENT_TYPE, &upload.content_type)],
            body: Some(upload.body.clone()),
            limit: limit::KEY,
        };
        let answer = self.server.send(&request).await?;
        if looks_like_html(&answer.body) {
            let what = what_it_is(&answer.body);
            return Err(NetError::NotTheService {
                url: answer.url,
                what,
                wanted: "trust server",
            });
        }
        Ok(())
    }

    async fn fetch(&self, name: &str, limit: usize) -> Result<super::client::Answer, NetError> {
        let mut headers = Vec::new();
        if self.fresh.get() {
            headers.push((header::CACHE_CONTROL, "no-cache"));
        }
        let path = format!("/v2/{}/_trust/tuf/{name}", self.gun);
        let request = Request {
            method: Method::GET,
            path: &path,
            headers,
            body: None,
            limit,
        };
        self.server.send(&request).await
    }
}

#[derive(Deserialize)]
struct KeyJson {
    keytype: String,
    keyval: KeyValue,
}

#[derive(Deserialize)]
struct KeyValue {
    public: String,
}

/// A key as the server writes it (§3.4): the order of its members is not that of documents.
fn read_key(body: &[u8]) -> Option<PublicKey> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let key: KeyJson = serde_json::from_slice(body).ok()?;
    let public = STANDARD.decode(key.keyval.public).ok()?;
    Some(PublicKey::new(KeyType::from_name(&key.keytype)?, public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_the_servers_order_of_members() {
        let key = read_key(br#"{"keytype":"ed25519","keyval":{"public":"AAEC","private":null}}"#)
            .unwrap();
        assert_eq!(key.public(), [0, 1, 2]);
        assert_eq!(key.key_type(), KeyType::Ed25519);
        for body in [
            &b"{}"[..],
            b"<html>",
            br#"{"keytype":"dsa","keyval":{"public":"AAEC"}}"#,
        ] {
            assert!(read_key(body).is_none());
        }
    }

    #[test]
    fn only_https_will_do() {
        let image: Image = "127.0.0.1:5000/a".parse().unwrap();
        let open = |url: &str| {
            TrustServer::new(
                url,
                &image,
                true,
                Access::Read,
                Path::new("/nonexistent"),
                CredentialSource::none(),
            )
        };
        assert_eq!(
            open("http://n").unwrap_err().to_string(),
            "valid https URL required for trust server, got http://n"
        );
        assert!(open("https://u:p@n").is_err());
        assert_eq!(
            open("https://n:4443/sub/").unwrap().url(),
            "https://n:4443/sub"
        );
    }
}
