//! What can be told of keys, stores and collections without asking anybody anything.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use signet_proto::v1::{CollectionInfo, KeyInfo, KeyOnCard, StatusReply};
use signet_trust::{
    Gun, KeyId, PublicKey,
    document::{Body as _, Root},
    verify::Raw,
};

use super::{
    Fault, Keyring, StoreName,
    creation::{public, store_of},
};
use crate::{
    daemon::caller::Caller,
    ledger::{IndexEntry, RETIRED},
    store::{KeyStore as _, Listing, StoredKey, hold::Scope},
};

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Conflict,
    Enrolled,
    Gone,
    New,
    /// Found here, but it was moved to another host.
    Retired,
}

/// A key as it is listed.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) id: KeyId,
    pub(super) role: Option<String>,
    pub(super) gun: Option<String>,
    pub(super) label: String,
    pub(super) store: StoreName,
    pub(super) public: Option<PublicKey>,
    pub(super) used_by: Vec<String>,
    certificates: Vec<KeyId>,
    state: State,
    enrolled_at: i64,
    path: String,
    encrypted: bool,
    problem: Option<String>,
    used_opaque: bool,
    /// Where it lies, if on cards.
    cards: Vec<KeyOnCard>,
    /// The label came with a backup, and nobody here has confirmed it.
    label_claimed: bool,
}

impl Listed {
    fn new(stored: StoredKey, store: StoreName, indexed: Option<&IndexEntry>) -> Self {
        let differs =
            |a: &Option<String>, b: Option<&String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        let conflict = indexed.filter(|entry| {
            differs(&stored.role, Some(&entry.role)) || differs(&stored.gun, entry.gun.as_ref())
        });
        let state = match (indexed, conflict) {
            (_, Some(_)) => State::Conflict,
            (Some(_), None) => State::Enrolled,
            (None, None) => State::New,
        };
        let problem = conflict.map(|entry| {
            format!(
                "its file says it is {}, the index says {}",
                super::sign::words(stored.role.as_deref(), stored.gun.as_deref()),
                super::sign::words(Some(&entry.role), entry.gun.as_deref()),
            )
        });
        Self {
            id: stored.id,
            role: stored
                .role
                .or_else(|| indexed.map(|entry| entry.role.clone())),
            gun: stored
                .gun
                .or_else(|| indexed.and_then(|entry| entry.gun.clone())),
            label: indexed.map(|entry| entry.label.clone()).unwrap_or_default(),
            store,
            public: stored
                .public
                .or_else(|| indexed.map(|entry| entry.public.clone())),
            used_by: Vec::new(),
            certificates: indexed
                .map(|entry| entry.certificates.clone())
                .unwrap_or_default(),
            state,
            enrolled_at: indexed.map_or(0, |entry| entry.enrolled_at),
            path: stored.path.display().to_string(),
            encrypted: stored.encrypted,
            problem: stored.problem.or(problem),
            used_opaque: indexed.is_some_and(|entry| entry.used_opaque),
            cards: Vec::new(),
            label_claimed: indexed.is_some_and(|entry| entry.label_claimed),
        }
    }

    fn gone(entry: &IndexEntry) -> Self {
        let stored = StoredKey {
            id: entry.id,
            role: None,
            gun: None,
            public: None,
            path: std::path::PathBuf::new(),
            encrypted: false,
            problem: Some(format!("the store {} no longer has it", entry.store)),
        };
        Self {
            state: State::Gone,
            ..Self::new(stored, store_of(entry), Some(entry))
        }
    }

    pub(super) fn is_enrolled(&self) -> bool {
        !matches!(self.state, State::New | State::Retired)
    }

    pub(super) fn is_root(&self) -> bool {
        self.role.as_deref() == Some("root")
    }

    /// For the words of a prompt.
    pub(super) fn describe(&self) -> String {
        let what = match (&self.role, &self.gun) {
            (Some(role), Some(gun)) => format!("the {role} key of {gun}"),
            (Some(role), None) => format!("the {role} key"),
            (None, _) => "the key".to_owned(),
        };
        let id = self.id.to_string();
        let label = match (self.label.as_str(), self.label_claimed) {
            ("", _) => String::new(),
            (label, false) => format!(" {label:?}"),
            (label, true) => format!(" {label:?} (as a backup calls it)"),
        };
        format!(
            "{what}{label} ({}, store {})",
            &id[..12],
            self.store.as_str()
        )
    }

    /// On the wire.
    pub(super) fn info(&self) -> KeyInfo {
        let algorithm = self.public.as_ref().and_then(|key| key.algorithm().ok());
        KeyInfo {
            key_id: self.id.to_string(),
            other_ids: self.certificates.iter().map(ToString::to_string).collect(),
            role: self.role.clone().unwrap_or_default(),
            gun: self.gun.clone().unwrap_or_default(),
            label: self.label.clone(),
            store: self.store.as_str().to_owned(),
            algorithm: algorithm
                .map(|algorithm| algorithm.name())
                .unwrap_or_default(),
            state: match self.state {
                State::Conflict => "conflict",
                State::Enrolled => "enrolled",
                State::Gone => "gone",
                State::New => "new",
                State::Retired => "retired",
            }
            .to_owned(),
            enrolled_at: self.enrolled_at,
            public: self.public.as_ref().map(public),
            path: self.path.clone(),
            encrypted: self.encrypted,
            problem: self.problem.clone().unwrap_or_default(),
            used_opaque: self.used_opaque,
            used_by: self.used_by.clone(),
            cards: self.cards.clone(),
            label_claimed: self.label_claimed,
        }
    }

    /// Marks a key that was moved to another host: it signs nothing here.
    fn retire(&mut self, why: &str) {
        self.state = State::Retired;
        self.problem = Some(format!(
            "it was {why} and signs nothing here; `signet key revive` lets it come back"
        ));
    }
}

impl Keyring {
    /// Keys of every store, and what could not be read.
    ///
    /// A directory of Docker's that is not the caller's is said so among the problems.
    pub(super) async fn list(&self, docker_dir: &str) -> Result<(Vec<Listed>, Vec<String>), Fault> {
        let (file, docker) = tokio::join!(
            self.file.run(|store| store.list()),
            self.docker.run(|store| store.list())
        );
        let mut problems = Vec::new();
        let mut take = |listing: Result<Listing, crate::store::StoreError>| match listing {
            Ok(listing) => {
                problems.extend(listing.problems);
                listing.keys
            }
            Err(error) => {
                problems.push(super::fault::chain(&error));
                Vec::new()
            }
        };
        let stored = [
            (StoreName::File, take(file?)),
            (StoreName::Docker, take(docker?)),
        ];
        if let Err(fault) = self.same_docker_dir(docker_dir) {
            problems.push(fault.to_string());
        }
        self.cards.settle().await;
        let index = self.index();
        let mut keys: Vec<Listed> = Vec::new();
        for (stored, cards) in self.keys_on_cards(&index) {
            let store = StoreName::Piv;
            let indexed = index
                .get(&stored.id)
                .filter(|entry| store_of(entry) == store);
            let listed = Listed::new(stored, store, indexed);
            keys.push(Listed { cards, ..listed });
        }
        for (store, stored) in stored {
            for key in stored {
                let indexed = index.get(&key.id).filter(|entry| store_of(entry) == store);
                keys.push(Listed::new(key, store, indexed));
            }
        }
        let here: HashSet<KeyId> = keys
            .iter()
            .filter(|key| key.is_enrolled())
            .map(|key| key.id)
            .collect();
        keys.extend(
            index
                .values()
                .filter(|entry| !here.contains(&entry.id))
                .map(Listed::gone),
        );
        self.mark_retired(&mut keys).await?;
        let used = self.listed_by().await?;
        for key in &mut keys {
            key.used_by = used.get(&key.id).cloned().unwrap_or_default();
        }
        keys.sort_by(|a, b| {
            let order = |key: &Listed| {
                let role = match key.role.as_deref() {
                    Some("root") => 0,
                    Some("targets") => 1,
                    Some("snapshot") => 2,
                    Some(_) => 3,
                    None => 4,
                };
                (role, key.gun.clone(), key.role.clone(), key.id)
            };
            order(a).cmp(&order(b))
        });
        Ok((keys, problems))
    }

    /// Marks those that were moved to another host and are here again.
    async fn mark_retired(&self, keys: &mut [Listed]) -> Result<(), Fault> {
        let new: Vec<KeyId> = keys
            .iter()
            .filter(|key| key.state == State::New)
            .map(|key| key.id)
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let stones = self
            .recorder
            .run(move |ledger| ledger.tombstones(&new))
            .await?;
        for stone in stones.iter().filter(|stone| stone.reason == RETIRED) {
            for key in keys.iter_mut().filter(|key| key.id == stone.id) {
                key.retire(&stone.why());
            }
        }
        Ok(())
    }

    /// Keys of every store, on the wire.
    pub(crate) async fn list_keys(
        &self,
        docker_dir: &str,
    ) -> Result<(Vec<KeyInfo>, Vec<String>), Fault> {
        let (keys, problems) = self.list(docker_dir).await?;
        Ok((keys.iter().map(Listed::info).collect(), problems))
    }

    /// The one key that answers to a name: a key ID or a prefix of at least 7 digits, a label, or
    /// `role@GUN` (`root` alone).
    pub(super) async fn find(&self, name: &str, docker_dir: &str) -> Result<Listed, Fault> {
        let (keys, _) = self.list(docker_dir).await?;
        let found = candidates(&keys, name);
        match found.as_slice() {
            [key] => Ok((*key).clone()),
            // One key that lies in two stores: the enrolled one is meant.
            [a, b] if a.id == b.id && a.is_enrolled() != b.is_enrolled() => {
                Ok((if a.is_enrolled() { *a } else { *b }).clone())
            }
            [] => {
                self.same_docker_dir(docker_dir)?;
                Err(Fault::UnknownKey(signet_trust::payload::escape(name)))
            }
            several => Err(Fault::Ambiguous {
                name: signet_trust::payload::escape(name),
                candidates: several
                    .iter()
                    .map(|key| format!("{} {}", key.id, key.describe()))
                    .collect(),
            }),
        }
    }

    /// GUNs of published collections, by the keys that their recorded root lists.
    async fn listed_by(&self) -> Result<HashMap<KeyId, Vec<String>>, Fault> {
        let recorded = self
            .recorder
            .run(|ledger| {
                let mut all = Vec::new();
                for gun in ledger.guns()? {
                    let history = ledger.history(&gun)?;
                    for root in ledger.roots(&gun)? {
                        let published = history.collections.get(&root.lineage);
                        if published.is_some_and(signet_trust::guard::State::is_published) {
                            all.push((gun.clone(), root.wire));
                        }
                    }
                }
                Ok(all)
            })
            .await?;
        let mut used: HashMap<KeyId, Vec<String>> = HashMap::new();
        let mut add = |key: &PublicKey, gun: &Gun| {
            let Ok(id) = key.canonical_id() else { return };
            let guns = used.entry(id).or_default();
            if !guns.iter().any(|known| known == gun.as_str()) {
                guns.push(gun.to_string());
            }
        };
        for (gun, wire) in recorded {
            let size = wire.len();
            let Ok(root) = Raw::<Root>::parse(wire, size) else {
                continue;
            };
            let root = root.claimed();
            for id in root.roles.values().flat_map(|role| &role.key_ids) {
                if let Some(key) = root.keys.get(id) {
                    add(key, &gun);
                }
            }
        }
        for (gun, base) in self.collections.held() {
            for (role, _) in base.marks() {
                let Some(targets) = base.targets(role) else {
                    continue;
                };
                for key in targets.doc().delegations.keys.values() {
                    add(key, &gun);
                }
            }
        }
        Ok(used)
    }

    /// One screen of facts.
    pub(crate) async fn status(&self, caller: &Caller) -> Result<StatusReply, Fault> {
        let keyring = self.file.run(|store| store.status()).await?;
        let session = caller.session.filter(|_| caller.confirmed);
        let until = keyring
            .held
            .iter()
            .filter(|(scope, _)| match scope {
                Scope::All => true,
                Scope::Session(of) => session == Some(*of),
            })
            .map(|(_, until)| unix(*until))
            .max();
        let (log_entries, log_head) = self.log_head().await?;
        let mut warnings = Vec::new();
        if keyring.same_passphrase {
            warnings.push(
                "keyring.age and root.age have the same passphrase: `signet keyring passphrase \
                 --root` gives the root keys one of their own"
                    .to_owned(),
            );
        }
        let (keys, problems) = self.list("").await?;
        let docker = keys
            .iter()
            .filter(|key| key.store == StoreName::Docker)
            .count();
        if docker > 0 {
            warnings.push(format!(
                "{docker} {} in Docker's directory, whose format is easy to guess passphrases for \
                 (PBKDF2-SHA1, 2048 rounds): `signet key import` takes a key into the native store",
                if docker == 1 { "key lies" } else { "keys lie" }
            ));
        }
        warnings.extend(self.unrehearsed(&keys).await?);
        warnings.extend(self.migration_warnings().await?);
        warnings.extend(self.unlogged_warning().await?);
        warnings.extend(problems);
        warnings.extend(keys.iter().filter_map(|key| {
            let problem = key.problem.as_ref()?;
            Some(format!("{}: {problem}", key.describe()))
        }));
        let (cards, mut card_problems) = self.list_cards().await;
        if cards.is_empty() && !self.cards.matter() {
            // Whoever has no cards need not be told that none can be seen.
            card_problems.clear();
        }
        Ok(StatusReply {
            keyring_exists: keyring.repository || keyring.root,
            unlocked: until.is_some(),
            unlocked_until: until.unwrap_or(0),
            same_passphrase: keyring.same_passphrase,
            warnings,
            cards,
            card_problems,
            log_entries,
            log_head: log_head.to_vec(),
            collections: self.collection_infos().await?,
            default_store: self.default_store.as_str().to_owned(),
            ..StatusReply::default()
        })
    }

    async fn collection_infos(&self) -> Result<Vec<CollectionInfo>, Fault> {
        let recorded = self
            .recorder
            .run(|ledger| {
                let mut all = Vec::new();
                for gun in ledger.guns()? {
                    let roots = ledger.roots(&gun)?;
                    for (lineage, state) in ledger.history(&gun)?.collections {
                        let root = roots.iter().find(|root| root.lineage == lineage);
                        let wire = root.map(|root| root.wire.clone());
                        all.push((gun.clone(), lineage, state.is_published(), wire));
                    }
                }
                Ok(all)
            })
            .await?;
        let held: BTreeMap<Gun, _> = self.collections.held().into_iter().collect();
        Ok(recorded
            .into_iter()
            .map(|(gun, lineage, published, wire)| {
                let mut soonest: Option<(i64, String)> = None;
                let mut see = |at: i64, role: &str| {
                    if soonest.as_ref().is_none_or(|(known, _)| at < *known) {
                        soonest = Some((at, role.to_owned()));
                    }
                };
                if let Some(wire) = wire {
                    let size = wire.len();
                    if let Ok(root) = Raw::<Root>::parse(wire, size) {
                        see(root.claimed().expires().unix(), "root");
                    }
                }
                if let Some(base) = held
                    .get(&gun)
                    .filter(|base| base.lineage() == Some(lineage))
                {
                    for (role, _) in base.marks() {
                        if let Some(targets) = base.targets(role) {
                            see(targets.doc().expires.unix(), role.as_str());
                        }
                    }
                }
                let (expires, expires_role) = soonest.unwrap_or_default();
                CollectionInfo {
                    gun: gun.to_string(),
                    lineage: lineage.0.to_vec(),
                    published,
                    expires,
                    expires_role,
                }
            })
            .collect())
    }
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Shortest prefix of a key ID that names a key.
const MIN_PREFIX: usize = 7;

fn candidates<'a>(keys: &'a [Listed], name: &str) -> Vec<&'a Listed> {
    let labelled: Vec<&Listed> = keys
        .iter()
        .filter(|key| !key.label.is_empty() && key.label == name)
        .collect();
    if !labelled.is_empty() {
        return labelled;
    }
    let fits = |key: &&Listed| {
        let ids: Vec<KeyId> = std::iter::once(key.id)
            .chain(key.certificates.iter().copied())
            .collect();
        named(name, &ids, "", key.role.as_deref(), key.gun.as_deref())
    };
    keys.iter().filter(fits).collect()
}

/// Whether a key answers to a name: a label, `root`, `role@GUN`, or (the beginning of) an ID.
pub(super) fn named(
    name: &str,
    ids: &[KeyId],
    label: &str,
    role: Option<&str>,
    gun: Option<&str>,
) -> bool {
    if !label.is_empty() && label == name {
        return true;
    }
    if name == "root" {
        return role == Some("root");
    }
    if let Some((of, wanted)) = name.split_once('@') {
        return role == Some(of) && gun == Some(wanted);
    }
    let digits = name.len() >= MIN_PREFIX && name.bytes().all(|b| b.is_ascii_hexdigit());
    let prefix = name.to_ascii_lowercase();
    digits && ids.iter().any(|id| id.to_string().starts_with(&prefix))
}
