//! Who attends: people at terminals of this host (`signet watch`), asked when a request's own
//! stream cannot answer, or must not.
//!
//! A prompt goes to exactly one attendant, the one who came last; where he leaves without an
//! answer it goes to the next, under another name. Names of prompts are random, used once, and
//! bound to the attendant: what others answer is dropped. A request that ends withdraws its prompt.
//! Nothing here waits while the state is locked, and an attendant who does not read is let go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use signet_proto::v1::{
    self, Answer, AttendEvent, AttendPrompt, AttendantInfo, ClaimedContext, Prompt, PromptOver,
    RequestOver, WaitingRequest, attend_event::Event, prompt,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    PATIENCE,
    news::News,
    question::{self, Answered, Reply},
};
use crate::{daemon::caller::Caller, keyring::Fault, service::now};

/// Events that an attendant may leave unread.
const UNREAD: usize = 256;
/// People who attend at once; far more than have eyes on one machine.
const MAX_ATTENDANTS: usize = 16;

/// Requests of other machines that wait at once: a person answers one at a time.
const MAX_FORWARDED: usize = 16;

/// Who attends, and what waits.
#[derive(Debug, Default)]
pub struct Broker {
    state: Mutex<State>,
    /// Of secrets that come to be held: what waits for one may find it now.
    pub(crate) news: News,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    attendants: Vec<Attendant>,
    requests: BTreeMap<u64, WaitingRequest>,
    prompts: HashMap<String, Pending>,
}

#[derive(Debug)]
struct Attendant {
    id: u64,
    info: AttendantInfo,
    silent: bool,
    events: mpsc::Sender<AttendEvent>,
}

/// A prompt that is out.
#[derive(Debug)]
struct Pending {
    attendant: u64,
    reply: oneshot::Sender<Answered>,
}

/// Why an attendant's answer was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to no prompt of this attendant")]
pub struct Stray;

impl Broker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody attends from now on, until the [`Attendance`] is dropped.
    ///
    /// # Errors
    ///
    /// [`Fault::Usage`] when there are too many already.
    pub fn attend(
        self: &Arc<Self>,
        caller: &Caller,
        silent: bool,
    ) -> Result<(Attendance, mpsc::Receiver<AttendEvent>), Fault> {
        let (sender, events) = mpsc::channel(UNREAD);
        let mut state = self.state();
        if state.attendants.len() >= MAX_ATTENDANTS {
            return Err(Fault::Usage(format!(
                "{MAX_ATTENDANTS} terminals attend already"
            )));
        }
        state.next += 1;
        let id = state.next;
        let others = state.attendants.iter();
        let others = others.filter(|one| !one.silent).map(|one| one.info.clone());
        let attending = Event::Attending(v1::Attending {
            others: others.collect(),
        });
        let attendant = Attendant {
            id,
            info: AttendantInfo {
                pid: caller.pid,
                exe: caller.program_name(),
                terminal: caller.facts().terminal().unwrap_or_default().to_owned(),
                since: now(),
            },
            silent,
            events: sender,
        };
        // Room is left for what comes before he reads.
        let shown = state.requests.values().take(UNREAD / 2);
        let known = std::iter::once(attending).chain(shown.cloned().map(Event::Request));
        for event in known {
            // There is room: the channel is new. What does not fit is told when it changes.
            let _ = attendant
                .events
                .try_send(AttendEvent { event: Some(event) });
        }
        state.attendants.push(attendant);
        drop(state);
        let broker = Arc::clone(self);
        Ok((Attendance { broker, id }, events))
    }

    /// Who attends.
    #[must_use]
    pub fn attendants(&self) -> Vec<AttendantInfo> {
        let state = self.state();
        let answering = state.attendants.iter().filter(|one| !one.silent);
        answering.map(|one| one.info.clone()).collect()
    }

    /// Whether anybody attends who answers.
    #[must_use]
    pub fn is_attended(&self) -> bool {
        self.state().attendants.iter().any(|one| !one.silent)
    }

    /// A request waits for something from now on; attendants are shown it until it is dropped.
    ///
    /// # Errors
    ///
    /// [`Fault::TooMany`] when too many requests of other machines wait already.
    pub fn begin(
        self: &Arc<Self>,
        caller: &Caller,
        claimed: Option<ClaimedContext>,
        summary: Vec<String>,
    ) -> Result<Waits, Fault> {
        let mut state = self.state();
        let forwarded = state.requests.values().filter(|one| one.forwarded).count();
        if caller.is_forwarded() && forwarded >= MAX_FORWARDED {
            return Err(Fault::TooMany);
        }
        state.next += 1;
        let id = state.next;
        let request = WaitingRequest {
            id,
            caller: caller.describe(),
            forwarded: caller.is_forwarded(),
            claimed_context: claimed,
            summary,
            waits_for: String::new(),
            since: now(),
        };
        state.requests.insert(id, request);
        drop(state);
        Ok(Waits {
            broker: Arc::clone(self),
            id,
        })
    }

    /// Asks whoever attends; `None` when nobody does (any more). `grant_seconds`: for how long a
    /// yes may be given.
    ///
    /// # Errors
    ///
    /// [`Fault::NobodyAnswered`] in time.
    pub async fn ask(
        &self,
        request: &Waits,
        ask: &prompt::Ask,
        grant_seconds: u32,
    ) -> Result<Option<Answered>, Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some((mut out, reply)) = self.send(request, ask, grant_seconds)? else {
                return Ok(None);
            };
            match timeout_at(deadline, reply).await {
                Err(_) => {
                    out.reason = "too late";
                    return Err(Fault::NobodyAnswered);
                }
                Ok(Ok(answer)) => {
                    out.reason = "answered";
                    return match answer.reply {
                        // Not the caller's own person, who merely stops: he refuses it.
                        Reply::Cancelled => Err(Fault::Declined),
                        _ => Ok(Some(answer)),
                    };
                }
                // He left: the next one, if any.
                Ok(Err(_)) => {}
            }
        }
    }

    /// Sends a prompt to the attendant who came last and reads what he is sent.
    fn send(
        &self,
        request: &Waits,
        ask: &prompt::Ask,
        grant_seconds: u32,
    ) -> Result<Option<(Out<'_>, oneshot::Receiver<Answered>)>, Fault> {
        let mut state = self.state();
        loop {
            let Some(place) = state.attendants.iter().rposition(|one| !one.silent) else {
                return Ok(None);
            };
            let id = question::fresh_id()?;
            let event = Event::Prompt(AttendPrompt {
                prompt: Some(Prompt {
                    id: id.clone(),
                    ask: Some(ask.clone()),
                }),
                request: request.id,
                deadline: now() + i64::try_from(PATIENCE.as_secs()).unwrap_or(0),
                grant_seconds,
            });
            let attendant = &state.attendants[place];
            if attendant
                .events
                .try_send(AttendEvent { event: Some(event) })
                .is_err()
            {
                let id = attendant.id;
                state.let_go(id);
                continue;
            }
            let (reply, answer) = oneshot::channel();
            let attendant = attendant.id;
            state
                .prompts
                .insert(id.clone(), Pending { attendant, reply });
            let out = Out {
                broker: self,
                id,
                attendant,
                reason: "withdrawn",
            };
            return Ok(Some((out, answer)));
        }
    }
}

impl State {
    /// Tells everybody who attends; who does not read is let go.
    fn tell(&mut self, event: &Event) {
        let unread = |one: &&Attendant| {
            let event = Some(event.clone());
            one.events.try_send(AttendEvent { event }).is_err()
        };
        let gone: Vec<u64> = self
            .attendants
            .iter()
            .filter(unread)
            .map(|one| one.id)
            .collect();
        for id in gone {
            self.let_go(id);
        }
    }

    /// He attends no more; whoever waits for him asks the next.
    fn let_go(&mut self, id: u64) {
        self.attendants.retain(|one| one.id != id);
        self.prompts.retain(|_, pending| pending.attendant != id);
    }
}

/// One attendant, as long as he attends.
#[derive(Debug)]
pub struct Attendance {
    broker: Arc<Broker>,
    id: u64,
}

impl Attendance {
    /// His answer to a prompt.
    ///
    /// # Errors
    ///
    /// [`Stray`] when it answers none of his: late, twice, or somebody else's.
    pub fn answer(&self, answer: Answer) -> Result<(), Stray> {
        let prompt_id = answer.prompt_id.clone();
        // A secret in it is wiped from here on, whatever becomes of it.
        let answered = Answered::from(answer);
        let mut state = self.broker.state();
        let of = state.prompts.get(&prompt_id);
        if of.is_none_or(|pending| pending.attendant != self.id) {
            return Err(Stray);
        }
        if let Some(pending) = state.prompts.remove(&prompt_id) {
            // A request that has just ended: its prompt is withdrawn in a moment.
            let _ = pending.reply.send(answered);
        }
        Ok(())
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.broker.state().let_go(self.id);
    }
}

/// A prompt that is out; dropped, it is over.
struct Out<'a> {
    broker: &'a Broker,
    id: String,
    attendant: u64,
    reason: &'static str,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let mut state = self.broker.state();
        state.prompts.remove(&self.id);
        let event = Event::PromptOver(PromptOver {
            prompt_id: std::mem::take(&mut self.id),
            reason: self.reason.to_owned(),
        });
        let event = AttendEvent { event: Some(event) };
        let his = state.attendants.iter().find(|one| one.id == self.attendant);
        if his.is_some_and(|one| one.events.try_send(event).is_err()) {
            state.let_go(self.attendant);
        }
    }
}

/// A request that waits for something; dropped, it does not any more.
#[derive(Debug)]
pub struct Waits {
    broker: Arc<Broker>,
    id: u64,
}

impl Waits {
    /// What it waits for now, in words.
    pub fn says(&self, waits_for: &str) {
        let mut state = self.broker.state();
        let Some(request) = state.requests.get_mut(&self.id) else {
            return;
        };
        waits_for.clone_into(&mut request.waits_for);
        let event = Event::Request(request.clone());
        state.tell(&event);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut state = self.broker.state();
        state.requests.remove(&self.id);
        state.tell(&Event::RequestOver(RequestOver { id: self.id }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> Arc<Broker> {
        Arc::new(Broker::default())
    }

    fn waits(broker: &Arc<Broker>) -> Waits {
        broker
            .begin(&Caller::this_process(), None, vec!["a summary".into()])
            .unwrap()
    }

    async fn prompt(events: &mut mpsc::Receiver<AttendEvent>) -> AttendPrompt {
        loop {
            let event = events.recv().await.expect("he attends").event;
            if let Some(Event::Prompt(prompt)) = event {
                return prompt;
            }
        }
    }

    fn yes(prompt: &AttendPrompt) -> Answer {
        Answer {
            prompt_id: prompt.prompt.as_ref().expect("there is one").id.clone(),
            answer: Some(v1::answer::Answer::Yes(true)),
            grant_seconds: 0,
        }
    }

    fn question() -> prompt::Ask {
        question::for_yes("Sign?", &[], 2)
    }

    #[tokio::test]
    async fn nobody_attends_and_nobody_is_waited_for() {
        let broker = broker();
        let (_silent, _events) = broker.attend(&Caller::this_process(), true).unwrap();
        assert!(!broker.is_attended() && broker.attendants().is_empty());
        let waits = waits(&broker);
        assert!(broker.ask(&waits, &question(), 0).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_last_who_came_is_asked_and_others_answers_are_dropped() {
        let broker = broker();
        let me = Caller::this_process();
        let (first, _first_events) = broker.attend(&me, false).unwrap();
        let (last, mut events) = broker.attend(&me, false).unwrap();
        let waits = waits(&broker);
        let question = question();
        let (asked, ()) = tokio::join!(broker.ask(&waits, &question, 0), async {
            let prompt = prompt(&mut events).await;
            assert_eq!(first.answer(yes(&prompt)), Err(Stray));
            assert_eq!(last.answer(yes(&prompt)), Ok(()));
            assert_eq!(last.answer(yes(&prompt)), Err(Stray), "answered twice");
        });
        assert!(asked.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_prompt_whose_attendant_leaves_goes_to_the_next_by_another_name() {
        let broker = broker();
        let me = Caller::this_process();
        let (next, mut next_events) = broker.attend(&me, false).unwrap();
        let (leaves, mut events) = broker.attend(&me, false).unwrap();
        let waits = waits(&broker);
        let question = question();
        let (asked, ()) = tokio::join!(broker.ask(&waits, &question, 0), async {
            let first = prompt(&mut events).await;
            drop(leaves);
            let second = prompt(&mut next_events).await;
            assert_eq!(next.answer(yes(&first)), Err(Stray));
            assert_eq!(next.answer(yes(&second)), Ok(()));
        });
        assert!(asked.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_request_that_ends_withdraws_its_prompt_and_is_shown_no_more() {
        let broker = broker();
        let (attendance, mut events) = broker.attend(&Caller::this_process(), false).unwrap();
        let waits = waits(&broker);
        waits.says("a yes");
        let prompt = {
            let question = question();
            let asking = broker.ask(&waits, &question, 0);
            tokio::pin!(asking);
            tokio::select! {
                biased;
                _ = &mut asking => panic!("nobody has answered"),
                prompt = prompt(&mut events) => prompt,
            }
        };
        drop(waits);
        assert_eq!(attendance.answer(yes(&prompt)), Err(Stray));
        let over = events.recv().await.unwrap().event.unwrap();
        assert!(matches!(over, Event::PromptOver(over) if over.reason == "withdrawn"));
        let over = events.recv().await.unwrap().event.unwrap();
        assert!(matches!(over, Event::RequestOver(_)));
    }

    #[tokio::test]
    async fn who_does_not_read_is_let_go() {
        let broker = broker();
        let (_attendance, _events) = broker.attend(&Caller::this_process(), false).unwrap();
        let waits = waits(&broker);
        for _ in 0..=UNREAD {
            waits.says("something else");
        }
        assert!(!broker.is_attended());
    }
}
