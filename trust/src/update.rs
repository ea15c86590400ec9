//! The client's workflow as a state machine: what to fetch next, given what came.
//!
//! Follows notary's client (`client/tufclient.go`): cached root as anchor, timestamp always
//! fetched, snapshot and targets by hash from the cache or the server, roots one by one when the
//! keys changed. The caller fetches and stores; nothing here does I/O.

use std::collections::BTreeMap;

use crate::{
    document::{Root, Snapshot, Targets, Timestamp},
    gun::Gun,
    pin::Pin,
    role::RoleName,
    time::UnixTime,
    verify::{Verified, VerifyError},
};

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
#[derive(Clone, Debug, thiserror::Error)]
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
        self.root_chain.last().expect("a chain has at least one root")
    }

    /// `targets`.
    #[must_use]
    pub fn top(&self) -> &Verified<Targets> {
        &self.targets[&RoleName::Targets]
    }
}

/// One run of the workflow.
#[derive(Debug)]
pub struct Update {
    _private: (),
}

impl Update {
    /// Starts from the cache.
    ///
    /// # Errors
    ///
    /// When the cached root is not acceptable for this GUN (fatal, as in Go). Other cached files
    /// that do not verify are ignored.
    pub fn new(gun: Gun, cached: Cached, options: Options) -> Result<Self, UpdateError> {
        let _ = (gun, cached, options);
        todo!()
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        todo!()
    }

    /// Takes the answer to the last [`Step::Fetch`].
    ///
    /// # Errors
    ///
    /// When the collection cannot be trusted any more.
    pub fn receive(&mut self, fetched: Fetched) -> Result<(), UpdateError> {
        let _ = fetched;
        todo!()
    }

    /// The result, once [`Step::Done`] was said.
    #[must_use]
    pub fn finish(self) -> Trusted {
        todo!()
    }
}
