//! One thread per store, and one for the ledger.
//!
//! Stores block: scrypt burns a second of CPU, a card would wait for a finger. Each has a thread
//! and a queue, and nobody waits for a person here. What is known to be quick (a key that is held
//! is handed out in microseconds) may be done by the caller's own thread while the store is idle:
//! two changes of threads would cost more than the work.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
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
    store: Arc<Mutex<S>>,
}

impl<S: KeyStore + 'static> Worker<S> {
    /// Moves `store` to a thread of its own, which ends when the worker is dropped.
    pub(super) fn start(store: S) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job<S>>(QUEUE);
        let name = format!("store {}", store.name());
        let store = Arc::new(Mutex::new(store));
        let served = Arc::clone(&store);
        thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn(move || {
                serve(&served, &queue);
                locked(&served).lock();
            })?;
        Ok(Self { jobs, store })
    }

    /// Runs `work` when its turn comes; nobody waits for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut S) + Send + 'static) {
        if let Err(TrySendError::Full(job)) = self.jobs.try_send(Box::new(work)) {
            let jobs = self.jobs.clone();
            tokio::task::spawn_blocking(move || jobs.send(job));
        }
    }

    /// Does work that is quick by itself here and now, if the store is idle; gives it back
    /// otherwise.
    pub(super) fn run_now<T, W: FnOnce(&mut S) -> T>(&self, work: W) -> Result<T, W> {
        match self.store.try_lock() {
            Ok(mut store) => Ok(work(&mut store)),
            Err(TryLockError::Poisoned(_)) => Ok(work(&mut locked(&self.store))),
            Err(TryLockError::WouldBlock) => Err(work),
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

/// The store. After a panic it is used on, without what it held.
fn locked<S: KeyStore>(store: &Mutex<S>) -> MutexGuard<'_, S> {
    store.lock().unwrap_or_else(|poisoned| {
        let mut guard = poisoned.into_inner();
        guard.lock();
        store.clear_poison();
        guard
    })
}

fn serve<S: KeyStore>(store: &Mutex<S>, queue: &Receiver<Job<S>>) {
    /// With nothing held there is nothing to forget.
    const IDLE: Duration = Duration::from_secs(24 * 3600);
    loop {
        let wait = locked(store).expire().unwrap_or(IDLE);
        match queue.recv_timeout(wait) {
            Ok(job) => {
                let mut store = locked(store);
                // A panic in one request must neither end the store for all others nor leave it
                // with what it held.
                let work = std::panic::AssertUnwindSafe(|| job(&mut store));
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
