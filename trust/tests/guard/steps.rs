//! The second step: a snapshot whose key we hold.

use signet_trust::{
    RoleName,
    document::{FileMeta, Snapshot},
    guard::{History, Rule, State, snapshot_is_covered},
    payload::Payload,
    time::{Expiry, lifetime},
};

use crate::world::{
    NOW, Server, ask, history, item, keys, plain_root, role, root_item, signed, targets_document,
    targets_item,
};
use signet_trust::document::Body as _;

fn snapshot(version: u32, entries: &[(RoleName, &[u8])]) -> Snapshot {
    Snapshot {
        expires: Expiry::at(NOW + lifetime::SNAPSHOT),
        meta: entries
            .iter()
            .map(|(role, wire)| (role.clone(), FileMeta::of(wire)))
            .collect(),
        version,
    }
}

fn payload(snapshot: &Snapshot) -> Payload {
    Payload::read(snapshot.canonical())
}

#[test]
fn the_snapshot_of_a_first_publish_passes_after_its_documents() {
    let (root, targets) = (plain_root(1), targets_document(1, 1));
    let first = [root_item(&root), targets_item(&targets)];
    let pass = ask(&History::default(), None, &first, &[]).unwrap();
    let history = History {
        collections: [(pass.lineage, pass.state)].into(),
    };

    let root_wire = signed(&root, &[(keys().root.certificate.id(), &keys().root.key)]);
    let targets_wire = signed(&targets, &[(keys().targets.id(), &keys().targets)]);
    let entries = [
        (RoleName::Root, &root_wire[..]),
        (RoleName::Targets, &targets_wire[..]),
    ];
    let snapshot = snapshot(1, &entries);
    assert!(snapshot_is_covered(None, &payload(&snapshot), &entries));

    let item = item(RoleName::Snapshot, &snapshot, vec![keys().snapshot.id()]);
    let [root, targets] = first;
    let pass = ask(&history, None, &[root, targets, item], &[]).unwrap();
    assert!(!pass.new_lineage && pass.supersedes.is_empty() && pass.overrides.is_empty());
    assert_eq!(
        pass.state.roles[&RoleName::Snapshot]
            .signed
            .unwrap()
            .0
            .version,
        1
    );
}

#[test]
fn the_next_snapshot_follows_the_rules_of_every_version() {
    let server = Server::with_targets(8, 1);
    let history = history(&server, State::default());
    let base = server.base();
    let ask_for = |version, allow: &[Rule]| {
        let mut next = server.snapshot_document();
        next.version = version;
        let item = item(RoleName::Snapshot, &next, vec![keys().snapshot.id()]);
        ask(&history, Some(&base), &[item], allow)
    };
    let next = server.snapshot + 1;
    assert!(ask_for(next, &[]).is_ok());
    for (version, rule) in [(next + 1, Rule::Gap), (next - 2, Rule::Rollback)] {
        assert_eq!(ask_for(version, &[]).unwrap_err().rule(), rule);
    }
    let mut snapshot = server.snapshot_document();
    snapshot.version = next;
    let mallory = item(RoleName::Snapshot, &snapshot, vec![keys().mallory.id()]);
    assert_eq!(
        ask(&history, Some(&base), &[mallory], &[])
            .unwrap_err()
            .rule(),
        Rule::Key
    );
}

#[test]
fn consent_covers_a_snapshot_that_differs_only_in_what_was_released() {
    let mut server = Server::with_targets(8, 1);
    let base = server.base();
    let old = server.files[&RoleName::Targets].clone();
    server.take(RoleName::Targets, &targets_document(9, 2));
    let new = server.files[&RoleName::Targets].clone();
    let released = [(RoleName::Targets, &new[..])];
    let mut snapshot = server.snapshot_document();
    assert!(snapshot_is_covered(
        Some(&base),
        &payload(&snapshot),
        &released
    ));
    snapshot.version += 5;
    snapshot.expires = Expiry::at(NOW + 1);
    assert!(snapshot_is_covered(
        Some(&base),
        &payload(&snapshot),
        &released
    ));

    assert!(
        !snapshot_is_covered(Some(&base), &payload(&snapshot), &[]),
        "nothing was released"
    );
    let other = [(RoleName::Targets, &old[..])];
    assert!(
        !snapshot_is_covered(Some(&base), &payload(&snapshot), &other),
        "another file"
    );

    let mut more = snapshot.clone();
    more.meta
        .insert(role("targets/alice"), FileMeta::of(b"alice"));
    assert!(
        !snapshot_is_covered(Some(&base), &payload(&more), &released),
        "an entry more"
    );

    let mut root = snapshot.clone();
    root.meta.insert(RoleName::Root, FileMeta::of(b"root"));
    assert!(
        !snapshot_is_covered(Some(&base), &payload(&root), &released),
        "another root"
    );

    let mut fewer = snapshot.clone();
    fewer.meta.remove(&RoleName::Root);
    assert!(
        !snapshot_is_covered(Some(&base), &payload(&fewer), &released),
        "an entry less"
    );

    let no_snapshot = Payload::read(b"{}".to_vec());
    assert!(!snapshot_is_covered(Some(&base), &no_snapshot, &released));
}
