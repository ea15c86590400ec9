//! From the items of a step to their signatures: which key lies where, whether it may sign this,
//! and the signature itself. Nothing here is released; that is the recorder's.

use std::sync::Arc;

use signet_trust::{
    Gun, KeyId, PublicKey, RoleName, Signature, base::VerifiedBase, document::Document,
    payload::Item,
};

use super::{
    Fault, Keyring, Person, StoreName, base::compute, cards::OnCards, person::Work, worker::Worker,
};
use crate::{
    ledger::IndexEntry,
    presence::stream::{Carries, Stream},
    store::{KeyStore, Purpose, Signs, StoreError},
};

/// One signature to be made.
#[derive(Clone, Debug)]
struct Job {
    /// Index of the item.
    item: usize,
    /// As the documents list the key.
    listed: KeyId,
    /// As the store knows it.
    canonical: KeyId,
    public: PublicKey,
    store: StoreName,
    /// A secret given for this request is needed.
    fresh: bool,
}

/// A signature with whose it is.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Index of the item.
    pub(super) item: usize,
    /// As the store knows the key.
    pub(super) canonical: KeyId,
    pub(super) signature: Signature,
    /// See [`StoredFacts::place`].
    pub(super) place: String,
}

/// What the keys are asked to sign, and under which rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) gun: &'a Gun,
    pub(super) base: Option<&'a VerifiedBase>,
    /// Items of all steps so far; those before `from` are signed.
    pub(super) items: &'a Arc<Vec<Item>>,
    /// The first item to be signed.
    pub(super) from: usize,
    /// Docker's directory as the caller sees it; empty when it does not say.
    pub(super) docker_dir: &'a str,
    /// An override is in force: no held secret counts.
    pub(super) fresh: bool,
}

impl Keyring {
    /// Makes all signatures, or none.
    pub(super) async fn sign_items<M: Carries>(
        &self,
        order: Order<'_>,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Vec<Made>, Fault> {
        let mut jobs = self.jobs(order).await?;
        self.together(&mut jobs);
        jobs.sort_by_key(|job| (job.fresh, job.store.as_str(), job.item));
        let mut made = Vec::with_capacity(jobs.len());
        person.speaks_to(self.cards_of(&jobs));
        for group in jobs.chunk_by(|a, b| (a.fresh, a.store) == (b.fresh, b.store)) {
            let signed = match group[0].store {
                StoreName::File => sign_in(&self.file, group, order, person, stream).await?,
                StoreName::Docker => sign_in(&self.docker, group, order, person, stream).await?,
                StoreName::Piv => self.sign_by_cards(group, order, person, stream).await?,
            };
            let index = self.index();
            for (job, (stored, bytes)) in group.iter().zip(signed) {
                let role = &order.items[job.item].role;
                check_authority(
                    &stored,
                    index.get(&job.canonical),
                    job.store,
                    role,
                    order.gun,
                )?;
                made.push(Made {
                    item: job.item,
                    canonical: job.canonical,
                    signature: Signature {
                        key_id: job.listed,
                        method: job.public.method(),
                        bytes,
                    },
                    place: stored.place,
                });
            }
            if group[0].fresh && person.grade() < GIVEN {
                let what = match order.fresh {
                    true => "an override".to_owned(),
                    false => "a signature by a root key".to_owned(),
                };
                let asks = |job: &&Job| order.fresh || order.items[job.item].role == RoleName::Root;
                let job = group.iter().find(asks).unwrap_or(&group[0]);
                return Err(Fault::NothingToConfirmWith(job.canonical, what));
            }
        }
        made.sort_by_key(|made| made.item);
        Ok(made)
    }

    /// How many cards these jobs speak to.
    fn cards_of(&self, jobs: &[Job]) -> usize {
        let mut serials: Vec<u32> = jobs
            .iter()
            .filter(|job| job.store == StoreName::Piv)
            .filter_map(|job| self.card_of(&job.canonical))
            .collect();
        serials.sort_unstable();
        serials.dedup();
        serials.len()
    }

    /// The card that a key is used on: one that is there, else the first that has it.
    pub(super) fn card_of(&self, id: &KeyId) -> Option<u32> {
        let there = self.cards.with_key(id).into_iter().next();
        there
            .map(|(card, _)| card.facts.serial)
            .or_else(|| Some(self.index().get(id)?.places.first()?.serial))
    }

    async fn jobs(&self, order: Order<'_>) -> Result<Vec<Job>, Fault> {
        let index = self.index();
        let mut jobs = Vec::new();
        for (place, item) in order.items.iter().enumerate().skip(order.from) {
            for listed in &item.key_ids {
                let public = listed_key(order.items, order.base, &item.role, listed)
                    // One that only an override lets sign.
                    .or_else(|| index.get(listed).map(|entry| entry.public.clone()))
                    .ok_or_else(|| no_key(&item.role, order.gun, *listed))?;
                let canonical = public
                    .canonical_id()
                    .map_err(|_| no_key(&item.role, order.gun, *listed))?;
                let (store, enrolled) = self
                    .locate(&canonical, order.docker_dir)
                    .await?
                    .ok_or_else(|| no_key(&item.role, order.gun, canonical))?;
                if !enrolled {
                    self.refuse_retired(canonical).await?;
                }
                if !enrolled
                    && !order
                        .base
                        .is_some_and(|base| base.lists(&item.role, &public))
                {
                    return Err(Fault::NotEnrolled(canonical));
                }
                jobs.push(Job {
                    item: place,
                    listed: *listed,
                    canonical,
                    public,
                    store,
                    fresh: order.fresh || item.role == RoleName::Root,
                });
            }
        }
        Ok(jobs)
    }

    /// Where a key lies, and whether it is enrolled.
    pub(super) async fn locate(
        &self,
        id: &KeyId,
        docker_dir: &str,
    ) -> Result<Option<(StoreName, bool)>, Fault> {
        let enrolled = self.index().get(id).map(|entry| entry.store.clone());
        if enrolled.as_deref() == Some(StoreName::File.as_str()) {
            return Ok(Some((StoreName::File, true)));
        }
        let id = *id;
        if enrolled.is_none() && self.file.run(move |store| has(store, &id)).await?? {
            return Ok(Some((StoreName::File, false)));
        }
        if enrolled.as_deref() == Some(StoreName::Piv.as_str()) {
            return Ok(Some((StoreName::Piv, true)));
        }
        if !self.cards.with_key(&id).is_empty() {
            return Ok(Some((StoreName::Piv, enrolled.is_some())));
        }
        // From here on it matters which directory Docker's keys are in.
        let same_dir = self.same_docker_dir(docker_dir);
        if same_dir.is_ok() && self.docker.run(move |store| has(store, &id)).await?? {
            return Ok(Some((StoreName::Docker, enrolled.is_some())));
        }
        // Nowhere else: now readers are worth a look.
        self.cards.settle().await;
        if !self.cards.with_key(&id).is_empty() {
            return Ok(Some((StoreName::Piv, enrolled.is_some())));
        }
        same_dir.map(|()| None)
    }

    /// One PIN, given for this request, opens a card for all that is signed on it together.
    fn together(&self, jobs: &mut [Job]) {
        let on_card = |job: &Job| {
            let (card, slot) = self.cards.with_key(&job.canonical).into_iter().next()?;
            let together = job.store == StoreName::Piv && slot.is_signed_together();
            together.then_some(card.facts.serial)
        };
        if jobs.iter().all(|job| job.fresh == jobs[0].fresh) {
            return;
        }
        let fresh: Vec<u32> = jobs
            .iter()
            .filter(|j| j.fresh)
            .filter_map(on_card)
            .collect();
        for job in jobs {
            job.fresh |= on_card(job).is_some_and(|serial| fresh.contains(&serial));
        }
    }

    /// Signs with keys on cards.
    async fn sign_by_cards<M: Carries>(
        &self,
        jobs: &[Job],
        order: Order<'_>,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Vec<(StoredFacts, Vec<u8>)>, Fault> {
        let asked: Vec<OnCards> = jobs
            .iter()
            .map(|job| OnCards {
                id: job.canonical,
                purpose: Purpose::Document,
                message: order.message(job).into(),
            })
            .collect();
        let fresh = jobs.first().is_some_and(|job| job.fresh);
        let signed = self.sign_on_cards(&asked, fresh, person, stream).await?;
        let facts = |(job, (signature, place)): (&Job, _)| {
            let facts = StoredFacts {
                id: job.canonical,
                role: None,
                gun: None,
                place,
            };
            (facts, signature)
        };
        Ok(jobs.iter().zip(signed).map(facts).collect())
    }

    /// Fails when the caller's directory of Docker's keys is another one than ours.
    pub(super) fn same_docker_dir(&self, theirs: &str) -> Result<(), Fault> {
        if theirs.is_empty() {
            return Ok(());
        }
        let theirs = crate::daemon::docker_config(theirs.into());
        let ours = crate::daemon::docker_config(self.docker_dir.clone());
        if theirs == ours {
            return Ok(());
        }
        Err(Fault::DockerDir {
            ours: ours.display().to_string(),
            theirs: theirs.display().to_string(),
        })
    }
}

/// A passphrase given for this request, or better.
const GIVEN: u32 = 3;

fn has<S: KeyStore>(store: &mut S, id: &KeyId) -> Result<bool, StoreError> {
    Ok(store.list()?.keys.iter().any(|key| key.id == *id))
}

fn no_key(role: &RoleName, gun: &Gun, id: KeyId) -> Fault {
    Fault::NoKeyHere {
        role: role.clone(),
        gun: gun.to_string(),
        needed: vec![id],
    }
}

/// The public key that a document lists under this ID for the role: one of this request, or of the
/// base. A document may say anything of an ID; what counts is the key that has it.
pub(super) fn listed_key(
    items: &[Item],
    base: Option<&VerifiedBase>,
    role: &RoleName,
    id: &KeyId,
) -> Option<PublicKey> {
    let in_request = items
        .iter()
        .find_map(
            |item| match (role.parent(), item.payload.document().ok()?) {
                (None, Document::Root(root)) => root.keys.get(id),
                (Some(parent), Document::Targets(targets)) if item.role == parent => {
                    targets.delegations.keys.get(id)
                }
                _ => None,
            },
        )
        .filter(|key| key.id() == *id);
    let in_base = || {
        let signers = base?.signers(role)?;
        signers
            .keys
            .iter()
            .find(|(listed, key)| listed == id && key.id() == *id)
            .map(|(_, key)| (*key).clone())
    };
    in_request.cloned().or_else(in_base)
}

async fn sign_in<S: KeyStore + 'static, M: Carries>(
    store: &Worker<S>,
    jobs: &[Job],
    order: Order<'_>,
    person: &mut Person<'_>,
    stream: &mut Stream<M>,
) -> Result<Vec<(StoredFacts, Vec<u8>)>, Fault> {
    let ids: Vec<KeyId> = jobs.iter().map(|job| job.canonical).collect();
    let work: Work<S, _> = Arc::new(move |store, presence| {
        ids.iter()
            .map(|id| store.signer(id, presence))
            .collect::<Result<Option<Vec<Arc<dyn Signs>>>, _>>()
    });
    let signers = person.with_held(store, stream, jobs[0].fresh, work).await?;
    if let Some(signers) = signers {
        let bytes = jobs.iter().map(|job| order.message(job).len()).sum();
        return compute(bytes, || {
            jobs.iter()
                .zip(signers)
                .map(|(job, key)| {
                    let signature = key.sign(Purpose::Document, order.message(job))?;
                    let facts = StoredFacts {
                        id: job.canonical,
                        role: key.role().map(str::to_owned),
                        gun: key.gun().map(str::to_owned),
                        place: String::new(),
                    };
                    Ok((facts, signature))
                })
                .collect()
        });
    }
    // A store whose keys sign nowhere else.
    let items = Arc::clone(order.items);
    let todo: Vec<(usize, KeyId)> = jobs.iter().map(|job| (job.item, job.canonical)).collect();
    let work: Work<S, _> = Arc::new(move |store, presence| {
        todo.iter()
            .map(|(item, id)| {
                let message = items[*item].payload.bytes();
                let signature = store.sign(id, Purpose::Document, message, presence)?;
                let stored = store.open(id, presence)?;
                let facts = StoredFacts {
                    id: *id,
                    role: stored.role,
                    gun: stored.gun,
                    place: String::new(),
                };
                Ok((facts, signature))
            })
            .collect()
    });
    person.with(store, stream, jobs[0].fresh, work).await
}

/// What a key's file says of it.
#[derive(Clone, Debug)]
pub(super) struct StoredFacts {
    pub(super) id: KeyId,
    pub(super) role: Option<String>,
    pub(super) gun: Option<String>,
    /// On which card it signed, and what confirmed it; empty for other stores.
    pub(super) place: String,
}

impl Order<'_> {
    fn message(&self, job: &Job) -> &[u8] {
        self.items[job.item].payload.bytes()
    }
}

/// Whether the key is for this. For native files the authority is what is inside the file; what
/// file and index say must agree wherever both say something.
pub(super) fn check_authority(
    stored: &StoredFacts,
    enrolled: Option<&IndexEntry>,
    store: StoreName,
    role: &RoleName,
    gun: &Gun,
) -> Result<(), Fault> {
    let found = (stored.role.as_deref(), stored.gun.as_deref());
    if let Some(entry) = enrolled {
        let indexed = (Some(entry.role.as_str()), entry.gun.as_deref());
        let differs =
            |a: Option<&str>, b: Option<&str>| matches!((a, b), (Some(a), Some(b)) if a != b);
        if differs(found.0, indexed.0) || differs(found.1, indexed.1) {
            return Err(Fault::Conflict {
                id: stored.id,
                found: words(found.0, found.1),
                indexed: words(indexed.0, indexed.1),
            });
        }
    }
    // What the index knows stands in where Docker's file has no headers.
    let key_role = found.0.or(enrolled.map(|entry| entry.role.as_str()));
    let key_gun = found.1.or(enrolled.and_then(|entry| entry.gun.as_deref()));
    let of_this_gun = key_gun.is_none_or(|of| of == gun.as_str());
    let fits = match (role, key_role) {
        (RoleName::Root, None) if store == StoreName::Piv && enrolled.is_none() => true,
        (RoleName::Root, role) => role == Some("root"),
        (_, Some("root")) => false,
        // Docker and notary use their keys for whatever lists them; so do we in their store.
        _ if store == StoreName::Docker => true,
        // A key found on a card says nothing of itself; what lists it does.
        _ if store == StoreName::Piv && enrolled.is_none() => true,
        (RoleName::Targets, role) => role == Some("targets") && of_this_gun,
        (RoleName::Snapshot, role) => role == Some("snapshot") && of_this_gun,
        (RoleName::Timestamp, _) => false,
        (RoleName::Delegation(_), Some("snapshot" | "timestamp")) => false,
        (RoleName::Delegation(_), _) => true,
    };
    if fits {
        Ok(())
    } else {
        Err(Fault::KeyRole {
            id: stored.id,
            what: words(key_role, key_gun),
            role: role.clone(),
            gun: gun.to_string(),
        })
    }
}

/// `a targets key of docker.io/me/app`.
pub(super) fn words(role: Option<&str>, gun: Option<&str>) -> String {
    let role = role.unwrap_or("unknown");
    match gun.filter(|gun| !gun.is_empty()) {
        Some(gun) => format!("a {role} key of {gun}"),
        None => format!("a {role} key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(role: &str, gun: Option<&str>) -> StoredFacts {
        StoredFacts {
            id: KeyId([7; 32]),
            role: Some(role.to_owned()),
            gun: gun.map(str::to_owned),
            place: String::new(),
        }
    }

    #[test]
    fn a_native_key_signs_what_its_file_says_it_is_for() {
        let gun: Gun = "reg/a".parse().unwrap();
        let releases: RoleName = "targets/releases".parse().unwrap();
        let table: [(&str, Option<&str>, &RoleName, bool); 9] = [
            ("root", None, &RoleName::Root, true),
            ("root", None, &RoleName::Targets, false),
            ("targets", Some("reg/a"), &RoleName::Targets, true),
            ("targets", Some("reg/b"), &RoleName::Targets, false),
            ("targets", Some("reg/a"), &RoleName::Root, false),
            ("snapshot", Some("reg/a"), &RoleName::Snapshot, true),
            ("targets", Some("reg/a"), &RoleName::Snapshot, false),
            ("alice", None, &releases, true),
            ("alice", None, &RoleName::Targets, false),
        ];
        for (role, of, asked, fits) in table {
            let result = check_authority(&key(role, of), None, StoreName::File, asked, &gun);
            assert_eq!(result.is_ok(), fits, "{role} {of:?} for {asked}");
        }
    }

    #[test]
    fn file_and_index_that_disagree_stop_that_key() {
        let gun: Gun = "reg/a".parse().unwrap();
        let entry = IndexEntry {
            id: KeyId([7; 32]),
            role: "targets".to_owned(),
            gun: Some("reg/b".to_owned()),
            label: String::new(),
            store: "file".to_owned(),
            public: PublicKey::new(signet_trust::KeyType::Ed25519, vec![0; 32]),
            enrolled_at: 0,
            certificates: Vec::new(),
            used_opaque: false,
            places: Vec::new(),
            label_claimed: false,
        };
        let stored = key("targets", Some("reg/a"));
        let result = check_authority(
            &stored,
            Some(&entry),
            StoreName::File,
            &RoleName::Targets,
            &gun,
        );
        assert!(matches!(result, Err(Fault::Conflict { .. })), "{result:?}");
    }
}
