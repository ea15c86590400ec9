//! Archives made, rehearsed and restored.
//!
//! What leaves is ciphertext as it lies in the stores; a key that opens makes a possession proof
//! while it is packed, which is checked here and goes nowhere. What comes in is hostile: members
//! are bounded, known by name, and only key material is taken, each key proved by its ID.

mod members;
mod open;
mod rehearse;
mod restore;

use std::{collections::BTreeMap, sync::Arc};

use signet_proto::{
    archive::{
        self,
        manifest::{self, FORMAT, Manifest},
        path,
    },
    endpoint::Endpoint,
    v1::{
        self, ArchivedKey, BackupDone, BackupEvent, BackupProgress, BackupRequest,
        backup_event::Event, backup_start::What,
    },
};
use signet_trust::{KeyId, payload::escape};
use zeroize::Zeroizing;

use self::members::receive;
use self::members::{Candidate, candidates};
pub(in crate::keyring) use self::members::{Members, receive_one, send_member};
pub(in crate::keyring) use self::open::proof;
use self::open::{Opener, Problem, of_key, prove};
pub(in crate::keyring) use self::restore::Taking;
use super::{Fault, Keyring, Person, StoreName, list::Listed, person::Work};
use crate::{
    backup::{
        RECOVER,
        state::{Archived, Claimed, Collection, Stone},
    },
    ledger::{IndexEntry, NewEntry, Place},
    presence::stream::Stream,
    service::{Shared, now, status::word},
    store::{
        KeyStore as _, Purpose, StoreError, atomic,
        file::{FileStore, Ring, foreign::Content},
    },
};

/// Keys between two reports of progress.
const STEP: usize = 16;
/// Characters kept of a host's or file's name.
const MAX_NAME: usize = 200;

/// What an archive is asked to hold.
pub(in crate::keyring) struct Include {
    pub(in crate::keyring) docker: bool,
    pub(in crate::keyring) file: bool,
    pub(in crate::keyring) cards: bool,
    pub(in crate::keyring) state: bool,
}

impl Include {
    fn parse(words: &[String]) -> Result<Self, Fault> {
        let known = ["docker", "file", "cards", "state"];
        if let Some(word) = words.iter().find(|word| !known.contains(&word.as_str())) {
            return Err(Fault::Usage(format!(
                "{:?} is nothing that a backup holds; there are docker, file, cards and state",
                escape(word)
            )));
        }
        let has = |word: &str| words.is_empty() || words.iter().any(|given| given == word);
        Ok(Self {
            docker: has("docker"),
            file: has("file"),
            cards: has("cards"),
            state: has("state"),
        })
    }
}

impl Keyring {
    /// Serves one request for an archive.
    pub(crate) async fn archive(
        &self,
        shared: &Shared,
        start: v1::BackupStart,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let dir = start.docker_dir;
        let Some(what) = start.what else {
            return Err(Fault::Malformed("an archive to do nothing with".to_owned()));
        };
        let kind = match &what {
            What::Create(_) => "backup",
            What::Rehearse(_) => "rehearse",
            What::Restore(_) => "restore",
            What::Migrate(_) => "migrate",
        };
        let done = match what {
            What::Create(create) => self.back_up(&create, &dir, person, stream).await,
            What::Rehearse(rehearse) => self.rehearse(&rehearse, &dir, person, stream).await,
            What::Restore(restore) => {
                self.restore(&restore, &dir, &shared.home, person, stream)
                    .await
            }
            What::Migrate(migrate) => {
                self.migrate(&migrate, &dir, &shared.home, person, stream)
                    .await
            }
        };
        if let Err(fault) = &done
            && !matches!(fault, Fault::Gone | Fault::Stopping)
        {
            let entry = NewEntry {
                summary: super::fault::chain(fault),
                outcome: word(fault).to_owned(),
                ..archive_entry(kind, person)
            };
            // What failed is what the person should read, whatever became of the log.
            if let Err(error) = self.log(entry).await {
                tracing::error!(%error, "a failure could not be logged");
            }
        }
        done
    }

    async fn back_up(
        &self,
        create: &v1::CreateBackup,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let include = Include::parse(&create.include)?;
        if include.docker {
            self.same_docker_dir(docker_dir)?;
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Fault::Internal("the system gives no randomness"))?;
        let mut manifest = Manifest {
            format: FORMAT,
            id: hex::encode(id),
            host: name(&create.host),
            created: now(),
            signet: env!("CARGO_PKG_VERSION").to_owned(),
            keys: Vec::new(),
            files: Vec::new(),
            log: None,
            notes: Vec::new(),
        };
        person.about(vec!["proves the keys that go into a backup".to_owned()]);
        let (listed, problems) = self.list(docker_dir).await?;
        manifest
            .notes
            .extend(problems.iter().map(|line| name(line)));
        let mut members = Members::new();
        self.pack(
            &include,
            &listed,
            &mut manifest,
            &mut members,
            person,
            stream,
        )
        .await?;
        if include.state {
            self.pack_state(&mut manifest, &mut members).await?;
        }
        members.insert(
            path::RECOVER.to_owned(),
            Zeroizing::new(RECOVER.as_bytes().to_vec()),
        );
        for (path, data) in &members {
            if archive::key_of(path).is_none() {
                manifest.files.push(manifest::File {
                    path: path.clone(),
                    sha256: archive::digest(data),
                });
            }
        }
        let total: usize = members.values().map(|data| data.len()).sum();
        if members.len() >= archive::MAX_MEMBERS || total as u64 > archive::MAX_TOTAL {
            return Err(Fault::Usage(
                "there are more keys than one archive holds (20,000 files, 32 MiB); --include \
                 packs the stores one by one"
                    .to_owned(),
            ));
        }
        send_member(path::MANIFEST, &manifest.to_json(), stream).await?;
        for (path, data) in &members {
            send_member(path, data, stream).await?;
        }
        let packed = manifest.keys.iter().filter(|key| !key.file.is_empty());
        let proved = manifest.keys.iter().filter(|key| key.proved).count();
        let log_entry = self
            .log(NewEntry {
                summary: format!(
                    "archive {}: {} keys, {proved} of them proved",
                    manifest.id,
                    packed.count()
                ),
                ..archive_entry("backup", person)
            })
            .await?;
        Ok(BackupDone {
            keys: manifest.keys.iter().map(packed_key).collect(),
            log_entry,
            ..BackupDone::default()
        })
    }

    /// Reads the key files and proves what opens.
    pub(in crate::keyring) async fn pack(
        &self,
        include: &Include,
        listed: &[Listed],
        manifest: &mut Manifest,
        members: &mut Members,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<(), Fault> {
        let native = match include.file {
            true => self.file.run(|store| store.files()).await??,
            false => Default::default(),
        };
        let docker = match include.docker {
            true => self.docker.run(|store| store.files()).await??,
            false => Vec::new(),
        };
        let mut files: BTreeMap<(&'static str, KeyId), Content> = BTreeMap::new();
        files.extend(
            native
                .keys
                .into_iter()
                .map(|(id, file)| (("file", id), file)),
        );
        files.extend(docker.into_iter().map(|(id, file)| (("docker", id), file)));
        for (path, ring) in [
            (path::KEYRING, native.repository),
            (path::ROOT, native.root),
        ] {
            members.extend(ring.map(|file| (path.to_owned(), file)));
        }
        let mut opener = Opener::new(None, None);
        // Once a keyring turns out to stay closed, its other keys are not asked for.
        let mut closed: BTreeMap<&'static str, Problem> = BTreeMap::new();
        let total = listed.len();
        let index = self.index();
        let mut on_cards = 0;
        for (at, key) in listed.iter().enumerate() {
            if at % STEP == 0 {
                progress(at, total, stream).await?;
            }
            let mut entry = described(key, index.get(&key.id));
            let store = match key.store {
                StoreName::File if include.file => "file",
                StoreName::Docker if include.docker => "docker",
                StoreName::File | StoreName::Docker => continue,
                #[allow(unreachable_patterns, reason = "stores that hold no files")]
                _ => {
                    if include.cards {
                        on_cards += 1;
                        "on its card alone".clone_into(&mut entry.problem);
                        manifest.keys.push(entry);
                    }
                    continue;
                }
            };
            let file = match files.remove(&(store, key.id)) {
                Some(Ok(file)) => file,
                Some(Err(error)) => {
                    entry.problem = Problem::new(&error.into()).reason;
                    manifest.keys.push(entry);
                    continue;
                }
                None => {
                    entry.problem = format!("the store {store} no longer has it");
                    manifest.keys.push(entry);
                    continue;
                }
            };
            let id = key.id.to_string();
            entry.file = match store {
                "file" => path::native(&id),
                _ => path::docker(&id),
            };
            entry.sha256 = archive::digest(&file);
            let opened = match store {
                "file" => {
                    let ring = Ring::of_role(&entry.role).file_name();
                    match closed.get(ring) {
                        Some(problem) => Err(problem.clone()),
                        None => {
                            let proved = self.prove_native(key.id, &manifest.id, person, stream);
                            let proved = of_key(proved.await)?;
                            if let Err(problem) = &proved
                                && problem.is_locked()
                            {
                                closed.insert(ring, problem.clone());
                            }
                            proved
                        }
                    }
                }
                _ => {
                    let opening = opener.docker(&file, &key.id, &key.label, person, stream);
                    match opening.await? {
                        Ok(opened) => {
                            prove(&opened.key, "backup", &manifest.id)?;
                            Ok(Some(opened.key.public().clone()))
                        }
                        Err(problem) => Err(problem),
                    }
                }
            };
            match opened {
                Ok(public) => {
                    entry.proved = true;
                    if let Some(public) = public {
                        set_public(&mut entry, &public);
                    }
                }
                Err(problem) => entry.problem = problem.reason,
            }
            members.insert(entry.file.clone(), file);
            manifest.keys.push(entry);
        }
        if on_cards > 0 {
            manifest.notes.push(format!(
                "{on_cards} {} on YubiKeys alone: private keys cannot leave a card and are NOT in this \
                 backup; public keys, attestations, cards and slots are",
                if on_cards == 1 { "key is" } else { "keys are" },
            ));
        }
        progress(total, total, stream).await
    }

    /// Has a native key make a proof; its public half.
    async fn prove_native(
        &self,
        id: KeyId,
        archive: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Option<signet_trust::PublicKey>, Fault> {
        let message = proof("backup", archive, &id)?;
        let work: Work<FileStore, _> = Arc::new(move |store, presence| {
            // Signing verifies with the public key.
            store.sign(&id, Purpose::Document, &message, presence)?;
            store.open(&id, presence)
        });
        Ok(person.with(&self.file, stream, false, work).await?.public)
    }

    pub(in crate::keyring) async fn pack_state(
        &self,
        manifest: &mut Manifest,
        members: &mut Members,
    ) -> Result<(), Fault> {
        let archived = self
            .recorder
            .run(|ledger| {
                let mut archived = Archived::default();
                for gun in ledger.guns()? {
                    let roots = ledger.roots(&gun)?;
                    for (lineage, state) in ledger.history(&gun)?.collections {
                        let root = roots.iter().find(|root| root.lineage == lineage);
                        archived.collections.push(Collection::new(&Claimed {
                            gun: gun.clone(),
                            lineage,
                            root: root.map(|root| root.wire.clone()),
                            state,
                        }));
                    }
                }
                let stones = ledger.all_tombstones()?;
                archived.tombstones = stones.iter().map(Stone::new).collect();
                Ok(archived)
            })
            .await?;
        let checkpoint = self.checkpoint().await?;
        manifest.log = Some(manifest::Log {
            entries: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.entry),
            head: hex::encode(
                checkpoint
                    .as_ref()
                    .map_or([0; 32], |checkpoint| checkpoint.head),
            ),
            checkpoint: checkpoint.map(|checkpoint| checkpoint.to_line()),
        });
        members.insert(path::STATE.to_owned(), Zeroizing::new(archived.to_json()));
        if let Some(policy) = policy()? {
            members.insert(path::POLICY.to_owned(), policy);
        }
        Ok(())
    }
}

/// The agent's own `agent.toml`, if there is one.
fn policy() -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    let Ok(endpoint) = Endpoint::from_env(|name| std::env::var_os(name)) else {
        return Ok(None);
    };
    let limit = usize::try_from(archive::MAX_MEMBER).expect("64 KiB");
    match atomic::read(&endpoint.config.join("agent.toml"), limit) {
        Ok(policy) => Ok(policy),
        // A link, say, to a file that is under version control: it is kept there.
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(in crate::keyring) fn archive_entry(kind: &'static str, person: &Person<'_>) -> NewEntry {
    NewEntry {
        kind,
        time: now(),
        caller: person.caller.describe(),
        facts: person.facts(""),
        grade: person.grade(),
        outcome: "done".to_owned(),
        ..NewEntry::default()
    }
}

/// A name from outside, cut and harmless.
pub(in crate::keyring) fn name(text: &str) -> String {
    let cut: String = text.chars().take(MAX_NAME).collect();
    escape(&cut)
}

/// What is listed of a key, as the manifest has it.
fn described(key: &Listed, indexed: Option<&IndexEntry>) -> manifest::Key {
    let info = key.info();
    let cards = info.cards.iter().filter_map(|on| on.card.as_ref());
    let mut entry = manifest::Key {
        id: info.key_id,
        role: info.role,
        gun: info.gun,
        label: info.label,
        certificates: info.other_ids,
        store: info.store,
        enrolled: info.state == "enrolled",
        cards: cards
            .map(|card| {
                let places = indexed.iter().flat_map(|entry| &entry.places);
                let is = |place: &&Place| (place.serial, &place.slot) == (card.serial, &card.slot);
                let place = places.clone().find(is).cloned().unwrap_or_default();
                manifest::Card {
                    serial: card.serial,
                    slot: card.slot.clone(),
                    origin: place.origin,
                    firmware: place.firmware,
                    attestation: hex::encode(place.attestation),
                    own: hex::encode(place.own),
                    proves: place.proves,
                }
            })
            .collect(),
        ..manifest::Key::default()
    };
    if let Some(public) = &key.public {
        set_public(&mut entry, public);
    }
    entry
}

fn set_public(entry: &mut manifest::Key, public: &signet_trust::PublicKey) {
    entry.algorithm = public.algorithm().map(|a| a.name()).unwrap_or_default();
    public.key_type().as_str().clone_into(&mut entry.key_type);
    entry.public = hex::encode(public.public());
}

fn packed_key(key: &manifest::Key) -> ArchivedKey {
    ArchivedKey {
        key_id: key.id.clone(),
        role: key.role.clone(),
        gun: key.gun.clone(),
        label: key.label.clone(),
        store: key.store.clone(),
        proved: key.proved,
        problem: key.problem.clone(),
        exit: u32::from(!key.problem.is_empty() && key.cards.is_empty()),
        ..ArchivedKey::default()
    }
}

async fn progress(
    done: usize,
    total: usize,
    stream: &mut Stream<BackupRequest>,
) -> Result<(), Fault> {
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    stream
        .send(BackupEvent {
            event: Some(Event::Progress(BackupProgress {
                done: number(done),
                total: number(total),
            })),
        })
        .await
}
