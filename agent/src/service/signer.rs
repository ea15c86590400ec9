//! Documents signed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use signet_proto::v1::{
    CollectionReply, CollectionRequest, SignEvent, SignRequest, signer_server::Signer,
};
use signet_trust::Gun;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status::status};
use crate::{
    daemon::caller::Caller,
    keyring::{Fault, request},
    presence::stream::{self, Inbound},
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
    type SignStream = Pin<Box<dyn Stream<Item = Result<SignEvent, Status>> + Send>>;

    async fn sign(
        &self,
        request: Request<Streaming<SignRequest>>,
    ) -> Result<Response<Self::SignStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let inbound = request.into_inner().into();
        let mut events = Conversation::new(&self.shared, caller, inbound);
        // A request that needs nobody is signed before the head of the response has to go: then
        // both go together, and the client wakes up once.
        let first = timeout(SOON, events.next()).await.ok().flatten();
        let events = tokio_stream::iter(first).chain(events);
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

/// One stream, driven by whoever wants its events: no other task is woken for it. What is under
/// way when nobody wants events any more is brought to its end by a task.
pub(super) struct Conversation {
    serving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    events: mpsc::Receiver<Result<SignEvent, Status>>,
}

impl Conversation {
    pub(super) fn new(
        shared: &Arc<Shared>,
        caller: Arc<Caller>,
        inbound: Inbound<SignRequest>,
    ) -> Self {
        let (sender, events) = mpsc::channel(8);
        let mut stream = stream::Stream::new(inbound, sender, shared.stopping());
        let shared = Arc::clone(shared);
        let serving = async move {
            if let Err(fault) = request::serve(&shared, &caller, &mut stream).await {
                tracing::debug!(%fault, "a request ended");
                stream.fail(status(&fault)).await;
            }
        };
        Self {
            serving: Some(Box::pin(serving)),
            events,
        }
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}

impl Stream for Conversation {
    type Item = Result<SignEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(event) = self.events.poll_recv(context) {
            return Poll::Ready(event);
        }
        if let Some(serving) = &mut self.serving
            && serving.as_mut().poll(context).is_ready()
        {
            self.serving = None;
        }
        self.events.poll_recv(context)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            // It learns that nobody listens, and leaves nothing half done.
            self.events.close();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(serving);
            }
        }
    }
}
