//! The ledger: one writer, and one commit for all that waits together.
//!
//! It has a thread of its own, because a disk may take its time. Where commits turn out to be quick
//! (on tmpfs, or on a disk with a battery), whoever brings a release and finds the ledger idle
//! commits it himself, together with what others have brought meanwhile: two changes of threads
//! would take longer than the commit.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{Fault, worker::STACK};
use crate::ledger::{IndexEntry, KnownCard, Ledger, LedgerError, Write};

enum Job {
    Write(Box<Write>, oneshot::Sender<Result<Vec<u64>, LedgerError>>),
    Other(Box<dyn FnOnce(&mut Ledger) + Send>),
}

/// Most releases and reports in one transaction.
const GROUP: usize = 64;
/// A commit that takes less is not worth a change of threads.
const QUICK: Duration = Duration::from_micros(300);

/// The open ledger.
#[derive(Debug)]
pub(super) struct Recorder {
    desk: Arc<Desk>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread and the callers share.
#[derive(Debug)]
struct Desk {
    ledger: Mutex<Ledger>,
    queue: Mutex<Queue>,
    brought: Condvar,
    /// The last commit was quick.
    quick: AtomicBool,
    /// Entries were written.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Opens the ledger of `home`, with a thread of its own.
    ///
    /// Gives the index and the cards as they are, too.
    pub(super) fn start(
        home: &Path,
    ) -> Result<(Self, Vec<IndexEntry>, Vec<KnownCard>), LedgerError> {
        let ledger = Ledger::open(home)?;
        let index = ledger.index()?;
        let cards = ledger.cards()?;
        let desk = Arc::new(Desk {
            ledger: Mutex::new(ledger),
            queue: Mutex::default(),
            brought: Condvar::new(),
            quick: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        });
        let served = Arc::clone(&desk);
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .stack_size(STACK)
            .spawn(move || served.serve())
            .expect("the system has room for one more thread at start");
        Ok((
            Self {
                desk,
                thread: Some(thread),
            },
            index,
            cards,
        ))
    }

    /// Tells that entries were written.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.desk.changes.subscribe()
    }

    /// Runs `work` on the ledger's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.desk.bring(Job::Other(Box::new(move |ledger| {
            // A caller that is gone needs no answer.
            let _ = reply.send(work(ledger));
        })));
        self.desk.brought.notify_one();
        Ok(answer.await.map_err(|_| BROKE)??)
    }

    /// Records a release or report; durable when it returns. What waits together shares a commit.
    pub(super) async fn write(&self, write: Write) -> Result<Vec<u64>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.desk.bring(Job::Write(Box::new(write), reply));
        if self.desk.quick.load(Ordering::Relaxed) {
            let untold = Untold(&self.desk);
            // Others that are ready bring theirs first, and share the commit.
            tokio::task::yield_now().await;
            if self.desk.commit_here() {
                std::mem::forget(untold);
            }
        } else {
            self.desk.brought.notify_one();
        }
        Ok(answer.await.map_err(|_| BROKE)??)
    }
}

/// A job was brought that the thread does not know of; it is told when the caller does not commit
/// the job itself, or is gone.
struct Untold<'a>(&'a Desk);

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.0.brought.notify_one();
    }
}

const BROKE: Fault = Fault::Internal("the ledger failed while it wrote");

impl Drop for Recorder {
    /// Waits until the ledger is closed.
    fn drop(&mut self) {
        self.desk.queue().closed = true;
        self.desk.brought.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bring(&self, job: Job) {
        self.queue().jobs.push_back(job);
    }

    /// Commits what waits, if the ledger is idle and all of it are writes. False when the thread
    /// has to be told.
    ///
    /// Whoever holds the ledger looks at the queue again after letting go of it, so what is brought
    /// meanwhile is never left behind.
    fn commit_here(&self) -> bool {
        loop {
            let mut ledger = match self.ledger.try_lock() {
                Ok(ledger) => ledger,
                Err(TryLockError::WouldBlock) => return true,
                Err(TryLockError::Poisoned(_)) => return false,
            };
            let group = self.queue().take_writes();
            if group.is_empty() {
                drop(ledger);
                return self.queue().jobs.is_empty();
            }
            self.commit(&mut ledger, group);
            drop(ledger);
            if self.queue().jobs.is_empty() {
                return true;
            }
        }
    }

    fn serve(&self) {
        loop {
            let queue = self.queue();
            let waiting = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
            let queue = self
                .brought
                .wait_while(queue, waiting)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.jobs.is_empty() {
                return;
            }
            drop(queue);
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let group = self.queue().take_writes();
            if !group.is_empty() {
                self.commit(&mut ledger, group);
                continue;
            }
            // A statement of its own, or the queue would stay locked while the job works.
            let job = self.queue().jobs.pop_front();
            match job {
                Some(Job::Other(work)) => {
                    let before = ledger.newest();
                    let work = std::panic::AssertUnwindSafe(|| work(&mut ledger));
                    if std::panic::catch_unwind(work).is_err() {
                        tracing::error!("a request panicked in the ledger");
                    }
                    // Most only read.
                    if ledger.newest() != before {
                        self.changed();
                    }
                }
                Some(write @ Job::Write(..)) => self.queue().jobs.push_front(write),
                // A caller has committed it.
                None => {}
            }
        }
    }

    fn changed(&self) {
        if self.changes.receiver_count() > 0 {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn commit(&self, ledger: &mut Ledger, group: Vec<Pending>) {
        let start = Instant::now();
        let (writes, replies): (Vec<Write>, Vec<_>) = group
            .into_iter()
            .map(|(write, reply)| (*write, reply))
            .unzip();
        let results = ledger.write_many(&writes);
        self.quick.store(start.elapsed() < QUICK, Ordering::Relaxed);
        self.changed();
        for (reply, result) in replies.into_iter().zip(results) {
            // Recorded all the same: a caller that is gone supersedes it next time.
            let _ = reply.send(result);
        }
    }
}

type Pending = (Box<Write>, oneshot::Sender<Result<Vec<u64>, LedgerError>>);

impl Queue {
    /// The writes at the front.
    fn take_writes(&mut self) -> Vec<Pending> {
        let mut group = Vec::new();
        while group.len() < GROUP
            && let Some(Job::Write(..)) = self.jobs.front()
            && let Some(Job::Write(write, reply)) = self.jobs.pop_front()
        {
            group.push((write, reply));
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::NewEntry;

    #[tokio::test]
    async fn those_who_follow_the_log_hear_of_entries_and_not_of_readers() {
        let dir = tempfile::tempdir().unwrap();
        let (recorder, _, _) = Recorder::start(dir.path()).unwrap();
        let mut changes = recorder.changes();
        recorder.run(|ledger| ledger.head()).await.unwrap();
        recorder.run(|ledger| ledger.entries(1, 10)).await.unwrap();
        assert!(!changes.has_changed().unwrap());
        let entry = NewEntry {
            kind: "lock",
            outcome: "done".to_owned(),
            ..NewEntry::default()
        };
        recorder
            .run(move |ledger| ledger.append(&entry))
            .await
            .unwrap();
        // It is told after the caller is: then it will be.
        changes.changed().await.unwrap();
    }
}
