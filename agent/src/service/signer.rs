//! Documents signed.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use signet_proto::v1::{
    CollectionReply, CollectionRequest, SignEvent, SignRequest, signer_server::Signer,
};
use signet_trust::Gun;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::Stream;
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
        let _ = timeout(SOON, events.first()).await;
        // From here on events are wanted only as fast as the client takes them.
        events.hand_over();
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

/// One stream, driven by whoever wants its events: no other task is woken for it. That is for as
/// long as they are wanted all the time: a request that is under way holds what others wait for, and
/// is not to stand still with it. What is under way when nobody wants events any more is brought to
/// its end by a task.
pub(super) struct Conversation {
    serving: Serving,
    events: mpsc::Receiver<Result<SignEvent, Status>>,
}

/// Who drives it.
enum Serving {
    /// Whoever wants events.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// A task, whoever wants events or not.
    Apart(JoinHandle<()>),
    Done,
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
            serving: Serving::Here(Box::pin(serving)),
            events,
        }
    }

    /// Drives it until there is an event, or will be none; nothing is taken: what the client has not
    /// got is not to look as if it had.
    async fn first(&mut self) {
        poll_fn(|context| {
            if self.events.is_empty()
                && let Serving::Here(serving) = &mut self.serving
            {
                match serving.as_mut().poll(context) {
                    Poll::Ready(()) => self.serving = Serving::Done,
                    Poll::Pending if self.events.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Gives it to a task of its own, which goes on with it whether events are taken or not.
    fn hand_over(&mut self) {
        self.serving = match std::mem::replace(&mut self.serving, Serving::Done) {
            Serving::Here(serving) => match tokio::runtime::Handle::try_current() {
                Ok(runtime) => Serving::Apart(runtime.spawn(serving)),
                // Nobody could drive it any more.
                Err(_) => Serving::Done,
            },
            serving => serving,
        };
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
        if let Poll::Ready(Some(event)) = self.events.poll_recv(context) {
            return Poll::Ready(Some(event));
        }
        match &mut self.serving {
            Serving::Here(serving) => {
                if serving.as_mut().poll(context).is_ready() {
                    self.serving = Serving::Done;
                }
            }
            Serving::Apart(task) => {
                if let Poll::Ready(ended) = Pin::new(task).poll(context) {
                    self.serving = Serving::Done;
                    if ended.is_err() {
                        let fault = Fault::Internal("the request panicked");
                        return Poll::Ready(Some(Err(status(&fault))));
                    }
                }
            }
            Serving::Done => {}
        }
        match (self.events.poll_recv(context), &self.serving) {
            // Its task says next how it ended.
            (Poll::Ready(None), Serving::Apart(_)) => Poll::Pending,
            (event, _) => event,
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It learns that nobody listens, and leaves nothing half done.
        self.events.close();
        self.hand_over();
    }
}
