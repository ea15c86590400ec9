//! What is kept in memory of each collection, and one request at a time per collection.
//!
//! The ledger is the only writer of guard state, so the history read once stays true until we
//! change it ourselves. The last verified base is kept, too: a client that publishes again names it
//! by hash instead of sending and having it verified once more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use signet_proto::v1::{Queued, SignEvent, SignRequest, part::Kind, sign_event};
use signet_trust::{Gun, RoleName, base::VerifiedBase, guard::History};
use tokio::sync::OwnedMutexGuard;

use super::{Fault, recorder::Recorder};
use crate::presence::stream::Stream;

/// Collections remembered at once; a workstation has some, a build host some hundred.
const MAX_SLOTS: usize = 1024;
/// Bytes of published documents kept over all collections.
const MAX_HELD: usize = 32 * 1024 * 1024;

/// All collections.
#[derive(Debug, Default)]
pub(super) struct Collections {
    slots: Mutex<HashMap<Gun, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: AtomicU32,
    collection: Arc<tokio::sync::Mutex<Collection>>,
}

/// A collection while it is this request's turn.
pub(super) type Turn = OwnedMutexGuard<Collection>;

impl Collections {
    fn slots(&self) -> MutexGuard<'_, HashMap<Gun, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, gun: &Gun) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(gun) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_SLOTS {
            // Whoever is at work keeps its slot; the others are read from the ledger again.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || Arc::strong_count(&slot.collection) > 1
            });
        }
        Arc::clone(slots.entry(gun.clone()).or_default())
    }

    /// Waits for this request's turn, saying so when it has to wait.
    pub(super) async fn enter(
        &self,
        gun: &Gun,
        stream: &mut Stream<SignRequest>,
    ) -> Result<Turn, Fault> {
        let slot = self.slot(gun);
        if let Ok(turn) = Arc::clone(&slot.collection).try_lock_owned() {
            return Ok(turn);
        }
        let behind = slot.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let queued = sign_event::Event::Queued(Queued { behind });
        let turn = match stream
            .send(SignEvent {
                event: Some(queued),
            })
            .await
        {
            Ok(()) => {
                stream
                    .while_there(Arc::clone(&slot.collection).lock_owned())
                    .await
            }
            Err(fault) => Err(fault),
        };
        slot.waiting.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// The collection, if nobody is at work on it.
    pub(super) fn enter_if_free(&self, gun: &Gun) -> Option<Turn> {
        Arc::clone(&self.slot(gun).collection).try_lock_owned().ok()
    }

    /// Drops bases of collections where nobody is at work until at most [`MAX_HELD`] bytes are
    /// held; called after one was kept.
    pub(super) fn trim(&self) {
        let slots = self.slots();
        let mut idle: Vec<(u64, usize, Turn)> = slots
            .values()
            .filter_map(|slot| Arc::clone(&slot.collection).try_lock_owned().ok())
            .filter_map(|turn| {
                turn.held
                    .as_ref()
                    .map(|h| (h.used, h.size))
                    .map(|(u, s)| (u, s, turn))
            })
            .collect();
        let mut total: usize = idle.iter().map(|(_, size, _)| size).sum();
        if total <= MAX_HELD {
            return;
        }
        idle.sort_by_key(|(used, ..)| *used);
        for (_, size, mut turn) in idle {
            if total <= MAX_HELD {
                return;
            }
            turn.held = None;
            total -= size;
        }
    }

    /// The bases that are held now, for what can be told of collections without a request.
    pub(super) fn held(&self) -> Vec<(Gun, VerifiedBase)> {
        let slots = self.slots();
        slots
            .iter()
            .filter_map(|(gun, slot)| {
                let turn = slot.collection.try_lock().ok()?;
                turn.held
                    .as_ref()
                    .map(|held| (gun.clone(), held.base.clone()))
            })
            .collect()
    }
}

/// What is kept of one collection.
#[derive(Debug, Default)]
pub(super) struct Collection {
    history: Option<Arc<History>>,
    /// The base last verified, or made by what was published since.
    pub(super) held: Option<Held>,
    /// Payload hash and time of what was last released here for each role.
    released: BTreeMap<RoleName, ([u8; 32], i64)>,
}

impl Collection {
    /// What the ledger knows of the GUN.
    pub(super) async fn history(
        &mut self,
        gun: &Gun,
        recorder: &Recorder,
    ) -> Result<Arc<History>, Fault> {
        if let Some(history) = &self.history {
            return Ok(Arc::clone(history));
        }
        let gun = gun.clone();
        let history = Arc::new(recorder.run(move |ledger| ledger.history(&gun)).await?);
        self.history = Some(Arc::clone(&history));
        Ok(history)
    }

    /// Sets what was written to the ledger.
    pub(super) fn set_history(&mut self, history: History) {
        self.history = Some(Arc::new(history));
    }

    /// Remembers when a document was released.
    pub(super) fn set_released(&mut self, role: &RoleName, hash: [u8; 32], time: i64) {
        match self.released.get_mut(role) {
            Some(last) => *last = (hash, time),
            None => {
                self.released.insert(role.clone(), (hash, time));
            }
        }
    }

    /// When the document with this payload hash was released, if it was the last one of its role.
    pub(super) fn released_at(&self, role: &RoleName, hash: &[u8; 32]) -> Option<i64> {
        let (last, time) = self.released.get(role)?;
        (last == hash).then_some(*time)
    }

    /// Forgets what may no longer be what the ledger says.
    pub(super) fn forget_history(&mut self) {
        self.history = None;
    }
}

/// A base in memory.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) base: VerifiedBase,
    /// Payload hash of the document released here and published that made it what it is.
    pub(super) tip: Option<[u8; 32]>,
    digests: OnceLock<HashMap<[u8; 32], (Kind, RoleName)>>,
    used: u64,
    size: usize,
}

impl Held {
    /// Keeps a base.
    pub(super) fn new(base: VerifiedBase, tip: Option<[u8; 32]>) -> Self {
        static CLOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let size = documents(&base).map(|(.., wire)| wire.len()).sum();
        let used = CLOCK.fetch_add(1, Ordering::Relaxed);
        Self {
            base,
            tip,
            digests: OnceLock::new(),
            used,
            size,
        }
    }

    /// Which document has this hash.
    pub(super) fn find(&self, sha256: &[u8; 32]) -> Option<&(Kind, RoleName)> {
        self.digests().get(sha256)
    }

    /// Hashes of all documents.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.digests().keys()
    }

    /// Wire bytes of the document with this hash.
    pub(super) fn wire(&self, sha256: &[u8; 32]) -> Option<&[u8]> {
        let (kind, role) = self.find(sha256)?;
        match kind {
            // Several roots share a role.
            Kind::Root => documents(&self.base)
                .filter(|(kind, ..)| *kind == Kind::Root)
                .map(|(.., wire)| wire)
                .find(|wire| digest(wire) == *sha256),
            kind => documents(&self.base)
                .find(|(other, name, _)| other == kind && *name == role)
                .map(|(.., wire)| wire),
        }
    }

    fn digests(&self) -> &HashMap<[u8; 32], (Kind, RoleName)> {
        self.digests.get_or_init(|| {
            documents(&self.base)
                .map(|(kind, role, wire)| (digest(wire), (kind, role.clone())))
                .collect()
        })
    }
}

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The documents of a base with their wire bytes.
fn documents(base: &VerifiedBase) -> impl Iterator<Item = (Kind, &RoleName, &[u8])> {
    let roots = base
        .roots()
        .iter()
        .map(|root| (Kind::Root, &RoleName::Root, root.wire()));
    let timestamp = base
        .timestamp()
        .map(|doc| (Kind::Timestamp, &RoleName::Timestamp, doc.wire()));
    let snapshot = base
        .snapshot()
        .map(|doc| (Kind::Snapshot, &RoleName::Snapshot, doc.wire()));
    let targets = base.marks().filter_map(|(role, _)| {
        base.targets(role)
            .map(|doc| (Kind::Targets, role, doc.wire()))
    });
    roots.chain(timestamp).chain(snapshot).chain(targets)
}
