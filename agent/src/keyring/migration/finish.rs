//! The old host retires what the receipt proves.

use std::path::Path;

use signet_proto::{migration::Receipt, v1::BackupDone};
use signet_trust::{KeyId, payload::escape};

use super::{Identities, Migrations, done, old_record, step_entry, tell_old};
use crate::{
    keyring::{Fault, Keyring, Person},
    ledger::{Ledger, NewEntry, RETIRED, Tombstone},
    migration::{New, Old, Refusal},
    service::now,
    store::{KeyStore, StoreError, docker::DockerStore, file::FileStore},
};

impl Keyring {
    /// Retires what a receipt proves; the closing note.
    pub(super) async fn finish(
        &self,
        receipt: &[u8],
        docker_dir: &str,
        person: &Person<'_>,
    ) -> Result<BackupDone, Fault> {
        let receipt = Receipt::parse(receipt).map_err(Refusal::from)?;
        let all = self.migrations().await?;
        let old = all.sent(&receipt.id).ok_or_else(|| {
            Fault::Usage(format!(
                "this host sent no keys in migration {}: the receipt belongs to another host, or to \
                 another home",
                receipt.id
            ))
        })?;
        let mut old = old.clone();
        let verdict = old.judge(&receipt)?;
        self.same_docker_dir(docker_dir)?;
        old.docker_dir.clone_from(&self.docker_dir);
        old.retiring(&verdict.retire);
        let mut number = 0;
        if !verdict.retire.is_empty() {
            let keys = stones(&old, &verdict.retire, person);
            let record = old_record(&old);
            let (last, index) = self
                .recorder
                .run(move |ledger| {
                    let number = ledger.moved_away(&record, &keys)?;
                    Ok((number, ledger.index()?))
                })
                .await?;
            number = last;
            self.set_index(index);
            if let Some(line) = &receipt.checkpoint {
                // This host's log bears witness to what the other's was.
                let summary = format!("checkpoint of {}'s log: {}", old.to, escape(line));
                number = self.log(step_entry("witness", summary, person)).await?;
            }
        }
        // Refused from here on, whatever becomes of the files; the next start goes on with them.
        let ids = old.to_remove();
        if !ids.is_empty() {
            let (native, dockers) = (ids.clone(), ids.clone());
            self.file
                .run(move |store| remove_all(store, &native))
                .await??;
            self.docker
                .run(move |store| remove_all(store, &dockers))
                .await??;
            old.removed(&ids);
            self.record(old_record(&old), Vec::new()).await?;
        }
        let note = old.note().map(|note| note.to_json()).unwrap_or_default();
        let mut told = tell_old(&old);
        for key in told.keys.iter_mut().filter(|key| key.state == "leaving") {
            key.problem = format!("{} has not proved that it has it", old.to);
            key.exit = 1;
        }
        Ok(done(told, note, number))
    }
}

/// What is left of the keys, and what the log says of each.
fn stones(old: &Old, ids: &[KeyId], person: &Person<'_>) -> Vec<(Tombstone, NewEntry)> {
    let time = now();
    let retired = old.keys.iter().filter_map(|key| {
        let id = key.named.key_id().filter(|id| ids.contains(id))?;
        let gun = Some(key.named.gun.clone()).filter(|gun| !gun.is_empty());
        let entry = NewEntry {
            gun: key.named.gun.clone(),
            role: key.named.role.clone(),
            key: Some(id),
            ..step_entry(
                "retire",
                format!("moved to {}, migration {}", old.to, old.id),
                person,
            )
        };
        let stone = Tombstone {
            id,
            reason: RETIRED.to_owned(),
            detail: old.to.clone(),
            role: key.named.role.clone(),
            gun,
            label: key.named.label.clone(),
            store: key.named.store.clone(),
            public: key.public.read()?,
            time,
        };
        Some((stone, entry))
    });
    retired.collect()
}

fn remove_all(store: &mut impl KeyStore, ids: &[KeyId]) -> Result<(), StoreError> {
    for id in ids {
        match store.remove(id) {
            // Removed before a kill, or never in this store.
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Goes on with what a killed agent left: files of retired keys, identities that nobody needs. The
/// caller holds the agent's lock.
///
/// # Errors
///
/// [`StoreError`] when a file cannot be removed: then the next start tries again.
pub(in crate::keyring) fn resume(
    home: &Path,
    docker_dir: &Path,
    file: &mut FileStore,
    docker: &mut DockerStore,
) -> Result<(), Fault> {
    if !Identities::of(home).dir_exists() {
        // No key of this home ever moved.
        return Ok(());
    }
    let mut ledger = Ledger::open(home)?;
    let all = Migrations::read(&ledger.migrations()?)?;
    for mut old in all.old {
        let ids = old.to_remove();
        if ids.is_empty() {
            continue;
        }
        remove_all(file, &ids)?;
        match old.docker_dir == docker_dir {
            true => remove_all(docker, &ids)?,
            // This agent was started with another directory than the one that was killed.
            false => remove_all(&mut DockerStore::open(&old.docker_dir), &ids)?,
        }
        old.removed(&ids);
        ledger.migrated(&old_record(&old), &[])?;
        tracing::info!(keys = ids.len(), "files of retired keys were removed");
    }
    let needed: Vec<&str> = all
        .new
        .iter()
        .filter(|new| New::needs_identity(new))
        .map(|new| new.id.as_str())
        .collect();
    Identities::of(home).clean(&needed)?;
    Ok(())
}
