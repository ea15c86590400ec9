//! Archives made, rehearsed and restored.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{
    Answer, BackupEvent, BackupRequest, Prompt, PromptMode, Waiting, backup_event::Event,
    backup_request::Message, backup_server::Backup,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status::status};
use crate::{
    daemon::caller::Caller,
    keyring::{Fault, Person},
    presence::stream::{Carries, Stream},
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
impl Backup for Service {
    type RunStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<BackupEvent, Status>> + Send>>;

    async fn run(
        &self,
        request: Request<Streaming<BackupRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let (sender, events) = mpsc::channel(8);
        let mut stream = Stream::new(request.into_inner().into(), sender, self.shared.stopping());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(fault) = run(&shared, &caller, &mut stream).await {
                stream.fail(status(&fault)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

impl Carries for BackupRequest {
    type Event = BackupEvent;

    fn ask(prompt: Prompt) -> BackupEvent {
        BackupEvent {
            event: Some(Event::Prompt(prompt)),
        }
    }

    fn wait(waiting: Waiting) -> Option<BackupEvent> {
        Some(BackupEvent {
            event: Some(Event::Waiting(waiting)),
        })
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }
}

async fn run(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<BackupRequest>,
) -> Result<(), Fault> {
    // Neither keys nor the right to put some back for those whom a connection is forwarded for.
    if caller.is_forwarded() {
        return Err(Fault::Forwarded);
    }
    let message = stream.next().await?.and_then(|request| request.message);
    let Some(Message::Start(start)) = message else {
        return Err(Fault::Malformed(
            "a stream that does not start with what to do".to_owned(),
        ));
    };
    let mode = PromptMode::try_from(start.prompt_mode).unwrap_or_default();
    let mut person = Person::new(&shared.keyring, caller, mode, start.assume_yes);
    person.claims(start.claimed_context.clone());
    let keyring = &shared.keyring;
    let done = keyring.archive(shared, start, &mut person, stream).await?;
    stream
        .send(BackupEvent {
            event: Some(Event::Done(done)),
        })
        .await
}
