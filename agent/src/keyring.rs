//! All keys, whichever store they lie in, and the path of a request.
//!
//! Keys are found by ID. The index says which of them were *enrolled* here (generated, imported or
//! accepted, with a log entry); a key that turned up in a store is *new* and signs only for what
//! already lists it; one that the index knows and its store no longer has is *gone*; one of which
//! file and index say different things is a *conflict* and signs nothing.
//!
//! ```text
//! service ──► request ──► guard ──► person ──► worker thread ──► dyn KeyStore
//!                │                                   (signatures)
//!                └──► recorder thread ──► ledger     record, then release
//! ```

mod allowed;
mod backup;
mod base;
mod cards;
mod check;
pub(crate) mod checkpoint;
mod claims;
mod collection;
mod creation;
mod elsewhere;
pub(crate) mod fault;
mod grants;
mod list;
mod manage;
mod migration;
mod person;
mod recorder;
pub(crate) mod request;
mod revive;
mod sign;
mod worker;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64},
    time::{Duration, UNIX_EPOCH},
};

use signet_trust::KeyId;
use tokio::sync::watch;

use self::{
    cards::Cards, collection::Collections, person::Work, recorder::Recorder, worker::Worker,
};
pub use self::{
    checkpoint::witness::{Witness, Witnesses},
    fault::Fault,
    person::Person,
};
use crate::{
    config::Config,
    ledger::{Entry, IndexEntry, NewEntry},
    policy::Policy,
    presence::{
        CardName, RequestId,
        approvals::Approvals,
        broker::Broker,
        notice::Notifier,
        pinentry::Pinentry,
        stream::{Carries, Stream},
    },
    service::{now, status::word},
    store::{Hint, KeyStore, StoreError, docker::DockerStore, file::FileStore, hold::Scope},
};

/// Enrolled keys by canonical ID.
type Index = HashMap<KeyId, IndexEntry>;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreName {
    /// Docker's own files.
    Docker,
    /// Native files.
    File,
    /// YubiKeys.
    Piv,
}

impl StoreName {
    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::File => "file",
            Self::Piv => "piv",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "docker" => Some(Self::Docker),
            "file" => Some(Self::File),
            "piv" => Some(Self::Piv),
            _ => None,
        }
    }
}

/// All stores together.
#[derive(Debug)]
pub struct Keyring {
    file: Worker<FileStore>,
    docker: Worker<DockerStore>,
    cards: Cards,
    recorder: Recorder,
    index: RwLock<Arc<Index>>,
    collections: Collections,
    claims: claims::Claims,
    copied: elsewhere::Copied,
    docker_dir: PathBuf,
    default_store: StoreName,
    hold: Duration,
    policy: RwLock<Arc<Policy>>,
    witnesses: Witnesses,
    /// What a person should hear of.
    notifier: Notifier,
    /// Who attends.
    pub(crate) broker: Arc<Broker>,
    /// Who is asked when nobody attends.
    pinentry: Pinentry,
    /// What was approved beforehand.
    pub(crate) approvals: Approvals,
    /// Keys that the forward socket offers: labels, or the beginning of IDs.
    forward: Vec<String>,
    /// The newest entry that a checkpoint was made of.
    checkpointed: AtomicU64,
}

impl Keyring {
    /// Opens the stores and the ledger of `home`, whose lock the caller holds.
    ///
    /// # Errors
    ///
    /// [`StoreError`], [`crate::ledger::LedgerError`].
    pub fn open(home: &Path, docker_dir: &Path, config: &Config) -> Result<Self, Fault> {
        crate::backup::journal::finish(home)?;
        let mut file = FileStore::open(home)?.holding(config.unlock);
        let mut docker = DockerStore::open(docker_dir).holding(config.unlock);
        migration::resume(home, docker_dir, &mut file, &mut docker)?;
        let (recorder, index, known) = Recorder::start(home)?;
        let start = |error: std::io::Error| StoreError::Io {
            what: "start a thread for",
            path: home.to_owned(),
            source: error,
        };
        let keyring = Self {
            file: Worker::start(file).map_err(start)?,
            docker: Worker::start(docker).map_err(start)?,
            cards: Cards::new(config, known),
            recorder,
            index: RwLock::default(),
            collections: Collections::default(),
            claims: claims::Claims::default(),
            copied: elsewhere::Copied::default(),
            docker_dir: docker_dir.to_owned(),
            default_store: config.default_store,
            hold: config.unlock,
            policy: RwLock::new(Arc::new(config.policy.clone())),
            witnesses: config.witnesses.clone(),
            notifier: Notifier::default(),
            broker: Arc::default(),
            pinentry: Pinentry::new(config.pinentry.clone(), |name| std::env::var_os(name)),
            approvals: Approvals::default(),
            forward: config.forward.clone(),
            checkpointed: AtomicU64::new(0),
        };
        keyring.set_index(index);
        Ok(keyring)
    }

    /// How long a secret is held, unless asked otherwise.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// Where requests say what a person should hear of.
    pub(crate) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_index(&self, entries: Vec<IndexEntry>) {
        let index: Index = entries.into_iter().map(|entry| (entry.id, entry)).collect();
        // Words for prompts, and which keyring to try first.
        let hints: Vec<(KeyId, Hint)> = index.values().map(|e| (e.id, hint(e))).collect();
        let for_docker = hints.clone();
        self.cards.set_index(&index, &hints);
        self.file.post(move |store| {
            for (id, hint) in hints {
                store.hint(&id, hint);
            }
        });
        self.docker.post(move |store| {
            for (id, hint) in for_docker {
                store.hint(&id, hint);
            }
        });
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    }

    /// Enrols a key, or changes what the index says of it, with its log entry.
    async fn enrol(&self, key: IndexEntry, entry: NewEntry) -> Result<u64, Fault> {
        let (number, index) = self
            .recorder
            .run(move |ledger| {
                let number = ledger.enrol(&key, &entry)?;
                Ok((number, ledger.index()?))
            })
            .await?;
        self.set_index(index);
        Ok(number)
    }

    /// Takes a key out of the index, with its log entry.
    async fn forget(&self, id: KeyId, entry: NewEntry) -> Result<u64, Fault> {
        let (number, index) = self
            .recorder
            .run(move |ledger| {
                let number = ledger.remove(&id, &entry)?;
                Ok((number, ledger.index()?))
            })
            .await?;
        self.set_index(index);
        Ok(number)
    }

    /// Appends an entry that moves no state.
    async fn log(&self, entry: NewEntry) -> Result<u64, Fault> {
        self.recorder.run(move |ledger| ledger.append(&entry)).await
    }

    /// Whether the forward socket offers a key.
    pub(crate) fn is_forwarded(&self, id: &str, label: &str) -> bool {
        /// Digits that name a key.
        const DIGITS: usize = 7;
        self.forward
            .iter()
            .any(|name| name == label || (name.len() >= DIGITS && id.starts_with(name.as_str())))
    }

    /// Who is told of checkpoints.
    pub(crate) fn witnesses(&self) -> &Witnesses {
        &self.witnesses
    }

    /// Tells of new entries.
    pub(crate) fn log_changes(&self) -> watch::Receiver<u64> {
        self.recorder.changes()
    }

    /// Number and hash of the newest entry.
    pub(crate) async fn log_head(&self) -> Result<(u64, [u8; 32]), Fault> {
        self.recorder.run(|ledger| ledger.head()).await
    }

    /// Entries from `from`, at most `count`.
    pub(crate) async fn log_entries(&self, from: u64, count: u64) -> Result<Vec<Entry>, Fault> {
        self.recorder
            .run(move |ledger| ledger.entries(from, count))
            .await
    }

    /// What would be lost if the agent ended now, in words for the log; `None`: nothing.
    pub(crate) async fn would_lose(&self) -> Result<Option<&'static str>, Fault> {
        let key = self
            .file
            .run(|store| !store.status().held.is_empty())
            .await?
            || self.docker.run(|store| store.holds()).await?;
        if key {
            return Ok(Some("an unlocked key"));
        }
        if self.cards.hold_pins().await {
            return Ok(Some("the PIN of a card"));
        }
        Ok((!self.approvals.list().is_empty()).then_some("a grant"))
    }

    /// Forgets every held secret; whether there was one.
    pub(crate) async fn lock(&self) -> Result<bool, Fault> {
        self.lock_because("").await
    }

    /// As [`Keyring::lock`], where nobody asked for it: `why` goes to the log, if there was a secret
    /// to forget.
    pub(crate) async fn lock_because(&self, why: &str) -> Result<bool, Fault> {
        let asked = why.is_empty();
        self.approvals.revoke("");
        if asked || self.holds().await {
            self.checkpoint_anyway().await;
        }
        let held = self
            .file
            .run(|store| {
                let held = !store.status().held.is_empty();
                store.lock();
                held
            })
            .await?;
        self.docker.run(KeyStore::lock).await?;
        let held = self.cards.lock().await | held;
        if !asked && !held {
            return Ok(false);
        }
        let entry = NewEntry {
            kind: "lock",
            time: now(),
            summary: why.to_owned(),
            outcome: "done".to_owned(),
            ..NewEntry::default()
        };
        self.log(entry).await?;
        Ok(held)
    }

    /// Whether the keyring is open for anybody.
    async fn holds(&self) -> bool {
        let status = self.file.run(|store| !store.status().held.is_empty());
        status.await.unwrap_or(true)
    }

    /// Tells of cards with enrolled keys that are taken out, while they are watched.
    pub(crate) fn removed_cards(&self) -> watch::Receiver<CardName> {
        self.cards.removed()
    }

    /// Sees to it that cards are watched, if any holds an enrolled key.
    pub(crate) async fn watch_cards(&self) {
        if self.cards.matter() {
            self.cards.watch().await;
        }
    }

    /// Opens the repository keyring for a time; until when, in Unix seconds.
    pub(crate) async fn unlock<M: Carries>(
        &self,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
        time: Duration,
        scope: Scope,
    ) -> Result<i64, Fault> {
        let work: Work<FileStore, _> =
            Arc::new(move |store, presence| store.unlock(time, scope, presence));
        let until = person.with(&self.file, stream, true, work).await;
        let outcome = match &until {
            Ok(_) => "done",
            Err(fault) => word(fault),
        };
        self.log(NewEntry {
            kind: "unlock",
            time: now(),
            caller: person.caller.describe(),
            grade: person.grade(),
            outcome: outcome.to_owned(),
            facts: person.facts(""),
            ..NewEntry::default()
        })
        .await?;
        let until = until?;
        self.broker.news.opened(None);
        self.checkpoint_anyway().await;
        let until = until
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(i64::try_from(until).unwrap_or(i64::MAX))
    }

    /// Lets the stores forget what was opened for a request.
    fn end_request(&self, request: RequestId) {
        self.file.post(move |store| store.end_request(request));
        self.docker.post(move |store| store.end_request(request));
        self.cards.end_request(request);
    }
}

fn hint(entry: &IndexEntry) -> Hint {
    Hint {
        role: entry.role.clone(),
        gun: entry.gun.clone().unwrap_or_default(),
        label: entry.label.clone(),
    }
}
