//! Documents signed.

use std::{pin::Pin, sync::Arc, time::Duration};

use signet_proto::v1::{
    CollectionReply, CollectionRequest, SignEvent, SignRequest, signer_server::Signer,
};
use signet_trust::Gun;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status::status};
use crate::{
    daemon::caller::Caller,
    keyring::{Fault, request},
    presence::stream::{Inbound, Stream},
};

/// How long the head of a response waits for its first event. Clients that send nothing before they
/// have it wait as long.
const SOON: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }
}

#[tonic::async_trait]
impl Signer for Service {
    type SignStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<SignEvent, Status>> + Send>>;

    async fn sign(
        &self,
        request: Request<Streaming<SignRequest>>,
    ) -> Result<Response<Self::SignStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let mut events = start(&self.shared, caller, request.into_inner().into());
        // A request that needs nobody is signed before the head of the response has to go: then
        // both go together, and the client wakes up once.
        let first = timeout(SOON, events.recv()).await.ok().flatten();
        let events = tokio_stream::iter(first).chain(ReceiverStream::new(events));
        Ok(Response::new(Box::pin(events)))
    }

    async fn collection(
        &self,
        request: Request<CollectionRequest>,
    ) -> Result<Response<CollectionReply>, Status> {
        let CollectionRequest { gun } = request.into_inner();
        let gun: Gun = gun
            .parse()
            .map_err(|error| status(&Fault::Usage(format!("{error}"))))?;
        let reply = self
            .shared
            .keyring
            .collection(&gun)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(reply))
    }
}

/// Begins to serve one stream.
pub(super) fn start(
    shared: &Arc<Shared>,
    caller: Arc<Caller>,
    inbound: Inbound<SignRequest>,
) -> mpsc::Receiver<Result<SignEvent, Status>> {
    let (sender, events) = mpsc::channel(8);
    let mut stream = Stream::new(inbound, sender, shared.stopping());
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(fault) = request::serve(&shared, &caller, &mut stream).await {
            tracing::debug!(%fault, "a request ended");
            stream.fail(status(&fault)).await;
        }
    });
    events
}
