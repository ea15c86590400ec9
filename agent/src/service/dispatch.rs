//! From the path of a call to its service, and nobody but the owner.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use signet_proto::v1::{
    agent_server::{AgentServer, SERVICE_NAME as AGENT},
    backup_server::{BackupServer, SERVICE_NAME as BACKUP},
    cards_server::{CardsServer, SERVICE_NAME as CARDS},
    keys_server::{KeysServer, SERVICE_NAME as KEYS},
    log_server::{LogServer, SERVICE_NAME as LOG},
    presence_server::{PresenceServer, SERVICE_NAME as PRESENCE},
    signer_server::{SERVICE_NAME as SIGNER, SignerServer},
};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tonic_health::pb::health_server::{HealthServer, SERVICE_NAME as HEALTH};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::{Shared, agent, backup, cards, keys, log, presence, signer, status};
use crate::{daemon::caller::Caller, keyring::Fault};

/// Largest message taken: a chunk and its envelope.
const MESSAGE: usize = signet_proto::MAX_CHUNK + 64 * 1024;
/// What a forwarded connection may do: list keys and sign, and what clients ask for that.
const FORWARDED: [&str; 4] = [
    "/signet.v1.Agent/Hello",
    "/signet.v1.Keys/List",
    "/signet.v1.Signer/Collection",
    "/signet.v1.Signer/Sign",
];
/// Of version 1 of the reflection protocol.
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";

/// All services, on any number of connections.
pub(super) struct Dispatch<H, R: ServerReflection> {
    owner: u32,
    agent: AgentServer<agent::Service>,
    backup: BackupServer<backup::Service>,
    cards: CardsServer<cards::Service>,
    health: HealthServer<H>,
    keys: KeysServer<keys::Service>,
    log: LogServer<log::Service>,
    presence: PresenceServer<presence::Service>,
    reflection: ServerReflectionServer<R>,
    signer: SignerServer<signer::Service>,
}

impl<H: tonic_health::pb::health_server::Health, R: ServerReflection> Dispatch<H, R> {
    pub(super) fn new(
        shared: &Arc<Shared>,
        health: HealthServer<H>,
        reflection: ServerReflectionServer<R>,
    ) -> Self {
        let agent = AgentServer::new(agent::Service::new(shared));
        let backup = BackupServer::new(backup::Service::new(shared));
        let cards = CardsServer::new(cards::Service::new(shared));
        let keys = KeysServer::new(keys::Service::new(shared));
        let log = LogServer::new(log::Service::new(shared));
        let presence = PresenceServer::new(presence::Service::new(shared));
        let signer = SignerServer::new(signer::Service::new(shared));
        Self {
            owner: rustix::process::geteuid().as_raw(),
            agent: agent.max_decoding_message_size(MESSAGE),
            backup: backup.max_decoding_message_size(MESSAGE),
            cards: cards.max_decoding_message_size(MESSAGE),
            health,
            keys: keys.max_decoding_message_size(MESSAGE),
            log: log.max_decoding_message_size(MESSAGE),
            presence: presence.max_decoding_message_size(MESSAGE),
            reflection,
            signer: signer.max_decoding_message_size(MESSAGE),
        }
    }

    /// Only the agent's own user is served, and whoever speaks for another machine may do two things;
    /// the answer says why.
    fn check(&self, request: &http::Request<Body>) -> Result<(), Status> {
        let caller = request.extensions().get::<Arc<Caller>>();
        let caller = caller
            .ok_or_else(|| status::status(&Fault::Internal("a connection without a caller")))?;
        if caller.uid == self.owner {
            if caller.is_forwarded() && !FORWARDED.contains(&request.uri().path()) {
                return Err(status::status(&Fault::ForwardedOnly));
            }
            return Ok(());
        }
        tracing::warn!(
            uid = caller.uid,
            pid = caller.pid,
            "another user was refused"
        );
        let hint = if caller.uid == 0 {
            "; root is not the owner of a user's agent: run the command as that user"
        } else {
            ""
        };
        Err(status::status(&Fault::WrongUser(format!(
            "this agent serves user {}, not user {}{hint}",
            self.owner, caller.uid
        ))))
    }
}

impl<H, R: ServerReflection> Clone for Dispatch<H, R> {
    fn clone(&self) -> Self {
        Self {
            owner: self.owner,
            agent: self.agent.clone(),
            backup: self.backup.clone(),
            cards: self.cards.clone(),
            health: self.health.clone(),
            keys: self.keys.clone(),
            log: self.log.clone(),
            presence: self.presence.clone(),
            reflection: self.reflection.clone(),
            signer: self.signer.clone(),
        }
    }
}

impl<H, R> Service<http::Request<Body>> for Dispatch<H, R>
where
    H: tonic_health::pb::health_server::Health,
    R: ServerReflection,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // None of the services ever is not.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Err(status) = self.check(&request) {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            SIGNER => self.signer.call(request),
            AGENT => self.agent.call(request),
            BACKUP => self.backup.call(request),
            CARDS => self.cards.call(request),
            KEYS => self.keys.call(request),
            LOG => self.log.call(request),
            PRESENCE => self.presence.call(request),
            HEALTH => self.health.call(request),
            REFLECTION => self.reflection.call(request),
            _ => {
                let status = Status::unimplemented("there is no such service");
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
