//! A client of the agent's socket that does nothing but sign, and the same for `notary-signer`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256, Sha512};
use signet_proto::v1::{
    Base, Chunk, Item, Part, PromptMode, Report, SignRequest, Start, Step, part::Kind,
    report::Outcome, sign_event::Event, sign_request::Message, signer_client::SignerClient,
};
use signet_trust::{
    Algorithm, Method, PrivateKey, RoleName, Signature,
    document::{Body, FileMeta, Snapshot, Targets, Timestamp, to_wire},
    time::Expiry,
};
use tokio::net::UnixStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::collection::{Collection, target};

/// Connects to an agent's socket.
///
/// # Errors
///
/// When nobody listens.
pub async fn connect(socket: &Path) -> Result<Channel> {
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
    collection: Collection,
    signer: SignerClient<Channel>,
    parts: Vec<(Kind, &'static str, Vec<u8>)>,
    targets: Targets,
    released: Option<Vec<u8>>,
}

impl Publisher {
    /// Builds the published base of version 1, with one tag.
    ///
    /// # Errors
    ///
    /// When a document cannot be made.
    pub fn new(channel: Channel, gun: &str, algorithm: Algorithm, now: i64) -> Result<Self> {
        let collection = Collection::new(gun, algorithm, now)?;
        let server = PrivateKey::generate(Algorithm::P256)?;
        let documents =
            collection.documents(1, server.public().clone(), server.public().clone(), now)?;
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
        Ok(Self {
            targets: raw.claimed().clone(),
            parts: vec![
                (Kind::Root, "root", documents[&RoleName::Root].clone()),
                (Kind::Timestamp, "timestamp", timestamp),
                (Kind::Snapshot, "snapshot", snapshot),
                (Kind::Targets, "targets", wire.clone()),
            ],
            collection,
            signer: SignerClient::new(channel),
            released: None,
        })
    }

    /// The key that the agent must hold: written as docker does, to be imported.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Signs the next version and reports it published; the time is from the first byte sent to
    /// the signature verified.
    ///
    /// # Errors
    ///
    /// When the agent refuses.
    pub async fn sign(&mut self) -> Result<Duration> {
        let mut next = self.targets.clone();
        next.version += 1;
        next.targets = [("latest".to_owned(), target(u64::from(next.version)))].into();
        let payload = next.canonical();
        let public = self.collection.targets.public();
        let mut messages = Vec::with_capacity(8);
        let mut base = Base::default();
        match &self.released {
            Some(hash) => base.released = hash.clone(),
            None => {
                for (kind, role, wire) in &self.parts {
                    base.parts.push(Part {
                        kind: (*kind).into(),
                        role: (*role).to_owned(),
                        sha256: Sha256::digest(wire).to_vec(),
                        size: wire.len() as u64,
                        by_hash: false,
                    });
                    messages.push(Message::Chunk(Chunk { data: wire.clone() }));
                }
            }
        }
        messages.insert(
            0,
            Message::Start(Start {
                gun: self.collection.gun.to_string(),
                base: Some(base),
                step: Some(Step {
                    items: vec![Item {
                        role: "targets".to_owned(),
                        size: payload.len() as u64,
                        key_ids: vec![public.id().to_string()],
                    }],
                }),
                prompt_mode: PromptMode::None.into(),
                ..Start::default()
            }),
        );
        messages.push(Message::Chunk(Chunk {
            data: payload.clone(),
        }));
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        let start = Instant::now();
        let send = |message| SignRequest {
            message: Some(message),
        };
        for message in messages {
            sender.send(send(message)).await?;
        }
        let mut events = self
            .signer
            .sign(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let took = loop {
            match events.message().await?.and_then(|event| event.event) {
                Some(Event::Signed(signed)) => {
                    let signature = signed.signatures.first().context("no signature")?;
                    let method = Method::from_name(&signature.method).context("method")?;
                    public.verify(method, &payload, &signature.signature)?;
                    break start.elapsed();
                }
                Some(Event::Notice(_) | Event::Queued(_)) => {}
                other => bail!("unexpected answer {other:?}"),
            }
        };
        let report = Report {
            outcome: Outcome::Published.into(),
            http_status: 200,
            message: String::new(),
        };
        sender.send(send(Message::Report(report))).await?;
        drop(sender);
        while let Some(event) = events.message().await? {
            if matches!(event.event, Some(Event::Recorded(_))) {
                break;
            }
        }
        self.released = Some(Sha256::digest(&payload).to_vec());
        self.targets = next;
        Ok(took)
    }
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

/// notary's messages (its `proto/signer.proto`), as far as a signature needs them.
pub mod notary {
    use anyhow::{Context as _, Result};
    use signet_trust::{KeyType, Method, PublicKey};
    use tonic::{
        client::Grpc,
        codegen::http::uri::PathAndQuery,
        transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
    };
    use tonic_prost::ProstCodec;

    use crate::lab::Lab;

    /// `KeyID`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyName {
        /// Hex.
        #[prost(string, tag = "1")]
        pub id: String,
    }

    /// `Algorithm`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AlgorithmName {
        /// `ecdsa`, `ed25519`.
        #[prost(string, tag = "1")]
        pub algorithm: String,
    }

    /// `KeyInfo`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyInfo {
        /// Which key.
        #[prost(message, optional, tag = "1")]
        pub key_id: Option<KeyName>,
        /// Its type.
        #[prost(message, optional, tag = "2")]
        pub algorithm: Option<AlgorithmName>,
    }

    /// `CreateKeyRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CreateKey {
        /// `ecdsa`, `ed25519`.
        #[prost(string, tag = "1")]
        pub algorithm: String,
        /// For which collection.
        #[prost(string, tag = "2")]
        pub gun: String,
        /// For which role.
        #[prost(string, tag = "3")]
        pub role: String,
    }

    /// `PublicKey`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Created {
        /// Its name and type.
        #[prost(message, optional, tag = "1")]
        pub key_info: Option<KeyInfo>,
        /// As in documents.
        #[prost(bytes = "vec", tag = "2")]
        pub public: Vec<u8>,
    }

    /// `SignatureRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sign {
        /// Which key.
        #[prost(message, optional, tag = "1")]
        pub key_id: Option<KeyName>,
        /// What.
        #[prost(bytes = "vec", tag = "2")]
        pub content: Vec<u8>,
    }

    /// `Signature`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Signature {
        /// By which key.
        #[prost(message, optional, tag = "1")]
        pub key_info: Option<KeyInfo>,
        /// How.
        #[prost(message, optional, tag = "2")]
        pub algorithm: Option<AlgorithmName>,
        /// As in documents.
        #[prost(bytes = "vec", tag = "3")]
        pub content: Vec<u8>,
    }

    /// A key of `notary-signer`, called over mutual TLS.
    #[derive(Debug)]
    pub struct Signer {
        grpc: Grpc<Channel>,
        key: KeyName,
        public: PublicKey,
        method: Method,
    }

    impl Signer {
        /// Makes a key at the lab's signer.
        ///
        /// # Errors
        ///
        /// When it refuses.
        pub async fn new(lab: &Lab, algorithm: &str, gun: &str) -> Result<Self> {
            let read = std::fs::read_to_string::<&std::path::Path>;
            let certs = lab.certs();
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read(certs.ca().as_ref())?))
                .identity(Identity::from_pem(
                    read(certs.client().as_ref())?,
                    read(certs.client_key().as_ref())?,
                ))
                .domain_name("localhost");
            let channel = Endpoint::from_shared(format!("https://{}", lab.signer()))?
                .tls_config(tls)?
                .connect()
                .await?;
            let mut grpc = Grpc::new(channel);
            let request = CreateKey {
                algorithm: algorithm.to_owned(),
                gun: gun.to_owned(),
                role: "snapshot".to_owned(),
            };
            let path = PathAndQuery::from_static("/proto.KeyManagement/CreateKey");
            grpc.ready().await?;
            let created: Created = grpc
                .unary(tonic::Request::new(request), path, ProstCodec::default())
                .await?
                .into_inner();
            let key_type = KeyType::from_name(algorithm).context("algorithm")?;
            let public = PublicKey::new(key_type, created.public);
            let key = created
                .key_info
                .and_then(|info| info.key_id)
                .context("key")?;
            Ok(Self {
                grpc,
                key,
                method: public.method(),
                public,
            })
        }

        /// Has `content` signed, and verifies it.
        ///
        /// # Errors
        ///
        /// When it refuses.
        pub async fn sign(&mut self, content: Vec<u8>) -> Result<std::time::Duration> {
            let start = std::time::Instant::now();
            let request = Sign {
                key_id: Some(self.key.clone()),
                content: content.clone(),
            };
            let path = PathAndQuery::from_static("/proto.Signer/Sign");
            self.grpc.ready().await?;
            let answer: Signature = self
                .grpc
                .unary(tonic::Request::new(request), path, ProstCodec::default())
                .await?
                .into_inner();
            self.public.verify(self.method, &content, &answer.content)?;
            Ok(start.elapsed())
        }
    }
}
