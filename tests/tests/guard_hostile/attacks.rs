//! Every attack that a client or a server can try with well-formed messages, as one table: what it
//! asks for, and what stops it. All of them against a collection that the agent has published to,
//! with every key of it enrolled and the keyring open: nothing but the rules stands in the way.
//!
//! Elsewhere: each row of the guard with its override (`guard.rs`), the same with a real server
//! (`guard_server.rs`), answers that are replayed, floods and broken streams (`guard_hostile.rs`),
//! a claim without a base, shown as one (`history.rs`, step 001).

use std::collections::BTreeMap;

use signet_proto::v1::report::Outcome;
use signet_tests::forge::{Edition, Forge, now, with_tag};
use signet_tests::raw::{Ask, Raw, Refused};
use signet_tests::{Lab, Run};
use signet_trust::document::Body;
use signet_trust::{Algorithm, PrivateKey, RoleName};

use super::GUN;

/// What stops an attack.
enum Stops {
    /// The guard, by this rule; the refusal names the version that would pass.
    Rule(&'static str, u32),
    /// The base is called stale, and fetched again.
    Stale,
    /// It is no request: the message has these words.
    Words(&'static str),
}
use Stops::{Rule, Stale, Words};

#[test]
fn every_attack_is_refused_by_what_it_breaks() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.has_keyrings();
    home.unlocks();
    let (root, targets, snapshot) = (RoleName::Root, RoleName::Targets, RoleName::Snapshot);
    let ours = Forge::new(GUN);
    ours.import(&home, &[root.clone(), targets.clone(), snapshot.clone()]);
    let raw = Raw::connect(&home);
    let key = |role: &RoleName| ours.key_id(role);
    let upon = |edition: &Edition| Ask::new(GUN, Some(ours.documents(edition)));

    // Published from here: version 6. What a server has then, and what it had before.
    let before = ours.edition(5);
    let sixth = with_tag(before.top(), 6, "v1");
    let first = upon(&before).item(&targets, &sixth, key(&targets));
    raw.ask(&first).expect("a first use");
    let mut server = ours.edition(6);
    server.targets.insert(targets.clone(), sixth.clone());
    let look = upon(&server).item(&targets, &sixth, key(&targets));
    raw.ask(&look).expect("what is published is signed again");

    let at = |edition: &Edition, version: u32| {
        let next = with_tag(&sixth, version, "evil");
        upon(edition).item(&targets, &next, key(&targets))
    };
    let in_json = |from: &str, to: &str| {
        let text = String::from_utf8(with_tag(&sixth, 7, "evil").canonical()).expect("JSON");
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from} is in it");
        upon(&server).bytes(&targets, changed.into_bytes(), &[key(&targets)])
    };
    let new_root = |change: &dyn Fn(&mut signet_trust::document::Root)| {
        let mut next = ours.root(2);
        change(&mut next);
        upon(&server).item(&root, &next, key(&root))
    };
    let ended = Edition {
        timestamp_expires: now() - 60,
        ..server.clone()
    };
    let frozen = Edition {
        timestamp: 5,
        ..server.clone()
    };

    // Another repository: its own root lists our targets key.
    let mut other = Forge::new("registry.example.com/acme/other");
    other.take_key(&ours, &targets);
    let others = other.edition(6);
    let theirs = || with_tag(others.top(), 7, "evil");

    // Somebody who has a key of his own, and puts it where ours is.
    let mallory = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
    let mut swapped = ours.root(2);
    swapped.keys.insert(mallory.id(), mallory.public().clone());
    let listed = swapped.roles.get_mut(&targets).expect("listed");
    listed.key_ids = vec![mallory.id()];
    let by_mallory = Forge::sign_by(&swapped, &[(key(&root), &mallory)]);
    let mut of_mallory = server.clone();
    of_mallory.roots.push(by_mallory);
    let mallorys = BTreeMap::from([(
        targets.clone(),
        Forge::sign_by(&sixth, &[(mallory.id(), &mallory)]),
    )]);

    let attacks = [
        ("an older version", at(&server, 5), Rule("rollback", 7)),
        ("a second content of a version", at(&server, 6), Stale),
        ("the same, on the base before", at(&before, 6), Stale),
        ("a version left out", at(&server, 8), Rule("gap", 7)),
        (
            "the highest version",
            at(&server, i32::MAX.cast_unsigned()),
            Rule("gap", 7),
        ),
        ("a timestamp that has ended", at(&ended, 7), Stale),
        ("a timestamp from before", at(&frozen, 7), Stale),
        (
            "another repository's base",
            Ask::new(GUN, Some(other.documents(&others))).item(&targets, &theirs(), key(&targets)),
            Words("registry.example.com/acme/other"),
        ),
        (
            "our key in another repository",
            Ask::new(other.gun(), Some(other.documents(&others))).item(
                &targets,
                &theirs(),
                key(&targets),
            ),
            Words("a targets key of registry.example.com/acme/app"),
        ),
        (
            "the targets key for the snapshot",
            upon(&server).item(&snapshot, &snapshot_of(&ours, &server), key(&targets)),
            Rule("key", 7),
        ),
        (
            "the targets key for the root",
            upon(&server).item(&root, &ours.root(2), key(&targets)),
            Rule("key", 2),
        ),
        (
            "a snapshot called targets",
            upon(&server).item(&targets, &snapshot_of(&ours, &server), key(&targets)),
            Words("targets"),
        ),
        (
            "no key for targets",
            new_root(&|root| {
                let listed = root.roles.get_mut(&RoleName::Targets).expect("listed");
                listed.key_ids.clear();
            }),
            Rule("threshold", 2),
        ),
        (
            "a threshold of nobody",
            new_root(&|root| {
                root.roles
                    .get_mut(&RoleName::Targets)
                    .expect("listed")
                    .threshold = 0;
            }),
            Words("threshold"),
        ),
        (
            "a key that nobody listed",
            upon(&server).item(&targets, &with_tag(&sixth, 7, "evil"), mallory.id()),
            Rule("key", 7),
        ),
        (
            "a key that a root of its own lists",
            Ask::new(GUN, Some(ours.documents_of(&of_mallory, mallorys))).item(
                &targets,
                &with_tag(&sixth, 7, "evil"),
                mallory.id(),
            ),
            Words("root"),
        ),
        (
            "a member twice",
            in_json("\"version\":7", "\"version\":6,\"version\":7"),
            Rule("opaque", 7),
        ),
        (
            "a member that nobody knows",
            in_json("\"version\":7", "\"verse\":1,\"version\":7"),
            Rule("opaque", 7),
        ),
        (
            "a space",
            in_json("\"version\":7", "\"version\": 7"),
            Rule("opaque", 7),
        ),
        (
            "a thousand levels",
            in_json(
                "\"keys\":{}",
                &format!("\"keys\":{}1{}", "[".repeat(1000), "]".repeat(1000)),
            ),
            Rule("opaque", 7),
        ),
        (
            "a version below zero",
            in_json("\"version\":7", "\"version\":-7"),
            Rule("opaque", 7),
        ),
    ];
    let signed = |raw: &Raw| {
        let log = raw.log();
        log.iter().filter(|entry| entry.kind == "sign").count()
    };
    let at_first = signed(&raw);
    for (what, ask, stops) in &attacks {
        let refused = raw.ask(ask).expect_err(what);
        let logged = raw.log().pop().expect("there is a log");
        match (stops, refused) {
            (Rule(rule, next), Refused::Failed(failure)) => {
                assert_eq!(failure.rule, *rule, "{what}: {failure:?}");
                assert_eq!(failure.exit, 4, "{what}: {failure:?}");
                assert_eq!(failure.next, *next, "{what}: {failure:?}");
                assert_eq!(logged.kind, "refuse", "{what}: {logged:?}");
                assert_eq!(logged.rule, *rule, "{what}: {logged:?}");
            }
            (Stale, Refused::Stale { next, .. }) => assert_eq!(next, 7, "{what}"),
            (Words(words), Refused::Failed(failure)) => {
                assert!(failure.message.contains(words), "{what}: {failure:?}");
            }
            (_, refused) => panic!("{what}: {refused:?}"),
        }
        assert_eq!(signed(&raw), at_first, "{what}: something was signed");
    }
    // And what is right still passes, on the same base.
    let good = at(&server, 7).reporting(Some(Outcome::Published));
    raw.ask(&good).expect("the next version");
    home.signet().args(["log", "verify"]).run().ok();
}

/// The next snapshot.
fn snapshot_of(forge: &Forge, edition: &Edition) -> signet_trust::document::Snapshot {
    let documents = forge.documents(edition);
    let wire = documents.snapshot.expect("an edition has one");
    let raw = signet_trust::verify::Raw::<signet_trust::document::Snapshot>::parse(wire, 1 << 20);
    let mut next = raw.expect("just made").claimed().clone();
    next.version += 1;
    next
}
