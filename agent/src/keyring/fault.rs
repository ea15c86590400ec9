//! Everything that can end a request.

use signet_trust::{KeyId, RoleName, base::BaseError, guard::Rule, key::KeyError};

use crate::{ledger::LedgerError, presence::NoSecret, store::StoreError};

/// Why a request ended without doing what it asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Several keys answer to the name.
    #[error("{name:?} names several keys")]
    Ambiguous {
        /// As asked.
        name: String,
        /// IDs and words of those that fit.
        candidates: Vec<String>,
    },
    /// An archive cannot be used.
    #[error("the archive cannot be used: {0}")]
    Archive(String),
    /// The base does not verify.
    #[error("what the server has published for this repository does not verify: {0}")]
    Base(#[from] BaseError),
    /// A certificate or public key could not be made.
    #[error("cannot make the root certificate: {0}")]
    Certificate(KeyError),
    /// The file and the index say different things of one key.
    #[error(
        "key {id} is {found} in its file but {indexed} in the index; it is not used until they agree"
    )]
    Conflict {
        /// The key.
        id: KeyId,
        /// Role and GUN in the file.
        found: String,
        /// Role and GUN in the index.
        indexed: String,
    },
    /// The person said no.
    #[error("declined")]
    Declined,
    /// The caller's directory of Docker's keys is not the agent's.
    #[error(
        "this command's DOCKER_CONFIG is {theirs}, but the agent that answers uses {ours} for \
         Docker's keys"
    )]
    DockerDir {
        /// The agent's.
        ours: String,
        /// The caller's.
        theirs: String,
    },
    /// A forwarded request, and nobody attends on this machine.
    #[error(
        "this request comes over a forwarded connection, and nobody attends here to approve it"
    )]
    Forwarded,
    /// A forwarded request for anything but keys and signatures.
    #[error("a forwarded connection may only list keys and sign with them")]
    ForwardedOnly,
    /// The caller went away.
    #[error("the caller went away")]
    Gone,
    /// Something of the agent's own broke.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// The key is for something else.
    #[error("key {id} is {what}, so it does not sign {role} of {gun}")]
    KeyRole {
        /// The key.
        id: KeyId,
        /// Its role and GUN.
        what: String,
        /// What was asked.
        role: RoleName,
        /// What was asked.
        gun: String,
    },
    /// The ledger could not be read or written; nothing was released.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The request itself is broken.
    #[error("the request is malformed: {0}")]
    Malformed(String),
    /// A step of a migration that does not fit.
    #[error(transparent)]
    Migration(crate::migration::Refusal),
    /// A yes or no is needed, and nobody may be asked.
    #[error("this needs a yes: {0}")]
    NeedsYes(String),
    /// A key that was found, not enrolled, and is asked to do what only enrolled keys do.
    #[error("key {0} was found in a store but never enrolled here, and nothing published lists it")]
    NotEnrolled(KeyId),
    /// A prompt was not answered in time.
    #[error("nobody answered within five minutes")]
    NobodyAnswered,
    /// No secret came.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// An override or root key needs a secret given for this request, and the key has none.
    #[error("key {0} opens without a passphrase, so nothing can confirm {1}")]
    NothingToConfirmWith(KeyId, String),
    /// A rule of the policy refuses it.
    #[error("refused by policy: {why}")]
    Policy {
        /// Its name.
        rule: String,
        /// In words.
        why: String,
    },
    /// Fetch the base once more, then ask again.
    #[error("{reason}")]
    Refetch {
        /// The rule that refuses if nothing changes.
        rule: Rule,
        /// In words.
        reason: String,
        /// The version that would pass.
        next: u32,
    },
    /// The guard refused.
    #[error("{reason}")]
    Refused {
        /// By this rule.
        rule: Rule,
        /// In words.
        reason: String,
        /// The version that would pass.
        next: u32,
        /// Whether `--allow` helps.
        can_override: bool,
    },
    /// A key that was moved to another host.
    #[error("key {id} was {why}: it is not used here")]
    Retired {
        /// The key.
        id: KeyId,
        /// `moved to newhost`
        why: String,
    },
    /// A root key that a published collection lists.
    #[error("root key {id} is listed by {}", used_by.join(", "))]
    RootInUse {
        /// The key.
        id: KeyId,
        /// The collections.
        used_by: Vec<String>,
    },
    /// The client did not send the rest in time.
    #[error("the rest of the request did not come within two minutes")]
    Slow,
    /// Other machines ask faster than anybody could answer.
    #[error("too many requests of other machines, or too many of them wait already")]
    TooMany,
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
    /// A store failed.
    #[error("{}", chain(.0))]
    Store(StoreError),
    /// Larger than a request may be.
    #[error("the request has {size} bytes; at most {limit} are taken")]
    TooLarge {
        /// Announced.
        size: u64,
        /// Allowed.
        limit: u64,
    },
    /// No key answers to the name.
    #[error("no key here is called {0:?}")]
    UnknownKey(String),
    /// No key of this request is here.
    #[error("none of the keys that may sign {role} of {gun} is here: {}", list(.needed))]
    NoKeyHere {
        /// Whose document.
        role: RoleName,
        /// Which collection.
        gun: String,
        /// What would do.
        needed: Vec<KeyId>,
    },
    /// Another user.
    #[error("{0}")]
    WrongUser(String),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSecret(why) => Self::NoSecret(why),
            error => Self::Store(error),
        }
    }
}

/// An error with its causes, `a: b: c`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Transparent wrappers repeat themselves.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

fn list(ids: &[KeyId]) -> String {
    ids.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
