//! One request's dealings with the person: what was given, and asking for what is missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use signet_proto::v1::{ClaimedContext, PromptMode, prompt};

use super::{Fault, Keyring, cards::Listening, grants, request, worker::Worker};
use crate::{
    daemon::caller::{Caller, CallerFacts},
    ledger::NewEntry,
    presence::{
        Given, NoSecret, Presence, RequestId, SecretName, SecretRequest, SessionId, Typed,
        approvals::{Scope, Wanted},
        broker::Waits,
        pinentry::Terminal,
        prepared::Prepared,
        question::{self, Answered},
        stream::{Carries, Stream},
    },
    service::now,
    store::{KeyStore, StoreError, piv::CardStore},
};

/// Work for a store that may have to be done again once a secret is there.
pub(super) type Work<S, T> =
    Arc<dyn Fn(&mut S, &mut dyn Presence) -> Result<T, StoreError> + Send + Sync>;

/// Yes on the caller's own stream.
const YES_ON_STREAM: u32 = 1;
/// Yes of somebody who attends, or of a grant that such a one gave.
const YES_ATTENDED: u32 = 2;
/// The longest that a yes in a prompt may be given for.
const LONGEST_YES: Duration = Duration::from_secs(60 * 60);

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

/// What came of asking for a secret.
enum Asked {
    Given((Given, Typed)),
    /// It may be held by now: somebody gave it elsewhere.
    Elsewhere,
    Nobody,
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

    /// Asks for a secret; `None` when nobody has it.
    pub(super) async fn ask<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        ask: &SecretRequest,
    ) -> Result<Option<(Given, Typed)>, Fault> {
        match self.ask_all(stream, ask, false).await? {
            Asked::Given(given) => Ok(Some(given)),
            Asked::Elsewhere | Asked::Nobody => Ok(None),
        }
    }

    /// Asks for a secret, on the caller's stream first, then whoever attends. `may_be_held`: a
    /// secret that comes to be held meanwhile will do.
    async fn ask_all<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        ask: &SecretRequest,
        may_be_held: bool,
    ) -> Result<Asked, Fault> {
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
        // Before anything is asked: what is opened from here on is not missed.
        let opening = self.keyring.broker.news.opening(self.session());
        if !self.caller.is_forwarded() {
            match stream.secret(ask, &self.summary).await {
                Ok(given) => return Ok(Asked::Given(given)),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => {}
                Err(fault) => return Err(fault),
            }
        }
        let question = question::for_secret(ask, &self.summary)?;
        let waits_for = waits_for(ask);
        let answer = tokio::select! {
            answer = self.ask_others(stream, &question, &waits_for, 0) => answer?,
            () = opening.happens(), if may_be_held && !ask.new_secret => return Ok(Asked::Elsewhere),
        };
        match answer {
            None if self.caller.is_forwarded() => Err(Fault::Forwarded),
            None => Ok(Asked::Nobody),
            Some(answered) => match question::secret(answered.reply) {
                Ok(given) => Ok(Asked::Given(given)),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => Ok(Asked::Nobody),
                Err(fault) => Err(fault),
            },
        }
    }

    /// Asks those who attend, then a pinentry; `None` when there is neither, or nobody may be asked.
    async fn ask_others<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &prompt::Ask,
        waits_for: &str,
        grant_seconds: u32,
    ) -> Result<Option<Answered>, Fault> {
        if self.mode == PromptMode::None {
            return Ok(None);
        }
        let shown = Arc::clone(self.shown()?);
        shown.says(waits_for);
        let keyring = self.keyring;
        let notifier = keyring.notifier();
        let mut lines = vec![self.caller.describe()];
        lines.extend(self.summary.iter().cloned());
        let title = format!("A request waits for {waits_for}: `signet watch` shows it");
        let asking = keyring.broker.ask(&shown, question, grant_seconds);
        let asking = notifier.while_waiting(&title, &lines, asking);
        let answer = stream.while_there(asking).await??;
        if answer.is_some() {
            self.answered_by = Some("attendant");
            shown.says("");
            return Ok(answer);
        }
        let (caller, terminal) = (self.caller.describe(), self.own_terminal());
        let asking = keyring.pinentry.ask(question, &caller, terminal.as_ref());
        let answer = stream.while_there(asking).await??;
        if answer.is_some() {
            self.answered_by = Some("pinentry");
        } else if self.caller.is_forwarded() {
            let title = "Another machine wanted to sign, and nobody attends: run `signet watch`";
            notifier.missed(title, &lines);
        }
        shown.says("");
        Ok(answer)
    }

    /// The caller's terminal, where its environment names the one that the kernel knows it by.
    fn own_terminal(&self) -> Option<Terminal> {
        /// Longest name of a kind of terminal (term(7)).
        const MAX_KIND: usize = 32;
        own_session(&self.caller)?;
        let claimed = self.claimed.as_ref()?;
        let path = format!("/dev/{}", self.caller.facts().terminal()?);
        let kind = claimed.terminal_type.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
        let fits = (1..=MAX_KIND).contains(&kind.len()) && kind.bytes().all(plain);
        (fits && claimed.terminal == path).then(|| Terminal {
            path,
            kind: kind.to_owned(),
        })
    }

    /// Asks a yes/no question; the grade of the yes.
    pub(super) async fn confirm<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
    ) -> Result<u32, Fault> {
        if !self.caller.is_forwarded() {
            if self.assume_yes {
                return Ok(YES_ON_STREAM);
            }
            if self.mode == PromptMode::None {
                return Err(Fault::NeedsYes(question.to_owned()));
            }
            match stream.confirm(question, &self.summary).await {
                Ok(true) => return Ok(YES_ON_STREAM),
                Ok(false) => return Err(Fault::Declined),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => {}
                Err(fault) => return Err(fault),
            }
        }
        match self.attendants_yes(stream, question, 0).await? {
            true => Ok(YES_ATTENDED),
            false if self.caller.is_forwarded() => Err(Fault::Forwarded),
            false => Err(Fault::NeedsYes(question.to_owned())),
        }
    }

    /// Whether somebody who attends says yes to the change; false when nobody does attend. Counts
    /// for the rest of the request.
    ///
    /// # Errors
    ///
    /// [`Fault::Declined`].
    pub(super) async fn approve<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
        may_grant: bool,
    ) -> Result<bool, Fault> {
        if self.approved >= YES_ATTENDED {
            return Ok(true);
        }
        let longest = match may_grant && self.session().is_some() {
            true => u32::try_from(LONGEST_YES.as_secs()).unwrap_or(0),
            false => 0,
        };
        let yes = self.attendants_yes(stream, question, longest).await?;
        if yes {
            self.approved = YES_ATTENDED;
        }
        Ok(yes)
    }

    /// What the yes to this change was worth so far.
    pub(super) fn approved(&self) -> u32 {
        self.approved
    }

    /// Takes a grant that was given beforehand as the yes to this change, if one fits.
    pub(super) fn take_grant(&mut self, gun: &str, digests: Option<&[[u8; 32]]>) -> bool {
        if self.approved >= YES_ATTENDED {
            return true;
        }
        let session = self.session();
        let wanted = Wanted {
            gun,
            session,
            digests,
        };
        self.grant = self.keyring.approvals.answer(&wanted);
        if self.grant.is_some() {
            self.approved = YES_ATTENDED;
        }
        self.grant.is_some()
    }

    /// The terminal session for which a yes may be given.
    pub(crate) fn session(&self) -> Option<SessionId> {
        own_session(&self.caller)
    }

    /// The caller's terminal, empty if it has none.
    pub(crate) fn terminal(&self) -> String {
        let terminal = self.caller.facts().terminal();
        terminal.unwrap_or_default().to_owned()
    }

    async fn attendants_yes<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
        grant_seconds: u32,
    ) -> Result<bool, Fault> {
        let ask = question::for_yes(question, &self.summary, YES_ATTENDED);
        let asked = self.ask_others(stream, &ask, "a yes", grant_seconds);
        let Some(answer) = asked.await? else {
            return Ok(false);
        };
        let longer = answer.grant_seconds.min(grant_seconds);
        match question::yes(answer.reply) {
            Ok(true) => {}
            Ok(false) => return Err(Fault::Declined),
            Err(Fault::NoSecret(NoSecret::Unavailable)) => return Ok(false),
            Err(fault) => return Err(fault),
        }
        if longer > 0
            && let Some(session) = self.session()
        {
            let scope = Scope::Session(session, self.terminal());
            let time = Duration::from_secs(longer.into());
            let words = grants::words(&scope, "", time);
            self.approved = YES_ATTENDED;
            let given = self.keyring.approvals.give(scope, "", time)?;
            let entry = NewEntry {
                kind: "grant",
                time: now(),
                summary: format!("{words} (grant {})", given.id),
                caller: self.caller.describe(),
                grade: YES_ATTENDED,
                outcome: "given".to_owned(),
                facts: self.facts(""),
                ..NewEntry::default()
            };
            self.keyring.log(entry).await?;
        }
        Ok(true)
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

/// What a request waits for while a secret is asked for.
fn waits_for(ask: &SecretRequest) -> String {
    let of = ask.card.as_ref().map(|of| of.card.to_string());
    match (&ask.name, of) {
        (SecretName::Keyring, _) => "the passphrase of the keyring".to_owned(),
        (SecretName::Root, _) => "the passphrase of the root keyring".to_owned(),
        (SecretName::Key(_) | SecretName::Export, _) => "a passphrase".to_owned(),
        (SecretName::Pin(_), Some(card)) => format!("the PIN of {card}"),
        (_, Some(card)) => format!("a secret of {card}"),
        (_, None) => "a secret of a card".to_owned(),
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
