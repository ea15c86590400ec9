//! Documents of real peers: read, verified, written again to the same bytes.
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::{fs, path::PathBuf};

use signet_trust::{
    Gun, RoleName,
    document::{Body, Document, Root, Snapshot, Targets, Timestamp, to_wire},
    pin::Pin,
    time::UnixTime,
    verify::{self, Raw, Verified},
};

/// While everything of the fixtures is valid.
const NOW: UnixTime = 1_795_305_600;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/documents")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn raw<T: Body>(name: &str) -> Raw<T> {
    Raw::parse(fixture(name), 1 << 20).unwrap_or_else(|error| panic!("{name}: {error}"))
}

struct Collection {
    directory: &'static str,
    gun: &'static str,
    root: &'static str,
    targets: &'static str,
    delegations: &'static [&'static str],
    has_snapshot: bool,
}

const COLLECTIONS: [Collection; 8] = [
    Collection {
        directory: "publish-remote-signer/v1",
        gun: "docker.io/library/vec1",
        root: "root",
        targets: "targets",
        delegations: &[],
        has_snapshot: true,
    },
    Collection {
        directory: "publish-remote-signer/v3-final",
        gun: "docker.io/library/vec1",
        root: "root",
        targets: "targets",
        delegations: &[],
        has_snapshot: true,
    },
    Collection {
        directory: "publish-local-ed25519",
        gun: "docker.io/library/vecl",
        root: "root",
        targets: "targets",
        delegations: &[],
        has_snapshot: true,
    },
    Collection {
        directory: "publish-local-ed25519",
        gun: "docker.io/d/b96e7bda",
        root: "root-name-ampersand",
        targets: "targets-name-ampersand",
        delegations: &[],
        has_snapshot: false,
    },
    Collection {
        directory: "publish-local-ed25519",
        gun: "docker.io/d/ed1fe8f2",
        root: "root-name-u2028",
        targets: "targets-name-u2028",
        delegations: &[],
        has_snapshot: false,
    },
    Collection {
        directory: "delegations-rootrotation",
        gun: "docker.io/library/vec3",
        root: "3.root",
        targets: "targets",
        delegations: &["targets/bob", "targets/releases"],
        has_snapshot: true,
    },
    Collection {
        directory: "docker-trust",
        gun: "127.0.0.1:5000/acme/app",
        root: "root",
        targets: "targets",
        delegations: &[],
        has_snapshot: true,
    },
    Collection {
        directory: "pkcs11",
        gun: "docker.io/library/yk2",
        root: "yk2-root",
        targets: "yk2-targets",
        delegations: &[],
        has_snapshot: false,
    },
];

fn writes_the_same_bytes<T: Body + PartialEq + std::fmt::Debug>(document: &Verified<T>) {
    assert_eq!(
        document.doc().canonical(),
        document.canonical(),
        "the signed bytes"
    );
    let wire = to_wire(&document.doc().canonical(), document.signatures());
    assert_eq!(
        String::from_utf8_lossy(&wire),
        String::from_utf8_lossy(document.wire()),
        "the wire bytes"
    );
    let again = Document::from_canonical(document.canonical()).unwrap();
    assert_eq!(again.version(), document.doc().version());
}

#[test]
fn every_collection_verifies_and_is_written_again_byte_for_byte() {
    for collection in COLLECTIONS {
        let Collection {
            directory,
            root,
            targets,
            ..
        } = collection;
        let gun: Gun = collection.gun.parse().unwrap();
        let root = verify::first_root(
            raw(&format!("{directory}/{root}.json")),
            &gun,
            &Pin::FirstUse,
            NOW,
        )
        .unwrap_or_else(|error| panic!("{directory}/{root}: {error}"));
        writes_the_same_bytes(&root);
        for (id, key) in &root.doc().keys {
            assert_eq!(key.id(), *id);
        }
        let signers = |role: &RoleName| verify::base_signers(root.doc(), role, &gun, NOW);
        let top = raw::<Targets>(&format!("{directory}/{targets}.json"))
            .verify(&RoleName::Targets, &signers(&RoleName::Targets))
            .unwrap();
        writes_the_same_bytes(&top);
        if !collection.has_snapshot {
            continue;
        }
        let snapshot = raw::<Snapshot>(&format!("{directory}/snapshot.json"))
            .verify(&RoleName::Snapshot, &signers(&RoleName::Snapshot))
            .unwrap();
        writes_the_same_bytes(&snapshot);
        let timestamp = raw::<Timestamp>(&format!("{directory}/timestamp.json"))
            .verify(&RoleName::Timestamp, &signers(&RoleName::Timestamp))
            .unwrap();
        writes_the_same_bytes(&timestamp);
        assert!(verify::matches(
            &timestamp.doc().meta[&RoleName::Snapshot],
            snapshot.wire()
        ));
        assert!(verify::matches(
            &snapshot.doc().meta[&RoleName::Root],
            root.wire()
        ));
        assert!(verify::matches(
            &snapshot.doc().meta[&RoleName::Targets],
            top.wire()
        ));
        for name in collection.delegations {
            let role: RoleName = name.parse().unwrap();
            let document = raw::<Targets>(&format!("{directory}/{name}.json"))
                .verify(
                    &role,
                    &verify::delegation_signers(top.doc(), &role).unwrap(),
                )
                .unwrap();
            writes_the_same_bytes(&document);
            assert!(verify::matches(
                &snapshot.doc().meta[&role],
                document.wire()
            ));
        }
    }
}

#[test]
fn a_root_chain_holds_link_by_link() {
    let gun: Gun = "docker.io/library/vec3".parse().unwrap();
    let root = |version: u32| raw::<Root>(&format!("delegations-rootrotation/{version}.root.json"));
    let first = verify::first_root(root(1), &gun, &Pin::FirstUse, NOW).unwrap();
    let second = verify::next_root(root(2), &first, &gun, NOW).unwrap();
    let third = verify::next_root(root(3), &second, &gun, NOW).unwrap();
    for document in [&first, &second, &third] {
        writes_the_same_bytes(document);
    }
    // The second rotation was signed with older keys, too (`--legacy`).
    assert!(verify::next_root(root(3), &first, &gun, NOW).is_ok());
    assert!(verify::next_root(root(2), &third, &gun, NOW).is_err());
    assert!(verify::next_root(root(3), &third, &gun, NOW).is_err());
    let other: Gun = "docker.io/library/vec1".parse().unwrap();
    assert!(verify::first_root(root(1), &other, &Pin::FirstUse, NOW).is_err());
}

#[test]
fn every_byte_of_what_is_signed_counts() {
    let gun: Gun = "docker.io/library/vec1".parse().unwrap();
    let wire = fixture("publish-remote-signer/v1/targets.json");
    let root = verify::first_root(
        raw("publish-remote-signer/v1/root.json"),
        &gun,
        &Pin::FirstUse,
        NOW,
    )
    .unwrap();
    let signers = verify::base_signers(root.doc(), &RoleName::Targets, &gun, NOW);
    let end = wire
        .windows(13)
        .position(|window| window == b",\"signatures\"")
        .unwrap();
    for at in 0..end {
        for flip in [0x01, 0x20, 0x80] {
            let mut wire = wire.clone();
            wire[at] ^= flip;
            let verified = Raw::<Targets>::parse(wire, 1 << 20)
                .is_ok_and(|raw| raw.verify(&RoleName::Targets, &signers).is_ok());
            assert!(!verified, "a flipped bit at byte {at}");
        }
    }
}
