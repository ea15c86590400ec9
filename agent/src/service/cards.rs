//! Cards listed and changed.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{
    Answer, CardEvent, CardRequest, ListCardsReply, ListCardsRequest, Prompt, PromptMode, Waiting,
    card_event, card_request, cards_server::Cards,
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
impl Cards for Service {
    type ChangeStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<CardEvent, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<ListCardsRequest>,
    ) -> Result<Response<ListCardsReply>, Status> {
        caller(&request)?;
        let (cards, problems) = self.shared.keyring.list_cards().await;
        Ok(Response::new(ListCardsReply { cards, problems }))
    }

    async fn change(
        &self,
        request: Request<Streaming<CardRequest>>,
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

impl Carries for CardRequest {
    type Event = CardEvent;

    fn ask(prompt: Prompt) -> CardEvent {
        CardEvent {
            event: Some(card_event::Event::Prompt(prompt)),
        }
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(card_request::Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }

    fn wait(waiting: Waiting) -> Option<CardEvent> {
        Some(CardEvent {
            event: Some(card_event::Event::Waiting(waiting)),
        })
    }
}

async fn change(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<CardRequest>,
) -> Result<(), Fault> {
    let message = stream.next().await?.and_then(|request| request.message);
    let Some(card_request::Message::Change(change)) = message else {
        return Err(Fault::Malformed(
            "a stream that does not start with a change".to_owned(),
        ));
    };
    let mode = PromptMode::try_from(change.prompt_mode).unwrap_or_default();
    let mut person = Person::new(&shared.keyring, caller, mode, change.assume_yes);
    person.claims(change.claimed_context.clone());
    person.set_use_last_try(change.use_last_try);
    let done = shared
        .keyring
        .change_card(change, &mut person, stream)
        .await?;
    stream
        .send(CardEvent {
            event: Some(card_event::Event::Done(done)),
        })
        .await
}
