//! What the index knows of a card's slots, for the cards that tell too little of themselves, and for
//! those that only pretend to be the card.
//!
//! Serial number and public keys can be copied by whoever has seen them; a signature cannot. Where
//! 9e holds an enrolled key that wants neither PIN nor finger, a card has to sign with it before it
//! is told the PIN, after every new connection: it may have been another one's reader meanwhile.
//! Which key that is and what it wants is the index's word, not the card's.

use std::{collections::HashMap, sync::Arc};

use signet_trust::PublicKey;

use super::{
    CardFault, CardStore, PinPolicy, Slot, TouchPolicy, applet,
    card::{CardError, Exchange},
    encode,
};
use crate::store::Purpose;

/// A key that is enrolled as lying in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Where.
    pub slot: Slot,
    /// Which.
    pub public: PublicKey,
    /// When it wants the PIN, where known.
    pub pin: Option<PinPolicy>,
    /// When it wants a finger, where known.
    pub touch: Option<TouchPolicy>,
}

/// By the cards' serial numbers.
pub type EnrolledKeys = HashMap<u32, Vec<Enrolled>>;

/// What a card signs to prove that it has a key. It is no document: those begin with `{`.
const CHALLENGE: &[u8] = b"signet: a card proves that it holds its key before it gets a PIN\0";

impl CardStore {
    /// Sets what the index knows of cards; counts from the next connection on.
    pub fn set_enrolled(&mut self, enrolled: Arc<EnrolledKeys>) {
        self.enrolled = enrolled;
    }

    /// As [`CardStore::ready`], for what gives the card a PIN: a card that was away has proved that
    /// it has its key, where it has one that proves it.
    pub(super) fn ready_for_pin(&mut self) -> Result<(), CardFault> {
        self.ready()?;
        if self.proved {
            return Ok(());
        }
        let of_card = |serial| self.enrolled.get(serial).into_iter().flatten();
        let serial = self.name_of().serial;
        let key = of_card(&serial)
            .find(|key| key.is_asked_for_proof())
            .cloned();
        if let Some(key) = key {
            self.prove_possession(&key)?;
        }
        self.proved = true;
        Ok(())
    }

    fn prove_possession(&mut self, key: &Enrolled) -> Result<(), CardFault> {
        let mut proved = self.on_card(&mut |card| challenge(card, key));
        if proved.as_ref().is_err_and(CardError::is_of_the_connection) {
            self.ready()?;
            proved = self.on_card(&mut |card| challenge(card, key));
        }
        match proved {
            Ok(()) => Ok(()),
            Err(CardError::Status(_) | CardError::Malformed(_)) => {
                self.held.drop_all();
                self.good = None;
                Err(CardFault::Unproved {
                    card: self.name_of(),
                    slot: key.slot,
                    id: key.public.id(),
                })
            }
            Err(error) => Err(self.unreachable(error)),
        }
    }
}

impl Enrolled {
    /// Only 9e is made for that: other programs may count on the others' keys being asked for a PIN.
    fn is_asked_for_proof(&self) -> bool {
        self.slot == Slot::CARD_AUTHENTICATION
            && self.pin == Some(PinPolicy::Never)
            && self.touch == Some(TouchPolicy::Never)
    }
}

/// Has the card sign something that nobody signed before, and looks at the signature.
fn challenge(card: &mut dyn Exchange, key: &Enrolled) -> Result<(), CardError> {
    let none = CardError::Malformed("no proof");
    let algorithm = key.public.algorithm().map_err(|_| none.clone())?;
    let mut message = CHALLENGE.to_vec();
    let mut fresh = [0; 32];
    let no_randomness = |_| CardError::Other("the system has no randomness".to_owned());
    getrandom::fill(&mut fresh).map_err(no_randomness)?;
    message.extend_from_slice(&fresh);
    let input = encode::input(algorithm, Purpose::Document, &message)
        .map_err(no_randomness)?
        .ok_or(none.clone())?;
    let answer = applet::sign(card, key.slot, algorithm, &input)?;
    let signature = encode::signature(algorithm, &answer)?;
    key.public
        .verify(key.public.method(), &message, &signature)
        .map_err(|_| none)
}
