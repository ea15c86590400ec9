//! One request's dealings with the person: what was given, and asking for what is missing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use signet_proto::v1::{ClaimedContext, PromptMode};

mod ask;

use self::ask::Asked;
use super::{Fault, Keyring, cards::Listening, request, worker::Worker};
use crate::{
    daemon::caller::{Caller, CallerFacts},
    presence::{
        Presence, RequestId, SessionId,
        broker::Waits,
        prepared::Prepared,
        stream::{Carries, Stream},
    },
    store::{KeyStore, StoreError, piv::CardStore},
};

/// Work for a store that may have to be done again once a secret is there.
pub(super) type Work<S, T> =
    Arc<dyn Fn(&mut S, &mut dyn Presence) -> Result<T, StoreError> + Send + Sync>;

/// Yes of somebody who attends, or of a grant that such a one gave.
const YES_ATTENDED: u32 = 2;

/// What the log holds of the circumstances. Members in alphabetical order: the text is canonical.
#[derive(Serialize)]
struct Facts<'a> {
    caller: &'a CallerFacts,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<&'a str>,
    consent: Consent<'a>,
}

#[derive(Serialize)]
struct Consent<'a> {
    /// `--yes` was there to answer questions.
    assumed_yes: bool,
    /// held given stream attendant pinentry grant touch
    channel: &'static str,
    /// The grant that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a str>,
    /// The rules that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a Vec<String>>,
}

/// The person behind one request.
#[derive(Debug)]
pub struct Person<'a> {
    keyring: &'a Keyring,
    pub(super) caller: Arc<Caller>,
    mode: PromptMode,
    pub(super) assume_yes: bool,
    request: RequestId,
    prepared: Option<Prepared>,
    /// What the secrets are asked for, in the words of the request.
    summary: Vec<String>,
    /// Something was asked: stores may hold what was opened for this request.
    asked: bool,
    /// What cards tell while they are waited for; made when the first card is used.
    listening: Option<Listening>,
    use_last_try: bool,
    /// Cards that the request speaks to.
    cards: u32,
    /// Rules of the policy that decided.
    rules: Vec<String>,
    /// What the caller says of itself.
    claimed: Option<ClaimedContext>,
    /// How attendants see the request; made when it first waits.
    shown: Option<Arc<Waits>>,
    /// What a yes to this change was worth.
    approved: u32,
    /// Who but the caller's stream gave an answer.
    answered_by: Option<&'static str>,
    /// The grant that answered.
    grant: Option<String>,
}

impl<'a> Person<'a> {
    /// Nothing asked, nothing given.
    pub(crate) fn new(
        keyring: &'a Keyring,
        caller: &Arc<Caller>,
        mode: PromptMode,
        assume_yes: bool,
    ) -> Self {
        let request = next_request();
        let session = own_session(caller);
        Self {
            keyring,
            caller: Arc::clone(caller),
            mode,
            assume_yes,
            request,
            prepared: Some(Prepared::new(request, session)),
            summary: Vec::new(),
            asked: false,
            listening: None,
            use_last_try: false,
            cards: 1,
            rules: Vec::new(),
            claimed: None,
            shown: None,
            approved: 0,
            answered_by: None,
            grant: None,
        }
    }

    /// Sets what the caller says of itself.
    pub(crate) fn claims(&mut self, claimed: Option<ClaimedContext>) {
        self.claimed = claimed.map(request::claimed);
    }

    /// Has attendants see the request, and what it waits for, from now on.
    pub(super) fn show<M: Carries>(&mut self, stream: &mut Stream<M>) {
        // Too many of other machines: those that wait already are shown.
        let shown = self.shown().ok().cloned();
        stream.set_shown(shown);
    }

    fn shown(&mut self) -> Result<&Arc<Waits>, Fault> {
        if self.shown.is_none() {
            let (claimed, summary) = (self.claimed.clone(), self.summary.clone());
            let waits = self.keyring.broker.begin(&self.caller, claimed, summary)?;
            self.shown = Some(Arc::new(waits));
        }
        Ok(self.shown.as_ref().expect("set above"))
    }

    /// Sets whether the last try of a PIN may be spent.
    pub(crate) fn set_use_last_try(&mut self, may: bool) {
        self.use_last_try = may;
    }

    /// Sets how many cards the request speaks to.
    pub(super) fn speaks_to(&mut self, cards: usize) {
        self.cards = u32::try_from(cards.max(1)).unwrap_or(u32::MAX);
    }

    /// Whether somebody may be waited for: to put in a card, to touch it again.
    pub(super) fn is_there(&self) -> bool {
        let attended = || self.keyring.broker.is_attended();
        self.mode != PromptMode::None && (!self.caller.is_forwarded() || attended())
    }

    /// Whether no step of the request was cut off: what was given for it is at hand.
    pub(super) fn can_go_on(&self) -> bool {
        self.prepared.is_some()
    }

    /// Runs `work` on a card, as [`Person::with`], and tells the caller what it waits for.
    pub(super) async fn with_card<T: Send + 'static, M: Carries>(
        &mut self,
        card: &Worker<CardStore>,
        stream: &mut Stream<M>,
        fresh: bool,
        work: Work<CardStore, T>,
    ) -> Result<T, Fault> {
        self.asked = true;
        if let Some(prepared) = &mut self.prepared {
            let notifier = self.keyring.notifier();
            let listening = self
                .listening
                .get_or_insert_with(|| Listening::new(notifier));
            prepared.tell(listening.sender());
            prepared.set_use_last_try(self.use_last_try);
        }
        self.work(card, stream, fresh, false, work).await
    }

    /// Sets the words that every prompt from now on shows.
    pub(super) fn about(&mut self, summary: Vec<String>) {
        self.summary = summary;
        self.shown = None;
    }

    /// Sets the rules of the policy that decided, for the log.
    pub(super) fn ruled_by(&mut self, rules: Vec<String>) {
        self.rules = rules;
    }

    /// How the next Start wants prompts.
    pub(super) fn set_mode(&mut self, mode: PromptMode, assume_yes: bool) {
        self.mode = mode;
        self.assume_yes = assume_yes;
    }

    /// The best grade given for this request so far; 0 when held secrets did.
    pub(super) fn grade(&self) -> u32 {
        let given = self.prepared.as_ref().map_or(0, Prepared::grade);
        given.max(self.approved)
    }

    /// Who asked and how it was answered, for the log: canonical JSON. `card`: where the key is, if
    /// on one.
    pub(super) fn facts(&self, card: &str) -> String {
        let channel = match self.grade() {
            0 => "held",
            4.. => "touch",
            2 if self.grant.is_some() => "grant",
            _ if self.mode == PromptMode::None => "given",
            _ => self.answered_by.unwrap_or("stream"),
        };
        let facts = Facts {
            caller: self.caller.facts(),
            card: (!card.is_empty()).then_some(card),
            consent: Consent {
                assumed_yes: self.assume_yes,
                channel,
                grant: self.grant.as_deref(),
                policy: (!self.rules.is_empty()).then_some(&self.rules),
            },
        };
        serde_json::to_string(&facts).expect("texts, numbers and truth values")
    }

    /// Forgets what was given: what comes is another change.
    pub(super) fn forget(&mut self) {
        self.end();
        // Under another name, so that nothing a store still holds for this one can answer.
        self.request = next_request();
        if let Some(prepared) = &mut self.prepared {
            prepared.forget(self.request);
        }
        self.approved = 0;
        self.answered_by = None;
        self.grant = None;
    }

    /// Runs `work` on a store, asking the person for whatever it turns out to need.
    ///
    /// `fresh`: held secrets do not count.
    pub(super) async fn with<S: KeyStore + 'static, T: Send + 'static, M: Carries>(
        &mut self,
        store: &Worker<S>,
        stream: &mut Stream<M>,
        fresh: bool,
        work: Work<S, T>,
    ) -> Result<T, Fault> {
        self.work(store, stream, fresh, false, work).await
    }

    /// As [`Person::with`], for work that takes microseconds once its secrets are held.
    pub(super) async fn with_held<S: KeyStore + 'static, T: Send + 'static, M: Carries>(
        &mut self,
        store: &Worker<S>,
        stream: &mut Stream<M>,
        fresh: bool,
        work: Work<S, T>,
    ) -> Result<T, Fault> {
        self.work(store, stream, fresh, true, work).await
    }

    async fn work<S: KeyStore + 'static, T: Send + 'static, M: Carries>(
        &mut self,
        store: &Worker<S>,
        stream: &mut Stream<M>,
        fresh: bool,
        quick: bool,
        work: Work<S, T>,
    ) -> Result<T, Fault> {
        // What is held here must not alone serve those for whom a request is forwarded.
        let fresh = fresh || (self.caller.is_forwarded() && self.approved < YES_ATTENDED);
        loop {
            let mut prepared = self.prepared.take().ok_or(Fault::Internal(
                "an earlier step of this request was cut off",
            ))?;
            prepared.begin(!fresh);
            let quick = quick && prepared.is_empty();
            let job = Arc::clone(&work);
            let job = move |store: &mut S| {
                let result = job(store, &mut prepared);
                (result, prepared)
            };
            // With nothing given yet there is nothing to derive a key from.
            let (result, mut prepared) = match quick {
                true => match store.run_now(job) {
                    Ok(done) => done,
                    Err(job) => store.run(job).await?,
                },
                false => match &mut self.listening {
                    None => store.run(job).await?,
                    Some(listening) => {
                        let there = self.mode != PromptMode::None;
                        let work = store.run(job);
                        listening
                            .attend(stream, &self.summary, there, work)
                            .await??
                    }
                },
            };
            let wanted = prepared.take_wanted();
            // What was typed may be held for the session from now on.
            let held_for = match prepared.is_empty() {
                true => None,
                false => prepared.session(),
            };
            self.prepared = Some(prepared);
            let error = match (result, wanted) {
                (Ok(done), _) => {
                    if let Some(session) = held_for {
                        self.keyring.broker.news.opened(Some(session));
                    }
                    return Ok(done);
                }
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(wanted)) if wanted.attempts_left == 0 => {
                    return Err(error.into());
                }
                (Err(error), Some(wanted)) => match self.ask_all(stream, &wanted, !fresh).await? {
                    Asked::Given(given) => {
                        let prepared = self.prepared.as_mut().expect("put back above");
                        prepared.give(wanted.name, wanted.new_secret, given);
                        continue;
                    }
                    Asked::Elsewhere => continue,
                    Asked::Nobody => error,
                },
            };
            return Err(error.into());
        }
    }

    /// Lets the stores forget what was opened for this request.
    fn end(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.keyring.end_request(self.request);
        }
    }
}

fn next_request() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RequestId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The terminal session to which what a person says belongs. Facts that may be another process's
/// give no right to it, and what is said for another machine serves nobody else.
fn own_session(caller: &Caller) -> Option<SessionId> {
    let here = caller.confirmed && !caller.is_forwarded();
    caller.session.filter(|_| here)
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
