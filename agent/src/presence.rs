//! The person: asked for secrets by the stores, and for consent by the path of a request.
//!
//! What an answer is worth is its grade: 1 yes on the caller's stream, 2 yes on an attending
//! terminal or in a pinentry, 3 a passphrase given for this request, 4 a touch. The caller's own
//! stream is asked first ([`stream`]), then whoever attends ([`broker`]), then a [`pinentry`].

pub mod approvals;
pub mod broker;
pub mod news;
pub mod notice;
pub mod pinentry;
pub mod prepared;
pub mod question;
pub mod stream;

use std::{fmt, time::Duration};

use signet_trust::KeyId;

use crate::key::Secret;

/// How long a person has for one answer.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Which secret is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// Opens `keyring.age`.
    Keyring,
    /// Opens `root.age`.
    Root,
    /// Opens one Docker-format key or an imported file.
    Key(KeyId),
    /// Encrypts an exported copy.
    Export,
    /// PIN of the card with this serial number.
    Pin(u32),
    /// PUK of the card with this serial number.
    Puk(u32),
    /// Management key of the card with this serial number, in hexadecimal.
    ManagementKey(u32),
}

/// A card as a person knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardName {
    /// Printed on it.
    pub serial: u32,
    /// Given here; empty if none.
    pub label: String,
    /// The slot that matters, empty if none does.
    pub slot: String,
}

impl fmt::Display for CardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.label.is_empty() {
            write!(f, "YubiKey {}", self.serial)
        } else {
            write!(f, "YubiKey {} ({:?})", self.serial, self.label)
        }
    }
}

/// What a question for a card's secret says beyond [`SecretRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfCard {
    /// Which card, and slot if a key is to be used.
    pub card: CardName,
    /// Tries before the card blocks it, 0: not known.
    pub tries_left: u8,
    /// The key to be used.
    pub key: Option<KeyId>,
    /// Cards that the request speaks to.
    pub cards: u32,
}

/// What a request waits for while nobody need type. The store's thread says it before it blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The card waits for a finger: said after this time, unless it is over by then.
    Touch {
        /// Which card and slot.
        card: CardName,
        /// Facts of the key.
        role: String,
        /// GUN of the key, empty if none.
        gun: String,
        /// Label of the key, empty if none.
        label: String,
        /// How long the card may take before it surely waits for a finger.
        after: Duration,
    },
    /// Another program may hold the card: said after this time, unless it is over by then.
    Busy {
        /// Which card.
        card: CardName,
        /// How long others may take.
        after: Duration,
    },
    /// What was said last is over.
    Over,
}

/// A question for a secret.
#[derive(Clone, Debug)]
pub struct SecretRequest {
    /// Which.
    pub name: SecretName,
    /// Role of the key, for the words and for picking a variable; empty for keyrings.
    pub role: String,
    /// GUN of the key, empty if none.
    pub gun: String,
    /// Label of the key, empty if none.
    pub label: String,
    /// A new secret is being chosen.
    pub new_secret: bool,
    /// Why the last answer did not do; empty at first.
    pub refused: String,
    /// Answers that may still be given, this one included.
    pub attempts_left: u32,
    /// For the secrets of cards.
    pub card: Option<OfCard>,
}

/// Why there is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The person said stop.
    #[error("the person cancelled")]
    Cancelled,
    /// The caller went away.
    #[error("the caller went away")]
    Gone,
    /// Nobody there to ask, or no source holds it.
    #[error("nobody is there to answer")]
    Unavailable,
}

/// Stands for the ID of an imported file that nobody has named; a prompt shows none.
pub const UNKNOWN: KeyId = KeyId([0; 32]);

/// Whether a person typed a secret: only then it is held for the terminal session. What came from
/// a descriptor, file or variable is given anew by whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// On a terminal.
    Yes,
    /// By descriptor, file or variable.
    No,
}

/// An answer, with what it is worth.
#[derive(Debug)]
pub struct Given {
    /// The secret.
    pub secret: Secret,
    /// Typed, or given by descriptor, file or variable, for this request: grade 3.
    pub grade: u32,
}

/// Kernel session id of the caller's terminal session; secrets typed for a request are held for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub i32);

/// One request, for secrets that live only as long as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// The person holding the key, as seen from a store. The agent's own implementation
/// ([`prepared::Prepared`]) never blocks: what it has not been given yet is unavailable, the store
/// ends without having changed anything, and is called again with the answer.
pub trait Presence: Send {
    /// Asks for a passphrase.
    ///
    /// # Errors
    ///
    /// When nobody answers.
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret>;

    /// Which request this is.
    fn request(&self) -> RequestId;

    /// The caller's terminal session, if the kernel told.
    fn session(&self) -> Option<SessionId>;

    /// Held (unlocked) secrets may be used. False for root keys by rule, and for forwarded callers.
    fn may_use_held(&self) -> bool {
        true
    }

    /// Tells the presence that the secret of this name was accepted with this grade (0: held).
    fn accepted(&mut self, name: &SecretName, grade: u32);

    /// Whether the last try of a PIN may be spent.
    fn use_last_try(&self) -> bool {
        false
    }

    /// Tells whoever waits for the request what it waits for. Never blocks.
    fn waits(&mut self, wait: Wait) {
        let _ = wait;
    }

    /// Whether nobody waits for the request any more: a card is not used for it then.
    fn is_gone(&self) -> bool {
        false
    }

    /// A finger touched the card for this request: grade 4, unless an earlier touch may have done.
    fn touched(&mut self) {}
}
