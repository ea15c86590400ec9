//! Documents signed.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{
    CollectionReply, CollectionRequest, SignEvent, SignRequest, signer_server::Signer,
};
use signet_trust::Gun;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status::status};
use crate::{
    daemon::caller::Caller,
    keyring::{Fault, request},
    presence::stream::{Inbound, Stream},
};

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
        let events = start(&self.shared, caller, request.into_inner().into());
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
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
