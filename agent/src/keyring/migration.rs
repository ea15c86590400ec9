//! Keys that move to another host, or come from one.
//!
//! What each side knows is decided in [`crate::migration`] and recorded in the ledger, in the
//! transaction that changes the keys; here are the disk, the stores and the person around it.
//!
//! ```text
//! new host                                         old host
//! offer    identity file, then the record
//!                                                  send     record, then the package goes out
//! receive  keys, index, proofs: one journal,
//!          then the receipt goes out
//!                                                  finish   tombstones and record, then the files
//!                                                           go, then the note goes out
//! close    record
//! ```

mod finish;
mod identity;
mod receive;
mod send;

use std::path::Path;

use signet_proto::v1::{
    self, BackupDone, BackupRequest, MigratingKey, Migration, MigrationDone, migrate::Step,
};
use tokio::sync::Mutex;

pub(super) use self::finish::resume;
use self::identity::Identities;
use super::{Fault, Keyring, Person, backup::archive_entry};
use crate::{
    ledger::{NewEntry, migration::Record},
    migration::{Departure, New, Old, Refusal},
    presence::stream::Stream,
};

/// Every migration of this host.
#[derive(Debug, Default)]
struct Migrations {
    old: Vec<Old>,
    new: Vec<New>,
}

impl Migrations {
    fn read(records: &[Record]) -> Result<Self, Fault> {
        let mut all = Self::default();
        let damaged = |_| Fault::Internal("the ledger holds a migration that cannot be read");
        for record in records {
            match record.side.as_str() {
                OLD => all
                    .old
                    .push(serde_json::from_str(&record.json).map_err(damaged)?),
                _ => all
                    .new
                    .push(serde_json::from_str(&record.json).map_err(damaged)?),
            }
        }
        Ok(all)
    }

    fn sent(&self, id: &str) -> Option<&Old> {
        self.old.iter().find(|old| old.id == id)
    }

    fn received(&self, id: &str) -> Option<&New> {
        self.new.iter().find(|new| new.id == id)
    }
}

/// Steps of this process; steps of another one are kept out by the agent's lock on its home.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const OLD: &str = "old";
const NEW: &str = "new";

fn record_of(id: &str, side: &str, state: &impl serde::Serialize) -> Record {
    Record {
        id: id.to_owned(),
        side: side.to_owned(),
        json: serde_json::to_string(state).expect("strings and numbers are JSON"),
    }
}

fn old_record(old: &Old) -> Record {
    record_of(&old.id, OLD, old)
}

fn new_record(new: &New) -> Record {
    record_of(&new.id, NEW, new)
}

/// The log entry of one step.
fn step_entry(kind: &'static str, summary: String, person: &Person<'_>) -> NewEntry {
    NewEntry {
        summary,
        ..archive_entry(kind, person)
    }
}

/// What came of a step, with the message that goes to the other host.
fn done(migration: Migration, message: Vec<u8>, log_entry: u64) -> BackupDone {
    BackupDone {
        log_entry,
        migration: Some(MigrationDone {
            migrations: vec![migration],
            message,
        }),
        ..BackupDone::default()
    }
}

impl Keyring {
    /// One step of a migration.
    pub(super) async fn migrate(
        &self,
        migrate: &v1::Migrate,
        docker_dir: &str,
        home: &Path,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        // What one step decides by must not be changed by another meanwhile.
        let _one = stream.while_there(ONE_AT_A_TIME.lock()).await?;
        let host = signet_proto::migration::host_name(&migrate.host);
        match &migrate.step {
            Some(Step::Offer(offer)) => self.offer(offer, &host, home, person).await,
            Some(Step::Send(send)) => {
                self.send(send, &host, docker_dir, home, person, stream)
                    .await
            }
            Some(Step::Receive(receive)) => {
                self.receive(receive, docker_dir, home, person, stream)
                    .await
            }
            Some(Step::Finish(finish)) => self.finish(&finish.receipt, docker_dir, person).await,
            Some(Step::Close(close)) => self.close(&close.note, home, person).await,
            Some(Step::Receipt(receipt)) => self.receipt(&receipt.id).await,
            Some(Step::Status(_)) => {
                let all = self.migrations().await?;
                let mut told: Vec<Migration> = all.old.iter().map(tell_old).collect();
                told.extend(all.new.iter().map(tell_new));
                told.sort_by_key(|migration| std::cmp::Reverse(migration.time));
                Ok(BackupDone {
                    migration: Some(MigrationDone {
                        migrations: told,
                        message: Vec::new(),
                    }),
                    ..BackupDone::default()
                })
            }
            Some(Step::Cancel(cancel)) => self.cancel(&cancel.id, home, person).await,
            None => Err(Fault::Malformed(
                "a step of a migration that says nothing".to_owned(),
            )),
        }
    }

    async fn migrations(&self) -> Result<Migrations, Fault> {
        let records = self.recorder.run(|ledger| ledger.migrations()).await?;
        Migrations::read(&records)
    }

    async fn record(&self, record: Record, entries: Vec<NewEntry>) -> Result<u64, Fault> {
        self.recorder
            .run(move |ledger| ledger.migrated(&record, &entries))
            .await
    }

    /// The receipt of a migration once more.
    async fn receipt(&self, id: &str) -> Result<BackupDone, Fault> {
        let all = self.migrations().await?;
        let new = match (id, &all.new[..]) {
            ("", [new]) => new,
            (id, _) => all.received(id).ok_or_else(|| unknown(id, "to"))?,
        };
        let receipt = new.receipt()?;
        Ok(done(tell_new(new), receipt.to_json(), 0))
    }

    async fn cancel(
        &self,
        id: &str,
        home: &Path,
        person: &Person<'_>,
    ) -> Result<BackupDone, Fault> {
        let all = self.migrations().await?;
        let open_old = all
            .old
            .iter()
            .filter(|old| !old.cancelled && !old.is_over());
        let open_new = all.new.iter().filter(|new| new.is_open());
        let mut ids: Vec<&str> = open_old.map(|old| old.id.as_str()).collect();
        ids.extend(open_new.map(|new| new.id.as_str()));
        let id = match (id, &ids[..]) {
            ("", [id]) => *id,
            ("", []) => return Err(Fault::Usage("there is no migration to cancel".to_owned())),
            ("", several) => {
                return Err(Fault::Usage(format!(
                    "several migrations are open; name one of them: {}",
                    several.join(", ")
                )));
            }
            (id, _) => id,
        };
        if let Some(old) = all.sent(id) {
            let mut old = old.clone();
            old.cancel()?;
            let summary = format!("migration {id} to {}: what has not left stays here", old.to);
            let entry = step_entry("cancel", summary, person);
            let number = self.record(old_record(&old), vec![entry]).await?;
            return Ok(done(tell_old(&old), Vec::new(), number));
        }
        let new = all.received(id).ok_or_else(|| unknown(id, "to or from"))?;
        let mut new = new.clone();
        new.cancel()?;
        let entry = step_entry("cancel", format!("migration {id} to this host"), person);
        let number = self.record(new_record(&new), vec![entry]).await?;
        self.forget_identity(home, id).await?;
        Ok(done(tell_new(&new), Vec::new(), number))
    }

    /// What `status` says of keys on their way.
    pub(super) async fn migration_warnings(&self) -> Result<Vec<String>, Fault> {
        let all = self.migrations().await?;
        let mut warnings = Vec::new();
        for old in all
            .old
            .iter()
            .filter(|old| !old.cancelled && !old.is_over())
        {
            let count = old.leaving().count();
            warnings.push(format!(
                "{count} {} leaving for {}: both hosts can sign until `signet migrate finish \
                 RECEIPT` (migration {})",
                if count == 1 { "key is" } else { "keys are" },
                old.to,
                short(&old.id)
            ));
        }
        for new in &all.new {
            let count = new.held_by_both();
            if count > 0 {
                warnings.push(format!(
                    "{} may still hold {count} {} that came from it: give it the receipt (`signet \
                     migrate receive --receipt {}`), and take its closing note here",
                    new.from,
                    if count == 1 { "key" } else { "keys" },
                    new.id
                ));
            }
        }
        Ok(warnings)
    }
}

fn unknown(id: &str, how: &str) -> Fault {
    Fault::Usage(format!(
        "no migration {} {how} this host is known here: `signet migrate status` lists them",
        signet_trust::payload::escape(id)
    ))
}

/// The first digits of an ID, for the eye.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn tell_old(old: &Old) -> Migration {
    let key = |key: &crate::migration::Moved| MigratingKey {
        key_id: key.named.id.clone(),
        role: key.named.role.clone(),
        gun: key.named.gun.clone(),
        label: key.named.label.clone(),
        store: key.named.store.clone(),
        state: match key.state {
            Departure::Leaving => "leaving",
            Departure::Retiring | Departure::Retired => "retired",
            Departure::Stays => "stays",
        }
        .to_owned(),
        ..MigratingKey::default()
    };
    Migration {
        id: old.id.clone(),
        side: OLD.to_owned(),
        state: old.word().to_owned(),
        peer: old.to.clone(),
        recipient: old.recipient.clone(),
        packages: old.packages.clone(),
        keys: old.keys.iter().map(key).collect(),
        time: old.time,
    }
}

fn tell_new(new: &New) -> Migration {
    let key = |key: &crate::migration::Arrival| MigratingKey {
        key_id: key.named.id.clone(),
        role: key.named.role.clone(),
        gun: key.named.gun.clone(),
        label: key.named.label.clone(),
        store: key.named.store.clone(),
        state: match (key.proof.is_empty(), key.retired) {
            (_, true) => "retired",
            (true, _) => "missing",
            (false, _) => "proved",
        }
        .to_owned(),
        ..MigratingKey::default()
    };
    Migration {
        id: new.id.clone(),
        side: NEW.to_owned(),
        state: new.state.as_str().to_owned(),
        peer: new.from.clone(),
        recipient: new.recipient.clone(),
        packages: Some(new.package.clone())
            .into_iter()
            .filter(|package| !package.is_empty())
            .collect(),
        keys: new.keys.iter().map(key).collect(),
        time: new.time,
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Migration(refusal)
    }
}
