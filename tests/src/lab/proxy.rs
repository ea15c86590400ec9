//! A reverse proxy that misbehaves on request.
//!
//! It speaks HTTPS with the lab's certificate, stands before a registry or a trust server, and
//! passes everything on until told otherwise: [`Proxy::ask_for`] makes it demand credentials, and
//! [`Proxy::on`] makes it do something else to the requests that a pattern names. Every request is
//! kept, as it came in ([`Proxy::requests`]), and so is every good answer, for [`Fault::Old`].
//!
//! Requests and answers are held in memory whole. This is a tool for small images.

mod auth;
mod pattern;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::auth::Auth;
use self::auth::Door;
use self::pattern::Pattern;
use super::certs::Certs;

/// What the proxy does instead of passing on.
#[derive(Clone)]
pub enum Fault {
    /// Answers nothing at all: the connection just ends. The request is not passed on.
    Drop,
    /// Passes the request on, and ends the connection instead of answering: the answer was lost.
    LoseAnswer,
    /// Waits, then passes on.
    Delay(Duration),
    /// Calls this first, on a thread of its own, and then passes on. It may take its time: that
    /// is how a test holds one client back until another one is done.
    Call(Arc<dyn Fn(&Seen) + Send + Sync>),
    /// Passes on, and ends the connection after so many bytes of the answer's body.
    Cut(usize),
    /// Passes on, and flips a bit of this byte of the answer's body (of the last, if there are
    /// fewer).
    Corrupt(usize),
    /// Answers 200 with a body of spaces that has no end.
    Endless,
    /// Passes on, and adds so many spaces to the answer's body.
    Pad(usize),
    /// Answers with this status and this JSON, as notary and registry do.
    Status(u16, &'static str),
    /// Answers 200 with a web page, as captive portals do.
    Html,
    /// Answers 200 with these bytes.
    Body(Vec<u8>),
    /// Answers with what a [`Tape`] has for the request, and passes the others on: a server that
    /// was put back, or stands still.
    Old(Tape),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Drop => "Drop",
            Self::LoseAnswer => "LoseAnswer",
            Self::Delay(_) => "Delay",
            Self::Call(_) => "Call",
            Self::Cut(_) => "Cut",
            Self::Corrupt(_) => "Corrupt",
            Self::Endless => "Endless",
            Self::Pad(_) => "Pad",
            Self::Status(..) => "Status",
            Self::Html => "Html",
            Self::Body(_) => "Body",
            Self::Old(_) => "Old",
        };
        f.write_str(name)
    }
}

/// Answers to GET requests, by path: the newest of each, up to one moment.
#[derive(Clone, Debug, Default)]
pub struct Tape(HashMap<String, Answer>);

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without the question mark; empty when there is none.
    pub query: String,
    /// `Name: value`, in the order in which they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a header, named in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    fault: Fault,
    /// How many more times it applies; `None` is for ever.
    left: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    tape: Tape,
    door: Door,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    upstream: String,
    client: reqwest::Client,
    host: String,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A callback that panicked has failed its test already; the others' state is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy. Dropping it closes it.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts a proxy before `upstream`, on a free port of loopback.
    ///
    /// # Errors
    /// When it cannot listen, or cannot read the lab's certificates.
    pub fn start(upstream: &str, certs: &Certs) -> Result<Self> {
        Self::listen(upstream, certs, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// As [`Proxy::start`], on this address.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn listen(upstream: &str, certs: &Certs, address: SocketAddr) -> Result<Self> {
        let tls = TlsAcceptor::from(Arc::new(server_tls(certs)?));
        let ca = reqwest::Certificate::from_pem(&fs::read(certs.ca())?)?;
        let client = reqwest::Client::builder()
            .tls_certs_only([ca])
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lab-proxy")
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("cannot listen on {address}"))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            upstream: upstream.trim_end_matches('/').to_owned(),
            client,
            host: listener.local_addr()?.to_string(),
        });
        runtime.spawn(accept(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            shared,
            runtime: Some(runtime),
        })
    }

    /// Where it listens, as `127.0.0.1:PORT`: the registry's part of an image's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Its URL, for `--server`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.shared.host)
    }

    /// Demands credentials from now on, for everything.
    pub fn ask_for(&self, auth: Auth) {
        self.shared.state().door = Door::new(auth);
    }

    /// Forgets the tokens given out so far: the next request with one gets a 401.
    pub fn forget_tokens(&self) {
        self.shared.state().door.forget();
    }

    /// Does `fault` to every request that `pattern` names.
    ///
    /// A pattern is a path in which `*` stands for anything (`*/timestamp.json`), optionally with a
    /// method before it (`POST /v2/*`). The newest rule that names a request wins.
    pub fn on(&self, pattern: &str, fault: Fault) {
        self.rule(pattern, fault, None);
    }

    /// As [`Proxy::on`], for the next `times` such requests only.
    pub fn on_next(&self, times: usize, pattern: &str, fault: Fault) {
        self.rule(pattern, fault, Some(times));
    }

    fn rule(&self, pattern: &str, fault: Fault, left: Option<usize>) {
        let pattern = Pattern::new(pattern);
        self.shared.state().rules.push(Rule {
            pattern,
            fault,
            left,
        });
    }

    /// Behaves again: no rule, no credentials asked for.
    pub fn behave(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.door = Door::default();
    }

    /// The requests so far, in the order in which they came, refused ones included.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many requests so far a pattern names.
    #[must_use]
    pub fn count(&self, pattern: &str) -> usize {
        let pattern = Pattern::new(pattern);
        self.shared
            .state()
            .seen
            .iter()
            .filter(|s| pattern.names(&s.method, &s.path))
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.state().seen.clear();
    }

    /// The good answers to GET requests so far.
    #[must_use]
    pub fn tape(&self) -> Tape {
        self.shared.state().tape.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Connections may be stalled on purpose; nobody waits for them.
            runtime.shutdown_background();
        }
    }
}

fn server_tls(certs: &Certs) -> Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certs.server())?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certs.server_key())?;
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    Ok(ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A client that speaks no TLS, or goes away in the middle, is its own affair.
            let Ok(stream) = tls.accept(tcp).await else {
                return;
            };
            let service = service_fn(move |request| handle(Arc::clone(&shared), request));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>;
type Reply = Response<StreamBody<Chunks>>;

/// One request. An error ends the connection without an answer.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: readable(&parts.headers),
        body: body.to_vec(),
    };
    let (refusal, fault) = {
        let mut state = shared.state();
        state.seen.push(seen.clone());
        let fault = state.fault(&seen);
        (state.door.refuse(&shared.host, &seen), fault)
    };
    let Some(fault) = fault else {
        return match refusal {
            Some(refusal) => Ok(whole(refusal)),
            None => pass_on(&shared, parts.method, &seen, &parts.headers, body)
                .await
                .map(whole),
        };
    };
    // What a fault lets through still needs its credentials.
    let through = async || match refusal {
        Some(refusal) => Ok(refusal),
        None => pass_on(&shared, parts.method, &seen, &parts.headers, body).await,
    };
    misbehave(fault, &seen, through).await
}

async fn misbehave(
    fault: Fault,
    seen: &Seen,
    through: impl AsyncFnOnce() -> io::Result<Answer>,
) -> Result<Reply, io::Error> {
    match fault {
        Fault::Drop => Err(io::ErrorKind::ConnectionReset.into()),
        Fault::LoseAnswer => {
            through().await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            through().await.map(whole)
        }
        Fault::Call(call) => {
            let seen = seen.clone();
            tokio::task::spawn_blocking(move || call(&seen))
                .await
                .map_err(io::Error::other)?;
            through().await.map(whole)
        }
        Fault::Cut(after) => Ok(cut(through().await?, after)),
        Fault::Corrupt(at) => {
            let mut answer = through().await?;
            let mut body = answer.body.to_vec();
            let at = at.min(body.len().saturating_sub(1));
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1;
            }
            answer.body = body.into();
            Ok(whole(answer))
        }
        Fault::Endless => {
            let spaces = Bytes::from_static(&[b' '; 1 << 16]);
            let body = stream::repeat_with(move || Ok(Frame::data(spaces.clone()))).boxed();
            Ok(Response::new(StreamBody::new(body)))
        }
        Fault::Pad(bytes) => {
            let mut answer = through().await?;
            let mut body = answer.body.to_vec();
            body.resize(body.len() + bytes, b' ');
            answer.body = body.into();
            answer.headers.remove(header::CONTENT_LENGTH);
            Ok(whole(answer))
        }
        Fault::Status(status, body) => Ok(whole(Answer::new(status, "application/json", body))),
        Fault::Html => {
            let page = "<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>\n";
            Ok(whole(Answer::new(200, "text/html; charset=utf-8", page)))
        }
        Fault::Body(body) => {
            let mut answer = Answer::new(200, "application/octet-stream", "");
            answer.body = body.into();
            Ok(whole(answer))
        }
        Fault::Old(tape) => match tape.0.get(&seen.path) {
            Some(answer) if seen.method == "GET" => Ok(whole(answer.clone())),
            _ => through().await.map(whole),
        },
    }
}

impl State {
    /// What to do to this request, if anything; counts down.
    fn fault(&mut self, seen: &Seen) -> Option<Fault> {
        let rule =
            self.rules.iter_mut().rev().find(|rule| {
                rule.left != Some(0) && rule.pattern.names(&seen.method, &seen.path)
            })?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.fault.clone())
    }
}

impl Answer {
    fn new(status: u16, content_type: &'static str, body: &'static str) -> Self {
        let status = StatusCode::from_u16(status).expect("tests name statuses that exist");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }
}

async fn pass_on(
    shared: &Shared,
    method: Method,
    seen: &Seen,
    headers: &HeaderMap,
    body: Bytes,
) -> io::Result<Answer> {
    let mut url = format!("{}{}", shared.upstream, seen.path);
    if !seen.query.is_empty() {
        url = format!("{url}?{}", seen.query);
    }
    let mut headers = end_to_end(headers);
    // The upstream is open, or the credentials were for us. `Host` stays: a registry builds the
    // locations of uploads from it.
    if shared.state().door.is_shut() {
        headers.remove(header::AUTHORIZATION);
    }
    let is_get = method == Method::GET;
    let answer = shared
        .client
        .request(method, url)
        .headers(headers)
        .body(body)
        .send();
    let answer = answer.await.map_err(io::Error::other)?;
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    let body = answer.bytes().await.map_err(io::Error::other)?;
    let answer = Answer {
        status,
        headers,
        body,
    };
    if is_get && status == StatusCode::OK {
        shared
            .state()
            .tape
            .0
            .insert(seen.path.clone(), answer.clone());
    }
    Ok(answer)
}

/// The headers that concern more than one connection (RFC 9110 §7.6.1).
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const HOP_BY_HOP: [HeaderName; 6] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
    ];
    let mut headers = headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

fn readable(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// The answer as it is.
fn whole(answer: Answer) -> Reply {
    let body = Full::new(answer.body).into_data_stream();
    let body = body.map(|chunk| {
        chunk
            .map(Frame::data)
            .map_err(|never: Infallible| match never {})
    });
    reply(answer.status, answer.headers, body.boxed())
}

/// The answer's first bytes, and then the end of the connection: the length is announced, or the
/// last chunk is missing, so every client can tell.
fn cut(answer: Answer, after: usize) -> Reply {
    let start = answer.body.slice(..after.min(answer.body.len()));
    let broken = io::Error::from(io::ErrorKind::ConnectionReset);
    let body = stream::iter([Ok(Frame::data(start)), Err(broken)]);
    reply(answer.status, answer.headers, body.boxed())
}

fn reply(status: StatusCode, headers: HeaderMap, body: Chunks) -> Reply {
    let mut reply = Response::new(StreamBody::new(body));
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    reply
}
