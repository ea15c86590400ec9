//! One server: its connection, how it is trusted, and who we are to it.

use std::{
    error::Error,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use prost::bytes::Bytes;
use reqwest::{Client, Method, Response, header, redirect};
use zeroize::Zeroizing;

use super::{
    NetError,
    auth::{self, Challenge, Credentials},
    error::from_answer,
    tls::{self, Trust},
};
use crate::{docker::credentials::CredentialSource, failure::io_words, image::is_loopback};

/// A server that requests are sent to.
#[derive(Debug)]
pub(crate) struct Server {
    /// `https://host[:port][/path]`, no slash at the end.
    base: String,
    /// `host[:port]`
    host: String,
    /// What it should be, for messages.
    wanted: &'static str,
    trust: Trust,
    client: OnceLock<Client>,
    credentials: CredentialSource,
    /// What to ask a token server for: `repository:NAME:ACTIONS`.
    scope: String,
    authorization: Mutex<Option<Zeroizing<String>>>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Below the base, with its slash.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(header::HeaderName, &'a str)>,
    pub(crate) body: Option<Bytes>,
    /// Most bytes of a successful answer.
    pub(crate) limit: usize,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) url: String,
    pub(crate) headers: header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A connection that is not there by then never will be (docker waits as long).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read of an answer that is no success; Go's client reads 1 KiB.
const MAX_ERROR_BODY: usize = 16 << 10;
/// A token with its envelope.
const MAX_TOKEN_BODY: usize = 64 << 10;
/// Redirects followed; registries send blobs elsewhere, but rarely more than once.
const MAX_REDIRECTS: usize = 5;

impl Server {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`NetError::Setup`] when `base` is no usable URL.
    pub(crate) fn new(
        base: &str,
        wanted: &'static str,
        trust: Trust,
        credentials: CredentialSource,
        scope: String,
    ) -> Result<Self, NetError> {
        let bad =
            |why: &str| NetError::Setup(format!("{base:?} is not the URL of a {wanted}: {why}"));
        let url = reqwest::Url::parse(base).map_err(|error| bad(&error.to_string()))?;
        let host = url.host_str().ok_or_else(|| bad("it names no host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "user names and passwords do not belong there; use `docker login`",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it must end with the path"));
        }
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            host,
            wanted,
            trust,
            client: OnceLock::new(),
            credentials,
            scope,
            authorization: Mutex::new(None),
        })
    }

    /// `host[:port]`
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Its URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request; a 401 is answered once, with what the user has.
    ///
    /// # Errors
    ///
    /// Anything but a 2xx with a whole body within `limit`.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer, NetError> {
        let url = format!("{}{}", self.base, request.path);
        let known = self
            .authorization
            .lock()
            .expect("no panic holds this lock")
            .clone();
        let response = self.once(&url, request, known.as_ref()).await?;
        if response.status() != 401 {
            return self.read(url, response, request.limit, None).await;
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(auth::parse_challenges)
            .collect();
        let credentials = self
            .credentials
            .get()
            .await
            .map_err(NetError::Credentials)?;
        let Some(authorization) = self.authorize(&challenges, &credentials).await? else {
            return self
                .read(url, response, request.limit, Some(credentials.who()))
                .await;
        };
        drop(response);
        let response = self.once(&url, request, Some(&authorization)).await?;
        *self.authorization.lock().expect("no panic holds this lock") = Some(authorization);
        self.read(url, response, request.limit, Some(credentials.who()))
            .await
    }

    async fn once(
        &self,
        url: &str,
        request: &Request<'_>,
        authorization: Option<&Zeroizing<String>>,
    ) -> Result<Response, NetError> {
        let mut builder = self.client()?.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            builder = builder.header(name, *value);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(header::AUTHORIZATION, secret_header(authorization)?);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        builder.send().await.map_err(|error| explain(url, &error))
    }

    async fn read(
        &self,
        url: String,
        response: Response,
        limit: usize,
        who: Option<&str>,
    ) -> Result<Answer, NetError> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if !(200..300).contains(&status) {
            let body = read_some(response, MAX_ERROR_BODY).await;
            return Err(from_answer(&url, status, &body, who, self.wanted));
        }
        let body = read_all(&url, response, limit).await?;
        Ok(Answer { url, headers, body })
    }

    /// The `Authorization` header that answers one of the challenges; `None` when there is none
    /// that we could answer.
    async fn authorize(
        &self,
        challenges: &[Challenge],
        credentials: &Credentials,
    ) -> Result<Option<Zeroizing<String>>, NetError> {
        for challenge in challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                let token = self.token(realm, service, credentials).await?;
                return Ok(Some(Zeroizing::new(format!("Bearer {}", token.as_str()))));
            }
        }
        if challenges.contains(&Challenge::Basic) {
            return Ok(credentials.basic());
        }
        Ok(None)
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        credentials: &Credentials,
    ) -> Result<Zeroizing<String>, NetError> {
        let refused = |why: &str| {
            NetError::Setup(format!(
                "{}: the server sends us to {realm:?} for a token, {why}",
                self.base
            ))
        };
        let url = reqwest::Url::parse(realm).map_err(|_| refused("which is not a URL"))?;
        let host = url.host_str().unwrap_or_default();
        let local = is_loopback(host.trim_matches(['[', ']'])) || is_loopback(host);
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(refused(
                "which is not https: credentials are not sent there",
            ));
        }
        // A server that is not verified does not make others so.
        let verifying;
        let client = if self.trust.verify || local || Some(host) == self.base_host() {
            self.client()?
        } else {
            let trust = Trust {
                verify: true,
                directories: self.trust.directories.clone(),
            };
            verifying = build(&trust, host)?;
            &verifying
        };
        let request = auth::token_request(realm, service, &self.scope, credentials);
        let mut builder = match request.form {
            None => client.get(&request.url),
            Some(form) => client
                .post(&request.url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.as_bytes().to_vec()),
        };
        if let Some(authorization) = &request.authorization {
            builder = builder.header(header::AUTHORIZATION, secret_header(authorization)?);
        }
        let response = builder
            .send()
            .await
            .map_err(|error| explain(realm, &error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = read_some(response, MAX_ERROR_BODY).await;
            return Err(from_answer(
                realm,
                status,
                &body,
                Some(credentials.who()),
                "token server",
            ));
        }
        let body = Zeroizing::new(read_all(realm, response, MAX_TOKEN_BODY).await?);
        auth::read_token(&body).ok_or_else(|| NetError::NotTheService {
            url: realm.to_owned(),
            what: super::error::what_it_is(&body),
            wanted: "token server",
        })
    }

    fn base_host(&self) -> Option<&str> {
        Some(
            self.host
                .rsplit_once(':')
                .map_or(self.host.as_str(), |(host, _)| host),
        )
    }

    fn client(&self) -> Result<&Client, NetError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = build(&self.trust, &self.host)?;
        Ok(self.client.get_or_init(|| client))
    }
}

fn build(trust: &Trust, host: &str) -> Result<Client, NetError> {
    let mut builder = Client::builder()
        .user_agent(concat!("signet/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .http1_only()
        .tcp_nodelay(true)
        .redirect(redirect::Policy::custom(|attempt| {
            let from_https = attempt
                .previous()
                .last()
                .is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if from_https && attempt.url().scheme() != "https" {
                attempt.error("redirected from https to an address without")
            } else {
                attempt.follow()
            }
        }));
    if is_loopback(host) {
        builder = builder.no_proxy();
    }
    tls::configure(builder, trust)?.build().map_err(|error| {
        NetError::Setup(format!(
            "TLS for {host} cannot be set up: {}",
            deepest(&error).unwrap_or_else(|| error.to_string())
        ))
    })
}

fn secret_header(value: &str) -> Result<header::HeaderValue, NetError> {
    let mut value = header::HeaderValue::from_str(value).map_err(|_| {
        NetError::Credentials("the credentials hold characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The whole body, refused as soon as it is known to exceed `limit`.
async fn read_all(url: &str, mut response: Response, limit: usize) -> Result<Vec<u8>, NetError> {
    let too_large = || NetError::TooLarge {
        url: url.to_owned(),
        limit,
    };
    let announced = response.content_length();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    // The announcement is somebody else's word: it saves a few copies, and no more than those.
    const FIRST: u64 = 16 << 20;
    body.reserve(usize::try_from(announced.unwrap_or(0).min(FIRST)).unwrap_or(0));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if body.len() + chunk.len() > limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err(explain(url, &error)),
            Err(_) => {
                return Err(NetError::Cut {
                    url: url.to_owned(),
                });
            }
        }
    }
}

/// As much of a body as fits, whatever comes of it.
async fn read_some(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == limit {
            break;
        }
    }
    body
}

/// Turns reqwest's nested errors into one of ours.
pub(super) fn explain(url: &str, error: &reqwest::Error) -> NetError {
    let url = url.split('?').next().unwrap_or(url).to_owned();
    let deepest = deepest(error).unwrap_or_else(|| error.to_string());
    if error.is_timeout() {
        return NetError::Unreachable {
            url,
            why: "no answer in time".to_owned(),
        };
    }
    if error.is_redirect() {
        return NetError::Setup(format!("{url}: {deepest}"));
    }
    if error.is_connect() {
        return if speaks_of_tls(error) {
            NetError::Tls {
                url,
                why: tls_words(&deepest),
            }
        } else {
            NetError::Unreachable { url, why: deepest }
        };
    }
    if speaks_of_tls(error) {
        return NetError::Tls {
            url,
            why: tls_words(&deepest),
        };
    }
    if error.is_request() || error.is_body() || error.is_decode() {
        return NetError::Cut { url };
    }
    NetError::Unreachable { url, why: deepest }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn below<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        (*error).source()
    }
    std::iter::successors(Some(error), below)
}

fn deepest(error: &(dyn Error + 'static)) -> Option<String> {
    chain(error).last().map(|last| match last.downcast_ref() {
        Some(error) => io_words(error),
        None => last.to_string(),
    })
}

fn speaks_of_tls(error: &(dyn Error + 'static)) -> bool {
    const WORDS: [&str; 5] = [
        "certificate",
        "InvalidContentType",
        "HandshakeFailure",
        "tls",
        "TLS",
    ];
    chain(error).any(|error| {
        let text = error.to_string();
        WORDS.iter().any(|word| text.contains(word))
    })
}

/// Rustls' words, made plain where they need it.
fn tls_words(why: &str) -> String {
    if why.contains("UnknownIssuer") {
        "its certificate is signed by nobody this system trusts (UnknownIssuer)".to_owned()
    } else if why.contains("InvalidContentType") {
        "the server does not speak TLS on this port".to_owned()
    } else if why.contains("CaUsedAsEndEntity") {
        "its certificate is signed by itself and not one that is trusted here".to_owned()
    } else {
        why.to_owned()
    }
}
