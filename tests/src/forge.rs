//! A trust collection whose every key the test holds, and so can make say anything.
//!
//! Real servers publish what is right. What a hostile or broken one would say (an old base, an
//! ended timestamp, another lineage, a threshold of two) is made here, by the same library that
//! the agent reads it with, and properly signed: what is refused is refused for what it says.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use signet_trust::base::BaseDocuments;
use signet_trust::cert::template;
use signet_trust::document::{
    Body, Delegation, Delegations, FileMeta, RoleKeys, Root, Snapshot, Target, Targets, Timestamp,
    to_wire,
};
use signet_trust::keyfile::write_plain;
use signet_trust::time::{Expiry, UnixTime, lifetime};
use signet_trust::{Algorithm, Gun, KeyId, PrivateKey, PublicKey, RoleName, Signature};

use crate::lab::command::Run as _;
use crate::{Home, Output};

/// Now, in seconds.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_secs()).expect("long before the end of time")
}

/// The keys of a collection.
#[derive(Debug)]
pub struct Forge {
    gun: Gun,
    keys: BTreeMap<RoleName, PrivateKey>,
    certificate: PublicKey,
    made: UnixTime,
}

/// What a server has published at one moment.
#[derive(Clone, Debug)]
pub struct Edition {
    /// The chain, as signed.
    pub roots: Vec<Vec<u8>>,
    /// `targets` and delegations.
    pub targets: BTreeMap<RoleName, Targets>,
    /// Version of the snapshot.
    pub snapshot: u32,
    /// Version of the timestamp.
    pub timestamp: u32,
    /// When the timestamp ends.
    pub timestamp_expires: UnixTime,
    /// When the snapshot ends.
    pub snapshot_expires: UnixTime,
}

impl Edition {
    /// `targets`.
    ///
    /// # Panics
    /// When somebody removed it.
    #[must_use]
    pub fn top(&self) -> &Targets {
        &self.targets[&RoleName::Targets]
    }
}

impl Forge {
    /// New keys for a collection of this name.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn new(gun: &str) -> Self {
        let gun: Gun = gun.parse().expect("a good name");
        let make = || PrivateKey::generate(Algorithm::P256).expect("there is randomness");
        let roles = [
            RoleName::Root,
            RoleName::Targets,
            RoleName::Snapshot,
            RoleName::Timestamp,
        ];
        let keys: BTreeMap<_, _> = roles.into_iter().map(|role| (role, make())).collect();
        let certificate = certificate(&gun, &keys[&RoleName::Root]);
        Self {
            gun,
            keys,
            certificate,
            made: now(),
        }
    }

    /// Another collection of the same name, made by somebody with other keys but the same one for
    /// `targets`.
    #[must_use]
    pub fn made_again(&self) -> Self {
        let mut again = Self::new(self.gun.as_str());
        again.take_key(self, &RoleName::Targets);
        again
    }

    /// Has the key that another collection has for a role, as a repository whose owner copied it.
    ///
    /// # Panics
    /// When the other one has none.
    pub fn take_key(&mut self, other: &Self, role: &RoleName) {
        let key = other.key(role);
        let material = zeroize::Zeroizing::new(key.expose_material().to_vec());
        let copy = PrivateKey::from_material(key.algorithm(), material);
        self.keys.insert(role.clone(), copy.expect("it is a key"));
    }

    /// Its name.
    #[must_use]
    pub fn gun(&self) -> &str {
        self.gun.as_str()
    }

    /// A private key; delegations get one when they are first asked for.
    ///
    /// # Panics
    /// For a delegation without one.
    #[must_use]
    pub fn key(&self, role: &RoleName) -> &PrivateKey {
        &self.keys[role]
    }

    /// Makes a key for a delegation.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn add_signer(&mut self, role: &RoleName) {
        let key = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
        self.keys.insert(role.clone(), key);
    }

    /// A key's ID as the documents list it: for root, the certificate's.
    #[must_use]
    pub fn key_id(&self, role: &RoleName) -> KeyId {
        match role {
            RoleName::Root => self.certificate.id(),
            _ => self.key(role).id(),
        }
    }

    /// A certificate for this collection.
    ///
    /// # Panics
    /// When the key cannot sign one.
    #[must_use]
    pub fn certificate_of(&self, key: &PrivateKey) -> PublicKey {
        certificate(&self.gun, key)
    }

    /// A root that lists each key for its role; the same one whenever it is asked for.
    #[must_use]
    pub fn root(&self, version: u32) -> Root {
        let base = |role: &&RoleName| !matches!(role, RoleName::Delegation(_));
        let listed = |role: &RoleName| match role {
            RoleName::Root => self.certificate.clone(),
            _ => self.key(role).public().clone(),
        };
        let roles = || self.keys.keys().filter(base);
        Root {
            consistent_snapshot: false,
            expires: Expiry::at(self.made + lifetime::ROOT),
            keys: roles()
                .map(|role| (self.key_id(role), listed(role)))
                .collect(),
            roles: roles()
                .map(|role| {
                    let key_ids = vec![self.key_id(role)];
                    let threshold = 1;
                    (role.clone(), RoleKeys { key_ids, threshold })
                })
                .collect(),
            version,
        }
    }

    /// A first edition: root 1, everything else this version, no tags.
    #[must_use]
    pub fn edition(&self, version: u32) -> Edition {
        let targets = Targets::empty(version, now());
        Edition {
            roots: vec![self.sign(&RoleName::Root, &self.root(1))],
            targets: BTreeMap::from([(RoleName::Targets, targets)]),
            snapshot: version,
            timestamp: version,
            timestamp_expires: now() + 14 * 24 * 60 * 60,
            snapshot_expires: now() + lifetime::SNAPSHOT,
        }
    }

    /// Wire bytes of a document, signed by its role's key.
    #[must_use]
    pub fn sign(&self, role: &RoleName, document: &impl Body) -> Vec<u8> {
        Self::sign_by(document, &[(self.key_id(role), self.key(role))])
    }

    /// As [`Forge::sign`], by these keys under these IDs.
    ///
    /// # Panics
    /// When a key does not sign.
    #[must_use]
    pub fn sign_by(document: &impl Body, keys: &[(KeyId, &PrivateKey)]) -> Vec<u8> {
        let canonical = document.canonical();
        let signatures: Vec<Signature> = keys
            .iter()
            .map(|(key_id, key)| Signature {
                key_id: *key_id,
                method: key.public().method(),
                bytes: key.sign(&canonical).expect("it is a key"),
            })
            .collect();
        to_wire(&canonical, &signatures)
    }

    /// Everything of an edition, signed, as a client sends it.
    #[must_use]
    pub fn documents(&self, edition: &Edition) -> BaseDocuments {
        let targets = edition
            .targets
            .iter()
            .map(|(role, document)| (role.clone(), self.sign(role, document)))
            .collect();
        self.documents_of(edition, targets)
    }

    /// As [`Forge::documents`], with these wire bytes of `targets` and delegations.
    #[must_use]
    pub fn documents_of(
        &self,
        edition: &Edition,
        targets: BTreeMap<RoleName, Vec<u8>>,
    ) -> BaseDocuments {
        let newest = edition.roots.last().into_iter();
        let mut meta: BTreeMap<RoleName, FileMeta> = newest
            .map(|root| (RoleName::Root, FileMeta::of(root)))
            .collect();
        meta.extend(
            targets
                .iter()
                .map(|(role, wire)| (role.clone(), FileMeta::of(wire))),
        );
        let snapshot = Snapshot {
            expires: Expiry::at(edition.snapshot_expires),
            meta,
            version: edition.snapshot,
        };
        let snapshot = self.sign(&RoleName::Snapshot, &snapshot);
        let timestamp = Timestamp {
            expires: Expiry::at(edition.timestamp_expires),
            meta: BTreeMap::from([(RoleName::Snapshot, FileMeta::of(&snapshot))]),
            version: edition.timestamp,
        };
        BaseDocuments {
            roots: edition.roots.clone(),
            timestamp: Some(self.sign(&RoleName::Timestamp, &timestamp)),
            snapshot: Some(snapshot),
            targets,
            unlisted: BTreeMap::new(),
        }
    }

    /// Has an agent take in the keys of these roles, as a user would.
    ///
    /// # Panics
    /// When it does not.
    pub fn import(&self, home: &Home, roles: &[RoleName]) {
        for role in roles {
            self.try_import(home, role).ok();
        }
    }

    /// As [`Forge::import`], for one key and without judging.
    ///
    /// # Panics
    /// When the home cannot be written.
    #[must_use]
    pub fn try_import(&self, home: &Home, role: &RoleName) -> Output {
        let key = self.key(role);
        let name = match role {
            RoleName::Delegation(_) => role.as_str().rsplit('/').next().unwrap_or_default(),
            _ => role.as_str(),
        };
        let gun = (!matches!(role, RoleName::Root)).then(|| self.gun.as_str());
        let file = home.user_home().join(format!("{}.pem", key.id()));
        let pem = write_plain(key, name, gun);
        fs::write(&file, pem.as_bytes()).expect("the home is ours");
        let done = home
            .unattended()
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["key", "import", "--store", "file"])
            .arg(&file)
            .run();
        fs::remove_file(&file).expect("the home is ours");
        done
    }
}

/// The next targets file: one version up, with one more tag.
#[must_use]
pub fn with_tag(targets: &Targets, version: u32, tag: &str) -> Targets {
    let mut next = targets.clone();
    next.version = version;
    next.expires = Expiry::at(now() + lifetime::TARGETS);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(tag.as_bytes());
    next.targets
        .insert(tag.to_owned(), Target::of_manifest(digest.into(), 528));
    next
}

/// A targets file that delegates everything to each of these roles, by their keys.
#[must_use]
pub fn with_delegations(targets: &Targets, roles: &[(&RoleName, &PrivateKey)]) -> Targets {
    let mut next = targets.clone();
    next.delegations = Delegations {
        keys: roles
            .iter()
            .map(|(_, key)| (key.id(), key.public().clone()))
            .collect(),
        roles: Some(
            roles
                .iter()
                .map(|(role, key)| Delegation {
                    key_ids: Some(vec![key.id()]),
                    name: (*role).clone(),
                    paths: vec![String::new()],
                    threshold: 1,
                })
                .collect(),
        ),
    };
    next
}

fn certificate(gun: &Gun, key: &PrivateKey) -> PublicKey {
    // A minute ago: whoever reads it may have a clock that is a little behind.
    let template = template(gun, key.public(), [7; 16], now() - 60).expect("the key can be in one");
    let signature = key.sign_certificate(&template.to_be_signed);
    template
        .finish(key.public(), &signature.expect("it is a key"))
        .expect("the signature holds")
}
