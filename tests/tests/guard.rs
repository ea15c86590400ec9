//! The guard: every row of its table through the real socket.
//!
//! Bases are forged, properly signed, where no server would publish them; where a row speaks of a
//! server, the real one is asked, through `signet` (`guard_server.rs`).

use std::collections::BTreeMap;

use signet_proto::v1::{self, report::Outcome, sign_event::Event};
use signet_tests::forge::{Edition, Forge, now, with_delegations, with_tag};
use signet_tests::raw::{Ask, Done, Raw, Refused};
use signet_tests::{Home, Lab};
use signet_trust::document::{Body, Targets};
use signet_trust::time::{Expiry, lifetime};
use signet_trust::{Algorithm, PrivateKey, RoleName};

const GUN: &str = "registry.example.com/acme/app";

/// An agent that holds the keys of a forged collection, unlocked.
struct Scene {
    raw: Raw,
    forge: Forge,
    home: Home,
    _lab: Lab,
}

impl Scene {
    /// With the targets key only: signing asks nothing.
    fn new() -> Self {
        Self::with(&[RoleName::Targets])
    }

    fn with(roles: &[RoleName]) -> Self {
        let lab = Lab::builder().build();
        let home = lab.home();
        home.has_keyrings();
        let forge = Forge::new(GUN);
        forge.import(&home, roles);
        home.unlocks();
        Self {
            raw: Raw::connect(&home),
            forge,
            home,
            _lab: lab,
        }
    }

    /// Asks for a targets file at this version, upon this edition.
    fn targets(&self, edition: &Edition, version: u32, tag: &str) -> Ask {
        self.upon(edition, &with_tag(edition.top(), version, tag))
    }

    fn upon(&self, edition: &Edition, next: &Targets) -> Ask {
        self.asked_of(&self.forge, edition, next)
    }

    fn asked_of(&self, forge: &Forge, edition: &Edition, next: &Targets) -> Ask {
        let targets = RoleName::Targets;
        Ask::new(GUN, Some(forge.documents(edition))).item(&targets, next, forge.key_id(&targets))
    }

    /// Has the agent see and sign upon an edition, and the server take what was signed; the
    /// edition that is then published.
    fn publish(&self, edition: &Edition, version: u32, tag: &str) -> Edition {
        self.raw
            .ask(&self.targets(edition, version, tag))
            .expect("the next version is signed");
        let mut next = edition.clone();
        let targets = with_tag(edition.top(), version, tag);
        next.targets.insert(RoleName::Targets, targets);
        next.snapshot += 1;
        next.timestamp += 1;
        next
    }

    /// A refusal, which names its rule, its override and the version that would pass; and what
    /// the override makes of it.
    #[track_caller]
    fn refused_unless_allowed(&self, ask: &Ask, rule: &'static str, next: u32) -> Done {
        self.refused(ask, rule, next);
        self.passes_with(ask, rule)
    }

    #[track_caller]
    fn refused(&self, ask: &Ask, rule: &'static str, next: u32) -> v1::Failure {
        let before = self.signed_entries().len();
        let failure = self
            .raw
            .ask(ask)
            .expect_err("this is to be refused")
            .failure();
        assert_eq!(failure.exit, 4, "{failure:?}");
        assert_eq!(failure.code, format!("guard.{rule}"), "{failure:?}");
        assert_eq!(
            (failure.rule.as_str(), failure.next),
            (rule, next),
            "{failure:?}"
        );
        assert!(
            failure.fix.contains(&format!("--allow {rule}")),
            "{failure:?}"
        );
        assert!(failure.message.contains(GUN), "{failure:?}");
        assert_eq!(self.signed_entries().len(), before, "nothing was signed");
        let entry = self.last();
        assert_eq!((entry.kind.as_str(), entry.rule.as_str()), ("refuse", rule));
        failure
    }

    /// The override is confirmed by a secret given for this request, although the keyring is
    /// unlocked, and it is in the log.
    #[track_caller]
    fn passes_with(&self, ask: &Ask, rule: &'static str) -> Done {
        // Neither yes nor what is held will do.
        let unattended = Ask {
            no_input: true,
            ..ask.clone().allow(rule)
        };
        let mut talk = self.raw.open();
        talk.start(&unattended);
        let prompt = next_prompt(&mut talk);
        assert!(
            matches!(prompt.ask, Some(v1::prompt::Ask::Passphrase(_))),
            "{prompt:?}"
        );
        talk.say(v1::sign_request::Message::Answer(v1::Answer {
            grant_seconds: 0,
            prompt_id: prompt.id,
            answer: Some(v1::answer::Answer::Unavailable(v1::Unavailable {})),
        }));
        let failure = talk.hear().expect_err("nobody confirmed it").failure();
        assert_eq!(failure.exit, 5, "{failure:?}");

        let done = self
            .raw
            .ask(&ask.clone().allow(rule))
            .unwrap_or_else(|refused| panic!("--allow {rule} does not help: {refused:?}"));
        assert!(!done.prompts.is_empty(), "an override is confirmed");
        let entry = self.last_signed();
        assert_eq!(entry.rule, rule, "{entry:?}");
        assert!(entry.grade >= 3, "{entry:?}");
        let log = self.home.log().to_string();
        assert!(
            log.contains(&format!(r#""rule":"{rule}""#)),
            "the log does not show the override: {log}"
        );
        done
    }

    /// The base is called stale, with the version that would pass; nothing is signed.
    #[track_caller]
    fn stale(&self, ask: &Ask, next: u32) -> String {
        let before = self.signed_entries().len();
        match self.raw.ask(ask) {
            Err(Refused::Stale { reason, next: said }) => {
                assert_eq!(said, next, "{reason}");
                assert_eq!(self.signed_entries().len(), before, "nothing was signed");
                reason
            }
            other => panic!("not called stale: {other:?}"),
        }
    }

    fn signed_entries(&self) -> Vec<v1::LogEntry> {
        let mut log = self.raw.log();
        log.retain(|entry| entry.kind == "sign");
        log
    }

    #[track_caller]
    fn last_signed(&self) -> v1::LogEntry {
        self.signed_entries()
            .pop()
            .expect("something has been signed")
    }

    #[track_caller]
    fn last(&self) -> v1::LogEntry {
        self.raw.log().pop().expect("there is a log")
    }
}

#[track_caller]
fn next_prompt(talk: &mut signet_tests::raw::Talk<'_>) -> v1::Prompt {
    loop {
        match talk.hear().expect("a question") {
            Some(Event::Prompt(prompt)) => return prompt,
            Some(Event::Queued(_) | Event::Notice(_)) => {}
            other => panic!("no question but {other:?}"),
        }
    }
}

fn first_root(forge: &Forge, targets_version: u32) -> Ask {
    let (root, targets) = (RoleName::Root, RoleName::Targets);
    let first = Targets::empty(targets_version, now());
    Ask::new(GUN, None)
        .item(&root, &forge.root(1), forge.key_id(&root))
        .item(&targets, &first, forge.key_id(&targets))
}

// ---- no base at all

#[test]
fn without_a_base_a_published_collection_is_refetched_once_and_then_refused() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let edition = scene.forge.edition(5);
    scene.publish(&edition, 6, "v1");

    let other = Forge::new(GUN);
    other.import(&scene.home, &[RoleName::Root, RoleName::Targets]);
    let targets = RoleName::Targets;
    let alone = Ask::new(GUN, None).item(
        &targets,
        &with_tag(edition.top(), 7, "v2"),
        scene.forge.key_id(&targets),
    );
    let asked = [
        ("a new root", first_root(&other, 1)),
        ("the cached one again", first_root(&scene.forge, 1)),
        ("targets", alone),
    ];
    for (what, ask) in asked {
        let failure = scene.raw.ask(&ask).expect_err(what).failure();
        assert_eq!(failure.code, "guard.refetch", "{what}: {failure:?}");
        assert_eq!(failure.rule, "restart", "{what}: {failure:?}");
        let again = Ask {
            refetched: true,
            ..ask
        };
        scene.refused(&again, "restart", 1);
    }
    let again = Ask {
        refetched: true,
        ..first_root(&other, 1)
    };
    let done = scene.passes_with(&again, "restart");
    assert_eq!(done.signatures.len(), 2);
}

#[test]
fn a_first_root_that_never_arrived_is_superseded_by_another() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let lost = first_root(&scene.forge, 1).reporting(Some(Outcome::Rejected));
    scene.raw.ask(&lost).expect("a first publish");

    let other = Forge::new(GUN);
    other.import(&scene.home, &[RoleName::Root, RoleName::Targets]);
    let done = scene
        .raw
        .ask(&first_root(&other, 1))
        .expect("nothing was published");
    assert!(
        done.summary.iter().any(|line| line.contains("replaces")),
        "{:?}",
        done.summary
    );
    // That one arrived, so there is no third.
    let third = first_root(&scene.forge, 1);
    let failure = scene.raw.ask(&third).expect_err("published").failure();
    assert_eq!(failure.rule, "restart");
}

#[test]
fn a_first_publish_is_version_1_or_2_as_docker_makes_it() {
    for (version, passes) in [(1, true), (2, true), (3, false)] {
        let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
        let ask = first_root(&scene.forge, version);
        if passes {
            scene.raw.ask(&ask).expect("a first version");
        } else {
            scene.refused_unless_allowed(&ask, "gap", 1);
        }
    }
}

// ---- another lineage

#[test]
fn another_first_root_is_refused_until_it_is_recorded_as_a_second_collection() {
    let scene = Scene::new();
    let ours = scene.forge.edition(5);
    let ours = scene.publish(&ours, 6, "v1");

    let again = scene.forge.made_again();
    let theirs = again.edition(3);
    let next = with_tag(theirs.top(), 4, "v1");
    let ask = scene.asked_of(&again, &theirs, &next);
    scene.refused_unless_allowed(&ask, "lineage", 4);

    // From then on a base belongs to the lineage that its chain reaches.
    let mut theirs = theirs;
    theirs.targets.insert(RoleName::Targets, next.clone());
    theirs.snapshot += 1;
    theirs.timestamp += 1;
    let ask = scene.asked_of(&again, &theirs, &with_tag(&next, 5, "v2"));
    scene.raw.ask(&ask).expect("the second collection is known");
    scene
        .raw
        .ask(&scene.targets(&ours, 7, "v2"))
        .expect("the first one is, too");
}

// ---- an old base

#[test]
fn a_base_or_timestamp_older_than_seen_is_stale() {
    let scene = Scene::new();
    let old = scene.forge.edition(5);
    let newer = scene.forge.edition(7);
    scene
        .raw
        .ask(&scene.targets(&newer, 8, "v1").reporting(None))
        .expect("a first use");

    let reason = scene.stale(&scene.targets(&old, 6, "v1"), 8);
    assert!(reason.contains("older"), "{reason}");
    let mut only_timestamp = newer.clone();
    only_timestamp.timestamp = 6;
    let reason = scene.stale(&scene.targets(&only_timestamp, 8, "v1"), 8);
    assert!(reason.contains("timestamp"), "{reason}");

    // The server really went back: the override sets all that is known to what it has now.
    scene.passes_with(&scene.targets(&old, 6, "v2"), "rollback");
    let after = scene.forge.edition(6);
    scene
        .raw
        .ask(&scene.targets(&after, 7, "v3"))
        .expect("the server's state is ours");
}

#[test]
fn a_base_that_lacks_what_was_published_from_here_is_stale() {
    let scene = Scene::new();
    let edition = scene.forge.edition(5);
    let published = scene.publish(&edition, 6, "v1");
    let reason = scene.stale(&scene.targets(&edition, 6, "v2"), 7);
    assert!(reason.contains("published from here"), "{reason}");
    scene
        .raw
        .ask(&scene.targets(&published, 7, "v2"))
        .expect("the base is what was published");
}

#[test]
fn an_ended_timestamp_is_stale_but_not_for_a_root() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let mut edition = scene.forge.edition(5);
    edition.timestamp_expires = now() - 60;
    let reason = scene.stale(&scene.targets(&edition, 6, "v1"), 6);
    assert!(reason.contains("expired"), "{reason}");

    scene.passes_with(&scene.targets(&edition, 6, "v1"), "rollback");
    let root = RoleName::Root;
    let mut published = scene.forge.edition(6);
    published.timestamp_expires = now() - 60;
    let ask = Ask::new(GUN, Some(scene.forge.documents(&published))).item(
        &root,
        &scene.forge.root(2),
        scene.forge.key_id(&root),
    );
    scene.raw.ask(&ask).expect("its chain is enough");
}

// ---- versions

#[test]
fn other_content_below_the_base_is_a_rollback() {
    let scene = Scene::new();
    let edition = scene.forge.edition(8);
    for version in [1, 7] {
        scene.refused(&scene.targets(&edition, version, "old"), "rollback", 9);
    }
    scene.passes_with(&scene.targets(&edition, 7, "old"), "rollback");
}

#[test]
fn other_content_at_the_bases_version_is_a_lost_race() {
    let scene = Scene::new();
    let edition = scene.forge.edition(7);
    scene
        .raw
        .ask(&scene.targets(&edition, 8, "ours").reporting(None))
        .expect("we signed 8");
    // Theirs is 8: we sign 9.
    let theirs = scene.forge.edition(8);
    scene.stale(&scene.targets(&theirs, 8, "ours"), 9);
    scene
        .raw
        .ask(&scene.targets(&theirs, 9, "ours"))
        .expect("the next one");
}

#[test]
fn the_bases_own_content_and_what_was_signed_already_are_signed_again() {
    let scene = Scene::new();
    let edition = scene.forge.edition(7);
    let cosigned = scene.upon(&edition, edition.top());
    let next = scene.targets(&edition, 8, "v1").reporting(None);
    for (what, ask) in [
        ("co-sign", &cosigned),
        ("co-sign again", &cosigned),
        ("sign", &next),
        ("sign again", &next),
    ] {
        let before = scene.signed_entries().len();
        scene
            .raw
            .ask(ask)
            .unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
        let entries = scene.signed_entries();
        assert_eq!(
            entries.len(),
            before + 1,
            "{what}: every signature has its entry"
        );
    }
}

#[test]
fn the_next_version_passes_whoever_published_in_between() {
    let scene = Scene::new();
    let edition = scene.forge.edition(5);
    scene.publish(&edition, 6, "v1");
    for version in [9, 12] {
        let theirs = scene.forge.edition(version);
        scene
            .raw
            .ask(&scene.targets(&theirs, version + 1, "v2"))
            .expect("others published meanwhile");
    }
}

#[test]
fn what_was_released_and_never_arrived_is_superseded_by_name() {
    for outcome in [None, Some(Outcome::Rejected), Some(Outcome::Unknown)] {
        let scene = Scene::new();
        let edition = scene.forge.edition(7);
        let lost = scene.targets(&edition, 8, "lost").reporting(outcome);
        let lost_hash = sha256(&lost.items[0].payload);
        scene.raw.ask(&lost).expect("version 8");

        let done = scene
            .raw
            .ask(&scene.targets(&edition, 8, "again"))
            .unwrap_or_else(|refused| panic!("{outcome:?}: {refused:?}"));
        let words = done.summary.join("\n");
        for part in ["replaces", "v8", "which the server does not have"] {
            assert!(words.contains(part), "{words}");
        }
        let entry = scene.last_signed();
        assert!(
            entry.summary.contains(&lost_hash[..8]),
            "the entry names the superseded hash {lost_hash}: {entry:?}"
        );
        // That one arrived.
        scene.stale(&scene.targets(&edition, 8, "third"), 9);
    }
}

#[test]
fn a_version_beyond_the_next_is_a_gap() {
    let scene = Scene::new();
    let edition = scene.forge.edition(7);
    scene.refused(&scene.targets(&edition, i32::MAX as u32, "v1"), "gap", 8);
    scene.refused_unless_allowed(&scene.targets(&edition, 9, "v1"), "gap", 8);
}

// ---- delegations

#[test]
fn a_delegation_that_the_snapshot_does_not_list_goes_on_from_all_that_is_known() {
    let alice: RoleName = "targets/alice".parse().expect("a role");
    let mut scene = Scene::new();
    scene.forge.add_signer(&alice);
    scene
        .forge
        .import(&scene.home, std::slice::from_ref(&alice));
    let mut edition = scene.forge.edition(5);
    let delegated = with_delegations(edition.top(), &[(&alice, scene.forge.key(&alice))]);
    edition.targets.insert(RoleName::Targets, delegated);

    let key = scene.forge.key_id(&alice);
    let at = |version, tag| {
        let first = with_tag(&Targets::empty(version, now()), version, tag);
        Ask::new(GUN, Some(scene.forge.documents(&edition))).item(&alice, &first, key)
    };
    scene.refused(&at(2, "v1"), "gap", 1);
    // The server still serves a document under the role's plain name: it only raises the number.
    let mut unlisted = at(4, "v1");
    let left = scene.forge.sign(&alice, &Targets::empty(3, now()));
    let base = unlisted.base.as_mut().expect("it has a base");
    base.unlisted.insert(alice.clone(), left);
    scene.raw.ask(&unlisted).expect("one more than 3");
    // Published from here at 4, and dropped from the snapshot since.
    scene.refused(&at(4, "v2"), "rollback", 5);
    scene.raw.ask(&at(5, "v2")).expect("one more than 4");
}

// ---- also refused

#[test]
fn a_key_that_nothing_verified_lists_for_the_role_is_refused() {
    let scene = Scene::new();
    let edition = scene.forge.edition(7);
    let stranger = Forge::new(GUN);
    stranger.import(&scene.home, &[RoleName::Targets]);
    let targets = RoleName::Targets;
    let next = with_tag(edition.top(), 8, "v1");
    let ask = Ask::new(GUN, Some(scene.forge.documents(&edition))).item(
        &targets,
        &next,
        stranger.key_id(&targets),
    );
    let failure = scene.refused(&ask, "key", 8);
    let id = stranger.key_id(&targets).to_string();
    assert!(failure.message.contains(&id), "{failure:?}");
    scene.passes_with(&ask, "key");
}

#[test]
fn a_key_that_a_document_above_it_in_the_same_request_lists_is_taken() {
    let alice: RoleName = "targets/alice".parse().expect("a role");
    let mut scene = Scene::new();
    scene.forge.add_signer(&alice);
    scene
        .forge
        .import(&scene.home, std::slice::from_ref(&alice));
    let edition = scene.forge.edition(5);
    let mut delegated = with_delegations(edition.top(), &[(&alice, scene.forge.key(&alice))]);
    delegated.version = 6;
    let first = with_tag(&Targets::empty(1, now()), 1, "v1");
    let key = scene.forge.key_id(&alice);
    let ask = scene.upon(&edition, &delegated).item(&alice, &first, key);
    let done = scene.raw.ask(&ask).expect("the new targets list it");
    assert_eq!(done.signatures.len(), 2);

    // And with the document above it refused, nothing is signed at all.
    let mut gap = delegated.clone();
    gap.version = 9;
    let ask = scene.upon(&edition, &gap).item(&alice, &first, key);
    scene.raw.ask(&ask).expect_err("one is refused, so all are");
}

#[test]
fn a_root_lists_the_new_root_and_targets_keys_of_its_request() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let edition = scene.forge.edition(5);
    let (root, targets) = (RoleName::Root, RoleName::Targets);
    let next = Forge::new(GUN);
    next.import(&scene.home, &[RoleName::Root, RoleName::Targets]);
    // Rotated: the new keys for root and targets, the old ones for the rest.
    let mut rotated = scene.forge.root(2);
    for role in [&root, &targets] {
        let id = next.key_id(role);
        rotated.roles.get_mut(role).expect("listed").key_ids = vec![id];
        rotated.keys.insert(id, next.root(1).keys[&id].clone());
    }
    let both = [scene.forge.key_id(&root), next.key_id(&root)];
    let base = scene.forge.documents(&edition);
    let again = with_tag(edition.top(), 6, "v1");
    let ask = Ask::new(GUN, Some(base))
        .bytes(&root, rotated.canonical(), &both)
        .item(&targets, &again, next.key_id(&targets));
    let done = scene.raw.ask(&ask).expect("the new root lists them");
    assert_eq!(done.signatures.len(), 3);
}

#[test]
fn a_threshold_lowered_or_a_key_set_emptied_is_refused() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let (root, targets) = (RoleName::Root, RoleName::Targets);
    let second = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
    // Published: targets need two keys.
    let mut published = scene.forge.root(1);
    published.keys.insert(second.id(), second.public().clone());
    let listed = published.roles.get_mut(&targets).expect("listed");
    listed.key_ids.push(second.id());
    listed.threshold = 2;
    let mut edition = scene.forge.edition(5);
    edition.roots = vec![scene.forge.sign(&root, &published)];
    // Signed by both, as the root demands.
    let own = (scene.forge.key_id(&targets), scene.forge.key(&targets));
    let by_both = Forge::sign_by(edition.top(), &[own, (second.id(), &second)]);
    let by_both = BTreeMap::from([(targets.clone(), by_both)]);
    let base = scene.forge.documents_of(&edition, by_both);

    let ask = |threshold: u32, key_ids: Vec<signet_trust::KeyId>| {
        let mut lowered = published.clone();
        lowered.version = 2;
        let listed = lowered.roles.get_mut(&targets).expect("listed");
        listed.threshold = threshold;
        listed.key_ids = key_ids;
        Ask::new(GUN, Some(base.clone())).item(&root, &lowered, scene.forge.key_id(&root))
    };
    let all = published.roles[&targets].key_ids.clone();
    scene.refused(&ask(2, Vec::new()), "threshold", 2);
    scene.refused(&ask(2, all[..1].to_vec()), "threshold", 2);
    scene.refused_unless_allowed(&ask(1, all), "threshold", 2);
}

#[test]
fn the_last_signer_of_a_delegation_may_go_and_is_shown() {
    let alice: RoleName = "targets/alice".parse().expect("a role");
    let mut scene = Scene::new();
    scene.forge.add_signer(&alice);
    let mut edition = scene.forge.edition(5);
    let delegated = with_delegations(edition.top(), &[(&alice, scene.forge.key(&alice))]);
    edition.targets.insert(RoleName::Targets, delegated.clone());
    let mut without = delegated;
    without.version = 6;
    without.delegations.keys.clear();
    let roles = without.delegations.roles.as_mut().expect("there is one");
    roles[0].key_ids = None;
    let done = scene
        .raw
        .ask(&scene.upon(&edition, &without))
        .expect("removing the last signer does this");
    let words = done.summary.join("\n");
    assert!(words.contains("alice"), "{words}");
}

#[test]
fn an_expiry_past_or_beyond_policy_is_refused() {
    let scene = Scene::new();
    let edition = scene.forge.edition(5);
    let until = |expires| {
        let mut next = with_tag(edition.top(), 6, "v1");
        next.expires = Expiry::at(expires);
        scene.upon(&edition, &next)
    };
    scene.refused(&until(now() - 60), "expiry", 6);
    let ten_years = until(now() + lifetime::ROOT);
    scene.refused_unless_allowed(&ten_years, "expiry", 6);
}

#[test]
fn a_root_that_the_current_and_its_own_keys_do_not_sign_is_refused() {
    let scene = Scene::with(&[RoleName::Root, RoleName::Targets]);
    let root = RoleName::Root;
    let edition = scene.forge.edition(5);
    let next = Forge::new(GUN);
    next.import(&scene.home, &[RoleName::Root]);
    let mut rotated = scene.forge.root(2);
    let (old, new) = (scene.forge.key_id(&root), next.key_id(&root));
    rotated.roles.get_mut(&root).expect("listed").key_ids = vec![new];
    rotated.keys.insert(new, next.root(1).keys[&new].clone());
    let by = |keys: &[signet_trust::KeyId]| {
        Ask::new(GUN, Some(scene.forge.documents(&edition))).bytes(&root, rotated.canonical(), keys)
    };
    scene.refused(&by(&[old]), "threshold", 2);
    scene.refused(&by(&[new]), "threshold", 2);
    let done = scene.raw.ask(&by(&[old, new])).expect("signed by both");
    assert_eq!(done.signatures.len(), 2);
}

#[test]
fn what_cannot_be_read_is_refused_and_a_key_so_used_is_shown_as_such() {
    let scene = Scene::new();
    let edition = scene.forge.edition(5);
    let targets = RoleName::Targets;
    let key = scene.forge.key_id(&targets);
    let readable = with_tag(edition.top(), 6, "v1").canonical();
    let spaced = [&b" "[..], &readable].concat();
    let duplicate =
        String::from_utf8(readable.clone())
            .expect("JSON")
            .replacen('{', r#"{"_type":"Root","#, 1);
    for bytes in [
        b"hello".to_vec(),
        Vec::from(&readable[..readable.len() - 1]),
        vec![0xff; 64],
        vec![b'['; 100_000],
        spaced,
        duplicate.into_bytes(),
    ] {
        let base = scene.forge.documents(&edition);
        let ask = Ask::new(GUN, Some(base)).bytes(&targets, bytes, &[key]);
        scene.refused(&ask, "opaque", 6);
    }
    let base = scene.forge.documents(&edition);
    let ask = Ask::new(GUN, Some(base)).bytes(&targets, b"hello".to_vec(), &[key]);
    scene.passes_with(&ask, "opaque");
    let keys = serde_json::to_string(&scene.home.keys()).expect("JSON");
    assert!(keys.contains("opaque"), "{keys}");
}

fn sha256(bytes: &[u8]) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
