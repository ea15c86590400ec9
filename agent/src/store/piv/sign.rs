//! Signing: the PIN given, the card asked, the PIN taken back, in one transaction.

use std::time::{Duration, Instant};

use signet_trust::{Algorithm, KeyId, Method, PublicKey};

use super::{
    CardFault, CardStore, PinPolicy, Purpose, Slot, SlotFacts, StoreError, TouchPolicy, apdu,
    applet,
    card::{CardError, Exchange},
    encode,
};
use crate::presence::{Presence, Wait};

/// Answers that a person gets per question.
pub(super) const ATTEMPTS: u32 = 3;
/// A signature that takes longer waits for a finger: the slowest that are common take less
/// (Teleport's and others' heuristics; a P-256 signature takes 70 ms).
const SURELY_WAITS: Duration = Duration::from_millis(200);
/// A transaction of somebody else that lasts longer is worth a word.
const SURELY_BUSY: Duration = Duration::from_secs(2);
/// How long a touch counts on a key of policy `cached` (Yubico, "touch policy").
const CACHED: Duration = Duration::from_secs(15);
/// Beyond this no signature takes so long but for want of a finger.
const NEVER_SO_LONG: Duration = Duration::from_secs(5);

/// What a piece of work needs.
#[derive(Clone, Debug)]
pub(super) struct Need {
    /// The PIN.
    pub(super) pin: bool,
    /// The PIN again, whatever the card was left with.
    pub(super) always: bool,
    /// A finger confirms it, so that a held PIN will do where held secrets do not count.
    pub(super) by_touch: bool,
    /// May be done once more on a new connection.
    pub(super) again: bool,
    /// For which slot and key.
    pub(super) slot: Option<Slot>,
    pub(super) key: Option<KeyId>,
    /// In the words of an error.
    pub(super) what: &'static str,
}

/// One signature that is asked for.
#[derive(Clone, Debug)]
pub struct ToSign<'a> {
    /// By which key.
    pub id: KeyId,
    /// What the bytes are.
    pub purpose: Purpose,
    /// The bytes.
    pub message: &'a [u8],
}

/// One signature that the card is to make.
struct Task<'a> {
    asked: ToSign<'a>,
    slot: SlotFacts,
    algorithm: Algorithm,
    public: PublicKey,
    /// What the card is given.
    input: Vec<u8>,
}

/// What is done with the PIN given.
pub(super) type WithPin<'a, T> =
    &'a mut dyn FnMut(&mut dyn Exchange, &mut dyn Presence) -> Result<T, CardError>;

impl CardStore {
    /// Signs all of this, or nothing; the signatures are in the documents' encoding and verified.
    /// Keys that want neither the PIN each time nor a finger are used in one transaction, the PIN
    /// given once before all of them and taken back once after them.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`](crate::store::KeyStore::sign).
    pub fn sign_all(
        &mut self,
        asked: &[ToSign<'_>],
        presence: &mut dyn Presence,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        if self.facts.is_none() {
            self.arrive()?;
        }
        let tasks = asked
            .iter()
            .map(|asked| self.task(asked))
            .collect::<Result<Vec<Task<'_>>, _>>()?;
        let mut signatures = Vec::with_capacity(tasks.len());
        for together in
            tasks.chunk_by(|a, b| a.slot.is_signed_together() && b.slot.is_signed_together())
        {
            let answers = self.compute(together, presence)?;
            for (task, answer) in together.iter().zip(answers) {
                signatures.push(self.checked(task, &answer)?);
            }
        }
        Ok(signatures)
    }

    /// What the card is to be given. Whatever it cannot take is refused here, before anybody is
    /// asked for anything.
    fn task<'a>(&self, asked: &ToSign<'a>) -> Result<Task<'a>, StoreError> {
        let not_found = || StoreError::NotFound(asked.id);
        let facts = self.facts.as_ref().ok_or_else(not_found)?;
        let slot = facts.slot_of(&asked.id).cloned().ok_or_else(not_found)?;
        let (Some(algorithm), Some(public)) = (slot.algorithm, slot.public.clone()) else {
            return Err(not_found());
        };
        let input = encode::input(algorithm, asked.purpose, asked.message)
            .map_err(|_| CardFault::System("the system has no randomness"))?
            .ok_or_else(|| CardFault::TooLong {
                card: self.name_in(slot.slot),
                len: asked.message.len(),
                limit: encode::MAX_MESSAGE,
            })?;
        Ok(Task {
            asked: asked.clone(),
            slot,
            algorithm,
            public,
            input,
        })
    }

    /// What the card gave, as documents have it, if it is a signature by this key.
    fn checked(&self, task: &Task<'_>, answer: &[u8]) -> Result<Vec<u8>, StoreError> {
        let Task { asked, public, .. } = task;
        let method = match (task.algorithm, asked.purpose) {
            (Algorithm::Rsa(_), Purpose::Certificate) => Method::RsaPkcs1v15,
            _ => public.method(),
        };
        let unverified = || CardFault::Unverified {
            card: self.name_in(task.slot.slot),
            id: asked.id,
        };
        let signature = encode::signature(task.algorithm, answer).map_err(|_| unverified())?;
        public
            .verify(method, asked.message, &signature)
            .map_err(|_| unverified())?;
        Ok(signature)
    }

    /// Has the card compute these signatures in one transaction; as the card gives them.
    fn compute(
        &mut self,
        tasks: &[Task<'_>],
        presence: &mut dyn Presence,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let with_pin = tasks
            .iter()
            .find(|task| task.slot.pin != Some(PinPolicy::Never));
        let Some(first) = with_pin.or(tasks.first()) else {
            return Ok(Vec::new());
        };
        let need = Need {
            pin: with_pin.is_some(),
            always: first.slot.pin != Some(PinPolicy::Once),
            by_touch: first.slot.touch == Some(TouchPolicy::Always),
            again: true,
            slot: Some(first.slot.slot),
            key: first.slot.id,
            what: "sign",
        };
        // Several at once are of keys that want no finger.
        let touch = self.touch_of(&first.slot);
        let mut took = Duration::ZERO;
        let mut at = &first.slot;
        let signed = self.with_pin(&need, presence, &mut |card, presence| {
            if let Some(touch) = &touch {
                presence.waits(touch.clone());
            }
            let mut answers = Vec::with_capacity(tasks.len());
            for task in tasks {
                at = &task.slot;
                let started = Instant::now();
                let answer = applet::sign(card, at.slot, task.algorithm, &task.input);
                took = started.elapsed();
                if touch.is_some() {
                    presence.waits(Wait::Over);
                }
                answers.push(answer?);
            }
            Ok(answers)
        });
        let answers = match signed {
            Ok(answers) => answers,
            Err(StoreError::Card(CardFault::Status {
                status: apdu::NOT_SATISFIED,
                ..
            })) if at.touch.is_some_and(|policy| policy != TouchPolicy::Never)
                || (at.touch.is_none() && took > NEVER_SO_LONG) =>
            {
                return Err(CardFault::NotTouched(self.name_in(at.slot)).into());
            }
            Err(StoreError::Card(CardFault::Status {
                status: apdu::WRONG_DATA | apdu::NO_KEY | apdu::NOT_FOUND,
                ..
            })) => {
                let gone = CardFault::Empty {
                    card: self.name_of(),
                    slot: at.slot,
                };
                // What is known of the card is not so any more.
                self.arrive()?;
                return Err(gone.into());
            }
            Err(error) => return Err(error),
        };
        self.note_touch(&first.slot, first.algorithm, took, presence);
        Ok(answers)
    }

    fn touch_of(&self, slot: &SlotFacts) -> Option<Wait> {
        let after = match slot.touch {
            Some(TouchPolicy::Never) => return None,
            Some(TouchPolicy::Always) => Duration::ZERO,
            Some(TouchPolicy::Cached) | None => SURELY_WAITS,
        };
        let hint = slot.id.as_ref().and_then(|id| self.hints.get(id));
        let hint = hint.cloned().unwrap_or_default();
        Some(Wait::Touch {
            card: self.name_in(slot.slot),
            role: hint.role,
            gun: hint.gun,
            label: hint.label,
            after,
        })
    }

    fn note_touch(
        &mut self,
        slot: &SlotFacts,
        algorithm: Algorithm,
        took: Duration,
        presence: &mut dyn Presence,
    ) {
        match slot.touch {
            Some(TouchPolicy::Always) => {
                self.last_touch = Some(Instant::now());
                presence.touched();
            }
            // Within the window of an earlier touch nobody was asked; RSA may take this long.
            Some(TouchPolicy::Cached)
                if took > SURELY_WAITS && !matches!(algorithm, Algorithm::Rsa(_)) =>
            {
                let fresh = self.last_touch.is_none_or(|last| last.elapsed() > CACHED);
                if fresh {
                    self.last_touch = Some(Instant::now());
                    presence.touched();
                }
            }
            _ => {}
        }
    }

    /// Runs `work` in one transaction, the PIN given before it and taken back after it.
    pub(super) fn with_pin<T>(
        &mut self,
        need: &Need,
        presence: &mut dyn Presence,
        work: WithPin<'_, T>,
    ) -> Result<T, StoreError> {
        let mut again = need.again;
        let mut selected_again = false;
        let mut refusal = None;
        for _ in 0..ATTEMPTS + 3 {
            self.may_be_busy(presence);
            let pin = match need.pin {
                true => {
                    self.ready_for_pin()?;
                    let pin = self.pin(need, presence, &mut refusal)?;
                    self.ready_for_pin()?;
                    Some(pin)
                }
                false => {
                    self.ready()?;
                    None
                }
            };
            let skip = self.verified && !need.always;
            let leave = self.settings.leave_verified && need.pin && !need.always;
            let (mut done, mut status, mut forgotten) = (None, apdu::OK, true);
            let mut given = self.verified;
            let ran = self.on_card(&mut |card| {
                presence.waits(Wait::Over);
                if presence.is_gone() {
                    // It waited so long for the card that its caller has left.
                    return Err(CardError::Busy);
                }
                if let Some((pin, _)) = pin.as_ref().filter(|_| !skip) {
                    status = applet::verify(card, pin.expose())?;
                    given = status == apdu::OK;
                    if !given {
                        return Ok(());
                    }
                }
                let result = work(card, presence);
                if need.pin && !leave {
                    forgotten = match applet::forget(card) {
                        Ok(forgotten) => forgotten,
                        // A connection that broke after the work took the session with it.
                        Err(_) if result.is_ok() => false,
                        Err(error) => result.as_ref().err().cloned().map_or(Err(error), Err)?,
                    };
                }
                done = Some(result?);
                Ok(())
            });
            presence.waits(Wait::Over);
            if !forgotten {
                self.selected = false;
            }
            // Also after a refusal the card knows what it was left with.
            self.verified = given && (leave || !need.pin) && self.card.is_some();
            if status != apdu::OK {
                match apdu::tries(status) {
                    Some(tries) => refusal = Some(self.refused(tries, pin, presence)?),
                    // Another program has another application selected.
                    None if !selected_again => {
                        selected_again = true;
                        self.selected = false;
                    }
                    None => {
                        return Err(self
                            .failed("take the PIN", CardError::Status(status))
                            .into());
                    }
                }
                continue;
            }
            if let Some(done) = done {
                if let Some((pin, grade)) = pin {
                    self.accept(pin, grade, presence);
                }
                return Ok(done);
            }
            let Err(error) = ran else {
                return Err(CardFault::System("a card's work was not done").into());
            };
            match error {
                CardError::Status(apdu::NOT_SATISFIED) if skip => self.verified = false,
                CardError::Status(0x6d00 | 0x6e00) if !selected_again => {
                    selected_again = true;
                    self.selected = false;
                }
                CardError::Status(_) | CardError::Malformed(_) => {
                    return Err(self.failed(need.what, error).into());
                }
                error if again && error.is_of_the_connection() => {
                    again = false;
                    self.reconnected(need)?;
                }
                error => return Err(self.unreachable(error).into()),
            }
        }
        Err(refusal
            .unwrap_or(CardFault::System("a card refused too often"))
            .into())
    }

    /// Says that another program may hold the card, before the first word to it.
    pub(super) fn may_be_busy(&self, presence: &mut dyn Presence) {
        presence.waits(Wait::Busy {
            card: self.name_of(),
            after: SURELY_BUSY,
        });
    }

    /// After a broken connection: the same card, whose tries have not fallen.
    fn reconnected(&mut self, need: &Need) -> Result<(), CardFault> {
        let before = self.facts.as_ref().and_then(|facts| facts.pin_tries);
        self.ready()?;
        if !need.pin {
            return Ok(());
        }
        let now = self.read_tries()?;
        if before.zip(now).is_some_and(|(before, now)| now < before) {
            self.held.drop_all();
            return Err(CardFault::Reach {
                card: self.name_of().to_string(),
                source: CardError::Reset,
            });
        }
        Ok(())
    }
}
