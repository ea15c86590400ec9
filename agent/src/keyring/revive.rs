//! Keys that were removed here or moved away, and how one of them comes back.
//!
//! What is left of such a key is a tombstone. That of a key that was *moved* to another host refuses
//! the key wherever it turns up again: put back into a directory, imported, restored. It is lifted
//! only by a revival (`key revive`, `restore --revive`, or a move back), confirmed by a passphrase
//! or PIN given for this request (grade 3), and logged.

use std::sync::Arc;

use signet_proto::v1::{self, KeyDone, KeyInfo, KeyRequest};
use signet_trust::{KeyId, PublicKey, payload::escape};

use super::{
    Fault, Keyring, Person, StoreName,
    backup::proof,
    cards::make::place,
    creation::public,
    list::{Listed, named},
    person::Work,
};
use crate::{
    ledger::{IndexEntry, NewEntry, RETIRED, Tombstone},
    presence::stream::Stream,
    service::now,
    store::{
        KeyStore as _, Purpose, StoredKey,
        docker::DockerStore,
        file::{FileStore, Ring},
        piv::{CardStore, Made},
    },
};

/// A passphrase or PIN given for this request.
const GIVEN: u32 = 3;

impl Tombstone {
    /// Why the key went, as a person reads it: `moved to newhost`, `removed`.
    pub(crate) fn why(&self) -> String {
        match (self.reason.as_str(), self.detail.as_str()) {
            (RETIRED, "") => "moved to another host".to_owned(),
            (RETIRED, to) => format!("moved to {}", escape(to)),
            (reason, _) => escape(reason),
        }
    }
}

impl Keyring {
    /// Refuses a key that was moved to another host.
    pub(super) async fn refuse_retired(&self, id: KeyId) -> Result<(), Fault> {
        let stone = self
            .recorder
            .run(move |ledger| ledger.tombstone(&id))
            .await?;
        match stone.filter(|stone| stone.reason == RETIRED) {
            Some(stone) => Err(Fault::Retired {
                id,
                why: stone.why(),
            }),
            None => Ok(()),
        }
    }

    /// Lifts the tombstone of a key, and enrols the key if it is here.
    pub(super) async fn lift(
        &self,
        id: KeyId,
        key: Option<IndexEntry>,
        entry: NewEntry,
    ) -> Result<u64, Fault> {
        let (number, index) = self
            .recorder
            .run(move |ledger| {
                let number = ledger.revive(&id, key.as_ref(), &entry)?;
                Ok((number, ledger.index()?))
            })
            .await?;
        self.set_index(index);
        Ok(number)
    }

    /// Carries out `key revive`.
    pub(super) async fn revive_key(
        &self,
        revive: &v1::ReviveKey,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let stone = self.buried(&revive.key, docker_dir).await?;
        let id = stone.id;
        person.about(vec![format!(
            "lets {} come back, which was {}",
            described(&stone),
            stone.why()
        )]);
        let (listed, _) = self.list(docker_dir).await?;
        let key = match listed.into_iter().find(|key| key.id == id) {
            Some(key) => Some(self.prove_here(&stone, &key, person, stream).await?),
            None => {
                self.ask_keyring(&stone, person, stream).await?;
                None
            }
        };
        if person.grade() < GIVEN {
            return Err(Fault::NothingToConfirmWith(id, "a revival".to_owned()));
        }
        let log = NewEntry {
            gun: stone.gun.clone().unwrap_or_default(),
            role: stone.role.clone(),
            key: Some(id),
            summary: format!("was {}", stone.why()),
            ..self.entry("revive", person)
        };
        let is_here = key.is_some();
        self.lift(id, key, log).await?;
        if is_here {
            return self.done(id, docker_dir).await;
        }
        Ok(KeyDone {
            key: Some(told(&stone)),
            ..KeyDone::default()
        })
    }

    /// The one tombstone that answers to a name.
    async fn buried(&self, name: &str, docker_dir: &str) -> Result<Tombstone, Fault> {
        let stones = self.recorder.run(|ledger| ledger.all_tombstones()).await?;
        let fits = |stone: &&Tombstone| {
            named(
                name,
                &[stone.id],
                &stone.label,
                Some(&stone.role),
                stone.gun.as_deref(),
            )
        };
        let mut found: Vec<Tombstone> = stones.iter().filter(fits).cloned().collect();
        match (found.pop(), found.is_empty()) {
            (Some(stone), true) => Ok(stone),
            (Some(stone), false) => {
                found.push(stone);
                Err(Fault::Ambiguous {
                    name: escape(name),
                    candidates: found
                        .iter()
                        .map(|stone| format!("{} {}", stone.id, described(stone)))
                        .collect(),
                })
            }
            (None, _) => {
                let key = self.find(name, docker_dir).await?;
                Err(Fault::Usage(format!(
                    "{} was never removed here nor moved away: there is nothing to revive",
                    key.describe()
                )))
            }
        }
    }

    /// Has the key, whose file or card is here again, make a proof; how it is enrolled.
    async fn prove_here(
        &self,
        stone: &Tombstone,
        key: &Listed,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<IndexEntry, Fault> {
        let id = key.id;
        let message = proof("revival", "-", &id)?;
        let mut places = Vec::new();
        let opened = match key.store {
            StoreName::File => {
                let work: Work<FileStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &message, presence)?;
                    store.open(&id, presence)
                });
                person.with(&self.file, stream, true, work).await?
            }
            StoreName::Docker => {
                let work: Work<DockerStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &message, presence)?;
                    store.open(&id, presence)
                });
                person.with(&self.docker, stream, true, work).await?
            }
            StoreName::Piv => {
                let card = self.card_with(id, person, stream).await?;
                let work: Work<CardStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &message, presence)
                });
                person.with_card(&card.worker, stream, true, work).await?;
                let mut slots = self.cards.with_key(&id).into_iter();
                let (card, slot) = slots.next().ok_or(Fault::UnknownKey(id.to_string()))?;
                let public = slot.public.clone();
                let made = Made {
                    attestation: None,
                    proves: String::new(),
                    slot,
                };
                places.push(place(&card, &made));
                StoredKey {
                    id,
                    role: None,
                    gun: None,
                    public,
                    path: std::path::PathBuf::new(),
                    encrypted: true,
                    problem: None,
                }
            }
        };
        Ok(IndexEntry {
            id,
            role: opened.role.unwrap_or_else(|| stone.role.clone()),
            gun: opened.gun.or_else(|| stone.gun.clone()),
            label: self.free_label(&stone.label, Some(id)).unwrap_or_default(),
            store: key.store.as_str().to_owned(),
            public: opened.public.unwrap_or_else(|| stone.public.clone()),
            enrolled_at: now(),
            certificates: Vec::new(),
            used_opaque: false,
            places,
            label_claimed: false,
        })
    }

    /// Where the key's file is not here: the passphrase of the keyring that such keys are kept in.
    async fn ask_keyring(
        &self,
        stone: &Tombstone,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<(), Fault> {
        let ring = Ring::of_role(&stone.role);
        let there = self.file.run(|store| store.status()).await?;
        if !there.repository || !there.root {
            return Err(Fault::Usage(format!(
                "{} is not here, and no keyring whose passphrase could confirm it: `signet restore \
                 --revive` brings it back from a backup, or put its file back and repeat this",
                described(stone)
            )));
        }
        let work: Work<FileStore, _> =
            Arc::new(move |store, presence| store.confirm(ring, presence));
        person.with(&self.file, stream, true, work).await
    }
}

/// For the words of a prompt.
pub(super) fn described(stone: &Tombstone) -> String {
    let id = stone.id.to_string();
    let of = match &stone.gun {
        Some(gun) => format!(" of {gun}"),
        None => String::new(),
    };
    format!("the {} key{of} ({})", escape(&stone.role), &id[..12])
}

/// A key that is not here, on the wire.
fn told(stone: &Tombstone) -> KeyInfo {
    let algorithm = PublicKey::algorithm(&stone.public);
    KeyInfo {
        key_id: stone.id.to_string(),
        role: stone.role.clone(),
        gun: stone.gun.clone().unwrap_or_default(),
        label: stone.label.clone(),
        store: stone.store.clone(),
        algorithm: algorithm.map(|a| a.name()).unwrap_or_default(),
        state: "gone".to_owned(),
        public: Some(public(&stone.public)),
        encrypted: true,
        ..KeyInfo::default()
    }
}
