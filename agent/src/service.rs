//! The gRPC services: convert, call, convert. One file each.

mod agent;
mod backup;
mod cards;
mod dispatch;
mod keys;
mod log;
mod presence;
mod rate;
mod signer;
pub mod status;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signet_proto::v1::{SignEvent, SignRequest};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Request, Status, transport::Server};

use self::{dispatch::Dispatch, rate::Rate};
use crate::{
    config::Config,
    daemon::{caller::Caller, incoming::Incoming},
    keyring::{Fault, Keyring},
    presence::stream::Inbound,
};

/// Streams served at once on one connection.
const STREAMS: u32 = 64;
/// Bytes of one stream that may wait unread: a little more than one chunk.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes of one connection that may wait unread.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Largest frame taken: a chunk in a few pieces.
const FRAME: u32 = 256 * 1024;
/// Longest list of headers taken.
const HEADERS: u32 = 16 * 1024;
/// Bytes of requests held in memory at once, in [`Shared::UNIT`]s.
const IN_FLIGHT: usize = 128 * 1024 * 1024;

/// Requests of other machines at once, and one more each so long: a person confirms every one.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(1);

/// What all services share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) keyring: Keyring,
    pub(crate) home: PathBuf,
    pub(crate) docker_dir: PathBuf,
    pub(crate) started_at: i64,
    /// Room for requests in memory.
    pub(crate) room: Arc<Semaphore>,
    /// Bytes of one request.
    pub(crate) max_request: u64,
    /// How long nobody is connected before the agent ends by itself.
    pub(crate) idle_exit: Option<Duration>,
    /// How fast other machines may ask.
    pub(crate) forwarded: Rate,
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// Room is handed out in pieces of this many bytes.
    pub(crate) const UNIT: usize = 1024;

    /// Around an open keyring.
    #[must_use]
    pub fn new(home: &Path, docker_dir: &Path, config: &Config, keyring: Keyring) -> Self {
        Self {
            keyring,
            home: home.to_owned(),
            docker_dir: docker_dir.to_owned(),
            started_at: now(),
            room: Arc::new(Semaphore::new(IN_FLIGHT / Self::UNIT)),
            max_request: config.max_request,
            forwarded: Rate::new(BURST, REFILL),
            idle_exit: config.idle_exit,
            stopping: watch::Sender::new(false),
        }
    }

    /// Tells whether the agent is stopping.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Begins the end: no new requests, no more prompts.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Fails when the agent is stopping: what comes now is refused.
    pub(crate) fn admit(&self) -> Result<(), Status> {
        if *self.stopping.borrow() {
            Err(status::status(&Fault::Stopping))
        } else {
            Ok(())
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// The process that made a request.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    request
        .extensions()
        .get::<Arc<Caller>>()
        .cloned()
        .ok_or_else(|| status::status(&Fault::Internal("a connection without a caller")))
}

/// Serves one `Sign` stream of this process itself: the same path of a request, without a socket.
/// For measuring what the socket costs.
pub fn sign_in_process(
    shared: &Arc<Shared>,
    requests: mpsc::Receiver<SignRequest>,
) -> impl tokio_stream::Stream<Item = Result<SignEvent, Status>> + Send + Unpin + use<> {
    let caller = Arc::new(Caller::this_process());
    signer::Conversation::new(shared, caller, Inbound::Local(requests))
}

/// Serves all services on `incoming` until `stop` resolves and the connections have ended.
///
/// # Errors
///
/// When the transport fails.
pub async fn serve(
    shared: &Arc<Shared>,
    incoming: Incoming,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_server) = tonic_health::server::health_reporter();
    let mut stopping = shared.stopping();
    tokio::spawn(async move {
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        // The agent's end is the sender's end.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(signet_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("our own descriptor set is well-formed");
    let services = Dispatch::new(shared, health_server, reflection);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(FRAME)
        .http2_max_header_list_size(HEADERS)
        .serve_with_incoming_shutdown(services, incoming, stop)
        .await
}

#[cfg(test)]
mod tests;
