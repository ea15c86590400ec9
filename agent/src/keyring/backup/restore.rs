//! A restore: the plan first, then all of it or nothing.
//!
//! Only key material is taken, each key proved by its ID. What the archive says of a key besides
//! (labels, certificates) fills in; role and GUN are those of its own file. Nothing that is here is
//! overwritten: a key that is here already stays as it lies. Guard state rises to what the archive
//! claims, and never falls; settings are not touched.

mod write;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use signet_proto::v1::{
    self, ArchivedKey, ArchivedState, ArchivedTombstone, BackupDone, BackupRequest,
};
use signet_trust::{KeyId, PrivateKey, keyfile::KeyFile, payload::escape};
use tokio::sync::Mutex;

use super::{
    Candidate, Members, Opener, Problem, STEP, archive_entry, candidates, name, open::of_key,
    progress, prove, receive,
};
use crate::{
    backup::{journal::Journal, state::Claimed},
    keyring::{Fault, Keyring, Person, StoreName, creation::store_of, manage::role_and_gun},
    ledger::{IndexEntry, NewEntry, RETIRED, Tombstone, migration::Record, restore::Restored},
    presence::stream::Stream,
    store::file::{
        Ring,
        foreign::{Files, ForeignKey},
    },
};

/// One at a time: the second finds what the first has written.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Exit code of what the person has not allowed.
const REFUSED: u32 = 4;

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Not here: its file is written, and it is enrolled if it was proved.
    New,
    /// Its file is here: it is enrolled.
    Enrol,
    /// Here and enrolled.
    Same,
    /// Here as something else.
    Conflict,
    /// Cannot be restored.
    Left,
    /// Was removed here or moved away: it comes back only by a revival.
    Tombstoned,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Enrol => "enrol",
            Self::Same => "same",
            Self::Conflict => "conflict",
            Self::Left => "left",
            Self::Tombstoned => "tombstoned",
        }
    }
}

/// A key and what becomes of it.
struct Planned<'a> {
    key: Candidate<'a>,
    target: StoreName,
    action: Action,
    opened: Option<Arc<PrivateKey>>,
    problem: Option<Problem>,
    here: &'static str,
    /// What is left of it here, if it is to be revived.
    stone: Option<Tombstone>,
}

impl Planned<'_> {
    fn told(&self) -> ArchivedKey {
        ArchivedKey {
            key_id: self.key.id.to_string(),
            role: self.key.role.clone(),
            gun: self.key.gun.clone(),
            label: self.key.label.clone(),
            store: self.key.store.as_str().to_owned(),
            proved: self.opened.is_some(),
            problem: self
                .problem
                .as_ref()
                .map(|p| p.reason.clone())
                .unwrap_or_default(),
            exit: self.problem.as_ref().map_or(0, |p| p.exit),
            here: self.here.to_owned(),
            action: self.action.as_str().to_owned(),
            target: self.target.as_str().to_owned(),
        }
    }

    fn enrols(&self) -> bool {
        matches!(self.action, Action::New | Action::Enrol) && self.opened.is_some()
    }

    fn describe(&self) -> String {
        let of = match self.key.gun.as_str() {
            "" => String::new(),
            gun => format!(" of {}", escape(gun)),
        };
        let role = match self.key.role.as_str() {
            "" => "key".to_owned(),
            role => format!("{} key", escape(role)),
        };
        format!(
            "{role}{of} {}, into the store {}",
            self.key.id,
            self.target.as_str()
        )
    }
}

/// What is taken in, and where to.
pub(in crate::keyring) struct Taking<'a> {
    pub(in crate::keyring) restore: &'a v1::RestoreBackup,
    /// Where keys go; `None`: where they came from.
    pub(in crate::keyring) store: Option<StoreName>,
    /// A move: what is recorded of it, once these keys are taken in, in the same transaction.
    pub(in crate::keyring) migration: Option<&'a Recorded<'a>>,
}

/// From the keys that are taken in to what is recorded of the move that brings them.
pub(in crate::keyring) type Recorded<'a> =
    dyn Fn(&[Arc<PrivateKey>]) -> Result<Record, Fault> + Send + Sync + 'a;

/// Guard state of an archive beside what is recorded here.
struct Compared {
    rises: Vec<Claimed>,
    told: Vec<ArchivedState>,
    /// Tombstones that are recorded, and what is said of all.
    stones: Vec<Tombstone>,
    stones_told: Vec<ArchivedTombstone>,
}

impl Keyring {
    pub(super) async fn restore(
        &self,
        restore: &v1::RestoreBackup,
        docker_dir: &str,
        home: &Path,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let store = match restore.store.as_str() {
            "" => None,
            store => match self.store_named(store)? {
                #[allow(unreachable_patterns, reason = "stores that take no key in")]
                store @ (StoreName::File | StoreName::Docker) => Some(store),
                #[allow(unreachable_patterns, reason = "stores that take no key in")]
                _ => {
                    return Err(Fault::Usage(
                        "a restore goes to the stores file and docker; `signet key move` takes a \
                         key to a card"
                            .to_owned(),
                    ));
                }
            },
        };
        let members = receive(stream).await?;
        let taking = Taking {
            restore,
            store,
            migration: None,
        };
        self.take_in(&members, taking, docker_dir, home, person, stream)
            .await
    }

    /// Takes in the keys of an archive that is here already.
    pub(in crate::keyring) async fn take_in(
        &self,
        members: &Members,
        taking: Taking<'_>,
        docker_dir: &str,
        home: &Path,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let Taking {
            restore,
            store,
            migration,
        } = taking;
        let _one = stream.while_there(ONE_AT_A_TIME.lock()).await?;
        let (manifest, mut candidates) = candidates(members)?;
        if !restore.only.is_empty() {
            chosen(&mut candidates, &restore.only)?;
        }
        if candidates
            .iter()
            .any(|key| store.unwrap_or(key.store) == StoreName::Docker)
        {
            self.same_docker_dir(docker_dir)?;
        }
        let source = name(&restore.source);
        person.about(vec![format!("restores keys from {source}")]);
        let archive = manifest.as_ref().map_or("-", |manifest| &manifest.id);
        let files = self.file.run(|store| store.files()).await??;
        let mut opener = Opener::of(members);
        let mut plan = self
            .plan(
                candidates,
                store,
                docker_dir,
                archive,
                restore.revive,
                &files,
                &mut opener,
                person,
                stream,
            )
            .await?;
        let compared = self.compare(members).await?;
        let done = |plan: &[Planned<'_>], compared: Compared, log_entry, changed| BackupDone {
            keys: plan.iter().map(Planned::told).collect(),
            log_entry,
            state: compared.told,
            changed,
            tombstones: compared.stones_told,
            ..BackupDone::default()
        };
        if restore.dry_run {
            return Ok(done(&plan, compared, 0, false));
        }
        confirm(&plan, &source, person, stream).await?;
        let placed = self
            .sealed(members, &mut plan, &files, &opener, person, stream)
            .await?;
        let keys: Vec<(IndexEntry, NewEntry)> = self.enrolments(&plan, person)?;
        let migration = match migration {
            Some(proved) => {
                let taken = plan.iter().filter(|planned| planned.enrols());
                let opened: Vec<_> = taken.filter_map(|p| p.opened.clone()).collect();
                Some(proved(&opened)?)
            }
            None => None,
        };
        let no_keys = placed.is_empty() && keys.is_empty();
        let no_state = compared.rises.is_empty() && compared.stones.is_empty();
        if no_keys && no_state && migration.is_none() {
            return Ok(done(&plan, compared, 0, false));
        }
        let entry = NewEntry {
            summary: format!("{} keys from {source}, archive {archive}", keys.len()),
            ..archive_entry("restore", person)
        };
        let revived: Vec<KeyId> = plan
            .iter()
            .filter(|planned| planned.stone.is_some() && planned.enrols())
            .map(|planned| planned.key.id)
            .collect();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Fault::Internal("the system gives no randomness"))?;
        let journal = Journal {
            private: self.docker_dir.join("trust").join("private"),
            files: placed,
            restored: Restored {
                id: hex::encode(id),
                keys,
                state: compared.rises.clone(),
                revived,
                stones: compared.stones.clone(),
                source: source.clone(),
                migration,
                entry,
            },
        };
        let number = self.carry_out(journal, home).await?;
        self.claims.forget();
        Ok(done(&plan, compared, number, true))
    }

    /// Opens every key, and says what is to be done with it.
    #[allow(clippy::too_many_arguments, reason = "the surroundings of one request")]
    async fn plan<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        store: Option<StoreName>,
        docker_dir: &str,
        archive: &str,
        revive: bool,
        files: &Files,
        opener: &mut Opener<'_>,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<Vec<Planned<'a>>, Fault> {
        let (listed, _) = self.list(docker_dir).await?;
        let index = self.index();
        let here: HashSet<(KeyId, StoreName)> = listed
            .iter()
            .filter(|key| key.info().state != "gone")
            .map(|key| (key.id, key.store))
            .collect();
        let ids: Vec<KeyId> = candidates.iter().map(|key| key.id).collect();
        let removed = self
            .recorder
            .run(move |ledger| ledger.tombstones(&ids))
            .await?;
        let mut removed: HashMap<KeyId, Tombstone> =
            removed.into_iter().map(|stone| (stone.id, stone)).collect();
        // Both keyrings come back together, so both must be known to be the person's own.
        let native = candidates.iter().any(|key| key.store == StoreName::File);
        let mut rings = None;
        if native && files.is_empty() && store != Some(StoreName::Docker) {
            for ring in [Ring::Repository, Ring::Root] {
                if let Some(problem) = opener.ring(ring, person, stream).await? {
                    rings.get_or_insert(problem);
                }
            }
        }
        let total = candidates.len();
        let mut plan = Vec::with_capacity(total);
        for (at, mut key) in candidates.into_iter().enumerate() {
            if at % STEP == 0 {
                progress(at, total, stream).await?;
            }
            let target = store.unwrap_or(key.store);
            let in_target = here.contains(&(key.id, target));
            let enrolled = index.get(&key.id);
            let elsewhere = enrolled.filter(|entry| here.contains(&(key.id, store_of(entry))));
            let stone = removed.remove(&key.id).filter(|_| enrolled.is_none());
            let state = match (in_target || elsewhere.is_some(), enrolled, &stone) {
                (_, None, Some(stone)) if stone.reason == RETIRED => "retired",
                (_, None, Some(_)) => "removed",
                (true, _, _) => "here",
                (false, Some(_), _) => "gone",
                (false, None, None) => "absent",
            };
            let planned = |key, action, opened, problem, here| Planned {
                key,
                target,
                action,
                opened,
                problem,
                here,
                stone: stone.clone(),
            };
            if let Some(stone) = stone.as_ref().filter(|_| !revive) {
                let problem = Problem {
                    reason: format!("it was {} here; --revive brings it back", stone.why()),
                    exit: REFUSED,
                };
                let problem = Some(problem);
                plan.push(planned(key, Action::Tombstoned, None, problem, state));
                continue;
            }
            if elsewhere.is_some() {
                plan.push(planned(key, Action::Same, None, None, state));
                continue;
            }
            let opening = match (&rings, key.store) {
                (Some(problem), StoreName::File) => Err(problem.clone()),
                (_, StoreName::File) => {
                    let opening = opener.native(key.file, &key.id, &key.role, person, stream);
                    opening.await?
                }
                _ => {
                    let opening = opener.docker(key.file, &key.id, &key.label, person, stream);
                    opening.await?
                }
            };
            let opened = match opening {
                // A revival is confirmed by what the key was opened with.
                Ok(_) if stone.is_some() && !is_closed(&key) => {
                    let what = "a revival".to_owned();
                    Err(Problem::new(&Fault::NothingToConfirmWith(key.id, what)))
                }
                Ok(ForeignKey {
                    key: opened,
                    role,
                    gun,
                }) => {
                    prove(&opened, "restore", archive)?;
                    // What the file says counts; what the manifest says fills in.
                    let role = if role.is_empty() {
                        key.role.clone()
                    } else {
                        role
                    };
                    let gun = gun.unwrap_or_else(|| key.gun.clone());
                    match of_key(role_and_gun(&role, &gun))? {
                        Ok((role, gun)) => {
                            key.role = role;
                            key.gun = gun.unwrap_or_default();
                            Ok(opened)
                        }
                        Err(problem) => Err(problem),
                    }
                }
                Err(problem) => Err(problem),
            };
            let (action, opened, problem) = match opened {
                Ok(opened) => {
                    let opened = Some(Arc::new(opened));
                    let gun = Some(key.gun.clone()).filter(|gun| !gun.is_empty());
                    match enrolled {
                        Some(entry) if (&entry.role, &entry.gun) != (&key.role, &gun) => {
                            let problem = Problem::new(&Fault::Conflict {
                                id: key.id,
                                found: words(&key.role, gun.as_deref()),
                                indexed: words(&entry.role, entry.gun.as_deref()),
                            });
                            (Action::Conflict, None, Some(problem))
                        }
                        _ if in_target => (Action::Enrol, opened, None),
                        _ => (Action::New, opened, None),
                    }
                }
                // As docker's own tools would put it back: it opens or not when it is used.
                Err(problem)
                    if problem.is_locked()
                        && !in_target
                        && stone.is_none()
                        && (key.store, target) == (StoreName::Docker, StoreName::Docker) =>
                {
                    fill_in(&mut key);
                    (Action::New, None, Some(problem))
                }
                Err(problem) => (Action::Left, None, Some(problem)),
            };
            plan.push(planned(key, action, opened, problem, state));
        }
        progress(total, total, stream).await?;
        Ok(plan)
    }
}

/// Whether the key's file opens with a passphrase only.
fn is_closed(key: &Candidate<'_>) -> bool {
    key.store == StoreName::File || KeyFile::parse(key.file).is_ok_and(|file| file.is_encrypted())
}

/// Keeps the keys that were asked for.
fn chosen(candidates: &mut Vec<Candidate<'_>>, only: &[String]) -> Result<(), Fault> {
    let is = |key: &Candidate<'_>, wanted: &str| {
        let id = key.id.to_string();
        (wanted.len() >= 7 && id.starts_with(&wanted.to_ascii_lowercase()))
            || (!key.label.is_empty() && key.label == wanted)
            || wanted.split_once('@') == Some((key.role.as_str(), key.gun.as_str()))
            || (wanted == "root" && key.role == "root")
    };
    for key in candidates.iter_mut() {
        fill_in(key);
    }
    if let Some(wanted) = only
        .iter()
        .find(|wanted| !candidates.iter().any(|key| is(key, wanted)))
    {
        return Err(Fault::Usage(format!(
            "the archive holds no key called {:?}",
            escape(wanted)
        )));
    }
    candidates.retain(|key| only.iter().any(|wanted| is(key, wanted)));
    Ok(())
}

/// What the headers of a key in Docker's format say, where no manifest said it.
fn fill_in(key: &mut Candidate<'_>) {
    if key.store == StoreName::Docker
        && key.role.is_empty()
        && let Ok(file) = KeyFile::parse(key.file)
    {
        key.role = file.role.clone().unwrap_or_default();
        key.gun = file.gun.clone().unwrap_or_default();
    }
}

/// Root keys are enrolled only after a yes to their IDs.
async fn confirm(
    plan: &[Planned<'_>],
    source: &str,
    person: &mut Person<'_>,
    stream: &mut Stream<BackupRequest>,
) -> Result<(), Fault> {
    let roots: Vec<&Planned<'_>> = plan
        .iter()
        .filter(|planned| planned.enrols() && planned.key.role == "root")
        .collect();
    if roots.is_empty() {
        return Ok(());
    }
    let written = plan
        .iter()
        .filter(|planned| matches!(planned.action, Action::New | Action::Enrol));
    let mut summary = vec![format!("restores from {source}:")];
    summary.extend(written.map(|planned| format!("  {}", planned.describe())));
    person.about(summary);
    let ids: Vec<String> = roots
        .iter()
        .map(|planned| planned.key.id.to_string())
        .collect();
    let question = match &ids[..] {
        [id] => format!("Is {id} your root key?"),
        ids => format!("Are these your root keys: {}?", ids.join(", ")),
    };
    person.confirm(stream, &question).await?;
    Ok(())
}

fn words(role: &str, gun: Option<&str>) -> String {
    match gun {
        Some(gun) => format!("{role} of {gun}"),
        None => role.to_owned(),
    }
}
