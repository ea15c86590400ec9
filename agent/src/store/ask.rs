//! Asking for secrets: a few tries, each refusal said, then an error that says what was wrong.

use super::{StoreError, throttle::Throttle};
use crate::{
    key::Secret,
    presence::{Given, NoSecret, Presence, SecretName, SecretRequest},
};

/// Tries that a person gets per question.
const ATTEMPTS: u32 = 3;

/// Why an answer did not do.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// Another try may be right.
    Wrong,
    /// No other answer will do.
    Failed(StoreError),
}

impl From<StoreError> for Rejected {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What a secret opens, in the words of errors.
pub(crate) fn what(name: &SecretName) -> String {
    match name {
        SecretName::Keyring => "the keyring".to_owned(),
        SecretName::Root => "the root keyring".to_owned(),
        SecretName::Key(id) => format!("key {id}"),
        SecretName::Export => "the exported copy".to_owned(),
        SecretName::Pin(serial) => format!("the PIN of YubiKey {serial}"),
        SecretName::Puk(serial) => format!("the PUK of YubiKey {serial}"),
        SecretName::ManagementKey(serial) => format!("the management key of YubiKey {serial}"),
    }
}

/// A question without a key's facts.
pub(crate) fn plain(name: SecretName) -> SecretRequest {
    SecretRequest {
        name,
        role: String::new(),
        gun: String::new(),
        label: String::new(),
        new_secret: false,
        refused: String::new(),
        attempts_left: ATTEMPTS,
        card: None,
    }
}

/// Asks for a secret that exists, until `attempt` takes one.
///
/// # Errors
///
/// [`StoreError::Locked`] with nobody to ask, [`StoreError::WrongPassphrase`] when no answer was
/// right, [`StoreError::NoSecret`] when the person or the caller ended it, and what `attempt`
/// failed with.
pub(crate) fn ask<T>(
    presence: &mut dyn Presence,
    mut question: SecretRequest,
    or_damaged: bool,
    throttle: &Throttle,
    mut attempt: impl FnMut(&Secret) -> Result<T, Rejected>,
) -> Result<(T, Given), StoreError> {
    question.refused.clear();
    for attempts_left in (1..=ATTEMPTS).rev() {
        throttle
            .check(&question.name)
            .map_err(|wait| StoreError::TooManyWrong {
                what: what(&question.name),
                wait,
            })?;
        question.attempts_left = attempts_left;
        let given = match presence.secret(question.clone()) {
            Ok(given) => given,
            Err(NoSecret::Unavailable) if question.refused.is_empty() => {
                return Err(StoreError::Locked {
                    what: what(&question.name),
                });
            }
            // No other source has one: the answer that failed is what there is to report.
            Err(NoSecret::Unavailable) => break,
            Err(stopped) => return Err(stopped.into()),
        };
        match attempt(&given.secret) {
            Ok(opened) => {
                throttle.was_right(&question.name);
                presence.accepted(&question.name, given.grade);
                return Ok((opened, given));
            }
            Err(Rejected::Wrong) => {
                throttle.was_wrong(&question.name);
                question.refused = match or_damaged {
                    true => "wrong passphrase, or the file is damaged".to_owned(),
                    false => "wrong passphrase".to_owned(),
                };
            }
            Err(Rejected::Failed(error)) => return Err(error),
        }
    }
    Err(StoreError::WrongPassphrase {
        what: what(&question.name),
        or_damaged,
    })
}

/// Asks for a passphrase to be chosen. It is UTF-8 and not empty; more is the business of who types
/// it, because a passphrase from a file or variable is as long as its owner wanted it.
///
/// # Errors
///
/// As [`ask`], with [`StoreError::BadPassphrase`] when no answer could be used.
pub(crate) fn ask_new(
    presence: &mut dyn Presence,
    mut question: SecretRequest,
) -> Result<Given, StoreError> {
    question.new_secret = true;
    question.refused.clear();
    let mut bad = "none was given";
    for attempts_left in (1..=ATTEMPTS).rev() {
        question.attempts_left = attempts_left;
        let given = match presence.secret(question.clone()) {
            Ok(given) => given,
            Err(NoSecret::Unavailable) if question.refused.is_empty() => {
                return Err(StoreError::Locked {
                    what: what(&question.name),
                });
            }
            Err(NoSecret::Unavailable) => break,
            Err(stopped) => return Err(stopped.into()),
        };
        bad = match std::str::from_utf8(given.secret.expose()) {
            Ok("") => "it is empty",
            Ok(_) => {
                presence.accepted(&question.name, given.grade);
                return Ok(given);
            }
            Err(_) => "it is not UTF-8",
        };
        bad.clone_into(&mut question.refused);
    }
    Err(StoreError::BadPassphrase {
        what: what(&question.name),
        why: bad,
    })
}
