//! The daemon itself: who it is, what it holds, and its end.

use std::{pin::Pin, sync::Arc, time::Duration};

use signet_proto::v1::{
    Answer, ExplainReply, ExplainRequest, HelloReply, HelloRequest, LockReply, LockRequest, Prompt,
    PromptMode, StatusReply, StatusRequest, StopReply, StopRequest, UnlockDone, UnlockEvent,
    UnlockRequest, UnlockStart, agent_server::Agent, unlock_event, unlock_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status::status};
use crate::{
    daemon::{caller::Caller, harden},
    key::Secret,
    keyring::{Fault, Person},
    presence::stream::{Carries, Stream},
    store::hold::Scope,
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

    fn hello(&self, forwarded: bool) -> HelloReply {
        HelloReply {
            forwarded,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: signet_proto::PROTOCOL,
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            home: self.shared.home.display().to_string(),
            docker_dir: self.shared.docker_dir.display().to_string(),
        }
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type UnlockStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<UnlockEvent, Status>> + Send>>;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let forwarded = caller(&request)?.forwarded;
        Ok(Response::new(self.hello(forwarded)))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        let caller = caller(&request)?;
        let mut reply = self
            .shared
            .keyring
            .status(&caller)
            .await
            .map_err(|f| status(&f))?;
        reply.agent = Some(self.hello(caller.forwarded));
        reply.attendants = self.shared.keyring.broker.attendants();
        reply.grants = self.shared.keyring.approvals.list();
        reply.started_at = self.shared.started_at;
        reply.warnings.extend(harden::warnings());
        if !Secret::locked_memory_ok() {
            reply.warnings.push(
                "memory for secrets could not be locked: it may be swapped out; raise \
                 LimitMEMLOCK= of the unit, or `ulimit -l`"
                    .to_owned(),
            );
        }
        Ok(Response::new(reply))
    }

    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockReply>, Status> {
        let was_unlocked = self
            .shared
            .keyring
            .lock()
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(LockReply { was_unlocked }))
    }

    async fn unlock(
        &self,
        request: Request<Streaming<UnlockRequest>>,
    ) -> Result<Response<Self::UnlockStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let (sender, events) = mpsc::channel(8);
        let stream = Stream::new(request.into_inner().into(), sender, self.shared.stopping());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut stream = stream;
            if let Err(fault) = unlock(&shared, &caller, &mut stream).await {
                stream.fail(status(&fault)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainReply>, Status> {
        let caller = caller(&request)?;
        let explained = self.shared.keyring.explain(request.get_ref(), &caller);
        explained
            .await
            .map(Response::new)
            .map_err(|fault| status(&fault))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        let caller = caller(&request)?;
        tracing::info!(caller = caller.describe(), "asked to stop");
        self.shared.stop();
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Ok(Response::new(StopReply { pid }))
    }
}

impl Carries for UnlockRequest {
    type Event = UnlockEvent;

    fn ask(prompt: Prompt) -> UnlockEvent {
        UnlockEvent {
            event: Some(unlock_event::Event::Prompt(prompt)),
        }
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(unlock_request::Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }
}

async fn unlock(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<UnlockRequest>,
) -> Result<(), Fault> {
    let message = stream.next().await?.and_then(|request| request.message);
    let Some(unlock_request::Message::Start(UnlockStart {
        seconds,
        here,
        prompt_mode,
    })) = message
    else {
        return Err(Fault::Malformed(
            "an unlock that does not start with what it asks".into(),
        ));
    };
    let scope = if here {
        let session = caller.session.filter(|_| caller.confirmed);
        Scope::Session(session.ok_or_else(|| {
            Fault::Usage("the kernel does not tell the terminal session of this command".into())
        })?)
    } else {
        Scope::All
    };
    let time = match seconds {
        0 => shared.keyring.hold(),
        seconds => Duration::from_secs(seconds.into()),
    };
    let mode = PromptMode::try_from(prompt_mode).unwrap_or_default();
    let mut person = Person::new(&shared.keyring, caller, mode, false);
    let until = shared
        .keyring
        .unlock(&mut person, stream, time, scope)
        .await?;
    stream
        .send(UnlockEvent {
            event: Some(unlock_event::Event::Done(UnlockDone { until })),
        })
        .await
}
