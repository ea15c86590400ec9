//! `notary-signer`, called as the agent is: one connection per client, every signature verified.
//!
//! Its messages are those of notary's `proto/signer.proto`, as far as a signature needs them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signet_trust::{KeyType, Method, PublicKey};
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use super::socket::Signs;
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

    async fn next(&mut self) -> Result<Duration> {
        let content = vec![0x5a; SIZE];
        let start = Instant::now();
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

impl Signs for Signer {
    fn sign(&mut self) -> impl Future<Output = Result<Duration>> + Send {
        self.next()
    }
}

/// Bytes to sign: a document of one tag.
const SIZE: usize = 600;
