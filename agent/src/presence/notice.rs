//! What a person should hear of now, whatever he is looking at: a card waits for a finger, a
//! request waits for an answer.
//!
//! A [`Notifier`] holds the set of what is to be shown, not a queue: whoever shows it looks at the
//! set when it changes. So telling costs a short lock and never waits, what is over before anybody
//! saw it is never shown, and a flood of requests costs `MAX_SHOWN` notices. Nothing here knows
//! how they are shown; where nobody does, they are told to nobody.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use signet_trust::payload::escape;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Notices at once; what comes beyond them is not shown.
const MAX_SHOWN: usize = 8;
/// Lines of a notice; they are small windows.
const MAX_LINES: usize = 6;
/// Characters of a line.
const MAX_LINE: usize = 160;

/// Who sits before the prompt has answered by then, or has at least seen it.
const UNSEEN: Duration = Duration::from_secs(2);
/// How long it is shown that a request found nobody.
const MISSED: Duration = Duration::from_secs(20);

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A card waits for a finger, for some seconds.
    Touch,
    /// A request waits for somebody who answers.
    Waiting,
}

/// What is to be shown. Never a secret; names in it are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// About what.
    pub kind: Kind,
    /// One line.
    pub summary: String,
    /// What else there is to say.
    pub lines: Vec<String>,
}

/// What is to be shown now, in the order in which it came up.
#[derive(Clone, Debug, Default)]
pub struct Current {
    next: u64,
    notices: BTreeMap<u64, Notice>,
}

impl Current {
    /// Each with a number that no other one had or gets.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Notice)> {
        self.notices.iter().map(|(id, notice)| (*id, notice))
    }
}

/// Where the agent says what a person should hear of. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<watch::Sender<Current>>);

impl Default for Notifier {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Current::default())))
    }
}

impl Notifier {
    /// Has a notice shown until what it returns is dropped. Never blocks. Control and bidirectional
    /// characters are escaped, and what is too long is cut.
    #[must_use]
    pub fn show(&self, kind: Kind, summary: &str, lines: &[String]) -> Shown {
        let notice = Notice {
            kind,
            summary: short(summary),
            lines: lines
                .iter()
                .filter(|line| !line.is_empty())
                .take(MAX_LINES)
                .map(|line| short(line))
                .collect(),
        };
        let mut id = 0;
        self.0.send_if_modified(|current| {
            current.next += 1;
            id = current.next;
            let room = current.notices.len() < MAX_SHOWN;
            if room {
                current.notices.insert(id, notice);
            }
            room
        });
        Shown {
            notifier: self.clone(),
            id,
        }
    }

    /// Waits for an answer; where it does not come at once, that it is waited for is shown meanwhile.
    pub async fn while_waiting<T>(
        &self,
        summary: &str,
        lines: &[String],
        answer: impl Future<Output = T>,
    ) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(UNSEEN, &mut answer).await {
            return answer;
        }
        let _shown = self.show(Kind::Waiting, summary, lines);
        answer.await
    }

    /// Shows for a while that nobody was there. Never blocks; called on the runtime.
    pub fn missed(&self, summary: &str, lines: &[String]) {
        let shown = self.show(Kind::Waiting, summary, lines);
        tokio::spawn(async move {
            sleep(MISSED).await;
            drop(shown);
        });
    }

    /// What is to be shown, and its changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Current> {
        self.0.subscribe()
    }
}

/// A notice; dropping it says that it is over.
#[derive(Debug)]
pub struct Shown {
    notifier: Notifier,
    id: u64,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.notifier
            .0
            .send_if_modified(|current| current.notices.remove(&self.id).is_some());
    }
}

fn short(text: &str) -> String {
    let text = escape(text);
    match text.char_indices().nth(MAX_LINE) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_there_until_it_is_over() {
        let notifier = Notifier::default();
        let mut watcher = notifier.subscribe();
        let first = notifier.show(Kind::Touch, "touch", &["a".to_owned(), String::new()]);
        let second = notifier.show(Kind::Waiting, "waits", &[]);
        let seen: Vec<_> = watcher
            .borrow_and_update()
            .iter()
            .map(|(_, notice)| notice.clone())
            .collect();
        assert_eq!(
            seen.iter().map(|n| n.summary.as_str()).collect::<Vec<_>>(),
            ["touch", "waits"]
        );
        assert_eq!(seen[0].lines, ["a"]);
        drop(first);
        assert!(watcher.has_changed().unwrap());
        assert_eq!(watcher.borrow_and_update().iter().count(), 1);
        drop(second);
        assert_eq!(watcher.borrow_and_update().iter().count(), 0);
    }

    #[test]
    fn a_flood_shows_the_first_few_and_leaves_nothing_behind() {
        let notifier = Notifier::default();
        let shown: Vec<Shown> = (0..1000)
            .map(|_| notifier.show(Kind::Waiting, "waits", &[]))
            .collect();
        let watcher = notifier.subscribe();
        assert_eq!(watcher.borrow().iter().count(), MAX_SHOWN);
        drop(shown);
        assert_eq!(watcher.borrow().iter().count(), 0);
    }

    #[test]
    fn names_are_escaped_and_long_ones_cut() {
        let notifier = Notifier::default();
        let _shown = notifier.show(
            Kind::Touch,
            "a\u{202e}b",
            &["x\ny".to_owned(), "é".repeat(500)],
        );
        let current = notifier.subscribe();
        let current = current.borrow();
        let (_, notice) = current.iter().next().unwrap();
        assert_eq!(notice.summary, "a\\u{202e}b");
        assert_eq!(notice.lines[0], "x\\u{a}y");
        assert_eq!(notice.lines[1].chars().count(), MAX_LINE + 1);
    }
}
