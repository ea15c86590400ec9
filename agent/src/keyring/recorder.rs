//! The ledger on its thread: one writer, and one commit for all that waits together.

use std::{
    collections::VecDeque,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tokio::sync::oneshot;

use super::{Fault, worker::STACK};
use crate::ledger::{IndexEntry, Ledger, LedgerError, Write};

enum Job {
    Write(Box<Write>, oneshot::Sender<Result<Vec<u64>, LedgerError>>),
    Other(Box<dyn FnOnce(&mut Ledger) + Send>),
}

/// Most releases and reports in one transaction.
const GROUP: usize = 64;

/// The open ledger.
#[derive(Debug)]
pub(super) struct Recorder {
    jobs: Option<Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    /// Opens the ledger of `home` on a thread of its own.
    ///
    /// Gives the index as it is, too.
    pub(super) fn start(home: &Path) -> Result<(Self, Vec<IndexEntry>), LedgerError> {
        let mut ledger = Ledger::open(home)?;
        let index = ledger.index()?;
        let (jobs, queue) = channel();
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .stack_size(STACK)
            .spawn(move || serve(&mut ledger, &queue))
            .expect("the system has room for one more thread at start");
        Ok((
            Self {
                jobs: Some(jobs),
                thread: Some(thread),
            },
            index,
        ))
    }

    /// Runs `work` on the ledger's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Other(Box::new(move |ledger| {
            let _ = reply.send(work(ledger));
        })))?;
        Ok(answer.await.map_err(|_| BROKE)??)
    }

    /// Records a release or report; durable when it returns. What waits together shares a commit.
    pub(super) async fn write(&self, write: Write) -> Result<Vec<u64>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Write(Box::new(write), reply))?;
        Ok(answer.await.map_err(|_| BROKE)??)
    }

    fn send(&self, job: Job) -> Result<(), Fault> {
        let jobs = self.jobs.as_ref().expect("taken only on drop");
        jobs.send(job).map_err(|_| BROKE)
    }
}

const BROKE: Fault = Fault::Internal("the ledger's thread has ended");

impl Drop for Recorder {
    /// Waits until the ledger is closed.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn serve(ledger: &mut Ledger, queue: &Receiver<Job>) {
    let mut waiting = VecDeque::new();
    while let Some(job) = waiting.pop_front().or_else(|| queue.recv().ok()) {
        match job {
            Job::Other(work) => {
                let work = std::panic::AssertUnwindSafe(|| work(ledger));
                if std::panic::catch_unwind(work).is_err() {
                    tracing::error!("a request panicked in the ledger");
                }
            }
            Job::Write(write, reply) => {
                let mut group = vec![*write];
                let mut replies = vec![reply];
                while group.len() < GROUP {
                    match waiting.pop_front().or_else(|| queue.try_recv().ok()) {
                        Some(Job::Write(write, reply)) => {
                            group.push(*write);
                            replies.push(reply);
                        }
                        Some(other) => {
                            waiting.push_front(other);
                            break;
                        }
                        None => break,
                    }
                }
                for (reply, result) in replies.into_iter().zip(ledger.write_many(&group)) {
                    // Recorded all the same: a caller that is gone supersedes it next time.
                    let _ = reply.send(result);
                }
            }
        }
    }
}
