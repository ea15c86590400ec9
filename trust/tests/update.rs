//! The update workflow against a server in memory, from the friendly side.
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::collections::BTreeMap;

use signet_trust::{
    KeyId, RoleName,
    document::{Root, Targets},
    edit::Edit,
    pin::{Pin, PinError},
    time::Expiry,
    update::{Cached, File, Options, Step, Update, UpdateError},
    verify::{VerifyError, limit},
};

#[path = "support/world.rs"]
mod world;

use world::{DAY, NOW, World, parse, target};

const TARGETS: RoleName = RoleName::Targets;

fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

/// Names of what was fetched, hashes left out.
fn fetched(world: &World) -> Vec<String> {
    let short = |name: &String| {
        let parts: Vec<&str> = name.split('.').filter(|part| part.len() != 64).collect();
        parts.join(".")
    };
    world.fetched.iter().map(short).collect()
}

fn add(world: &mut World, to: &RoleName, tag: &str) {
    let trusted = world.fresh();
    let mut edit = Edit::of(&trusted, world.now);
    edit.add(to, tag, target(1)).unwrap();
    world.publish(edit);
}

#[test]
fn a_first_contact_reads_everything_once() {
    let mut world = World::new();
    let trusted = world.fresh();
    assert!(trusted.first_use && !trusted.offline && !trusted.rotated);
    assert_eq!(
        fetched(&world),
        [
            "root.json",
            "timestamp.json",
            "snapshot.json",
            "targets.json"
        ]
    );
    assert_eq!(trusted.root_chain.len(), 1);
    assert_eq!(trusted.top().wire(), world.current[&TARGETS]);
}

#[test]
fn with_a_current_cache_only_the_timestamp_is_fetched() {
    let mut world = World::new();
    world.delegate("targets/releases", &[""]);
    add(&mut world, &role("targets/releases"), "1.2");
    let cached = world.cache();
    let trusted = world.update(cached).unwrap();
    assert!(!trusted.first_use);
    assert_eq!(fetched(&world), ["timestamp.json"]);
    assert!(
        trusted.targets[&role("targets/releases")]
            .doc()
            .targets
            .contains_key("1.2")
    );
}

#[test]
fn with_an_older_cache_what_changed_is_fetched() {
    let mut world = World::new();
    let cached = world.cache();
    add(&mut world, &TARGETS, "1.2");
    let trusted = world.update(cached).unwrap();
    assert_eq!(
        fetched(&world),
        ["timestamp.json", "snapshot.json", "targets.json"]
    );
    assert_eq!(trusted.top().doc().version, 2);
}

#[test]
fn a_damaged_cache_costs_fetches_and_nothing_else() {
    let mut world = World::new();
    let mut cached = world.cache();
    cached.timestamp = Some(b"{".to_vec());
    cached.snapshot.as_mut().unwrap()[30] ^= 1;
    cached.targets.get_mut(&TARGETS).unwrap().truncate(40);
    assert!(world.update(cached).is_ok());
    assert_eq!(
        fetched(&world),
        ["timestamp.json", "snapshot.json", "targets.json"]
    );
}

#[test]
fn a_cached_root_that_does_not_verify_is_fatal() {
    let mut world = World::new();
    let mut cached = world.cache();
    let wire = cached.root.as_mut().unwrap();
    let at = wire
        .windows(9)
        .position(|window| window == b"\"version\"")
        .unwrap();
    wire[at + 10] = b'7';
    assert_eq!(
        world.update(cached).map(drop),
        Err(VerifyError::RootChain {
            version: 7,
            by: "itself"
        }
        .into())
    );
    let cached = Cached {
        root: Some(b"<html>".to_vec()),
        ..Cached::default()
    };
    assert!(matches!(
        world.update(cached),
        Err(UpdateError::Verify(VerifyError::Unreadable {
            role: RoleName::Root,
            ..
        }))
    ));
}

#[test]
fn a_repository_that_the_server_does_not_know_is_told_apart() {
    let mut world = World::empty();
    let nothing = || UpdateError::NoTrustData("docker.io/library/world".parse().unwrap());
    assert_eq!(world.update(Cached::default()).map(drop), Err(nothing()));

    let mut deleted = World::new();
    let cached = deleted.cache();
    deleted.current.clear();
    assert_eq!(deleted.update(cached).map(drop), Err(nothing()));
}

#[test]
fn without_the_server_a_reader_lives_on_the_cache_until_the_timestamp_ends() {
    let mut world = World::new();
    let cached = world.cache();
    world.is_down = true;
    let trusted = world.update(cached.clone()).unwrap();
    assert!(trusted.offline);
    assert_eq!(trusted.top().doc().version, 1);

    world.now = NOW + 15 * DAY;
    let error = world.update(cached.clone()).unwrap_err();
    assert!(matches!(
        error,
        UpdateError::Verify(VerifyError::Expired {
            role: RoleName::Timestamp,
            ..
        })
    ));
    world.now = NOW;
    let only_root = Cached {
        root: cached.root,
        ..Cached::default()
    };
    assert_eq!(
        world.update(only_root).map(drop),
        Err(UpdateError::Unreachable)
    );
    assert_eq!(
        world.update(Cached::default()).map(drop),
        Err(UpdateError::Unreachable)
    );
}

#[test]
fn a_writer_never_works_from_the_cache() {
    let mut world = World::new();
    let cached = world.cache();
    world.is_down = true;
    let options = Options {
        for_write: true,
        ..world.options()
    };
    assert_eq!(
        world.update_with(cached, options).map(drop),
        Err(UpdateError::Unreachable)
    );
}

#[test]
fn a_new_root_is_found_by_the_snapshot_that_names_it() {
    let mut world = World::new();
    let cached = world.cache();
    world.rotate_root();
    let trusted = world.update(cached).unwrap();
    assert!(trusted.rotated);
    assert_eq!(trusted.root().doc().version, 2);
    assert_eq!(trusted.root_chain.len(), 2);
    assert_eq!(
        fetched(&world),
        [
            "timestamp.json",
            "snapshot.json",
            "root.json",
            "timestamp.json"
        ],
        "the snapshot is kept over the retry, and targets are those of the cache"
    );
    assert!(
        world.fetched[2].len() > 64,
        "the root is fetched by its hash"
    );
}

#[test]
fn a_root_many_versions_ahead_is_reached_one_by_one() {
    let mut world = World::new();
    let cached = world.cache();
    for _ in 0..5 {
        world.rotate_root();
    }
    let trusted = world.update(cached).unwrap();
    let versions: Vec<u32> = trusted
        .root_chain
        .iter()
        .map(|root| root.doc().version)
        .collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    let links = ["2.root.json", "3.root.json", "4.root.json", "5.root.json"];
    assert_eq!(fetched(&world)[3..7], links);
}

#[test]
fn roots_on_the_way_may_have_expired_and_the_newest_may_not() {
    let mut world = World::new();
    let cached = world.cache();
    let expire = |world: &mut World, at| {
        let mut root = world.root();
        let by = root.roles[&RoleName::Root].key_ids.clone();
        root.version += 1;
        root.expires = Expiry::at(at);
        let wire = world.ours.wire(&root, &by);
        world.upload([(RoleName::Root, wire)].into());
    };
    expire(&mut world, NOW - DAY);
    world.rotate_root();
    let mut root = world.root();
    root.expires = Expiry::at(NOW + DAY);
    expire(&mut world, NOW + DAY);
    assert_eq!(
        world.update(cached.clone()).unwrap().root().doc().version,
        4
    );
    expire(&mut world, NOW - 1);
    let error = world.update(cached).unwrap_err();
    assert!(matches!(
        error,
        UpdateError::Verify(VerifyError::Expired {
            role: RoleName::Root,
            ..
        })
    ));
}

#[test]
fn an_expired_cached_root_is_still_the_one_that_must_have_signed_the_next() {
    let mut world = World::new();
    let mut root = world.root();
    root.expires = Expiry::at(NOW + DAY);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    world.upload([(RoleName::Root, wire)].into());
    let cached = world.cache();
    world.now = NOW + 2 * DAY;
    let error = world.update(cached.clone()).unwrap_err();
    assert!(matches!(
        error,
        UpdateError::Verify(VerifyError::Expired {
            role: RoleName::Root,
            ..
        })
    ));
    root.version = 2;
    root.expires = Expiry::at(NOW + 100 * DAY);
    let wire = world.ours.wire(&root, &by);
    world.upload([(RoleName::Root, wire)].into());
    let trusted = world.update(cached.clone()).unwrap();
    assert!(trusted.rotated);
    assert_eq!(fetched(&world)[0], "root.json");
    world.is_down = true;
    let error = world.update(cached).unwrap_err();
    assert!(matches!(
        error,
        UpdateError::Verify(VerifyError::Expired { .. })
    ));
}

#[test]
fn the_same_root_with_other_signatures_is_taken_as_the_server_has_it() {
    let mut world = World::new();
    let cached = world.cache();
    // ECDSA signatures differ each time.
    let root = world.root();
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    assert_ne!(Some(&wire), cached.root.as_ref());
    world.upload([(RoleName::Root, wire.clone())].into());
    let trusted = world.update(cached).unwrap();
    assert!(!trusted.rotated);
    assert_eq!(trusted.root_chain.len(), 1);
    assert_eq!(trusted.root().wire(), wire);
}

#[test]
fn keys_of_other_roles_change_with_the_root() {
    let mut world = World::new();
    let cached = world.cache();
    let mut root = world.root();
    root.version += 1;
    let key = world.ours.bare();
    root.roles.get_mut(&TARGETS).unwrap().key_ids = vec![key.id()];
    root.keys.insert(key.id(), key);
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let ids = root.roles[&TARGETS].key_ids.clone();
    let mut top = world.targets(&TARGETS);
    top.version += 1;
    let upload = BTreeMap::from([
        (RoleName::Root, world.ours.wire(&root, &by)),
        (TARGETS, world.ours.wire(&top, &ids)),
    ]);
    world.upload(upload);
    let trusted = world.update(cached).unwrap();
    assert_eq!(trusted.top().doc().version, 2);
    assert!(trusted.rotated);
}

#[test]
fn earlier_roots_are_fetched_for_the_agent_and_checked_link_by_link() {
    let mut world = World::new();
    for _ in 0..3 {
        world.rotate_root();
    }
    let cached = world.cache();
    let options = Options {
        chain_from: Some(2),
        ..world.options()
    };
    let trusted = world.update_with(cached.clone(), options.clone()).unwrap();
    let versions: Vec<u32> = trusted
        .root_chain
        .iter()
        .map(|root| root.doc().version)
        .collect();
    assert_eq!(versions, [2, 3, 4]);
    assert_eq!(trusted.root().doc().version, 4);

    // A root that the server no longer has: the chain starts at the anchor.
    let third = world.roots.remove(&3).unwrap();
    let trusted = world.update_with(cached.clone(), options.clone()).unwrap();
    assert_eq!(trusted.root_chain.len(), 1);

    // One that does not fit between its neighbours.
    let mut forged: Root = parse(&third);
    forged.expires = Expiry::at(NOW + 7 * DAY);
    let own = forged.roles[&RoleName::Root].key_ids.clone();
    let forged = world.ours.wire(&forged, &own);
    world.roots.insert(3, forged);
    assert_eq!(
        world.update_with(cached, options).map(drop),
        Err(VerifyError::RootChain {
            version: 3,
            by: "its predecessor"
        }
        .into())
    );
}

#[test]
fn delegations_are_read_breadth_first_and_unpublished_ones_left_out() {
    let mut world = World::new();
    world.delegate("targets/b", &["", "v"]);
    world.delegate("targets/a", &["v"]);
    world.delegate("targets/never", &[""]);
    for name in ["targets/b", "targets/a"] {
        add(&mut world, &role(name), "v1");
    }
    // `targets/b` delegates on; so does `targets` to somebody else's child, which does not count.
    let key = world.ours.bare();
    let mut b = world.targets(&role("targets/b"));
    b.version += 1;
    b.delegations.keys.insert(key.id(), key.clone());
    b.delegations.roles = Some(vec![signet_trust::document::Delegation {
        key_ids: Some(vec![key.id()]),
        name: role("targets/b/c"),
        paths: vec!["v1".to_owned(), "w".to_owned()],
        threshold: 1,
    }]);
    let b_key = world.targets(&TARGETS).delegations.roles.unwrap()[0]
        .key_ids
        .clone()
        .unwrap();
    let upload = BTreeMap::from([
        (role("targets/b"), world.ours.wire(&b, &b_key)),
        (
            role("targets/b/c"),
            world.ours.wire(&Targets::empty(1, NOW), &[key.id()]),
        ),
    ]);
    world.upload(upload);

    let trusted = world.fresh();
    assert_eq!(
        fetched(&world)[3..],
        [
            "targets.json",
            "targets/b.json",
            "targets/a.json",
            "targets/b/c.json"
        ]
    );
    assert_eq!(trusted.skipped, []);
    let roles: Vec<_> = trusted.targets.keys().map(RoleName::as_str).collect();
    assert_eq!(roles, ["targets", "targets/a", "targets/b", "targets/b/c"]);

    assert!(trusted.admits(&TARGETS, "anything"));
    assert!(trusted.admits(&role("targets/a"), "v1") && !trusted.admits(&role("targets/a"), "w"));
    assert!(trusted.admits(&role("targets/b/c"), "v1.2"));
    assert!(trusted.admits(&role("targets/b/c"), "w"));
    assert!(!trusted.admits(&role("targets/b/c"), "v2"));
    assert!(!trusted.admits(&role("targets/unknown"), "v1"));
}

#[test]
fn a_child_s_path_outside_its_parent_s_admits_nothing() {
    let mut world = World::new();
    let key = world.delegate("targets/a", &["v"]);
    let mut a = Targets::empty(1, NOW);
    a.delegations.keys.insert(key.id(), key.clone());
    a.delegations.roles = Some(vec![signet_trust::document::Delegation {
        key_ids: Some(vec![key.id()]),
        name: role("targets/a/b"),
        paths: vec![String::new()],
        threshold: 1,
    }]);
    let upload = BTreeMap::from([
        (role("targets/a"), world.ours.wire(&a, &[key.id()])),
        (
            role("targets/a/b"),
            world.ours.wire(&Targets::empty(1, NOW), &[key.id()]),
        ),
    ]);
    world.upload(upload);
    let trusted = world.fresh();
    assert!(!trusted.admits(&role("targets/a/b"), "v1"));
}

#[test]
fn a_delegation_that_is_not_in_order_is_skipped_with_the_reason() {
    let mut world = World::new();
    let key = world.delegate("targets/old", &[""]);
    world.delegate("targets/forged", &[""]);
    let mut expired = Targets::empty(1, NOW);
    expired.expires = Expiry::at(NOW - DAY);
    let stranger = world.ours.bare();
    let upload = BTreeMap::from([
        (role("targets/old"), world.ours.wire(&expired, &[key.id()])),
        (
            role("targets/forged"),
            world.ours.wire(&Targets::empty(1, NOW), &[stranger.id()]),
        ),
    ]);
    world.upload(upload);
    let trusted = world.fresh();
    assert_eq!(trusted.targets.len(), 1);
    assert!(matches!(
        &trusted.skipped[..],
        [(old, VerifyError::Expired { .. }), (forged, VerifyError::Threshold { found: 0, .. })]
            if *old == role("targets/old") && *forged == role("targets/forged")
    ));
}

#[test]
fn a_first_root_must_please_the_pin() {
    let mut world = World::new();
    let listed: KeyId = world.root().roles[&RoleName::Root].key_ids[0];
    let other: KeyId = world.root().roles[&TARGETS].key_ids[0];
    let update = |world: &mut World, pin: Pin, cached: Cached| {
        let options = Options {
            pin,
            ..world.options()
        };
        world.update_with(cached, options).map(drop)
    };
    let refused = |source| {
        let gun = "docker.io/library/world".parse().unwrap();
        Err(VerifyError::Pin { gun, source }.into())
    };
    let pinned = |id| Pin::Certificates(vec![id]);
    assert_eq!(
        update(&mut world, pinned(listed), Cached::default()),
        Ok(())
    );
    assert_eq!(
        update(&mut world, pinned(other), Cached::default()),
        refused(PinError::NotPinned)
    );
    assert_eq!(
        update(&mut world, Pin::Refuse, Cached::default()),
        refused(PinError::Refused)
    );
    let cached = world.cache();
    assert_eq!(
        update(&mut world, Pin::Refuse, cached),
        Ok(()),
        "a cached root is the pin"
    );
}

#[test]
fn limits_go_with_every_fetch() {
    let mut world = World::new();
    let cached = world.cache();
    let options = world.options();
    let update = Update::new(world.gun.clone(), Cached::default(), options.clone()).unwrap();
    assert!(matches!(
        update.step(),
        Step::Fetch {
            file: File::Current(RoleName::Root),
            limit: limit::ROLE
        }
    ));
    let update = Update::new(world.gun.clone(), cached, options).unwrap();
    assert!(matches!(
        update.step(),
        Step::Fetch {
            file: File::Current(RoleName::Timestamp),
            limit: limit::TIMESTAMP
        }
    ));
    world.store(&RoleName::Timestamp, vec![b' '; limit::TIMESTAMP + 1]);
    let error = world.update(Cached::default()).unwrap_err();
    assert!(
        matches!(error, UpdateError::Verify(VerifyError::Unreadable { .. })),
        "{error}"
    );
}
