//! Who attends, and what was approved beforehand.

use std::{pin::Pin, sync::Arc, time::Duration};

use signet_proto::v1::{
    Answer, AttendEvent, AttendRequest, GrantEvent, GrantInfo, GrantRequest, GrantStart,
    GrantsReply, GrantsRequest, Prompt, PromptMode, RevokeReply, RevokeRequest, attend_event,
    attend_request, grant_event, grant_request, presence_server::Presence,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, log::encode, status::status};
use crate::{
    daemon::caller::Caller,
    keyring::{Fault, Person},
    presence::{
        approvals::{MAX_DIGESTS, MAX_TIME, Scope},
        broker::Stray,
        stream::{Carries, Stream},
    },
};

/// Answers to nothing that are put up with from one attendant.
const MAX_STRAY: u32 = 32;
/// Log entries that an attendant is shown to begin with.
const MAX_ENTRIES: u64 = 100;
/// How long a grant stands unless asked otherwise.
const TIME: Duration = Duration::from_secs(15 * 60);
/// Longest pattern of a grant.
const MAX_PATTERN: usize = 256;

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
impl Presence for Service {
    type AttendStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<AttendEvent, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<AttendRequest>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let messages = request.into_inner();
        let (sender, events) = mpsc::channel(16);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(fault) = attend(&shared, &caller, messages, &sender).await {
                // Whoever has gone needs no reason.
                let _ = sender.send(Err(status(&fault))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    type GrantStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<GrantEvent, Status>> + Send>>;

    async fn grant(
        &self,
        request: Request<Streaming<GrantRequest>>,
    ) -> Result<Response<Self::GrantStream>, Status> {
        self.shared.admit()?;
        let caller = caller(&request)?;
        let (sender, events) = mpsc::channel(8);
        let mut stream = Stream::new(request.into_inner().into(), sender, self.shared.stopping());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(fault) = grant(&shared, &caller, &mut stream).await {
                stream.fail(status(&fault)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn grants(&self, _: Request<GrantsRequest>) -> Result<Response<GrantsReply>, Status> {
        let grants = self.shared.keyring.approvals.list();
        Ok(Response::new(GrantsReply { grants }))
    }

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<RevokeReply>, Status> {
        let caller = caller(&request)?;
        let revoked = self
            .shared
            .keyring
            .revoke_grants(&request.get_ref().id, &caller)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(RevokeReply { revoked }))
    }
}

/// One attendant, from its first message until it goes, does not read, or the agent stops.
async fn attend(
    shared: &Shared,
    caller: &Caller,
    mut messages: Streaming<AttendRequest>,
    sender: &mpsc::Sender<Result<AttendEvent, Status>>,
) -> Result<(), Fault> {
    let gone = |_| Fault::Gone;
    let first = messages.message().await.map_err(gone)?;
    let Some(attend_request::Message::Start(start)) = first.and_then(|first| first.message) else {
        return Err(Fault::Malformed(
            "attendance that does not start with what it asks".into(),
        ));
    };
    let keyring = &shared.keyring;
    let mut stopping = shared.stopping();
    let mut changes = keyring.log_changes();
    let (newest, _) = keyring.log_head().await?;
    let shown = u64::from(start.entries).min(MAX_ENTRIES);
    let mut next = newest.saturating_sub(shown) + 1;
    let (attendance, mut events) = keyring.broker.attend(caller, start.silent)?;
    tracing::info!(caller = caller.describe(), "attends");
    let mut stray = 0;
    changes.mark_changed();
    loop {
        tokio::select! {
            message = messages.message() => {
                let message = message.map_err(gone)?.and_then(|message| message.message);
                let Some(attend_request::Message::Answer(answer)) = message else {
                    return Ok(());
                };
                if attendance.answer(answer) == Err(Stray) {
                    stray += 1;
                    tracing::warn!(count = stray, "an attendant's answer to no prompt of his was dropped");
                    if stray > MAX_STRAY {
                        return Err(Fault::Malformed(
                            "too many answers to prompts that were not asked".into(),
                        ));
                    }
                }
            }
            event = events.recv() => {
                let event = event.ok_or(Fault::Slow)?;
                sender.send(Ok(event)).await.map_err(|_| Fault::Gone)?;
            }
            changed = changes.changed() => {
                changed.map_err(|_| Fault::Stopping)?;
                for entry in keyring.log_entries(next, MAX_ENTRIES).await? {
                    next = entry.number + 1;
                    let event = Some(attend_event::Event::Entry(encode(entry)));
                    sender.send(Ok(AttendEvent { event })).await.map_err(|_| Fault::Gone)?;
                }
                if next <= keyring.log_head().await?.0 {
                    changes.mark_changed();
                }
            }
            () = sender.closed() => return Ok(()),
            () = stops(&mut stopping) => return Err(Fault::Stopping),
        }
    }
}

/// Resolves when the agent stops.
async fn stops(stopping: &mut watch::Receiver<bool>) {
    // An agent whose sender is gone has stopped, too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

impl Carries for GrantRequest {
    type Event = GrantEvent;

    fn ask(prompt: Prompt) -> GrantEvent {
        GrantEvent {
            event: Some(grant_event::Event::Prompt(prompt)),
        }
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(grant_request::Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }
}

async fn grant(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<GrantRequest>,
) -> Result<(), Fault> {
    let message = stream.next().await?.and_then(|request| request.message);
    let Some(grant_request::Message::Start(start)) = message else {
        return Err(Fault::Malformed(
            "a grant that does not start with what it asks".into(),
        ));
    };
    let mode = PromptMode::try_from(start.prompt_mode).unwrap_or_default();
    let mut person = Person::new(&shared.keyring, caller, mode, false);
    let (scope, gun, time) = read(start, &person)?;
    let given = shared
        .keyring
        .give_grant(scope, &gun, time, &mut person, stream)
        .await?;
    stream.send(done(given)).await
}

fn done(given: GrantInfo) -> GrantEvent {
    GrantEvent {
        event: Some(grant_event::Event::Done(given)),
    }
}

/// What is to be granted.
fn read(start: GrantStart, person: &Person<'_>) -> Result<(Scope, String, Duration), Fault> {
    let usage = |text: &str| Err(Fault::Usage(text.to_owned()));
    let scope = match (start.here, start.digests.as_slice()) {
        (true, []) => match person.session() {
            Some(session) => Scope::Session(session, person.terminal()),
            None => {
                return usage("the kernel does not tell the terminal session of this command");
            }
        },
        (false, digests) if (1..=MAX_DIGESTS).contains(&digests.len()) => {
            let digests: Result<Vec<[u8; 32]>, _> = digests
                .iter()
                .map(|one| one.as_slice().try_into())
                .collect();
            match digests {
                Ok(mut digests) => {
                    digests.sort_unstable();
                    digests.dedup();
                    Scope::Digests(digests)
                }
                Err(_) => return usage("a digest is SHA-256, 32 bytes"),
            }
        }
        _ => return usage("a grant is for this terminal, or for 1 to 1000 digests"),
    };
    if start.gun.len() > MAX_PATTERN || start.gun.chars().any(char::is_control) {
        return usage("that pattern fits no repository");
    }
    let time = match start.seconds {
        0 => TIME,
        seconds => Duration::from_secs(seconds.into()),
    };
    if time > MAX_TIME {
        return usage("a grant stands for a day at most");
    }
    Ok((scope, start.gun, time))
}
