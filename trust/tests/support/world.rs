//! A trust server in memory, the keys of everybody, and a clock.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use signet_trust::{
    Algorithm, Gun, KeyId, PrivateKey, PublicKey, RoleName, Signature, cert,
    document::{Body, FileMeta, Root, Snapshot, Target, Targets, Timestamp, to_wire},
    edit::{Edit, InitVersions, NewCollection, SigningRequest},
    pin::Pin,
    time::{Expiry, UnixTime},
    update::{Cached, Fetched, File, Options, Step, Trusted, Update, UpdateError},
    verify::Raw,
};

pub(crate) const NOW: UnixTime = 1_795_219_200;
pub(crate) const DAY: UnixTime = 24 * 60 * 60;

/// Private keys by the ID under which a document lists them, and by their canonical ID.
#[derive(Default)]
pub(crate) struct Ring {
    keys: BTreeMap<KeyId, PrivateKey>,
    listed: BTreeMap<KeyId, KeyId>,
}

impl Ring {
    /// A new bare key.
    pub(crate) fn bare(&mut self) -> PublicKey {
        self.bare_of(Algorithm::P256)
    }

    pub(crate) fn bare_of(&mut self, algorithm: Algorithm) -> PublicKey {
        let key = PrivateKey::generate(algorithm).unwrap();
        let public = key.public().clone();
        self.listed.insert(key.id(), key.id());
        self.keys.insert(key.id(), key);
        public
    }

    /// A new key in a certificate for `gun`, made at `now`.
    pub(crate) fn certified(&mut self, gun: &Gun, now: UnixTime) -> PublicKey {
        let bare = self.bare();
        let template = cert::template(gun, &bare, [7; 16], now).unwrap();
        let signature = self.keys[&bare.id()]
            .sign_certificate(&template.to_be_signed)
            .unwrap();
        let listed = template.finish(&bare, &signature).unwrap();
        self.listed.insert(listed.id(), bare.id());
        listed
    }

    pub(crate) fn sign(&self, listed: &KeyId, message: &[u8]) -> Signature {
        let key = &self.keys[&self.listed[listed]];
        Signature {
            key_id: *listed,
            method: key.public().method(),
            bytes: key.sign(message).unwrap(),
        }
    }

    /// A document signed by these keys, as it goes over the wire.
    pub(crate) fn wire<T: Body>(&self, document: &T, by: &[KeyId]) -> Vec<u8> {
        let canonical = document.canonical();
        let signatures: Vec<_> = by.iter().map(|id| self.sign(id, &canonical)).collect();
        to_wire(&canonical, &signatures)
    }

    pub(crate) fn answer(&self, request: &SigningRequest) -> Vec<Signature> {
        request
            .key_ids
            .iter()
            .map(|id| self.sign(id, &request.payload))
            .collect()
    }

    pub(crate) fn holds(&self, canonical: &KeyId) -> bool {
        self.keys.contains_key(canonical)
    }

    pub(crate) fn forget(&mut self, canonical: &KeyId) {
        self.keys.remove(canonical);
    }
}

/// One collection on one server.
pub(crate) struct World {
    pub(crate) gun: Gun,
    pub(crate) now: UnixTime,
    /// The publisher's keys.
    pub(crate) ours: Ring,
    /// Timestamp, and snapshot unless it is ours.
    pub(crate) theirs: Ring,
    pub(crate) current: BTreeMap<RoleName, Vec<u8>>,
    pub(crate) by_hash: BTreeMap<(RoleName, String), Vec<u8>>,
    pub(crate) roots: BTreeMap<u32, Vec<u8>>,
    /// Names of the files that were fetched.
    pub(crate) fetched: Vec<String>,
    /// No answer to anything.
    pub(crate) is_down: bool,
}

impl World {
    /// A published collection with a snapshot of the server's and no tags.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty();
        let keys = world.new_keys(false);
        world.publish_first(keys);
        world
    }

    /// As [`World::new`], with a snapshot key of ours.
    pub(crate) fn with_our_snapshot() -> Self {
        let mut world = Self::empty();
        let keys = world.new_keys(true);
        world.publish_first(keys);
        world
    }

    pub(crate) fn empty() -> Self {
        Self {
            gun: "docker.io/library/world".parse().unwrap(),
            now: NOW,
            ours: Ring::default(),
            theirs: Ring::default(),
            current: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            roots: BTreeMap::new(),
            fetched: Vec::new(),
            is_down: false,
        }
    }

    pub(crate) fn new_keys(&mut self, snapshot_is_ours: bool) -> NewCollection {
        NewCollection {
            root: self.ours.certified(&self.gun, self.now),
            targets: self.ours.bare(),
            snapshot: match snapshot_is_ours {
                true => self.ours.bare(),
                false => self.theirs.bare_of(Algorithm::Ed25519),
            },
            timestamp: self.theirs.bare_of(Algorithm::Ed25519),
            snapshot_is_ours,
        }
    }

    fn publish_first(&mut self, keys: NewCollection) {
        let edit = Edit::init(self.gun.clone(), keys, InitVersions::default(), self.now).unwrap();
        self.publish(edit);
    }

    /// Signs an edit with our keys, and uploads it.
    pub(crate) fn publish(&mut self, edit: Edit) {
        let upload = self.sign(edit);
        self.upload(upload);
    }

    pub(crate) fn sign(&self, mut edit: Edit) -> BTreeMap<RoleName, Vec<u8>> {
        let held = |id: &KeyId| self.ours.holds(id);
        for request in edit.requests(&held).unwrap() {
            edit.sign(&request.role, self.ours.answer(&request))
                .unwrap();
        }
        if let Some(request) = edit.snapshot_request(&held, None).unwrap() {
            edit.sign(&RoleName::Snapshot, self.ours.answer(&request))
                .unwrap();
        }
        edit.finish()
    }

    /// What a server does with an upload that is in order.
    pub(crate) fn upload(&mut self, upload: BTreeMap<RoleName, Vec<u8>>) {
        let roles: Vec<RoleName> = upload.keys().cloned().collect();
        for (role, wire) in upload {
            self.store(&role, wire);
        }
        if !roles.contains(&RoleName::Snapshot) {
            self.refresh_snapshot(&roles);
        }
        self.refresh_timestamp();
    }

    /// A new snapshot by the server, with new entries for these roles.
    pub(crate) fn refresh_snapshot(&mut self, roles: &[RoleName]) {
        let old = self
            .current
            .get(&RoleName::Snapshot)
            .map(|wire| parse::<Snapshot>(wire));
        let mut meta = old.as_ref().map(|old| old.meta.clone()).unwrap_or_default();
        for role in roles {
            meta.insert(role.clone(), FileMeta::of(&self.current[role]));
        }
        let snapshot = Snapshot {
            expires: Expiry::at(self.now + 3 * 365 * DAY),
            meta,
            version: old.map_or(1, |old| old.version + 1),
        };
        self.put_snapshot(&snapshot);
    }

    /// Signs and stores a snapshot with the key that the root names, whoever holds it.
    pub(crate) fn put_snapshot(&mut self, snapshot: &Snapshot) {
        let ids = self.root().roles[&RoleName::Snapshot].key_ids.clone();
        let is_ours = self.ours.listed.contains_key(&ids[0]);
        let ring = if is_ours { &self.ours } else { &self.theirs };
        let wire = ring.wire(snapshot, &ids);
        self.store(&RoleName::Snapshot, wire);
    }

    pub(crate) fn refresh_timestamp(&mut self) {
        let old = self
            .current
            .get(&RoleName::Timestamp)
            .map(|wire| parse::<Timestamp>(wire));
        let meta = FileMeta::of(&self.current[&RoleName::Snapshot]);
        let timestamp = Timestamp {
            expires: Expiry::at(self.now + 14 * DAY),
            meta: BTreeMap::from([(RoleName::Snapshot, meta)]),
            version: old.map_or(1, |old| old.version + 1),
        };
        self.put_timestamp(&timestamp);
    }

    pub(crate) fn put_timestamp(&mut self, timestamp: &Timestamp) {
        let ids = self.root().roles[&RoleName::Timestamp].key_ids.clone();
        let wire = self.theirs.wire(timestamp, &ids);
        self.store(&RoleName::Timestamp, wire);
    }

    /// Stores a file as it is, under all its names.
    pub(crate) fn store(&mut self, role: &RoleName, wire: Vec<u8>) {
        let hash = hex::encode(Sha256::digest(&wire));
        self.by_hash.insert((role.clone(), hash), wire.clone());
        if *role == RoleName::Root {
            self.roots
                .insert(parse::<Root>(&wire).version, wire.clone());
        }
        self.current.insert(role.clone(), wire);
    }

    pub(crate) fn root(&self) -> Root {
        parse(&self.current[&RoleName::Root])
    }

    pub(crate) fn targets(&self, role: &RoleName) -> Targets {
        parse(&self.current[role])
    }

    /// Signs `targets` with our key, stores it, and renews snapshot and timestamp.
    pub(crate) fn put_targets(&mut self, targets: &Targets) {
        let ids = self.root().roles[&RoleName::Targets].key_ids.clone();
        let wire = self.ours.wire(targets, &ids);
        self.upload(BTreeMap::from([(RoleName::Targets, wire)]));
    }

    /// A root that follows the current one with another root key, signed by both.
    pub(crate) fn rotate_root(&mut self) {
        let old = self.root();
        let key = self.ours.certified(&self.gun, self.now);
        let mut new = Root {
            version: old.version + 1,
            ..old.clone()
        };
        let role = new.roles.get_mut(&RoleName::Root).unwrap();
        let mut by = role.key_ids.clone();
        by.push(key.id());
        role.key_ids = vec![key.id()];
        new.keys.insert(key.id(), key);
        let wire = self.ours.wire(&new, &by);
        self.upload(BTreeMap::from([(RoleName::Root, wire)]));
    }

    /// The cache of a client that has just read everything.
    pub(crate) fn cache(&self) -> Cached {
        let mut cached = Cached {
            root: self.current.get(&RoleName::Root).cloned(),
            timestamp: self.current.get(&RoleName::Timestamp).cloned(),
            snapshot: self.current.get(&RoleName::Snapshot).cloned(),
            targets: BTreeMap::new(),
        };
        for (role, wire) in &self.current {
            if role.is_targets_like() {
                cached.targets.insert(role.clone(), wire.clone());
            }
        }
        cached
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            pin: Pin::FirstUse,
            now: self.now,
            for_write: false,
            chain_from: None,
        }
    }

    /// A whole update from this cache.
    pub(crate) fn update(&mut self, cached: Cached) -> Result<Trusted, UpdateError> {
        let options = self.options();
        self.update_with(cached, options)
    }

    pub(crate) fn update_with(
        &mut self,
        cached: Cached,
        options: Options,
    ) -> Result<Trusted, UpdateError> {
        self.fetched.clear();
        let mut update = Update::new(self.gun.clone(), cached, options)?;
        while let Step::Fetch { file, limit } = update.step() {
            assert!(self.fetched.len() < 5_000, "the update does not end");
            let (name, found) = match &file {
                File::Current(role) => (format!("{role}.json"), self.current.get(role)),
                File::ByHash(role, hash) => (
                    format!("{role}.{hash}.json"),
                    self.by_hash.get(&(role.clone(), hash.clone())),
                ),
                File::Version(version, role) => {
                    assert_eq!(*role, RoleName::Root);
                    (format!("{version}.root.json"), self.roots.get(version))
                }
            };
            self.fetched.push(name);
            let answer = match found {
                _ if self.is_down => Fetched::Unreachable,
                Some(wire) if wire.len() <= limit => Fetched::Bytes(wire.clone()),
                // The caller stops reading at the limit: what it has is no file.
                Some(wire) => Fetched::Bytes(wire[..limit].to_vec()),
                None => Fetched::Missing,
            };
            update.receive(answer)?;
        }
        Ok(update.finish())
    }

    /// What a client without a cache sees.
    pub(crate) fn fresh(&mut self) -> Trusted {
        self.update(Cached::default()).unwrap()
    }

    /// A delegation below `targets` with new keys of ours.
    pub(crate) fn delegate(&mut self, name: &str, paths: &[&str]) -> PublicKey {
        let key = self.ours.bare();
        let mut targets = self.targets(&RoleName::Targets);
        targets.version += 1;
        let delegations = &mut targets.delegations;
        delegations.keys.insert(key.id(), key.clone());
        delegations
            .roles
            .get_or_insert_default()
            .push(signet_trust::document::Delegation {
                key_ids: Some(vec![key.id()]),
                name: name.parse().unwrap(),
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                threshold: 1,
            });
        self.put_targets(&targets);
        key
    }
}

pub(crate) fn parse<T: Body>(wire: &[u8]) -> T {
    Raw::<T>::parse(wire.to_vec(), usize::MAX)
        .unwrap()
        .claimed()
        .clone()
}

pub(crate) fn target(byte: u8) -> Target {
    Target::of_manifest([byte; 32], 528)
}
