//! Metadata that is old, ended, wrongly signed or mixed up: named, exit 3, and nothing written.

use std::collections::BTreeMap;
use std::process::Command;

use sha2::{Digest as _, Sha256};
use signet_tests::forge::{Edition, Forge, now, with_delegations, with_tag};
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Fault, Home, Lab, Output, Proxy, Run};
use signet_trust::base::BaseDocuments;
use signet_trust::time::Expiry;
use signet_trust::{Algorithm, PrivateKey, RoleName};

const GUN: &str = "registry.example.com/acme/app";
const DAY: i64 = 24 * 60 * 60;

/// A trust server that publishes whatever a forge made.
struct Scene {
    forge: Forge,
    home: Home,
    proxy: Proxy,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::builder().build();
        let home = lab.home();
        // Nobody is behind it: what is not served is not there.
        let proxy = lab.proxy("https://127.0.0.1:1");
        lab.trust_host(home.docker_config(), proxy.host());
        Self {
            forge: Forge::new(GUN),
            home,
            proxy,
            lab,
        }
    }

    /// A good edition with one tag.
    fn good(&self, version: u32) -> Edition {
        let mut edition = self.forge.edition(version);
        let targets = with_tag(edition.top(), version, "v1");
        edition.targets.insert(RoleName::Targets, targets);
        edition
    }

    fn serve(&self, documents: &BaseDocuments) {
        let absent = Fault::Status(404, r#"{"errors":[]}"#);
        self.proxy.behave();
        self.proxy.on("GET *", absent);
        let serve = |role: &str, wire: &[u8]| {
            for name in [role.to_owned(), format!("{role}.{}", hex(wire))] {
                let pattern = format!("GET */_trust/tuf/{name}.json");
                self.proxy.on(&pattern, Fault::Body(wire.to_vec()));
            }
        };
        for (number, root) in (1..).zip(&documents.roots) {
            serve("root", root);
            let pattern = format!("GET */_trust/tuf/{number}.root.json");
            self.proxy.on(&pattern, Fault::Body(root.clone()));
        }
        serve("timestamp", documents.timestamp.as_ref().expect("there"));
        serve("snapshot", documents.snapshot.as_ref().expect("there"));
        for (role, wire) in &documents.targets {
            serve(role.as_str(), wire);
        }
    }

    fn signet(&self, home: &Home) -> Command {
        let mut command = home.unattended();
        command.env("DOCKER_CONTENT_TRUST_SERVER", self.proxy.url());
        command
    }

    fn verify(&self, home: &Home, tag: &str) -> Output {
        self.signet(home)
            .args(["verify", &format!("{GUN}:{tag}")])
            .run()
    }

    fn sign(&self, home: &Home, tag: &str) -> Output {
        self.signet(home)
            .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE])
            .run()
    }

    fn newcomer(&self) -> Home {
        let home = self.lab.home();
        self.lab.trust_host(home.docker_config(), self.proxy.host());
        home
    }

    /// Refused with exit 3 by those who read and those who sign, the role and the name said, and
    /// nothing written.
    #[track_caller]
    fn refused(&self, home: &Home, what: &str, names: &str) {
        let cache = || files(home.docker_config());
        let before = cache();
        for (verb, output) in [
            ("verify", self.verify(home, "v1")),
            ("sign", self.sign(home, "v2")),
        ] {
            assert_eq!(output.code(), Some(3), "{what}, {verb}: {}", output.text());
            for word in [names, GUN] {
                assert!(
                    output.stderr.contains(word),
                    "{what}, {verb}: {word} is not named: {}",
                    output.stderr
                );
            }
        }
        assert!(cache() == before, "{what}: the cache was written");
        assert!(
            !home.path().join("keyring.age").exists(),
            "{what}: a key was made"
        );
    }
}

fn hex(wire: &[u8]) -> String {
    let digest = Sha256::digest(wire);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_right_is_taken() {
    let scene = Scene::new();
    scene.serve(&scene.forge.documents(&scene.good(5)));
    scene.verify(&scene.home, "v1").ok();
    scene
        .verify(&scene.home, "v2")
        .exits(3)
        .says("No trust data for v2");
    // It is somebody else's: no key of it is here.
    scene.sign(&scene.home, "v2").exits(1).says("targets");
}

#[test]
fn a_document_that_has_ended_is_named() {
    let scene = Scene::new();
    let root = RoleName::Root;
    let mut cases = Vec::new();
    let mut ended = scene.good(5);
    ended.timestamp_expires = now() - DAY;
    cases.push(("timestamp", ended));
    let mut ended = scene.good(5);
    ended.snapshot_expires = now() - DAY;
    cases.push(("snapshot", ended));
    let mut ended = scene.good(5);
    let mut targets = ended.top().clone();
    targets.expires = Expiry::at(now() - DAY);
    ended.targets.insert(RoleName::Targets, targets);
    cases.push(("targets", ended));
    let mut ended = scene.good(5);
    let mut old = scene.forge.root(1);
    old.expires = Expiry::at(now() - DAY);
    ended.roots = vec![scene.forge.sign(&root, &old)];
    cases.push(("root", ended));
    for (role, edition) in cases {
        scene.serve(&scene.forge.documents(&edition));
        scene.refused(&scene.newcomer(), "ended", role);
    }
}

#[test]
fn a_document_that_went_back_is_named_with_both_versions() {
    let scene = Scene::new();
    scene.serve(&scene.forge.documents(&scene.good(7)));
    scene.verify(&scene.home, "v1").ok();
    scene.serve(&scene.forge.documents(&scene.good(5)));
    scene.refused(&scene.home, "all of it", "timestamp");

    // A new timestamp over an old snapshot, and over old targets.
    let mut old = scene.good(5);
    old.timestamp = 8;
    scene.serve(&scene.forge.documents(&old));
    scene.refused(&scene.home, "snapshot", "snapshot");
    old.snapshot = 8;
    scene.serve(&scene.forge.documents(&old));
    scene.refused(&scene.home, "targets", "targets");

    scene.serve(&scene.forge.documents(&scene.good(8)));
    scene.verify(&scene.home, "v1").ok();
}

#[test]
fn a_document_that_another_key_signed_is_named() {
    let scene = Scene::new();
    let edition = scene.good(5);
    let stranger = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
    let targets = RoleName::Targets;
    let good = scene.forge.documents(&edition);
    let theirs = Forge::new(GUN).documents(&edition);

    // Under the right ID, and under its own.
    for id in [scene.forge.key_id(&targets), stranger.id()] {
        let wire = Forge::sign_by(edition.top(), &[(id, &stranger)]);
        let wires = BTreeMap::from([(targets.clone(), wire)]);
        scene.serve(&scene.forge.documents_of(&edition, wires));
        scene.refused(&scene.newcomer(), "targets by a stranger", "targets");
    }
    let mut mixed = good.clone();
    mixed.timestamp = theirs.timestamp.clone();
    mixed.snapshot = theirs.snapshot.clone();
    scene.serve(&mixed);
    scene.refused(&scene.newcomer(), "timestamp by a stranger", "timestamp");
    let mut unsigned = good.clone();
    let root = [(stranger.id(), &stranger)];
    unsigned.roots = vec![Forge::sign_by(&scene.forge.root(1), &root)];
    scene.serve(&unsigned);
    scene.refused(&scene.newcomer(), "root by a stranger", "root");
}

#[test]
fn documents_that_do_not_belong_together_are_named() {
    let scene = Scene::new();
    let (one, other) = (scene.good(5), scene.good(6));
    let (one, other) = (scene.forge.documents(&one), scene.forge.documents(&other));
    let answer = |name: &str, wire: &[u8]| {
        let pattern = format!("GET */_trust/tuf/{name}");
        scene.proxy.on(&pattern, Fault::Body(wire.to_vec()));
    };
    scene.serve(&one);
    answer("snapshot.*json", other.snapshot.as_ref().expect("there"));
    scene.refused(&scene.newcomer(), "another snapshot", "snapshot");
    scene.serve(&one);
    answer("targets.*json", &other.targets[&RoleName::Targets]);
    scene.refused(&scene.newcomer(), "other targets", "targets");
    scene.serve(&one);
    answer("timestamp.json", one.snapshot.as_ref().expect("there"));
    scene.refused(&scene.newcomer(), "a snapshot for a timestamp", "timestamp");
    scene.serve(&one);
    answer("root*json", &other.targets[&RoleName::Targets]);
    answer("*.root.json", &other.targets[&RoleName::Targets]);
    scene.refused(&scene.newcomer(), "targets for a root", "root");

    // All of it belongs to another name.
    let elsewhere = Forge::new("registry.example.com/acme/other");
    let mut edition = elsewhere.edition(5);
    let targets = with_tag(edition.top(), 5, "v1");
    edition.targets.insert(RoleName::Targets, targets);
    scene.serve(&elsewhere.documents(&edition));
    scene.refused(&scene.newcomer(), "another name's root", "root");
}

#[test]
fn a_root_that_does_not_follow_from_the_one_seen_is_not_taken() {
    let scene = Scene::new();
    scene.serve(&scene.forge.documents(&scene.good(5)));
    scene.verify(&scene.home, "v1").ok();
    let again = scene.forge.made_again();
    let mut edition = again.edition(6);
    let targets = with_tag(edition.top(), 6, "v1");
    edition.targets.insert(RoleName::Targets, targets);
    scene.serve(&again.documents(&edition));
    scene.refused(&scene.home, "made again", "root");
}

#[test]
fn a_bad_delegation_is_left_out_and_does_not_hide_the_rest() {
    let mut scene = Scene::new();
    let releases: RoleName = "targets/releases".parse().expect("a role");
    scene.forge.add_signer(&releases);
    let mut edition = scene.good(5);
    let key = scene.forge.key(&releases);
    let delegated = with_delegations(edition.top(), &[(&releases, key)]);
    edition.targets.insert(RoleName::Targets, delegated);
    let own = with_tag(&signet_trust::document::Targets::empty(1, now()), 1, "r1");
    edition.targets.insert(releases.clone(), own.clone());

    let stranger = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
    let wires = edition.targets.iter().map(|(role, document)| {
        let wire = if *role == releases {
            Forge::sign_by(&own, &[(stranger.id(), &stranger)])
        } else {
            scene.forge.sign(role, document)
        };
        (role.clone(), wire)
    });
    let wires = wires.collect();
    scene.serve(&scene.forge.documents_of(&edition, wires));
    let home = scene.newcomer();
    scene.verify(&home, "r1").exits(3);
    scene.verify(&home, "v1").ok();
}
