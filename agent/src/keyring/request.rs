//! One `Sign` stream, from its first byte to the server's answer.
//!
//! `parse → verify base → policy → guard → check → consent and secrets → sign → verify → record →
//! release`. The stores verify what they sign with the public key; the recorder re-checks the
//! guard's history in the transaction that writes the entries; only then does a signature leave.

mod head;
mod release;

use std::sync::Arc;

pub use self::head::read_request;
use self::{head::Room, release::Released};
pub(super) use self::{
    head::{Head, claimed},
    release::claims,
};
use super::{
    Fault, Keyring, Person,
    allowed::Allowed,
    base::{self, Found, Named},
    check as checks,
    collection::{Held, Turn},
    creation::Created,
    sign::Order,
};
use crate::{
    daemon::caller::Caller,
    ledger::NewEntry,
    presence::stream::{Carries, Stream},
    service::{Shared, now, status::word},
};
use signet_proto::v1::{
    Answer, NeedParts, Notice, Prompt, PromptMode, SignEvent, SignRequest, StaleBase, Waiting,
    sign_event, sign_request,
};
use signet_trust::{
    Gun,
    base::VerifiedBase,
    guard::{History, Pass, Question, Refusal, Rule, check, snapshot_is_covered},
    payload::{Item, added_digests, change_digest, summarise},
};

/// A yes of somebody who attends.
const ATTENDED: u32 = 2;

/// What follows messages of this request refer to.
#[derive(Debug)]
struct Open {
    head: Head,
    base: Option<VerifiedBase>,
    /// All items of the steps so far.
    items: Arc<Vec<Item>>,
    created: Option<Created>,
    released: Vec<Released>,
    /// Overrides that were consented to.
    overrides: Vec<Rule>,
    /// Bytes of it in memory; last, so that they are free before the room is.
    _room: Option<Room>,
}

impl Open {
    /// Whether what is asked now differs only in version, expiry and base.
    fn is_same_change(&self, now: &Self, items: &[Item]) -> bool {
        self.head.gun == now.head.gun
            && change_digest(self.base.as_ref(), &self.items)
                == change_digest(now.base.as_ref(), items)
    }
}

impl Carries for SignRequest {
    type Event = SignEvent;

    fn ask(prompt: Prompt) -> SignEvent {
        event(sign_event::Event::Prompt(prompt))
    }

    fn answer(self) -> Result<Answer, Self> {
        match self.message {
            Some(sign_request::Message::Answer(answer)) => Ok(answer),
            _ => Err(self),
        }
    }

    fn wait(waiting: Waiting) -> Option<SignEvent> {
        Some(event(sign_event::Event::Waiting(waiting)))
    }
}

fn event(event: sign_event::Event) -> SignEvent {
    SignEvent { event: Some(event) }
}

/// Serves a stream until the client has closed its side.
pub(crate) async fn serve(
    shared: &Shared,
    caller: &Arc<Caller>,
    stream: &mut Stream<SignRequest>,
) -> Result<(), Fault> {
    let person = Person::new(&shared.keyring, caller, PromptMode::Any, false);
    let mut request = Request {
        shared,
        keyring: &shared.keyring,
        person,
        open: None,
        earlier: None,
    };
    loop {
        let message = match &request.open {
            None => stream.next().await?,
            Some(_) => stream.next_at_leisure().await?,
        };
        let Some(message) = message else {
            return Ok(());
        };
        let result = match message.message {
            Some(sign_request::Message::Start(start)) => request.start(start, stream).await,
            Some(sign_request::Message::Step(step)) => request.step(step, stream).await,
            Some(sign_request::Message::Report(report)) => request.report(report, stream).await,
            _ => Err(Fault::Malformed("a message out of turn".to_owned())),
        };
        if let Err(fault) = result {
            request.log_failure(&fault).await;
            return Err(fault);
        }
    }
}

/// What a person's yes is asked for.
struct Approving<'a> {
    gun: &'a str,
    /// What it points tags to, if it does nothing else.
    digests: Option<Vec<[u8; 32]>>,
    /// A secret or a touch is wanted anyway: no grant answers.
    grave: bool,
}

impl Approving<'_> {
    /// Gets the yes that the policy asks for, and the one that a forwarded request always needs:
    /// from a grant, from whoever attends, or, where a rule only confirms, on the caller's stream.
    async fn of(
        &self,
        allowed: &Allowed,
        person: &mut Person<'_>,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let forwarded = person.caller.is_forwarded();
        let asks = forwarded || allowed.grade == ATTENDED;
        if !asks && allowed.confirm.is_empty() {
            return Ok(());
        }
        if !self.grave && person.take_grant(self.gun, self.digests.as_deref()) {
            return Ok(());
        }
        let question = match (forwarded, allowed.confirm.as_slice()) {
            (true, _) => "Sign this for another machine?".to_owned(),
            (false, []) => match allowed.rules.as_slice() {
                [] => "Sign this?".to_owned(),
                rules => format!("Sign this? The rule {} asks.", quoted(rules)),
            },
            (false, rules) => format!("Sign this, as {} asks?", quoted(rules)),
        };
        if asks && person.approve(stream, &question, !self.grave).await? {
            return Ok(());
        }
        if forwarded {
            return Err(Fault::Forwarded);
        }
        if !allowed.confirm.is_empty() {
            person.confirm(stream, &question).await?;
        }
        Ok(())
    }
}

fn quoted(rules: &[String]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
    rules.join(", ")
}

struct Request<'a> {
    shared: &'a Shared,
    keyring: &'a Keyring,
    person: Person<'a>,
    open: Option<Open>,
    /// The last request on this stream that came as far as the person: what was given for it counts
    /// for the same change only.
    earlier: Option<Open>,
}

impl Request<'_> {
    async fn start(
        &mut self,
        start: signet_proto::v1::Start,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        stream.set_finishing(false);
        stream.admit()?;
        if self.person.caller.is_forwarded() && !self.shared.forwarded.take() {
            return Err(Fault::TooMany);
        }
        if let Some(open) = self.open.take().filter(|open| !open.items.is_empty()) {
            self.earlier = Some(open);
        }
        self.person.claims(start.claimed_context.clone());
        let (mut head, plan) = head::read(start)?;
        if self.person.caller.is_forwarded() {
            // Another machine's directory says nothing about ours.
            head.docker_dir.clear();
        }
        self.person.set_mode(head.mode, head.assume_yes);
        self.person.set_use_last_try(head.use_last_try);
        let room = head::make_room(self.shared, plan.bytes(), stream).await?;
        let (named, items) = plan.receive(stream).await?;
        self.open = Some(Open {
            head,
            base: None,
            items: Arc::new(Vec::new()),
            created: None,
            released: Vec::new(),
            overrides: Vec::new(),
            _room: room,
        });
        let open = self.open.as_mut().expect("set above");
        if open.head.creation.is_some() {
            if !matches!(named, Named::Absent) {
                return Err(Fault::Malformed(
                    "the creation of a collection has no base".into(),
                ));
            }
            // Its keys, and so its consent, are new each time.
            self.earlier = None;
            self.person.forget();
            let created = self
                .keyring
                .create(&open.head, &mut self.person, stream)
                .await?;
            open.overrides.clone_from(&created.overrides);
            open.created = Some(created);
            return Ok(());
        }
        let mut turn = self
            .keyring
            .collections
            .enter(&open.head.gun, stream)
            .await?;
        let found = base::find(
            &open.head.gun,
            named,
            &mut turn,
            &self.keyring.recorder,
            now(),
        )
        .await?;
        open.base = match found {
            Found::Base(base) => base,
            Found::Missing(parts) => {
                self.open = None;
                let need = sign_event::Event::NeedParts(NeedParts { parts });
                return stream.send(event(need)).await;
            }
        };
        if let Some(base) = &open.base {
            let gun = &open.head.gun;
            let history = turn.history(gun, &self.keyring.recorder).await?;
            let told = self
                .keyring
                .compare_with_log(gun, base, &history, &self.person)
                .await?;
            for text in told {
                let notice = sign_event::Event::Notice(Notice { text });
                stream.send(event(notice)).await?;
            }
        }
        match self.earlier.take() {
            Some(earlier) if earlier.is_same_change(open, &items) => {
                open.overrides = earlier.overrides;
            }
            _ => self.person.forget(),
        }
        self.sign(items, turn, stream).await
    }

    /// A second step on the same stream, or what follows `Created`.
    async fn step(
        &mut self,
        step: signet_proto::v1::Step,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let plan = head::read_step(step)?;
        let Some(open) = self.open.as_mut() else {
            return Err(Fault::Malformed("a step without a start".to_owned()));
        };
        let _room = head::make_room(self.shared, plan.bytes(), stream).await?;
        let (_, items) = plan.receive(stream).await?;
        if let Some(created) = &open.created {
            created.check(&items)?;
        }
        let second = !open.released.is_empty();
        if second && !self.is_covered(&items) {
            self.person.forget();
        }
        let open = self.open.as_ref().expect("checked above");
        let turn = self
            .keyring
            .collections
            .enter(&open.head.gun, stream)
            .await?;
        self.sign(items, turn, stream).await
    }

    /// Whether the consent of the first step covers a second one.
    fn is_covered(&self, items: &[Item]) -> bool {
        let Some(open) = &self.open else { return false };
        let wires: Vec<_> = open
            .released
            .iter()
            .map(|doc| (doc.role.clone(), doc.wire(&open.items)))
            .collect();
        let released: Vec<_> = wires
            .iter()
            .map(|(role, wire)| (role.clone(), wire.as_slice()))
            .collect();
        items
            .iter()
            .all(|item| snapshot_is_covered(open.base.as_ref(), &item.payload, &released))
    }

    /// Guard, consent, signatures, ledger, release: for the items of one step.
    async fn sign(
        &mut self,
        items: Vec<Item>,
        mut turn: Turn,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let open = self
            .open
            .as_mut()
            .expect("a step belongs to an open request");
        let gun = &open.head.gun;
        let history = turn.history(gun, &self.keyring.recorder).await?;
        // Documents of the first step stand above those of the second: they are asked about again,
        // and pass as what was signed.
        let before = open.items.len();
        let mut all = Arc::unwrap_or_clone(std::mem::take(&mut open.items));
        all.extend(items);
        open.items = Arc::new(all);
        let question = Question {
            gun,
            base: open.base.as_ref(),
            items: &open.items,
            allow: &open.head.allow,
            now: now(),
            creating: open.created.is_some(),
        };
        self.keyring
            .allowed(
                (gun, open.base.as_ref(), &open.items, before),
                &self.person.caller,
                false,
            )
            .await?;
        let mut pass = match check(&history, &question) {
            Ok(pass) => pass,
            Err(refusal) => {
                if let Some(base) = &open.base {
                    base::observe(gun, base, &mut turn, &self.keyring.recorder).await?;
                }
                if let Refusal::StaleBase { reason, next } = refusal {
                    let of = (gun, open.base.as_ref());
                    let reason = self.keyring.why_stale(of.0, of.1, &history, reason).await?;
                    self.open = None;
                    let stale = sign_event::Event::StaleBase(StaleBase { reason, next });
                    return stream.send(event(stale)).await;
                }
                return Err(refused(gun, refusal, open.head.refetched));
            }
        };
        if let Some(base) = &open.base {
            self.keyring.bear_out(gun, base).await?;
        }
        let supersedes = self.superseded(&pass, &turn).await?;
        let mut summary = self.summary(&history, &pass, &supersedes, before);
        let allowed = self
            .put_to_policy(&mut pass, &mut summary, before, stream)
            .await?;
        self.announce_first_use(&pass, stream).await?;
        let open = self
            .open
            .as_mut()
            .expect("a step belongs to an open request");
        if pass
            .overrides
            .iter()
            .any(|rule| !open.overrides.contains(rule))
        {
            // Not what an earlier yes was about.
            self.person.forget();
        }
        self.person.about(summary.clone());
        self.person.ruled_by(allowed.rules.clone());
        let change = &open.items[before..];
        let asked = Approving {
            gun: open.head.gun.as_str(),
            digests: added_digests(open.base.as_ref(), change),
            grave: !pass.overrides.is_empty() || allowed.grade > ATTENDED,
        };
        asked.of(&allowed, &mut self.person, stream).await?;
        let order = Order {
            gun: &open.head.gun,
            base: open.base.as_ref(),
            items: &open.items,
            from: before,
            docker_dir: &open.head.docker_dir,
            // Without anybody's yes a secret given for the request has to do.
            fresh: !pass.overrides.is_empty() || allowed.grade > self.person.approved(),
        };
        let made = self
            .keyring
            .sign_items(order, &mut self.person, stream)
            .await?;
        if self.person.grade() < allowed.grade {
            return Err(Fault::Policy {
                rule: allowed.rules.join(", "),
                why: "a touch is wanted, and what signed is no key on a card that waits for one"
                    .to_owned(),
            });
        }
        open.overrides.clone_from(&pass.overrides);
        self.release(before, made, pass, history, summary, turn, stream)
            .await
    }

    /// Asks the policy about what the guard passed, and runs the checks that its rules name.
    async fn put_to_policy(
        &self,
        pass: &mut Pass,
        summary: &mut Vec<String>,
        from: usize,
        stream: &mut Stream<SignRequest>,
    ) -> Result<Allowed, Fault> {
        let open = self
            .open
            .as_ref()
            .expect("a step belongs to an open request");
        let (gun, items) = (&open.head.gun, &open.items[from..]);
        let caller = &self.person.caller;
        let overrides = !pass.overrides.is_empty();
        let base = open.base.as_ref();
        let step = (gun, base, open.items.as_slice(), from);
        let allowed = self.keyring.allowed(step, caller, overrides).await?;
        let checks = checks::run(&allowed.checks, gun, base, items, summary, caller);
        let checked = stream.while_there(checks).await??;
        summary.extend(checked.words);
        let Some(reason) = checked.refused else {
            return Ok(allowed);
        };
        if !open.head.allow.contains(&Rule::Check) {
            return Err(Fault::Refused {
                rule: Rule::Check,
                reason,
                next: 0,
                can_override: true,
            });
        }
        pass.overrides.push(Rule::Check);
        self.keyring.allowed(step, caller, true).await
    }

    /// The words for the person and the log.
    fn summary(
        &self,
        history: &History,
        pass: &Pass,
        supersedes: &[(
            signet_trust::RoleName,
            signet_trust::guard::Mark,
            Option<String>,
        )],
        from: usize,
    ) -> Vec<String> {
        let open = self
            .open
            .as_ref()
            .expect("a step belongs to an open request");
        let index = self.keyring.index();
        let label = |id: &signet_trust::KeyId| {
            let entry = index.get(id)?;
            (!entry.label.is_empty()).then(|| entry.label.clone())
        };
        let mut lines = summarise(
            &open.head.gun,
            open.base.as_ref(),
            &open.items[from..],
            now(),
            &label,
        )
        .lines;
        release::describe(history, pass, supersedes, &open.head, &mut lines);
        lines
    }

    async fn announce_first_use(
        &self,
        pass: &Pass,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let open = self
            .open
            .as_ref()
            .expect("a step belongs to an open request");
        if !pass.new_lineage || open.base.is_none() {
            return Ok(());
        }
        let text = format!(
            "first contact with {}: its root keys are recorded now and expected from here on",
            open.head.gun
        );
        stream
            .send(event(sign_event::Event::Notice(Notice { text })))
            .await
    }

    /// Failures and refusals are logged and move no state.
    async fn log_failure(&self, fault: &Fault) {
        let Some(open) = &self.open else { return };
        let refused = matches!(
            fault,
            Fault::Refused { .. }
                | Fault::Declined
                | Fault::NotEnrolled(_)
                | Fault::KeyRole { .. }
                | Fault::Conflict { .. }
                | Fault::Forwarded
                | Fault::ForwardedOnly
                | Fault::Policy { .. }
                | Fault::NothingToConfirmWith(..)
        );
        if matches!(
            fault,
            Fault::Gone | Fault::Stopping | Fault::Refetch { .. } | Fault::TooMany
        ) {
            return;
        }
        let item = open.items.last();
        let entry = NewEntry {
            kind: if refused { "refuse" } else { "fail" },
            time: now(),
            gun: open.head.gun.to_string(),
            role: item.map(|item| item.role.to_string()).unwrap_or_default(),
            version: item
                .and_then(|item| item.payload.document().ok())
                .map_or(0, signet_trust::document::Document::version),
            payload: item.map(|item| item.payload.hash()),
            summary: crate::keyring::fault::chain(fault),
            caller: self.person.caller.describe(),
            grade: self.person.grade(),
            rule: match fault {
                Fault::Refused { rule, .. } => rule.to_string(),
                Fault::Policy { rule, .. } => format!("policy: {rule}"),
                _ => String::new(),
            },
            outcome: word(fault).to_owned(),
            facts: self.person.facts(""),
            ..NewEntry::default()
        };
        if let Err(error) = self.keyring.log(entry).await {
            tracing::error!(%error, "a failure could not be logged");
        }
    }
}

pub(super) fn refused(gun: &Gun, refusal: Refusal, refetched: bool) -> Fault {
    let rule = refusal.rule();
    let next = refusal.next();
    let reason = match refusal.reason() {
        reason if reason.contains(gun.as_str()) => reason.to_owned(),
        reason => format!("{gun}: {reason}"),
    };
    match refusal {
        Refusal::RefetchOnce { .. } if !refetched => Fault::Refetch { rule, reason, next },
        Refusal::Refused { can_override, .. } => Fault::Refused {
            rule,
            reason,
            next,
            can_override,
        },
        // For a stale base there is an event of its own.
        Refusal::RefetchOnce { .. } | Refusal::StaleBase { .. } => Fault::Refused {
            rule,
            reason,
            next,
            can_override: true,
        },
    }
}

impl Keyring {
    /// What is recorded of a GUN, for a client that is about to ask.
    pub(crate) async fn collection(
        &self,
        gun: &Gun,
    ) -> Result<signet_proto::v1::CollectionReply, Fault> {
        use signet_proto::v1::{CollectionReply, Lineage};
        // Somebody at work on it may wait for a person: then the ledger says what it knows.
        let mut turn = self.collections.enter_if_free(gun);
        let history = match &mut turn {
            Some(turn) => turn.history(gun, &self.recorder).await?,
            None => {
                let gun = gun.clone();
                Arc::new(
                    self.recorder
                        .run(move |ledger| ledger.history(&gun))
                        .await?,
                )
            }
        };
        let roots = if history.collections.is_empty() {
            Vec::new()
        } else {
            let gun = gun.clone();
            self.recorder.run(move |ledger| ledger.roots(&gun)).await?
        };
        let lineages = history
            .collections
            .iter()
            .map(|(lineage, state)| {
                let wire = roots
                    .iter()
                    .find(|root| root.lineage == *lineage)
                    .map(|root| &root.wire);
                Lineage {
                    id: lineage.0.to_vec(),
                    root_version: wire.map_or(0, |wire| release::root_version(wire)),
                    root_sha256: wire
                        .map(|wire| super::collection::digest(wire).to_vec())
                        .unwrap_or_default(),
                    published: state.is_published(),
                }
            })
            .collect();
        let held = turn
            .as_ref()
            .and_then(|turn| turn.held.as_ref())
            .map(|held: &Held| held.hashes().map(|hash| hash.to_vec()).collect())
            .unwrap_or_default();
        Ok(CollectionReply { lineages, held })
    }
}
