//! One request's dealings with the person: what was given, and asking for what is missing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use signet_proto::v1::PromptMode;

use super::{Fault, Keyring, cards::Listening, worker::Worker};
use crate::{
    daemon::caller::{Caller, CallerFacts},
    presence::{
        Given, NoSecret, Presence, RequestId, SecretRequest, Typed,
        prepared::Prepared,
        stream::{Carries, Stream},
    },
    store::{KeyStore, StoreError, piv::CardStore},
};

/// Work for a store that may have to be done again once a secret is there.
pub(super) type Work<S, T> =
    Arc<dyn Fn(&mut S, &mut dyn Presence) -> Result<T, StoreError> + Send + Sync>;

/// Yes on the caller's own stream.
const YES_ON_STREAM: u32 = 1;

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
    /// held given stream touch
    channel: &'static str,
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
}

impl<'a> Person<'a> {
    /// Nothing asked, nothing given.
    pub(crate) fn new(
        keyring: &'a Keyring,
        caller: &Arc<Caller>,
        mode: PromptMode,
        assume_yes: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let request = RequestId(NEXT.fetch_add(1, Ordering::Relaxed));
        // Facts that may belong to another process give no right to what was typed in a terminal.
        let session = caller.session.filter(|_| caller.confirmed);
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
        }
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
        self.mode != PromptMode::None && !self.caller.is_forwarded()
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
        self.prepared.as_ref().map_or(0, Prepared::grade)
    }

    /// Who asked and how it was answered, for the log: canonical JSON. `card`: where the key is, if
    /// on one.
    pub(super) fn facts(&self, card: &str) -> String {
        let channel = match self.grade() {
            0 => "held",
            4.. => "touch",
            _ if self.mode == PromptMode::None => "given",
            _ => "stream",
        };
        let facts = Facts {
            caller: self.caller.facts(),
            card: (!card.is_empty()).then_some(card),
            consent: Consent {
                assumed_yes: self.assume_yes,
                channel,
                policy: (!self.rules.is_empty()).then_some(&self.rules),
            },
        };
        serde_json::to_string(&facts).expect("texts, numbers and truth values")
    }

    /// Forgets what was given: what comes is another change.
    pub(super) fn forget(&mut self) {
        if let Some(prepared) = &mut self.prepared {
            prepared.forget();
        }
        self.end();
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
        // What a forwarder's own machine opened must not serve those it forwards for.
        let fresh = fresh || self.caller.is_forwarded();
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
            self.prepared = Some(prepared);
            let error = match (result, wanted) {
                (Ok(done), _) => return Ok(done),
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(wanted)) if wanted.attempts_left == 0 => {
                    return Err(error.into());
                }
                (Err(error), Some(wanted)) => match self.ask(stream, &wanted).await? {
                    Some(given) => {
                        let prepared = self.prepared.as_mut().expect("put back above");
                        prepared.give(wanted.name, wanted.new_secret, given);
                        continue;
                    }
                    None => error,
                },
            };
            return Err(error.into());
        }
    }

    /// Asks for a secret; `None` when nobody has it.
    pub(super) async fn ask<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        ask: &SecretRequest,
    ) -> Result<Option<(Given, Typed)>, Fault> {
        if self.caller.is_forwarded() {
            return Err(Fault::Forwarded);
        }
        self.asked = true;
        let asked;
        let ask = match &ask.card {
            None => ask,
            Some(of) => {
                let mut of = of.clone();
                of.cards = self.cards;
                asked = SecretRequest {
                    card: Some(of),
                    ..ask.clone()
                };
                &asked
            }
        };
        match stream.secret(ask, &self.summary).await {
            Ok(given) => Ok(Some(given)),
            Err(Fault::NoSecret(NoSecret::Unavailable)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Asks a yes/no question; the grade of the yes.
    pub(super) async fn confirm<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
    ) -> Result<u32, Fault> {
        if self.assume_yes {
            return Ok(YES_ON_STREAM);
        }
        if self.caller.is_forwarded() {
            return Err(Fault::Forwarded);
        }
        if self.mode == PromptMode::None {
            return Err(Fault::NeedsYes(question.to_owned()));
        }
        if stream.confirm(question, &self.summary).await? {
            Ok(YES_ON_STREAM)
        } else {
            Err(Fault::Declined)
        }
    }

    /// Lets the stores forget what was opened for this request.
    fn end(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.keyring.end_request(self.request);
        }
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
