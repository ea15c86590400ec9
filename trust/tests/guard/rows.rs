//! Each row of the table.

use signet_trust::{
    RoleName,
    base::{BaseDocuments, RecordedRoot, VerifiedBase},
    guard::{
        History, Mark, Refusal, Rule, Standing, State, check_creation, observe, published,
        shows_newest_root,
    },
};

use crate::world::{
    DAY, NOW, Server, alice_item, ask, gun, history, keys, mark, plain_root, role, root_document,
    root_item, signed, targets_document, targets_item, with_alice,
};

fn refused(refusal: Refusal) -> (Rule, u32) {
    match refusal {
        Refusal::Refused {
            rule,
            next,
            can_override: true,
            ..
        } => (rule, next),
        other => panic!("not a refusal that can be overridden: {other:?}"),
    }
}

fn stale(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::StaleBase { next, .. } => next,
        other => panic!("not stale: {other:?}"),
    }
}

fn restart(refusal: Refusal) {
    match refusal {
        Refusal::RefetchOnce {
            rule: Rule::Restart,
            next: 1,
            ..
        } => {}
        other => panic!("not a restart: {other:?}"),
    }
}

/// The state after this base was seen and this version of targets was released.
fn released(server: &Server, version: u32, content: u8) -> (State, Mark) {
    let state = observe(&State::default(), &server.base());
    let item = targets_item(&targets_document(version, content));
    let pass = ask(
        &history(server, state),
        Some(&server.base()),
        std::slice::from_ref(&item),
        &[],
    )
    .unwrap();
    (pass.state, mark(&item))
}

fn signed_mark(state: &State, role: &RoleName) -> Option<(Mark, Standing)> {
    state.roles.get(role).and_then(|known| known.signed)
}

// ------------------------------------------------------------ first use, and the ordinary case

#[test]
fn first_use_of_a_published_repository_is_recorded_and_said() {
    let server = Server::with_targets(8, 1);
    let base = server.verified(&[]).unwrap();
    assert_eq!(base.lineage(), None);
    let item = targets_item(&targets_document(9, 2));
    let pass = ask(
        &History::default(),
        Some(&base),
        std::slice::from_ref(&item),
        &[],
    )
    .unwrap();
    assert!(pass.new_lineage && pass.superseded_lineages.is_empty() && pass.overrides.is_empty());
    assert_eq!(pass.lineage, base.own_lineage());
    let known = &pass.state.roles[&RoleName::Targets];
    assert_eq!(known.seen.unwrap().version, 8);
    assert_eq!(known.signed, Some((mark(&item), Standing::Released)));
    assert_eq!(pass.state.timestamp, Some(server.timestamp));
}

#[test]
fn the_next_version_passes() {
    let server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    assert_eq!(
        signed_mark(&state, &RoleName::Targets),
        Some((v9, Standing::Released))
    );
    let state = published(&state, &[(RoleName::Targets, v9)]);
    assert_eq!(
        signed_mark(&state, &RoleName::Targets),
        Some((v9, Standing::Published))
    );

    let mut server = server;
    server.take(RoleName::Targets, &targets_document(9, 2));
    let item = targets_item(&targets_document(10, 3));
    let pass = ask(&history(&server, state), Some(&server.base()), &[item], &[]).unwrap();
    assert!(!pass.new_lineage && pass.supersedes.is_empty());
}

#[test]
fn versions_of_other_hosts_docker_or_notary_in_between_pass() {
    let mut server = Server::with_targets(8, 1);
    let (state, _) = released(&server, 9, 2);
    for version in 9..15 {
        server.take(
            RoleName::Targets,
            &targets_document(version, 100 + version as u8),
        );
    }
    let item = targets_item(&targets_document(15, 3));
    let pass = ask(&history(&server, state), Some(&server.base()), &[item], &[]).unwrap();
    assert!(pass.supersedes.is_empty() && pass.overrides.is_empty());
}

// ------------------------------------------------------------ no base: restart

#[test]
fn nothing_on_the_server_for_a_published_lineage_is_refetched_then_refused() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, observe(&State::default(), &server.base()));
    let new = root_document(1, &keys().other_root.certificate, keys().targets.public());
    let mut new = root_item(&new);
    new.key_ids = vec![keys().other_root.certificate.id()];
    for items in [
        vec![new],
        vec![root_item(&plain_root(1))],
        vec![targets_item(&targets_document(9, 2))],
        vec![
            targets_item(&targets_document(1, 2)),
            root_item(&plain_root(1)),
        ],
    ] {
        restart(ask(&history, None, &items, &[]).unwrap_err());
    }
    restart(check_creation(&history, &gun(), &[]).unwrap_err());
    assert_eq!(
        check_creation(&history, &gun(), &[Rule::Restart]),
        Ok(vec![Rule::Restart])
    );
    assert_eq!(check_creation(&History::default(), &gun(), &[]), Ok(vec![]));
}

#[test]
fn restart_can_be_allowed_and_makes_a_second_collection() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, observe(&State::default(), &server.base()));
    let new = root_document(1, &keys().other_root.certificate, keys().targets.public());
    let mut new = root_item(&new);
    new.key_ids = vec![keys().other_root.certificate.id()];
    let items = [new, targets_item(&targets_document(1, 2))];
    let pass = ask(&history, None, &items, &[Rule::Restart]).unwrap();
    assert_eq!(pass.overrides, [Rule::Restart]);
    assert!(pass.new_lineage && !history.collections.contains_key(&pass.lineage));
    assert!(
        pass.superseded_lineages.is_empty(),
        "a published lineage stays on record"
    );
}

#[test]
fn the_same_root_published_again_after_a_restart_starts_from_nothing() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, observe(&State::default(), &server.base()));
    let items = [
        root_item(&plain_root(1)),
        targets_item(&targets_document(1, 2)),
    ];
    let pass = ask(&history, None, &items, &[Rule::Restart]).unwrap();
    assert!(!pass.new_lineage);
    assert_eq!(pass.state.roles[&RoleName::Targets].seen, None);
    assert_eq!(pass.state.timestamp, None);
}

#[test]
fn a_first_publish_of_root_and_targets_passes() {
    for version in [1, 2] {
        let root = root_item(&plain_root(version));
        let targets = targets_item(&targets_document(version, 1));
        let items = [targets, root.clone()];
        let pass = ask(&History::default(), None, &items, &[]).unwrap();
        assert!(pass.new_lineage);
        assert_eq!(pass.lineage.0, root.payload.hash());
        assert_eq!(
            signed_mark(&pass.state, &RoleName::Root).unwrap().0,
            mark(&root)
        );
    }
    let items = [
        root_item(&plain_root(3)),
        targets_item(&targets_document(1, 1)),
    ];
    let refusal = ask(&History::default(), None, &items, &[]).unwrap_err();
    assert_eq!(refused(refusal), (Rule::Gap, 1));
}

#[test]
fn a_first_publish_that_never_arrived_is_published_again_unchanged() {
    let items = [
        root_item(&plain_root(1)),
        targets_item(&targets_document(1, 1)),
    ];
    let first = ask(&History::default(), None, &items, &[]).unwrap();
    let history = History {
        collections: [(first.lineage, first.state.clone())].into(),
    };
    let again = ask(&history, None, &items, &[]).unwrap();
    assert_eq!((again.lineage, again.new_lineage), (first.lineage, false));
    assert!(again.supersedes.is_empty());
    assert_eq!(again.state, first.state);

    let other = [
        root_item(&plain_root(1)),
        targets_item(&targets_document(1, 2)),
    ];
    let again = ask(&history, None, &other, &[]).unwrap();
    assert_eq!(again.supersedes, [(RoleName::Targets, mark(&items[1]))]);
}

#[test]
fn a_first_root_that_never_arrived_goes_along_as_base_and_is_not_signed_again() {
    let keys = keys();
    let root = plain_root(1);
    let wire = signed(&root, &[(keys.root.certificate.id(), &keys.root.key)]);
    let items = [root_item(&root), targets_item(&targets_document(1, 1))];
    let first = ask(&History::default(), None, &items, &[]).unwrap();
    let recorded = RecordedRoot {
        lineage: first.lineage,
        wire: wire.clone(),
    };
    let documents = BaseDocuments {
        roots: vec![wire],
        ..BaseDocuments::default()
    };
    let base = VerifiedBase::verify(&gun(), documents, &[recorded], NOW).unwrap();
    let history = |state: State| History {
        collections: [(first.lineage, state)].into(),
    };

    let other = [targets_item(&targets_document(1, 2))];
    let again = ask(&history(first.state.clone()), Some(&base), &other, &[]).unwrap();
    assert_eq!(again.lineage, first.lineage);
    assert_eq!(again.supersedes, [(RoleName::Targets, mark(&items[1]))]);
    assert!(!again.state.is_published(), "nothing was seen on a server");

    let arrived = published(&first.state, &[(RoleName::Targets, mark(&items[1]))]);
    let refusal = ask(&history(arrived), Some(&base), &other, &[]).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::Refused {
                can_override: false,
                ..
            }
        ),
        "a published collection is judged by all of its base: {refusal:?}"
    );
}

#[test]
fn a_lineage_never_published_is_superseded_by_a_new_first_root() {
    let first = ask(&History::default(), None, &[root_item(&plain_root(1))], &[]).unwrap();
    let history = History {
        collections: [(first.lineage, first.state)].into(),
    };
    let second = root_item(&plain_root(2));
    let pass = ask(&history, None, std::slice::from_ref(&second), &[]).unwrap();
    assert!(pass.new_lineage && pass.overrides.is_empty());
    assert_eq!(pass.superseded_lineages, [first.lineage]);
    assert_eq!(
        pass.supersedes,
        [(RoleName::Root, mark(&root_item(&plain_root(1))))]
    );
    assert_eq!(
        signed_mark(&pass.state, &RoleName::Root).unwrap().0,
        mark(&second)
    );
}

#[test]
fn targets_without_any_root_are_malformed() {
    let item = targets_item(&targets_document(1, 1));
    let refusal = ask(&History::default(), None, &[item], &[Rule::Key]).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::Refused {
                can_override: false,
                ..
            }
        ),
        "{refusal:?}"
    );
}

// ------------------------------------------------------------ lineage

#[test]
fn a_chain_that_reaches_no_recorded_lineage_is_refused() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, observe(&State::default(), &server.base()));
    let mut other = server.clone();
    other.roots.clear();
    let root = root_document(1, &keys().other_root.certificate, keys().targets.public());
    other.take_root(&root, &[&keys().other_root]);
    let base = other.verified(&[server.record()]).unwrap();
    assert_eq!(base.lineage(), None);
    let items = [targets_item(&targets_document(9, 2))];
    let refusal = ask(&history, Some(&base), &items, &[]).unwrap_err();
    assert_eq!(refused(refusal), (Rule::Lineage, 9));

    let pass = ask(&history, Some(&base), &items, &[Rule::Lineage]).unwrap();
    assert!(pass.new_lineage && pass.overrides == [Rule::Lineage]);
    assert_eq!(pass.lineage, base.own_lineage());
    assert_eq!(history.collections.len(), 1, "the first stays beside it");
}

#[test]
fn a_second_root_at_a_version_seen_is_another_lineage() {
    let mut server = Server::with_targets(8, 1);
    let fork = server.clone();
    server.take_root(&plain_root(2), &[&keys().root]);
    let state = observe(&State::default(), &server.base());
    let mut fork = fork;
    let mut root = plain_root(2);
    root.expires = signet_trust::time::Expiry::at(NOW + DAY);
    fork.take_root(&root, &[&keys().root]);
    fork.timestamp = server.timestamp;
    fork.snapshot = server.snapshot;
    let items = [targets_item(&targets_document(9, 2))];
    let history = history(&server, state);
    let refusal = ask(&history, Some(&fork.base()), &items, &[]).unwrap_err();
    assert_eq!(refused(refusal).0, Rule::Lineage);
    assert!(ask(&history, Some(&server.base()), &items, &[]).is_ok());
    assert!(ask(&history, Some(&fork.base()), &items, &[Rule::Lineage]).is_ok());
    let state = &history.collections[&server.record().lineage];
    assert_eq!(observe(state, &fork.base()), *state, "it teaches nothing");
}

#[test]
fn a_chain_that_jumps_over_the_root_seen_is_another_lineage() {
    let mut server = Server::with_targets(8, 1);
    let mut fork = server.clone();
    let rotated = root_document(2, &keys().other_root.certificate, keys().targets.public());
    server.take_root(&rotated, &[&keys().root, &keys().other_root]);
    let state = observe(&State::default(), &server.base());
    // The old key, rotated away because it leaked, goes on from the first root.
    fork.take_root(&plain_root(3), &[&keys().root]);
    fork.timestamp = server.timestamp + 1;
    let recorded = [server.record()];
    for skip in [0, 1] {
        let mut fork = fork.clone();
        fork.roots.drain(..skip);
        let base = fork.verified(&recorded).unwrap();
        assert_eq!(base.lineage(), Some(recorded[0].lineage));
        let items = [targets_item(&targets_document(9, 2))];
        let history = history(&server, state.clone());
        let refusal = ask(&history, Some(&base), &items, &[]).unwrap_err();
        assert_eq!(refused(refusal).0, Rule::Lineage);
        assert_eq!(observe(&state, &base), state);
        assert!(!shows_newest_root(&state, &base));
    }
}

// ------------------------------------------------------------ stale bases

#[test]
fn a_base_older_than_what_was_seen_is_stale() {
    let old = Server::with_targets(8, 1);
    let mut new = old.clone();
    new.take(RoleName::Targets, &targets_document(9, 2));
    let history = history(&old, observe(&State::default(), &new.base()));
    let items = [targets_item(&targets_document(9, 3))];
    let next = stale(ask(&history, Some(&old.base()), &items, &[]).unwrap_err());
    assert_eq!(next, 10);
    assert!(
        ask(
            &history,
            Some(&new.base()),
            &[targets_item(&targets_document(next, 3))],
            &[]
        )
        .is_ok()
    );
}

#[test]
fn a_base_with_an_older_timestamp_is_stale() {
    let server = Server::with_targets(8, 1);
    let mut state = observe(&State::default(), &server.base());
    state.timestamp = Some(server.timestamp + 1);
    let items = [targets_item(&targets_document(9, 2))];
    assert_eq!(
        stale(ask(&history(&server, state), Some(&server.base()), &items, &[]).unwrap_err()),
        9
    );
}

#[test]
fn a_base_below_what_was_published_from_here_is_stale() {
    let server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    let state = published(&state, &[(RoleName::Targets, v9)]);
    let items = [targets_item(&targets_document(9, 3))];
    let history = history(&server, state);
    assert_eq!(
        stale(ask(&history, Some(&server.base()), &items, &[]).unwrap_err()),
        10
    );
}

#[test]
fn an_expired_timestamp_is_stale_for_all_but_root() {
    let mut server = Server::with_targets(8, 1);
    server.expires = NOW - 1;
    let history = history(&server, State::default());
    let base = server.base();
    let items = [targets_item(&targets_document(9, 2))];
    assert_eq!(
        stale(ask(&history, Some(&base), &items, &[]).unwrap_err()),
        9
    );
    assert!(ask(&history, Some(&base), &[root_item(&plain_root(2))], &[]).is_ok());
}

#[test]
fn a_server_that_really_went_back_needs_the_rollback_override() {
    let old = Server::with_targets(8, 1);
    let mut new = old.clone();
    new.take(RoleName::Targets, &targets_document(9, 2));
    new.take(RoleName::Targets, &targets_document(10, 3));
    let history = history(&old, observe(&State::default(), &new.base()));
    let items = [targets_item(&targets_document(9, 4))];
    let pass = ask(&history, Some(&old.base()), &items, &[Rule::Rollback]).unwrap();
    assert_eq!(pass.overrides, [Rule::Rollback]);
    assert_eq!(pass.state.timestamp, Some(old.timestamp));
    let root = &pass.state.roles[&RoleName::Root];
    assert_eq!(
        root.signed,
        root.seen.map(|seen| (seen, Standing::Published))
    );
    assert_eq!(
        pass.state.roles[&RoleName::Targets].seen.unwrap().version,
        8
    );
    assert_eq!(pass.state.roles[&RoleName::Targets].published, Some(8));
    assert_eq!(
        signed_mark(&pass.state, &RoleName::Targets),
        Some((mark(&items[0]), Standing::Released))
    );
}

#[test]
fn a_server_put_back_before_a_root_rotation_is_stale_and_no_other_lineage() {
    let old = Server::with_targets(8, 1);
    let mut new = old.clone();
    new.take_root(&plain_root(2), &[&keys().root]);
    let state = observe(&State::default(), &new.base());
    // Only the newest root is on record.
    let mut newest = new.record();
    newest.wire = new.roots[1].clone();
    let base = old.verified(&[newest]).unwrap();
    assert_eq!(base.lineage(), Some(old.record().lineage));
    assert!(!shows_newest_root(&observe(&state, &base), &base));
    assert!(shows_newest_root(&state, &new.base()));
    let items = [targets_item(&targets_document(9, 2))];
    stale(ask(&history(&old, state.clone()), Some(&base), &items, &[]).unwrap_err());
    let allow = [Rule::Rollback];
    let pass = ask(&history(&old, state), Some(&base), &items, &allow).unwrap();
    assert_eq!(pass.overrides, allow);
}

#[test]
fn an_override_that_was_not_needed_is_not_used() {
    let server = Server::with_targets(8, 1);
    let all = [
        Rule::Rollback,
        Rule::Gap,
        Rule::Lineage,
        Rule::Restart,
        Rule::Key,
        Rule::Expiry,
    ];
    let items = [targets_item(&targets_document(9, 2))];
    let history = history(&server, State::default());
    let pass = ask(&history, Some(&server.base()), &items, &all).unwrap();
    assert!(pass.overrides.is_empty());
}

// ------------------------------------------------------------ versions

#[test]
fn other_content_below_the_base_is_a_rollback() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    for version in 1..8 {
        let items = [targets_item(&targets_document(version, 2))];
        let refusal = ask(&history, Some(&server.base()), &items, &[]).unwrap_err();
        assert_eq!(refused(refusal), (Rule::Rollback, 9));
    }
}

#[test]
fn what_was_signed_before_is_a_rollback_once_the_server_is_beyond_it() {
    let mut server = Server::with_targets(8, 1);
    let (state, _) = released(&server, 9, 2);
    server.take(RoleName::Targets, &targets_document(9, 7));
    server.take(RoleName::Targets, &targets_document(10, 7));
    let items = [targets_item(&targets_document(9, 2))];
    let history = history(&server, state);
    let refusal = ask(&history, Some(&server.base()), &items, &[]).unwrap_err();
    assert_eq!(refused(refusal), (Rule::Rollback, 11));
}

#[test]
fn a_lost_race_is_fetched_again_and_signed_one_higher() {
    let mut server = Server::with_targets(8, 1);
    let (state, _) = released(&server, 9, 2);
    // Somebody else's 9 arrived first.
    server.take(RoleName::Targets, &targets_document(9, 7));
    let history = history(&server, state);
    let base = server.base();
    let again = [targets_item(&targets_document(9, 2))];
    assert_eq!(
        stale(ask(&history, Some(&base), &again, &[]).unwrap_err()),
        10
    );
    let pass = ask(
        &history,
        Some(&base),
        &[targets_item(&targets_document(10, 2))],
        &[],
    )
    .unwrap();
    assert!(pass.supersedes.is_empty() && pass.overrides.is_empty());
}

#[test]
fn the_base_itself_can_be_co_signed() {
    let server = Server::with_targets(8, 1);
    let items = [
        targets_item(&targets_document(8, 1)),
        root_item(&plain_root(1)),
    ];
    let history = history(&server, State::default());
    let pass = ask(&history, Some(&server.base()), &items, &[]).unwrap();
    let signed = signed_mark(&pass.state, &RoleName::Targets).unwrap();
    assert_eq!(signed, (mark(&items[0]), Standing::Published));
}

#[test]
fn co_signing_does_not_forget_what_was_released_above() {
    let server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    let items = [targets_item(&targets_document(8, 1))];
    let pass = ask(&history(&server, state), Some(&server.base()), &items, &[]).unwrap();
    assert_eq!(signed_mark(&pass.state, &RoleName::Targets).unwrap().0, v9);
    let items = [targets_item(&targets_document(9, 3))];
    let pass = ask(
        &history(&server, pass.state),
        Some(&server.base()),
        &items,
        &[],
    )
    .unwrap();
    assert_eq!(pass.supersedes, [(RoleName::Targets, v9)]);
}

#[test]
fn the_same_bytes_are_signed_again() {
    let server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    let items = [targets_item(&targets_document(9, 2))];
    let pass = ask(&history(&server, state), Some(&server.base()), &items, &[]).unwrap();
    assert!(pass.supersedes.is_empty());
    assert_eq!(
        signed_mark(&pass.state, &RoleName::Targets),
        Some((v9, Standing::Released))
    );
}

#[test]
fn a_version_released_that_never_arrived_is_superseded_and_named() {
    let server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    let items = [targets_item(&targets_document(9, 3))];
    let pass = ask(&history(&server, state), Some(&server.base()), &items, &[]).unwrap();
    assert_eq!(pass.supersedes, [(RoleName::Targets, v9)]);
    assert_eq!(
        signed_mark(&pass.state, &RoleName::Targets).unwrap().0,
        mark(&items[0])
    );
    assert!(pass.overrides.is_empty());
}

#[test]
fn a_released_version_that_a_base_shows_is_published() {
    let mut server = Server::with_targets(8, 1);
    let (state, v9) = released(&server, 9, 2);
    server.take(RoleName::Targets, &targets_document(9, 2));
    let state = observe(&state, &server.base());
    assert_eq!(
        signed_mark(&state, &RoleName::Targets),
        Some((v9, Standing::Published))
    );
    assert_eq!(state.roles[&RoleName::Targets].published, Some(9));
}

#[test]
fn a_gap_is_refused_because_it_erases_what_others_publish() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    for version in [10, 11, 1000, i32::MAX as u32] {
        let items = [targets_item(&targets_document(version, 2))];
        let refusal = ask(&history, Some(&base), &items, &[]).unwrap_err();
        assert_eq!(refused(refusal), (Rule::Gap, 9));
        let pass = ask(&history, Some(&base), &items, &[Rule::Gap]).unwrap();
        assert_eq!(pass.overrides, [Rule::Gap]);
    }
    let root = [root_item(&plain_root(3))];
    assert_eq!(
        refused(ask(&history, Some(&base), &root, &[]).unwrap_err()),
        (Rule::Gap, 2)
    );
}

// ------------------------------------------------------------ delegations the snapshot does not list

fn server_with_alice() -> Server {
    let mut server = Server::with_targets(8, 1);
    let targets = with_alice(targets_document(9, 1), keys().alice.public());
    server.take(RoleName::Targets, &targets);
    server
}

#[test]
fn a_new_delegation_starts_at_one() {
    let server = server_with_alice();
    let history = history(&server, State::default());
    let base = server.base();
    let pass = ask(
        &history,
        Some(&base),
        &[alice_item(&targets_document(1, 1))],
        &[],
    )
    .unwrap();
    assert!(pass.supersedes.is_empty());
    let refusal = ask(
        &history,
        Some(&base),
        &[alice_item(&targets_document(2, 1))],
        &[],
    );
    assert_eq!(refused(refusal.unwrap_err()), (Rule::Gap, 1));
}

#[test]
fn a_delegation_made_again_goes_on_above_all_that_is_known_of_it() {
    let alice = role("targets/alice");
    let server = server_with_alice();
    let mut before = server.clone();
    before.take(alice.clone(), &targets_document(5, 1));
    let mut state = observe(&State::default(), &before.base());
    state.timestamp = None;
    state.roles.remove(&RoleName::Snapshot);
    let next = |state: &State, server: &Server| {
        let items = [alice_item(&targets_document(100, 1))];
        let refusal = ask(
            &history(server, state.clone()),
            Some(&server.base()),
            &items,
            &[],
        );
        let (rule, next) = refused(refusal.unwrap_err());
        assert_eq!(rule, Rule::Gap);
        let items = [alice_item(&targets_document(next, 1))];
        ask(
            &history(server, state.clone()),
            Some(&server.base()),
            &items,
            &[],
        )
        .unwrap();
        next
    };
    assert_eq!(next(&state, &server), 6, "above what was seen");

    state.roles.get_mut(&alice).unwrap().published = Some(7);
    assert_eq!(
        next(&state, &server),
        8,
        "above what was published from here"
    );

    let mut served = server.clone();
    let wire = signed(
        &targets_document(11, 1),
        &[(keys().mallory.id(), &keys().mallory)],
    );
    served.unlisted.insert(alice.clone(), wire);
    assert_eq!(
        next(&state, &served),
        12,
        "above what the server still serves"
    );

    let wire = signed(
        &targets_document(2, 1),
        &[(keys().mallory.id(), &keys().mallory)],
    );
    served.unlisted.insert(alice, wire);
    assert_eq!(
        next(&state, &served),
        8,
        "what is served only raises the number"
    );
}

#[test]
fn a_listed_delegation_goes_on_from_its_document() {
    let mut server = server_with_alice();
    server.take(role("targets/alice"), &targets_document(5, 1));
    let history = history(&server, State::default());
    let base = server.base();
    assert!(
        ask(
            &history,
            Some(&base),
            &[alice_item(&targets_document(6, 2))],
            &[]
        )
        .is_ok()
    );
    let refusal = ask(
        &history,
        Some(&base),
        &[alice_item(&targets_document(4, 2))],
        &[],
    );
    assert_eq!(refused(refusal.unwrap_err()), (Rule::Rollback, 6));
}

#[test]
fn a_base_that_leaves_out_a_listed_role_is_malformed() {
    let mut server = server_with_alice();
    server.take(role("targets/alice"), &targets_document(5, 1));
    let mut documents = server.documents();
    documents.targets.remove(&role("targets/alice"));
    let base = VerifiedBase::verify(&gun(), documents, &[server.record()], NOW);
    let items = [alice_item(&targets_document(1, 2))];
    let refusal = ask(
        &history(&server, State::default()),
        Some(&base.unwrap()),
        &items,
        &[],
    );
    assert!(
        matches!(
            refusal,
            Err(Refusal::Refused {
                can_override: false,
                ..
            })
        ),
        "{refusal:?}"
    );
}

#[test]
fn every_refusal_names_its_rule_and_its_override() {
    let server = Server::with_targets(8, 1);
    let items = [targets_item(&targets_document(20, 2))];
    let refusal = ask(
        &history(&server, State::default()),
        Some(&server.base()),
        &items,
        &[],
    );
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "targets v20 of docker.io/me/app is beyond the next one: it could erase what others \
         publish meanwhile; version 9 is next (rule gap, override --allow gap)"
    );
}
