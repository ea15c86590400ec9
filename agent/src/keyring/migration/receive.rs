//! The new host: a package is taken in, its keys prove themselves, and the old host's note closes it.

use std::{
    collections::BTreeMap,
    io::BufReader,
    iter,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use age::{Decryptor, Identity};
use sha2::{Digest as _, Sha256};
use signet_proto::{
    archive::{self, Manifest},
    migration::{self, Head, MEMBER, Note},
    v1::{self, ArchivedKey, BackupDone, BackupRequest, RestoreBackup},
};
use signet_trust::{KeyId, PrivateKey, PublicKey, payload::escape};
use zeroize::Zeroizing;

use super::{Identities, done, new_record, send::PACKAGE, step_entry, tell_new, unknown};
use crate::{
    keyring::{
        Fault, Keyring, Person, StoreName,
        backup::{Members, Taking, receive_one},
        cards::make::place,
        manage::role_and_gun,
        person::Work,
    },
    ledger::{IndexEntry, NewEntry},
    migration::New,
    presence::stream::Stream,
    service::now,
    store::{
        KeyStore as _, Purpose, StoreError,
        docker::DockerStore,
        file::FileStore,
        piv::{CardStore, Made},
    },
};

/// A passphrase or PIN given for this request.
const GIVEN: u32 = 3;
/// Largest package: an archive of the largest size, which is compressed, and age's frames.
const MAX_PACKAGE: usize = 96 * 1024 * 1024;

impl Keyring {
    /// Takes in a package; its receipt.
    pub(super) async fn receive(
        &self,
        receive: &v1::MigrateReceive,
        docker_dir: &str,
        home: &Path,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let package = receive_one(PACKAGE, MAX_PACKAGE, stream).await?;
        let digest = hex::encode(Sha256::digest(&package));
        let all = self.migrations().await?;
        let known = all.new.iter().find(|new| new.package == digest);
        if let Some(new) = known.filter(|new| !new.needs_identity()) {
            // The same package once more: its receipt was lost, say.
            return Ok(done(tell_new(new), new.receipt()?.to_json(), 0));
        }
        let (mut new, members) = self.opened(all.new, &package, home).await?;
        let (head, manifest, members) = checked(members)?;
        if !head.docker.is_empty() && head.docker == self.docker_mark() {
            return Err(Fault::Usage(format!(
                "this home and {} share one directory of Docker's keys, {}: finishing there would \
                 remove the files of both. Give this home a DOCKER_CONFIG of its own, or move only \
                 keys of the store file",
                escape(&head.host),
                self.docker_dir.join("trust").join("private").display()
            )));
        }
        new.receive(&head, &digest)?;
        let entry = step_entry(
            "receive",
            format!(
                "migration {}: package {digest} of {} with {} keys",
                new.id,
                escape(&new.from),
                head.keys.len()
            ),
            person,
        );
        self.record(new_record(&new), vec![entry]).await?;

        let proofs: Mutex<Option<New>> = Mutex::new(None);
        let recorded = |opened: &[Arc<PrivateKey>]| {
            let mut proved = new.clone();
            let made: Result<Vec<_>, Fault> = opened
                .iter()
                .map(|key| Ok((key.id(), possession(key, &new)?)))
                .collect();
            proved.prove(&made?);
            let record = new_record(&proved);
            *proofs.lock().unwrap_or_else(PoisonError::into_inner) = Some(proved);
            Ok(record)
        };
        let restore = RestoreBackup {
            source: format!("{} (sent by {})", receive.source, new.from),
            revive: true,
            ..RestoreBackup::default()
        };
        let taking = Taking {
            restore: &restore,
            store: None,
            migration: Some(&recorded),
        };
        let taken = self
            .take_in(&members, taking, docker_dir, home, person, stream)
            .await?;
        let proved = proofs.into_inner().unwrap_or_else(PoisonError::into_inner);
        new = proved.unwrap_or(new);

        // Keys that were here before the package, and those on cards.
        let mut problems = BTreeMap::new();
        let mut made = Vec::new();
        for id in new.unproved() {
            let proved = match self.locate(&id, docker_dir).await? {
                Some((StoreName::Piv, false)) => {
                    self.prove_on_card(id, &new, &manifest, person, stream)
                        .await
                }
                Some((store, true)) => self.prove_in(store, id, &new, person, stream).await,
                _ => continue,
            };
            match proved {
                Ok(signature) => made.push((id, signature)),
                Err(
                    fault @ (Fault::Gone | Fault::Stopping | Fault::Forwarded | Fault::Internal(_)),
                ) => return Err(fault),
                Err(fault) => {
                    let failure = crate::service::status::failure(&fault);
                    problems.insert(id.to_string(), (failure.message, failure.exit));
                }
            }
        }
        new.prove(&made);
        // The old host keeps the receipt: a witness outside this ledger.
        let checkpoint = self.checkpoint().await?;
        new.checkpoint = checkpoint.map(|one| one.to_line()).unwrap_or_default();
        let entries = made
            .iter()
            .map(|(id, _)| NewEntry {
                key: Some(*id),
                ..step_entry("prove", proof_summary(&new), person)
            })
            .collect();
        let number = self.record(new_record(&new), entries).await?;
        if !new.needs_identity() {
            self.forget_identity(home, &new.id).await?;
        }
        let mut told = tell_new(&new);
        explain(&mut told, &taken.keys, &problems);
        let receipt = new.receipt()?.to_json();
        let finished = done(told, receipt, number);
        Ok(BackupDone {
            migration: finished.migration,
            ..taken
        })
    }

    /// Takes the old host's closing note.
    pub(super) async fn close(
        &self,
        note: &[u8],
        home: &Path,
        person: &Person<'_>,
    ) -> Result<BackupDone, Fault> {
        let note = Note::parse(note).map_err(crate::migration::Refusal::from)?;
        let all = self.migrations().await?;
        let new = all
            .received(&note.id)
            .ok_or_else(|| unknown(&note.id, "to"))?;
        let mut new = new.clone();
        let retired = new.close(&note)?;
        let summary = format!(
            "migration {}: {} says that it retired {} keys",
            new.id,
            escape(&new.from),
            retired.len()
        );
        let entry = step_entry("close", summary, person);
        let number = self.record(new_record(&new), vec![entry]).await?;
        if !new.needs_identity() {
            self.forget_identity(home, &new.id).await?;
        }
        Ok(done(tell_new(&new), Vec::new(), number))
    }

    pub(super) async fn forget_identity(&self, home: &Path, id: &str) -> Result<(), Fault> {
        let (identities, id) = (Identities::of(home), id.to_owned());
        Ok(self.file.run(move |_| identities.forget(&id)).await??)
    }

    /// The migration whose one-time identity opens a package, and what is in it.
    async fn opened(
        &self,
        all: Vec<New>,
        package: &[u8],
        home: &Path,
    ) -> Result<(New, Members), Fault> {
        let bad = |why: &str| Fault::Archive(why.to_owned());
        let mut waiting = 0;
        for new in all.into_iter().filter(New::needs_identity) {
            let (identities, id) = (Identities::of(home), new.id.clone());
            let Some(identity) = self.file.run(move |_| identities.get(&id)).await?? else {
                continue;
            };
            waiting += 1;
            let decryptor = Decryptor::new_buffered(BufReader::new(package))
                .map_err(|_| bad("it is no package of `signet migrate send`, or damaged"))?;
            match decryptor.decrypt(iter::once(&identity as &dyn Identity)) {
                Ok(reader) => return Ok((new, unpacked(BufReader::new(reader))?)),
                Err(age::DecryptError::NoMatchingKeys) => {}
                Err(_) => return Err(bad("its header was changed, or it is damaged")),
            }
        }
        Err(bad(match waiting {
            0 => {
                "this host waits for no package: `signet migrate receive` makes an offer, which the \
                 old host sends to"
            }
            _ => "it is encrypted to none of the offers that are open on this host",
        }))
    }

    /// Has a key that is enrolled here already make its proof.
    async fn prove_in(
        &self,
        store: StoreName,
        id: KeyId,
        new: &New,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Vec<u8>, Fault> {
        let statement = migration::statement(&new.id, &id.to_string(), new.nonce());
        let message: Arc<[u8]> = statement.into_bytes().into();
        person.about(vec![format!(
            "proves to {} that the key {id} is here",
            escape(&new.from)
        )]);
        let signed = Arc::clone(&message);
        let signature = match store {
            StoreName::File => {
                let work: Work<FileStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &signed, presence)
                });
                person.with(&self.file, stream, false, work).await?
            }
            StoreName::Docker => {
                let work: Work<DockerStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &signed, presence)
                });
                person.with(&self.docker, stream, false, work).await?
            }
            StoreName::Piv => {
                let card = self.card_with(id, person, stream).await?;
                let work: Work<CardStore, _> = Arc::new(move |store, presence| {
                    store.sign(&id, Purpose::Document, &signed, presence)
                });
                person.with_card(&card.worker, stream, false, work).await?
            }
        };
        let public = self.index().get(&id).map(|entry| entry.public.clone());
        let public = public.ok_or(Fault::NotEnrolled(id))?;
        verified(&public, &message, &signature)?;
        Ok(signature)
    }

    /// Has a key on a card that came with the move make its proof, and enrols it: with the role that
    /// it had on the old host, for a card knows none.
    async fn prove_on_card(
        &self,
        id: KeyId,
        new: &New,
        manifest: &Manifest,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Vec<u8>, Fault> {
        let missing = || Fault::UnknownKey(id.to_string());
        let named = new.keys.iter().find(|key| key.named.key_id() == Some(id));
        let named = &named.ok_or_else(missing)?.named;
        let (role, gun) = role_and_gun(&named.role, &named.gun)?;
        let statement = migration::statement(&new.id, &named.id, new.nonce());
        let message: Arc<[u8]> = statement.into_bytes().into();
        person.about(vec![format!(
            "takes in the {role} key {id} on a card, moved from {}",
            escape(&new.from)
        )]);
        let card = self.card_with(id, person, stream).await?;
        let signed = Arc::clone(&message);
        let work: Work<CardStore, _> =
            Arc::new(move |store, presence| store.sign(&id, Purpose::Document, &signed, presence));
        let signature = person.with_card(&card.worker, stream, true, work).await?;
        let (card, slot) = self
            .cards
            .with_key(&id)
            .into_iter()
            .next()
            .ok_or_else(missing)?;
        let public = slot.public.clone().ok_or_else(missing)?;
        verified(&public, &message, &signature)?;
        let stones = self
            .recorder
            .run(move |ledger| ledger.tombstones(&[id]))
            .await?;
        if !stones.is_empty() && person.grade() < GIVEN {
            return Err(Fault::NothingToConfirmWith(id, "a move back".to_owned()));
        }
        let packed = manifest.keys.iter().find(|key| key.id == named.id);
        let certificates = packed.map(|key| &key.certificates[..]).unwrap_or_default();
        let made = Made {
            attestation: None,
            proves: String::new(),
            slot,
        };
        let entry = IndexEntry {
            id,
            role,
            gun,
            label: self.free_label(&named.label, Some(id)).unwrap_or_default(),
            store: StoreName::Piv.as_str().to_owned(),
            public,
            enrolled_at: now(),
            certificates: certificates
                .iter()
                .filter_map(|id| id.parse().ok())
                .collect(),
            used_opaque: false,
            places: vec![place(&card, &made)],
            label_claimed: !named.label.is_empty(),
        };
        let summary = format!("on its card, moved from {}", escape(&new.from));
        let log = NewEntry {
            gun: entry.gun.clone().unwrap_or_default(),
            role: entry.role.clone(),
            key: Some(id),
            ..step_entry("import", summary, person)
        };
        self.lift(id, Some(entry), log).await?;
        Ok(signature)
    }
}

fn proof_summary(new: &New) -> String {
    format!("possession proof for migration {}", new.id)
}

/// A possession proof by an opened key.
fn possession(key: &PrivateKey, new: &New) -> Result<Vec<u8>, Fault> {
    let statement = migration::statement(&new.id, &key.id().to_string(), new.nonce());
    let unverified = |_| Fault::from(StoreError::Unverified(key.id()));
    let signature = key.sign(statement.as_bytes()).map_err(unverified)?;
    verified(key.public(), statement.as_bytes(), &signature)?;
    Ok(signature)
}

fn verified(public: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), Fault> {
    public
        .verify(public.method(), message, signature)
        .map_err(|_| Fault::from(StoreError::Unverified(public.id())))
}

/// The members of a package, bounded.
fn unpacked(input: impl std::io::BufRead) -> Result<Members, Fault> {
    let mut members = Members::new();
    let mut odd = None;
    let wanted = |path: &str| match path {
        MEMBER => Some(migration::MAX_DOCUMENT as u64),
        path => {
            let limit = archive::size_limit(path);
            if limit.is_none() {
                odd = Some(path.to_owned());
            }
            limit
        }
    };
    archive::read(input, wanted, |member| {
        members.insert(member.path, Zeroizing::new(member.data));
    })
    .map_err(|error| Fault::Archive(error.to_string()))?;
    match odd {
        Some(path) => Err(Fault::Archive(format!(
            "it holds {:?}, which no package holds",
            escape(&path)
        ))),
        None => Ok(members),
    }
}

/// What a package says of itself, and that it holds no other keys.
fn checked(mut members: Members) -> Result<(Head, Manifest, Members), Fault> {
    let bad = |why: String| Fault::Archive(why);
    let head = members.remove(MEMBER);
    let head = head.ok_or_else(|| bad("it is a backup and no package: restore it".to_owned()))?;
    let head = Head::parse(&head).map_err(crate::migration::Refusal::from)?;
    let manifest = members.get(archive::path::MANIFEST);
    let manifest = manifest.ok_or_else(|| bad("it holds no manifest.json".to_owned()))?;
    let manifest = Manifest::parse(manifest).map_err(|error| bad(error.to_string()))?;
    let named = |id: &String| head.keys.iter().any(|key| &key.id == id);
    if let Some(key) = manifest.keys.iter().find(|key| !named(&key.id)) {
        return Err(bad(format!(
            "it holds key {}, which it does not say that it moves",
            key.id
        )));
    }
    Ok((head, manifest, members))
}

/// Why keys are missing, in the words of what was tried.
fn explain(
    told: &mut v1::Migration,
    taken: &[ArchivedKey],
    problems: &BTreeMap<String, (String, u32)>,
) {
    for key in told.keys.iter_mut().filter(|key| key.state == "missing") {
        let tried = taken.iter().find(|taken| taken.key_id == key.key_id);
        let tried = tried.filter(|taken| !taken.problem.is_empty());
        (key.problem, key.exit) = match (problems.get(&key.key_id), tried) {
            (Some((reason, exit)), _) => (reason.clone(), *exit),
            (None, Some(tried)) => (tried.problem.clone(), tried.exit.max(1)),
            (None, None) if key.store == "piv" => (
                "its card is not plugged in here, or is not known here: it stays with the old host"
                    .to_owned(),
                7,
            ),
            (None, None) => ("it was not proved".to_owned(), 1),
        };
    }
}
