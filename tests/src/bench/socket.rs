//! A client of the agent that does nothing but sign, over the socket or without one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256, Sha512};
use signet_agent::service::Shared;
use signet_proto::{
    MAX_CHUNK,
    v1::{
        Answer, Base, Cancelled, Chunk, Item, Part, PromptMode, Report, Secret, SignEvent,
        SignRequest, Start, Step, answer, part::Kind, prompt, report::Outcome, secret,
        sign_event::Event, sign_request::Message, signer_client::SignerClient, waiting,
    },
};
use signet_trust::{
    Algorithm, Method, PrivateKey, RoleName, Signature,
    base::BaseDocuments,
    document::{Body, FileMeta, Snapshot, Tags, Targets, Timestamp, to_wire},
    time::Expiry,
};
use tokio::{net::UnixStream, sync::mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use super::collection::{Collection, target};
use crate::lab::{KEYRING_PASSPHRASE, cards::now};

/// A client that has one document after the other signed.
pub trait Signs: Send + 'static {
    /// Has one signed, and verifies the signature; how long that took.
    ///
    /// # Errors
    ///
    /// When the signer refuses.
    fn sign(&mut self) -> impl Future<Output = Result<Duration>> + Send;
}

/// Connects to an agent's socket, to have documents signed.
///
/// # Errors
///
/// When nobody listens.
pub async fn connect(socket: &Path) -> Result<Way> {
    Ok(Way::Socket(SignerClient::new(channel(socket).await?)))
}

/// Connects to an agent's socket.
///
/// # Errors
///
/// When nobody listens.
pub async fn channel(socket: &Path) -> Result<Channel> {
    let socket: Arc<PathBuf> = Arc::new(socket.to_path_buf());
    let connector = tower::service_fn(move |_: Uri| {
        let socket = Arc::clone(&socket);
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(&*socket).await?)) }
    });
    Ok(Endpoint::from_static("http://agent")
        .connect_with_connector(connector)
        .await?)
}

/// One collection whose snapshot and timestamp this client signs itself, as a server would.
#[derive(Debug)]
pub struct Publisher {
    collection: Arc<Collection>,
    agent: Way,
    reports: bool,
    /// The published base: kind, role, document, SHA-256.
    parts: Vec<(Kind, &'static str, Vec<u8>, Vec<u8>)>,
    targets: Targets,
    /// The agent has the base.
    sent: bool,
    released: Option<Vec<u8>>,
    count: u64,
    /// What is typed when the agent asks.
    secret: &'static str,
    /// When the agent last said that a card waits to be touched ([`crate::lab::cards::now`]).
    touch_noticed: Option<u64>,
}

/// Where the agent is.
#[derive(Clone)]
pub enum Way {
    /// On the other end of a socket.
    Socket(SignerClient<Channel>),
    /// In this process.
    Process(Arc<Shared>),
    /// Not there yet.
    None,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Socket",
            Self::Process(_) => "Process",
            Self::None => "None",
        })
    }
}

impl Publisher {
    /// Builds the published base of version 1, with one tag.
    ///
    /// One that `reports` says that each version was published, and goes on from it. One that does
    /// not signs the same version again and again, each time with another content, which replaces
    /// what never arrived: nothing but signatures.
    ///
    /// # Errors
    ///
    /// When a document cannot be made.
    pub fn new(
        agent: Way,
        reports: bool,
        gun: &str,
        algorithm: Algorithm,
        now: i64,
    ) -> Result<Self> {
        Self::with_tags(agent, reports, gun, algorithm, now, 1)
    }

    /// As [`Publisher::new`], with this many tags.
    ///
    /// # Errors
    ///
    /// When a document cannot be made.
    pub fn with_tags(
        agent: Way,
        reports: bool,
        gun: &str,
        algorithm: Algorithm,
        now: i64,
        tags: usize,
    ) -> Result<Self> {
        let collection = Collection::new(gun, algorithm, now)?;
        let server = PrivateKey::generate(Algorithm::P256)?;
        let documents =
            collection.documents(tags, server.public().clone(), server.public().clone(), now)?;
        let expires = Expiry::at(now + 14 * 24 * 3600);
        let meta = documents
            .iter()
            .map(|(role, wire)| (role.clone(), describe(wire)))
            .collect();
        let snapshot = signed(
            &Snapshot {
                expires: expires.clone(),
                meta,
                version: 1,
            },
            &server,
        )?;
        let meta = BTreeMap::from([(RoleName::Snapshot, describe(&snapshot))]);
        let timestamp = signed(
            &Timestamp {
                expires,
                meta,
                version: 1,
            },
            &server,
        )?;
        let wire = &documents[&RoleName::Targets];
        let raw = signet_trust::verify::Raw::<Targets>::parse(wire.clone(), wire.len())?;
        let parts = [
            (Kind::Root, "root", documents[&RoleName::Root].clone()),
            (Kind::Timestamp, "timestamp", timestamp),
            (Kind::Snapshot, "snapshot", snapshot),
            (Kind::Targets, "targets", wire.clone()),
        ];
        let parts = parts.map(|(kind, role, wire)| {
            let sha256 = Sha256::digest(&wire).to_vec();
            (kind, role, wire, sha256)
        });
        Ok(Self {
            collection: Arc::new(collection),
            agent,
            reports,
            parts: parts.into(),
            targets: raw.claimed().clone(),
            sent: false,
            released: None,
            count: 0,
            secret: KEYRING_PASSPHRASE,
            touch_noticed: None,
        })
    }

    /// The key that the agent must hold: written as docker does, to be imported.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Another client of the same collection, not connected and without what the agent has already.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            collection: Arc::clone(&self.collection),
            agent: Way::None,
            parts: self.parts.clone(),
            targets: self.targets.clone(),
            sent: false,
            released: None,
            ..*self
        }
    }

    /// Types this when the agent asks, instead of the keyring's passphrase.
    pub fn types(&mut self, secret: &'static str) {
        self.secret = secret;
    }

    /// When the agent said that a card waits to be touched, by the clock of the cards.
    #[must_use]
    pub fn touch_noticed(&self) -> Option<u64> {
        self.touch_noticed
    }

    /// Asks this agent from now on.
    pub fn ask(&mut self, agent: Way) {
        self.agent = agent;
    }

    /// The targets document of the base.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The published base, as a client sends it.
    #[must_use]
    pub fn documents(&self) -> BaseDocuments {
        let mut documents = BaseDocuments::default();
        for (kind, _, wire, _) in &self.parts {
            match kind {
                Kind::Root => documents.roots.push(wire.clone()),
                Kind::Timestamp => documents.timestamp = Some(wire.clone()),
                Kind::Snapshot => documents.snapshot = Some(wire.clone()),
                _ => {
                    documents.targets.insert(RoleName::Targets, wire.clone());
                }
            }
        }
        documents
    }

    /// Asks a locked agent for a signature of the next version with these tags: how long until it
    /// shows what it wants a passphrase for, and the words. The request is given up then.
    ///
    /// # Errors
    ///
    /// When the agent does anything else.
    pub async fn until_shown(&mut self, tags: Tags) -> Result<(Duration, Vec<String>)> {
        let mut next = self.targets.clone();
        next.version += 1;
        next.targets = tags;
        let payload = next.canonical();
        let messages = self.request(&payload);
        let start = Instant::now();
        let mut stream = self.agent.begin(messages).await?;
        loop {
            match stream.hear().await? {
                Some(Event::Prompt(prompt)) => {
                    let took = start.elapsed();
                    let Some(prompt::Ask::Passphrase(asked)) = prompt.ask else {
                        bail!("a prompt for something else: {prompt:?}");
                    };
                    stream
                        .say(Message::Answer(Answer {
                            prompt_id: prompt.id,
                            answer: Some(answer::Answer::Cancelled(Cancelled {})),
                            ..Answer::default()
                        }))
                        .await?;
                    // It ends with a status that says so.
                    while let Ok(Some(_)) = stream.hear().await {}
                    return Ok((took, asked.summary));
                }
                Some(Event::Notice(_) | Event::Queued(_)) => {}
                other => bail!("unexpected answer {other:?}"),
            }
        }
    }

    /// Signs the next version; the time is from the first byte sent to the signature verified.
    ///
    /// # Errors
    ///
    /// When the agent refuses.
    async fn next(&mut self) -> Result<Duration> {
        self.count += 1;
        let mut next = self.targets.clone();
        next.version += 1;
        next.targets = [("latest".to_owned(), target(self.count))].into();
        let payload = next.canonical();
        let public = self.collection.targets.public();
        let messages = self.request(&payload);
        let start = Instant::now();
        let mut stream = self.agent.begin(messages).await?;
        let took = loop {
            match stream.hear().await? {
                Some(Event::Signed(signed)) => {
                    let signature = signed.signatures.first().context("no signature")?;
                    let method = Method::from_name(&signature.method).context("method")?;
                    public.verify(method, &payload, &signature.signature)?;
                    break start.elapsed();
                }
                // The first time.
                Some(Event::Prompt(prompt)) => stream.say(typed(prompt.id, self.secret)).await?,
                Some(Event::Waiting(waiting)) => {
                    if let Some(waiting::What::Touch(_)) = waiting.what {
                        self.touch_noticed = Some(now());
                    }
                }
                Some(Event::Notice(_) | Event::Queued(_)) => {}
                other => bail!("unexpected answer {other:?}"),
            }
        };
        self.sent = true;
        if self.reports {
            stream
                .say(Message::Report(Report {
                    outcome: Outcome::Published.into(),
                    http_status: 200,
                    message: String::new(),
                }))
                .await?;
            stream.hang_up();
            while let Some(event) = stream.hear().await? {
                if matches!(event, Event::Recorded(_)) {
                    break;
                }
            }
            self.released = Some(Sha256::digest(&payload).to_vec());
            self.targets = next;
        } else {
            stream.hang_up();
            while stream.hear().await?.is_some() {}
        }
        Ok(took)
    }

    /// All that is sent for a signature of these bytes.
    fn request(&self, payload: &[u8]) -> Vec<Message> {
        let mut chunks = Vec::new();
        let base = self.base(&mut chunks);
        let mut messages = vec![Message::Start(Start {
            gun: self.collection.gun.to_string(),
            base: Some(base),
            step: Some(Step {
                items: vec![Item {
                    role: "targets".to_owned(),
                    size: payload.len() as u64,
                    key_ids: vec![self.collection.targets.public().id().to_string()],
                }],
            }),
            prompt_mode: PromptMode::Any.into(),
            ..Start::default()
        })];
        messages.append(&mut chunks);
        messages.extend(in_chunks(payload));
        messages
    }

    /// The base by hash, once the agent has it; before, its documents as well.
    fn base(&self, messages: &mut Vec<Message>) -> Base {
        let mut base = Base::default();
        if let Some(hash) = &self.released {
            base.released.clone_from(hash);
            return base;
        }
        for (kind, role, wire, sha256) in &self.parts {
            base.parts.push(Part {
                kind: (*kind).into(),
                role: (*role).to_owned(),
                sha256: sha256.clone(),
                size: wire.len() as u64,
                by_hash: self.sent,
            });
            if !self.sent {
                messages.extend(in_chunks(wire));
            }
        }
        base
    }
}

impl Signs for Publisher {
    fn sign(&mut self) -> impl Future<Output = Result<Duration>> + Send {
        self.next()
    }
}

/// One `Sign` stream.
struct Conversation {
    requests: Option<mpsc::Sender<SignRequest>>,
    events: Pin<Box<dyn Stream<Item = Result<SignEvent, Status>> + Send>>,
}

impl Way {
    /// Begins a stream with these messages.
    async fn begin(&mut self, messages: Vec<Message>) -> Result<Conversation> {
        let (sender, receiver) = mpsc::channel(messages.len().max(1));
        for message in messages {
            sender.send(request(message)).await?;
        }
        let events: Pin<Box<dyn Stream<Item = _> + Send>> = match self {
            Self::Socket(signer) => {
                let answer = signer.sign(ReceiverStream::new(receiver)).await?;
                Box::pin(answer.into_inner())
            }
            Self::Process(shared) => {
                Box::pin(signet_agent::service::sign_in_process(shared, receiver))
            }
            Self::None => bail!("there is no agent yet"),
        };
        Ok(Conversation {
            requests: Some(sender),
            events,
        })
    }
}

impl Conversation {
    async fn hear(&mut self) -> Result<Option<Event>> {
        let event = self.events.next().await.transpose()?;
        Ok(event.and_then(|event| event.event))
    }

    async fn say(&mut self, message: Message) -> Result<()> {
        let requests = self.requests.as_ref().context("hung up")?;
        Ok(requests.send(request(message)).await?)
    }

    fn hang_up(&mut self) {
        self.requests = None;
    }
}

fn request(message: Message) -> SignRequest {
    SignRequest {
        message: Some(message),
    }
}

fn in_chunks(bytes: &[u8]) -> impl Iterator<Item = Message> + '_ {
    bytes.chunks(MAX_CHUNK).map(|chunk| {
        Message::Chunk(Chunk {
            data: chunk.to_vec(),
        })
    })
}

fn typed(prompt_id: String, secret: &str) -> Message {
    let secret = Secret {
        value: secret.as_bytes().to_vec(),
        source: secret::Source::Typed.into(),
    };
    Message::Answer(Answer {
        grant_seconds: 0,
        prompt_id,
        answer: Some(answer::Answer::Secret(secret)),
    })
}

fn describe(wire: &[u8]) -> FileMeta {
    FileMeta {
        hashes: BTreeMap::from([
            ("sha256".to_owned(), Sha256::digest(wire).to_vec()),
            ("sha512".to_owned(), Sha512::digest(wire).to_vec()),
        ])
        .into(),
        length: wire.len() as u64,
    }
}

fn signed(document: &impl Body, key: &PrivateKey) -> Result<Vec<u8>> {
    let canonical = document.canonical();
    let bytes = key.sign(&canonical)?;
    let signature = Signature {
        key_id: key.public().id(),
        method: key.public().method(),
        bytes,
    };
    Ok(to_wire(&canonical, &[signature]))
}
