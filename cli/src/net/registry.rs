//! The registry's API, as far as it is needed: which manifest does a tag name?

use std::path::Path;

use reqwest::{Method, header};
use sha2::{Digest as _, Sha256};

use super::{
    NetError,
    client::{Request, Server},
    error::looks_like_html,
    tls::Trust,
};
use crate::{
    docker::credentials::CredentialSource,
    image::{Digest, Image},
};

/// The registry of one repository.
#[derive(Debug)]
pub(crate) struct Registry {
    /// In the order in which they are tried: https, then http where the registry is insecure.
    servers: Vec<Server>,
    path: String,
}

/// A manifest by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// Types that we take: docker's and OCI's manifests and lists; not schema 1, whose digest is not
/// that of its bytes.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json";
/// Largest manifest (distribution `registry/handlers`, `maxManifestBodySize`).
const MAX_MANIFEST: usize = 4 << 20;

impl Registry {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`NetError::Setup`] when the host makes no URL.
    pub(crate) fn new(
        image: &Image,
        insecure: bool,
        credentials: &CredentialSource,
    ) -> Result<Self, NetError> {
        let host = image.registry_host();
        let directory = Path::new("/etc/docker/certs.d").join(&image.domain);
        let trust = Trust {
            verify: !insecure,
            directories: vec![directory],
        };
        let scope = format!("repository:{}:pull", image.path);
        let schemes: &[&str] = if insecure {
            &["https", "http"]
        } else {
            &["https"]
        };
        let servers = schemes
            .iter()
            .map(|scheme| {
                Server::new(
                    &format!("{scheme}://{host}"),
                    "registry",
                    trust.clone(),
                    credentials.clone(),
                    scope.clone(),
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            servers,
            path: image.path.clone(),
        })
    }

    /// The manifest that a tag (or digest) names now. Digest and size are those of the bytes.
    ///
    /// # Errors
    ///
    /// [`NetError`].
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Manifest, NetError> {
        let answer = self.ask(Method::GET, reference, MAX_MANIFEST).await?;
        let content_type = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        if looks_like_html(&answer.body) || content_type.starts_with("text/html") {
            return Err(NetError::NotTheService {
                url: answer.url,
                what: "HTML",
                wanted: "registry",
            });
        }
        if content_type.contains("manifest.v1+") {
            return Err(NetError::Setup(format!(
                "{}: the image has a schema 1 manifest, which cannot be signed; push it again",
                answer.url
            )));
        }
        Ok(Manifest {
            digest: Digest(Sha256::digest(&answer.body).into()),
            size: answer.body.len() as u64,
        })
    }

    /// The digest that a tag names now, by the registry's word where it gives one.
    ///
    /// # Errors
    ///
    /// [`NetError`].
    pub(crate) async fn digest(&self, tag: &str) -> Result<Digest, NetError> {
        let answer = self.ask(Method::HEAD, tag, MAX_MANIFEST).await?;
        let said = answer
            .headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        match said {
            Some(digest) => Ok(digest),
            None => self.manifest(tag).await.map(|manifest| manifest.digest),
        }
    }

    async fn ask(
        &self,
        method: Method,
        reference: &str,
        limit: usize,
    ) -> Result<super::client::Answer, NetError> {
        let path = format!("/v2/{}/manifests/{reference}", self.path);
        let mut first_error = None;
        for server in &self.servers {
            let request = Request {
                method: method.clone(),
                path: &path,
                headers: vec![(header::ACCEPT, ACCEPT)],
                body: None,
                limit,
            };
            match server.send(&request).await {
                Err(
                    error @ (NetError::Tls { .. }
                    | NetError::Unreachable { .. }
                    | NetError::Cut { .. }),
                ) => {
                    first_error.get_or_insert(error);
                }
                done => return done,
            }
        }
        Err(first_error.expect("there is at least one server"))
    }
}
