//! A presence that never blocks: it knows the answers given so far, and notes what else is wanted.
//!
//! A store's thread must not wait for a person, or one forgotten prompt would stop everybody who
//! uses that store. So a store that asks for something not given yet gets
//! [`NoSecret::Unavailable`] and ends; the request's task sees what was wanted, asks the person,
//! and calls the store again.

use super::{Given, NoSecret, Presence, RequestId, SecretName, SecretRequest, SessionId};
use crate::key::Secret;

/// Answers for one secret before the request is refused.
const ATTEMPTS: u32 = 3;

/// What one request has been given.
#[derive(Debug)]
pub struct Prepared {
    request: RequestId,
    session: Option<SessionId>,
    may_use_held: bool,
    given: Vec<(SecretName, bool, Given)>,
    wrong: Vec<(SecretName, u32)>,
    wanted: Option<SecretRequest>,
    grade: u32,
}

impl Prepared {
    /// Nothing given yet.
    #[must_use]
    pub fn new(request: RequestId, session: Option<SessionId>) -> Self {
        Self {
            request,
            session,
            may_use_held: true,
            given: Vec::new(),
            wrong: Vec::new(),
            wanted: None,
            grade: 0,
        }
    }

    /// Sets whether held secrets may be used by what is called next.
    pub fn set_may_use_held(&mut self, may: bool) {
        self.may_use_held = may;
    }

    /// What the store wanted and was not given, with the attempts that are left; `None` where it
    /// ended for another reason.
    pub fn take_wanted(&mut self) -> Option<SecretRequest> {
        let mut wanted = self.wanted.take()?;
        wanted.attempts_left = ATTEMPTS.saturating_sub(self.wrong_answers(&wanted.name));
        Some(wanted)
    }

    /// Puts in an answer for the next call.
    pub fn give(&mut self, name: SecretName, new_secret: bool, given: Given) {
        self.given
            .retain(|(known, new, _)| (known, *new) != (&name, new_secret));
        self.given.push((name, new_secret, given));
    }

    /// The best grade of a secret given for this request and accepted; 0 when held ones did.
    #[must_use]
    pub fn grade(&self) -> u32 {
        self.grade
    }

    /// Forgets everything given: another request begins.
    pub fn forget(&mut self) {
        self.given.clear();
        self.wrong.clear();
        self.wanted = None;
        self.grade = 0;
    }

    fn wrong_answers(&self, name: &SecretName) -> u32 {
        self.wrong
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, count)| *count)
    }
}

impl Presence for Prepared {
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret> {
        let place = self
            .given
            .iter()
            .position(|(name, new, _)| *name == ask.name && *new == ask.new_secret);
        if let Some(place) = place {
            if ask.refused.is_empty() {
                let given = &self.given[place].2;
                return Ok(Given {
                    secret: Secret::copy_of(given.secret.expose()),
                    grade: given.grade,
                });
            }
            self.given.swap_remove(place);
            match self.wrong.iter_mut().find(|(name, _)| *name == ask.name) {
                Some((_, count)) => *count += 1,
                None => self.wrong.push((ask.name.clone(), 1)),
            }
        }
        self.wanted = Some(ask);
        Err(NoSecret::Unavailable)
    }

    fn request(&self) -> RequestId {
        self.request
    }

    fn session(&self) -> Option<SessionId> {
        self.session
    }

    fn may_use_held(&self) -> bool {
        self.may_use_held
    }

    fn accepted(&mut self, _name: &SecretName, grade: u32) {
        self.grade = self.grade.max(grade);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(refused: &str) -> SecretRequest {
        SecretRequest {
            name: SecretName::Keyring,
            role: String::new(),
            gun: String::new(),
            label: String::new(),
            new_secret: false,
            refused: refused.to_owned(),
            attempts_left: 3,
        }
    }

    fn given(word: &str) -> Given {
        Given {
            secret: Secret::new(word.as_bytes().to_vec()),
            grade: 3,
        }
    }

    #[test]
    fn what_is_not_given_is_noted_and_given_on_the_next_call() {
        let mut person = Prepared::new(RequestId(1), None);
        assert_eq!(person.secret(ask("")).unwrap_err(), NoSecret::Unavailable);
        assert_eq!(person.take_wanted().unwrap().attempts_left, 3);
        person.give(SecretName::Keyring, false, given("a"));
        // A store that is called twice for one request asks twice and is answered twice.
        assert_eq!(person.secret(ask("")).unwrap().secret.expose(), b"a");
        assert_eq!(person.secret(ask("")).unwrap().secret.expose(), b"a");
        assert!(person.take_wanted().is_none());
    }

    #[test]
    fn a_wrong_answer_is_forgotten_and_costs_an_attempt() {
        let mut person = Prepared::new(RequestId(1), None);
        for left in [2, 1, 0] {
            person.give(SecretName::Keyring, false, given("wrong"));
            assert!(person.secret(ask("")).is_ok());
            assert!(person.secret(ask("wrong passphrase")).is_err());
            let wanted = person.take_wanted().unwrap();
            assert_eq!(
                (wanted.attempts_left, wanted.refused.as_str()),
                (left, "wrong passphrase")
            );
        }
    }
}
