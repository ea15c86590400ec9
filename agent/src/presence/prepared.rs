//! A presence that never blocks: it knows the answers given so far, and notes what else is wanted.
//!
//! A store's thread must not wait for a person, or one forgotten prompt would stop everybody who
//! uses that store. So a store that asks for something not given yet gets
//! [`NoSecret::Unavailable`] and ends; the request's task sees what was wanted, asks the person,
//! and calls the store again.

use tokio::sync::mpsc::UnboundedSender;

use super::{
    Given, NoSecret, Presence, RequestId, SecretName, SecretRequest, SessionId, Typed, Wait,
};
use crate::key::Secret;

/// Answers for one secret before the request is refused.
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
struct Answer {
    name: SecretName,
    new_secret: bool,
    given: Given,
    typed: Typed,
}

/// What one request has been given.
#[derive(Debug)]
pub struct Prepared {
    request: RequestId,
    session: Option<SessionId>,
    may_use_held: bool,
    given: Vec<Answer>,
    /// What was handed out in this call was not typed: nothing of it is for the session.
    untyped: bool,
    wrong: Vec<(SecretName, u32)>,
    wanted: Option<SecretRequest>,
    grade: u32,
    use_last_try: bool,
    waits: Option<UnboundedSender<Wait>>,
}

/// What a touch is worth.
const TOUCHED: u32 = 4;

impl Prepared {
    /// Nothing given yet.
    #[must_use]
    pub fn new(request: RequestId, session: Option<SessionId>) -> Self {
        Self {
            request,
            session,
            may_use_held: true,
            given: Vec::new(),
            untyped: false,
            wrong: Vec::new(),
            wanted: None,
            grade: 0,
            use_last_try: false,
            waits: None,
        }
    }

    /// Sets whether the last try of a PIN may be spent.
    pub fn set_use_last_try(&mut self, may: bool) {
        self.use_last_try = may;
    }

    /// Sets who is told what the request waits for.
    pub fn tell(&mut self, waits: UnboundedSender<Wait>) {
        self.waits = Some(waits);
    }

    /// Begins a call of a store, in which held secrets may or may not be used.
    pub fn begin(&mut self, may_use_held: bool) {
        self.may_use_held = may_use_held;
        self.untyped = false;
    }

    /// What the store wanted and was not given, with the attempts that are left; `None` where it
    /// ended for another reason.
    pub fn take_wanted(&mut self) -> Option<SecretRequest> {
        let mut wanted = self.wanted.take()?;
        wanted.attempts_left = ATTEMPTS.saturating_sub(self.wrong_answers(&wanted.name));
        Some(wanted)
    }

    /// Puts in an answer for the next call.
    pub fn give(&mut self, name: SecretName, new_secret: bool, (given, typed): (Given, Typed)) {
        self.given
            .retain(|known| (&known.name, known.new_secret) != (&name, new_secret));
        self.given.push(Answer {
            name,
            new_secret,
            given,
            typed,
        });
    }

    /// Whether nothing was given yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The best grade of a secret given for this request and accepted; 0 when held ones did.
    #[must_use]
    pub fn grade(&self) -> u32 {
        self.grade
    }

    /// Forgets everything given: another request begins, of this name.
    pub fn forget(&mut self, request: RequestId) {
        self.request = request;
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
        let same = |known: &Answer| (&known.name, known.new_secret) == (&ask.name, ask.new_secret);
        if let Some(place) = self.given.iter().position(same) {
            if ask.refused.is_empty() {
                let Answer { given, typed, .. } = &self.given[place];
                self.untyped |= *typed == Typed::No;
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
        self.session.filter(|_| !self.untyped)
    }

    fn may_use_held(&self) -> bool {
        self.may_use_held
    }

    fn accepted(&mut self, _name: &SecretName, grade: u32) {
        self.grade = self.grade.max(grade);
    }

    fn use_last_try(&self) -> bool {
        self.use_last_try
    }

    fn waits(&mut self, wait: Wait) {
        if let Some(waits) = &self.waits {
            // A request that has ended needs to be told nothing.
            let _ = waits.send(wait);
        }
    }

    fn is_gone(&self) -> bool {
        self.waits.as_ref().is_some_and(UnboundedSender::is_closed)
    }

    fn touched(&mut self) {
        self.grade = TOUCHED;
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
            card: None,
        }
    }

    fn given(word: &str) -> (Given, Typed) {
        (
            Given {
                secret: Secret::new(word.as_bytes().to_vec()),
                grade: 3,
            },
            Typed::Yes,
        )
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

    #[test]
    fn what_nobody_typed_is_not_for_the_session() {
        let mut person = Prepared::new(RequestId(1), Some(SessionId(7)));
        let (answer, _) = given("a");
        person.give(SecretName::Keyring, false, (answer, Typed::No));
        person.begin(true);
        assert_eq!(person.session(), Some(SessionId(7)));
        person.secret(ask("")).unwrap();
        assert_eq!(person.session(), None);
        person.begin(true);
        assert_eq!(person.session(), Some(SessionId(7)));
    }
}
