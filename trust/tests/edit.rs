//! Edits against a server in memory: what goes up is what everybody then verifies.
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use signet_trust::{
    KeyId, PublicKey, RoleName,
    document::{Document, FileMeta, Root, Snapshot, Target, Targets},
    edit::{Edit, EditError, InitVersions, signable_roles},
    time::Expiry,
};

#[path = "support/world.rs"]
mod world;

use world::{DAY, NOW, World, parse, target};

const TARGETS: RoleName = RoleName::Targets;

fn edit(world: &mut World) -> Edit {
    let trusted = world.fresh();
    Edit::of(&trusted, world.now)
}

fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

#[test]
fn a_first_publish_is_root_and_targets_and_everybody_verifies_it() {
    let mut world = World::new();
    let trusted = world.fresh();
    assert_eq!(trusted.root().doc().version, 1);
    assert_eq!(trusted.top().doc().version, 1);
    assert!(trusted.top().doc().targets.is_empty());
    assert_eq!(trusted.root().doc().expires.unix(), NOW + 3650 * DAY);
    assert_eq!(trusted.top().doc().expires.unix(), NOW + 1095 * DAY);
}

#[test]
fn a_tag_is_added_replaced_and_removed() {
    let mut world = World::new();
    for (byte, version) in [(1, 2), (2, 3)] {
        let mut edit = edit(&mut world);
        edit.add(&TARGETS, "latest", target(byte)).unwrap();
        world.publish(edit);
        let trusted = world.fresh();
        assert_eq!(trusted.top().doc().version, version);
        assert_eq!(
            trusted.top().doc().targets.get("latest").unwrap(),
            target(byte)
        );
    }
    let mut edit = edit(&mut world);
    edit.remove(&TARGETS, "latest").unwrap();
    assert_eq!(
        edit.remove(&TARGETS, "latest"),
        Err(EditError::NotSigned("latest".to_owned()))
    );
    world.publish(edit);
    assert!(world.fresh().top().doc().targets.is_empty());
}

#[test]
fn changes_keep_the_order_of_names_and_everything_else() {
    let mut world = World::new();
    let mut first = edit(&mut world);
    for tag in ["b", "d", "f"] {
        first.add(&TARGETS, tag, target(1)).unwrap();
    }
    world.publish(first);
    let mut second = edit(&mut world);
    for tag in ["a", "c", "d", "g"] {
        second.add(&TARGETS, tag, target(2)).unwrap();
    }
    second.remove(&TARGETS, "b").unwrap();
    second.remove(&TARGETS, "c").unwrap();
    world.publish(second);
    let found = world.fresh().top().doc().targets.clone();
    let wanted = [("a", 2), ("d", 2), ("f", 1), ("g", 2)];
    let wanted = wanted.map(|(tag, byte)| (tag.to_owned(), target(byte)));
    assert_eq!(found, wanted.into_iter().collect());
}

#[test]
fn what_is_to_be_signed_is_a_canonical_document() {
    let mut world = World::with_our_snapshot();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "a&b<\u{2028}>\"\\é", target(1)).unwrap();
    for request in edit.requests(&|_: &KeyId| true).unwrap() {
        assert!(Document::from_canonical(&request.payload).is_ok());
    }
    world.publish(edit);
    assert!(
        world
            .fresh()
            .top()
            .doc()
            .targets
            .contains_key("a&b<\u{2028}>\"\\é")
    );
}

#[test]
fn nothing_changed_is_nothing_to_sign() {
    let mut world = World::new();
    let edit = edit(&mut world);
    assert!(edit.is_empty());
    assert_eq!(edit.requests(&|_: &KeyId| true).unwrap(), []);
    assert!(edit.finish().is_empty());
}

#[test]
fn a_snapshot_of_ours_names_the_bytes_of_the_first_step() {
    let mut world = World::with_our_snapshot();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let upload = world.sign(edit);
    let roles: Vec<_> = upload.keys().cloned().collect();
    assert_eq!(roles, [TARGETS, RoleName::Snapshot]);
    let snapshot: Snapshot = parse(&upload[&RoleName::Snapshot]);
    assert_eq!(snapshot.version, 2);
    assert_eq!(snapshot.meta[&TARGETS], FileMeta::of(&upload[&TARGETS]));
    assert_eq!(
        snapshot.meta[&RoleName::Root],
        FileMeta::of(&world.current[&RoleName::Root])
    );
    world.upload(upload);
    assert!(world.fresh().top().doc().targets.contains_key("1.2"));
}

#[test]
fn a_snapshot_comes_after_the_first_step_and_not_before() {
    let mut world = World::with_our_snapshot();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let early = edit.snapshot_request(&|_: &KeyId| true, None);
    assert_eq!(early, Err(EditError::Unsigned(TARGETS)));
}

#[test]
fn a_snapshot_key_that_is_neither_ours_nor_the_server_s_is_told() {
    let mut world = World::with_our_snapshot();
    let mut edit = edit(&mut world);
    let ours = world.root().roles[&RoleName::Snapshot].key_ids[0];
    let none = |_: &KeyId| false;
    let server_key = world.theirs.bare();
    assert_eq!(
        edit.snapshot_request(&none, Some(&server_key)),
        Err(EditError::NoKey {
            role: RoleName::Snapshot,
            needed: vec![ours]
        })
    );
    let listed = world.root().keys[&ours].clone();
    assert_eq!(edit.snapshot_request(&none, Some(&listed)), Ok(None));
    assert_eq!(edit.snapshot_request(&none, None), Ok(None));
}

#[test]
fn a_missing_key_is_named() {
    let mut world = World::new();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let needed = world.root().roles[&TARGETS].key_ids.clone();
    let error = edit.requests(&|_: &KeyId| false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no usable key for targets: it needs one of {}", needed[0])
    );
    assert_eq!(
        error,
        EditError::NoKey {
            role: TARGETS,
            needed
        }
    );
}

#[test]
fn a_root_key_is_looked_for_by_its_bare_id_and_signs_by_its_certificate_s() {
    let mut world = World::empty();
    let keys = world.new_keys(false);
    let (listed, bare) = (keys.root.id(), keys.root.canonical_id().unwrap());
    assert_ne!(listed, bare);
    let edit = Edit::init(world.gun.clone(), keys, InitVersions::default(), NOW).unwrap();
    let error = edit.requests(&|_: &KeyId| false).unwrap_err();
    assert_eq!(
        error,
        EditError::NoKey {
            role: RoleName::Root,
            needed: vec![bare]
        }
    );
    let requests = edit.requests(&|id: &KeyId| world.ours.holds(id)).unwrap();
    assert_eq!(requests[0].role, RoleName::Root);
    assert_eq!(requests[0].key_ids, [listed]);
    assert_eq!(requests[1].role, TARGETS);
}

#[test]
fn a_root_key_must_be_a_certificate_for_this_repository() {
    let mut world = World::empty();
    let good = world.new_keys(false);
    let other = world
        .ours
        .certified(&"docker.io/library/other".parse().unwrap(), NOW);
    for root in [world.ours.bare(), other] {
        let keys = signet_trust::edit::NewCollection {
            root,
            ..good.clone()
        };
        let made = Edit::init(world.gun.clone(), keys, InitVersions::default(), NOW);
        assert!(matches!(
            made,
            Err(EditError::Key {
                role: RoleName::Root,
                ..
            })
        ));
    }
}

#[test]
fn a_signature_that_does_not_hold_is_refused() {
    let mut world = World::new();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let held = |id: &KeyId| world.ours.holds(id);
    let request = edit.requests(&held).unwrap().remove(0);
    let good = world.ours.answer(&request);
    let mut bad = good.clone();
    bad[0].bytes[3] ^= 1;
    assert!(matches!(
        edit.sign(&TARGETS, bad),
        Err(EditError::Key { role: TARGETS, .. })
    ));
    let root_id = world.root().roles[&RoleName::Root].key_ids[0];
    let foreign = world.ours.sign(&root_id, &request.payload);
    assert!(matches!(
        edit.sign(&TARGETS, vec![foreign]),
        Err(EditError::Key { .. })
    ));
    assert!(edit.sign(&RoleName::Timestamp, good.clone()).is_err());
    edit.sign(&TARGETS, good).unwrap();
    assert_eq!(edit.finish().len(), 1);
}

#[test]
fn a_change_drops_the_signatures_of_what_was_signed_before() {
    let mut world = World::new();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let request = edit.requests(&|_: &KeyId| true).unwrap().remove(0);
    let signatures = world.ours.answer(&request);
    edit.sign(&TARGETS, signatures.clone()).unwrap();
    edit.set_version(&TARGETS, 7);
    assert!(edit.sign(&TARGETS, signatures).is_err());
    assert!(edit.finish().is_empty());
}

#[test]
fn a_version_is_raised_to_what_the_guard_said_and_never_lowered() {
    let mut world = World::with_our_snapshot();
    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    edit.set_version(&TARGETS, 9);
    edit.set_version(&TARGETS, 3);
    edit.set_version(&RoleName::Snapshot, 5);
    edit.set_version(&RoleName::Timestamp, 5);
    let upload = world.sign(edit);
    assert_eq!(parse::<Targets>(&upload[&TARGETS]).version, 9);
    assert_eq!(parse::<Snapshot>(&upload[&RoleName::Snapshot]).version, 5);
}

#[test]
fn first_versions_are_what_the_caller_says() {
    let mut world = World::empty();
    let keys = world.new_keys(true);
    let versions = InitVersions {
        root: 2,
        targets: 3,
        snapshot: 4,
    };
    let edit = Edit::init(world.gun.clone(), keys, versions, NOW).unwrap();
    let upload = world.sign(edit);
    assert_eq!(parse::<Root>(&upload[&RoleName::Root]).version, 2);
    assert_eq!(parse::<Targets>(&upload[&TARGETS]).version, 3);
    assert_eq!(parse::<Snapshot>(&upload[&RoleName::Snapshot]).version, 4);
}

#[test]
fn a_first_publish_that_never_arrived_sends_the_same_root_again() {
    for snapshot_is_ours in [false, true] {
        let mut world = World::empty();
        let keys = world.new_keys(snapshot_is_ours);
        let edit = Edit::init(world.gun.clone(), keys, InitVersions::default(), NOW).unwrap();
        let saved = world.sign(edit).remove(&RoleName::Root).unwrap();

        let mut edit = Edit::resume_init(world.gun.clone(), saved.clone(), 2, NOW).unwrap();
        assert!(!edit.is_empty());
        edit.add(&TARGETS, "1.2", target(1)).unwrap();
        let requests = edit.requests(&|_: &KeyId| true).unwrap();
        assert_eq!(requests.len(), 1, "the root is signed already");
        world.publish(edit);
        assert_eq!(world.current[&RoleName::Root], saved);
        let trusted = world.fresh();
        assert_eq!(trusted.top().doc().version, 2);
        assert!(trusted.top().doc().targets.contains_key("1.2"));
    }
}

#[test]
fn a_saved_root_that_nobody_would_believe_is_not_sent_again() {
    let world = World::new();
    let saved = world.current[&RoleName::Root].clone();
    let resume = |wire, now| Edit::resume_init(world.gun.clone(), wire, 1, now).map(drop);
    assert_eq!(resume(saved.clone(), NOW), Ok(()));
    assert!(matches!(
        resume(saved.clone(), NOW + 3651 * DAY),
        Err(EditError::Saved { .. })
    ));
    assert!(matches!(
        resume(saved[1..].to_vec(), NOW),
        Err(EditError::Saved { .. })
    ));
}

#[test]
fn a_root_is_signed_again_in_its_last_six_months_where_its_key_is_held() {
    let mut world = World::new();
    // All roles live on; only the root nears its end.
    world.now = NOW + (3650 - 100) * DAY;
    let mut top = world.targets(&TARGETS);
    top.version += 1;
    top.expires = Expiry::at(world.now + DAY);
    world.put_targets(&top);

    let mut with_key = edit(&mut world);
    with_key.add(&TARGETS, "1.2", target(1)).unwrap();
    assert!(with_key.root_needs_resign());
    let root_key = world.root().roles[&RoleName::Root].key_ids[0];
    let bare = world.root().keys[&root_key].canonical_id().unwrap();
    let requests = with_key.requests(&|id: &KeyId| *id != bare).unwrap();
    assert_eq!(requests.len(), 1, "without the key nothing fails");
    world.publish(with_key);
    let trusted = world.fresh();
    assert_eq!(trusted.root().doc().version, 2);
    assert_eq!(trusted.root().doc().expires.unix(), world.now + 3650 * DAY);
    assert!(!Edit::of(&trusted, world.now).root_needs_resign());
}

#[test]
fn a_delegation_that_was_never_published_starts_at_one() {
    let mut world = World::new();
    world.delegate("targets/releases", &[""]);
    let releases = role("targets/releases");
    let mut edit = edit(&mut world);
    edit.add(&releases, "1.2", target(1)).unwrap();
    let requests = edit.requests(&|_: &KeyId| true).unwrap();
    assert_eq!(
        requests.iter().map(|r| &r.role).collect::<Vec<_>>(),
        [&releases]
    );
    world.publish(edit);
    let trusted = world.fresh();
    assert_eq!(trusted.targets[&releases].doc().version, 1);
    let mut again = Edit::of(&trusted, NOW);
    again.add(&releases, "1.3", target(1)).unwrap();
    world.publish(again);
    assert_eq!(world.fresh().targets[&releases].doc().version, 2);
}

#[test]
fn a_role_that_nothing_lists_takes_no_tags() {
    let mut world = World::new();
    world.delegate("targets/a", &["v"]);
    let mut edit = edit(&mut world);
    for name in ["targets/b", "targets/a/b", "root", "snapshot", "timestamp"] {
        let error = edit.add(&role(name), "v1", target(1)).unwrap_err();
        assert_eq!(error, EditError::UnknownRole(role(name)));
    }
    assert!(matches!(
        edit.add(&role("targets/a"), "x", target(1)),
        Err(EditError::BadTag { .. })
    ));
    edit.add(&role("targets/a"), "v1", target(1)).unwrap();
}

#[test]
fn tags_that_go_could_not_write_are_refused() {
    let mut world = World::new();
    let mut edit = edit(&mut world);
    let long = "x".repeat(1025);
    for tag in ["", "a\nb", "a\u{7f}", "\u{0}", "\u{85}", &long] {
        assert!(matches!(
            edit.add(&TARGETS, tag, target(1)),
            Err(EditError::BadTag { .. })
        ));
    }
    let with = |custom: &str| Target {
        custom: Some(custom.to_owned()),
        ..target(1)
    };
    for custom in [
        "{\"b\":1,\"a\":1}",
        "{ }",
        "\"<\"",
        "\"é\"",
        "1.5",
        "1e3",
        "\"\\n\"",
        "",
        "9007199254740993",
    ] {
        assert!(edit.add(&TARGETS, "x", with(custom)).is_err(), "{custom}");
    }
    assert!(
        edit.add(&TARGETS, "x", with("{\"a\":[1,null,true],\"b\":\"c\"}"))
            .is_ok()
    );
    assert!(
        edit.add(
            &TARGETS,
            "x",
            Target {
                length: u64::MAX,
                ..target(1)
            }
        )
        .is_err()
    );
    let no_digest = Target {
        hashes: Default::default(),
        ..target(1)
    };
    assert!(edit.add(&TARGETS, "x", no_digest).is_err());
}

#[test]
fn a_published_tag_with_a_control_character_stops_the_edit_and_can_be_removed() {
    let mut world = World::new();
    let mut top = world.targets(&TARGETS);
    top.version += 1;
    top.targets.insert("bad\ttag".to_owned(), target(1));
    // No Go client could have written it; another client might.
    let canonical = signet_trust::document::Body::canonical(&top);
    let id = world.root().roles[&TARGETS].key_ids[0];
    let wire = signet_trust::document::to_wire(&canonical, &[world.ours.sign(&id, &canonical)]);
    let wire = String::from_utf8(wire)
        .unwrap()
        .replace('\t', "\\t")
        .into_bytes();
    world.upload([(TARGETS, wire)].into());

    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let error = edit.requests(&|_: &KeyId| true).unwrap_err();
    assert!(
        matches!(error, EditError::BadTag { ref tag, .. } if tag == "bad\ttag"),
        "{error}"
    );
    edit.remove(&TARGETS, "bad\ttag").unwrap();
    assert_eq!(edit.requests(&|_: &KeyId| true).unwrap().len(), 1);
}

#[test]
fn tags_go_where_docker_would_put_them() {
    let mut world = World::new();
    let all = |_: &KeyId| true;
    assert_eq!(
        signable_roles(&world.fresh(), "1.2", &all),
        Ok(vec![TARGETS])
    );

    let releases = world.delegate("targets/releases", &[""]);
    let alice = world.delegate("targets/alice", &["v"]);
    world.delegate("targets/none", &[]);
    // Not a child of `targets`: docker does not sign into it, and neither do readers follow it.
    world.delegate("targets/alice/below", &[""]);
    let trusted = world.fresh();
    let roles = |tag: &str, held: &[&PublicKey]| {
        let ids: Vec<KeyId> = held.iter().map(|key| key.id()).collect();
        signable_roles(&trusted, tag, &move |id: &KeyId| ids.contains(id))
    };
    assert_eq!(
        roles("v1", &[&releases, &alice]),
        Ok(vec![role("targets/releases"), role("targets/alice")])
    );
    assert_eq!(
        roles("1", &[&releases, &alice]),
        Ok(vec![role("targets/releases")])
    );
    assert_eq!(roles("v1", &[&alice]), Ok(vec![role("targets/alice")]));
    let all = |_: &KeyId| true;
    assert_eq!(
        signable_roles(&trusted, "1", &all),
        Ok(vec![role("targets/releases")])
    );
    // Once there is a delegation the targets key signs no tags.
    let targets_key = world.root().keys[&world.root().roles[&TARGETS].key_ids[0]].clone();
    let error = roles("1", &[&targets_key]).unwrap_err();
    assert_eq!(
        error,
        EditError::NoSignableRole {
            tag: "1".to_owned(),
            needed: vec![releases.id()]
        }
    );
}

#[test]
fn a_threshold_of_two_needs_two_of_our_keys() {
    let mut world = World::new();
    let mut root = world.root();
    let second = world.ours.bare();
    root.version += 1;
    root.keys.insert(second.id(), second.clone());
    let listed = root.roles.get_mut(&TARGETS).unwrap();
    listed.key_ids.push(second.id());
    listed.threshold = 2;
    let by = root.roles[&RoleName::Root].key_ids.clone();
    let wire = world.ours.wire(&root, &by);
    let ids = root.roles[&TARGETS].key_ids.clone();
    world.upload([(RoleName::Root, wire)].into());
    let mut top = world.targets(&TARGETS);
    top.version += 1;
    let wire = world.ours.wire(&top, &ids);
    world.upload([(TARGETS, wire)].into());

    let mut edit = edit(&mut world);
    edit.add(&TARGETS, "1.2", target(1)).unwrap();
    let error = edit.requests(&|id: &KeyId| *id != second.id()).unwrap_err();
    assert_eq!(
        error,
        EditError::NoKey {
            role: TARGETS,
            needed: vec![second.id()]
        }
    );

    // The two may come one after the other; half of them is not uploaded.
    let request = edit.requests(&|_: &KeyId| true).unwrap().remove(0);
    let signatures = world.ours.answer(&request);
    assert_eq!(signatures.len(), 2);
    edit.sign(&TARGETS, vec![signatures[0].clone()]).unwrap();
    edit.sign(&TARGETS, vec![signatures[0].clone()]).unwrap();
    let held = |_: &KeyId| false;
    assert_eq!(edit.snapshot_request(&held, None), Ok(None));
    edit.sign(&TARGETS, vec![signatures[1].clone()]).unwrap();
    let upload = edit.finish();
    world.upload(upload);
    assert!(world.fresh().top().doc().targets.contains_key("1.2"));
}
