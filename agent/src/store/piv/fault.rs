//! What can go wrong with a card, in words for whoever holds it.

use signet_trust::KeyId;

use super::{
    card::CardError,
    pin::BadPin,
    slot::{Slot, Version},
};
use crate::presence::CardName;

/// Why a card did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardFault {
    /// What was typed cannot be a PIN.
    #[error("{card}: {why}")]
    BadPin {
        /// The card.
        card: CardName,
        /// Why.
        why: BadPin,
    },
    /// PIN or PUK is blocked.
    #[error("the {what} of {card} is blocked: it was wrong too many times")]
    Blocked {
        /// The card.
        card: CardName,
        /// `PIN` or `PUK`.
        what: &'static str,
    },
    /// The agent was built without cards.
    #[error("this agent was built without the store `piv`")]
    NotBuilt,
    /// Another program holds it.
    #[error("{card} is used by {holder}")]
    Busy {
        /// The card, or the reader's name where the card is not known.
        card: String,
        /// Who, or `another program`.
        holder: String,
    },
    /// Access denied, by polkit mostly.
    #[error("this user may not use cards: the system's policy refuses")]
    Denied,
    /// Factory credentials.
    #[error("{card} still has its factory {what}")]
    Factory {
        /// The card.
        card: CardName,
        /// `PIN`, `PUK`, `management key`.
        what: &'static str,
    },
    /// The firmware does not know it.
    #[error("{what} needs firmware {needed}; {card} has {found}")]
    Firmware {
        /// The card.
        card: CardName,
        /// What was asked.
        what: String,
        /// Oldest that does.
        needed: Version,
        /// What it has.
        found: Version,
    },
    /// Every slot is taken.
    #[error("{0} is full: every slot that a new key may go to holds one")]
    Full(CardName),
    /// No room in its memory.
    #[error("{0} has no room left for a certificate")]
    NoRoom(CardName),
    /// Not a YubiKey, or none that is known.
    #[error("the card in {reader:?} is no YubiKey that can be used: {why}")]
    Foreign {
        /// The reader.
        reader: String,
        /// What it lacks.
        why: String,
    },
    /// The PIN's last try.
    #[error("the PIN of {0} has one try left; it is not spent unasked")]
    LastTry(CardName),
    /// An answer of the card makes no sense.
    #[error("{card} answered something that makes no sense: {why}")]
    Malformed {
        /// The card.
        card: CardName,
        /// What.
        why: String,
    },
    /// The management key given is wrong.
    #[error("the management key of {0} is another one")]
    WrongManagementKey(CardName),
    /// A management key that nobody knows.
    #[error("{0} has a management key of its own, which is not stored under its PIN")]
    ManagementKey(CardName),
    /// Not in a reader.
    #[error("{} in no reader", missing(.0))]
    Missing(Vec<CardName>),
    /// A secret of the card is wanted, and nobody gave it.
    #[error("{card} needs its {what}")]
    Wanted {
        /// The card.
        card: CardName,
        /// `PIN`, `PUK`, `management key`.
        what: &'static str,
    },
    /// No PC/SC service.
    #[error("no PC/SC service (pcscd) is running, so no card can be reached")]
    NoService,
    /// No finger.
    #[error("{0} was not touched in time")]
    NotTouched(CardName),
    /// Another card sits in the reader by now.
    #[error("the card in the reader is not {0} any more")]
    Swapped(CardName),
    /// PC/SC failed otherwise.
    #[error("{card} cannot be reached: {source}")]
    Reach {
        /// The card, or a reader's name.
        card: String,
        /// Why.
        source: CardError,
    },
    /// A status word that says nothing more.
    #[error("{card} could not {what}: it answered {status:04x}")]
    Status {
        /// The card.
        card: CardName,
        /// What was asked.
        what: &'static str,
        /// Status word.
        status: u16,
    },
    /// A slot that holds something.
    #[error("slot {slot} of {card} holds {held}")]
    Taken {
        /// The card.
        card: CardName,
        /// The slot.
        slot: Slot,
        /// `key <id>`, or `a certificate`.
        held: String,
    },
    /// Nothing in the slot.
    #[error("slot {slot} of {card} holds no key")]
    Empty {
        /// The card.
        card: CardName,
        /// The slot.
        slot: Slot,
    },
    /// A message that an Ed25519 key on a card cannot take.
    #[error(
        "the document has {len} bytes, and the Ed25519 key on {card} signs the document itself, of \
         which the card takes {limit} bytes"
    )]
    TooLong {
        /// The card.
        card: CardName,
        /// Bytes of the document.
        len: usize,
        /// The most.
        limit: usize,
    },
    /// Its signature does not verify.
    #[error("a signature made by {card} does not verify with key {id}")]
    Unverified {
        /// The card.
        card: CardName,
        /// The key.
        id: KeyId,
    },
    /// It did not sign with the key that proves that it is the card.
    #[error(
        "slot {slot} of {card} did not prove that it holds key {id}, which is enrolled there; no PIN \
         was sent to it"
    )]
    Unproved {
        /// What it says it is.
        card: CardName,
        /// The slot.
        slot: Slot,
        /// The key.
        id: KeyId,
    },
    /// Wrong PIN or PUK.
    #[error("wrong {what} for {card}; {}", left(*.tries))]
    Wrong {
        /// The card.
        card: CardName,
        /// `PIN` or `PUK`.
        what: &'static str,
        /// Tries left.
        tries: u8,
    },
    /// The system failed, not the card.
    #[error("{0}")]
    System(&'static str),
}

fn missing(cards: &[CardName]) -> String {
    match cards {
        [] => "no YubiKey is".to_owned(),
        [card] => format!("{card} is"),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("none of {} is", names.join(", "))
        }
    }
}

/// `2 tries left`.
pub(super) fn left(tries: u8) -> String {
    match tries {
        1 => "one try left".to_owned(),
        tries => format!("{tries} tries left"),
    }
}

impl CardFault {
    /// Exit code of the contract and stable word.
    #[must_use]
    pub fn kind(&self) -> (u32, &'static str) {
        const FAILED: u32 = 1;
        const USAGE: u32 = 2;
        const REFUSED: u32 = 4;
        const LOCKED: u32 = 5;
        const CARD: u32 = 7;
        match self {
            Self::BadPin { .. } => (LOCKED, "card.bad_pin"),
            Self::Blocked { .. } => (LOCKED, "card.blocked"),
            Self::LastTry(_) => (LOCKED, "card.last_try"),
            Self::Wanted { .. } => (LOCKED, "card.locked"),
            Self::Wrong { .. } => (LOCKED, "card.wrong_pin"),
            Self::WrongManagementKey(_) => (LOCKED, "card.wrong_management_key"),
            Self::ManagementKey(_) => (LOCKED, "card.management_key"),
            Self::Busy { .. } => (CARD, "card.busy"),
            Self::Denied => (CARD, "card.denied"),
            Self::Missing(_) => (CARD, "card.missing"),
            Self::NoService => (CARD, "card.no_service"),
            Self::NotTouched(_) => (CARD, "card.touch_timeout"),
            Self::Reach { .. } => (CARD, "card.unreachable"),
            Self::Swapped(_) => (CARD, "card.swapped"),
            Self::NotBuilt => (USAGE, "card.not_built"),
            Self::Firmware { .. } => (USAGE, "card.firmware"),
            Self::Foreign { .. } => (FAILED, "card.foreign"),
            Self::Factory { .. } => (REFUSED, "card.factory"),
            Self::Taken { .. } => (REFUSED, "card.slot_taken"),
            Self::Full(_) => (FAILED, "card.full"),
            Self::NoRoom(_) => (FAILED, "card.no_room"),
            Self::Malformed { .. } => (FAILED, "card.malformed"),
            Self::Status { .. } => (FAILED, "card.status"),
            Self::Empty { .. } => (FAILED, "card.empty_slot"),
            Self::TooLong { .. } => (FAILED, "card.too_long"),
            Self::Unproved { .. } => (REFUSED, "card.unproved"),
            Self::Unverified { .. } => (FAILED, "card.unverified"),
            Self::System(_) => (FAILED, "card.system"),
        }
    }

    /// What the person can do about it.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Blocked { card, what: "PIN" } => format!(
                "`signet card pin {} --puk` sets a new PIN with the PUK, which is on the card's \
                 recovery sheet",
                card.serial
            ),
            Self::Blocked { card, .. } => format!(
                "without PIN and PUK nothing opens this card any more: `signet card reset {}` \
                 makes it usable again, and every key on it is lost",
                card.serial
            ),
            Self::BadPin { .. } => "give the card's PIN, 6 to 8 characters".to_owned(),
            Self::Busy { holder, .. } if holder.starts_with("scdaemon") => {
                "run `gpgconf --kill scdaemon`; `disable-ccid` and `pcsc-shared` in scdaemon.conf \
                 make it share cards"
                    .to_owned()
            }
            Self::Busy { .. } => "end the other program, then repeat the command".to_owned(),
            Self::Denied => {
                "install Signet's polkit rule and join its group; `signet doctor` shows both"
                    .to_owned()
            }
            Self::Factory { card, .. } => {
                format!("run `signet card setup {}`", card.serial)
            }
            Self::Full(_) => {
                "use another card, or name a slot and the key that is lost with --overwrite"
                    .to_owned()
            }
            Self::LastTry(card) => format!(
                "if you are sure of the PIN, add --use-last-try; `signet card pin {} --puk` sets a \
                 new one with the PUK",
                card.serial
            ),
            Self::ManagementKey(_) => {
                "give it with --management-key-fd N, or let `signet card setup` set one that is \
                 stored under the PIN"
                    .to_owned()
            }
            Self::Missing(_) => "put it into a reader, then repeat the command".to_owned(),
            Self::Wanted {
                what: "management key",
                ..
            } => "give it with --management-key-fd N".to_owned(),
            Self::Wanted { .. } => "type it when asked, or give it with --pin-fd".to_owned(),
            Self::NoService => {
                "install pcscd and start it (`systemctl enable --now pcscd.socket`); `signet \
                 doctor` says more"
                    .to_owned()
            }
            Self::NotTouched(_) => "repeat the command and touch the YubiKey when asked".to_owned(),
            Self::Taken { slot, card, .. } => format!(
                "choose another slot, or name the key that is lost: --store piv:{}:{slot} \
                 --overwrite KEYID",
                card.serial
            ),
            Self::TooLong { .. } => {
                "sign it with a P-256 key: of that, the card signs a digest".to_owned()
            }
            Self::Unproved { card, id, .. } => format!(
                "it may be another card made to look like {card}; if you put another key into that \
                 slot yourself, `signet key remove {id}` takes the old one out of the index"
            ),
            Self::Wrong { .. } => "give the right one".to_owned(),
            _ => return None,
        })
    }
}
