//! The words that a person is asked to approve, and what consent binds to.

use signet_trust::{
    KeyId, RoleName,
    base::VerifiedBase,
    document::{Target, Targets},
    payload::{Item, Payload, change_digest, summarise},
    time::{Expiry, lifetime},
};

use crate::world::{
    DAY, NOW, Server, alice_item, gun, item, keys, plain_root, role, root_document, root_item,
    targets_document, targets_item, with_alice,
};

fn label(id: &KeyId) -> Option<String> {
    let keys = keys();
    let labels = [
        (keys.root.key.id(), "family root"),
        (keys.alice.id(), "alice\u{202e}"),
        (keys.targets.id(), "app"),
    ];
    labels
        .iter()
        .find(|(known, _)| known == id)
        .map(|(_, label)| (*label).to_owned())
}

fn lines(base: Option<&VerifiedBase>, items: &[Item]) -> String {
    summarise(&gun(), base, items, NOW, &label).lines.join("\n")
}

fn tag(targets: &mut Targets, tag: &str, content: u8) {
    targets
        .targets
        .insert(tag.to_owned(), Target::of_manifest([content; 32], 528));
}

#[test]
fn tags_added_changed_and_removed_are_named() {
    let mut server = Server::with_targets(8, 1);
    let mut old = targets_document(9, 1);
    tag(&mut old, "old", 7);
    server.take(RoleName::Targets, &old);
    let mut new = targets_document(10, 2);
    tag(&mut new, "1.2", 0xab);
    assert_eq!(
        lines(Some(&server.base()), &[targets_item(&new)]),
        "docker.io/me/app: targets v9 → v10, until 2029-11-20
  + 1.2 sha256:abababababab… (528 bytes)
  ~ latest sha256:010101010101… → sha256:020202020202… (528 bytes)
  - old was sha256:070707070707…"
    );
}

#[test]
fn long_lists_are_cut_to_three_and_a_count() {
    let server = Server::with_targets(8, 1);
    let mut new = targets_document(9, 1);
    for n in 0..50_000 {
        tag(&mut new, &format!("t{n:05}"), 3);
    }
    let text = lines(Some(&server.base()), &[targets_item(&new)]);
    assert_eq!(text.lines().count(), 5);
    assert!(text.ends_with("\n  … and 49997 more added"), "{text}");
}

#[test]
fn without_a_base_everything_is_claimed() {
    let items = [
        root_item(&plain_root(1)),
        targets_item(&targets_document(1, 2)),
    ];
    let text = lines(None, &items);
    let wanted = format!(
        "docker.io/me/app (claimed): root (claimed) v1, compared with nothing, until 2036-11-18
  + family root ({root}) for root
  + app ({targets}) for targets
  + key {snapshot} for snapshot
  + key {timestamp} for timestamp
  the next root can be signed, until 2036-11-18, by family root ({root})
docker.io/me/app (claimed): targets (claimed) v1, compared with nothing, until 2029-11-20
  + latest sha256:020202020202… (528 bytes)",
        root = &keys().root.certificate.id().to_string()[..12],
        targets = &keys().targets.id().to_string()[..12],
        snapshot = &keys().snapshot.id().to_string()[..12],
        timestamp = &keys().timestamp.id().to_string()[..12],
    );
    assert_eq!(text, wanted);
}

#[test]
fn a_root_says_whose_keys_come_and_go_and_who_signs_next() {
    let server = Server::with_targets(8, 1);
    let mut root = root_document(2, &keys().other_root.certificate, keys().targets.public());
    root.roles
        .get_mut(&RoleName::Targets)
        .unwrap()
        .key_ids
        .push(keys().alice.id());
    root.keys
        .insert(keys().alice.id(), keys().alice.public().clone());
    let text = lines(Some(&server.base()), &[root_item(&root)]);
    let short = |id: KeyId| id.to_string()[..12].to_owned();
    let wanted = format!(
        "docker.io/me/app: root v1 → v2, until 2036-11-18
  + key {other} for root
  - family root ({root}) for root
  + alice\\u{{202e}} ({alice}) for targets
  the next root can be signed, until 2036-11-18, by key {other}",
        other = short(keys().other_root.certificate.id()),
        root = short(keys().root.certificate.id()),
        alice = short(keys().alice.id()),
    );
    assert_eq!(text, wanted);
}

#[test]
fn delegations_are_named_with_their_keys_and_paths() {
    let mut server = Server::with_targets(8, 1);
    let short = &keys().alice.id().to_string()[..12];
    let targets = with_alice(targets_document(9, 1), keys().alice.public());
    let text = lines(Some(&server.base()), &[targets_item(&targets)]);
    let wanted = format!(
        "docker.io/me/app: targets v8 → v9, until 2029-11-20
  + targets/alice may sign every tag: alice\\u{{202e}} ({short})"
    );
    assert_eq!(text, wanted);

    server.take(RoleName::Targets, &targets);
    let mut next = targets.clone();
    next.version = 10;
    let entry = &mut next.delegations.roles.as_mut().unwrap()[0];
    entry.paths = vec!["v".to_owned(), "w".to_owned()];
    entry.key_ids = None;
    let text = lines(Some(&server.base()), &[targets_item(&next)]);
    let wanted = format!(
        "docker.io/me/app: targets v9 → v10, until 2029-11-20
  - alice\\u{{202e}} ({short}) for targets/alice
  ~ targets/alice may sign v*, w*"
    );
    assert_eq!(text, wanted);

    let gone = targets_document(10, 1);
    let text = lines(Some(&server.base()), &[targets_item(&gone)]);
    assert!(
        text.ends_with("\n  - targets/alice may sign no more"),
        "{text}"
    );
}

#[test]
fn a_delegation_not_yet_published_is_compared_with_nothing() {
    let mut server = Server::with_targets(8, 1);
    let targets = with_alice(targets_document(9, 1), keys().alice.public());
    server.take(RoleName::Targets, &targets);
    let text = lines(Some(&server.base()), &[alice_item(&targets_document(1, 1))]);
    assert!(
        text.starts_with(
            "docker.io/me/app: targets/alice v1, compared with nothing, until 2029-11-20\n"
        ),
        "{text}"
    );
}

#[test]
fn an_unusual_expiry_is_said() {
    let server = Server::with_targets(8, 1);
    let mut targets = targets_document(9, 1);
    for (at, words) in [
        (
            NOW + 10 * DAY,
            "  expires at 2026-12-01T00:00:00Z, in 10 days",
        ),
        (NOW - DAY, "  expired at 2026-11-20T00:00:00Z"),
        (
            NOW + lifetime::TARGETS,
            "  nothing changes but version and expiry",
        ),
    ] {
        targets.expires = Expiry::at(at);
        let text = lines(Some(&server.base()), &[targets_item(&targets)]);
        assert!(text.ends_with(words), "{text}");
    }
}

#[test]
fn names_that_would_fool_a_terminal_are_escaped() {
    let server = Server::with_targets(8, 1);
    let mut targets = targets_document(9, 1);
    tag(&mut targets, "a\u{202e}b", 3);
    let text = lines(Some(&server.base()), &[targets_item(&targets)]);
    assert!(text.contains("  + a\\u{202e}b sha256:"), "{text}");
}

#[test]
fn opaque_bytes_are_called_so() {
    let item = Item {
        role: RoleName::Targets,
        payload: Payload::read(b"{\"_type\":\"\x1b[2J\"}".to_vec()),
        key_ids: vec![keys().targets.id()],
    };
    let text = lines(Some(&Server::with_targets(8, 1).base()), &[item]);
    assert!(
        text.starts_with("docker.io/me/app: targets: 16 bytes that cannot be read"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn consent_covers_a_retry_but_no_other_change() {
    let mut server = Server::with_targets(8, 1);
    let before = server.base();
    let mut ours = targets_document(9, 1);
    tag(&mut ours, "1.2", 5);
    let consent = change_digest(Some(&before), &[targets_item(&ours)]);

    // Somebody else published meanwhile: a new base, version and expiry, the same change.
    let mut theirs = targets_document(9, 1);
    tag(&mut theirs, "2.0", 6);
    server.take(RoleName::Targets, &theirs);
    let mut again = theirs.clone();
    again.version = 10;
    again.expires = Expiry::at(NOW + 100 * DAY);
    tag(&mut again, "1.2", 5);
    let base = server.base();
    assert_eq!(change_digest(Some(&base), &[targets_item(&again)]), consent);

    let differs = |change: &dyn Fn(&mut Targets)| {
        let mut other = again.clone();
        change(&mut other);
        change_digest(Some(&base), &[targets_item(&other)]) != consent
    };
    assert!(differs(&|targets| tag(targets, "1.2", 6)));
    assert!(differs(&|targets| tag(targets, "1.3", 5)));
    assert!(differs(&|targets| drop(targets.targets.remove("2.0"))));
    assert!(differs(&|targets| {
        *targets = with_alice(targets.clone(), keys().alice.public());
    }));
    let mallory = item(RoleName::Targets, &again, vec![keys().mallory.id()]);
    assert_ne!(change_digest(Some(&base), &[mallory]), consent);
    let elsewhere = item(role("targets/alice"), &again, vec![keys().targets.id()]);
    assert_ne!(change_digest(Some(&base), &[elsewhere]), consent);
}
