//! Keys listed and changed.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{
    Answer, KeyEvent, KeyRequest, ListKeysReply, ListKeysRequest, Prompt, PromptMode, Waiting,
    key_event, key_request, keys_server::Keys,
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
impl Keys for Service {
    type ChangeStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<KeyEvent, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysReply>, Status> {
        let caller = caller(&request)?;
        let forwarded = caller.is_forwarded();
        let ListKeysRequest { docker_dir } = request.into_inner();
        // The other machine's directory says nothing about ours.
        let docker_dir = if forwarded { String::new() } else { docker_dir };
        let (mut keys, mut problems) = self
            .shared
            .keyring
            .list_keys(&docker_dir)
            .await
            .map_err(|fault| status(&fault))?;
        if forwarded {
            keys.retain(|key| self.shared.keyring.is_forwarded(&key.key_id, &key.label));
            for key in &mut keys {
                key.path.clear();
            }
            problems.clear();
        }
        Ok(Response::new(ListKeysReply { keys, problems }))
    }

    async fn change(
        &self,
        request: Request<Streaming<KeyRequest>>,
    ) -> Result<Response<Self::ChangeStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let (sender, events) = mpsc::channel(8);
        let mut stream = Stream::new(request.into_inner().into(), sender, self.shared.stopping());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(fault) = change(&shared, &caller, &mut stream).await {
                stream.fail(status(&fault)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

impl Carries for KeyRequest {
    type Event = KeyEvent;

    fn ask(prompt: Prompt) -> KeyEvent {
        KeyEvent {
            event: Some(key_event::Event::Prompt(prompt)),
        }
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(key_request::Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }

    fn wait(waiting: Waiting) -> Option<KeyEvent> {
        Some(KeyEvent {
            event: Some(key_event::Event::Waiting(waiting)),
        })
    }
}

async fn change(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<KeyRequest>,
) -> Result<(), Fault> {
    let message = stream.next().await?.and_then(|request| request.message);
    let Some(key_request::Message::Change(mut change)) = message else {
        return Err(Fault::Malformed(
            "a stream that does not start with a change".to_owned(),
        ));
    };
    if caller.is_forwarded() {
        change.docker_dir.clear();
    }
    let mode = PromptMode::try_from(change.prompt_mode).unwrap_or_default();
    let mut person = Person::new(&shared.keyring, caller, mode, change.assume_yes);
    person.claims(change.claimed_context.clone());
    person.set_use_last_try(change.use_last_try);
    let done = shared.keyring.change(change, &mut person, stream).await?;
    stream
        .send(KeyEvent {
            event: Some(key_event::Event::Done(done)),
        })
        .await
}
