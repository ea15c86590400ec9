//! Checkpoints: what the newest entry of the log was at a time, to be kept where the log is not.
//!
//! The chain alone proves only that a log is consistent: who can write the file can write another
//! chain. A checkpoint that lies elsewhere (the system's journal, a file or command of
//! `log.witness`, a backup) proves that everything up to its entry is unchanged. One that is kept in
//! the ledger proves the same only against somebody who has not the log key, and not against
//! cutting the log behind it.
//!
//! As text it is one line of JSON:
//!
//! ```text
//! {"checkpoint":1,"entry":1000,"head":"<hex>","time":"2026-11-22T08:00:00Z","key":"<hex>","signature":"<hex>"}
//! ```
//!
//! `key` and `signature` (Ed25519) are null where no keyring was open. Signed is
//! `"signet log checkpoint v1\n" ‖ entry u64 ‖ time i64 ‖ head`, integers big-endian, the time in
//! Unix seconds.

use rusqlite::{Connection, OpenFlags, Row, params};
use serde::{Deserialize, Serialize};
use signet_trust::{KeyType, Method, PublicKey};

use super::{Ledger, LedgerError, log, of};

const TAG: &[u8] = b"signet log checkpoint v1\n";
/// The form of the line.
const VERSION: u32 = 1;
/// A checkpoint's line has some 320 bytes.
const MAX_LINE: usize = 1024;

/// What the newest entry was at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Number of the newest entry; never 0.
    pub(crate) entry: u64,
    /// Its hash.
    pub(crate) head: [u8; 32],
    /// Unix seconds.
    pub(crate) time: i64,
    /// Who signed it.
    pub(crate) seal: Option<Seal>,
}

/// A signature by a log key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Ed25519 public key.
    pub(crate) public: [u8; 32],
    /// Of [`Checkpoint::message`].
    pub(crate) signature: [u8; 64],
}

/// Why a line is no checkpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadCheckpoint {
    /// Not the JSON described above.
    #[error("it is no checkpoint")]
    Form,
    /// Made by a newer Signet.
    #[error("it is of version {0}, which this Signet does not know")]
    Version(u32),
    /// Somebody has changed it, or signed something else.
    #[error("its signature does not verify")]
    Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    checkpoint: u32,
    entry: u64,
    head: String,
    time: String,
    key: Option<String>,
    signature: Option<String>,
}

impl Checkpoint {
    /// What is signed.
    pub(crate) fn message(entry: u64, head: &[u8; 32], time: i64) -> Vec<u8> {
        let mut message = TAG.to_vec();
        message.extend(entry.to_be_bytes());
        message.extend(time.to_be_bytes());
        message.extend(head);
        message
    }

    /// As one line, without its end.
    pub(crate) fn to_line(&self) -> String {
        let line = Line {
            checkpoint: VERSION,
            entry: self.entry,
            head: hex::encode(self.head),
            time: signet_trust::time::Expiry::at(self.time)
                .as_str()
                .to_owned(),
            key: self.seal.as_ref().map(|seal| hex::encode(seal.public)),
            signature: self.seal.as_ref().map(|seal| hex::encode(seal.signature)),
        };
        serde_json::to_string(&line).expect("texts and numbers")
    }

    /// Reads a line, and verifies its signature if it has one.
    pub(crate) fn parse(line: &str) -> Result<Self, BadCheckpoint> {
        if line.len() > MAX_LINE {
            return Err(BadCheckpoint::Form);
        }
        let line: Line = serde_json::from_str(line).map_err(|_| BadCheckpoint::Form)?;
        if line.checkpoint != VERSION {
            return Err(BadCheckpoint::Version(line.checkpoint));
        }
        let time =
            signet_trust::time::Expiry::parse(&line.time).map_err(|_| BadCheckpoint::Form)?;
        let seal = match (&line.key, &line.signature) {
            (None, None) => None,
            (Some(key), Some(signature)) => Some(Seal {
                public: bytes(key)?,
                signature: bytes(signature)?,
            }),
            _ => return Err(BadCheckpoint::Form),
        };
        let checkpoint = Self {
            entry: Some(line.entry)
                .filter(|entry| *entry > 0)
                .ok_or(BadCheckpoint::Form)?,
            head: bytes(&line.head)?,
            time: time.unix(),
            seal,
        };
        match checkpoint.is_sound() {
            true => Ok(checkpoint),
            false => Err(BadCheckpoint::Signature),
        }
    }

    /// Whether its signature, if it has one, verifies.
    fn is_sound(&self) -> bool {
        self.seal.as_ref().is_none_or(|seal| {
            let message = Self::message(self.entry, &self.head, self.time);
            PublicKey::new(KeyType::Ed25519, seal.public.to_vec())
                .verify(Method::Eddsa, &message, &seal.signature)
                .is_ok()
        })
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let public: Vec<u8> = row.get(3)?;
        let signature: Vec<u8> = row.get(4)?;
        Ok(Self {
            entry: row.get::<_, i64>(0)?.cast_unsigned(),
            time: row.get(1)?,
            head: row.get(2)?,
            seal: match (public.try_into(), signature.try_into()) {
                (Ok(public), Ok(signature)) => Some(Seal { public, signature }),
                _ => None,
            },
        })
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], BadCheckpoint> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| BadCheckpoint::Form)?;
    Ok(bytes)
}

/// What a look at the whole log showed.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// Entries that hold, from the first.
    pub(crate) entries: u64,
    /// Hash of the last of them.
    pub(crate) head: [u8; 32],
    /// What does not hold in the chain.
    pub(crate) problem: Option<String>,
    /// Checkpoints that the ledger keeps itself.
    pub(crate) own: u64,
    /// The newest of them that is signed and holds.
    pub(crate) newest_own: Option<Checkpoint>,
    /// What does not hold of those.
    pub(crate) own_problem: Option<String>,
    /// What does not hold of those from elsewhere, in the order given; `None`: it holds.
    pub(crate) against: Vec<Option<String>>,
}

impl Ledger {
    /// Keeps a checkpoint. One of the same entry by the same key is kept as it was.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn keep(&mut self, checkpoint: &Checkpoint) -> Result<(), LedgerError> {
        self.writing(|writing| {
            let seal = checkpoint.seal.as_ref();
            writing
                .db
                .prepare_cached(
                    "INSERT OR IGNORE INTO checkpoint (number, time, head, public, signature)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    checkpoint.entry.cast_signed(),
                    checkpoint.time,
                    checkpoint.head,
                    seal.map_or(&[][..], |seal| &seal.public),
                    seal.map_or(&[][..], |seal| &seal.signature),
                ])?;
            Ok(())
        })
    }

    /// Checkpoints from entry `from` on, by entry; at most `count`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub(crate) fn checkpoints(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Vec<Checkpoint>, LedgerError> {
        self.reading(|ledger| Ok(checkpoints(&ledger.db, from, count)?))
    }
}

fn checkpoints(db: &Connection, from: u64, count: u64) -> rusqlite::Result<Vec<Checkpoint>> {
    let mut select = db.prepare_cached(
        "SELECT number, time, head, public, signature FROM checkpoint
         WHERE number >= ?1 ORDER BY number, public LIMIT ?2",
    )?;
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let rows = select.query_map([number(from), number(count)], Checkpoint::read)?;
    rows.collect()
}

/// Computes the whole chain anew, on a connection of its own so that signing goes on, and compares
/// it with the checkpoints kept in the ledger and with those from elsewhere.
///
/// # Errors
///
/// [`LedgerError::Sqlite`] when the file cannot be read; what does not hold is part of the answer.
pub(crate) fn verify(
    home: &std::path::Path,
    against: &[Checkpoint],
) -> Result<Verified, LedgerError> {
    let path = home.join(super::FILE_NAME);
    let read = || -> Result<Verified, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)?;
        // One state of the file, whatever is written meanwhile.
        db.execute_batch("BEGIN")?;
        compare(&db, against)
    };
    match read().map_err(|error| of(&path, error)) {
        Err(LedgerError::Damaged { why, .. }) => Ok(Verified {
            problem: Some(why),
            against: vec![Some("the ledger cannot be read".to_owned()); against.len()],
            ..Verified::default()
        }),
        other => other,
    }
}

fn compare(db: &Connection, against: &[Checkpoint]) -> Result<Verified, LedgerError> {
    let own = checkpoints(db, 0, u64::MAX)?;
    let mut wanted: std::collections::HashMap<u64, Option<[u8; 32]>> = own
        .iter()
        .chain(against)
        .map(|checkpoint| (checkpoint.entry, None))
        .collect();
    let (mut entries, mut head) = (0, [0; 32]);
    let checked = log::check(db, 1, |number, hash| {
        (entries, head) = (number, *hash);
        if let Some(found) = wanted.get_mut(&number) {
            *found = Some(*hash);
        }
    })?;
    let problem = checked.err();
    let judge = |checkpoint: &Checkpoint| match wanted.get(&checkpoint.entry).copied().flatten() {
        Some(hash) if hash == checkpoint.head => None,
        Some(_) => Some(format!(
            "entry {} is another one than when the checkpoint was made, or the checkpoint is of \
             another ledger",
            checkpoint.entry
        )),
        None if problem.is_some() => Some(format!(
            "it is of entry {}, and the log holds only up to entry {entries}",
            checkpoint.entry
        )),
        None => Some(format!(
            "it is of entry {}, and the log ends with entry {entries}: entries were cut off, an \
             older ledger was put back, or the checkpoint is of another ledger",
            checkpoint.entry
        )),
    };
    let own_problem = own
        .iter()
        .find_map(|checkpoint| match checkpoint.is_sound() {
            false => Some(format!(
                "the signature of the checkpoint at entry {} does not verify",
                checkpoint.entry
            )),
            true => judge(checkpoint),
        });
    let mut signed = own.iter().filter(|checkpoint| checkpoint.seal.is_some());
    let newest_own = signed
        .rfind(|checkpoint| checkpoint.is_sound() && judge(checkpoint).is_none())
        .cloned();
    let against = against.iter().map(judge).collect();
    Ok(Verified {
        entries,
        head,
        own: own.len() as u64,
        newest_own,
        own_problem,
        against,
        problem,
    })
}

#[cfg(test)]
mod tests {
    use signet_trust::{Algorithm, PrivateKey};

    use super::*;
    use crate::ledger::NewEntry;

    fn ledger(entries: u64) -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        for number in 0..entries {
            let entry = NewEntry {
                kind: "sign",
                summary: format!("adds {number}"),
                facts: r#"{"caller":{"pid":1}}"#.to_owned(),
                ..NewEntry::default()
            };
            ledger.append(&entry).unwrap();
        }
        (dir, ledger)
    }

    fn sealed(ledger: &Ledger, key: &PrivateKey) -> Checkpoint {
        let (entry, head) = ledger.head().unwrap();
        let time = 1_800_000_000;
        let signature = key
            .sign(&Checkpoint::message(entry, &head, time))
            .unwrap()
            .try_into()
            .unwrap();
        Checkpoint {
            entry,
            head,
            time,
            seal: Some(Seal {
                public: key.public().public().try_into().unwrap(),
                signature,
            }),
        }
    }

    #[test]
    fn a_line_reads_back_and_a_changed_one_does_not() {
        let (_dir, ledger) = ledger(3);
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let checkpoint = sealed(&ledger, &key);
        let line = checkpoint.to_line();
        assert_eq!(Checkpoint::parse(&line), Ok(checkpoint.clone()));
        let other = line.replace("\"entry\":3", "\"entry\":2");
        assert_eq!(Checkpoint::parse(&other), Err(BadCheckpoint::Signature));
        let newer = line.replace("\"checkpoint\":1", "\"checkpoint\":2");
        assert_eq!(Checkpoint::parse(&newer), Err(BadCheckpoint::Version(2)));
        for bad in [
            "",
            "{}",
            "[]",
            &line[1..],
            &line.replace("\"key\":", "\"kee\":"),
        ] {
            assert_eq!(Checkpoint::parse(bad), Err(BadCheckpoint::Form), "{bad}");
        }
        let unsigned = Checkpoint {
            seal: None,
            ..checkpoint
        };
        assert_eq!(Checkpoint::parse(&unsigned.to_line()), Ok(unsigned));
    }

    #[test]
    fn a_log_that_was_cut_or_written_anew_does_not_hold_against_a_checkpoint() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let (dir, mut written) = ledger(5);
        let checkpoint = sealed(&written, &key);
        written.keep(&checkpoint).unwrap();
        written.append(&NewEntry::default()).unwrap();
        let whole = verify(dir.path(), std::slice::from_ref(&checkpoint)).unwrap();
        assert_eq!((whole.entries, whole.own, &whole.problem), (6, 1, &None));
        assert_eq!(whole.newest_own.as_ref(), Some(&checkpoint));
        assert_eq!(whole.against, [None]);

        let (shorter, _ledger) = ledger(4);
        let cut = verify(shorter.path(), std::slice::from_ref(&checkpoint)).unwrap();
        assert_eq!(cut.problem, None);
        let why = cut.against[0].clone().unwrap();
        assert!(why.contains("the log ends with entry 4"), "{why}");

        let (anew, mut ledger) = ledger(4);
        ledger.append(&NewEntry::default()).unwrap();
        let other = verify(anew.path(), &[checkpoint]).unwrap();
        let why = other.against[0].clone().unwrap();
        assert!(why.contains("entry 5 is another one"), "{why}");
    }

    #[test]
    fn a_checkpoint_in_the_ledger_without_a_true_signature_is_named() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let (dir, mut ledger) = ledger(2);
        let mut forged = sealed(&ledger, &key);
        forged.time += 1;
        ledger.keep(&forged).unwrap();
        let verified = verify(dir.path(), &[]).unwrap();
        let why = verified.own_problem.unwrap();
        assert!(why.contains("checkpoint at entry 2"), "{why}");
        assert_eq!(verified.newest_own, None);
    }
}
