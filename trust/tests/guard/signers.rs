//! What is refused beside the table: keys, thresholds, expiry, form.

use signet_trust::{
    RoleName,
    document::Root,
    guard::{History, Refusal, Rule, State},
    payload::{Item, Payload},
    time::{Expiry, lifetime},
};

use crate::world::{
    DAY, NOW, Server, alice_item, ask, history, item, keys, plain_root, role, root_document,
    root_item, root_key, targets_document, targets_item, with_alice,
};

fn rule(result: Result<signet_trust::guard::Pass, Refusal>) -> Rule {
    match result {
        Err(Refusal::Refused {
            rule,
            can_override: true,
            ..
        }) => rule,
        other => panic!("not a refusal that can be overridden: {other:?}"),
    }
}

fn is_malformed(result: &Result<signet_trust::guard::Pass, Refusal>) -> bool {
    matches!(
        result,
        Err(Refusal::Refused {
            can_override: false,
            ..
        })
    )
}

fn both_roots(root: &Root) -> Item {
    let ids = vec![
        keys().root.certificate.id(),
        keys().other_root.certificate.id(),
    ];
    item(RoleName::Root, root, ids)
}

#[test]
fn a_key_that_nothing_verified_lists_is_refused() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let mallory = keys().mallory.id();
    let next = targets_document(9, 2);
    for items in [
        vec![item(RoleName::Targets, &next, vec![mallory])],
        vec![item(
            RoleName::Targets,
            &next,
            vec![keys().targets.id(), mallory],
        )],
        vec![item(
            RoleName::Root,
            &plain_root(2),
            vec![keys().root.certificate.id(), mallory],
        )],
        // By its bare ID a root key is not listed: documents name the certificate.
        vec![item(
            RoleName::Root,
            &plain_root(2),
            vec![keys().root.key.id()],
        )],
        vec![alice_item(&targets_document(1, 1))],
    ] {
        assert_eq!(rule(ask(&history, Some(&base), &items, &[])), Rule::Key);
    }
    let items = [item(RoleName::Targets, &next, vec![mallory])];
    let pass = ask(&history, Some(&base), &items, &[Rule::Key]).unwrap();
    assert_eq!(pass.overrides, [Rule::Key]);
}

#[test]
fn a_new_root_lists_the_new_root_and_targets_keys() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let root = root_document(2, &keys().other_root.certificate, keys().mallory.public());
    let targets = item(
        RoleName::Targets,
        &targets_document(9, 2),
        vec![keys().mallory.id()],
    );
    let items = [both_roots(&root), targets.clone()];
    ask(&history, Some(&base), &items, &[]).unwrap();
    assert_eq!(rule(ask(&history, Some(&base), &[targets], &[])), Rule::Key);
}

#[test]
fn a_new_root_that_is_refused_lists_nothing() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let root = root_document(3, &keys().other_root.certificate, keys().mallory.public());
    let targets = item(
        RoleName::Targets,
        &targets_document(9, 2),
        vec![keys().mallory.id()],
    );
    let items = [both_roots(&root), targets];
    assert_eq!(
        rule(ask(&history, Some(&server.base()), &items, &[])),
        Rule::Gap
    );
}

#[test]
fn a_new_targets_file_lists_new_delegation_keys() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let targets = with_alice(targets_document(9, 1), keys().alice.public());
    let items = [alice_item(&targets_document(1, 1)), targets_item(&targets)];
    let pass = ask(&history, Some(&base), &items, &[]).unwrap();
    assert!(pass.state.roles.contains_key(&role("targets/alice")));
}

#[test]
fn a_certificate_for_another_repository_signs_no_root() {
    let other = root_key(9, &"docker.io/me/other".parse().unwrap());
    let root = root_document(1, &other.certificate, keys().targets.public());
    let items = [item(RoleName::Root, &root, vec![other.certificate.id()])];
    assert_eq!(rule(ask(&History::default(), None, &items, &[])), Rule::Key);
}

#[test]
fn a_root_is_signed_by_the_current_keys_and_by_its_own() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let root = root_document(2, &keys().other_root.certificate, keys().targets.public());
    let by = |ids| item(RoleName::Root, &root, ids);
    let (old, new) = (
        keys().root.certificate.id(),
        keys().other_root.certificate.id(),
    );
    for ids in [vec![old], vec![new], vec![new, new]] {
        assert_eq!(
            rule(ask(&history, Some(&base), &[by(ids)], &[])),
            Rule::Threshold
        );
    }
    assert!(ask(&history, Some(&base), &[by(vec![new, old])], &[]).is_ok());
}

#[test]
fn a_threshold_of_two_root_keys_needs_both() {
    let mut server = Server::with_targets(8, 1);
    let mut root = plain_root(2);
    let other = &keys().other_root.certificate;
    root.keys.insert(other.id(), other.clone());
    let listed = root.roles.get_mut(&RoleName::Root).unwrap();
    listed.key_ids.push(other.id());
    listed.threshold = 2;
    let history = history(&server, State::default());
    let one = [root_item(&root)];
    assert_eq!(
        rule(ask(&history, Some(&server.base()), &one, &[])),
        Rule::Threshold
    );
    ask(&history, Some(&server.base()), &[both_roots(&root)], &[]).unwrap();

    // Once published, one host can add its signature to it.
    server.take_root(&root, &[&keys().root, &keys().other_root]);
    ask(&history, Some(&server.base()), &one, &[]).unwrap();

    let mut lower = root.clone();
    lower.version = 3;
    lower.roles.get_mut(&RoleName::Root).unwrap().threshold = 1;
    let items = [both_roots(&lower)];
    assert_eq!(
        rule(ask(&history, Some(&server.base()), &items, &[])),
        Rule::Threshold
    );
    let pass = ask(&history, Some(&server.base()), &items, &[Rule::Threshold]).unwrap();
    assert_eq!(pass.overrides, [Rule::Threshold]);
}

#[test]
fn a_base_role_never_loses_its_keys() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    for name in [
        RoleName::Root,
        RoleName::Targets,
        RoleName::Snapshot,
        RoleName::Timestamp,
    ] {
        let mut root = plain_root(2);
        root.roles.get_mut(&name).unwrap().key_ids.clear();
        // The reader refuses some of these as no root at all; none of them passes.
        let refused = rule(ask(
            &history,
            Some(&server.base()),
            &[root_item(&root)],
            &[],
        ));
        assert!(
            matches!(refused, Rule::Threshold | Rule::Opaque | Rule::Key),
            "{name}: {refused}"
        );

        let mut root = plain_root(2);
        root.roles.get_mut(&name).unwrap().threshold = 2;
        let refused = rule(ask(
            &history,
            Some(&server.base()),
            &[root_item(&root)],
            &[],
        ));
        assert!(
            matches!(refused, Rule::Threshold | Rule::Opaque),
            "{name}: {refused}"
        );
    }
}

#[test]
fn removing_the_last_signer_of_a_delegation_is_not_refused() {
    let mut server = Server::with_targets(8, 1);
    let targets = with_alice(targets_document(9, 1), keys().alice.public());
    server.take(RoleName::Targets, &targets);
    let mut next = targets.clone();
    next.version = 10;
    next.delegations.keys.clear();
    next.delegations.roles.as_mut().unwrap()[0].key_ids = None;
    ask(
        &history(&server, State::default()),
        Some(&server.base()),
        &[targets_item(&next)],
        &[],
    )
    .unwrap();
}

#[test]
fn an_expiry_past_or_beyond_policy_is_refused() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let targets = |at| {
        let mut targets = targets_document(9, 2);
        targets.expires = Expiry::at(at);
        [targets_item(&targets)]
    };
    for at in [
        NOW - 1,
        NOW + lifetime::TARGETS + 2 * DAY,
        NOW + lifetime::ROOT,
    ] {
        assert_eq!(
            rule(ask(&history, Some(&base), &targets(at), &[])),
            Rule::Expiry
        );
    }
    for at in [NOW + 1, NOW + lifetime::TARGETS + DAY / 2] {
        ask(&history, Some(&base), &targets(at), &[]).unwrap();
    }
    let pass = ask(&history, Some(&base), &targets(NOW - 1), &[Rule::Expiry]).unwrap();
    assert_eq!(pass.overrides, [Rule::Expiry]);

    let mut root = plain_root(2);
    root.expires = Expiry::at(NOW + lifetime::ROOT + 2 * DAY);
    assert_eq!(
        rule(ask(&history, Some(&base), &[root_item(&root)], &[])),
        Rule::Expiry
    );
}

#[test]
fn opaque_bytes_are_refused_unless_allowed_and_change_no_version() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let opaque = |key_ids| {
        [Item {
            role: RoleName::Targets,
            payload: Payload::read(b"anything".to_vec()),
            key_ids,
        }]
    };
    let items = opaque(vec![keys().targets.id()]);
    assert_eq!(
        rule(ask(&history, Some(&server.base()), &items, &[])),
        Rule::Opaque
    );
    let pass = ask(&history, Some(&server.base()), &items, &[Rule::Opaque]).unwrap();
    assert_eq!(pass.overrides, [Rule::Opaque]);
    assert_eq!(pass.state.roles[&RoleName::Targets].signed, None);
    let items = opaque(vec![keys().mallory.id()]);
    assert_eq!(
        rule(ask(&history, Some(&server.base()), &items, &[Rule::Opaque])),
        Rule::Key
    );
}

#[test]
fn malformed_requests_have_no_override() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let every = [
        Rule::Check,
        Rule::Expiry,
        Rule::Gap,
        Rule::Key,
        Rule::Lineage,
        Rule::Opaque,
        Rule::Rollback,
        Rule::Restart,
        Rule::Threshold,
    ];
    let targets = targets_item(&targets_document(9, 2));
    for items in [
        vec![],
        vec![targets.clone(), targets],
        vec![item(RoleName::Targets, &targets_document(9, 2), vec![])],
        vec![item(
            RoleName::Targets,
            &plain_root(9),
            vec![keys().targets.id()],
        )],
        vec![item(
            RoleName::Root,
            &targets_document(9, 2),
            vec![keys().root.certificate.id()],
        )],
        vec![item(
            RoleName::Timestamp,
            &targets_document(9, 2),
            vec![keys().timestamp.id()],
        )],
    ] {
        let answer = ask(&history, Some(&server.base()), &items, &every);
        assert!(is_malformed(&answer), "{answer:?}");
    }
}

#[test]
fn a_rule_is_read_from_the_word_it_is_written_as() {
    for rule in [
        Rule::Check,
        Rule::Expiry,
        Rule::Gap,
        Rule::Key,
        Rule::Lineage,
        Rule::Opaque,
        Rule::Rollback,
        Rule::Restart,
        Rule::Threshold,
    ] {
        assert_eq!(rule.as_str().parse(), Ok(rule));
    }
    assert!("Rollback".parse::<Rule>().is_err());
}
