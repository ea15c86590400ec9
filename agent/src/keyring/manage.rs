//! Changes to keys and keyrings, each with its log entry.

mod import;

use std::sync::Arc;

use signet_proto::v1::{
    self, KeyDone, KeyEvent, KeyRequest, Notice, key_change::Change, key_event,
};
use signet_trust::{
    Algorithm, Gun, KeyId, RoleName,
    keyfile::{KeyFile, write_bundle},
    payload::escape,
};

use super::{
    Fault, Keyring, Person, StoreName,
    cards::make::{OnCard, Where},
    creation::store_of,
    list::Listed,
    person::Work,
};
use crate::{
    ledger::{IndexEntry, NewEntry},
    presence::{
        SecretName, SecretRequest,
        stream::{Carries, Stream},
    },
    service::{now, status::word},
    store::{
        KeyStore, NewKey, StoreError, StoredKey,
        file::{FileStore, Ring},
        piv::CardStore,
    },
};

/// Longest label.
const MAX_LABEL: usize = 64;
/// Tries for the passphrase of an imported file.
const ATTEMPTS: u32 = 3;

/// A key to be made.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) role: String,
    pub(super) gun: Option<String>,
    pub(super) store: StoreName,
    pub(super) algorithm: Algorithm,
    pub(super) label: String,
    /// For keys on cards.
    pub(super) on_card: Option<OnCard>,
}

/// A key file with the `path` header that `notary key import` and `docker trust key load` want of
/// what is encrypted: without it they import nothing.
fn named(id: KeyId, pem: &[u8]) -> Result<Vec<u8>, Fault> {
    let file = KeyFile::parse(pem).map_err(|source| StoreError::KeyFile {
        path: format!("the exported copy of {id}").into(),
        source,
    })?;
    Ok(write_bundle(&[(id, &file)]).as_bytes().to_vec())
}

/// An algorithm by its name; P-256 where none is given.
pub(super) fn algorithm(name: &str) -> Result<Algorithm, Fault> {
    match name {
        "" | "p256" => Ok(Algorithm::P256),
        "p384" => Ok(Algorithm::P384),
        "rsa2048" => Ok(Algorithm::Rsa(2048)),
        "ed25519" => Ok(Algorithm::Ed25519),
        other => Err(Fault::Usage(format!(
            "{other:?} is no algorithm; there are p256, p384, rsa2048 and ed25519"
        ))),
    }
}

/// Role and GUN that belong together: targets and snapshot keys are of one GUN, root and signer
/// keys of none.
pub(super) fn role_and_gun(role: &str, gun: &str) -> Result<(String, Option<String>), Fault> {
    let of_one = matches!(role, "targets" | "snapshot");
    match role {
        "" => {
            return Err(Fault::Usage(
                "the key has no role; give it with --role".to_owned(),
            ));
        }
        "timestamp" => {
            return Err(Fault::Usage(
                "timestamp keys are always the server's".to_owned(),
            ));
        }
        "root" | "targets" | "snapshot" => {}
        // A signer's name, or a full delegation as notary writes it.
        name => {
            let full = name.parse::<RoleName>().is_ok();
            if !full && RoleName::signer(name).is_err() {
                return Err(Fault::Usage(format!(
                    "{:?} is no role and no name",
                    escape(name)
                )));
            }
        }
    }
    match (of_one, gun) {
        (true, "") => Err(Fault::Usage(format!(
            "a {role} key needs its repository: --gun"
        ))),
        (true, gun) => {
            let gun: Gun = gun
                .parse()
                .map_err(|error| Fault::Usage(format!("{error}")))?;
            Ok((role.to_owned(), Some(gun.to_string())))
        }
        (false, _) => Ok((role.to_owned(), None)),
    }
}

impl Keyring {
    /// Carries out one change.
    pub(crate) async fn change(
        &self,
        change: v1::KeyChange,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let dir = change.docker_dir;
        let Some(change) = change.change else {
            return Err(Fault::Malformed("a change that says nothing".to_owned()));
        };
        let kind = match &change {
            Change::Generate(_) => "generate",
            Change::Import(_) => "import",
            Change::Export(_) => "export",
            Change::Label(_) => "label",
            Change::Remove(_) => "remove",
            Change::KeyPassphrase(_) | Change::KeyringPassphrase(_) => "passphrase",
            Change::KeyringRotate(_) => "rotate",
            Change::Move(_) => "move",
            Change::Revive(_) => "revive",
        };
        let done = match change {
            Change::Generate(generate) => self.generate_key(generate, &dir, person, stream).await,
            Change::Import(import) => self.import_key(import, &dir, person, stream).await,
            Change::Export(export) => self.export_key(export, &dir, person, stream).await,
            Change::Label(label) => self.label_key(&label, &dir, person).await,
            Change::Remove(remove) => self.remove_key(&remove.key, &dir, person, stream).await,
            Change::KeyPassphrase(change) => {
                self.change_key_passphrase(&change.key, &dir, person, stream)
                    .await
            }
            Change::KeyringPassphrase(change) => {
                self.change_keyring_passphrase(change.root, person, stream)
                    .await
            }
            Change::Move(change) => self.move_key(change, &dir, person, stream).await,
            Change::Revive(revive) => self.revive_key(&revive, &dir, person, stream).await,
            Change::KeyringRotate(rotate) => self.rotate_keyring(rotate.root, person, stream).await,
        };
        if let Err(fault) = &done
            && !matches!(fault, Fault::Gone | Fault::Stopping)
        {
            let entry = NewEntry {
                summary: super::fault::chain(fault),
                outcome: word(fault).to_owned(),
                ..self.entry(kind, person)
            };
            self.log(entry).await?;
        }
        done
    }

    pub(super) fn entry(&self, kind: &'static str, person: &Person<'_>) -> NewEntry {
        NewEntry {
            kind,
            time: now(),
            caller: person.caller.describe(),
            grade: person.grade(),
            outcome: "done".to_owned(),
            facts: person.facts(""),
            ..NewEntry::default()
        }
    }

    pub(super) fn entry_of(
        &self,
        kind: &'static str,
        key: &IndexEntry,
        person: &Person<'_>,
    ) -> NewEntry {
        NewEntry {
            gun: key.gun.clone().unwrap_or_default(),
            role: key.role.clone(),
            key: Some(key.id),
            ..self.entry(kind, person)
        }
    }

    async fn generate_key(
        &self,
        new: v1::GenerateKey,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let (role, gun) = role_and_gun(&new.role, &new.gun)?;
        let store = self.store_named(&new.store)?;
        if store == StoreName::Docker {
            self.same_docker_dir(docker_dir)?;
        }
        let fresh = Fresh {
            role,
            gun,
            store,
            algorithm: algorithm(&new.algorithm)?,
            label: self.free_label(&new.label, None)?,
            on_card: OnCard::read(
                self.place_named(&new.store),
                &new.pin_policy,
                &new.touch_policy,
                &new.overwrite,
            )?,
        };
        person.about(vec![format!(
            "makes a new {} key{}, in the store {}",
            fresh.role,
            fresh
                .gun
                .as_ref()
                .map(|gun| format!(" of {gun}"))
                .unwrap_or_default(),
            store.as_str(),
        )]);
        let key = self.generate(fresh, person, stream).await?;
        self.done(key.id, docker_dir).await
    }

    /// Makes a key and enrols it.
    pub(super) async fn generate<M: Carries>(
        &self,
        new: Fresh,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<IndexEntry, Fault> {
        if let Some(on_card) = new.on_card {
            return self.generate_on_card(new, on_card, person, stream).await;
        }
        let (algorithm, facts) = (
            new.algorithm,
            NewKey {
                role: new.role.clone(),
                gun: new.gun.clone(),
            },
        );
        let stored = match new.store {
            StoreName::File => {
                let work: Work<FileStore, _> =
                    Arc::new(move |store, presence| store.generate(algorithm, &facts, presence));
                person.with(&self.file, stream, false, work).await?
            }
            StoreName::Docker => {
                let work: Work<_, _> = Arc::new(
                    move |store: &mut crate::store::docker::DockerStore,
                          presence: &mut dyn crate::presence::Presence| {
                        store.generate(algorithm, &facts, presence)
                    },
                );
                person.with(&self.docker, stream, false, work).await?
            }
            StoreName::Piv => return Err(Fault::Internal("a key on a card without its place")),
        };
        let entry = indexed(&stored, new.role, new.gun, new.label, new.store)?;
        self.enrol(
            entry.clone(),
            NewEntry {
                summary: format!(
                    "{} key, in the store {}",
                    new.algorithm.name(),
                    new.store.as_str()
                ),
                ..self.entry_of("generate", &entry, person)
            },
        )
        .await?;
        Ok(entry)
    }

    async fn export_key(
        &self,
        export: v1::ExportKey,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let key = self.find(&export.key, docker_dir).await?;
        person.about(vec![format!("exports {}", key.describe())]);
        if export.public_only {
            let public = match &key.public {
                Some(public) => public.clone(),
                None => self
                    .open_key(&key, person, stream)
                    .await?
                    .public
                    .ok_or(NO_PUBLIC)?,
            };
            let pem = public.to_spki_pem().map_err(Fault::Certificate)?;
            return Ok(KeyDone {
                pem: pem.into_bytes(),
                ..self.done(key.id, docker_dir).await?
            });
        }
        let id = key.id;
        let verbatim = match key.store {
            StoreName::Docker => self.docker.run(move |store| store.verbatim(&id)).await??,
            StoreName::File => self.file.run(move |store| store.verbatim(&id)).await??,
            StoreName::Piv => return Err(on_card("a key on a card never leaves it")),
        };
        let pem = match verbatim {
            Some(pem) => pem,
            None => {
                let ask = SecretRequest {
                    name: SecretName::Export,
                    role: key.role.clone().unwrap_or_default(),
                    gun: key.gun.clone().unwrap_or_default(),
                    label: key.label.clone(),
                    new_secret: true,
                    refused: String::new(),
                    attempts_left: 1,
                    card: None,
                };
                let given = person.ask(stream, &ask).await?;
                let passphrase = Arc::new(given.ok_or(NOBODY)?.0.secret);
                // The copy leaves the agent: whoever asks for it shows that the key is his.
                match key.store {
                    StoreName::File => {
                        let work: Work<FileStore, _> = Arc::new(move |store, presence| {
                            store.export(&id, &passphrase, presence)
                        });
                        person.with(&self.file, stream, true, work).await?
                    }
                    StoreName::Docker => {
                        let work: Work<crate::store::docker::DockerStore, _> =
                            Arc::new(move |store, presence| {
                                store.export(&id, &passphrase, presence)
                            });
                        person.with(&self.docker, stream, true, work).await?
                    }
                    StoreName::Piv => return Err(on_card("a key on a card never leaves it")),
                }
            }
        };
        let pem = named(id, &pem)?;
        let entry = NewEntry {
            gun: key.gun.clone().unwrap_or_default(),
            role: key.role.clone().unwrap_or_default(),
            key: Some(id),
            summary: "an encrypted copy in Docker's format".to_owned(),
            ..self.entry("export", person)
        };
        self.log(entry).await?;
        Ok(KeyDone {
            pem,
            ..self.done(id, docker_dir).await?
        })
    }

    async fn label_key(
        &self,
        label: &v1::LabelKey,
        docker_dir: &str,
        person: &Person<'_>,
    ) -> Result<KeyDone, Fault> {
        let key = self.find(&label.key, docker_dir).await?;
        let index = self.index();
        let mut entry = index
            .get(&key.id)
            .cloned()
            .ok_or(Fault::NotEnrolled(key.id))?;
        let before = std::mem::replace(
            &mut entry.label,
            self.free_label(&label.label, Some(key.id))?,
        );
        // Whoever gives a label that a backup brought confirms it.
        entry.label_claimed = false;
        let log = NewEntry {
            summary: format!("label {:?} → {:?}", before, entry.label),
            ..self.entry_of("label", &entry, person)
        };
        self.enrol(entry, log).await?;
        self.done(key.id, docker_dir).await
    }

    async fn remove_key(
        &self,
        name: &str,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let key = self.find(name, docker_dir).await?;
        person.about(vec![format!("removes {}", key.describe())]);
        // Always a question: a key without another copy is gone for good.
        let what = match key.used_by.as_slice() {
            [] => String::new(),
            used => format!(", which {} lists", used.join(", ")),
        };
        let copy = match self.is_rehearsed(&key.id).await? {
            true => "A rehearsed backup holds it.",
            false => "No rehearsed backup holds it: without another copy nobody can sign with it.",
        };
        let question = format!("Remove {}{what}? {copy}", key.describe());
        match person.confirm(stream, &question).await {
            Ok(_) => {}
            Err(Fault::NeedsYes(_)) if !key.used_by.is_empty() && key.is_root() => {
                return Err(Fault::RootInUse {
                    id: key.id,
                    used_by: key.used_by,
                });
            }
            Err(fault) => return Err(fault),
        }
        let id = key.id;
        let removed = match key.store {
            StoreName::File => self.file.run(move |store| store.remove(&id)).await?,
            StoreName::Docker => self.docker.run(move |store| store.remove(&id)).await?,
            // It leaves the index; what lies on cards is found there as a new key.
            StoreName::Piv if key.is_enrolled() => Ok(()),
            StoreName::Piv => {
                return Err(on_card(
                    "a key on a card goes when another is made in its slot (--overwrite), or by \
                     `signet card reset`",
                ));
            }
        };
        match removed {
            // A key that is gone already leaves the index all the same.
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let index = self.index();
        let entry = NewEntry {
            gun: key.gun.clone().unwrap_or_default(),
            role: key.role.clone().unwrap_or_default(),
            key: Some(id),
            summary: format!("from the store {}", key.store.as_str()),
            ..self.entry("remove", person)
        };
        let told = key.info();
        if index
            .get(&id)
            .is_some_and(|entry| store_of(entry) == key.store)
        {
            self.forget(id, entry).await?;
        } else {
            self.log(entry).await?;
        }
        Ok(KeyDone {
            key: Some(told),
            ..KeyDone::default()
        })
    }

    async fn change_key_passphrase(
        &self,
        name: &str,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let key = self.find(name, docker_dir).await?;
        let id = key.id;
        person.about(vec![format!(
            "changes the passphrase of {}",
            key.describe()
        )]);
        match key.store {
            StoreName::File => {
                let work: Work<FileStore, _> =
                    Arc::new(move |store, presence| store.change_passphrase(&id, presence));
                person.with(&self.file, stream, true, work).await?;
            }
            StoreName::Docker => {
                let work: Work<crate::store::docker::DockerStore, _> =
                    Arc::new(move |store, presence| store.change_passphrase(&id, presence));
                person.with(&self.docker, stream, true, work).await?;
            }
            StoreName::Piv => {
                return Err(on_card(
                    "a key on a card has no passphrase; `signet card pin` changes the card's PIN",
                ));
            }
        }
        let entry = NewEntry {
            gun: key.gun.clone().unwrap_or_default(),
            role: key.role.clone().unwrap_or_default(),
            key: Some(id),
            summary: "old copies of the file still open with the old passphrase".to_owned(),
            ..self.entry("passphrase", person)
        };
        self.log(entry).await?;
        self.done(id, docker_dir).await
    }

    async fn change_keyring_passphrase(
        &self,
        root: bool,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let ring = ring(root);
        person.about(vec![format!(
            "changes the passphrase of {}",
            ring.file_name()
        )]);
        let work: Work<FileStore, _> =
            Arc::new(move |store, presence| store.change_keyring_passphrase(ring, presence));
        person.with(&self.file, stream, true, work).await?;
        let entry = NewEntry {
            summary: ring.file_name().to_owned(),
            ..self.entry("passphrase", person)
        };
        self.log(entry).await?;
        let text = format!(
            "old copies of {} still open the keys with the old passphrase; `signet keyring rotate` \
             makes them useless for keys as they are from then on",
            ring.file_name()
        );
        stream.send(notice(text)).await?;
        Ok(KeyDone::default())
    }

    async fn rotate_keyring(
        &self,
        root: bool,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let ring = ring(root);
        person.about(vec![format!(
            "encrypts every key of {} anew",
            ring.file_name()
        )]);
        let work: Work<FileStore, _> =
            Arc::new(move |store, presence| store.rotate_keyring(ring, presence));
        let count = person.with(&self.file, stream, true, work).await?;
        let entry = NewEntry {
            summary: format!("{}: {count} keys", ring.file_name()),
            ..self.entry("rotate", person)
        };
        self.log(entry).await?;
        Ok(KeyDone {
            count,
            ..KeyDone::default()
        })
    }

    /// Opens a key far enough to know its public half.
    async fn open_key<M: Carries>(
        &self,
        key: &Listed,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<StoredKey, Fault> {
        let id = key.id;
        match key.store {
            StoreName::File => {
                let work: Work<FileStore, _> =
                    Arc::new(move |store, presence| store.open(&id, presence));
                person.with(&self.file, stream, false, work).await
            }
            StoreName::Docker => {
                let work: Work<crate::store::docker::DockerStore, _> =
                    Arc::new(move |store, presence| store.open(&id, presence));
                person.with(&self.docker, stream, false, work).await
            }
            StoreName::Piv => {
                let card = self.card_with(id, person, stream).await?;
                let work: Work<CardStore, _> =
                    Arc::new(move |store, presence| store.open(&id, presence));
                person.with_card(&card.worker, stream, false, work).await
            }
        }
    }

    pub(super) async fn done(&self, id: KeyId, docker_dir: &str) -> Result<KeyDone, Fault> {
        let (keys, _) = self.list(docker_dir).await?;
        let key = keys.iter().find(|key| key.id == id && key.is_enrolled());
        let key = key
            .or_else(|| keys.iter().find(|key| key.id == id))
            .map(Listed::info);
        Ok(KeyDone {
            key,
            ..KeyDone::default()
        })
    }

    /// A store by the name that a caller gives; the default where it gives none.
    pub(super) fn store_named(&self, name: &str) -> Result<StoreName, Fault> {
        if name.is_empty() {
            return Ok(self.default_store);
        }
        if Where::parse(name)?.is_some() {
            return Ok(StoreName::Piv);
        }
        StoreName::from_name(name).ok_or_else(|| {
            Fault::Usage(format!(
                "there is no store {:?}; there are file, docker and piv",
                escape(name)
            ))
        })
    }

    /// A store with its place as a caller gives it; the default where it gives none.
    pub(super) fn place_named<'a>(&self, name: &'a str) -> &'a str {
        match name {
            "" => self.default_store.as_str(),
            name => name,
        }
    }

    /// A label that can be told from a key ID and is nobody else's.
    pub(super) fn free_label(&self, label: &str, of: Option<KeyId>) -> Result<String, Fault> {
        let label = label.trim();
        if label.is_empty() {
            return Ok(String::new());
        }
        if label.len() > MAX_LABEL || label.contains('@') || escape(label) != label {
            return Err(Fault::Usage(format!(
                "{:?} cannot be a label: at most {MAX_LABEL} bytes, printable, without @",
                escape(label)
            )));
        }
        let like_an_id = label.len() >= 7 && label.bytes().all(|b| b.is_ascii_hexdigit());
        if like_an_id || label == "root" {
            return Err(Fault::Usage(format!(
                "{label:?} cannot be a label: it reads as a key"
            )));
        }
        let index = self.index();
        let other = index
            .values()
            .find(|key| key.label == label && Some(key.id) != of);
        match other {
            None => Ok(label.to_owned()),
            Some(key) => Err(Fault::Usage(format!(
                "the label {label:?} is that of key {}",
                key.id
            ))),
        }
    }

    /// Remembers that a key signed something that could not be read.
    pub(super) async fn mark_opaque(&self, id: KeyId, caller: &str) -> Result<(), Fault> {
        let index = self.index();
        let Some(entry) = index.get(&id).filter(|entry| !entry.used_opaque) else {
            return Ok(());
        };
        let mut entry = entry.clone();
        entry.used_opaque = true;
        let log = NewEntry {
            kind: "opaque",
            time: now(),
            gun: entry.gun.clone().unwrap_or_default(),
            role: entry.role.clone(),
            key: Some(id),
            caller: caller.to_owned(),
            outcome: "done".to_owned(),
            ..NewEntry::default()
        };
        self.enrol(entry, log).await?;
        Ok(())
    }
}

const NO_PUBLIC: Fault = Fault::Internal("an opened key has no public half");
const NOBODY: Fault = Fault::NoSecret(crate::presence::NoSecret::Unavailable);

fn on_card(why: &str) -> Fault {
    StoreError::Unsupported(why.to_owned()).into()
}

fn ring(root: bool) -> Ring {
    if root { Ring::Root } else { Ring::Repository }
}

fn notice(text: String) -> KeyEvent {
    KeyEvent {
        event: Some(key_event::Event::Notice(Notice { text })),
    }
}

/// The index's entry of a key that a store has just taken in.
fn indexed(
    stored: &StoredKey,
    role: String,
    gun: Option<String>,
    label: String,
    store: StoreName,
) -> Result<IndexEntry, Fault> {
    Ok(IndexEntry {
        id: stored.id,
        role,
        gun,
        label,
        store: store.as_str().to_owned(),
        public: stored.public.clone().ok_or(NO_PUBLIC)?,
        enrolled_at: now(),
        certificates: Vec::new(),
        used_opaque: false,
        places: Vec::new(),
        label_claimed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_snapshot_keys_are_of_one_repository_and_others_of_none() {
        let of = |role, gun| role_and_gun(role, gun).map_err(|fault| fault.to_string());
        assert_eq!(
            of("targets", "reg/a"),
            Ok(("targets".into(), Some("reg/a".into())))
        );
        assert_eq!(of("root", "reg/a"), Ok(("root".into(), None)));
        assert_eq!(of("alice", ""), Ok(("alice".into(), None)));
        assert!(of("targets", "").unwrap_err().contains("--gun"));
        assert!(of("timestamp", "").is_err() && of("Alice!", "").is_err() && of("", "").is_err());
    }
}
