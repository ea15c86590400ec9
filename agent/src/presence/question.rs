//! Questions and answers as they cross a channel, whichever channel that is.

use signet_proto::v1::{
    self, NeedConfirm, NeedPassphrase, NeedPin, answer, need_passphrase, need_pin, prompt,
};

use super::{CardName, Given, NoSecret, SecretName, SecretRequest, Typed, UNKNOWN};
use crate::{key::Secret, keyring::Fault};

/// Longest secret taken.
const MAX_SECRET: usize = 64 * 1024;
/// What a secret that was given for this request is worth.
const GIVEN: u32 = 3;

/// A question for a secret on the wire.
///
/// # Errors
///
/// [`Fault::Internal`] for a card's secret without its card.
pub(crate) fn for_secret(ask: &SecretRequest, summary: &[String]) -> Result<prompt::Ask, Fault> {
    if let Some(need) = need_pin(ask, summary) {
        return Ok(prompt::Ask::Pin(need));
    }
    let (what, key_id) = match &ask.name {
        // Above.
        SecretName::Pin(_) | SecretName::Puk(_) | SecretName::ManagementKey(_) => {
            return Err(Fault::Internal("a card's secret without its card"));
        }
        SecretName::Keyring => (need_passphrase::What::Keyring, String::new()),
        SecretName::Root => (need_passphrase::What::Root, String::new()),
        // An imported file that nobody has named has no ID yet.
        SecretName::Key(UNKNOWN) => (need_passphrase::What::Key, String::new()),
        SecretName::Key(id) => (need_passphrase::What::Key, id.to_string()),
        SecretName::Export => (need_passphrase::What::Export, String::new()),
    };
    Ok(prompt::Ask::Passphrase(NeedPassphrase {
        what: what.into(),
        key_id,
        role: ask.role.clone(),
        gun: ask.gun.clone(),
        label: ask.label.clone(),
        attempts_left: ask.attempts_left,
        new_secret: ask.new_secret,
        refused: ask.refused.clone(),
        summary: summary.to_vec(),
    }))
}

/// A yes/no question on the wire, of which a yes is worth `grade`.
pub(crate) fn for_yes(question: &str, summary: &[String], grade: u32) -> prompt::Ask {
    prompt::Ask::Confirm(NeedConfirm {
        summary: summary.to_vec(),
        question: question.to_owned(),
        grade,
        rule: String::new(),
    })
}

/// What somebody said. A secret in it is wiped when it is dropped.
#[derive(Debug)]
pub enum Reply {
    /// A secret, and whether a person typed it.
    Secret(Secret, Typed),
    /// Yes or no.
    Yes(bool),
    /// Nobody is there, or no source holds the secret.
    Unavailable,
    /// The person said stop.
    Cancelled,
}

impl From<Option<answer::Answer>> for Reply {
    fn from(answer: Option<answer::Answer>) -> Self {
        match answer {
            Some(answer::Answer::Secret(v1::Secret { value, source })) => {
                let typed = match v1::secret::Source::try_from(source) {
                    Ok(v1::secret::Source::Typed) => Typed::Yes,
                    _ => Typed::No,
                };
                Self::Secret(Secret::new(value), typed)
            }
            Some(answer::Answer::Yes(yes)) => Self::Yes(yes),
            Some(answer::Answer::Cancelled(_)) => Self::Cancelled,
            Some(answer::Answer::Unavailable(_)) | None => Self::Unavailable,
        }
    }
}

/// What somebody who attends said.
#[derive(Debug)]
pub struct Answered {
    /// What.
    pub reply: Reply,
    /// For how long a yes is given.
    pub grant_seconds: u32,
}

impl From<v1::Answer> for Answered {
    fn from(answer: v1::Answer) -> Self {
        Self {
            reply: answer.answer.into(),
            grant_seconds: answer.grant_seconds,
        }
    }
}

/// The secret in an answer.
///
/// # Errors
///
/// [`Fault::NoSecret`], [`Fault::Malformed`] for an answer to something else.
pub(crate) fn secret(reply: Reply) -> Result<(Given, Typed), Fault> {
    match reply {
        Reply::Secret(secret, typed) => {
            if secret.expose().len() > MAX_SECRET {
                return Err(Fault::Malformed(format!(
                    "a passphrase of more than {MAX_SECRET} bytes"
                )));
            }
            let grade = GIVEN;
            Ok((Given { secret, grade }, typed))
        }
        Reply::Cancelled => Err(Fault::NoSecret(NoSecret::Cancelled)),
        Reply::Yes(_) => Err(Fault::Malformed(
            "a yes where a passphrase was asked for".to_owned(),
        )),
        Reply::Unavailable => Err(Fault::NoSecret(NoSecret::Unavailable)),
    }
}

/// The yes or no in an answer.
///
/// # Errors
///
/// As [`secret`].
pub(crate) fn yes(reply: Reply) -> Result<bool, Fault> {
    match reply {
        Reply::Yes(yes) => Ok(yes),
        Reply::Cancelled => Err(Fault::NoSecret(NoSecret::Cancelled)),
        Reply::Secret(..) => Err(Fault::Malformed(
            "a secret where a yes or no was asked for".to_owned(),
        )),
        Reply::Unavailable => Err(Fault::NoSecret(NoSecret::Unavailable)),
    }
}

/// A question for a card's secret on the wire; `None` for others.
fn need_pin(ask: &SecretRequest, summary: &[String]) -> Option<NeedPin> {
    use need_pin::What;

    let of = ask.card.as_ref()?;
    let what = match (&ask.name, ask.new_secret) {
        (SecretName::Pin(_), false) => What::Pin,
        (SecretName::Pin(_), true) => What::NewPin,
        (SecretName::Puk(_), false) => What::Puk,
        (SecretName::Puk(_), true) => What::NewPuk,
        (SecretName::ManagementKey(_), _) => What::ManagementKey,
        _ => return None,
    };
    Some(NeedPin {
        what: what.into(),
        card: Some(card_name(&of.card)),
        tries_left: of.tries_left.into(),
        refused: ask.refused.clone(),
        cards: of.cards.max(1),
        key_id: of.key.map(|id| id.to_string()).unwrap_or_default(),
        role: ask.role.clone(),
        gun: ask.gun.clone(),
        label: ask.label.clone(),
        summary: summary.to_vec(),
    })
}

/// A card's name on the wire.
#[must_use]
pub fn card_name(card: &CardName) -> v1::CardName {
    v1::CardName {
        serial: card.serial,
        label: card.label.clone(),
        slot: card.slot.clone(),
    }
}

/// 128 random bits in hex: the name of a prompt, used once.
///
/// # Errors
///
/// [`Fault::Internal`] when the system gives no randomness.
pub(crate) fn fresh_id() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Fault::Internal("the system gives no randomness"))?;
    Ok(hex::encode(bytes))
}
