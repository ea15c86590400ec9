//! The consented creation of a collection: keys chosen or made, and a root certificate for exactly
//! its GUN.
//!
//! The consent is the root key's passphrase, given for this request under a prompt that says what
//! is created. What the client then builds may list these keys and no others.

use std::{collections::BTreeSet, sync::Arc};

use sha2::{Digest as _, Sha256};
use signet_proto::v1::{self, KeyChoice, SignEvent, SignRequest, sign_event};
use signet_trust::{
    Algorithm, Gun, KeyId, PublicKey, RoleName, cert,
    document::{Document, Root},
    guard::{Rule, check_creation},
    payload::Item,
};

use super::{
    Fault, Keyring, Person, StoreName,
    cards::{
        OnCards,
        make::{OnCard, place},
    },
    manage::{Fresh, algorithm},
    person::Work,
    request::{Head, claims, refused},
    worker::Worker,
};
use crate::{
    ledger::{IndexEntry, NewEntry},
    presence::stream::Stream,
    service::now,
    store::{KeyStore, Purpose, piv::Made},
};

/// A passphrase given for this request.
const GIVEN: u32 = 3;

/// The keys of a new collection, as its first root is to list them.
#[derive(Debug)]
pub(super) struct Created {
    root: PublicKey,
    targets: PublicKey,
    snapshot: Option<PublicKey>,
    /// Overrides that the consent covers.
    pub(super) overrides: Vec<Rule>,
}

impl Created {
    /// Fails when a first root among `items` lists other keys than were consented to.
    pub(super) fn check(&self, items: &[Item]) -> Result<(), Fault> {
        for item in items.iter().filter(|item| item.role == RoleName::Root) {
            let Ok(Document::Root(root)) = item.payload.document() else {
                continue;
            };
            let same = lists_only(root, &RoleName::Root, &self.root)
                && lists_only(root, &RoleName::Targets, &self.targets)
                && self
                    .snapshot
                    .as_ref()
                    .is_none_or(|key| lists_only(root, &RoleName::Snapshot, key));
            if !same {
                return Err(Fault::Malformed(
                    "the first root lists other keys than those of the creation".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

fn lists_only(root: &Root, role: &RoleName, key: &PublicKey) -> bool {
    root.roles
        .get(role)
        .is_some_and(|keys| keys.key_ids == [key.id()] && keys.threshold == 1)
}

/// A key that the creation uses.
enum Chosen {
    Enrolled(IndexEntry),
    New(Fresh),
}

impl Keyring {
    /// Chooses or makes the keys and signs the root certificate, and tells the client.
    pub(super) async fn create(
        &self,
        head: &Head,
        person: &mut Person<'_>,
        stream: &mut Stream<SignRequest>,
    ) -> Result<Created, Fault> {
        let creation = head.creation.as_ref().expect("the caller saw one");
        let overrides = {
            let mut turn = self.collections.enter(&head.gun, stream).await?;
            let history = turn.history(&head.gun, &self.recorder).await?;
            check_creation(&history, &head.gun, &head.allow)
                .map_err(|refusal| refused(&head.gun, refusal, head.refetched))?
        };
        if person.caller.is_forwarded() {
            return Err(Fault::ForwardedOnly);
        }
        let gun = Some(head.gun.as_str());
        let root = self.choose(creation.root.as_ref(), "root", None, &head.gun)?;
        let targets = self.choose(creation.targets.as_ref(), "targets", gun, &head.gun)?;
        let snapshot = match &creation.snapshot {
            Some(choice) => Some(self.choose(Some(choice), "snapshot", gun, &head.gun)?),
            None => None,
        };
        // No key is made for what would not be signed with it.
        let chosen = [
            (RoleName::Root, Some(&root)),
            (RoleName::Targets, Some(&targets)),
            (RoleName::Snapshot, snapshot.as_ref()),
        ];
        for (role, key) in chosen {
            let Some(key) = key else { continue };
            let enrolled = match key {
                Chosen::Enrolled(entry) => Some(entry),
                Chosen::New(_) => None,
            };
            self.may_create(&head.gun, &role, enrolled, &person.caller)?;
        }
        if root.store() == StoreName::Docker || targets.store() == StoreName::Docker {
            self.same_docker_dir(&head.docker_dir)?;
        }
        let mut summary = vec![format!("creates the trust collection {}", head.gun)];
        for (role, key) in [
            ("root", Some(&root)),
            ("targets", Some(&targets)),
            ("snapshot", snapshot.as_ref()),
        ] {
            summary.extend(key.map(|key| format!("{role} key: {}", key.describe())));
        }
        for rule in &overrides {
            summary.push(format!(
                "overrides the rule `{rule}`: everyone who pulled this repository before will be \
                 refused"
            ));
        }
        claims(head, &mut summary);
        person.about(summary.clone());
        // All of them from the start: a PIN that names no card must not go to the first of two.
        let chosen = [Some(&root), Some(&targets), snapshot.as_ref()];
        let cards: BTreeSet<u32> = chosen
            .into_iter()
            .flatten()
            .filter_map(|key| match key {
                Chosen::Enrolled(entry) if store_of(entry) == StoreName::Piv => {
                    self.card_of(&entry.id)
                }
                Chosen::Enrolled(_) => None,
                Chosen::New(new) => new.on_card.as_ref()?.place.serial,
            })
            .collect();
        person.speaks_to(cards.len());

        let root = self.obtain(root, person, stream).await?;
        let targets = self.obtain(targets, person, stream).await?;
        let snapshot = match snapshot {
            Some(key) => Some(self.obtain(key, person, stream).await?),
            None => None,
        };
        let rules = overrides
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        let certificate = self
            .certify(&head.gun, &root, &summary.join("; "), rules, person, stream)
            .await?;
        let created = Created {
            root: certificate,
            targets: targets.public,
            snapshot: snapshot.map(|key| key.public),
            overrides,
        };
        let told = v1::Created {
            root: Some(public(&created.root)),
            targets: Some(public(&created.targets)),
            snapshot: created.snapshot.as_ref().map(public),
        };
        let told = sign_event::Event::Created(told);
        stream.send(SignEvent { event: Some(told) }).await?;
        Ok(created)
    }

    fn choose(
        &self,
        choice: Option<&KeyChoice>,
        role: &str,
        of: Option<&str>,
        gun: &Gun,
    ) -> Result<Chosen, Fault> {
        let choice = choice.cloned().unwrap_or_default();
        if choice.key_id.is_empty() {
            let new = choice.new_key.unwrap_or_default();
            let algorithm = algorithm(&new.algorithm)?;
            if role == "root" && algorithm == Algorithm::Ed25519 {
                return Err(Fault::Usage(
                    "an Ed25519 key cannot be a root key: Docker's clients know no such \
                     certificate; use p256"
                        .to_owned(),
                ));
            }
            return Ok(Chosen::New(Fresh {
                role: role.to_owned(),
                gun: of.map(str::to_owned),
                store: self.store_named(&new.store)?,
                algorithm,
                label: self.free_label(&new.label, None)?,
                on_card: OnCard::read(self.place_named(&new.store), "", "", "")?,
            }));
        }
        let id: KeyId = choice
            .key_id
            .parse()
            .map_err(|error| Fault::Malformed(format!("{error}")))?;
        let known = self.index().get(&id).cloned();
        let entry = match known {
            Some(entry) => entry,
            None if role == "root" => self.root_of_others(id).ok_or(Fault::NotEnrolled(id))?,
            None => return Err(Fault::NotEnrolled(id)),
        };
        let fits = entry.role == role && (of.is_none() || entry.gun.as_deref() == of);
        if !fits {
            return Err(Fault::KeyRole {
                id,
                what: super::sign::words(Some(&entry.role), entry.gun.as_deref()),
                role: role
                    .parse()
                    .map_err(|error| Fault::Malformed(format!("{error}")))?,
                gun: gun.to_string(),
            });
        }
        Ok(Chosen::Enrolled(entry))
    }

    /// A root key that docker, notary or another program put on a card, as their certificate says.
    /// It is never chosen by itself; who names it by its ID, and gives the PIN under a prompt that
    /// says what is created, takes it in.
    fn root_of_others(&self, id: KeyId) -> Option<IndexEntry> {
        let mut found = self.cards.with_key(&id).into_iter();
        let (card, slot) = found.find(|(_, slot)| slot.subject.as_deref() == Some("root"))?;
        let made = Made {
            attestation: None,
            proves: String::new(),
            slot,
        };
        Some(IndexEntry {
            id,
            role: "root".to_owned(),
            gun: None,
            label: String::new(),
            store: StoreName::Piv.as_str().to_owned(),
            public: made.slot.public.clone()?,
            enrolled_at: now(),
            certificates: Vec::new(),
            used_opaque: false,
            places: vec![place(&card, &made)],
            label_claimed: false,
        })
    }

    async fn obtain(
        &self,
        key: Chosen,
        person: &mut Person<'_>,
        stream: &mut Stream<SignRequest>,
    ) -> Result<IndexEntry, Fault> {
        match key {
            Chosen::Enrolled(entry) => Ok(entry),
            Chosen::New(new) => self.generate(new, person, stream).await,
        }
    }

    /// Signs a root certificate for exactly this GUN; logged as a signature.
    async fn certify(
        &self,
        gun: &Gun,
        root: &IndexEntry,
        summary: &str,
        rule: String,
        person: &mut Person<'_>,
        stream: &mut Stream<SignRequest>,
    ) -> Result<PublicKey, Fault> {
        let mut serial = [0; 16];
        getrandom::fill(&mut serial)
            .map_err(|_| Fault::Internal("the system gives no randomness"))?;
        let template =
            cert::template(gun, &root.public, serial, now()).map_err(Fault::Certificate)?;
        let message: Arc<[u8]> = template.to_be_signed.as_slice().into();
        let signature = match store_of(root) {
            StoreName::File => {
                sign_certificate(&self.file, root.id, &message, person, stream).await?
            }
            StoreName::Docker => {
                sign_certificate(&self.docker, root.id, &message, person, stream).await?
            }
            StoreName::Piv => {
                let asked = OnCards {
                    id: root.id,
                    purpose: Purpose::Certificate,
                    message: Arc::clone(&message),
                };
                let signed = self.sign_on_cards(&[asked], true, person, stream).await?;
                let signed = signed.into_iter().next();
                signed.ok_or(Fault::Internal("a card signed nothing"))?.0
            }
        };
        if person.grade() < GIVEN {
            let what = "the creation of a collection".to_owned();
            return Err(Fault::NothingToConfirmWith(root.id, what));
        }
        let certificate = template
            .finish(&root.public, &signature)
            .map_err(Fault::Certificate)?;
        let mut indexed = root.clone();
        indexed.certificates.push(certificate.id());
        self.enrol(
            indexed,
            NewEntry {
                kind: "certificate",
                time: now(),
                gun: gun.to_string(),
                role: "root".to_owned(),
                key: Some(root.id),
                payload: Some(Sha256::digest(&message).into()),
                summary: summary.to_owned(),
                caller: person.caller.describe(),
                facts: person.facts(""),
                grade: person.grade(),
                rule,
                outcome: "released".to_owned(),
                ..NewEntry::default()
            },
        )
        .await?;
        Ok(certificate)
    }
}

async fn sign_certificate<S: KeyStore + 'static>(
    store: &Worker<S>,
    id: KeyId,
    message: &Arc<[u8]>,
    person: &mut Person<'_>,
    stream: &mut Stream<SignRequest>,
) -> Result<Vec<u8>, Fault> {
    let message = Arc::clone(message);
    let work: Work<S, _> =
        Arc::new(move |store, presence| store.sign(&id, Purpose::Certificate, &message, presence));
    person.with(store, stream, true, work).await
}

impl Chosen {
    fn store(&self) -> StoreName {
        match self {
            Self::Enrolled(entry) => store_of(entry),
            Self::New(new) => new.store,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::New(new) => format!("a new one, in the store {}", new.store.as_str()),
            Self::Enrolled(entry) => {
                let id = entry.id.to_string();
                let name = if entry.label.is_empty() {
                    &id[..12]
                } else {
                    &entry.label
                };
                format!("{name}, in the store {}", entry.store)
            }
        }
    }
}

/// The store of an enrolled key.
pub(super) fn store_of(entry: &IndexEntry) -> StoreName {
    StoreName::from_name(&entry.store).unwrap_or(StoreName::File)
}

/// A public key on the wire.
pub(super) fn public(key: &PublicKey) -> v1::PublicKey {
    v1::PublicKey {
        key_type: key.key_type().as_str().to_owned(),
        public: key.public().to_vec(),
    }
}
