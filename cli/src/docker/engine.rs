//! The Docker engine's API, as far as it is needed: push, pull, tag, and its insecure registries.
//!
//! The version is negotiated by `/_ping`; Debian's engine 20.10 ends at 1.41, engine 29 begins at
//! 1.44.

use std::{ffi::OsString, io, time::Duration};

use reqwest::{Client, Response};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    config::read_bounded,
    endpoint::{Endpoint, EngineTls},
    info::Info,
    progress::Progress,
    stream::{Lines, Message, Pushed},
};
use crate::{
    failure::{Failure, exit},
    image::{Digest, Image},
    net::auth::Credentials,
    ui::Ui,
};

/// A connection to the engine.
#[derive(Debug)]
pub(crate) struct Engine {
    client: Client,
    /// `http://docker/v1.41`
    base: String,
    endpoint: Endpoint,
}

/// Newest API version whose push, pull, tag and info we know.
const NEWEST: (u32, u32) = (1, 47);
/// What an engine that names no version speaks (docker's own fallback).
const OLDEST: (u32, u32) = (1, 24);
/// For everything but push and pull, which may take hours.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that is not a stream.
const MAX_ANSWER: usize = 8 << 20;

impl Engine {
    /// Connects and agrees on a version.
    ///
    /// # Errors
    ///
    /// When nothing answers there.
    pub(crate) async fn connect(
        endpoint: Endpoint,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let mut builder = Client::builder()
            .user_agent(concat!("signet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .http1_only()
            .no_proxy();
        let root = match &endpoint {
            Endpoint::Unix(path) => {
                // No TLS there, so no roots are loaded.
                builder = builder
                    .unix_socket(path.clone())
                    .tls_danger_accept_invalid_certs(true);
                "http://docker".to_owned()
            }
            Endpoint::Tcp { address, tls: None } => {
                builder = builder.tls_danger_accept_invalid_certs(true);
                format!("http://{address}")
            }
            Endpoint::Tcp {
                address,
                tls: Some(tls),
            } => {
                builder = with_tls(builder, tls)?;
                format!("https://{address}")
            }
        };
        let client = builder
            .build()
            .map_err(|error| failed(format!("docker engine at {endpoint}: {error}")))?;
        let ping = client
            .get(format!("{root}/_ping"))
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| unreachable(&endpoint, &error))?;
        if !ping.status().is_success() {
            return Err(failed(format!(
                "docker engine at {endpoint}: it answered {} to a ping",
                ping.status().as_u16()
            )));
        }
        let offered = ping
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_version)
            .unwrap_or(OLDEST);
        let asked = env("DOCKER_API_VERSION").and_then(|v| v.into_string().ok());
        let (major, minor) = match asked.as_deref().filter(|version| !version.is_empty()) {
            Some(version) => parse_version(version).ok_or_else(|| {
                Failure::usage(format!(
                    "DOCKER_API_VERSION={version:?} is not a version like 1.41"
                ))
            })?,
            None => offered.min(NEWEST),
        };
        Ok(Self {
            client,
            base: format!("{root}/v{major}.{minor}"),
            endpoint,
        })
    }

    /// Pushes one tag and says what that push sent.
    ///
    /// # Errors
    ///
    /// Exit 1 with the engine's words; nothing was pushed then, or not all of it.
    pub(crate) async fn push(
        &self,
        image: &Image,
        tag: &str,
        credentials: &Credentials,
        ui: &Ui,
    ) -> Result<Pushed, Failure> {
        let name = image.familiar();
        let what = image.with_tag(tag);
        let request = self
            .client
            .post(format!("{}/images/{name}/push?tag={tag}", self.base))
            .header("X-Registry-Auth", registry_auth(credentials, image)?);
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(&self.endpoint, &error))?;
        let mut pushed = None;
        self.follow(response, &format!("push of {what}"), ui, |message| {
            if let Some(found) = message.pushed().filter(|found| found.tag == tag) {
                pushed = Some(found);
            }
        })
        .await?;
        pushed.ok_or_else(|| {
            failed(format!(
                "push of {what}: the engine at {} did not say which digest it pushed",
                self.endpoint
            ))
            .fix(format!(
                "sign what is in the registry: `signet sign {what}`"
            ))
        })
    }

    /// Pulls by digest.
    ///
    /// # Errors
    ///
    /// Exit 1 with the engine's words.
    pub(crate) async fn pull(
        &self,
        image: &Image,
        digest: &Digest,
        credentials: &Credentials,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let name = image.familiar();
        let request = self
            .client
            .post(format!(
                "{}/images/create?fromImage={name}&tag={digest}",
                self.base
            ))
            .header("X-Registry-Auth", registry_auth(credentials, image)?);
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(&self.endpoint, &error))?;
        self.follow(response, &format!("pull of {name}@{digest}"), ui, |_| {})
            .await
    }

    /// Gives the pulled digest its tag.
    ///
    /// # Errors
    ///
    /// Exit 1 with the engine's words.
    pub(crate) async fn tag(
        &self,
        image: &Image,
        digest: &Digest,
        tag: &str,
    ) -> Result<(), Failure> {
        let name = image.familiar();
        let url = format!(
            "{}/images/{name}@{digest}/tag?repo={name}&tag={tag}",
            self.base
        );
        let response = self
            .client
            .post(url)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| unreachable(&self.endpoint, &error))?;
        self.expect_success(response, &format!("tag of {name}:{tag}"))
            .await
            .map(drop)
    }

    /// Whether the engine was told that this registry is insecure.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) async fn is_insecure(&self, domain: &str) -> Result<bool, Failure> {
        let response = self
            .client
            .get(format!("{}/info", self.base))
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| unreachable(&self.endpoint, &error))?;
        let mut response = self.expect_success(response, "docker info").await?;
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(failed(format!(
                    "docker engine at {}: endless info",
                    self.endpoint
                )));
            }
            body.extend_from_slice(&chunk);
        }
        let info: Info = serde_json::from_slice(&body).map_err(|error| {
            failed(format!(
                "docker engine at {}: info is not as expected: {error}",
                self.endpoint
            ))
        })?;
        Ok(info.is_insecure(domain))
    }

    async fn follow(
        &self,
        response: Response,
        what: &str,
        ui: &Ui,
        mut each: impl FnMut(&Message),
    ) -> Result<(), Failure> {
        let mut response = self.expect_success(response, what).await?;
        let mut lines = Lines::default();
        let mut progress = Progress::new(ui);
        let bad = |error| failed(format!("{what}: {error}"));
        let mut refused = None;
        let mut take = |message: Message| {
            if let Some(error) = message.failure() {
                refused.get_or_insert_with(|| error.to_owned());
            } else {
                each(&message);
                progress.show(&message);
            }
        };
        loop {
            let chunk = response.chunk().await.map_err(|_| {
                failed(format!(
                    "{what}: the connection to the engine at {} was cut",
                    self.endpoint
                ))
            })?;
            let Some(chunk) = chunk else { break };
            lines
                .feed(&chunk)
                .map_err(bad)?
                .into_iter()
                .for_each(&mut take);
        }
        lines.finish().map_err(bad)?.into_iter().for_each(&mut take);
        progress.finish();
        match refused {
            None => Ok(()),
            Some(error) => Err(refusal(what, &error)),
        }
    }

    async fn expect_success(
        &self,
        mut response: Response,
        what: &str,
    ) -> Result<Response, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > 64 << 10 {
                break;
            }
        }
        #[derive(Deserialize)]
        struct Body {
            message: String,
        }
        let message = serde_json::from_slice::<Body>(&body).map_or_else(
            |_| format!("the engine answered {status}"),
            |body| body.message,
        );
        Err(refusal(what, &message))
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The `X-Registry-Auth` header: always sent, old engines insist on it.
fn registry_auth(
    credentials: &Credentials,
    image: &Image,
) -> Result<reqwest::header::HeaderValue, Failure> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE};
    let json = match credentials {
        Credentials::Anonymous => Zeroizing::new("{}".to_owned()),
        Credentials::Password { user, password } => Zeroizing::new(
            serde_json::json!({
                "username": user,
                "password": password.as_str(),
                "serveraddress": image.credentials_key(),
            })
            .to_string(),
        ),
        Credentials::IdentityToken(token) => Zeroizing::new(
            serde_json::json!({
                "identitytoken": token.as_str(),
                "serveraddress": image.credentials_key(),
            })
            .to_string(),
        ),
    };
    let encoded = Zeroizing::new(URL_SAFE.encode(json.as_bytes()));
    let mut value = reqwest::header::HeaderValue::from_str(&encoded)
        .map_err(|_| failed("credentials that fit no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    tls: &EngineTls,
) -> Result<reqwest::ClientBuilder, Failure> {
    const MAX_PEM: u64 = 1 << 20;
    let read = |name: &str| -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let file = tls.directory.join(name);
        match read_bounded(&file, MAX_PEM) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file("read", &file, error)),
        }
    };
    let bad = |name: &str| {
        Failure::new(
            exit::FAILED,
            "docker.tls",
            format!(
                "{} is not as docker's TLS needs it",
                tls.directory.join(name).display()
            ),
        )
    };
    if !tls.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(ca) = read("ca.pem")? {
        let roots = reqwest::Certificate::from_pem_bundle(&ca).map_err(|_| bad("ca.pem"))?;
        builder = builder.tls_certs_only(roots);
    }
    match (read("cert.pem")?, read("key.pem")?) {
        (Some(cert), Some(mut key)) => {
            key.push(b'\n');
            key.extend_from_slice(&cert);
            let identity = reqwest::Identity::from_pem(&key).map_err(|_| bad("key.pem"))?;
            Ok(builder.identity(identity))
        }
        (None, None) => Ok(builder),
        (Some(_), None) => Err(bad("key.pem")),
        (None, Some(_)) => Err(bad("cert.pem")),
    }
}

fn failed(message: String) -> Failure {
    Failure::new(exit::FAILED, "docker.engine", message)
}

fn unreachable(endpoint: &Endpoint, error: &reqwest::Error) -> Failure {
    let mut below: &dyn std::error::Error = error;
    while let Some(source) = below.source() {
        below = source;
    }
    let why = match below.downcast_ref::<io::Error>() {
        Some(error) => crate::failure::io_words(error),
        None => below.to_string(),
    };
    failed(format!(
        "the docker engine at {endpoint} cannot be reached: {why}"
    ))
    .fix(
        "start it, or name another with DOCKER_HOST or DOCKER_CONTEXT; \
         an image that is in the registry already is signed by `signet sign`",
    )
}

/// The engine's words, with what usually helps.
fn refusal(what: &str, error: &str) -> Failure {
    let text = signet_trust::payload::escape(error.trim());
    let failure = failed(format!("{what}: {text}"));
    let lower = text.to_lowercase();
    if lower.contains("does not exist locally") || lower.contains("no such image") {
        failure.fix("build or tag the image first: `docker tag SOURCE TARGET`")
    } else if [
        "denied",
        "unauthorized",
        "authentication required",
        "no basic auth",
    ]
    .iter()
    .any(|word| lower.contains(word))
    {
        failure.fix("run `docker login` for this registry, with a user who may push")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("1.41"), Some((1, 41)));
        assert!(parse_version("1.9").unwrap() < NEWEST);
        assert_eq!(parse_version("x"), None);
    }

    #[test]
    fn anonymous_pushes_still_carry_the_header() {
        let image: Image = "reg:5000/a".parse().unwrap();
        let header = registry_auth(&Credentials::Anonymous, &image).unwrap();
        assert_eq!(header, "e30=");
    }
}
