//! Readers and cards as they come and go: a thread that sleeps in PC/SC's own wait.
//!
//! It runs only while somebody needs cards: a key is enrolled on one, one is in a reader, or
//! somebody has just asked. Then it has a context of its own, waits without a time-out, and is
//! cancelled at the end. Where there is no PC/SC service it ends, and the next one who asks starts
//! it again; an agent that has nothing to do with cards has neither thread nor connection.

use std::{
    collections::HashMap,
    ffi::CString,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, Scope, State};
use tokio::sync::watch;

use super::{
    CardFault,
    card::{CardError, Reader},
    pcsc::{PcscReader, error},
};

/// With no card and no key on any, the thread ends after this time.
const LINGER: Duration = Duration::from_secs(60);
/// After a failure of the service it is tried again after these times, then left to whoever asks.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
const STACK: usize = 256 * 1024;
/// Readers that are looked at.
const MAX_READERS: usize = 16;

/// Who is told.
pub trait Arrivals: Send + Sync + 'static {
    /// A card came into a reader.
    fn arrived(&self, name: &str, reader: Box<dyn Reader>);
    /// It left.
    fn left(&self, name: &str);
    /// Why no card can be seen; `None`: they can.
    fn problem(&self, why: Option<CardFault>);
    /// Whether a card is known to be in a reader, or a key to lie on one.
    fn matters(&self) -> bool;
}

/// The thread, while there is one.
pub struct Watcher {
    shared: Arc<Shared>,
}

struct Shared {
    arrivals: Arc<dyn Arrivals>,
    state: Mutex<Running>,
    changed: Condvar,
    /// Counts looks at the readers that are complete, failed ones included.
    looks: watch::Sender<u64>,
}

#[derive(Default)]
struct Running {
    thread: bool,
    /// It has looked at the readers since it connected, and waits for changes.
    watching: bool,
    /// Somebody wants it to try again now.
    hurry: bool,
    stop: bool,
    context: Option<Context>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

impl Watcher {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(arrivals: Arc<dyn Arrivals>) -> Self {
        Self {
            shared: Arc::new(Shared {
                arrivals,
                state: Mutex::default(),
                changed: Condvar::new(),
                looks: watch::Sender::new(0),
            }),
        }
    }

    /// Sees to it that readers are watched; resolves when they have been looked at.
    pub async fn look(&self) {
        let mut looks = self.shared.looks.subscribe();
        let before = *looks.borrow_and_update();
        if self.wake() {
            return;
        }
        // A watcher that is gone has nothing to tell.
        let _ = looks.wait_for(|looks| *looks > before).await;
    }

    /// Starts the thread, or has it try again; whether it is watching already.
    fn wake(&self) -> bool {
        let mut state = self.shared.lock();
        if state.watching {
            return true;
        }
        state.hurry = true;
        self.shared.changed.notify_all();
        if !state.thread {
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new()
                .name("cards".to_owned())
                .stack_size(STACK)
                .spawn(move || shared.run());
            match started {
                Ok(_) => state.thread = true,
                Err(_) => {
                    drop(state);
                    let why = CardFault::System("no thread could be started to watch for cards");
                    self.shared.arrivals.problem(Some(why));
                    self.shared.looked();
                }
            }
        }
        false
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = true;
        if let Some(context) = &state.context {
            // A wait that has ended already needs no cancelling.
            let _ = context.cancel();
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked(&self) {
        self.looks.send_modify(|looks| *looks += 1);
    }

    fn run(&self) {
        let mut failures = 0;
        loop {
            let ended = self.watch(&mut failures);
            let mut state = self.lock();
            state.watching = false;
            state.context = None;
            let again = match ended {
                Ok(()) => None,
                Err(_) if state.stop => None,
                Err(why) => {
                    drop(state);
                    let fault = match why {
                        CardError::NoService => CardFault::NoService,
                        CardError::Denied => CardFault::Denied,
                        source => CardFault::Reach {
                            card: "the PC/SC service".to_owned(),
                            source,
                        },
                    };
                    self.arrivals.problem(Some(fault));
                    self.looked();
                    state = self.lock();
                    let matters = self.arrivals.matters();
                    RETRIES.get(failures).filter(|_| matters)
                }
            };
            let Some(pause) = again else {
                state.thread = false;
                return;
            };
            failures += 1;
            state.hurry = false;
            let (state, _) = self
                .changed
                .wait_timeout_while(state, *pause, |state| !state.hurry && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
        }
    }

    /// Watches until nobody needs it, or PC/SC fails.
    fn watch(&self, failures: &mut usize) -> Result<(), CardError> {
        let context = Context::establish(Scope::User).map_err(error)?;
        {
            let mut state = self.lock();
            if state.stop {
                return Ok(());
            }
            state.context = Some(context.clone());
        }
        let mut present: HashMap<CString, u32> = HashMap::new();
        let done = self.follow(&context, &mut present, failures);
        for name in present.keys() {
            self.arrivals.left(&name.to_string_lossy());
        }
        done
    }

    fn follow(
        &self,
        context: &Context,
        present: &mut HashMap<CString, u32>,
        failures: &mut usize,
    ) -> Result<(), CardError> {
        let mut states = vec![ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE)];
        let mut wait = Some(Duration::ZERO);
        loop {
            let names = match context.list_readers_owned() {
                Ok(names) => names,
                Err(Error::NoReadersAvailable) => Vec::new(),
                Err(why) => return Err(error(why)),
            };
            let keep = |state: &ReaderState| {
                state.name() == PNP_NOTIFICATION()
                    || names.iter().any(|name| **name == *state.name())
            };
            states.retain(keep);
            for name in names.iter().take(MAX_READERS) {
                if states.iter().all(|state| state.name() != name.as_c_str()) {
                    states.push(ReaderState::new(name.clone(), State::UNAWARE));
                    wait = Some(Duration::ZERO);
                }
            }
            present.retain(|name, _| {
                let stays = names.contains(name);
                if !stays {
                    self.arrivals.left(&name.to_string_lossy());
                }
                stays
            });
            let waited = context.get_status_change(wait, &mut states);
            if self.lock().stop {
                return Ok(());
            }
            let timed_out = match waited {
                Ok(()) => false,
                Err(Error::Timeout) => true,
                Err(Error::Cancelled | Error::UnknownReader) => continue,
                Err(why) => return Err(error(why)),
            };
            self.compare(&mut states, present);
            if wait == Some(Duration::ZERO) {
                *failures = 0;
                self.arrivals.problem(None);
                self.lock().watching = true;
                self.looked();
            }
            let matters = !present.is_empty() || self.arrivals.matters();
            if timed_out && wait == Some(LINGER) && !matters {
                return Ok(());
            }
            wait = if matters { None } else { Some(LINGER) };
        }
    }

    /// Tells what came and went since the last look. A counter that moved says that both happened.
    fn compare(&self, states: &mut [ReaderState], present: &mut HashMap<CString, u32>) {
        for state in states {
            let event = state.event_state();
            if state.name() == PNP_NOTIFICATION() {
                state.sync_current_state();
                continue;
            }
            let there = event.contains(State::PRESENT) && !event.contains(State::MUTE);
            let count = state.event_count();
            let name = state.name().to_owned();
            let text = name.to_string_lossy().into_owned();
            match (present.get(&name).copied(), there) {
                (Some(known), true) if known == count => {}
                (None, false) => {}
                (known, there) => {
                    if known.is_some() {
                        present.remove(&name);
                        self.arrivals.left(&text);
                    }
                    if there {
                        self.arrivals
                            .arrived(&text, Box::new(PcscReader::new(&name)));
                        present.insert(name, count);
                    }
                }
            }
            state.sync_current_state();
        }
    }
}
