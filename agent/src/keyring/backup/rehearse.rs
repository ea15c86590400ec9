//! A rehearsal: every key of an archive is opened in memory, and nothing is written but that it was.

use std::collections::HashSet;

use signet_proto::v1::{self, ArchivedKey, BackupDone, BackupRequest};
use signet_trust::KeyId;

use super::{Opener, Problem, STEP, archive_entry, candidates, name, progress, prove, receive};
use crate::{
    keyring::{Fault, Keyring, Person, StoreName, list::Listed},
    ledger::NewEntry,
    presence::stream::Stream,
};

impl Keyring {
    /// Says which keys no rehearsed backup holds, if there are any.
    pub(in crate::keyring) async fn unrehearsed(
        &self,
        keys: &[Listed],
    ) -> Result<Option<String>, Fault> {
        let rehearsed = self.recorder.run(|ledger| ledger.rehearsals()).await?;
        let rehearsed: HashSet<KeyId> = rehearsed.into_iter().map(|(id, _)| id).collect();
        let lie_here = |key: &&Listed| {
            matches!(key.store, StoreName::File | StoreName::Docker) && key.is_enrolled()
        };
        let left = keys.iter().filter(lie_here);
        let count = left.filter(|key| !rehearsed.contains(&key.id)).count();
        Ok((count > 0).then(|| {
            format!(
                "{count} {} in no backup that was rehearsed: `signet backup create`, then `signet \
                 backup verify FILE`",
                if count == 1 { "key is" } else { "keys are" }
            )
        }))
    }

    /// Whether a backup from which this key was opened was rehearsed.
    pub(in crate::keyring) async fn is_rehearsed(&self, id: &KeyId) -> Result<bool, Fault> {
        let rehearsed = self.recorder.run(|ledger| ledger.rehearsals()).await?;
        Ok(rehearsed.iter().any(|(known, _)| known == id))
    }

    pub(super) async fn rehearse(
        &self,
        rehearse: &v1::RehearseBackup,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let members = receive(stream).await?;
        let (manifest, candidates) = candidates(&members)?;
        let id = manifest.as_ref().map_or("-", |manifest| &manifest.id);
        person.about(vec![format!(
            "rehearses the backup {}",
            name(&rehearse.source)
        )]);
        let (listed, _) = self.list(docker_dir).await?;
        let mut opener = Opener::of(&members);
        let mut keys = Vec::new();
        let mut proved: Vec<KeyId> = Vec::new();
        let total = candidates.len();
        for (at, key) in candidates.iter().enumerate() {
            if at % STEP == 0 {
                progress(at, total, stream).await?;
            }
            let opening = match key.store {
                StoreName::File => {
                    opener
                        .native(key.file, &key.id, &key.role, person, stream)
                        .await?
                }
                _ => {
                    opener
                        .docker(key.file, &key.id, &key.label, person, stream)
                        .await?
                }
            };
            let here = listed.iter().find(|listed| listed.id == key.id);
            let here = match here.map(|listed| listed.info().state) {
                None => "absent",
                Some(state) if state == "gone" => "gone",
                Some(_) => "here",
            };
            let mut told = ArchivedKey {
                key_id: key.id.to_string(),
                role: key.role.clone(),
                gun: key.gun.clone(),
                label: key.label.clone(),
                store: key.store.as_str().to_owned(),
                here: here.to_owned(),
                ..ArchivedKey::default()
            };
            match opening {
                Ok(opened) => {
                    prove(&opened.key, "rehearsal", id)?;
                    if !opened.role.is_empty() {
                        told.role = opened.role;
                        told.gun = opened.gun.unwrap_or_default();
                    }
                    told.proved = true;
                    proved.push(key.id);
                }
                Err(Problem { reason, exit }) => {
                    told.problem = reason;
                    told.exit = exit;
                }
            }
            keys.push(told);
        }
        progress(total, total, stream).await?;
        let entry = NewEntry {
            summary: format!("archive {id}: {} of {total} keys open", proved.len()),
            ..archive_entry("rehearse", person)
        };
        let log_entry = self
            .recorder
            .run(move |ledger| ledger.rehearsed(&proved, &entry))
            .await?;
        Ok(BackupDone {
            keys,
            log_entry,
            ..BackupDone::default()
        })
    }
}
