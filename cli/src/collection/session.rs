//! One `Signer.Sign` stream: the request, the person's answers, the report.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use signet_proto::{
    MAX_CHUNK,
    v1::{self, SignEvent, SignRequest, report::Outcome, sign_event::Event, sign_request::Message},
};
use signet_trust::{Method, RoleName, Signature, edit::SigningRequest};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::Stream;
use tonic::Streaming;

use crate::{
    Context,
    agent::{AgentClient, prompt},
    failure::{Failure, exit},
    ui::{text::escape, waiting::WaitLine},
};

/// A stream to the agent. Dropping it is what the agent takes for "client died".
#[derive(Debug)]
pub(crate) struct Session {
    // Bounded by what is held in memory anyway: the documents of one collection.
    out: UnboundedSender<Outgoing>,
    events: Streaming<SignEvent>,
    line: WaitLine,
}

/// What the agent said, other than questions.
#[derive(Debug)]
pub(crate) enum Said {
    /// The keys of the new collection; the step follows.
    Created(v1::Created),
    /// Parts named by hash that it does not hold.
    NeedParts,
    /// Our report is written down.
    Recorded,
    /// The signatures of a step.
    Signed(Vec<v1::ItemSignature>),
    /// The base is older than what it has seen.
    Stale(String),
}

/// Bytes of a document, shared with whoever made or fetched it: large ones are not copied before
/// they are sent.
pub(crate) type Content = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of the base, with its bytes where they go along.
pub(crate) struct Part {
    pub(crate) head: v1::Part,
    pub(crate) inline: Option<Content>,
}

/// What is to be sent.
enum Outgoing {
    Message(Box<SignRequest>),
    /// In chunks.
    Content(Content),
}

/// What is to be sent, as messages; chunks are cut when the connection takes them.
struct Outbound {
    queue: UnboundedReceiver<Outgoing>,
    /// A document on its way, and how much of it is gone.
    current: Option<(Content, usize)>,
}

impl Stream for Outbound {
    type Item = SignRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<SignRequest>> {
        loop {
            if let Some((content, sent)) = self.current.take()
                && let Some(rest) = content.as_ref().as_ref().get(sent..)
                && !rest.is_empty()
            {
                let data = rest[..rest.len().min(MAX_CHUNK)].to_vec();
                // Let go of with its last chunk.
                if data.len() < rest.len() {
                    self.current = Some((content, sent + data.len()));
                }
                let message = Some(Message::Chunk(v1::Chunk { data }));
                return Poll::Ready(Some(SignRequest { message }));
            }
            match ready!(self.queue.poll_recv(cx)) {
                Some(Outgoing::Message(message)) => return Poll::Ready(Some(*message)),
                Some(Outgoing::Content(content)) => self.current = Some((content, 0)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Session {
    /// Opens a stream with its first request.
    ///
    /// # Errors
    ///
    /// As the agent says.
    pub(crate) async fn open(
        agent: &AgentClient,
        start: v1::Start,
        inline: Vec<Content>,
    ) -> Result<Self, Failure> {
        let (out, queue) = unbounded_channel();
        // Queued before the call: the agent may wait for it before it answers at all.
        send_start(&out, start, inline);
        let events = agent
            .signer()
            .sign(Outbound {
                queue,
                current: None,
            })
            .await?
            .into_inner();
        Ok(Self {
            out,
            events,
            line: WaitLine::default(),
        })
    }

    /// Begins the request again on the same stream: what was consented to still counts.
    pub(crate) fn again(&self, start: v1::Start, inline: Vec<Content>) {
        send_start(&self.out, start, inline);
    }

    /// A further step: documents after `Created`, a snapshot after the documents.
    pub(crate) fn step(&self, requests: &[SigningRequest]) {
        send(&self.out, Message::Step(step(requests)));
        for request in requests {
            send_content(&self.out, payload(request));
        }
    }

    /// Waits for the agent's next word, and answers its questions on the way.
    ///
    /// # Errors
    ///
    /// As the agent says: refused, locked, nobody there.
    pub(crate) async fn next(&mut self, ctx: &mut Context) -> Result<Said, Failure> {
        loop {
            let Some(event) = self.line.next(&mut self.events).await? else {
                return Err(ended());
            };
            return Ok(match event.event {
                Some(Event::Prompt(asked)) => {
                    let answer = prompt::answer(ctx, asked).await?;
                    send(&self.out, Message::Answer(answer));
                    continue;
                }
                Some(Event::Queued(queued)) => {
                    ctx.ui.say(format_args!(
                        "waiting: {} requests before this one",
                        queued.behind
                    ));
                    continue;
                }
                Some(Event::Notice(notice)) => {
                    ctx.ui.say(escape(&notice.text));
                    continue;
                }
                Some(Event::NeedParts(_)) => Said::NeedParts,
                Some(Event::Created(created)) => Said::Created(created),
                Some(Event::StaleBase(stale)) => Said::Stale(escape(&stale.reason)),
                Some(Event::Signed(signed)) => Said::Signed(signed.signatures),
                Some(Event::Recorded(_)) => Said::Recorded,
                Some(Event::Waiting(waiting)) => {
                    self.line.say(ctx, &waiting);
                    continue;
                }
                // An event of a later agent.
                None => continue,
            });
        }
    }

    /// Reports what the server said, and waits until the agent has written it down.
    ///
    /// # Errors
    ///
    /// When the agent is gone; what is published stays so.
    pub(crate) async fn report(
        &mut self,
        ctx: &mut Context,
        outcome: Outcome,
        http_status: u16,
        message: String,
    ) -> Result<(), Failure> {
        let report = v1::Report {
            outcome: outcome.into(),
            http_status: http_status.into(),
            message,
        };
        send(&self.out, Message::Report(report));
        loop {
            if matches!(self.next(ctx).await?, Said::Recorded) {
                return Ok(());
            }
        }
    }
}

/// The agent's signatures of one role, as documents carry them.
///
/// # Errors
///
/// When the agent sent something else than signatures.
pub(crate) fn signatures_of(
    role: &RoleName,
    all: &[v1::ItemSignature],
) -> Result<Vec<Signature>, Failure> {
    all.iter()
        .filter(|one| one.role == role.as_str())
        .map(|one| {
            let key_id = one.key_id.parse().ok()?;
            let method = Method::from_name(&one.method)?;
            Some(Signature {
                key_id,
                method,
                bytes: one.signature.clone(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            Failure::new(
                exit::FAILED,
                "agent",
                format!("the agent's signature of {role} is malformed"),
            )
        })
}

/// The head of a step.
pub(crate) fn step(requests: &[SigningRequest]) -> v1::Step {
    v1::Step {
        items: requests
            .iter()
            .map(|request| v1::Item {
                role: request.role.to_string(),
                size: request.payload.len() as u64,
                key_ids: request.key_ids.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}

/// The bytes to be signed, as they are sent.
pub(crate) fn payload(request: &SigningRequest) -> Content {
    Arc::clone(&request.payload) as Content
}

fn send_start(out: &UnboundedSender<Outgoing>, start: v1::Start, inline: Vec<Content>) {
    send(out, Message::Start(start));
    for content in inline {
        send_content(out, content);
    }
}

// A closed stream shows when its next event is awaited, with the agent's reason.

fn send_content(out: &UnboundedSender<Outgoing>, content: Content) {
    let _ = out.send(Outgoing::Content(content));
}

fn send(out: &UnboundedSender<Outgoing>, message: Message) {
    let message = Some(message);
    let _ = out.send(Outgoing::Message(Box::new(SignRequest { message })));
}

fn ended() -> Failure {
    Failure::new(
        exit::NO_AGENT,
        "agent_gone",
        "the agent ended the request without an answer",
    )
    .fix("`signet status` says whether it runs; the same command can be run again")
}
