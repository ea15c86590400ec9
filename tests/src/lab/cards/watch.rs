//! What pcscd has seen, as its clients see it.
//!
//! Waiting for pcscd means waiting for its event counters: that a reader shows a card may be an
//! echo from before, and a card that is back too early is one that pcscd never misses.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::home::built;
use super::super::keeper::end;
use super::super::ports::START;
use super::namespace::Namespace;

/// Two of pcscd's polls: a reader that is empty for so long has been seen empty by the daemon's
/// own event thread, and not only by a client whose reset failed.
const SETTLED: Duration = Duration::from_millis(900);

/// A client that watches all readers.
#[derive(Debug)]
pub(super) struct Watch {
    child: Child,
    reader: Option<JoinHandle<()>>,
    view: View,
}

/// What the client has seen so far. Clones look at the same.
#[derive(Clone, Debug, Default)]
pub(super) struct View(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) service: bool,
    pub(super) readers: BTreeMap<String, Reader>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) count: u64,
    pub(super) present: bool,
    since: Instant,
}

impl Seen {
    pub(super) fn present(&self, reader: &str) -> bool {
        self.readers
            .get(reader)
            .is_some_and(|reader| reader.present)
    }

    fn learn(&mut self, line: &str) {
        let Ok(change) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if let Some(service) = change["service"].as_bool() {
            self.service = service;
            self.readers.clear();
            return;
        }
        let (Some(name), Some(count), Some(present)) = (
            change["reader"].as_str(),
            change["count"].as_u64(),
            change["present"].as_bool(),
        ) else {
            return;
        };
        let reader = self.readers.entry(name.to_owned()).or_insert(Reader {
            count,
            present: !present,
            since: Instant::now(),
        });
        reader.count = count;
        if reader.present != present {
            reader.present = present;
            reader.since = Instant::now();
        }
    }
}

impl Watch {
    pub(super) fn start(namespace: Namespace) -> Result<Self> {
        let mut child = namespace
            .command(built("card-client"))
            .arg("watch")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run card-client")?;
        let output = child.stdout.take().context("it is piped")?;
        let view = View::default();
        let seen = view.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                seen.lock().learn(&line);
                seen.0.1.notify_all();
            }
        });
        Ok(Self {
            child,
            reader: Some(reader),
            view,
        })
    }

    pub(super) fn view(&self) -> View {
        self.view.clone()
    }

    pub(super) fn look(&self, question: impl FnOnce(&Seen) -> bool) -> bool {
        question(&self.view.lock())
    }

    #[track_caller]
    pub(super) fn wait(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        self.view.wait(what, wanted);
    }

    pub(super) fn empty_readers(&self) -> Vec<String> {
        let seen = self.view.lock();
        let empty = seen.readers.iter().filter(|reader| !reader.1.present);
        empty.map(|reader| reader.0.clone()).collect()
    }

    /// Waits until one of these readers holds a card, and names it.
    pub(super) fn newly_present(&self, empty: &[String]) -> Option<String> {
        let full = |seen: &Seen| empty.iter().find(|reader| seen.present(reader)).cloned();
        let seen = self.view.wait_until(START, |seen| full(seen).is_some())?;
        full(&seen)
    }
}

impl View {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().expect("the reading thread does not panic")
    }

    fn wait_until(
        &self,
        limit: Duration,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Option<MutexGuard<'_, Seen>> {
        let waited = self
            .0
            .1
            .wait_timeout_while(self.lock(), limit, |seen| !wanted(seen));
        let (seen, result) = waited.expect("the reading thread does not panic");
        (!result.timed_out()).then_some(seen)
    }

    #[track_caller]
    pub(super) fn wait(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        let came = self.wait_until(START, wanted).is_some();
        assert!(came, "waited {START:?} for {what}; seen: {:?}", self.lock());
    }

    /// Waits until pcscd knows well that this reader is empty, and returns its event counter.
    #[track_caller]
    pub(super) fn settle_empty(&self, reader: &str) -> u64 {
        loop {
            self.wait(&format!("{reader} to be empty"), |seen| {
                seen.readers
                    .get(reader)
                    .is_some_and(|reader| !reader.present)
            });
            let (count, left) = {
                let seen = self.lock();
                let Some(reader) = seen.readers.get(reader) else {
                    continue;
                };
                (reader.count, SETTLED.saturating_sub(reader.since.elapsed()))
            };
            if left.is_zero() {
                return count;
            }
            thread::sleep(left);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        end(&mut self.child);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
