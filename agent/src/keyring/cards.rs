//! Cards in readers: a thread each, found by the keys they hold.
//!
//! Nothing runs until it is needed (see [`Watcher`]). A card is known by its serial number once its
//! own thread has read it; from then on its keys are found without asking it. A key may lie on
//! several cards, and whichever is in a reader signs.

mod change;
mod holder;
mod list;
pub(super) mod make;
mod moves;
mod sign;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use signet_trust::KeyId;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Index, worker::Worker};
use crate::{
    config::Config,
    ledger::KnownCard,
    presence::{CardName, RequestId},
    store::{
        Hint, KeyStore as _,
        piv::{
            CardFacts, CardFault, CardSettings, CardStore, Enrolled, EnrolledKeys, PinPolicy,
            SlotFacts, TouchPolicy, attest,
            card::Reader,
            hotplug::{Arrivals, Watcher},
        },
    },
};

pub(super) use self::sign::{Listening, OnCards};

/// How long cards have to say what they are, once they are seen.
const SETTLE: Duration = Duration::from_secs(10);

/// How long a card has to forget its PIN before others are locked.
const LOCKING: Duration = Duration::from_secs(3);

/// A card's store on its thread.
pub(super) type CardWorker = Arc<Worker<CardStore>>;

/// All cards.
#[derive(Debug)]
pub(super) struct Cards {
    inner: Arc<Inner>,
    watcher: Watcher,
}

/// What the watcher, the cards' threads and the requests share.
#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts changes.
    changes: watch::Sender<u64>,
    /// The last card with enrolled keys that was taken out.
    removed: watch::Sender<CardName>,
    settings: CardSettings,
    leave_verified: HashSet<u32>,
}

#[derive(Debug, Default)]
struct State {
    /// By the name of the reader.
    readers: BTreeMap<String, InReader>,
    problem: Option<CardFault>,
    /// Cards named here.
    known: BTreeMap<u32, KnownCard>,
    hints: Vec<(KeyId, Hint)>,
    /// What the index knows of cards' slots.
    places: Arc<EnrolledKeys>,
    /// A key is enrolled on some card.
    enrolled: bool,
}

#[derive(Debug)]
struct InReader {
    worker: CardWorker,
    facts: Option<Arc<CardFacts>>,
    problem: Option<String>,
    /// It has been read, or could not be.
    settled: bool,
}

/// A card that is there.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) name: CardName,
    pub(super) reader: String,
    pub(super) worker: CardWorker,
    pub(super) facts: Arc<CardFacts>,
}

impl Cards {
    pub(super) fn new(config: &Config, known: Vec<KnownCard>) -> Self {
        let mut roots = attest::bundled().unwrap_or_default();
        let named = config.attestation_roots.as_ref().and_then(|path| {
            let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
            match read.and_then(|pem| attest::read_roots(&pem)) {
                Ok(roots) => Some(roots),
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, error, "the roots of attestations cannot be read");
                    None
                }
            }
        });
        roots.extend(named.unwrap_or_default());
        let inner = Arc::new(Inner {
            state: Mutex::new(State {
                known: known.into_iter().map(|card| (card.serial, card)).collect(),
                ..State::default()
            }),
            changes: watch::Sender::new(0),
            removed: watch::Sender::new(CardName::default()),
            settings: CardSettings {
                leave_verified: false,
                idle: config.card_idle,
                hold: config.unlock,
                roots: Arc::new(roots),
            },
            leave_verified: config.leave_verified.iter().copied().collect(),
        });
        let arrivals: Arc<dyn Arrivals> = Arc::new(Told(Arc::downgrade(&inner)));
        Self {
            watcher: Watcher::new(arrivals),
            inner,
        }
    }

    /// Takes note of the index: words for prompts, and whether cards matter.
    pub(super) fn set_index(&self, index: &Index, hints: &[(KeyId, Hint)]) {
        let enrolled = index.values().any(|entry| !entry.places.is_empty());
        let mut state = self.inner.lock();
        state.enrolled = enrolled;
        if !enrolled && state.readers.is_empty() {
            // Nobody's prompts name keys on cards.
            state.hints = Vec::new();
            state.places = Arc::default();
            return;
        }
        let places = Arc::new(places(index));
        state.places = Arc::clone(&places);
        state.hints = hints.to_vec();
        for there in state.readers.values() {
            let (hints, places) = (hints.to_vec(), Arc::clone(&places));
            there.worker.post(move |store| {
                store.set_enrolled(places);
                for (id, hint) in hints {
                    store.hint(&id, hint);
                }
            });
        }
    }

    /// Sees to it that the cards in readers are known.
    pub(super) async fn settle(&self) {
        let deadline = Instant::now() + SETTLE;
        let mut changes = self.inner.changes.subscribe();
        let settled = async {
            self.watcher.look().await;
            loop {
                changes.borrow_and_update();
                if self
                    .inner
                    .lock()
                    .readers
                    .values()
                    .all(|there| there.settled)
                {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // A card that another program holds is said to be so, not waited for.
        let _ = timeout_at(deadline, settled).await;
    }

    /// Sees to it that readers are watched.
    pub(super) async fn watch(&self) {
        self.watcher.look().await;
    }

    /// Tells of cards with enrolled keys that are taken out, while readers are watched.
    pub(super) fn removed(&self) -> watch::Receiver<CardName> {
        self.inner.removed.subscribe()
    }

    /// Tries again to read cards that could not be read.
    pub(super) fn retry(&self) {
        let mut state = self.inner.lock();
        for (name, there) in &mut state.readers {
            if there.problem.is_some() {
                there.settled = false;
                self.inner.read(name, &there.worker);
            }
        }
    }

    /// Cards that are there and known.
    pub(super) fn present(&self) -> Vec<Present> {
        let state = self.inner.lock();
        let cards = state.readers.iter().filter_map(|(reader, there)| {
            let facts = there.facts.clone()?;
            Some(Present {
                name: state.name(facts.serial),
                reader: reader.clone(),
                worker: Arc::clone(&there.worker),
                facts,
            })
        });
        cards.collect()
    }

    /// The card with this number, if it is there.
    pub(super) fn with_serial(&self, serial: u32) -> Option<Present> {
        self.present()
            .into_iter()
            .find(|card| card.facts.serial == serial)
    }

    /// Cards that are there and hold this key, with its slot.
    pub(super) fn with_key(&self, id: &KeyId) -> Vec<(Present, SlotFacts)> {
        self.present()
            .into_iter()
            .filter_map(|card| {
                let slot = card.facts.slot_of(id)?;
                let slot = Some(slot).filter(|slot| slot.problem.is_none())?.clone();
                Some((card, slot))
            })
            .collect()
    }

    /// Why no card, or not every card, can be seen; one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let state = self.inner.lock();
        let none = state.problem.as_ref().map(ToString::to_string);
        let of_readers = state.readers.iter().filter_map(|(name, there)| {
            let why = there.problem.as_ref()?;
            Some(match why.contains(name.as_str()) {
                true => why.clone(),
                false => format!("the card in {name:?}: {why}"),
            })
        });
        none.into_iter().chain(of_readers).collect()
    }

    /// What keeps every card away, as a failure.
    fn obstacle(&self) -> Option<CardFault> {
        match self.inner.lock().problem.as_ref()? {
            CardFault::NoService => Some(CardFault::NoService),
            CardFault::Denied => Some(CardFault::Denied),
            CardFault::NotBuilt => Some(CardFault::NotBuilt),
            _ => None,
        }
    }

    /// A card as it is called here.
    pub(super) fn name(&self, serial: u32) -> CardName {
        self.inner.lock().name(serial)
    }

    /// Whether there is a card, or was one.
    pub(super) fn matter(&self) -> bool {
        let state = self.inner.lock();
        state.enrolled || !state.known.is_empty() || !state.readers.is_empty()
    }

    /// Cards that have a name here.
    pub(super) fn known(&self) -> Vec<KnownCard> {
        self.inner.lock().known.values().cloned().collect()
    }

    /// Takes note of a card's name.
    pub(super) fn set_known(&self, serial: u32, card: Option<KnownCard>) {
        let mut state = self.inner.lock();
        match card {
            Some(card) => state.known.insert(serial, card),
            None => state.known.remove(&serial),
        };
        let label = state.name(serial).label;
        let settings = self.inner.settings_of(serial);
        for there in state.readers.values() {
            if there
                .facts
                .as_ref()
                .is_some_and(|facts| facts.serial == serial)
            {
                let (label, settings) = (label.clone(), settings.clone());
                there
                    .worker
                    .post(move |store| store.configure(label, settings));
            }
        }
    }

    /// Whether the PIN of this card is left with it.
    pub(super) fn leaves_verified(&self, serial: u32) -> bool {
        self.inner.leave_verified.contains(&serial)
    }

    /// Changes of what is there.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Whether a card's PIN is held. A card that does not tell in time is busy, and so may hold one.
    pub(super) async fn hold_pins(&self) -> bool {
        let workers: Vec<CardWorker> = {
            let state = self.inner.lock();
            let there = state.readers.values();
            there.map(|there| Arc::clone(&there.worker)).collect()
        };
        for worker in workers {
            let held = worker.run(|store| store.holds_pin());
            match timeout_at(Instant::now() + LOCKING, held).await {
                // A card that is gone has forgotten.
                Ok(Ok(false) | Err(_)) => {}
                Ok(Ok(true)) | Err(_) => return true,
            }
        }
        false
    }

    /// Forgets every PIN; whether one was held.
    pub(super) async fn lock(&self) -> bool {
        let workers: Vec<CardWorker> = {
            let state = self.inner.lock();
            state
                .readers
                .values()
                .map(|there| Arc::clone(&there.worker))
                .collect()
        };
        let mut held = false;
        for worker in workers {
            let locked = worker.run(|store| {
                let held = store.holds_pin();
                store.lock();
                held
            });
            // A card that is gone has forgotten; one that another program holds forgets when it is
            // let go, before anything else.
            let locked = timeout_at(Instant::now() + LOCKING, locked).await;
            held |= matches!(locked, Ok(Ok(true)));
        }
        held
    }

    /// Lets cards forget what was given for a request.
    pub(super) fn end_request(&self, request: RequestId) {
        for there in self.inner.lock().readers.values() {
            there.worker.post(move |store| store.end_request(request));
        }
    }
}

impl State {
    fn name(&self, serial: u32) -> CardName {
        CardName {
            serial,
            label: self
                .known
                .get(&serial)
                .map(|card| card.label.clone())
                .unwrap_or_default(),
            slot: String::new(),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn settings_of(&self, serial: u32) -> CardSettings {
        CardSettings {
            leave_verified: self.leave_verified.contains(&serial),
            ..self.settings.clone()
        }
    }

    /// Has a card's thread read it.
    fn read(self: &Arc<Self>, reader: &str, worker: &CardWorker) {
        let inner = Arc::downgrade(self);
        let reader = reader.to_owned();
        worker.post(move |store| {
            let read = match store.arrive() {
                // A card that has just come in may be powered up a second time.
                Err(CardFault::Reach { .. } | CardFault::Missing(_)) => store.arrive(),
                read => read,
            };
            let Some(inner) = inner.upgrade() else { return };
            let mut state = inner.lock();
            match &read {
                Ok(facts) => {
                    let label = state.name(facts.serial).label;
                    store.configure(label, inner.settings_of(facts.serial));
                    for (id, hint) in &state.hints {
                        store.hint(id, hint.clone());
                    }
                }
                Err(error) => tracing::warn!(reader, %error, "a card cannot be used"),
            }
            if let Some(there) = state.readers.get_mut(&reader) {
                there.settled = true;
                match read {
                    Ok(facts) => (there.facts, there.problem) = (Some(facts), None),
                    Err(error) => there.problem = Some(error.to_string()),
                }
            }
            drop(state);
            inner.changed();
        });
    }
}

/// The index by cards.
fn places(index: &Index) -> EnrolledKeys {
    let mut places = EnrolledKeys::new();
    for entry in index.values() {
        for place in &entry.places {
            // What was written here is read back; a slot that is none has no key.
            let Ok(slot) = place.slot.parse() else {
                continue;
            };
            places.entry(place.serial).or_default().push(Enrolled {
                slot,
                public: entry.public.clone(),
                pin: PinPolicy::from_name(&place.pin_policy),
                touch: TouchPolicy::from_name(&place.touch_policy),
            });
        }
    }
    places
}

/// What the watcher holds of the cards: nothing that keeps them alive.
struct Told(Weak<Inner>);

impl Arrivals for Told {
    fn arrived(&self, name: &str, reader: Box<dyn Reader>) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        let (told, of) = (self.0.clone(), name.to_owned());
        let publish = Box::new(move |facts: &Arc<CardFacts>| {
            let Some(inner) = told.upgrade() else { return };
            if let Some(there) = inner.lock().readers.get_mut(&of) {
                there.facts = Some(Arc::clone(facts));
            }
            inner.changed();
        });
        let mut store = CardStore::new(reader, inner.settings.clone(), publish);
        store.set_enrolled(Arc::clone(&inner.lock().places));
        let worker = match Worker::start(store) {
            Ok(worker) => Arc::new(worker),
            Err(error) => {
                tracing::error!(%error, "no thread could be started for a card");
                return;
            }
        };
        let there = InReader {
            worker: Arc::clone(&worker),
            facts: None,
            problem: None,
            settled: false,
        };
        inner.lock().readers.insert(name.to_owned(), there);
        inner.read(name, &worker);
        inner.changed();
    }

    fn left(&self, name: &str) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        let mut state = inner.lock();
        let gone = state.readers.remove(name);
        let serial = gone
            .as_ref()
            .and_then(|gone| Some(gone.facts.as_ref()?.serial));
        let enrolled = serial.filter(|serial| state.places.contains_key(serial));
        let enrolled = enrolled.map(|serial| state.name(serial));
        drop(state);
        if let Some(gone) = gone {
            // Whoever still waits for it is told by the card's own errors.
            gone.worker.post(|store| store.lock());
        }
        if let Some(card) = enrolled {
            inner.removed.send_replace(card);
        }
        inner.changed();
    }

    fn problem(&self, why: Option<CardFault>) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        inner.lock().problem = why;
        inner.changed();
    }

    fn matters(&self) -> bool {
        let Some(inner) = self.0.upgrade() else {
            return false;
        };
        let state = inner.lock();
        state.enrolled || !state.readers.is_empty()
    }
}
