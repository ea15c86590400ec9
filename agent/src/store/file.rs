//! The native store: keys in age files, opened by two keyrings.
//!
//! Repository and signer keys are encrypted to the identity in `keyring.age`, root keys to the one
//! in `root.age`; each identity is encrypted with a passphrase of its own. `keyring.age` may be
//! held open for a time ([`FileStore::unlock`], or a passphrase typed for a request, held for its
//! terminal session); `root.age` is opened for one request and forgotten. Everything here can be
//! opened without Signet: `age -d -i keyring.age keys/<id>.age` prints the PEM that Docker's tools
//! import.
//!
//! Authority is what was encrypted: role and GUN come from inside the file, and the key ID is
//! computed from the key after every decryption. So a file that is renamed, exchanged or planted
//! does not sign.
//!
//! While a keyring is open its keys are opened once and kept in locked memory, so that signing does
//! no age work; when it closes they are wiped with it.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_trust::{
    Algorithm, KeyId, PrivateKey, PublicKey,
    keyfile::{KeyFile, write_plain},
};

use super::{
    Hint, KeyStore, Listing, NewKey, Purpose, Signs, StoreError, StoredKey, ask,
    hold::{Clock, DEFAULT_HOLD, Grants, Scope, system_clock},
    opened::{Opened, check_new, export, file_error},
    throttle::Throttle,
};
use crate::{
    key::Secret,
    presence::{Presence, RequestId},
};

mod change;
pub(crate) mod foreign;
mod keyring;
mod layout;
pub(crate) mod log_key;

pub use keyring::Ring;

use keyring::{Decrypted, OpenKeyring};
use layout::{Layout, Stamp};

/// The native store of one home.
pub struct FileStore {
    layout: Layout,
    clock: Clock,
    hold: Duration,
    throttle: Throttle,
    /// The repository keyring, while somebody may use it.
    held: Option<Held>,
    requests: HashMap<RequestId, Request>,
    /// Repository keys, opened once while their keyring is open.
    opened: HashMap<KeyId, Arc<OpenedFile>>,
    /// Public facts of keys that were opened once; they outlive a lock.
    facts: HashMap<KeyId, Facts>,
    hints: HashMap<KeyId, Hint>,
}

struct Held {
    keyring: Arc<OpenKeyring>,
    grants: Grants,
}

/// What was opened for one request.
#[derive(Default)]
struct Request {
    repository: Option<ForRequest>,
    root: Option<ForRequest>,
    root_keys: HashMap<KeyId, Arc<OpenedFile>>,
}

struct ForRequest {
    keyring: Arc<OpenKeyring>,
    grade: u32,
}

struct OpenedFile {
    key: Arc<Opened>,
    stamp: Stamp,
}

#[derive(Clone)]
struct Facts {
    stamp: Stamp,
    role: String,
    gun: Option<String>,
    public: PublicKey,
}

/// What is held and what is known of the keyrings, without asking anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringStatus {
    /// `keyring.age` is there.
    pub repository: bool,
    /// `root.age` is there.
    pub root: bool,
    /// Both passphrases are known to be equal.
    pub same_passphrase: bool,
    /// For whom the repository keyring is held, until when.
    pub held: Vec<(Scope, SystemTime)>,
}

impl FileStore {
    /// The store in `home`, which need not exist yet. Finishes or undoes what a killed run left;
    /// the caller holds the agent's lock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            layout: Layout::open(home)?,
            clock: system_clock(),
            hold: DEFAULT_HOLD,
            throttle: Throttle::default(),
            held: None,
            requests: HashMap::new(),
            opened: HashMap::new(),
            facts: HashMap::new(),
            hints: HashMap::new(),
        })
    }

    /// The same store, holding secrets that were typed for a request for `hold`.
    #[must_use]
    pub fn holding(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Asks for the repository keyring's passphrase and holds the keyring for `time`; until when.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when there is no keyring; otherwise as [`KeyStore::sign`].
    pub fn unlock(
        &mut self,
        time: Duration,
        scope: Scope,
        presence: &mut dyn Presence,
    ) -> Result<SystemTime, StoreError> {
        if !self.layout.has(Ring::Repository) && self.layout.key_files()?.ids.is_empty() {
            return Err(StoreError::Unsupported(
                "there is no keyring to unlock; it is made with the first key of the file store"
                    .to_owned(),
            ));
        }
        let (keyring, _) = self.ask_keyring(Ring::Repository, presence)?;
        let now = (self.clock)();
        let held = self.held.get_or_insert_with(|| Held {
            keyring: keyring.clone(),
            grants: Grants::default(),
        });
        held.keyring = keyring;
        Ok(held.grants.set(now, scope, time))
    }

    /// Opens a keyring, as a person confirms something with its passphrase.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::sign`].
    pub fn confirm(&mut self, ring: Ring, presence: &mut dyn Presence) -> Result<(), StoreError> {
        self.keyring(ring, presence).map(drop)
    }

    /// What is held and known of the keyrings.
    #[must_use]
    pub fn status(&self) -> KeyringStatus {
        KeyringStatus {
            repository: self.layout.has(Ring::Repository),
            root: self.layout.has(Ring::Root),
            same_passphrase: self.layout.same_passphrase(),
            held: self
                .held
                .as_ref()
                .map_or_else(Vec::new, |held| held.grants.list((self.clock)())),
        }
    }

    /// Asks for a keyring's passphrase and opens it; finishes a rotation that was interrupted.
    fn ask_keyring(
        &self,
        ring: Ring,
        presence: &mut dyn Presence,
    ) -> Result<(Arc<OpenKeyring>, crate::presence::Given), StoreError> {
        let file = self.layout.read_keyring(ring)?;
        let path = self.layout.keyring(ring);
        let (keyring, given) = ask::ask(
            presence,
            ask::plain(ring.secret_name()),
            false,
            &self.throttle,
            |secret| OpenKeyring::open(&path, &file, secret),
        )?;
        let keyring = self.finish_rotation(ring, keyring, &given.secret);
        Ok((Arc::new(keyring), given))
    }

    /// The keyring for this request: opened by it already, held, or asked for.
    fn keyring(
        &mut self,
        ring: Ring,
        presence: &mut dyn Presence,
    ) -> Result<Arc<OpenKeyring>, StoreError> {
        let now = (self.clock)();
        let request = presence.request();
        if let Some(open) = self
            .requests
            .get(&request)
            .and_then(|request| request.get(ring))
        {
            presence.accepted(&ring.secret_name(), open.grade);
            return Ok(open.keyring.clone());
        }
        if ring == Ring::Repository && presence.may_use_held() {
            let held = self.held.as_ref();
            if let Some(held) = held.filter(|held| held.grants.allows(now, presence.session())) {
                presence.accepted(&ring.secret_name(), 0);
                return Ok(held.keyring.clone());
            }
        }
        let (keyring, given) = self.ask_keyring(ring, presence)?;
        self.keep(ring, keyring.clone(), given.grade, presence);
        Ok(keyring)
    }

    /// Keeps an opened keyring for the request, and the repository's for its session.
    fn keep(
        &mut self,
        ring: Ring,
        keyring: Arc<OpenKeyring>,
        grade: u32,
        presence: &mut dyn Presence,
    ) {
        // The time counts from the answer, not from when the question was put.
        let now = (self.clock)();
        if let (Ring::Repository, Some(session), true) =
            (ring, presence.session(), presence.may_use_held())
        {
            let held = self.held.get_or_insert_with(|| Held {
                keyring: keyring.clone(),
                grants: Grants::default(),
            });
            held.keyring = keyring.clone();
            held.grants.extend(now, Scope::Session(session), self.hold);
        }
        let request = self.requests.entry(presence.request()).or_default();
        *request.slot(ring) = Some(ForRequest { keyring, grade });
    }

    /// The keyring that a new key of this kind is encrypted to; both are made with the first key.
    fn keyring_for_new(
        &mut self,
        ring: Ring,
        presence: &mut dyn Presence,
    ) -> Result<Arc<OpenKeyring>, StoreError> {
        let missing: Vec<Ring> = [Ring::Repository, Ring::Root]
            .into_iter()
            .filter(|ring| !self.layout.has(*ring))
            .collect();
        match missing[..] {
            [] => {}
            [first, ..] if !self.layout.key_files()?.ids.is_empty() => {
                let path = self.layout.keyring(first);
                return Err(StoreError::KeyringMissing { path });
            }
            [only] => {
                let given = ask::ask_new(presence, ask::plain(only.secret_name()))?;
                let keyring = OpenKeyring::generate();
                self.layout
                    .add_keyring(only, &keyring.seal(only, &given.secret)?)?;
                self.keep(only, Arc::new(keyring), given.grade, presence);
            }
            _ => self.make_keyrings(presence)?,
        }
        self.keyring(ring, presence)
    }

    fn make_keyrings(&mut self, presence: &mut dyn Presence) -> Result<(), StoreError> {
        let for_repository = ask::ask_new(presence, ask::plain(Ring::Repository.secret_name()))?;
        let for_root = ask::ask_new(presence, ask::plain(Ring::Root.secret_name()))?;
        let (repository, root) = (OpenKeyring::generate(), OpenKeyring::generate());
        self.layout.add_keyrings(
            &repository.seal(Ring::Repository, &for_repository.secret)?,
            &root.seal(Ring::Root, &for_root.secret)?,
        )?;
        self.layout
            .mark_same_passphrase(for_repository.secret.same_as(&for_root.secret));
        self.keep(
            Ring::Repository,
            Arc::new(repository),
            for_repository.grade,
            presence,
        );
        self.keep(Ring::Root, Arc::new(root), for_root.grade, presence);
        Ok(())
    }

    /// The key, opened, by the keyring that it turns out to be encrypted to.
    fn unlocked(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<Arc<OpenedFile>, StoreError> {
        let stamp = self.layout.stamp(id)?;
        let known = self.facts.get(id).filter(|facts| facts.stamp == stamp);
        let first = match (known, self.hints.get(id)) {
            (Some(facts), _) => Ring::of_role(&facts.role),
            (None, Some(hint)) => Ring::of_role(&hint.role),
            (None, None) => Ring::Repository,
        };
        for ring in [first, first.other()] {
            // Without a keyring of that kind nothing can be encrypted to it.
            if !self.layout.has(ring) && self.layout.has(ring.other()) {
                continue;
            }
            let keyring = self.keyring(ring, presence)?;
            if let Some(key) = self.cached(ring, id, presence.request())
                && key.stamp == stamp
            {
                return Ok(key);
            }
            if let Some(key) = self.open_key(ring, &keyring, id)? {
                let key = Arc::new(OpenedFile {
                    key: Arc::new(key),
                    stamp,
                });
                self.remember(ring, id, &key, presence.request());
                return Ok(key);
            }
        }
        Err(StoreError::Damaged {
            path: self.layout.key(id),
            why: "it is encrypted to no keyring of this home".to_owned(),
        })
    }

    fn cached(&self, ring: Ring, id: &KeyId, request: RequestId) -> Option<Arc<OpenedFile>> {
        match ring {
            Ring::Repository => self.opened.get(id).cloned(),
            Ring::Root => self.requests.get(&request)?.root_keys.get(id).cloned(),
        }
    }

    fn remember(&mut self, ring: Ring, id: &KeyId, key: &Arc<OpenedFile>, request: RequestId) {
        self.facts.insert(
            *id,
            Facts {
                stamp: key.stamp,
                role: key.key.role.clone(),
                gun: key.key.gun.clone(),
                public: key.key.public.clone(),
            },
        );
        match ring {
            Ring::Repository => self.opened.insert(*id, key.clone()),
            Ring::Root => self
                .requests
                .entry(request)
                .or_default()
                .root_keys
                .insert(*id, key.clone()),
        };
    }

    /// Opens a key file; `None` when it is encrypted to another keyring.
    fn open_key(
        &self,
        ring: Ring,
        keyring: &OpenKeyring,
        id: &KeyId,
    ) -> Result<Option<Opened>, StoreError> {
        let path = self.layout.key(id);
        let file = self.layout.read_key(id)?;
        let damaged = |why: &str| StoreError::Damaged {
            path: path.clone(),
            why: why.to_owned(),
        };
        let plain = match keyring.decrypt(&file, false) {
            Decrypted::Plain(plain) => plain,
            Decrypted::NotOurs => return Ok(None),
            Decrypted::Damaged(why) => return Err(damaged(&why)),
        };
        let pem = KeyFile::parse(&plain).map_err(|error| file_error(&path, error))?;
        let role = pem
            .role
            .clone()
            .ok_or_else(|| damaged("the key in it names no role"))?;
        if Ring::of_role(&role) != ring {
            return Err(damaged(&format!(
                "the key in it has the role {role} but is encrypted to {}",
                ring.file_name()
            )));
        }
        let key = pem.open(None).map_err(|error| file_error(&path, error))?;
        KeyFile::check_id(&key, id).map_err(|found| StoreError::WrongId {
            path: path.clone(),
            found,
        })?;
        Ok(Some(Opened::new(&key, role, pem.gun)))
    }

    fn stored(&self, id: &KeyId, facts: Option<&Facts>) -> StoredKey {
        StoredKey {
            id: *id,
            role: facts.map(|facts| facts.role.clone()),
            gun: facts.and_then(|facts| facts.gun.clone()),
            public: facts.map(|facts| facts.public.clone()),
            path: self.layout.key(id),
            encrypted: true,
            problem: None,
        }
    }

    /// Writes a key that is not here yet.
    fn add(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        keyring: &OpenKeyring,
        request: RequestId,
    ) -> Result<StoredKey, StoreError> {
        let id = key.id();
        let plain = write_plain(key, &new.role, new.gun.as_deref());
        self.layout
            .add_key(&id, &keyring.encrypt(plain.as_bytes()))?;
        // What was written is read: gun is dropped for roles that have none.
        let gun = KeyFile::parse(plain.as_bytes())
            .ok()
            .and_then(|file| file.gun);
        let opened = Arc::new(OpenedFile {
            key: Arc::new(Opened::new(key, new.role.clone(), gun)),
            stamp: self.layout.stamp(&id)?,
        });
        self.remember(Ring::of_role(&new.role), &id, &opened, request);
        Ok(self.stored(&id, self.facts.get(&id)))
    }

    /// Wipes opened repository keys when nobody may use them any more.
    fn tidy(&mut self) {
        let in_use = self.held.is_some()
            || self
                .requests
                .values()
                .any(|request| request.repository.is_some());
        if !in_use {
            self.opened.clear();
        }
    }
}

impl Request {
    fn get(&self, ring: Ring) -> Option<&ForRequest> {
        match ring {
            Ring::Repository => self.repository.as_ref(),
            Ring::Root => self.root.as_ref(),
        }
    }

    fn slot(&mut self, ring: Ring) -> &mut Option<ForRequest> {
        match ring {
            Ring::Repository => &mut self.repository,
            Ring::Root => &mut self.root,
        }
    }
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl KeyStore for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn list(&mut self) -> Result<Listing, StoreError> {
        let files = self.layout.key_files()?;
        let mut listing = Listing {
            keys: Vec::new(),
            problems: files.others,
        };
        for id in &files.ids {
            let facts = match (self.layout.stamp(id), self.facts.get(id)) {
                (Ok(stamp), Some(facts)) if facts.stamp == stamp => Some(facts),
                _ => None,
            };
            listing.keys.push(self.stored(id, facts));
        }
        for ring in [Ring::Repository, Ring::Root] {
            if !files.ids.is_empty() && !self.layout.has(ring) {
                let missing = StoreError::KeyringMissing {
                    path: self.layout.keyring(ring),
                };
                listing.problems.push(missing.to_string());
            }
        }
        Ok(listing)
    }

    fn sign(
        &mut self,
        id: &KeyId,
        purpose: Purpose,
        message: &[u8],
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError> {
        self.unlocked(id, presence)?.key.sign(id, purpose, message)
    }

    fn signer(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<Option<Arc<dyn Signs>>, StoreError> {
        let key = Arc::clone(&self.unlocked(id, presence)?.key);
        Ok(Some(key))
    }

    fn open(&mut self, id: &KeyId, presence: &mut dyn Presence) -> Result<StoredKey, StoreError> {
        self.unlocked(id, presence)?;
        Ok(self.stored(id, self.facts.get(id)))
    }

    fn generate(
        &mut self,
        algorithm: Algorithm,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        let keyring = self.keyring_for_new(Ring::of_role(&new.role), presence)?;
        let key = PrivateKey::generate(algorithm)
            .map_err(|error| StoreError::Unsupported(error.to_string()))?;
        self.add(&key, new, &keyring, presence.request())
    }

    fn import(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        let id = key.id();
        match self.layout.stamp(&id) {
            Ok(_) => {
                let here = self.open(&id, presence)?;
                return here.unless_other(new);
            }
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let keyring = self.keyring_for_new(Ring::of_role(&new.role), presence)?;
        self.add(key, new, &keyring, presence.request())
    }

    fn export(
        &mut self,
        id: &KeyId,
        passphrase: &Secret,
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError> {
        let key = self.unlocked(id, presence)?;
        export(&key.key, passphrase)
    }

    fn remove(&mut self, id: &KeyId) -> Result<(), StoreError> {
        self.layout.remove_key(id)?;
        self.opened.remove(id);
        self.facts.remove(id);
        self.hints.remove(id);
        for request in self.requests.values_mut() {
            request.root_keys.remove(id);
        }
        Ok(())
    }

    fn change_passphrase(
        &mut self,
        _id: &KeyId,
        _presence: &mut dyn Presence,
    ) -> Result<(), StoreError> {
        Err(StoreError::Unsupported(
            "keys of the file store have no passphrase of their own; \
             `signet keyring passphrase` changes the one that opens them"
                .to_owned(),
        ))
    }

    fn hint(&mut self, id: &KeyId, hint: Hint) {
        self.hints.insert(*id, hint);
    }

    fn expire(&mut self) -> Option<Duration> {
        let now = (self.clock)();
        if self
            .held
            .as_mut()
            .is_some_and(|held| !held.grants.expire(now))
        {
            self.held = None;
            self.tidy();
        }
        self.held.as_ref().and_then(|held| held.grants.next(now))
    }

    fn end_request(&mut self, request: RequestId) {
        if self.requests.remove(&request).is_some() {
            self.tidy();
        }
    }

    fn lock(&mut self) {
        self.held = None;
        self.requests.clear();
        self.opened.clear();
    }
}

#[cfg(test)]
mod tests;
