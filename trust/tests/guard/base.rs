//! What makes a base, and what does not.

use signet_trust::{
    RoleName,
    base::{BaseDocuments, BaseError, RecordedRoot, VerifiedBase},
    verify::VerifyError,
};

use crate::world::{
    DAY, NOW, Server, gun, keys, lineage, plain_root, role, root_document, root_key, signed,
    targets_document, with_alice,
};

fn verify(
    server: &Server,
    change: impl FnOnce(&mut BaseDocuments),
) -> Result<VerifiedBase, BaseError> {
    let mut documents = server.documents();
    change(&mut documents);
    VerifiedBase::verify(&gun(), documents, &[server.record()], NOW)
}

fn server_with_alice() -> Server {
    let mut server = Server::with_targets(8, 1);
    server.take(
        RoleName::Targets,
        &with_alice(targets_document(9, 1), keys().alice.public()),
    );
    server.take(role("targets/alice"), &targets_document(3, 2));
    server
}

#[test]
fn a_base_knows_its_versions_and_keys() {
    let server = server_with_alice();
    let base = server.base();
    let version = |name: &str| base.mark(&role(name)).map(|(version, _)| version);
    assert_eq!(version("root"), Some(1));
    assert_eq!(version("targets"), Some(9));
    assert_eq!(version("targets/alice"), Some(3));
    assert_eq!(version("snapshot"), Some(server.snapshot));
    assert_eq!(version("timestamp"), Some(server.timestamp));
    assert_eq!(version("targets/bob"), None);

    assert!(base.lists(&RoleName::Targets, keys().targets.public()));
    assert!(base.lists(&RoleName::Root, &keys().root.certificate));
    assert!(
        base.lists(&RoleName::Root, keys().root.key.public()),
        "by its canonical ID too"
    );
    assert!(base.lists(&role("targets/alice"), keys().alice.public()));
    assert!(!base.lists(&role("targets/alice"), keys().targets.public()));
    assert!(!base.lists(&role("targets/bob"), keys().alice.public()));
    assert!(!base.lists(&RoleName::Targets, keys().mallory.public()));
}

#[test]
fn the_root_alone_is_a_base_for_the_root() {
    let server = Server::with_targets(8, 1);
    let base = verify(&server, |documents| {
        documents.timestamp = None;
        documents.snapshot = None;
        documents.targets.clear();
    });
    assert!(base.unwrap().mark(&RoleName::Targets).is_none());
}

#[test]
fn parts_that_others_hang_from_are_missed() {
    let server = server_with_alice();
    let lacks = |change: fn(&mut BaseDocuments)| match verify(&server, change) {
        Err(BaseError::Incomplete(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks(|documents| documents.roots.clear()), "root");
    assert_eq!(lacks(|documents| documents.timestamp = None), "timestamp");
    assert_eq!(lacks(|documents| documents.snapshot = None), "snapshot");
    let without_targets: fn(&mut BaseDocuments) = |documents| {
        documents.targets.remove(&RoleName::Targets);
    };
    assert_eq!(lacks(without_targets), "targets");
}

#[test]
fn mix_and_match_is_noticed() {
    let old = Server::with_targets(8, 1);
    let mut new = old.clone();
    new.take(RoleName::Targets, &targets_document(9, 2));
    let mismatch = |change: &dyn Fn(&mut BaseDocuments)| match verify(&new, |d| change(d)) {
        Err(BaseError::Verify(VerifyError::Mismatch { role, .. })) => role,
        other => panic!("{other:?}"),
    };
    let old = old.documents();
    assert_eq!(
        mismatch(&|d| d.targets = old.targets.clone()),
        RoleName::Targets
    );
    assert_eq!(
        mismatch(&|d| d.snapshot = old.snapshot.clone()),
        RoleName::Snapshot
    );
    assert_eq!(
        mismatch(&|d| d.timestamp = old.timestamp.clone()),
        RoleName::Snapshot
    );
}

#[test]
fn an_old_root_with_a_new_snapshot_is_noticed() {
    let old = Server::with_targets(8, 1);
    let mut new = old.clone();
    new.take_root(&plain_root(2), &[&keys().root]);
    let result = verify(&new, |documents| documents.roots.truncate(1));
    assert!(
        matches!(
            result,
            Err(BaseError::Verify(VerifyError::Mismatch {
                role: RoleName::Root,
                ..
            }))
        ),
        "{result:?}"
    );
}

#[test]
fn documents_signed_by_other_keys_are_refused() {
    let mut server = server_with_alice();
    let forged = signed(
        &targets_document(4, 3),
        &[(keys().alice.id(), &keys().mallory)],
    );
    server.files.insert(role("targets/alice"), forged);
    let result = server.verified(&[server.record()]);
    assert!(
        matches!(
            result,
            Err(BaseError::Verify(VerifyError::Threshold { .. }))
        ),
        "{result:?}"
    );

    let mut server = Server::with_targets(8, 1);
    server.take(role("targets/alice"), &targets_document(1, 1));
    let result = server.verified(&[server.record()]);
    assert!(
        matches!(result, Err(BaseError::Verify(VerifyError::UnknownRole(_)))),
        "{result:?}"
    );
}

#[test]
fn a_chain_is_followed_from_what_is_recorded() {
    let mut server = Server::with_targets(8, 1);
    let founder = server.record();
    server.take_root(&plain_root(2), &[&keys().root]);
    let rotated = root_document(3, &keys().other_root.certificate, keys().targets.public());
    server.take_root(&rotated, &[&keys().root, &keys().other_root]);
    let all = server.roots.clone();
    for (recorded, first) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 2)] {
        let mut server = server.clone();
        server.roots = all[first..].to_vec();
        let record = RecordedRoot {
            lineage: founder.lineage,
            wire: all[recorded].clone(),
        };
        let base = server.verified(&[record]).unwrap();
        assert_eq!(
            base.lineage(),
            Some(founder.lineage),
            "recorded {recorded}, sent from {first}"
        );
        assert_eq!(base.root().doc().version, 3);
    }
    // From the third alone nothing leads to the first, which did not sign it with its own keys…
    server.roots = all[2..].to_vec();
    let other = Server::with_targets(8, 1);
    let mut stranger = other.record();
    let root = root_document(1, &keys().other_root.certificate, keys().mallory.public());
    stranger.wire = signed(
        &root,
        &[(keys().other_root.certificate.id(), &keys().other_root.key)],
    );
    stranger.lineage = lineage(&stranger.wire);
    // …but a root of the same key, of another collection, is continued by it: it signed it.
    assert_eq!(
        server.verified(&[stranger.clone()]).unwrap().lineage(),
        Some(stranger.lineage)
    );
}

#[test]
fn a_link_that_its_predecessor_did_not_sign_breaks_the_chain() {
    let mut server = Server::with_targets(8, 1);
    let rotated = root_document(2, &keys().other_root.certificate, keys().targets.public());
    server.take_root(&rotated, &[&keys().other_root]);
    let result = server.verified(&[server.record()]);
    assert!(
        matches!(
            result,
            Err(BaseError::Verify(VerifyError::RootChain { .. }))
        ),
        "{result:?}"
    );
}

#[test]
fn a_first_root_is_for_this_repository() {
    let mut server = Server::with_targets(8, 1);
    let other = root_key(9, &"docker.io/me/other".parse().unwrap());
    server.roots.clear();
    let root = root_document(1, &other.certificate, keys().targets.public());
    server.take_root(&root, &[&other]);
    let result = server.verified(&[]);
    assert!(
        matches!(result, Err(BaseError::Verify(VerifyError::Pin { .. }))),
        "{result:?}"
    );
}

#[test]
fn an_expired_timestamp_is_no_fault_of_the_base() {
    let mut server = Server::with_targets(8, 1);
    server.expires = NOW - 30 * DAY;
    assert!(server.verified(&[]).is_ok());
}

#[test]
fn a_chain_without_end_is_refused_before_it_is_read() {
    let server = Server::with_targets(8, 1);
    let result = verify(&server, |documents| {
        documents.roots = vec![Vec::new(); 1001]
    });
    assert!(
        matches!(result, Err(BaseError::TooManyRoots(1001))),
        "{result:?}"
    );
}

#[test]
fn what_is_served_under_an_unlisted_name_counts_only_its_version() {
    let alice = role("targets/alice");
    let mut server = Server::with_targets(8, 1);
    let forged = signed(
        &targets_document(7, 1),
        &[(keys().mallory.id(), &keys().mallory)],
    );
    server.unlisted.insert(alice.clone(), forged);
    server
        .unlisted
        .insert(role("targets/bob"), b"no document".to_vec());
    let base = server.base();
    assert_eq!(base.unlisted(&alice), Some(7));
    assert_eq!(base.unlisted(&role("targets/bob")), None);
    assert_eq!(base.mark(&alice), None);
}

#[test]
fn a_base_moves_on_with_what_was_published() {
    let mut server = server_with_alice();
    let base = server.base();
    let alice = role("targets/alice");
    server.take(alice.clone(), &targets_document(4, 4));
    let next = base.advanced(&alice, server.files[&alice].clone()).unwrap();
    assert_eq!(next.mark(&alice), server.base().mark(&alice));
    assert_eq!(
        next.mark(&RoleName::Timestamp),
        base.mark(&RoleName::Timestamp)
    );
    assert_eq!(
        base.mark(&alice).unwrap().0,
        3,
        "the old one stays as it was"
    );

    server.take_root(&plain_root(2), &[&keys().root]);
    let next = next
        .advanced(&RoleName::Root, server.roots[1].clone())
        .unwrap();
    assert_eq!(next.mark(&RoleName::Root).unwrap().0, 2);

    let forged = signed(
        &targets_document(5, 1),
        &[(keys().alice.id(), &keys().mallory)],
    );
    assert!(next.advanced(&alice, forged).is_none());
    assert!(
        next.advanced(&role("targets/bob"), server.files[&alice].clone())
            .is_none()
    );
}
