//! A YubiKey as a store: its keys sign on the card, and never leave it.
//!
//! One [`CardStore`] is one card in one reader, with a thread of its own. What the card is and holds
//! is read once, when it arrives; a signature is VERIFY, GENERAL AUTHENTICATE and "forget the PIN"
//! in one transaction, and reads nothing. Nobody is asked for anything within a transaction: a PIN
//! that is wanted ends the call, and the request comes again with it. A PIN that the card refused is
//! not sent again, and the last try is never spent unasked.
//!
//! Only `store/piv/{pcsc,hotplug}.rs` know PC/SC; the rest speaks to [`card::Card`].

mod admin;
mod apdu;
mod applet;
pub mod attest;
pub mod card;
mod certificate;
mod encode;
mod enrolled;
pub mod facts;
mod fault;
mod given;
#[cfg_attr(not(feature = "piv"), path = "piv/hotplug_off.rs")]
pub mod hotplug;
mod keystore;
#[cfg(feature = "piv")]
mod pcsc;
pub mod pin;
mod provision;
mod sign;
mod slot;
pub mod tlv;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use signet_trust::KeyId;

pub use self::{
    admin::{Made, NewOnCard, Recovery, SetUp},
    enrolled::{Enrolled, EnrolledKeys},
    facts::{CardFacts, SlotFacts},
    fault::CardFault,
    sign::ToSign,
    slot::{BadSlot, PinPolicy, Slot, TouchPolicy, Version},
};
use self::{
    card::{Card, CardError, Reader},
    pin::Held,
};
use super::{
    Hint, NewKey, Purpose, StoreError,
    hold::{Clock, system_clock},
};
use crate::{
    key::Secret,
    presence::{CardName, RequestId, SessionId},
};

/// How a card is to be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardSettings {
    /// The PIN is not taken back after each signature: one exchange instead of three, and any other
    /// program of this user may sign meanwhile.
    pub leave_verified: bool,
    /// An unused connection is given back after this time.
    pub idle: Duration,
    /// How long a PIN is held.
    pub hold: Duration,
    /// What attestations are verified against.
    pub roots: Arc<Vec<Vec<u8>>>,
}

/// A connection is given back after this time without use, unless configured otherwise: long enough
/// for the signatures of a push, short enough for other programs.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(30);

impl Default for CardSettings {
    fn default() -> Self {
        Self {
            leave_verified: false,
            idle: DEFAULT_IDLE,
            hold: super::hold::DEFAULT_HOLD,
            roots: Arc::default(),
        }
    }
}

/// A PIN that was given for a request, and taken by the card.
struct Good {
    request: RequestId,
    pin: Secret,
    grade: u32,
    /// Whose terminal session it was typed in, if it was.
    session: Option<SessionId>,
}

/// Told whenever more is known of the card, or less.
pub type Publish = Box<dyn Fn(&Arc<CardFacts>) + Send>;

/// One card in one reader.
pub struct CardStore {
    reader: Box<dyn Reader>,
    card: Option<Box<dyn Card>>,
    /// The application is selected, as far as we know.
    selected: bool,
    facts: Option<Arc<CardFacts>>,
    label: String,
    settings: CardSettings,
    held: Held,
    /// What was given for a request and taken by the card: for that request only.
    good: Option<Good>,
    /// PINs that the card refused, each for the request that gave it.
    refused: Vec<(RequestId, Secret)>,
    /// What the index knows of cards.
    enrolled: Arc<EnrolledKeys>,
    /// The card has proved that it has its key, as far as it has one that proves it.
    proved: bool,
    /// `leave_verified`: the card knows the PIN.
    verified: bool,
    last_touch: Option<Instant>,
    last_use: Instant,
    hints: HashMap<KeyId, Hint>,
    publish: Publish,
    clock: Clock,
}

impl std::fmt::Debug for CardStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardStore")
            .field("reader", &self.reader.name())
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl CardStore {
    /// The card in `reader`; nothing is opened yet.
    #[must_use]
    pub fn new(reader: Box<dyn Reader>, settings: CardSettings, publish: Publish) -> Self {
        Self {
            reader,
            card: None,
            selected: false,
            facts: None,
            label: String::new(),
            settings,
            held: Held::default(),
            good: None,
            refused: Vec::new(),
            enrolled: Arc::default(),
            proved: false,
            verified: false,
            last_touch: None,
            last_use: Instant::now(),
            hints: HashMap::new(),
            publish,
            clock: system_clock(),
        }
    }

    /// Reads what the card is and holds.
    ///
    /// # Errors
    ///
    /// [`CardFault`].
    pub fn arrive(&mut self) -> Result<Arc<CardFacts>, CardFault> {
        let foreign = |store: &Self, why: &str| CardFault::Foreign {
            reader: store.reader.name().to_owned(),
            why: why.to_owned(),
        };
        let mut found = None;
        self.card = None;
        let enrolled = Arc::clone(&self.enrolled);
        let read = self.on_card(&mut |card| {
            match applet::select(card) {
                Err(CardError::Status(_)) => {
                    found = Some(Err("it has no PIV application"));
                    return Ok(());
                }
                done => done?,
            }
            match facts::read(card, &enrolled) {
                Ok(facts) => found = Some(Ok(facts)),
                // Every YubiKey tells its version and serial number.
                Err(CardError::Status(_) | CardError::Malformed(_)) => {
                    found = Some(Err("it tells neither version nor serial number"));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        });
        read.map_err(|error| self.unreachable(error))?;
        let facts = match found {
            Some(Ok(facts)) if facts.version < Version::OLDEST => {
                let why = format!("its firmware {} is too old", facts.version);
                return Err(foreign(self, &why));
            }
            Some(Ok(facts)) => facts,
            Some(Err(why)) => return Err(foreign(self, why)),
            None => return Err(CardFault::System("a card was not read")),
        };
        self.selected = true;
        Ok(self.set_facts(facts))
    }

    /// What is known of the card.
    #[must_use]
    pub fn facts(&self) -> Option<&Arc<CardFacts>> {
        self.facts.as_ref()
    }

    /// Sets its label and how it is to be treated, once its serial number is known.
    pub fn configure(&mut self, label: String, settings: CardSettings) {
        self.label = label;
        self.settings = settings;
    }

    /// Whether a PIN is held.
    #[must_use]
    pub fn holds_pin(&self) -> bool {
        self.held.is_some()
    }

    /// Its name, without a slot.
    #[must_use]
    pub fn name_of(&self) -> CardName {
        CardName {
            serial: self.facts.as_ref().map_or(0, |facts| facts.serial),
            label: self.label.clone(),
            slot: String::new(),
        }
    }

    fn name_in(&self, slot: Slot) -> CardName {
        CardName {
            slot: slot.to_string(),
            ..self.name_of()
        }
    }

    /// Reads again what may change while the card stays: tries and defaults.
    ///
    /// # Errors
    ///
    /// [`CardFault`].
    pub fn refresh(&mut self) -> Result<Arc<CardFacts>, CardFault> {
        let Some(facts) = &self.facts else {
            return self.arrive();
        };
        let mut facts = CardFacts::clone(facts);
        let mut read = self.read(&mut |card| facts::read_credentials(card, &mut facts))?;
        if read.is_ok() && facts.pin_tries.is_none() {
            // Nothing is told while another program has another application selected.
            self.selected = false;
            read = self.read(&mut |card| facts::read_credentials(card, &mut facts))?;
        }
        read.map_err(|error| self.unreachable(error))?;
        Ok(self.set_facts(facts))
    }

    fn set_facts(&mut self, facts: CardFacts) -> Arc<CardFacts> {
        let facts = Arc::new(facts);
        if self.facts.as_ref() != Some(&facts) {
            (self.publish)(&facts);
        }
        self.facts = Some(Arc::clone(&facts));
        facts
    }

    fn change_facts(&mut self, change: impl FnOnce(&mut CardFacts)) {
        if let Some(facts) = &self.facts {
            let mut facts = CardFacts::clone(facts);
            change(&mut facts);
            self.set_facts(facts);
        }
    }

    fn set_tries(&mut self, tries: u8) {
        self.change_facts(|facts| facts.pin_tries = Some(tries));
    }

    /// One transaction on an open card; a broken connection is dropped.
    fn on_card(&mut self, work: card::Work<'_>) -> Result<(), CardError> {
        self.last_use = Instant::now();
        let card = match &mut self.card {
            Some(card) => card,
            None => {
                self.selected = false;
                self.proved = false;
                self.verified = false;
                self.card.insert(self.reader.connect()?)
            }
        };
        let done = card.transaction(work);
        self.last_use = Instant::now();
        if done
            .as_ref()
            .is_err_and(|error| !matches!(error, CardError::Status(_) | CardError::Malformed(_)))
        {
            self.let_go();
        }
        done
    }

    /// Reads something; once more where the connection broke, or another program has another
    /// application selected. That is harmless, as no PIN is sent and nothing is changed.
    fn read(&mut self, work: card::Work<'_>) -> Result<Result<(), CardError>, CardFault> {
        self.ready()?;
        let read = self.on_card(work);
        match &read {
            Err(CardError::Status(_)) => self.selected = false,
            Err(error) if error.is_of_the_connection() => {}
            _ => return Ok(read),
        }
        self.ready()?;
        Ok(self.on_card(work))
    }

    fn let_go(&mut self) {
        self.card = None;
        self.selected = false;
        self.proved = false;
        self.verified = false;
    }

    /// Sees to it that the card is the one that is meant, and its application selected: after a
    /// reconnection the serial number and a known public key are looked at, before a PIN goes there.
    fn ready(&mut self) -> Result<(), CardFault> {
        if self.card.is_some() && self.selected {
            return Ok(());
        }
        let Some(facts) = self.facts.clone() else {
            return self.arrive().map(drop);
        };
        let mut same = false;
        let mut look = |store: &mut Self| {
            store.on_card(&mut |card| {
                applet::select(card)?;
                same = applet::version(card)? == facts.version
                    && applet::serial(card, facts.version)? == facts.serial;
                if let Some(known) = facts.slots.iter().find(|slot| slot.tells()) {
                    let found = facts::read_slot(card, known.slot, facts.version)?;
                    same &= found.is_some_and(|found| found.public == known.public);
                }
                Ok(())
            })
        };
        let looked = match look(self) {
            // One more connection: the first after a removal may be answered by the old session.
            Err(error) if error.is_of_the_connection() => look(self),
            looked => looked,
        };
        match looked {
            Ok(()) | Err(CardError::Status(_) | CardError::Malformed(_)) if !same => {
                self.held.drop_all();
                self.let_go();
                let name = self.name_of();
                // Another card, or the same with other keys: what is known of it is void.
                self.facts = None;
                Err(CardFault::Swapped(name))
            }
            Ok(()) => {
                self.selected = true;
                // With the selection the card forgot what it was left with.
                self.verified = false;
                Ok(())
            }
            Err(error) => Err(self.unreachable(error)),
        }
    }

    /// What an error of the connection means.
    fn unreachable(&self, error: CardError) -> CardFault {
        let card = match &self.facts {
            Some(_) => self.name_of().to_string(),
            None => format!("the card in {:?}", self.reader.name()),
        };
        match error {
            CardError::Busy => CardFault::Busy {
                card,
                holder: "another program".to_owned(),
            },
            CardError::Denied => CardFault::Denied,
            CardError::NoService => CardFault::NoService,
            CardError::Gone => {
                CardFault::Missing(self.facts.iter().map(|_| self.name_of()).collect())
            }
            CardError::Malformed(why) => CardFault::Malformed {
                card: self.name_of(),
                why: why.to_owned(),
            },
            source => CardFault::Reach { card, source },
        }
    }

    /// What the card's word means that ended `what`.
    fn failed(&self, what: &'static str, error: CardError) -> CardFault {
        let card = self.name_of();
        match error {
            CardError::Status(apdu::FULL) => CardFault::NoRoom(card),
            CardError::Status(status) => CardFault::Status { card, what, status },
            error => self.unreachable(error),
        }
    }
}

impl CardStore {
    /// Has the card forget a PIN that it was left with.
    fn take_back(&mut self) {
        if std::mem::take(&mut self.verified) {
            // A card that is gone has forgotten it already.
            let _ = self.on_card(&mut |card| applet::forget(card).map(drop));
        }
    }
}

impl Drop for CardStore {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Reads what a card may answer, as far as its form goes; for fuzzing. The first byte picks what the
/// rest is taken for.
#[doc(hidden)]
pub fn read_answer(bytes: &[u8]) {
    let Some((pick, answer)) = bytes.split_first() else {
        return;
    };
    match pick % 5 {
        0 => {
            if let Ok(facts) = facts::metadata(Slot::SIGNATURE, answer) {
                assert_eq!(facts.public.is_some(), facts.id.is_some());
            }
        }
        1 => drop(facts::certificate(answer)),
        2 => drop(attest::Statement::parse(answer)),
        3 => {
            for algorithm in [signet_trust::Algorithm::P256, signet_trust::Algorithm::P384] {
                if let Ok(signature) = encode::signature(algorithm, answer) {
                    assert!(matches!(signature.len(), 64 | 96));
                }
            }
        }
        _ => {
            for element in tlv::all(answer).into_iter().flatten() {
                let again = tlv::tlv(element.tag, &[element.value]);
                assert_eq!(tlv::only(&again, element.tag), Ok(element.value));
            }
        }
    }
}
