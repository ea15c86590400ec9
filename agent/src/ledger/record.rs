//! What the ledger records, as the agent hands it over and gets it back.

use signet_trust::{
    Gun, KeyId, PublicKey, RoleName,
    base::Lineage,
    guard::{History, Mark, Pass},
};

/// A key that was generated, imported or accepted here.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// Canonical ID.
    pub id: KeyId,
    /// root, targets, snapshot, or a signer's name.
    pub role: String,
    /// For targets and snapshot.
    pub gun: Option<String>,
    /// Given by the person; empty if none.
    pub label: String,
    /// `file`, `docker` or `piv`.
    pub store: String,
    /// The bare public key.
    pub public: PublicKey,
    /// Unix seconds.
    pub enrolled_at: i64,
    /// IDs of root certificates made for it here.
    pub certificates: Vec<KeyId>,
    /// Signed something opaque once.
    pub used_opaque: bool,
    /// Where it lies on cards, if its store is `piv`.
    pub places: Vec<Place>,
    /// The label came with an archive, and nobody here has confirmed it.
    pub label_claimed: bool,
}

/// A slot of a card that holds an enrolled key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of the card.
    pub serial: u32,
    /// `9c` …
    pub slot: String,
    /// `never` `once` `always`, empty: not known.
    pub pin_policy: String,
    /// `never` `cached` `always`, empty: not known.
    pub touch_policy: String,
    /// `generated` `imported`, empty: not known.
    pub origin: String,
    /// Of the card, when the key came to it.
    pub firmware: String,
    /// DER of the attestation made then, empty: none.
    pub attestation: Vec<u8>,
    /// DER of the card's own certificate, empty: none.
    pub own: Vec<u8>,
    /// What the attestation proved then.
    pub proves: String,
}

/// A card that was named here or holds enrolled keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownCard {
    /// Printed on it.
    pub serial: u32,
    /// Empty if none.
    pub label: String,
    /// When it was last set up or given a key.
    pub firmware: String,
}

/// What happened, for the log. Strings are escaped before they get here.
#[derive(Clone, Debug, Default)]
pub struct NewEntry {
    /// sign certificate refuse fail publish generate import export label remove passphrase rotate
    /// unlock lock.
    pub kind: &'static str,
    /// Unix seconds.
    pub time: i64,
    /// GUN, empty if none.
    pub gun: String,
    /// Role, empty if none.
    pub role: String,
    /// Version of the document, 0 if none.
    pub version: u32,
    /// Key, if one was used.
    pub key: Option<KeyId>,
    /// SHA-256 of the payload.
    pub payload: Option<[u8; 32]>,
    /// In the words of the summary.
    pub summary: String,
    /// pid, exe.
    pub caller: String,
    /// What the answer was worth.
    pub grade: u32,
    /// Override used, or rule that refused.
    pub rule: String,
    /// released refused failed published rejected unknown …
    pub outcome: String,
    /// Who asked and how it was answered, as canonical JSON (members sorted, no white space); empty
    /// if nobody did.
    pub facts: String,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From 1.
    pub number: u64,
    /// What happened.
    pub entry: NewEntry,
    /// Chain head after it.
    pub hash: [u8; 32],
}

/// What is left of a key that was here.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// Canonical ID.
    pub id: KeyId,
    /// [`REMOVED`] or [`RETIRED`].
    pub reason: String,
    /// In words; empty if there is no more to say.
    pub detail: String,
    /// Its role.
    pub role: String,
    /// Its GUN, if it had one.
    pub gun: Option<String>,
    /// Its label; empty if none.
    pub label: String,
    /// Where it lay.
    pub store: String,
    /// The bare public key.
    pub public: PublicKey,
    /// Unix seconds.
    pub time: i64,
}

/// What a release writes: state and entries, all or none.
#[derive(Clone, Debug)]
pub struct Release {
    /// Of which collection.
    pub gun: Gun,
    /// The history that the guard decided on; it must still be the recorded one.
    pub decided_on: History,
    /// The guard's answer.
    pub pass: Pass,
    /// Wire bytes of a root to be remembered for the lineage.
    pub root_wire: Option<Vec<u8>>,
    /// One per payload and key.
    pub entries: Vec<NewEntry>,
}

/// What the client reported of released documents.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which collection.
    pub gun: Gun,
    /// And which lineage of it.
    pub lineage: Lineage,
    /// What was released.
    pub released: Vec<(RoleName, Mark)>,
    /// Whether the server has taken it.
    pub arrived: bool,
    /// For the log.
    pub entry: NewEntry,
}

/// What can share a transaction with others.
#[derive(Clone, Debug)]
pub enum Write {
    /// State and entries of one step.
    Release(Release),
    /// What became of it.
    Report(Report),
}

/// Why a key went: the person removed it. Enrolling it again takes the tombstone away.
pub const REMOVED: &str = "removed";
/// Why a key went: it was moved to another host. Only a revival brings it back.
pub const RETIRED: &str = "retired";
