//! The caller's own stream as the channel to the person.
//!
//! Every prompt has a random id that is used once and is bound to the one stream (and so to the
//! one request) that it was sent on: an answer with another id, or one that comes when nothing was
//! asked, is dropped. Nobody waits on a store's thread: the request's task asks, and the store is
//! called again with the answer.

use std::{sync::Arc, time::Duration};

use signet_proto::v1::{Answer, CardName, Prompt, Waiting, answer, prompt, waiting::What};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tonic::{Status, Streaming};

use super::{Given, NoSecret, PATIENCE, SecretRequest, Typed, broker::Waits, question};
use crate::{key::Secret, keyring::Fault};

/// How long a client has to send what needs nobody: the rest of a request, a report. It has as long
/// to take what it is sent.
const SENDING: Duration = Duration::from_secs(2 * 60);
/// Answers to nothing that are put up with on one stream.
const MAX_STRAY: u32 = 32;

/// How the messages of one service carry prompts and answers.
pub trait Carries: Sized + Send + 'static {
    /// What the agent sends.
    type Event: Send + 'static;

    /// A prompt as an event.
    fn ask(prompt: Prompt) -> Self::Event;

    /// What is waited for as an event; `None` where a service has no such event.
    fn wait(waiting: Waiting) -> Option<Self::Event> {
        let _ = waiting;
        None
    }

    /// The answer in a message, or the message back.
    ///
    /// # Errors
    ///
    /// The message itself, boxed by the caller's wish for small results, where it is no answer.
    fn answer(self) -> Result<Answer, Self>;
}

/// Where a caller's messages come from.
#[derive(Debug)]
pub enum Inbound<M> {
    /// The same process.
    Local(mpsc::Receiver<M>),
    /// The socket.
    Wire(Box<Streaming<M>>),
}

impl<M> Inbound<M> {
    async fn message(&mut self) -> Result<Option<M>, Status> {
        match self {
            Self::Local(messages) => Ok(messages.recv().await),
            Self::Wire(stream) => stream.message().await,
        }
    }
}

impl<M> From<Streaming<M>> for Inbound<M> {
    fn from(stream: Streaming<M>) -> Self {
        Self::Wire(Box::new(stream))
    }
}

/// One stream of a caller: messages in, events out, and the person behind it.
pub struct Stream<M: Carries> {
    inbound: Inbound<M>,
    events: mpsc::Sender<Result<M::Event, Status>>,
    stopping: watch::Receiver<bool>,
    /// Signatures are out whose fate is not known yet: the end of the agent waits for that.
    finishing: bool,
    stray: u32,
    /// [`SENDING`]; tests are in a hurry.
    sending: Duration,
    /// How attendants see the request.
    shown: Option<Arc<Waits>>,
}

impl<M: Carries> std::fmt::Debug for Stream<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("stray", &self.stray)
            .finish_non_exhaustive()
    }
}

impl<M: Carries> Stream<M> {
    /// Joins the two directions.
    #[must_use]
    pub fn new(
        inbound: Inbound<M>,
        events: mpsc::Sender<Result<M::Event, Status>>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            inbound,
            events,
            stopping,
            finishing: false,
            stray: 0,
            sending: SENDING,
            shown: None,
        }
    }

    /// Sets whether what was released on this stream may still be reported when the agent stops.
    pub fn set_finishing(&mut self, finishing: bool) {
        self.finishing = finishing;
    }

    /// Fails when the agent is stopping.
    ///
    /// # Errors
    ///
    /// [`Fault::Stopping`].
    pub fn admit(&self) -> Result<(), Fault> {
        if *self.stopping.borrow() && !self.finishing {
            Err(Fault::Stopping)
        } else {
            Ok(())
        }
    }

    /// Sends an event.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`] when the caller went away, or takes no events any more.
    pub async fn send(&self, event: M::Event) -> Result<(), Fault> {
        match timeout(self.sending, self.events.send(Ok(event))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Fault::Gone),
        }
    }

    /// Ends the stream with a failure.
    pub async fn fail(&self, status: Status) {
        // A caller that is gone, or does not listen, needs no reason.
        let _ = timeout(self.sending, self.events.send(Err(status))).await;
    }

    /// The next message of the request; `None` when the client closed its side. Answers that
    /// nobody asked for are dropped.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`], [`Fault::Slow`], [`Fault::Malformed`].
    pub async fn next(&mut self) -> Result<Option<M>, Fault> {
        let deadline = Instant::now() + SENDING;
        loop {
            let message = timeout_at(deadline, self.inbound.message())
                .await
                .map_err(|_| Fault::Slow)?
                .map_err(broken)?;
            match message.map(M::answer) {
                None => return Ok(None),
                Some(Err(message)) => return Ok(Some(message)),
                Some(Ok(stray)) => self.drop_stray(stray)?,
            }
        }
    }

    /// Like [`Stream::next`], but waits as long as the client keeps the stream open: between the
    /// steps of a request nothing is held for it. Ends when the agent stops.
    ///
    /// # Errors
    ///
    /// As [`Stream::next`], and [`Fault::Stopping`].
    pub async fn next_at_leisure(&mut self) -> Result<Option<M>, Fault> {
        loop {
            let message = tokio::select! {
                message = self.inbound.message() => message.map_err(broken)?,
                () = stopped(&mut self.stopping), if !self.finishing => return Err(Fault::Stopping),
            };
            match message.map(M::answer) {
                None => return Ok(None),
                Some(Err(message)) => return Ok(Some(message)),
                Some(Ok(stray)) => self.drop_stray(stray)?,
            }
        }
    }

    /// Waits for `work` while the caller is there; a caller that goes away cancels it.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`], [`Fault::Stopping`].
    pub async fn while_there<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.events.closed() => Err(Fault::Gone),
            () = stopped(&mut self.stopping), if !self.finishing => Err(Fault::Stopping),
        }
    }

    /// Asks for a secret.
    ///
    /// # Errors
    ///
    /// [`Fault::NoSecret`] and those of the stream.
    pub async fn secret(
        &mut self,
        ask: &SecretRequest,
        summary: &[String],
    ) -> Result<(Given, Typed), Fault> {
        let ask = question::for_secret(ask, summary)?;
        question::secret(self.ask(ask).await?.into())
    }

    /// Sets how attendants see the request: they are told what it waits for, too.
    pub fn set_shown(&mut self, shown: Option<Arc<Waits>>) {
        self.shown = shown;
    }

    /// Tells the caller, and whoever attends, what the request waits for.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`].
    pub async fn wait(&self, waiting: Waiting) -> Result<(), Fault> {
        if let Some(shown) = &self.shown {
            shown.says(&words(&waiting));
        }
        match M::wait(waiting) {
            Some(event) => self.send(event).await,
            None => Ok(()),
        }
    }

    /// Asks a yes/no question: worth grade 1.
    ///
    /// # Errors
    ///
    /// [`Fault::NoSecret`] and those of the stream.
    pub async fn confirm(&mut self, question: &str, summary: &[String]) -> Result<bool, Fault> {
        question::yes(
            self.ask(question::for_yes(question, summary, 1))
                .await?
                .into(),
        )
    }

    async fn ask(&mut self, ask: prompt::Ask) -> Result<Option<answer::Answer>, Fault> {
        let id = question::fresh_id()?;
        self.send(M::ask(Prompt {
            id: id.clone(),
            ask: Some(ask),
        }))
        .await?;
        let deadline = Instant::now() + PATIENCE;
        let unheard = unheard(self.events.clone(), self.sending);
        tokio::pin!(unheard);
        loop {
            let message = tokio::select! {
                message = timeout_at(deadline, self.inbound.message()) => message,
                () = self.events.closed() => return Err(Fault::Gone),
                () = &mut unheard => return Err(Fault::Gone),
                () = stopped(&mut self.stopping), if !self.finishing => return Err(Fault::Stopping),
            };
            let message = message
                .map_err(|_| Fault::NobodyAnswered)?
                .map_err(broken)?;
            match message.map(M::answer) {
                // It closed its side: nobody can answer any more.
                None => return Err(Fault::NoSecret(NoSecret::Unavailable)),
                Some(Ok(answer)) if answer.prompt_id == id => return Ok(answer.answer),
                Some(Ok(stray)) => self.drop_stray(stray)?,
                Some(Err(_)) => {
                    return Err(Fault::Malformed(
                        "a message where an answer was due".to_owned(),
                    ));
                }
            }
        }
    }

    fn drop_stray(&mut self, stray: Answer) -> Result<(), Fault> {
        if let Some(answer::Answer::Secret(secret)) = stray.answer {
            drop(Secret::new(secret.value));
        }
        self.stray += 1;
        tracing::warn!(
            count = self.stray,
            "an answer to no prompt of this stream was dropped"
        );
        if self.stray > MAX_STRAY {
            return Err(Fault::Malformed(
                "too many answers to prompts that were not asked".into(),
            ));
        }
        Ok(())
    }
}

/// What is waited for, for those who attend.
fn words(waiting: &Waiting) -> String {
    let card = |card: &Option<CardName>| {
        let card = card.as_ref();
        let name = card.map_or(0, |card| card.serial);
        match card.map_or("", |card| &card.label[..]) {
            "" => format!("YubiKey {name}"),
            label => format!("YubiKey {name} ({label:?})"),
        }
    };
    match &waiting.what {
        Some(What::Touch(touch)) => format!("a touch of {}", card(&touch.card)),
        Some(What::Missing(missing)) => {
            let cards = missing.cards.iter().map(|one| card(&Some(one.clone())));
            format!("{} to be put in", cards.collect::<Vec<_>>().join(" or "))
        }
        Some(What::Busy(busy)) => {
            format!("{}, which another program holds", card(&busy.card))
        }
        Some(What::Over(_)) | None => String::new(),
    }
}

/// Resolves when something is still not taken after so long; never, once everything was.
async fn unheard<T>(events: mpsc::Sender<T>, sending: Duration) {
    // All of its places are free.
    let taken = events.reserve_many(events.max_capacity());
    if timeout(sending, taken).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the agent stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An agent whose sender is gone has stopped, too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A broken stream is a caller that went away; a message that could not be decoded is its fault.
fn broken(status: Status) -> Fault {
    match status.code() {
        tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Fault::Malformed(status.message().to_owned())
        }
        _ => Fault::Gone,
    }
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::{SignEvent, SignRequest};

    use super::*;

    fn stream(
        sending: Duration,
    ) -> (
        Stream<SignRequest>,
        mpsc::Receiver<Result<SignEvent, Status>>,
        impl Sized,
    ) {
        let (requests, inbound) = mpsc::channel(1);
        let (events, heard) = mpsc::channel(2);
        let stop = watch::Sender::new(false);
        let mut stream = Stream::new(Inbound::Local(inbound), events, stop.subscribe());
        stream.sending = sending;
        (stream, heard, (requests, stop))
    }

    #[tokio::test]
    async fn a_caller_that_takes_no_events_is_gone_after_a_while() {
        let (mut stream, heard, _ends) = stream(Duration::from_millis(10));
        let question = stream.confirm("Well?", &[]).await;
        assert!(matches!(question, Err(Fault::Gone)), "{question:?}");
        stream.send(SignEvent::default()).await.unwrap();
        let full = stream.send(SignEvent::default()).await;
        assert!(matches!(full, Err(Fault::Gone)), "{full:?}");
        stream.fail(Status::aborted("it is not heard either")).await;
        drop(heard);
    }
}
