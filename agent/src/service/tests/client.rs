//! An agent on a socket of its own, a client that answers what it is asked, and a trust server
//! that is a key.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use hyper_util::rt::TokioIo;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use signet_proto::v1::{
    self, Answer, Failure, SignEvent, SignRequest, agent_client::AgentClient, answer,
    keys_client::KeysClient, need_passphrase::What, prompt::Ask, sign_event::Event,
    sign_request::Message, signer_client::SignerClient,
};
use signet_trust::{
    Algorithm, Gun, KeyType, Method, PrivateKey, PublicKey, RoleName, Signature,
    document::{Body, FileMeta, Snapshot, Target, Targets, Timestamp, to_wire},
    edit::{Edit, InitVersions, NewCollection, SigningRequest},
    time::Expiry,
    verify::Raw,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    config::Config,
    keyring::Keyring,
    service::{Shared, now},
};

pub(super) const GUN: &str = "reg.example/acme/app";
pub(super) const PASSPHRASE: &str = "correct horse";

/// A running agent.
pub(super) struct Agent {
    pub(super) channel: Channel,
    pub(super) shared: Arc<Shared>,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<std::io::Result<()>>>,
}

impl Agent {
    pub(super) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let home = dir.path().join("home");
        let docker = dir.path().join("docker");
        let config = Config::default();
        let keyring = Keyring::open(&home, &docker, &config).unwrap();
        let shared = Arc::new(Shared::new(&home, &docker, &config, keyring));
        let socket = home.join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap().into_std().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(crate::daemon::run(
            listener,
            None,
            Arc::clone(&shared),
            async {
                let _ = stopped.await;
            },
        ));
        let channel = connect(socket, Endpoint::from_static("http://agent")).await;
        Self {
            channel,
            shared,
            dir,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Ends it as SIGTERM does, and waits until it has.
    pub(super) async fn stop(mut self) -> tempfile::TempDir {
        let _ = self.stop.take().unwrap().send(());
        drop(self.channel);
        self.served.take().unwrap().await.unwrap().unwrap();
        self.dir
    }

    pub(super) fn agent(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone())
    }

    pub(super) fn keys(&self) -> KeysClient<Channel> {
        KeysClient::new(self.channel.clone())
    }

    /// Opens a stream; questions are answered with this passphrase, or not at all.
    pub(super) async fn talk(&self, passphrase: Option<&str>) -> Talk {
        let (requests, receiver) = mpsc::channel(64);
        let mut signer = SignerClient::new(self.channel.clone());
        let events = signer
            .sign(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Talk {
            requests: Some(requests),
            events,
            passphrase: passphrase.map(str::to_owned),
            asked: Vec::new(),
        }
    }

    /// Asks on a connection of its own that takes no event, now or ever, and answers nothing; until what
    /// it returns is dropped.
    pub(super) async fn ask_deaf(
        &self,
        start: &v1::Start,
        bodies: &[Vec<u8>],
    ) -> impl Sized + use<> {
        let deaf = Endpoint::from_static("http://agent").initial_stream_window_size(0);
        let channel = connect(self.dir.path().join("home/agent.sock"), deaf).await;
        let (requests, receiver) = mpsc::channel(64);
        let chunks = bodies
            .iter()
            .map(|data| Message::Chunk(v1::Chunk { data: data.clone() }));
        for message in std::iter::once(Message::Start(start.clone())).chain(chunks) {
            let message = Some(message);
            requests.send(SignRequest { message }).await.unwrap();
        }
        drop(requests);
        let mut signer = SignerClient::new(channel);
        signer.sign(ReceiverStream::new(receiver)).await.unwrap()
    }

    pub(super) async fn list(&self) -> Vec<v1::KeyInfo> {
        self.keys()
            .list(v1::ListKeysRequest::default())
            .await
            .unwrap()
            .into_inner()
            .keys
    }

    pub(super) async fn log(&self) -> Vec<v1::LogEntry> {
        let mut log = v1::log_client::LogClient::new(self.channel.clone());
        let mut entries = log
            .show(v1::LogRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(entry) = entries.message().await.unwrap() {
            all.push(entry);
        }
        all
    }
}

async fn connect(socket: PathBuf, endpoint: Endpoint) -> Channel {
    let connect = tower::service_fn(move |_| {
        let socket: PathBuf = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connect).await.unwrap()
}

/// One stream.
pub(super) struct Talk {
    requests: Option<mpsc::Sender<SignRequest>>,
    events: Streaming<SignEvent>,
    pub(super) passphrase: Option<String>,
    /// Every question so far.
    pub(super) asked: Vec<v1::NeedPassphrase>,
}

impl Talk {
    pub(super) async fn say(&self, message: Message) {
        let request = SignRequest {
            message: Some(message),
        };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    pub(super) async fn start(&self, start: v1::Start, bodies: &[Vec<u8>]) {
        self.say(Message::Start(start)).await;
        for body in bodies {
            self.chunks(body).await;
        }
    }

    pub(super) async fn step(&self, requests: &[SigningRequest]) {
        self.say(Message::Step(step(requests))).await;
        for request in requests {
            self.chunks(&request.payload).await;
        }
    }

    async fn chunks(&self, body: &[u8]) {
        for data in body.chunks(signet_proto::MAX_CHUNK) {
            self.say(Message::Chunk(v1::Chunk {
                data: data.to_vec(),
            }))
            .await;
        }
    }

    pub(super) async fn report(&mut self, outcome: v1::report::Outcome) {
        let report = v1::Report {
            outcome: outcome.into(),
            http_status: 200,
            ..Default::default()
        };
        self.say(Message::Report(report)).await;
        assert!(matches!(self.next().await, Ok(Event::Recorded(_))));
    }

    /// The next event that is no question and no remark.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            match self.hear().await? {
                Event::Prompt(prompt) => {
                    let Some(Ask::Passphrase(need)) = prompt.ask else {
                        panic!("{prompt:?}")
                    };
                    self.asked.push(need);
                    let answer = match &self.passphrase {
                        Some(word) => answer::Answer::Secret(v1::Secret {
                            value: word.clone().into_bytes(),
                            source: v1::secret::Source::File.into(),
                        }),
                        None => answer::Answer::Unavailable(v1::Unavailable {}),
                    };
                    let answer = Answer {
                        grant_seconds: 0,
                        prompt_id: prompt.id,
                        answer: Some(answer),
                    };
                    self.say(Message::Answer(answer)).await;
                }
                Event::Notice(_) | Event::Queued(_) => {}
                event => return Ok(event),
            }
        }
    }

    /// The next event, whatever it is.
    pub(super) async fn hear(&mut self) -> Result<Event, Failure> {
        let event = self
            .events
            .message()
            .await
            .map_err(|status| failure(&status))?;
        Ok(event.expect("the stream goes on").event.unwrap())
    }

    pub(super) async fn signed(&mut self) -> v1::Signed {
        match self.next().await {
            Ok(Event::Signed(signed)) => signed,
            other => panic!("not signed: {other:?}"),
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.requests = None;
    }
}

pub(super) fn failure(status: &Status) -> Failure {
    let failure = Failure::decode(status.details()).unwrap();
    assert_ne!(failure.exit, 0, "a status without details: {status:?}");
    failure
}

pub(super) fn step(requests: &[SigningRequest]) -> v1::Step {
    let item = |request: &SigningRequest| v1::Item {
        role: request.role.to_string(),
        size: request.payload.len() as u64,
        key_ids: request.key_ids.iter().map(ToString::to_string).collect(),
    };
    v1::Step {
        items: requests.iter().map(item).collect(),
    }
}

/// A trust server's view of one collection: what is published, and the keys that it signs with.
pub(super) struct Server {
    snapshot: PrivateKey,
    timestamp: PrivateKey,
    version: u32,
    pub(super) published: BTreeMap<RoleName, Vec<u8>>,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            snapshot: PrivateKey::generate(Algorithm::P256).unwrap(),
            timestamp: PrivateKey::generate(Algorithm::P256).unwrap(),
            version: 0,
            published: BTreeMap::new(),
        }
    }

    /// Takes an upload, and signs snapshot (where that key is its own) and timestamp.
    pub(super) fn take(&mut self, upload: BTreeMap<RoleName, Vec<u8>>) {
        let own_snapshot = !upload.contains_key(&RoleName::Snapshot);
        self.published.extend(upload);
        self.version += 1;
        let expires = Expiry::at(now() + 14 * 24 * 3600);
        let mut meta: BTreeMap<RoleName, FileMeta> = self
            .published
            .iter()
            .filter(|(role, _)| !matches!(role, RoleName::Snapshot | RoleName::Timestamp))
            .map(|(role, wire)| (role.clone(), FileMeta::of(wire)))
            .collect();
        if own_snapshot {
            let meta = std::mem::take(&mut meta);
            let snapshot = Snapshot {
                expires: expires.clone(),
                meta,
                version: self.version,
            };
            self.published
                .insert(RoleName::Snapshot, signed(&snapshot, &self.snapshot));
        }
        let snapshot = FileMeta::of(&self.published[&RoleName::Snapshot]);
        let meta = BTreeMap::from([(RoleName::Snapshot, snapshot)]);
        let timestamp = Timestamp {
            expires,
            meta,
            version: self.version,
        };
        self.published
            .insert(RoleName::Timestamp, signed(&timestamp, &self.timestamp));
    }

    /// The base, inline.
    pub(super) fn base(&self) -> (v1::Base, Vec<Vec<u8>>) {
        use v1::part::Kind;
        let kind = |role: &RoleName| match role {
            RoleName::Root => Kind::Root,
            RoleName::Timestamp => Kind::Timestamp,
            RoleName::Snapshot => Kind::Snapshot,
            _ => Kind::Targets,
        };
        let parts = self.published.iter().map(|(role, wire)| v1::Part {
            kind: kind(role).into(),
            role: role.to_string(),
            sha256: Sha256::digest(wire).to_vec(),
            size: wire.len() as u64,
            by_hash: false,
        });
        let base = v1::Base {
            parts: parts.collect(),
            released: Vec::new(),
        };
        (base, self.published.values().cloned().collect())
    }

    pub(super) fn targets(&self) -> Targets {
        let wire = self.published[&RoleName::Targets].clone();
        Raw::<Targets>::parse(wire.clone(), wire.len())
            .unwrap()
            .claimed()
            .clone()
    }
}

fn signed(document: &impl Body, key: &PrivateKey) -> Vec<u8> {
    let canonical = document.canonical();
    let bytes = key.sign(&canonical).unwrap();
    let public = key.public();
    to_wire(
        &canonical,
        &[Signature {
            key_id: public.id(),
            method: public.method(),
            bytes,
        }],
    )
}

pub(super) fn target(number: u8) -> Target {
    Target::of_manifest([number; 32], 528)
}

pub(super) fn signatures(signed: &v1::Signed, role: &RoleName) -> Vec<Signature> {
    signed
        .signatures
        .iter()
        .filter(|signature| signature.role == role.as_str())
        .map(|signature| Signature {
            key_id: signature.key_id.parse().unwrap(),
            method: Method::from_name(&signature.method).unwrap(),
            bytes: signature.signature.clone(),
        })
        .collect()
}

fn public(key: Option<v1::PublicKey>) -> PublicKey {
    let key = key.unwrap();
    PublicKey::new(KeyType::from_name(&key.key_type).unwrap(), key.public)
}

pub(super) fn gun() -> Gun {
    GUN.parse().unwrap()
}

/// A Start that creates the collection with new keys.
pub(super) fn creation(own_snapshot: bool) -> v1::Start {
    v1::Start {
        gun: GUN.to_owned(),
        creation: Some(v1::Creation {
            root: Some(v1::KeyChoice::default()),
            targets: Some(v1::KeyChoice::default()),
            snapshot: own_snapshot.then(v1::KeyChoice::default),
        }),
        ..v1::Start::default()
    }
}

/// The first publish up to its signatures; what it uploads, once they are taken.
pub(super) async fn create(talk: &mut Talk, server: &Server, own_snapshot: bool) -> Edit {
    talk.start(creation(own_snapshot), &[]).await;
    let created = match talk.next().await {
        Ok(Event::Created(created)) => created,
        other => panic!("not created: {other:?}"),
    };
    let keys = NewCollection {
        root: public(created.root),
        targets: public(created.targets),
        snapshot: if own_snapshot {
            public(created.snapshot)
        } else {
            server.snapshot.public().clone()
        },
        timestamp: server.timestamp.public().clone(),
        snapshot_is_ours: own_snapshot,
    };
    let mut edit = Edit::init(gun(), keys, InitVersions::default(), now()).unwrap();
    edit.add(&RoleName::Targets, "v1", target(1)).unwrap();
    let requests = edit.requests(&|_: &_| true).unwrap();
    talk.step(&requests).await;
    let signed = talk.signed().await;
    for request in &requests {
        edit.sign(&request.role, signatures(&signed, &request.role))
            .unwrap();
    }
    edit
}

/// An agent, and the collection that it has made and published.
pub(super) async fn published() -> (Agent, Server) {
    let agent = Agent::start().await;
    let mut server = Server::new();
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let edit = create(&mut talk, &server, false).await;
    server.take(edit.finish());
    talk.report(v1::report::Outcome::Published).await;
    (agent, server)
}

/// A Start for the next targets file upon what the server has, and its bodies.
pub(super) fn next(server: &Server, tag: &str, number: u8) -> (v1::Start, Vec<Vec<u8>>) {
    let mut targets = server.targets();
    targets.version += 1;
    targets.targets.insert(tag.to_owned(), target(number));
    at(server, &targets)
}

/// A Start for exactly this targets file.
pub(super) fn at(server: &Server, targets: &Targets) -> (v1::Start, Vec<Vec<u8>>) {
    let (base, mut bodies) = server.base();
    let wire = server.published[&RoleName::Root].clone();
    let root = Raw::<signet_trust::document::Root>::parse(wire.clone(), wire.len()).unwrap();
    let request = SigningRequest {
        role: RoleName::Targets,
        payload: targets.canonical().into(),
        key_ids: root.claimed().roles[&RoleName::Targets].key_ids.clone(),
    };
    bodies.push(request.payload.to_vec());
    let start = v1::Start {
        gun: GUN.to_owned(),
        base: Some(base),
        step: Some(step(&[request])),
        ..v1::Start::default()
    };
    (start, bodies)
}

/// What a keyring prompt is called.
pub(super) fn asked_for(talk: &Talk) -> Vec<What> {
    talk.asked.iter().map(v1::NeedPassphrase::what).collect()
}
