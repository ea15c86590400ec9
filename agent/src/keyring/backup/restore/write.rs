//! What a restore writes: key files, index entries and guard state, through one journal.

use std::{collections::HashSet, path::Path, sync::Arc};

use signet_proto::{
    archive::{Member, path},
    v1::{ArchivedState, ArchivedTombstone, BackupRequest},
};
use signet_trust::{KeyId, PrivateKey, guard::RoleState};

use super::{Action, Compared, Planned};
use crate::{
    backup::{
        journal::{self, Journal},
        state::{Archived, highest},
    },
    keyring::{
        Fault, Keyring, Person, StoreName,
        backup::{Members, archive_entry, open::Opener},
        person::Work,
    },
    ledger::{IndexEntry, NewEntry, Tombstone},
    presence::{SecretName, SecretRequest, stream::Stream},
    service::now,
    store::{
        NewKey, StoreError, ask,
        docker::DockerStore,
        file::{FileStore, Ring, foreign::Files},
    },
};

/// A passphrase given for this request.
const GIVEN: u32 = 3;

impl Keyring {
    /// The files to be written: as they came where the same keyrings open them here, else encrypted
    /// anew.
    pub(super) async fn sealed(
        &self,
        members: &Members,
        plan: &mut [Planned<'_>],
        files: &Files,
        opener: &Opener<'_>,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Vec<Member>, Fault> {
        let of_archive = |path: &str| members.get(path).map(|file| file.as_slice());
        let (repository, root) = (of_archive(path::KEYRING), of_archive(path::ROOT));
        let native = |planned: &&mut Planned<'_>| {
            planned.action == Action::New && planned.target == StoreName::File
        };
        let moved = plan
            .iter_mut()
            .filter(native)
            .any(|planned| planned.key.store != StoreName::File);
        let any = plan.iter_mut().filter(native).count() > 0;
        let both = |ring| opener.is_open(ring);
        let empty = files.is_empty() && both(Ring::Repository) && both(Ring::Root) && !moved;
        let same = files.repository.as_ref().map(|file| file.as_slice()) == repository
            && files.root.as_ref().map(|file| file.as_slice()) == root
            && repository.is_some();
        let mut placed = Vec::new();
        if any && empty {
            for (path, file) in [(path::KEYRING, repository), (path::ROOT, root)] {
                placed.extend(file.map(|data| Member {
                    path: path.to_owned(),
                    data: data.to_vec(),
                }));
            }
        }
        for planned in plan.iter_mut().filter(|p| p.action == Action::New) {
            let id = planned.key.id;
            let path = match planned.target {
                StoreName::File => path::native(&id.to_string()),
                _ => path::docker(&id.to_string()),
            };
            let verbatim = planned.key.store == planned.target
                && (planned.target == StoreName::Docker || empty || same);
            let data = match (&planned.opened, verbatim) {
                (_, true) => planned.key.file.to_vec(),
                (None, false) => continue,
                (Some(key), false) => {
                    let new = NewKey {
                        role: planned.key.role.clone(),
                        gun: Some(planned.key.gun.clone()).filter(|gun| !gun.is_empty()),
                    };
                    self.seal(key, new, planned, person, stream).await?
                }
            };
            placed.push(Member { path, data });
        }
        Ok(placed)
    }

    /// A key encrypted for the store that it moves to.
    async fn seal(
        &self,
        key: &Arc<PrivateKey>,
        new: NewKey,
        planned: &Planned<'_>,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Vec<u8>, Fault> {
        if planned.target == StoreName::File {
            let key = Arc::clone(key);
            let work: Work<FileStore, _> =
                Arc::new(move |store, presence| store.seal(&key, &new, presence));
            return person.with(&self.file, stream, false, work).await;
        }
        let ask = SecretRequest {
            role: new.role.clone(),
            gun: new.gun.clone().unwrap_or_default(),
            label: planned.key.label.clone(),
            new_secret: true,
            attempts_left: 1,
            ..ask::plain(SecretName::Key(planned.key.id))
        };
        let given = person.ask(stream, &ask).await?;
        let locked = || StoreError::Locked {
            what: ask::what(&ask.name),
        };
        let (given, _) = given.ok_or_else(locked)?;
        Ok(DockerStore::seal(key, &new, &given.secret)?)
    }

    pub(super) fn enrolments(
        &self,
        plan: &[Planned<'_>],
        person: &Person<'_>,
    ) -> Result<Vec<(IndexEntry, NewEntry)>, Fault> {
        let index = self.index();
        let mut taken: HashSet<String> = HashSet::new();
        let mut keys = Vec::new();
        for planned in plan.iter().filter(|planned| planned.enrols()) {
            let Some(opened) = &planned.opened else {
                continue;
            };
            let id = planned.key.id;
            let before = index.get(&id);
            // A label of the archive that is somebody else's here is left out.
            let label = match before {
                Some(entry) => entry.label.clone(),
                None => self
                    .free_label(&planned.key.label, Some(id))
                    .ok()
                    .filter(|label| label.is_empty() || taken.insert(label.clone()))
                    .unwrap_or_default(),
            };
            let mut certificates = planned.key.certificates.clone();
            certificates.extend(before.iter().flat_map(|entry| entry.certificates.clone()));
            certificates.sort_unstable();
            certificates.dedup();
            let entry = IndexEntry {
                id,
                role: planned.key.role.clone(),
                gun: Some(planned.key.gun.clone()).filter(|gun| !gun.is_empty()),
                label_claimed: match before {
                    Some(entry) => entry.label_claimed,
                    None => !label.is_empty(),
                },
                label,
                store: planned.target.as_str().to_owned(),
                public: opened.public().clone(),
                enrolled_at: before.map_or_else(now, |entry| entry.enrolled_at),
                certificates,
                used_opaque: before.is_some_and(|entry| entry.used_opaque),
                places: Vec::new(),
            };
            let mut log = journal::of_key(&entry, &archive_entry("restore", person));
            if let Some(stone) = &planned.stone {
                // Opened with what was given for this request.
                log.grade = log.grade.max(GIVEN);
                log.summary += &format!("; revived, was {}", stone.why());
            }
            keys.push((entry, log));
        }
        Ok(keys)
    }

    /// The archive's guard state beside what is recorded.
    pub(super) async fn compare(&self, members: &Members) -> Result<Compared, Fault> {
        let mut compared = Compared {
            rises: Vec::new(),
            told: Vec::new(),
            stones: Vec::new(),
            stones_told: Vec::new(),
        };
        let Some(json) = members.get(path::STATE) else {
            return Ok(compared);
        };
        let bad = |error: crate::backup::state::BadState| Fault::Archive(error.to_string());
        let archived = Archived::parse(json).map_err(bad)?;
        self.compare_stones(&archived, &mut compared).await?;
        for collection in &archived.collections {
            let found = collection.read().map_err(bad)?;
            let of = found.gun.clone();
            let history = self.recorder.run(move |ledger| ledger.history(&of)).await?;
            let here = history.collections.get(&found.lineage);
            let other = here.is_none() && !history.collections.is_empty();
            let mut rises = here.is_none();
            for (role, claimed) in &found.state.roles {
                let highest = |state: &RoleState| highest(state).unwrap_or(0);
                let recorded = here
                    .and_then(|state| state.roles.get(role))
                    .map_or(0, highest);
                let claimed = highest(claimed);
                rises |= claimed > recorded;
                compared.told.push(ArchivedState {
                    gun: found.gun.to_string(),
                    role: role.to_string(),
                    archived: claimed,
                    here: recorded,
                    action: match claimed.cmp(&recorded) {
                        _ if other => "other",
                        std::cmp::Ordering::Greater => "rises",
                        std::cmp::Ordering::Less => "lower",
                        std::cmp::Ordering::Equal => "same",
                    }
                    .to_owned(),
                });
            }
            // Another lineage of the same name is another collection, which only a base shows.
            if rises && !other {
                compared.rises.push(found);
            }
        }
        Ok(compared)
    }

    /// The archive's tombstones beside what is recorded. They are taken over for keys that are not
    /// enrolled here.
    async fn compare_stones(
        &self,
        archived: &Archived,
        compared: &mut Compared,
    ) -> Result<(), Fault> {
        let bad = |error: crate::backup::state::BadState| Fault::Archive(error.to_string());
        let stones = archived.tombstones.iter().map(|stone| stone.read());
        let stones: Vec<Tombstone> = stones.collect::<Result<_, _>>().map_err(bad)?;
        let ids = stones.iter().map(|stone| stone.id).collect::<Vec<_>>();
        let known = self
            .recorder
            .run(move |ledger| ledger.tombstones(&ids))
            .await?;
        let known: HashSet<KeyId> = known.iter().map(|stone| stone.id).collect();
        let index = self.index();
        for stone in stones {
            let action = match (index.contains_key(&stone.id), known.contains(&stone.id)) {
                (true, _) => "here",
                (false, true) => "same",
                (false, false) => "recorded",
            };
            compared.stones_told.push(ArchivedTombstone {
                key_id: stone.id.to_string(),
                role: stone.role.clone(),
                gun: stone.gun.clone().unwrap_or_default(),
                label: stone.label.clone(),
                reason: stone.reason.clone(),
                detail: stone.detail.clone(),
                time: stone.time,
                action: action.to_owned(),
            });
            if action == "recorded" {
                compared.stones.push(stone);
            }
        }
        Ok(())
    }

    /// Writes everything, or nothing; the number of the log entry.
    pub(super) async fn carry_out(&self, journal: Journal, home: &Path) -> Result<u64, Fault> {
        let at = home.to_owned();
        let journal = self
            .file
            .run(move |_| -> Result<_, StoreError> {
                let existed = journal.existing(&at);
                journal.write(&at)?;
                if let Err(error) = journal.place(&at) {
                    journal::remove(&at)?;
                    return Err(error);
                }
                Ok((journal, existed))
            })
            .await??;
        let (journal, existed) = journal;
        let restored = journal.restored.clone();
        let recorded = self
            .recorder
            .run(move |ledger| {
                let number = ledger.restore(&restored)?;
                Ok((number, ledger.index()?))
            })
            .await;
        let at = home.to_owned();
        match recorded {
            Ok((number, index)) => {
                self.set_index(index);
                self.file.run(move |_| journal::remove(&at)).await??;
                Ok(number)
            }
            Err(fault) => {
                self.file
                    .run(move |_| {
                        journal.undo(&at, &existed);
                        journal::remove(&at)
                    })
                    .await??;
                Err(fault)
            }
        }
    }
}
