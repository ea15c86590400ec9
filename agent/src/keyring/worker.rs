//! One thread per store, and one for the ledger.
//!
//! Stores block: scrypt burns a second of CPU, a card would wait for a finger. Each has a thread
//! that owns it, a queue, and no mutex. Nobody waits for a person here.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::Fault;
use crate::store::KeyStore;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Requests that may wait for one store; beyond, callers wait for the queue.
const QUEUE: usize = 256;
/// Stack of a worker: SQLite and big integers, no recursion over input.
pub(super) const STACK: usize = 512 * 1024;

/// A store on its thread.
#[derive(Debug)]
pub(super) struct Worker<S> {
    jobs: SyncSender<Job<S>>,
}

impl<S: KeyStore + 'static> Worker<S> {
    /// Moves `store` to a thread of its own, which ends when the worker is dropped.
    pub(super) fn start(mut store: S) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job<S>>(QUEUE);
        thread::Builder::new()
            .name(format!("store {}", store.name()))
            .stack_size(STACK)
            .spawn(move || {
                serve(&mut store, &queue);
                store.lock();
            })?;
        Ok(Self { jobs })
    }

    /// Runs `work` when its turn comes; nobody waits for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut S) + Send + 'static) {
        if let Err(TrySendError::Full(job)) = self.jobs.try_send(Box::new(work)) {
            let jobs = self.jobs.clone();
            tokio::task::spawn_blocking(move || jobs.send(job));
        }
    }

    /// Runs `work` on the store's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        let job: Job<S> = Box::new(move |store| {
            // A caller that is gone needs no answer.
            let _ = reply.send(work(store));
        });
        if let Err(error) = self.jobs.try_send(job) {
            match error {
                TrySendError::Full(job) => {
                    let jobs = self.jobs.clone();
                    tokio::task::spawn_blocking(move || jobs.send(job))
                        .await
                        .map_err(|_| Fault::Internal("the queue of a store broke"))?
                        .map_err(|_| Fault::Internal("the thread of a store has ended"))?;
                }
                TrySendError::Disconnected(_) => {
                    return Err(Fault::Internal("the thread of a store has ended"));
                }
            }
        }
        answer
            .await
            .map_err(|_| Fault::Internal("the store failed while it worked"))
    }
}

fn serve<S: KeyStore>(store: &mut S, queue: &Receiver<Job<S>>) {
    /// With nothing held there is nothing to forget.
    const IDLE: Duration = Duration::from_secs(24 * 3600);
    loop {
        let wait = store.expire().unwrap_or(IDLE);
        match queue.recv_timeout(wait) {
            Ok(job) => {
                // A panic in one request must neither end the store for all others nor leave it
                // with what it held.
                let work = std::panic::AssertUnwindSafe(|| job(store));
                if std::panic::catch_unwind(work).is_err() {
                    tracing::error!(store = store.name(), "a request panicked; secrets dropped");
                    store.lock();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
