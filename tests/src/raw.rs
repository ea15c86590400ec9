//! A client of the agent's socket that says whatever a test wants it to.
//!
//! `signet` asks only for what is right. Here a test writes the messages itself: on the real
//! socket, by the real protocol, with content of its own.

pub mod attend;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use signet_proto::MAX_CHUNK;
use signet_proto::v1::{self, sign_event::Event, sign_request::Message};
use signet_trust::base::BaseDocuments;
use signet_trust::document::Body;
use signet_trust::{KeyId, RoleName};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::Home;
use crate::lab::KEYRING_PASSPHRASE;
use crate::lab::command::Run as _;

/// A connection to an agent.
#[derive(Debug)]
pub struct Raw {
    runtime: Arc<Runtime>,
    channel: Channel,
    docker_dir: PathBuf,
}

/// A whole request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Of which collection.
    pub gun: String,
    /// What is published now.
    pub base: Option<BaseDocuments>,
    /// What is to be signed.
    pub items: Vec<AskItem>,
    /// `--allow`.
    pub allow: Vec<&'static str>,
    /// The base was fetched twice.
    pub refetched: bool,
    /// `--no-input`.
    pub no_input: bool,
    /// What the server answered; `None`: the client died before it knew.
    pub report: Option<v1::report::Outcome>,
}

/// One document to be signed.
#[derive(Clone, Debug)]
pub struct AskItem {
    /// Whose.
    pub role: String,
    /// The bytes.
    pub payload: Vec<u8>,
    /// By these keys.
    pub key_ids: Vec<String>,
}

impl Ask {
    /// A request without items, that the server will take.
    #[must_use]
    pub fn new(gun: &str, base: Option<BaseDocuments>) -> Self {
        Self {
            gun: gun.to_owned(),
            base,
            items: Vec::new(),
            allow: Vec::new(),
            refetched: false,
            no_input: false,
            report: Some(v1::report::Outcome::Published),
        }
    }

    /// And this document, by this key.
    #[must_use]
    pub fn item(self, role: &RoleName, document: &impl Body, key: KeyId) -> Self {
        self.bytes(role, document.canonical(), &[key])
    }

    /// And these bytes, by these keys.
    #[must_use]
    pub fn bytes(mut self, role: &RoleName, payload: Vec<u8>, keys: &[KeyId]) -> Self {
        self.items.push(AskItem {
            role: role.as_str().to_owned(),
            payload,
            key_ids: keys.iter().map(ToString::to_string).collect(),
        });
        self
    }

    /// With an override.
    #[must_use]
    pub fn allow(mut self, rule: &'static str) -> Self {
        self.allow.push(rule);
        self
    }

    /// With this outcome instead of success.
    #[must_use]
    pub fn reporting(mut self, outcome: Option<v1::report::Outcome>) -> Self {
        self.report = outcome;
        self
    }

    /// Its head and its chunks, in the order in which they are sent.
    #[must_use]
    pub fn messages(&self, docker_dir: &Path) -> Vec<v1::SignRequest> {
        let (parts, mut bodies) = match &self.base {
            None => (Vec::new(), Vec::new()),
            Some(base) => parts(base),
        };
        let items = self.items.iter().map(|item| v1::Item {
            role: item.role.clone(),
            size: item.payload.len() as u64,
            key_ids: item.key_ids.clone(),
        });
        let mode = if self.no_input {
            v1::PromptMode::None
        } else {
            v1::PromptMode::Any
        };
        let start = v1::Start {
            gun: self.gun.clone(),
            base: self.base.is_some().then_some(v1::Base {
                parts,
                released: Vec::new(),
            }),
            step: Some(v1::Step {
                items: items.collect(),
            }),
            claimed_context: Some(v1::ClaimedContext {
                command: "a test".to_owned(),
                ..v1::ClaimedContext::default()
            }),
            prompt_mode: mode.into(),
            allow: self.allow.iter().map(ToString::to_string).collect(),
            docker_dir: docker_dir.to_string_lossy().into_owned(),
            refetched: self.refetched,
            ..v1::Start::default()
        };
        bodies.extend(self.items.iter().map(|item| item.payload.clone()));
        let mut messages = vec![message(Message::Start(start))];
        messages.extend(bodies.iter().flat_map(|body| chunks(body)));
        messages
    }
}

/// The bytes of one part or payload, in pieces as large as they may be.
#[must_use]
pub fn chunks(body: &[u8]) -> Vec<v1::SignRequest> {
    body.chunks(MAX_CHUNK)
        .map(|data| {
            message(Message::Chunk(v1::Chunk {
                data: data.to_vec(),
            }))
        })
        .collect()
}

/// A message of the client's.
#[must_use]
pub fn message(message: Message) -> v1::SignRequest {
    v1::SignRequest {
        message: Some(message),
    }
}

fn parts(base: &BaseDocuments) -> (Vec<v1::Part>, Vec<Vec<u8>>) {
    use v1::part::Kind;
    let mut parts = Vec::new();
    let mut bodies = Vec::new();
    let mut add = |kind: Kind, role: &str, wire: &Vec<u8>| {
        parts.push(v1::Part {
            kind: kind.into(),
            role: role.to_owned(),
            sha256: <sha2::Sha256 as sha2::Digest>::digest(wire).to_vec(),
            size: wire.len() as u64,
            by_hash: false,
        });
        bodies.push(wire.clone());
    };
    for root in &base.roots {
        add(Kind::Root, "root", root);
    }
    if let Some(timestamp) = &base.timestamp {
        add(Kind::Timestamp, "timestamp", timestamp);
    }
    if let Some(snapshot) = &base.snapshot {
        add(Kind::Snapshot, "snapshot", snapshot);
    }
    for (role, wire) in &base.targets {
        add(Kind::Targets, role.as_str(), wire);
    }
    for (role, wire) in &base.unlisted {
        add(Kind::Unlisted, role.as_str(), wire);
    }
    (parts, bodies)
}

/// How a request that was not signed ended.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The base is older than what the agent knows.
    Stale {
        /// Why.
        reason: String,
        /// The version that would pass.
        next: u32,
    },
    /// A status with its details.
    Failed(Box<v1::Failure>),
    /// A status without details, which no request should get.
    Bare(Box<Status>),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        match v1::Failure::decode(status.details()) {
            Ok(failure) if failure.exit != 0 => Self::Failed(Box::new(failure)),
            _ => Self::Bare(Box::new(status)),
        }
    }
}

impl Refused {
    /// The details.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    #[track_caller]
    pub fn failure(self) -> v1::Failure {
        match self {
            Self::Failed(failure) => *failure,
            other => panic!("not a failure with details: {other:?}"),
        }
    }
}

/// What came of a request that was signed.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The signatures.
    pub signatures: Vec<v1::ItemSignature>,
    /// The words for the person.
    pub summary: Vec<String>,
    /// Every question on the way.
    pub prompts: Vec<v1::Prompt>,
}

impl Raw {
    /// Connects to the agent of this home, which is started first if there is none.
    ///
    /// # Panics
    /// When there is none after that.
    #[must_use]
    pub fn connect(home: &Home) -> Self {
        if home.agent_pid().is_none() {
            home.signet().args(["agent", "start"]).run().ok();
        }
        Self::connect_to(home, &home.socket())
    }

    /// Connects to another socket of the agent of this home, or one that leads to it.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn connect_to(home: &Home, socket: &Path) -> Self {
        let socket = socket.to_owned();
        let runtime = runtime();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The name is never resolved; HTTP wants one.
        let endpoint = Endpoint::from_static("http://signet.invalid");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .expect("the agent listens");
        Self {
            runtime: Arc::new(runtime),
            channel,
            docker_dir: home.docker_config().to_path_buf(),
        }
    }

    /// Speaks on a connection that somebody else has made.
    ///
    /// # Panics
    /// When the agent does not answer there.
    #[must_use]
    pub fn on(home: &Home, stream: std::os::unix::net::UnixStream) -> Self {
        let runtime = runtime();
        stream.set_nonblocking(true).expect("a socket");
        let mut stream = Some(stream);
        let connector = tower::service_fn(move |_| {
            let stream = stream.take().expect("there is one connection");
            async move { UnixStream::from_std(stream).map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://signet.invalid");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .expect("the agent listens");
        Self {
            runtime: Arc::new(runtime),
            channel,
            docker_dir: home.docker_config().to_path_buf(),
        }
    }

    /// A call of one message and one answer.
    ///
    /// # Errors
    /// The agent's status.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let reply = self.runtime.block_on(call(self.channel.clone()));
        reply.map(tonic::Response::into_inner)
    }

    /// Opens a request.
    ///
    /// # Panics
    /// When the agent refuses the call as such.
    #[must_use]
    pub fn open(&self) -> Talk<'_> {
        let (sender, receiver) = mpsc::channel(1024);
        let mut client = v1::signer_client::SignerClient::new(self.channel.clone());
        let call = client.sign(ReceiverStream::new(receiver));
        let events = self.runtime.block_on(call);
        Talk {
            raw: self,
            sender: Some(sender),
            events: events.expect("the agent takes calls").into_inner(),
        }
    }

    /// One request from its first byte to its last, with the right passphrase for whoever asks.
    ///
    /// # Errors
    /// What the agent answered, when it did not sign.
    pub fn ask(&self, ask: &Ask) -> Result<Done, Refused> {
        self.open().ask(ask)
    }

    /// The whole log.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn log(&self) -> Vec<v1::LogEntry> {
        let mut client = v1::log_client::LogClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let mut entries = Vec::new();
            let mut stream = client
                .show(v1::LogRequest::default())
                .await
                .expect("the log can be read")
                .into_inner();
            while let Some(entry) = stream.message().await.expect("the log can be read") {
                entries.push(entry);
            }
            entries
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start")
}

/// One request's stream.
#[derive(Debug)]
pub struct Talk<'a> {
    raw: &'a Raw,
    sender: Option<mpsc::Sender<v1::SignRequest>>,
    events: Streaming<v1::SignEvent>,
}

impl Talk<'_> {
    /// Says something. What is said after the agent hung up is lost, as on any line.
    ///
    /// # Panics
    /// After [`Talk::close`].
    pub fn say(&self, said: Message) {
        self.send(message(said));
    }

    /// As [`Talk::say`].
    ///
    /// # Panics
    /// After [`Talk::close`].
    pub fn send(&self, said: v1::SignRequest) {
        let sender = self.sender.as_ref().expect("this side is open");
        let _ = self.raw.runtime.block_on(sender.send(said));
    }

    /// Says a whole request.
    ///
    /// # Panics
    /// After [`Talk::close`].
    pub fn start(&self, ask: &Ask) {
        for message in ask.messages(&self.raw.docker_dir) {
            self.send(message);
        }
    }

    /// Ends this side.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// What the agent says next; `None` when it has ended the stream.
    ///
    /// # Errors
    /// Its status.
    ///
    /// # Panics
    /// When nothing comes for a minute.
    pub fn hear(&mut self) -> Result<Option<Event>, Refused> {
        let next = self.events.message();
        let patient = async { tokio::time::timeout(PATIENCE, next).await };
        match self.raw.runtime.block_on(patient) {
            Ok(Ok(Some(event))) => Ok(Some(event.event.expect("an event says something"))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => panic!("the agent is silent"),
        }
    }

    /// Answers a question with the passphrase that every keyring of the lab has.
    ///
    /// # Panics
    /// After [`Talk::close`].
    pub fn answer(&self, prompt: &v1::Prompt) {
        self.answer_with(&prompt.id, KEYRING_PASSPHRASE);
    }

    /// Answers the question with this id.
    ///
    /// # Panics
    /// After [`Talk::close`].
    pub fn answer_with(&self, id: &str, secret: &str) {
        self.say(Message::Answer(v1::Answer {
            grant_seconds: 0,
            prompt_id: id.to_owned(),
            answer: Some(v1::answer::Answer::Secret(v1::Secret {
                value: secret.as_bytes().to_vec(),
                source: v1::secret::Source::Typed.into(),
            })),
        }));
    }

    /// A whole request on this stream.
    ///
    /// # Errors
    /// What the agent answered, when it did not sign.
    ///
    /// # Panics
    /// When it says something that no agent should.
    pub fn ask(&mut self, ask: &Ask) -> Result<Done, Refused> {
        self.start(ask);
        let mut done = Done::default();
        while let Some(event) = self.hear()? {
            match event {
                Event::Prompt(prompt) => {
                    match &prompt.ask {
                        Some(v1::prompt::Ask::Confirm(_)) => {
                            self.say(Message::Answer(v1::Answer {
                                grant_seconds: 0,
                                prompt_id: prompt.id.clone(),
                                answer: Some(v1::answer::Answer::Yes(true)),
                            }))
                        }
                        _ => self.answer(&prompt),
                    }
                    done.prompts.push(prompt);
                }
                Event::StaleBase(stale) => {
                    return Err(Refused::Stale {
                        reason: stale.reason,
                        next: stale.next,
                    });
                }
                Event::Signed(signed) => {
                    done.signatures.extend(signed.signatures);
                    done.summary.extend(signed.summary);
                    let Some(outcome) = ask.report else {
                        return Ok(done);
                    };
                    self.say(Message::Report(v1::Report {
                        outcome: outcome.into(),
                        http_status: 200,
                        message: String::new(),
                    }));
                }
                Event::Recorded(_) => return Ok(done),
                Event::Queued(_) | Event::Notice(_) => {}
                other => panic!("the agent says {other:?}"),
            }
        }
        panic!("the agent hung up without a word: {done:?}")
    }
}

/// Debug builds derive keys from passphrases in a second or two, on a busy machine in some more.
const PATIENCE: Duration = Duration::from_secs(60);
