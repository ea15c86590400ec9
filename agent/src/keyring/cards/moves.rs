//! A key from where it lies to one or several cards: read, put onto each and proved there by a
//! signature, then enrolled there; the source goes last.

use std::sync::Arc;

use signet_proto::v1::{self, KeyDone, KeyRequest};
use signet_trust::{PrivateKey, keyfile::KeyFile};

use super::make::{OnCard, place};
use crate::{
    key::Secret,
    keyring::{Fault, Keyring, Person, StoreName, list::Listed, person::Work},
    ledger::NewEntry,
    presence::stream::Stream,
    store::{
        KeyStore as _, NewKey, StoreError, docker::DockerStore, file::FileStore, piv::CardStore,
    },
};

/// Cards that one key is taken to at once.
const MAX_CARDS: usize = 16;

impl Keyring {
    pub(in crate::keyring) async fn move_key(
        &self,
        change: v1::MoveKey,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let key = self.find(&change.key, docker_dir).await?;
        if change.stores.is_empty() || change.stores.len() > MAX_CARDS {
            return Err(Fault::Usage(
                "name the cards that it goes to: --store piv:SERIAL, once for each".to_owned(),
            ));
        }
        let mut targets = Vec::new();
        for store in &change.stores {
            let on = OnCard::read(
                store,
                &change.pin_policy,
                &change.touch_policy,
                &change.overwrite,
            )?;
            targets.push(on.ok_or_else(|| {
                Fault::Usage("a key is moved to cards only: --store piv:SERIAL".to_owned())
            })?);
        }
        if key.store == StoreName::Piv {
            return Err(Fault::Usage(
                "a key on a card never leaves it; rotate to a new key instead".to_owned(),
            ));
        }
        let index = self.index();
        let entry = index.get(&key.id).cloned();
        let mut entry = entry.ok_or(Fault::NotEnrolled(key.id))?;
        if !change.no_backup && !self.is_rehearsed(&key.id).await? {
            return Err(Fault::Usage(format!(
                "no rehearsed backup holds {}: with its cards lost it is lost; `signet backup \
                 create`, then `signet backup verify FILE`; --no-backup moves it all the same",
                key.describe()
            )));
        }
        person.speaks_to(targets.len());
        person.about(vec![format!(
            "moves {} to {}; its file goes",
            key.describe(),
            change.stores.join(", ")
        )]);
        let mut cards = Vec::new();
        for on in &targets {
            let card = self.card_at(on.place.serial, person, stream).await?;
            let twice = |known: &super::Present| known.facts.serial == card.facts.serial;
            if cards.iter().any(twice) {
                return Err(Fault::Usage(format!("{} is named twice", card.name)));
            }
            cards.push(card);
        }
        let private = Arc::new(self.take_out(&key, person, stream).await?);
        let facts = NewKey {
            role: entry.role.clone(),
            gun: entry.gun.clone(),
        };
        let mut places = Vec::new();
        for (on, card) in targets.iter().zip(&cards) {
            if let Some(slot) = card.facts.slot_of(&key.id) {
                // An earlier run that was cut short put it there.
                let made = crate::store::piv::Made {
                    slot: slot.clone(),
                    attestation: None,
                    proves: String::new(),
                };
                places.push(place(card, &made));
                continue;
            }
            let new = on.facts(private.algorithm(), &facts, &entry.label);
            let key = Arc::clone(&private);
            let work: Work<CardStore, _> =
                Arc::new(move |store, presence| store.import_to_card(&key, &new, presence));
            let made = person.with_card(&card.worker, stream, false, work).await?;
            let there = place(card, &made);
            self.lose(on.overwrite, &there, person).await?;
            places.push(there);
        }
        drop(private);
        let from = entry.store.clone();
        entry.store = StoreName::Piv.as_str().to_owned();
        entry.places = places;
        let names: Vec<String> = entry
            .places
            .iter()
            .map(|place| format!("YubiKey {} slot {}", place.serial, place.slot))
            .collect();
        let log = NewEntry {
            summary: format!("from the store {from} to {}", names.join(", ")),
            ..self.entry_of("move", &entry, person)
        };
        let id = entry.id;
        self.enrol(entry, log).await?;
        let removed = match key.store {
            StoreName::Docker => self.docker.run(move |store| store.remove(&id)).await?,
            _ => self.file.run(move |store| store.remove(&id)).await?,
        };
        match removed {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.done(id, docker_dir).await
    }

    /// The key itself, for the moment of a move: by way of an encrypted copy, as an export is made.
    async fn take_out(
        &self,
        key: &Listed,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<PrivateKey, Fault> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|_| Fault::Internal("the system gives no randomness"))?;
        let passphrase = Arc::new(Secret::new(hex::encode(random).into_bytes()));
        zeroize::Zeroize::zeroize(&mut random);
        let id = key.id;
        let once = Arc::clone(&passphrase);
        let pem = match key.store {
            StoreName::Docker => {
                let work: Work<DockerStore, _> =
                    Arc::new(move |store, presence| store.export(&id, &once, presence));
                person.with(&self.docker, stream, true, work).await?
            }
            _ => {
                let work: Work<FileStore, _> =
                    Arc::new(move |store, presence| store.export(&id, &once, presence));
                person.with(&self.file, stream, true, work).await?
            }
        };
        let opened = KeyFile::parse(&pem).and_then(|file| file.open(Some(passphrase.expose())));
        opened.map_err(|source| {
            StoreError::KeyFile {
                path: format!("key {id}").into(),
                source,
            }
            .into()
        })
    }
}
