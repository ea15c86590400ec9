//! What can go wrong with the ledger, and what the person can do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;
use signet_trust::{Gun, KeyId};

/// Why the ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file is damaged, or its chain does not hold.
    #[error("the ledger {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// A file operation outside SQLite failed.
    #[error("cannot use {}", path.display())]
    Io {
        /// The ledger, or its home.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Labels are unique.
    #[error("the label {label:?} belongs to key {id}")]
    LabelTaken {
        /// The label.
        label: String,
        /// Whose it is.
        id: KeyId,
    },
    /// The guard state moved between decision and commit.
    #[error("the guard state of {0} changed meanwhile")]
    Moved(Gun),
    /// On a network file system.
    #[error("{} is on a network file system ({kind})", path.display())]
    Network {
        /// The home.
        path: PathBuf,
        /// nfs, cifs, …
        kind: &'static str,
    },
    /// Written by a newer Signet.
    #[error("the ledger is of version {found}; this Signet reads up to {known}")]
    Newer {
        /// In the file.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A row that no agent writes.
    #[error("the ledger is damaged: {0}")]
    Row(String),
    /// SQLite failed; disk full among others.
    #[error("the ledger cannot be written or read")]
    Sqlite(#[from] rusqlite::Error),
}

/// A damaged file is told from a failure to write it.
pub(super) fn of(path: &Path, error: LedgerError) -> LedgerError {
    let damaged = |why: String| LedgerError::Damaged {
        path: path.to_owned(),
        why,
    };
    match error {
        LedgerError::Row(why) => damaged(why),
        LedgerError::Sqlite(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => damaged("it is no SQLite database".to_owned()),
            Some(ErrorCode::DatabaseCorrupt) => damaged("its structure is broken".to_owned()),
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => {
                    damaged(format!("a row holds what no agent writes ({error})"))
                }
                other => LedgerError::Sqlite(other),
            },
        },
        other => other,
    }
}

impl LedgerError {
    /// What the person can do about it, if that is not obvious from the message.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::Damaged { .. } | Self::Row(_) => {
                "stop the agent and put ledger.sqlite back from a backup, or move it away together \
                 with ledger.sqlite-wal and ledger.sqlite-shm to begin a new one: keys are not \
                 lost, but the log and the memory of what was signed begin anew"
            }
            Self::Io { .. } | Self::Sqlite(_) => {
                "nothing was signed or changed; look for a full disk or lost permissions"
            }
            Self::LabelTaken { .. } => "choose another label",
            Self::Moved(_) => "run the command again",
            Self::Network { .. } => "set SIGNET_HOME to a directory on a local disk",
            Self::Newer { .. } => "use the newer Signet that wrote it",
        })
    }

    /// The same failure once more, for each release that shared a transaction.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Damaged { path, why } => Self::Damaged {
                path: path.clone(),
                why: why.clone(),
            },
            Self::Sqlite(rusqlite::Error::SqliteFailure(code, message)) => {
                Self::Sqlite(rusqlite::Error::SqliteFailure(*code, message.clone()))
            }
            Self::Moved(gun) => Self::Moved(gun.clone()),
            other => Self::Sqlite(rusqlite::Error::ToSqlConversionFailure(
                other.to_string().into(),
            )),
        }
    }
}
