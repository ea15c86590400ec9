//! What an attendant knows: requests, questions, entries, and how the agent is. No I/O.
//!
//! One question is shown at a time, in the order in which they came; the others wait.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use signet_proto::v1::{
    Answer, AttendPrompt, LogEntry, StatusReply, WaitingRequest, attend_event::Event,
};

use super::{
    keys::Key,
    question::{QUIET, Question},
};

/// Log entries that are kept.
pub(super) const ENTRIES: usize = 50;
/// Requests and questions that are kept: more than the agent takes connections.
const MOST: usize = 1024;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) requests: BTreeMap<u64, WaitingRequest>,
    /// The question that is shown.
    pub(super) question: Option<Question>,
    /// Those that wait for it.
    pub(super) queue: VecDeque<AttendPrompt>,
    /// The newest last.
    pub(super) entries: VecDeque<LogEntry>,
    pub(super) status: Option<StatusReply>,
    /// Others who attend.
    pub(super) others: usize,
    /// What happened last.
    pub(super) notice: String,
    /// Lines that were scrolled past.
    pub(super) scrolled: usize,
    /// Until then letters are the rest of what was typed for a question that is gone.
    closed: Option<Instant>,
}

/// What a key asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Nothing,
    Answer(Answer),
    Lock,
    Redraw,
    End,
}

/// What an event calls for, beside being shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// Another question is shown: what was typed before is not for it.
    Asked,
    /// The agent's state may have changed.
    Changed,
}

impl Model {
    /// Takes in an event.
    pub(super) fn apply(&mut self, event: Event, now: Instant) -> Effect {
        match event {
            Event::Attending(attending) => self.others = attending.others.len(),
            Event::Request(request) => {
                if self.requests.len() < MOST || self.requests.contains_key(&request.id) {
                    self.requests.insert(request.id, request);
                }
            }
            Event::RequestOver(over) => {
                self.requests.remove(&over.id);
            }
            Event::Prompt(prompt) => {
                if self.queue.len() < MOST {
                    self.queue.push_back(prompt);
                }
                return self.ask_next(now);
            }
            Event::PromptOver(over) => {
                let id = over.prompt_id;
                self.queue
                    .retain(|one| one.prompt.as_ref().is_none_or(|prompt| prompt.id != id));
                if self.question.as_ref().is_some_and(|shown| shown.id() == id) {
                    self.question = None;
                    self.notice = match over.reason.as_str() {
                        "too late" => "The question was open for too long.".into(),
                        _ => "The request went away, and its question with it.".into(),
                    };
                    return self.ask_next(now);
                }
            }
            Event::Entry(entry) => {
                if self.entries.len() >= ENTRIES {
                    self.entries.pop_front();
                }
                self.entries.push_back(entry);
                return Effect::Changed;
            }
        }
        Effect::Nothing
    }

    fn ask_next(&mut self, now: Instant) -> Effect {
        if self.question.is_some() {
            return Effect::Nothing;
        }
        self.scrolled = 0;
        let Some(next) = self.queue.pop_front() else {
            self.closed = Some(now + QUIET);
            return Effect::Nothing;
        };
        self.question = Some(Question::new(next, now));
        Effect::Asked
    }

    /// When what is shown takes keys, if it does not yet.
    pub(super) fn takes_keys_at(&self, now: Instant) -> Option<Instant> {
        match &self.question {
            Some(question) => question.takes_keys_at(now),
            None => self.closed.filter(|closed| now < *closed),
        }
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: Key, now: Instant) -> Action {
        match key {
            Key::End => return Action::End,
            Key::Redraw => return Action::Redraw,
            Key::Up => {
                self.scrolled = self.scrolled.saturating_sub(1);
                return Action::Nothing;
            }
            Key::Down => {
                self.scrolled += 1;
                return Action::Nothing;
            }
            _ => {}
        }
        let Some(question) = &mut self.question else {
            if self.takes_keys_at(now).is_some() {
                self.closed = Some(now + QUIET);
                return Action::Nothing;
            }
            return match key {
                Key::Byte(b'q') => Action::End,
                Key::Byte(b'l') => Action::Lock,
                _ => Action::Nothing,
            };
        };
        if let Some(answer) = question.key(key, now) {
            self.question = None;
            self.notice = "Answered.".into();
            self.ask_next(now);
            return Action::Answer(answer);
        }
        match key {
            Key::Byte(b'q') if takes_commands(question, now) => Action::End,
            Key::Byte(b'l') if takes_commands(question, now) => Action::Lock,
            _ => Action::Nothing,
        }
    }
}

/// Letters that are no answer are commands, where they are not a secret's.
fn takes_commands(question: &Question, now: Instant) -> bool {
    !question.is_secret() && question.takes_keys_at(now).is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signet_proto::v1::{NeedConfirm, NeedPassphrase, Prompt, PromptOver, prompt::Ask};

    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn prompt(id: &str, ask: Ask) -> Event {
        Event::Prompt(AttendPrompt {
            prompt: Some(Prompt {
                id: id.into(),
                ask: Some(ask),
            }),
            request: 1,
            deadline: 0,
            grant_seconds: 0,
        })
    }

    fn over(id: &str) -> Event {
        Event::PromptOver(PromptOver {
            prompt_id: id.into(),
            reason: "withdrawn".into(),
        })
    }

    fn shown(model: &Model) -> &str {
        model.question.as_ref().map_or("", Question::id)
    }

    #[test]
    fn questions_are_shown_one_by_one_and_keys_of_one_never_reach_the_next() {
        let mut model = Model::default();
        let now = Instant::now();
        let secret = || Ask::Passphrase(NeedPassphrase::default());
        assert_eq!(model.apply(prompt("a", secret()), now), Effect::Asked);
        let second = prompt("b", Ask::Confirm(NeedConfirm::default()));
        assert_eq!(model.apply(second, now), Effect::Nothing);
        assert_eq!((shown(&model), model.queue.len()), ("a", 1));
        let later = now + LONG;
        assert_eq!(
            model.key(Key::Byte(b'q'), later),
            Action::Nothing,
            "a letter"
        );
        assert!(
            matches!(model.key(Key::Enter, later), Action::Answer(answer) if answer.prompt_id == "a")
        );
        assert_eq!(shown(&model), "b");
        assert_eq!(model.key(Key::Byte(b'y'), later), Action::Nothing);
        assert_eq!(model.key(Key::Byte(b'q'), later), Action::Nothing);
        let quiet = later + LONG;
        assert!(
            matches!(model.key(Key::Byte(b'y'), quiet), Action::Answer(answer) if answer.prompt_id == "b")
        );
        assert_eq!(model.key(Key::Byte(b'q'), quiet + LONG), Action::End);
    }

    #[test]
    fn a_withdrawn_question_goes_and_one_that_waits_is_never_shown() {
        let mut model = Model::default();
        let now = Instant::now();
        for id in ["a", "b", "c"] {
            model.apply(prompt(id, Ask::Confirm(NeedConfirm::default())), now);
        }
        model.apply(over("b"), now);
        assert_eq!(model.apply(over("a"), now), Effect::Asked);
        assert_eq!((shown(&model), model.queue.len()), ("c", 0));
        assert_eq!(model.apply(over("c"), now), Effect::Nothing);
        assert!(model.question.is_none() && model.notice.contains("went away"));
        // Letters of an answer that came too late are no commands.
        assert_eq!(model.key(Key::Byte(b'l'), now), Action::Nothing);
        assert_eq!(model.key(Key::Byte(b'l'), now + LONG), Action::Lock);
        assert_eq!(model.key(Key::End, now), Action::End);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut model = Model::default();
        for number in 0..=u64::try_from(MOST).unwrap() {
            let request = WaitingRequest {
                id: number,
                ..WaitingRequest::default()
            };
            model.apply(Event::Request(request), Instant::now());
            let entry = LogEntry {
                number,
                ..LogEntry::default()
            };
            assert_eq!(
                model.apply(Event::Entry(entry), Instant::now()),
                Effect::Changed
            );
        }
        assert_eq!((model.requests.len(), model.entries.len()), (MOST, ENTRIES));
    }
}
