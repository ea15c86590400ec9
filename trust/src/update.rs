//! The client's workflow as a state machine: what to fetch next, given what came.
//!
//! Follows notary's client (`client/tufclient.go`): cached root as anchor, timestamp always
//! fetched, snapshot and targets by hash from the cache or the server, roots one by one when the
//! keys changed. The caller fetches and stores; nothing here does I/O.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    document::{Body, FileMeta, Root, Snapshot, Targets, Timestamp},
    gun::Gun,
    pin::Pin,
    role::RoleName,
    time::UnixTime,
    verify::{self, Raw, Verified, VerifyError, limit},
};

mod cache;
mod roots;
mod walk;

/// What the cache held; any part may be absent.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    /// `root.json`: the anchor. Its failure to verify by itself is fatal.
    pub root: Option<Vec<u8>>,
    /// `timestamp.json`, for rollback checks and when the server cannot be reached.
    pub timestamp: Option<Vec<u8>>,
    /// `snapshot.json`
    pub snapshot: Option<Vec<u8>>,
    /// `targets.json` and delegations.
    pub targets: BTreeMap<RoleName, Vec<u8>>,
}

/// A file on the trust server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// `<role>.json`, the current one.
    Current(RoleName),
    /// `<role>.<sha256 hex>.json`
    ByHash(RoleName, String),
    /// `<version>.<role>.json`
    Version(u32, RoleName),
}

/// What the caller does next.
#[derive(Debug)]
pub enum Step {
    /// Get this file and hand it to [`Update::receive`]; refuse more than `limit` bytes.
    Fetch {
        /// Which.
        file: File,
        /// Bytes.
        limit: usize,
    },
    /// All there is to know.
    Done,
}

/// What came of a fetch.
#[derive(Debug)]
pub enum Fetched {
    /// The file.
    Bytes(Vec<u8>),
    /// 404.
    Missing,
    /// No answer, or a 5xx: the cached timestamp may stand in.
    Unreachable,
}

/// Options of one run.
#[derive(Clone, Debug)]
pub struct Options {
    /// For collections without a cached root.
    pub pin: Pin,
    /// When it is.
    pub now: UnixTime,
    /// A write: the server must be reached, and nothing stands in for its timestamp.
    pub for_write: bool,
    /// Earliest root version whose bytes [`Trusted::root_chain`] must hold, for the agent.
    pub chain_from: Option<u32>,
}

/// A collection whose every document is verified.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Its name.
    pub gun: Gun,
    /// Roots in rising versions, the newest last: from the anchor or `chain_from`.
    pub root_chain: Vec<Verified<Root>>,
    /// The server's timestamp (or the cached one).
    pub timestamp: Verified<Timestamp>,
    /// The snapshot it names.
    pub snapshot: Verified<Snapshot>,
    /// `targets` and every delegation that is published and valid.
    pub targets: BTreeMap<RoleName, Verified<Targets>>,
    /// Delegations skipped, with the reason.
    pub skipped: Vec<(RoleName, VerifyError)>,
    /// The server was not reached: what is here comes from the cache.
    pub offline: bool,
    /// The root was accepted on first use.
    pub first_use: bool,
    /// The cached root was replaced by a newer one.
    pub rotated: bool,
}

/// Why an update ended without a collection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A document that the chain needs is not there.
    #[error("the server has no {0} for this repository")]
    Missing(String),
    /// The server knows nothing of this GUN, and the cache neither.
    #[error("the server has no trust data for {0}")]
    NoTrustData(Gun),
    /// The server did not answer, and the cache cannot stand in.
    #[error("the trust server cannot be reached")]
    Unreachable,
    /// A document is not trusted.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl Trusted {
    /// The newest root.
    #[must_use]
    pub fn root(&self) -> &Verified<Root> {
        self.root_chain
            .last()
            .expect("a chain has at least one root")
    }

    /// `targets`.
    #[must_use]
    pub fn top(&self) -> &Verified<Targets> {
        &self.targets[&RoleName::Targets]
    }

    /// Whether the paths of a delegation, and of those above it, let it sign this tag (notary
    /// `tuf/data/roles.go`, `RestrictChild`): readers pass over a tag that is listed all the same.
    #[must_use]
    pub fn admits(&self, role: &RoleName, tag: &str) -> bool {
        self.paths(role)
            .iter()
            .any(|prefix| tag.starts_with(prefix))
    }

    /// Prefixes that a role may sign: those of its delegation that lie within its parent's.
    fn paths(&self, role: &RoleName) -> Vec<&str> {
        let Some(parent) = role.parent() else {
            return if *role == RoleName::Targets {
                vec![""]
            } else {
                Vec::new()
            };
        };
        let above = self.paths(&parent);
        let delegations = self
            .targets
            .get(&parent)
            .map(|document| &document.doc().delegations);
        let listed = delegations.and_then(|listed| {
            listed
                .roles
                .iter()
                .flatten()
                .find(|found| found.name == *role)
        });
        listed.map_or(Vec::new(), |listed| {
            let paths = listed.paths.iter().map(String::as_str);
            paths
                .filter(|path| above.iter().any(|prefix| path.starts_with(prefix)))
                .collect()
        })
    }
}

/// One run of the workflow.
///
/// Never more than one fetch is under way, so that the whole of it is [`Update::step`] and
/// [`Update::receive`] in turn until [`Step::Done`].
#[derive(Debug)]
pub struct Update {
    gun: Gun,
    options: Options,
    stage: Stage,
    /// From the anchor on; empty until a first root was accepted.
    roots: Vec<Verified<Root>>,
    /// Roots before the anchor, fetched for the agent.
    history: Vec<Verified<Root>>,
    cached: cache::Known,
    timestamp: Option<Verified<Timestamp>>,
    snapshot: Option<Verified<Snapshot>>,
    targets: BTreeMap<RoleName, Verified<Targets>>,
    /// Roles that the documents read so far list, to be looked for in the snapshot.
    queue: VecDeque<RoleName>,
    skipped: Vec<(RoleName, VerifyError)>,
    /// The root was asked for again because something failed.
    retried: bool,
    offline: bool,
    first_use: bool,
    rotated: bool,
}

/// What the answer to the next fetch will be taken for.
#[derive(Debug)]
enum Stage {
    /// The newest root: by the hash that the snapshot states, or whatever is current.
    Root { stated: Option<FileMeta> },
    /// A root between the last trusted one and the newest, which is too far ahead.
    RootLink {
        version: u32,
        newest: Box<Raw<Root>>,
    },
    /// Always asked of the server.
    Timestamp,
    /// The one that the timestamp names.
    Snapshot,
    /// `targets` or a delegation, as the snapshot names it.
    Targets(RoleName),
    /// A root before the anchor.
    History { version: u32 },
    /// Nothing is left.
    Done,
}

impl Update {
    /// Starts from the cache.
    ///
    /// # Errors
    ///
    /// When the cached root is not acceptable for this GUN (fatal, as in Go). Other cached files
    /// that do not verify are ignored.
    pub fn new(gun: Gun, cached: Cached, options: Options) -> Result<Self, UpdateError> {
        let mut update = Self {
            gun,
            options,
            stage: Stage::Root { stated: None },
            roots: Vec::new(),
            history: Vec::new(),
            cached: cache::Known::default(),
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            queue: VecDeque::from([RoleName::Targets]),
            skipped: Vec::new(),
            retried: false,
            offline: false,
            first_use: cached.root.is_none(),
            rotated: false,
        };
        let Cached {
            root,
            timestamp,
            snapshot,
            targets,
        } = cached;
        if let Some(wire) = root {
            let (gun, now) = (&update.gun, update.options.now);
            // The root on disk is the pin: no other pinning is asked of it.
            let root = verify::first_root(parse(&RoleName::Root, wire)?, gun, &Pin::FirstUse, now)?;
            update.cached = cache::Known::read(gun, root.doc(), timestamp, snapshot, targets, now);
            if !root.doc().expires.is_past(now) {
                update.stage = Stage::Timestamp;
            }
            update.roots.push(root);
        }
        Ok(update)
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        let fetch = |file, limit| Step::Fetch { file, limit };
        let stated = |role: &RoleName, meta: &FileMeta| {
            let limit = usize::try_from(meta.length)
                .unwrap_or(usize::MAX)
                .min(limit::ROLE);
            fetch(File::ByHash(role.clone(), by_hash(meta)), limit)
        };
        match &self.stage {
            Stage::Root { stated: Some(meta) } => stated(&RoleName::Root, meta),
            Stage::Root { stated: None } => fetch(File::Current(RoleName::Root), limit::ROLE),
            Stage::RootLink { version, .. } | Stage::History { version } => {
                fetch(File::Version(*version, RoleName::Root), limit::ROLE)
            }
            Stage::Timestamp => fetch(File::Current(RoleName::Timestamp), limit::TIMESTAMP),
            Stage::Snapshot => stated(&RoleName::Snapshot, self.stated_snapshot()),
            Stage::Targets(role) => stated(
                role,
                self.stated(role)
                    .expect("only roles of the snapshot are fetched"),
            ),
            Stage::Done => Step::Done,
        }
    }

    /// Takes the answer to the last [`Step::Fetch`].
    ///
    /// # Errors
    ///
    /// When the collection cannot be trusted any more.
    pub fn receive(&mut self, fetched: Fetched) -> Result<(), UpdateError> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Root { stated } => self.receive_root(fetched, stated.as_ref()),
            Stage::RootLink { version, newest } => self.receive_link(fetched, version, *newest),
            Stage::History { version } => self.receive_history(fetched, version),
            Stage::Timestamp => {
                let taken = self.receive_timestamp(fetched);
                self.go_on(taken)
            }
            Stage::Snapshot => {
                let taken = self.receive_snapshot(fetched);
                self.go_on(taken)
            }
            Stage::Targets(role) => {
                let taken = self.receive_targets(&role, fetched);
                self.go_on(taken)
            }
            Stage::Done => Ok(()),
        }
    }

    /// The result, once [`Step::Done`] was said.
    ///
    /// # Panics
    ///
    /// When it was not, or when an error was returned before.
    #[must_use]
    pub fn finish(self) -> Trusted {
        let mut root_chain = self.history;
        root_chain.extend(self.roots);
        Trusted {
            gun: self.gun,
            root_chain,
            timestamp: self.timestamp.expect("an update ends with a timestamp"),
            snapshot: self.snapshot.expect("an update ends with a snapshot"),
            targets: self.targets,
            skipped: self.skipped,
            offline: self.offline,
            first_use: self.first_use,
            rotated: self.rotated,
        }
    }

    /// The newest trusted root.
    fn root(&self) -> &Verified<Root> {
        self.roots
            .last()
            .expect("a root is trusted before anything else is fetched")
    }

    fn stated_snapshot(&self) -> &FileMeta {
        let timestamp = self
            .timestamp
            .as_ref()
            .expect("the timestamp is read before the snapshot");
        &timestamp.doc().meta[&RoleName::Snapshot]
    }

    /// What the snapshot says of a role.
    fn stated(&self, role: &RoleName) -> Option<&FileMeta> {
        self.snapshot.as_ref()?.doc().meta.get(role)
    }
}

/// Where the server has a file of these hashes.
fn by_hash(meta: &FileMeta) -> String {
    hex::encode(meta.hashes.get("sha256").unwrap_or_default())
}

fn parse<T: Body>(role: &RoleName, wire: Vec<u8>) -> Result<Raw<T>, VerifyError> {
    Raw::parse(wire, limit::ROLE).map_err(|source| VerifyError::Unreadable {
        role: role.clone(),
        source,
    })
}
