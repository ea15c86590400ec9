//! A trust server in memory, and the keys of everybody who publishes there.

use std::{collections::BTreeMap, sync::OnceLock};

use signet_trust::{
    Algorithm, Gun, KeyId, Method, PrivateKey, PublicKey, RoleName, Signature,
    base::{BaseDocuments, BaseError, Lineage, RecordedRoot, VerifiedBase},
    cert,
    document::{
        Body, Delegation, FileMeta, RoleKeys, Root, Snapshot, Target, Targets, Timestamp, to_wire,
    },
    guard::{History, Mark, Pass, Question, Refusal, Rule, State, check},
    payload::{Item, Payload},
    time::{Expiry, UnixTime, lifetime},
};

/// 2026-11-21.
pub(crate) const NOW: UnixTime = 1_795_219_200;
pub(crate) const DAY: UnixTime = 24 * 60 * 60;

pub(crate) fn gun() -> Gun {
    "docker.io/me/app".parse().unwrap()
}

pub(crate) fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

/// A key that is the same in every run: `n` tells them apart.
pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_material(Algorithm::Ed25519, vec![n; 32].into()).unwrap()
}

/// A root key with its certificate for a repository.
pub(crate) struct RootKey {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: PublicKey,
}

pub(crate) fn root_key(n: u8, gun: &Gun) -> RootKey {
    let key = PrivateKey::from_material(Algorithm::P256, vec![n; 32].into()).unwrap();
    let template = cert::template(gun, key.public(), [n; 16], NOW - DAY).unwrap();
    let signature = key.sign_certificate(&template.to_be_signed).unwrap();
    let certificate = template.finish(key.public(), &signature).unwrap();
    RootKey { key, certificate }
}

/// The keys that most tests need, made once.
pub(crate) struct Keys {
    pub(crate) root: RootKey,
    pub(crate) other_root: RootKey,
    pub(crate) targets: PrivateKey,
    pub(crate) snapshot: PrivateKey,
    pub(crate) timestamp: PrivateKey,
    pub(crate) alice: PrivateKey,
    pub(crate) mallory: PrivateKey,
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        root: root_key(1, &gun()),
        other_root: root_key(2, &gun()),
        targets: key(3),
        snapshot: key(4),
        timestamp: key(5),
        alice: key(6),
        mallory: key(7),
    })
}

pub(crate) fn signature(id: KeyId, key: &PrivateKey, message: &[u8]) -> Signature {
    let bytes = key.sign(message).unwrap();
    let method = match key.algorithm() {
        Algorithm::Ed25519 => Method::Eddsa,
        _ => Method::Ecdsa,
    };
    Signature {
        key_id: id,
        method,
        bytes,
    }
}

pub(crate) fn signed<T: Body>(document: &T, by: &[(KeyId, &PrivateKey)]) -> Vec<u8> {
    let canonical = document.canonical();
    let signatures: Vec<_> = by
        .iter()
        .map(|(id, key)| signature(*id, key, &canonical))
        .collect();
    to_wire(&canonical, &signatures)
}

/// A root that lists one key for each role.
pub(crate) fn root_document(version: u32, root: &PublicKey, targets: &PublicKey) -> Root {
    let keys = keys();
    let all = [
        (RoleName::Root, root),
        (RoleName::Targets, targets),
        (RoleName::Snapshot, keys.snapshot.public()),
        (RoleName::Timestamp, keys.timestamp.public()),
    ];
    Root {
        consistent_snapshot: false,
        expires: Expiry::at(NOW + lifetime::ROOT),
        keys: all
            .iter()
            .map(|(_, key)| (key.id(), (*key).clone()))
            .collect(),
        roles: all
            .iter()
            .map(|(role, key)| {
                (
                    role.clone(),
                    RoleKeys {
                        key_ids: vec![key.id()],
                        threshold: 1,
                    },
                )
            })
            .collect(),
        version,
    }
}

/// The usual root at some version.
pub(crate) fn plain_root(version: u32) -> Root {
    let keys = keys();
    root_document(version, &keys.root.certificate, keys.targets.public())
}

/// A targets file whose one tag tells contents apart.
pub(crate) fn targets_document(version: u32, content: u8) -> Targets {
    let mut targets = Targets::empty(version, NOW);
    targets
        .targets
        .insert("latest".to_owned(), Target::of_manifest([content; 32], 528));
    targets
}

/// The same, with alice's delegation.
pub(crate) fn with_alice(mut targets: Targets, key: &PublicKey) -> Targets {
    targets.delegations.keys.insert(key.id(), key.clone());
    targets
        .delegations
        .roles
        .get_or_insert_default()
        .push(Delegation {
            key_ids: Some(vec![key.id()]),
            name: role("targets/alice"),
            paths: vec![String::new()],
            threshold: 1,
        });
    targets
}

pub(crate) fn item<T: Body>(role: RoleName, document: &T, key_ids: Vec<KeyId>) -> Item {
    Item {
        role,
        payload: Payload::read(document.canonical()),
        key_ids,
    }
}

pub(crate) fn root_item(document: &Root) -> Item {
    item(RoleName::Root, document, vec![keys().root.certificate.id()])
}

pub(crate) fn targets_item(document: &Targets) -> Item {
    item(RoleName::Targets, document, vec![keys().targets.id()])
}

pub(crate) fn alice_item(document: &Targets) -> Item {
    item(role("targets/alice"), document, vec![keys().alice.id()])
}

pub(crate) fn mark(item: &Item) -> Mark {
    Mark {
        version: item.payload.document().unwrap().version(),
        hash: item.payload.hash(),
    }
}

/// What a server holds.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) files: BTreeMap<RoleName, Vec<u8>>,
    pub(crate) unlisted: BTreeMap<RoleName, Vec<u8>>,
    pub(crate) snapshot: u32,
    pub(crate) timestamp: u32,
    pub(crate) expires: UnixTime,
}

impl Server {
    /// A collection with root v1 and targets at this version.
    pub(crate) fn with_targets(version: u32, content: u8) -> Self {
        let mut server = Self {
            roots: Vec::new(),
            files: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            snapshot: 0,
            timestamp: 0,
            expires: NOW + 14 * DAY,
        };
        server.take_root(&plain_root(1), &[&keys().root]);
        server.take(RoleName::Targets, &targets_document(version, content));
        server
    }

    pub(crate) fn take_root(&mut self, root: &Root, by: &[&RootKey]) {
        let by: Vec<_> = by
            .iter()
            .map(|root| (root.certificate.id(), &root.key))
            .collect();
        self.roots.push(signed(root, &by));
        self.renew();
    }

    /// Takes a targets file, signed by the key of its role.
    pub(crate) fn take(&mut self, role: RoleName, document: &Targets) {
        let key = if role == RoleName::Targets {
            &keys().targets
        } else {
            &keys().alice
        };
        self.files
            .insert(role, signed(document, &[(key.id(), key)]));
        self.renew();
    }

    /// No longer lists a delegation.
    pub(crate) fn drop_role(&mut self, role: &RoleName) {
        self.files.remove(role);
        self.renew();
    }

    pub(crate) fn renew(&mut self) {
        self.snapshot += 1;
        self.timestamp += 1;
    }

    pub(crate) fn snapshot_document(&self) -> Snapshot {
        let mut meta: BTreeMap<RoleName, FileMeta> = self
            .files
            .iter()
            .map(|(role, wire)| (role.clone(), FileMeta::of(wire)))
            .collect();
        meta.insert(RoleName::Root, FileMeta::of(self.roots.last().unwrap()));
        let expires = Expiry::at(NOW + lifetime::SNAPSHOT);
        Snapshot {
            expires,
            meta,
            version: self.snapshot,
        }
    }

    pub(crate) fn documents(&self) -> BaseDocuments {
        let keys = keys();
        let snapshot = signed(
            &self.snapshot_document(),
            &[(keys.snapshot.id(), &keys.snapshot)],
        );
        let timestamp = Timestamp {
            expires: Expiry::at(self.expires),
            meta: [(RoleName::Snapshot, FileMeta::of(&snapshot))].into(),
            version: self.timestamp,
        };
        BaseDocuments {
            roots: self.roots.clone(),
            timestamp: Some(signed(
                &timestamp,
                &[(keys.timestamp.id(), &keys.timestamp)],
            )),
            snapshot: Some(snapshot),
            targets: self.files.clone(),
            unlisted: self.unlisted.clone(),
        }
    }

    pub(crate) fn verified(&self, recorded: &[RecordedRoot]) -> Result<VerifiedBase, BaseError> {
        VerifiedBase::verify(&gun(), self.documents(), recorded, NOW)
    }

    /// Its base, for an agent that has the first root on record.
    pub(crate) fn base(&self) -> VerifiedBase {
        self.verified(&[self.record()]).unwrap()
    }

    pub(crate) fn record(&self) -> RecordedRoot {
        RecordedRoot {
            lineage: lineage(&self.roots[0]),
            wire: self.roots[0].clone(),
        }
    }
}

/// The lineage that a first root founds.
pub(crate) fn lineage(wire: &[u8]) -> Lineage {
    let documents = BaseDocuments {
        roots: vec![wire.to_vec()],
        ..BaseDocuments::default()
    };
    VerifiedBase::verify(&gun(), documents, &[], NOW)
        .unwrap()
        .own_lineage()
}

/// A history with this state for the server's collection.
pub(crate) fn history(server: &Server, state: State) -> History {
    History {
        collections: [(server.record().lineage, state)].into(),
    }
}

/// Asks about items at [`NOW`].
pub(crate) fn ask(
    history: &History,
    base: Option<&VerifiedBase>,
    items: &[Item],
    allow: &[Rule],
) -> Result<Pass, Refusal> {
    let gun = gun();
    check(
        history,
        &Question {
            gun: &gun,
            base,
            items,
            allow,
            now: NOW,
            creating: false,
        },
    )
}
