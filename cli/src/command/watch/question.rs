//! One question on the screen, and what is typed in answer to it.
//!
//! A question takes no key until the keyboard has been quiet for a moment after it appeared: what
//! was meant for another question, or for none, answers nothing. A secret is kept in wiped memory
//! that never grows, and nothing of it is shown, not even how long it is.

use std::time::{Duration, Instant};

use signet_proto::v1::{
    self, AttendPrompt, NeedConfirm, NeedPassphrase, answer::Answer as Given, need_pin::What,
    prompt::Ask, secret::Source,
};
use zeroize::Zeroizing;

use super::keys::Key;
use crate::{
    agent::prompt::{MIN_TYPED, called, pin},
    ui::{
        card::tries,
        terminal::Typed,
        text::{escape, span},
    },
};

/// How long the keyboard has to be quiet before a question takes keys.
pub(super) const QUIET: Duration = Duration::from_millis(300);
/// Longest secret that is typed, in bytes.
const MAX_TYPED: usize = 4096;
/// For how long `t` says yes, where the agent allows as much.
const A_WHILE: u32 = 15 * 60;

/// The question that is shown.
#[derive(Debug)]
pub(super) struct Question {
    prompt: AttendPrompt,
    takes_keys: Instant,
    typed: Typed,
    /// What was typed first, where it is typed twice.
    first: Option<Typed>,
    /// Why what was typed is not sent.
    fault: String,
}

impl Question {
    /// Shows a question from now on.
    pub(super) fn new(prompt: AttendPrompt, now: Instant) -> Self {
        Self {
            prompt,
            takes_keys: now + QUIET,
            typed: nothing(),
            first: None,
            fault: String::new(),
        }
    }

    /// Its name.
    pub(super) fn id(&self) -> &str {
        self.prompt.prompt.as_ref().map_or("", |prompt| &prompt.id)
    }

    /// The request it is for.
    pub(super) const fn request(&self) -> u64 {
        self.prompt.request
    }

    /// When it takes keys, if it does not yet.
    pub(super) fn takes_keys_at(&self, now: Instant) -> Option<Instant> {
        (now < self.takes_keys).then_some(self.takes_keys)
    }

    fn ask(&self) -> Option<&Ask> {
        self.prompt.prompt.as_ref()?.ask.as_ref()
    }

    /// Whether letters are a secret.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.ask(), Some(Ask::Passphrase(_) | Ask::Pin(_)))
    }

    /// What it is for: the summary, not escaped.
    pub(super) fn summary(&self) -> &[String] {
        match self.ask() {
            Some(Ask::Passphrase(ask)) => &ask.summary,
            Some(Ask::Confirm(ask)) => &ask.summary,
            Some(Ask::Pin(ask)) => &ask.summary,
            None => &[],
        }
    }

    /// The question in words, and what is wrong with the last answer.
    pub(super) fn words(&self, wall: i64) -> (String, String) {
        let left = span(self.prompt.deadline.saturating_sub(wall).max(0));
        let (question, refused) = match self.ask() {
            Some(Ask::Passphrase(ask)) => (passphrase(ask), escape(&ask.refused)),
            Some(Ask::Pin(ask)) => {
                let line = pin::line(ask, false);
                (line.trim_end_matches(": ").to_owned(), escape(&ask.refused))
            }
            Some(Ask::Confirm(ask)) => (confirm(ask), String::new()),
            None => (
                "A question that this version does not know".into(),
                String::new(),
            ),
        };
        let question = match &self.first {
            Some(_) => format!("{question}: the same once more"),
            None => question,
        };
        let question = format!("{question} ({left} to answer)");
        let fault = match (self.fault.is_empty(), self.last_try()) {
            (false, _) => self.fault.clone(),
            (true, false) => refused,
            (true, true) if refused.is_empty() => LAST_TRY.to_owned(),
            (true, true) => format!("{refused}. {LAST_TRY}"),
        };
        (question, fault)
    }

    fn last_try(&self) -> bool {
        matches!(self.ask(), Some(Ask::Pin(ask))
            if ask.tries_left == 1 && matches!(ask.what(), What::Pin | What::Puk))
    }

    /// Which keys answer; nothing while none is taken.
    pub(super) fn hints(&self, now: Instant) -> String {
        if self.takes_keys_at(now).is_some() {
            return "(not yet: keys typed before it was shown do not answer it)".into();
        }
        match self.ask() {
            Some(Ask::Confirm(_)) if self.prompt.grant_seconds > 0 => format!(
                "y yes · n no · t yes, and for {} for requests of that terminal",
                span(self.longer().into())
            ),
            Some(Ask::Confirm(_)) => "y yes · n no".into(),
            Some(_) if self.typed.is_empty() => "Type it; nothing is shown. Esc declines".into(),
            Some(_) => "Enter sends what is typed · Ctrl-U clears it · Esc declines".into(),
            None => "Esc declines".into(),
        }
    }

    fn longer(&self) -> u32 {
        self.prompt.grant_seconds.min(A_WHILE)
    }

    /// Takes a key; the answer, if it is one.
    pub(super) fn key(&mut self, key: Key, now: Instant) -> Option<v1::Answer> {
        if now < self.takes_keys {
            // Somebody types, and cannot have read it yet.
            self.takes_keys = now + QUIET;
            return None;
        }
        let mut grant_seconds = 0;
        let given = match (self.ask(), key) {
            (Some(Ask::Confirm(_)), Key::Byte(b'y' | b'Y')) => Given::Yes(true),
            (Some(Ask::Confirm(_)), Key::Byte(b't' | b'T')) if self.prompt.grant_seconds > 0 => {
                grant_seconds = self.longer();
                Given::Yes(true)
            }
            (Some(Ask::Confirm(_)), Key::Byte(b'n' | b'N') | Key::Escape) => Given::Yes(false),
            (_, Key::Escape) => Given::Cancelled(v1::Cancelled {}),
            (Some(Ask::Passphrase(_) | Ask::Pin(_)), key) => self.secret(key)?,
            _ => return None,
        };
        Some(v1::Answer {
            prompt_id: self.id().to_owned(),
            answer: Some(given),
            grant_seconds,
        })
    }

    /// A key of a secret.
    fn secret(&mut self, key: Key) -> Option<Given> {
        match key {
            Key::Byte(byte) if self.typed.len() < MAX_TYPED => self.typed.push(byte),
            Key::Byte(_) => self.fault = format!("no secret has more than {MAX_TYPED} bytes"),
            Key::Backspace => {
                // A whole character: the bytes that continue it go, and the one that began it.
                while self.typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            Key::Clear => self.typed = nothing(),
            Key::Enter => return self.complete(),
            _ => {}
        }
        None
    }

    fn complete(&mut self) -> Option<Given> {
        if self.typed.is_empty() {
            return None;
        }
        let typed = std::mem::replace(&mut self.typed, nothing());
        self.fault.clear();
        let (fault, twice) = match self.ask()? {
            Ask::Passphrase(ask) => (weak(ask, &typed), ask.new_secret),
            Ask::Pin(ask) => {
                let fault = pin::fault(ask.what(), &typed, None).map(str::to_owned);
                (fault, matches!(ask.what(), What::NewPin | What::NewPuk))
            }
            Ask::Confirm(_) => return None,
        };
        if let Some(fault) = fault {
            self.fault = fault;
            return None;
        }
        match self.first.take() {
            None if twice => {
                self.first = Some(typed);
                None
            }
            Some(first) if *first != *typed => {
                self.fault = "The two are not the same.".into();
                None
            }
            // The copy lives until it has left through the socket.
            _ => Some(Given::Secret(v1::Secret {
                value: typed.to_vec(),
                source: Source::Typed.into(),
            })),
        }
    }
}

const LAST_TRY: &str = "This is the last try: a wrong one blocks it.";

/// Full size at once: growing would leave copies behind.
fn nothing() -> Typed {
    Zeroizing::new(Vec::with_capacity(MAX_TYPED))
}

fn passphrase(ask: &NeedPassphrase) -> String {
    let what = called(ask);
    if ask.new_secret {
        return format!("New passphrase for {what}, at least {MIN_TYPED} characters");
    }
    match tries(ask.attempts_left) {
        Some(tries) => format!("Passphrase of {what}, {tries}"),
        None => format!("Passphrase of {what}"),
    }
}

fn confirm(ask: &NeedConfirm) -> String {
    let question = escape(&ask.question);
    match ask.rule.as_str() {
        "" => question,
        rule => format!("{question} It overrides the rule {}.", escape(rule)),
    }
}

fn weak(ask: &NeedPassphrase, typed: &[u8]) -> Option<String> {
    let short = String::from_utf8_lossy(typed).chars().count() < MIN_TYPED;
    (ask.new_secret && short).then(|| format!("It must have at least {MIN_TYPED} characters."))
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::{NeedPin, Prompt};

    use super::*;

    fn asked(ask: Ask, grant_seconds: u32) -> (Question, Instant) {
        let now = Instant::now();
        let prompt = AttendPrompt {
            prompt: Some(Prompt {
                id: "7".into(),
                ask: Some(ask),
            }),
            request: 1,
            deadline: 300,
            grant_seconds,
        };
        (Question::new(prompt, now), now + QUIET)
    }

    fn passphrase_of(new_secret: bool) -> Ask {
        Ask::Passphrase(NeedPassphrase {
            new_secret,
            attempts_left: 3,
            ..NeedPassphrase::default()
        })
    }

    fn types(question: &mut Question, text: &str, now: Instant) -> Option<Given> {
        for byte in text.bytes() {
            assert!(question.key(Key::Byte(byte), now).is_none());
        }
        question
            .key(Key::Enter, now)
            .and_then(|answer| answer.answer)
    }

    fn secret(given: Option<Given>) -> String {
        match given {
            Some(Given::Secret(secret)) => String::from_utf8(secret.value.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_that_were_on_their_way_answer_nothing_and_put_off_the_question() {
        let (mut question, ready) = asked(Ask::Confirm(NeedConfirm::default()), 0);
        let early = ready - Duration::from_millis(1);
        assert!(question.key(Key::Byte(b'y'), early).is_none());
        assert!(
            question.key(Key::Byte(b'y'), ready).is_none(),
            "not quiet yet"
        );
        assert!(question.hints(ready).contains("not yet"));
        let quiet = ready + QUIET;
        assert!(question.hints(quiet).starts_with("y yes"));
        let answer = question.key(Key::Byte(b'y'), quiet).unwrap();
        assert_eq!(
            (answer.answer, answer.grant_seconds),
            (Some(Given::Yes(true)), 0)
        );
    }

    #[test]
    fn a_yes_for_longer_is_there_only_where_it_was_offered() {
        let (mut question, ready) = asked(Ask::Confirm(NeedConfirm::default()), 0);
        assert!(question.key(Key::Byte(b't'), ready).is_none());
        assert!(question.key(Key::Enter, ready).is_none());
        let (mut question, ready) = asked(Ask::Confirm(NeedConfirm::default()), 3600);
        let answer = question.key(Key::Byte(b't'), ready).unwrap();
        assert_eq!(
            (answer.answer, answer.grant_seconds),
            (Some(Given::Yes(true)), 900)
        );
        let (mut question, ready) = asked(Ask::Confirm(NeedConfirm::default()), 3600);
        let answer = question.key(Key::Escape, ready).unwrap();
        assert_eq!(answer.answer, Some(Given::Yes(false)));
    }

    #[test]
    fn a_secret_is_corrected_by_characters_and_never_shown() {
        let (mut question, ready) = asked(passphrase_of(false), 0);
        for byte in "pässq".bytes() {
            question.key(Key::Byte(byte), ready);
        }
        let (words, fault) = question.words(0);
        assert_eq!(
            words,
            "Passphrase of the keyring, 3 tries left (5 min to answer)"
        );
        assert!(fault.is_empty() && !question.hints(ready).contains("ss q"));
        for _ in 0..4 {
            question.key(Key::Backspace, ready);
        }
        assert_eq!(secret(types(&mut question, "x", ready)), "px");
        let (mut question, ready) = asked(passphrase_of(false), 0);
        assert!(
            question.key(Key::Enter, ready).is_none(),
            "nothing is no answer"
        );
        let cancelled = question.key(Key::Escape, ready).unwrap();
        assert!(matches!(cancelled.answer, Some(Given::Cancelled(_))));
    }

    #[test]
    fn a_new_secret_is_long_enough_and_typed_twice_alike() {
        let (mut question, ready) = asked(passphrase_of(true), 0);
        assert!(types(&mut question, "short", ready).is_none());
        assert!(question.words(0).1.contains("at least 8"));
        assert!(types(&mut question, "long enough", ready).is_none());
        assert!(question.words(0).0.contains("once more"));
        assert!(types(&mut question, "something else", ready).is_none());
        assert!(question.words(0).1.contains("not the same"));
        assert!(types(&mut question, "long enough", ready).is_none());
        assert_eq!(
            secret(types(&mut question, "long enough", ready)),
            "long enough"
        );
    }

    #[test]
    fn a_pin_that_cannot_be_right_is_not_sent() {
        let ask = NeedPin {
            what: What::Pin.into(),
            tries_left: 1,
            ..NeedPin::default()
        };
        let (mut question, ready) = asked(Ask::Pin(ask), 0);
        assert!(question.words(0).1.contains("last try"));
        assert!(types(&mut question, "123", ready).is_none());
        assert!(question.words(0).1.contains("nothing was sent"));
        assert_eq!(secret(types(&mut question, "73!aBc", ready)), "73!aBc");
    }

    #[test]
    fn a_secret_has_an_end() {
        let (mut question, ready) = asked(passphrase_of(false), 0);
        let long = "x".repeat(MAX_TYPED + 5);
        assert_eq!(secret(types(&mut question, &long, ready)).len(), MAX_TYPED);
    }
}
