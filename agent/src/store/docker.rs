//! Docker's own key directory, `$DOCKER_CONFIG/trust/private`, read and written in place.
//!
//! docker and notary add, change and delete keys here while we run, so the directory is read anew
//! for each request and an opened key counts only for the bytes that it was opened from. Nothing is
//! converted, moved or rewritten that was not asked for: a key file is created (Go's bytes), given
//! another passphrase, or removed, and that is all. Every key has a passphrase of its own, asked
//! for by role, as docker does.
//!
//! Docker lists `*.key` in sub-directories and skips symbolic links, but loads only
//! `private/<keyid>.key`. What it would not load is not used here either; it is named as a problem,
//! with what to do about it. The format has no integrity check: a wrong passphrase and a damaged
//! file look alike, and the key ID, computed after every decryption, decides.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use signet_trust::{
    Algorithm, KeyId, PrivateKey, PublicKey,
    keyfile::{KeyFile, KeyFileError},
};
use zeroize::Zeroizing;

use super::{
    Hint, KeyStore, Listing, NewKey, Purpose, Signs, StoreError, StoredKey,
    ask::{self, Rejected},
    atomic::{self, Existing},
    hold::{Clock, DEFAULT_HOLD, Grants, Scope, system_clock},
    opened::{Opened, check_new, docker_file, export, file_error},
    throttle::Throttle,
};
use crate::{
    key::Secret,
    presence::{Presence, RequestId, SecretName, SecretRequest},
};

mod pack;
mod walk;

/// The limit of `signet_trust::keyfile` for one file.
const MAX_KEY: usize = 64 * 1024;

/// Docker's key directory.
pub struct DockerStore {
    private: PathBuf,
    clock: Clock,
    hold: Duration,
    throttle: Throttle,
    held: HashMap<KeyId, Held>,
    requests: HashMap<RequestId, HashMap<KeyId, ForRequest>>,
    /// Keys made for a request that has not got their passphrase yet: it asks by the key's ID, and
    /// comes again with the answer.
    unsaved: HashMap<RequestId, Opened>,
    /// Public halves of keys that were opened once. An ID is a digest, so they stay true.
    publics: HashMap<KeyId, PublicKey>,
    hints: HashMap<KeyId, Hint>,
}

struct Held {
    key: Arc<OpenedFile>,
    grants: Grants,
}

#[derive(Clone)]
struct ForRequest {
    key: Arc<OpenedFile>,
    /// 0 when the file is not encrypted.
    grade: u32,
}

struct OpenedFile {
    key: Arc<Opened>,
    /// SHA-256 of the file that it was read from.
    content: [u8; 32],
}

/// A key file as it lies there now.
struct Found {
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    file: KeyFile,
    content: [u8; 32],
}

impl DockerStore {
    /// The store in `docker_dir` (`$DOCKER_CONFIG`), which need not exist yet.
    #[must_use]
    pub fn open(docker_dir: &Path) -> Self {
        let private = docker_dir.join("trust").join("private");
        atomic::clean(&private);
        Self {
            private,
            clock: system_clock(),
            hold: DEFAULT_HOLD,
            throttle: Throttle::default(),
            held: HashMap::new(),
            requests: HashMap::new(),
            unsaved: HashMap::new(),
            publics: HashMap::new(),
            hints: HashMap::new(),
        }
    }

    /// The same store, holding keys that were opened for a request for `hold`.
    #[must_use]
    pub fn holding(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    fn path(&self, id: &KeyId) -> PathBuf {
        self.private.join(format!("{id}.key"))
    }

    fn find(&self, id: &KeyId) -> Result<Found, StoreError> {
        let path = self.path(id);
        let bytes = atomic::read(&path, MAX_KEY)?.ok_or(StoreError::NotFound(*id))?;
        let file = KeyFile::parse(&bytes).map_err(|error| file_error(&path, error))?;
        let content = Sha256::digest(&bytes[..]).into();
        Ok(Found {
            path,
            bytes,
            file,
            content,
        })
    }

    fn stored(&self, id: &KeyId, found: &Found) -> StoredKey {
        StoredKey {
            id: *id,
            role: found.file.role.clone(),
            gun: found.file.gun.clone(),
            public: self.publics.get(id).cloned(),
            path: found.path.clone(),
            encrypted: found.file.is_encrypted(),
            problem: None,
        }
    }

    /// The question for a key's passphrase; the role picks the variable that may answer it.
    fn question(&self, id: &KeyId, role: Option<&str>, gun: Option<&str>) -> SecretRequest {
        let hint = self.hints.get(id);
        let known = |field: fn(&Hint) -> &String| hint.map(field).cloned().unwrap_or_default();
        SecretRequest {
            role: role.map_or_else(|| known(|hint| &hint.role), str::to_owned),
            gun: gun.map_or_else(|| known(|hint| &hint.gun), str::to_owned),
            label: known(|hint| &hint.label),
            ..ask::plain(SecretName::Key(*id))
        }
    }

    /// Root keys are opened for one request; file and index need not agree to make it one.
    fn is_root(&self, id: &KeyId, role: &str) -> bool {
        role == "root" || self.hints.get(id).is_some_and(|hint| hint.role == "root")
    }

    /// The key, opened from the bytes that are there now.
    fn unlocked(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<Arc<OpenedFile>, StoreError> {
        // The bytes decide, and reading them is cheap; parsing waits until it is needed.
        let path = self.path(id);
        let bytes = atomic::read(&path, MAX_KEY)?.ok_or(StoreError::NotFound(*id))?;
        let content: [u8; 32] = Sha256::digest(&bytes[..]).into();
        let name = SecretName::Key(*id);
        let of_request = self
            .requests
            .get(&presence.request())
            .and_then(|keys| keys.get(id));
        if let Some(open) = of_request.filter(|open| open.key.content == content) {
            if open.grade > 0 {
                presence.accepted(&name, open.grade);
            }
            return Ok(open.key.clone());
        }
        if presence.may_use_held()
            && let Some(held) = self.held.get(id)
            && held.key.content == content
            && held.grants.allows((self.clock)(), presence.session())
        {
            presence.accepted(&name, 0);
            return Ok(held.key.clone());
        }
        let file = KeyFile::parse(&bytes).map_err(|error| file_error(&path, error))?;
        self.open_found(
            id,
            Found {
                path,
                bytes,
                file,
                content,
            },
            presence,
        )
    }

    /// Whether a key is held open.
    pub(crate) fn holds(&self) -> bool {
        let now = (self.clock)();
        self.held
            .values()
            .any(|held| !held.grants.list(now).is_empty())
    }

    /// Opens a file that was found, asking for its passphrase whatever is held.
    fn open_found(
        &mut self,
        id: &KeyId,
        found: Found,
        presence: &mut dyn Presence,
    ) -> Result<Arc<OpenedFile>, StoreError> {
        let checked = |key: PrivateKey| match KeyFile::check_id(&key, id) {
            Ok(()) => Ok(key),
            Err(other) => Err(StoreError::WrongId {
                path: found.path.clone(),
                found: other,
            }),
        };
        let (key, grade) = if found.file.is_encrypted() {
            let (role, gun) = (found.file.role.as_deref(), found.file.gun.as_deref());
            let question = self.question(id, role, gun);
            let (key, given) =
                ask::ask(
                    presence,
                    question,
                    true,
                    &self.throttle,
                    |secret| match found.file.open(Some(secret.expose())) {
                        Ok(key) => Ok(checked(key)?),
                        Err(KeyFileError::WrongPassphrase) => Err(Rejected::Wrong),
                        Err(error) => Err(file_error(&found.path, error).into()),
                    },
                )?;
            (key, given.grade)
        } else {
            let key = found
                .file
                .open(None)
                .map_err(|error| file_error(&found.path, error))?;
            (checked(key)?, 0)
        };
        let role = found.file.role.clone().unwrap_or_default();
        let opened = Opened::new(&key, role, found.file.gun.clone());
        Ok(self.keep(
            id,
            OpenedFile {
                key: Arc::new(opened),
                content: found.content,
            },
            grade,
            presence,
        ))
    }

    /// Keeps an opened key for its request and, if it is no root key, for its session.
    fn keep(
        &mut self,
        id: &KeyId,
        key: OpenedFile,
        grade: u32,
        presence: &mut dyn Presence,
    ) -> Arc<OpenedFile> {
        let key = Arc::new(key);
        self.publics.insert(*id, key.key.public.clone());
        if let Some(session) = presence.session()
            && grade > 0
            && presence.may_use_held()
            && !self.is_root(id, &key.key.role)
        {
            let now = (self.clock)();
            let held = self.held.entry(*id).or_insert_with(|| Held {
                key: key.clone(),
                grants: Grants::default(),
            });
            if held.key.content != key.content {
                // Who was granted the old file did not open this one.
                *held = Held {
                    key: key.clone(),
                    grants: Grants::default(),
                };
            }
            held.grants.extend(now, Scope::Session(session), self.hold);
        }
        let request = self.requests.entry(presence.request()).or_default();
        request.insert(
            *id,
            ForRequest {
                key: key.clone(),
                grade,
            },
        );
        key
    }

    /// Writes a key that is not here yet, under a passphrase that is asked for.
    fn add(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        let id = key.id();
        let question = self.question(&id, Some(&new.role), new.gun.as_deref());
        let given = ask::ask_new(presence, question)?;
        let what = ask::what(&SecretName::Key(id));
        let gun = new.gun.as_deref();
        let bytes = docker_file(key, &new.role, gun, &given.secret, &what)?;
        atomic::create_dir(&self.private)?;
        let path = self.path(&id);
        atomic::write(&path, &bytes, Existing::Keep)?;
        let file = KeyFile::parse(&bytes).map_err(|error| file_error(&path, error))?;
        let content = Sha256::digest(&bytes).into();
        let opened = Opened::new(key, new.role.clone(), file.gun.clone());
        self.keep(
            &id,
            OpenedFile {
                key: Arc::new(opened),
                content,
            },
            given.grade,
            presence,
        );
        Ok(self.stored(
            &id,
            &Found {
                path,
                bytes: Zeroizing::new(bytes),
                file,
                content,
            },
        ))
    }

    fn forget(&mut self, id: &KeyId) {
        self.held.remove(id);
        for request in self.requests.values_mut() {
            request.remove(id);
        }
    }
}

impl std::fmt::Debug for DockerStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerStore")
            .field("private", &self.private)
            .finish_non_exhaustive()
    }
}

impl KeyStore for DockerStore {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn list(&mut self) -> Result<Listing, StoreError> {
        let files = walk::walk(&self.private)?;
        let mut listing = Listing {
            keys: Vec::new(),
            problems: files.problems,
        };
        for id in files.ids {
            match self.find(&id) {
                Ok(found) => listing.keys.push(self.stored(&id, &found)),
                // Removed since we looked.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => listing.keys.push(StoredKey {
                    id,
                    role: None,
                    gun: None,
                    public: None,
                    path: self.path(&id),
                    encrypted: true,
                    problem: Some(problem(&error)),
                }),
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
        Ok(self.stored(id, &self.find(id)?))
    }

    fn generate(
        &mut self,
        algorithm: Algorithm,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        let request = presence.request();
        let begun = self
            .unsaved
            .remove(&request)
            .filter(|key| key.is(algorithm, new));
        let key = match begun {
            Some(begun) => begun.private()?,
            None => PrivateKey::generate(algorithm)
                .map_err(|error| StoreError::Unsupported(error.to_string()))?,
        };
        let added = self.add(&key, new, presence);
        if added.is_err() {
            let kept = Opened::new(&key, new.role.clone(), new.gun.clone());
            self.unsaved.insert(request, kept);
        }
        added
    }

    fn import(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        match self.find(&key.id()) {
            Ok(found) => self.stored(&key.id(), &found).unless_other(new),
            Err(StoreError::NotFound(_)) => self.add(key, new, presence),
            Err(error) => Err(error),
        }
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
        let path = self.path(id);
        match fs::symlink_metadata(&path) {
            Ok(_) => atomic::remove(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NotFound(*id));
            }
            Err(source) => {
                return Err(StoreError::Io {
                    what: "remove",
                    path,
                    source,
                });
            }
        }
        self.forget(id);
        self.publics.remove(id);
        self.hints.remove(id);
        Ok(())
    }

    fn change_passphrase(
        &mut self,
        id: &KeyId,
        presence: &mut dyn Presence,
    ) -> Result<(), StoreError> {
        let found = self.find(id)?;
        let blocks =
            KeyFile::parse_all(&found.bytes).map_err(|error| file_error(&found.path, error))?;
        if blocks.len() != 1 {
            return Err(StoreError::Unsupported(format!(
                "{} holds {} keys, of which docker uses the first; split it before changing a \
                 passphrase",
                found.path.display(),
                blocks.len()
            )));
        }
        let (path, content) = (found.path.clone(), found.content);
        let (role, gun) = (found.file.role.clone(), found.file.gun.clone());
        let question = self.question(id, role.as_deref(), gun.as_deref());
        let key = self.open_found(id, found, presence)?;
        let given = ask::ask_new(presence, question)?;
        let bytes = export(&key.key, &given.secret)?;
        let now = atomic::read(&path, MAX_KEY)?.ok_or(StoreError::NotFound(*id))?;
        if Sha256::digest(&now[..])[..] != content {
            return Err(StoreError::Changed { path });
        }
        atomic::write(&path, &bytes, Existing::Replace)?;
        self.forget(id);
        Ok(())
    }

    fn verbatim(&mut self, id: &KeyId) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.find(id)?;
        Ok(found.file.is_encrypted().then(|| found.bytes.to_vec()))
    }

    fn hint(&mut self, id: &KeyId, hint: Hint) {
        self.hints.insert(*id, hint);
    }

    fn expire(&mut self) -> Option<Duration> {
        let now = (self.clock)();
        self.held.retain(|_, held| held.grants.expire(now));
        self.held
            .values()
            .filter_map(|held| held.grants.next(now))
            .min()
    }

    fn end_request(&mut self, request: RequestId) {
        self.requests.remove(&request);
        self.unsaved.remove(&request);
    }

    fn lock(&mut self) {
        self.held.clear();
        self.requests.clear();
        self.unsaved.clear();
    }
}

/// An error and its causes in one line.
fn problem(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
