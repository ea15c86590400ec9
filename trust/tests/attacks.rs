//! What a hostile server, or somebody with a few of the keys, might serve. Each test is named after
//! the attack, and each ends with a refusal that names it.
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::collections::BTreeMap;

use signet_trust::{
    KeyId, RoleName,
    document::{FileMeta, Hashes, Root, Snapshot, Targets, Timestamp, to_wire},
    edit::Edit,
    pin::{Pin, PinError},
    time::Expiry,
    update::{Cached, Options, UpdateError},
    verify::VerifyError,
};

#[path = "support/world.rs"]
mod world;

use world::{DAY, NOW, World, parse, target};

const TARGETS: RoleName = RoleName::Targets;

fn add(world: &mut World, tag: &str) {
    let trusted = world.fresh();
    let mut edit = Edit::of(&trusted, world.now);
    edit.add(&TARGETS, tag, target(1)).unwrap();
    world.publish(edit);
}

fn refusal(world: &mut World, cached: Cached) -> VerifyError {
    match world.update(cached) {
        Err(UpdateError::Verify(error)) => error,
        other => panic!("a refusal was expected, not {:?}", other.map(drop)),
    }
}

#[test]
fn rollback() {
    for role in [RoleName::Timestamp, RoleName::Snapshot, TARGETS] {
        let mut world = World::new();
        let old = world.current.clone();
        add(&mut world, "1.2");
        let cached = world.cache();
        // The snapshot key (the server's) vouches for old targets; the timestamp key for an old
        // snapshot; and the old timestamp is just served again.
        match role {
            TARGETS => {
                world.store(&TARGETS, old[&TARGETS].clone());
                world.refresh_snapshot(&[TARGETS]);
                world.refresh_timestamp();
            }
            RoleName::Snapshot => {
                world.store(&RoleName::Snapshot, old[&RoleName::Snapshot].clone());
                world.refresh_timestamp();
            }
            _ => world.store(&RoleName::Timestamp, old[&RoleName::Timestamp].clone()),
        }
        assert_eq!(
            refusal(&mut world, cached),
            VerifyError::Rollback {
                role,
                found: 1,
                seen: 2
            }
        );
    }
}

#[test]
fn rollback_of_the_root() {
    let mut world = World::new();
    let old = world.current[&RoleName::Root].clone();
    world.rotate_root();
    let cached = world.cache();
    world.store(&RoleName::Root, old);
    world.refresh_snapshot(&[RoleName::Root]);
    world.refresh_timestamp();
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::Rollback {
            role: RoleName::Root,
            found: 1,
            seen: 2
        }
    );
}

#[test]
fn freeze() {
    let mut world = World::new();
    let cached = world.cache();
    world.now = NOW + 14 * DAY + 1;
    let expires = parse::<Timestamp>(&world.current[&RoleName::Timestamp]).expires;
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::Expired {
            role: RoleName::Timestamp,
            expires
        }
    );
}

#[test]
fn expired_timestamp() {
    let mut world = World::new();
    let mut timestamp: Timestamp = parse(&world.current[&RoleName::Timestamp]);
    timestamp.version += 1;
    timestamp.expires = Expiry::at(NOW - 1);
    world.put_timestamp(&timestamp);
    for cached in [Cached::default(), world.cache()] {
        assert!(matches!(
            refusal(&mut world, cached),
            VerifyError::Expired {
                role: RoleName::Timestamp,
                ..
            }
        ));
    }
}

#[test]
fn expired_snapshot_and_targets() {
    let mut world = World::new();
    let mut snapshot: Snapshot = parse(&world.current[&RoleName::Snapshot]);
    snapshot.version += 1;
    snapshot.expires = Expiry::at(NOW - 1);
    world.put_snapshot(&snapshot);
    world.refresh_timestamp();
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Expired {
            role: RoleName::Snapshot,
            ..
        }
    ));

    let mut world = World::new();
    let mut top = world.targets(&TARGETS);
    top.version += 1;
    top.expires = Expiry::at(NOW - 1);
    world.put_targets(&top);
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Expired { role: TARGETS, .. }
    ));
}

#[test]
fn mix_and_match() {
    let mut world = World::new();
    let old = world.current[&TARGETS].clone();
    add(&mut world, "1.2");
    // Under the hash of the new targets the server serves the old ones.
    for ((role, _), wire) in &mut world.by_hash {
        if *role == TARGETS {
            wire.clone_from(&old);
        }
    }
    assert_eq!(
        refusal(&mut world, Cached::default()),
        VerifyError::Mismatch {
            role: TARGETS,
            listed_in: RoleName::Snapshot
        }
    );
    let mut world = World::new();
    let old = world.current[&RoleName::Snapshot].clone();
    add(&mut world, "1.2");
    for ((role, _), wire) in &mut world.by_hash {
        if *role == RoleName::Snapshot {
            wire.clone_from(&old);
        }
    }
    assert_eq!(
        refusal(&mut world, Cached::default()),
        VerifyError::Mismatch {
            role: RoleName::Snapshot,
            listed_in: RoleName::Timestamp
        }
    );
}

#[test]
fn endless_data() {
    let mut world = World::new();
    for ((role, _), wire) in &mut world.by_hash {
        if *role == TARGETS {
            wire.extend(std::iter::repeat_n(b' ', 1 << 20));
        }
    }
    // The caller was told the length, and read no further: that much is the file.
    assert!(world.update(Cached::default()).is_ok());

    let mut snapshot: Snapshot = parse(&world.current[&RoleName::Snapshot]);
    snapshot.version += 1;
    snapshot.meta.get_mut(&TARGETS).unwrap().length = 1 << 50;
    world.put_snapshot(&snapshot);
    world.refresh_timestamp();
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Mismatch { .. }
    ));
}

#[test]
fn wrong_key() {
    for role in [RoleName::Timestamp, RoleName::Snapshot, TARGETS] {
        let mut world = World::new();
        let stranger = world.ours.bare();
        let wire = match role {
            TARGETS => world.ours.wire(&world.targets(&TARGETS), &[stranger.id()]),
            RoleName::Snapshot => {
                let snapshot: Snapshot = parse(&world.current[&role]);
                world.ours.wire(&snapshot, &[stranger.id()])
            }
            _ => {
                let timestamp: Timestamp = parse(&world.current[&role]);
                world.ours.wire(&timestamp, &[stranger.id()])
            }
        };
        world.store(&role, wire);
        if role == TARGETS {
            world.refresh_snapshot(&[TARGETS]);
        }
        if role != RoleName::Timestamp {
            world.refresh_timestamp();
        }
        assert_eq!(
            refusal(&mut world, Cached::default()),
            VerifyError::Threshold {
                role,
                found: 0,
                threshold: 1
            }
        );
    }
}

#[test]
fn key_of_another_role() {
    let mut world = World::new();
    // The timestamp key, which the server holds, signs targets.
    let ids = world.root().roles[&RoleName::Timestamp].key_ids.clone();
    let wire = world.theirs.wire(&world.targets(&TARGETS), &ids);
    world.upload(BTreeMap::from([(TARGETS, wire)]));
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Threshold {
            role: TARGETS,
            found: 0,
            ..
        }
    ));
}

#[test]
fn key_under_the_id_of_another() {
    let mut world = World::new();
    // The root lists a stranger's key under the ID of the targets key.
    let stranger = world.ours.bare();
    let mut root = world.root();
    let id = root.roles[&TARGETS].key_ids[0];
    root.version += 1;
    root.keys.insert(id, stranger.clone());
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let top = world.targets(&TARGETS);
    let mut signature = world.ours.sign(
        &stranger.id(),
        &signet_trust::document::Body::canonical(&top),
    );
    signature.key_id = id;
    let upload = BTreeMap::from([
        (RoleName::Root, world.ours.wire(&root, &by)),
        (
            TARGETS,
            to_wire(&signet_trust::document::Body::canonical(&top), &[signature]),
        ),
    ]);
    world.upload(upload);
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Threshold {
            role: TARGETS,
            found: 0,
            ..
        }
    ));
}

/// A collection whose targets need two keys; gives the two.
fn with_threshold_of_two(world: &mut World) -> [KeyId; 2] {
    let second = world.ours.bare();
    let mut root = world.root();
    root.version += 1;
    let role = root.roles.get_mut(&TARGETS).unwrap();
    role.threshold = 2;
    role.key_ids.push(second.id());
    let ids = [role.key_ids[0], second.id()];
    root.keys.insert(second.id(), second);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    ids
}

#[test]
fn threshold_by_duplicate_key() {
    let mut world = World::new();
    let [first, second] = with_threshold_of_two(&mut world);
    let top = world.targets(&TARGETS);
    let wire = world.ours.wire(&top, &[first, first]);
    world.upload(BTreeMap::from([(TARGETS, wire)]));
    assert_eq!(
        refusal(&mut world, Cached::default()),
        VerifyError::Threshold {
            role: TARGETS,
            found: 1,
            threshold: 2
        }
    );
    let wire = world.ours.wire(&top, &[first, second]);
    world.upload(BTreeMap::from([(TARGETS, wire)]));
    assert!(world.update(Cached::default()).is_ok());
}

#[test]
fn threshold_by_a_key_listed_twice() {
    let mut world = World::new();
    let mut root = world.root();
    root.version += 1;
    let role = root.roles.get_mut(&TARGETS).unwrap();
    role.threshold = 2;
    role.key_ids = vec![role.key_ids[0]; 2];
    let (by, ids) = (
        root.roles[&RoleName::Root].key_ids.clone(),
        root.roles[&TARGETS].key_ids.clone(),
    );
    let upload = BTreeMap::from([
        (RoleName::Root, world.ours.wire(&root, &by)),
        (TARGETS, world.ours.wire(&world.targets(&TARGETS), &ids)),
    ]);
    world.upload(upload);
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Threshold {
            role: TARGETS,
            found: 1,
            threshold: 2
        }
    ));
}

#[test]
fn root_that_its_predecessor_did_not_sign() {
    let mut world = World::new();
    let cached = world.cache();
    let mut root = world.root();
    let key = world.ours.certified(&world.gun, NOW);
    root.version += 1;
    root.roles.get_mut(&RoleName::Root).unwrap().key_ids = vec![key.id()];
    root.keys.insert(key.id(), key.clone());
    let wire = world.ours.wire(&root, &[key.id()]);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::RootChain {
            version: 2,
            by: "its predecessor"
        }
    );
}

#[test]
fn root_that_did_not_sign_itself() {
    let mut world = World::new();
    let cached = world.cache();
    let old = world.root().roles[&RoleName::Root].key_ids.clone();
    let mut root = world.root();
    let key = world.ours.certified(&world.gun, NOW);
    root.version += 1;
    root.roles.get_mut(&RoleName::Root).unwrap().key_ids = vec![key.id()];
    root.keys.insert(key.id(), key);
    let wire = world.ours.wire(&root, &old);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    let error = VerifyError::RootChain {
        version: 2,
        by: "itself",
    };
    assert_eq!(refusal(&mut world, cached), error);
    assert_eq!(refusal(&mut world, Cached::default()), error);
}

#[test]
fn other_root_under_a_version_that_is_trusted() {
    let mut world = World::new();
    let cached = world.cache();
    let mut root = world.root();
    root.expires = Expiry::at(NOW + 100 * DAY);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::RootChain {
            version: 1,
            by: "its predecessor"
        }
    );
}

#[test]
fn root_of_another_repository() {
    let mut world = World::new();
    world.gun = "docker.io/library/victim".parse().unwrap();
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Pin {
            source: PinError::Certificate(_),
            ..
        }
    ));
}

#[test]
fn root_with_a_bare_key() {
    let mut world = World::new();
    let key = world.ours.bare();
    let mut root = world.root();
    root.roles.get_mut(&RoleName::Root).unwrap().key_ids = vec![key.id()];
    root.keys.insert(key.id(), key.clone());
    let wire = world.ours.wire(&root, &[key.id()]);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Pin {
            source: PinError::NoCertificate,
            ..
        }
    ));
}

#[test]
fn root_with_a_certificate_that_has_ended() {
    let mut world = World::new();
    world.now = NOW + 3651 * DAY;
    let mut root = world.root();
    root.expires = Expiry::at(world.now + DAY);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Pin {
            source: PinError::Certificate(_),
            ..
        }
    ));
}

#[test]
fn root_that_lists_the_pinned_certificate_and_is_signed_by_another() {
    let mut world = World::new();
    let mut root = world.root();
    let pinned = root.roles[&RoleName::Root].key_ids[0];
    let key = world.ours.certified(&world.gun, NOW);
    let role = root.roles.get_mut(&RoleName::Root).unwrap();
    role.key_ids.push(key.id());
    root.keys.insert(key.id(), key.clone());
    let wire = world.ours.wire(&root, &[key.id()]);
    world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    let options = Options {
        pin: Pin::Certificates(vec![pinned]),
        ..world.options()
    };
    assert_eq!(
        world.update_with(Cached::default(), options).map(drop),
        Err(VerifyError::RootChain {
            version: 1,
            by: "itself"
        }
        .into())
    );
}

#[test]
fn endless_root_chain() {
    let mut world = World::new();
    let cached = world.cache();
    let anchor = world.root();
    // A newest root far ahead, by a key that nobody before it lists.
    let far = |world: &mut World, version: u32| {
        let key = world.ours.certified(&world.gun, NOW);
        let mut root = Root {
            version,
            ..anchor.clone()
        };
        root.roles.get_mut(&RoleName::Root).unwrap().key_ids = vec![key.id()];
        root.keys.insert(key.id(), key.clone());
        let wire = world.ours.wire(&root, &[key.id()]);
        world.upload(BTreeMap::from([(RoleName::Root, wire)]));
    };
    far(&mut world, 1_000_000);
    assert_eq!(
        refusal(&mut world, cached.clone()),
        VerifyError::RootChain {
            version: 1_000_000,
            by: "its predecessor"
        }
    );
    assert!(
        world.fetched.len() < 5,
        "no root on the way is even asked for"
    );

    // As far as is allowed: real links, to the last of which there is nothing.
    far(&mut world, 1_001);
    let by = anchor.roles[&RoleName::Root].key_ids.clone();
    for version in 2..=1_000 {
        let wire = world.ours.wire(
            &Root {
                version,
                ..anchor.clone()
            },
            &by,
        );
        world.roots.insert(version, wire);
    }
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::RootChain {
            version: 1_001,
            by: "its predecessor"
        }
    );
    assert!(world.fetched.len() < 1_010);
}

#[test]
fn root_chain_that_goes_in_circles() {
    let mut world = World::new();
    let cached = world.cache();
    world.rotate_root();
    world.rotate_root();
    world.rotate_root();
    let second = world.roots[&2].clone();
    world.roots.insert(3, second);
    assert_eq!(
        refusal(&mut world, cached),
        VerifyError::RootChain {
            version: 3,
            by: "its predecessor"
        }
    );
}

#[test]
fn snapshot_that_names_another_root() {
    let mut world = World::new();
    let mut snapshot: Snapshot = parse(&world.current[&RoleName::Snapshot]);
    snapshot.version += 1;
    snapshot.meta.insert(
        RoleName::Root,
        FileMeta {
            hashes: Hashes::of_sha256([0; 32]),
            length: 9,
        },
    );
    world.put_snapshot(&snapshot);
    world.refresh_timestamp();
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Mismatch {
            role: RoleName::Root,
            listed_in: RoleName::Snapshot
        }
    ));
}

#[test]
fn document_of_another_type_in_the_place_of_targets() {
    let mut world = World::new();
    // With one key for two roles a snapshot would verify as targets, if its type were not read.
    let mut root = world.root();
    root.version += 1;
    let ids = root.roles[&TARGETS].key_ids.clone();
    root.roles
        .get_mut(&RoleName::Snapshot)
        .unwrap()
        .key_ids
        .clone_from(&ids);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let snapshot: Snapshot = parse(&world.current[&RoleName::Snapshot]);
    let wire = world.ours.wire(&snapshot, &ids);
    let root = world.ours.wire(&root, &by);
    world.store(&RoleName::Root, root);
    world.store(&TARGETS, wire);
    world.refresh_snapshot(&[RoleName::Root, TARGETS]);
    world.refresh_timestamp();
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Unreadable { role: TARGETS, .. }
    ));
}

#[test]
fn signatures_without_end() {
    let mut world = World::new();
    let top = world.targets(&TARGETS);
    let canonical = signet_trust::document::Body::canonical(&top);
    let id = world.root().roles[&TARGETS].key_ids[0];
    let mut bad = world.ours.sign(&id, &canonical);
    bad.bytes[0] ^= 1;
    let wire = to_wire(&canonical, &vec![bad; 2_000]);
    world.upload(BTreeMap::from([(TARGETS, wire)]));
    assert!(matches!(
        refusal(&mut world, Cached::default()),
        VerifyError::Unreadable { .. }
    ));
}

#[test]
fn delegation_signed_by_a_removed_key() {
    let mut world = World::new();
    let old = world.delegate("targets/a", &[""]);
    let role: RoleName = "targets/a".parse().unwrap();
    let wire = world.ours.wire(&Targets::empty(1, NOW), &[old.id()]);
    world.upload(BTreeMap::from([(role.clone(), wire)]));
    assert!(world.fresh().targets.contains_key(&role));
    let mut top = world.targets(&TARGETS);
    let key = world.ours.bare();
    top.version += 1;
    top.delegations.keys = BTreeMap::from([(key.id(), key.clone())]);
    top.delegations.roles.as_mut().unwrap()[0].key_ids = Some(vec![key.id()]);
    world.put_targets(&top);
    for cached in [Cached::default(), world.cache()] {
        let trusted = world.update(cached).unwrap();
        assert!(!trusted.targets.contains_key(&role));
        assert!(matches!(
            trusted.skipped[..],
            [(_, VerifyError::Threshold { found: 0, .. })]
        ));
    }
}
