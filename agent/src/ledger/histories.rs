//! Random histories of the real guard over the real ledger: what crash tests find in some places,
//! looked for in all.

use std::{collections::BTreeSet, fs};

use proptest::prelude::*;
use signet_trust::{
    RoleName,
    base::VerifiedBase,
    guard::{Mark, Rule, observe},
    payload::Item,
};

use super::*;

// The server in memory of the guard's own tests.
#[allow(dead_code, reason = "the guard's tests use more of it")]
#[path = "../../../trust/tests/guard/world.rs"]
mod world;

use world::{Server, ask, gun, mark, targets_document, targets_item};

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// We ask for a version this far from the next one, with this content; and then…
    Ask {
        offset: i8,
        content: u8,
        then: Then,
        stale: bool,
    },
    /// Another host publishes.
    Foreign { content: u8 },
    /// The agent starts anew.
    Restart,
    /// Somebody keeps a copy of the ledger.
    Copy,
    /// And puts it back.
    PutBack,
    /// The server goes back by some publishes, and the person allows it.
    Rollback { back: usize },
}

/// What becomes of a signature.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Decided, and never recorded: the agent died first.
    DiedBefore,
    /// Released, and lost.
    Lost,
    /// Released and refused by the server, which we report.
    Rejected,
    /// Published, and the client died before it knew.
    Unreported,
    /// Published and reported.
    Reported,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let then = prop_oneof![
        Just(Then::DiedBefore),
        Just(Then::Lost),
        Just(Then::Rejected),
        Just(Then::Unreported),
        Just(Then::Reported)
    ];
    let offset = prop_oneof![5 => Just(0i8), 1 => -3i8..4];
    let event = prop_oneof![
        8 => (offset, 0..4u8, then, prop::bool::weighted(0.15)).prop_map(
            |(offset, content, then, stale)| Event::Ask { offset, content, then, stale }
        ),
        3 => (100..104u8).prop_map(|content| Event::Foreign { content }),
        1 => Just(Event::Restart),
        1 => Just(Event::Copy),
        1 => Just(Event::PutBack),
        1 => (1..4usize).prop_map(|back| Event::Rollback { back }),
    ];
    prop::collection::vec(event, 1..30)
}

struct Run {
    dir: tempfile::TempDir,
    ledger: Option<Ledger>,
    copy: Option<Vec<u8>>,
    servers: Vec<Server>,
    /// Payloads of every signature that was ever released, whatever the ledger knows now.
    released: BTreeSet<[u8; 32]>,
    /// Payloads that a ledger put back may have forgotten.
    forgotten: BTreeSet<[u8; 32]>,
}

impl Run {
    fn new() -> Self {
        // On memory where there is some: each event is an fsync or more.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        Self {
            ledger: Some(Ledger::open(dir.path()).unwrap()),
            dir,
            copy: None,
            servers: vec![Server::with_targets(1, 0)],
            released: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledger.as_mut().unwrap()
    }

    fn server(&self) -> &Server {
        self.servers.last().unwrap()
    }

    /// The base, verified against what the ledger has on record.
    fn base(&mut self, server: &Server) -> VerifiedBase {
        let recorded = self.ledger().roots(&gun()).unwrap();
        server.verified(&recorded).unwrap()
    }

    fn version(base: &VerifiedBase) -> u32 {
        base.mark(&RoleName::Targets)
            .map_or(0, |(version, _)| version)
    }

    fn publish(&mut self, item: &Item) {
        let signet_trust::document::Document::Targets(document) = item.payload.document().unwrap()
        else {
            unreachable!("all items are targets")
        };
        let mut server = self.server().clone();
        server.take(RoleName::Targets, document);
        self.servers.push(server);
    }

    /// What every verified base is asked: is there one that we signed, and the log does not know?
    fn compare(&mut self, base: &VerifiedBase) {
        let (_, hash) = base.mark(&RoleName::Targets).unwrap();
        if !self.released.contains(&hash) {
            return;
        }
        let known = self.ledger().knows_payload(&hash).unwrap();
        assert!(
            known || self.forgotten.contains(&hash),
            "a released document is not in the log, which nobody put back"
        );
        if known {
            return;
        }
        // Reported once; from then on it is known.
        let entry = NewEntry {
            kind: ALARM,
            payload: Some(hash),
            ..NewEntry::default()
        };
        self.ledger().alarm(&entry).unwrap();
    }

    fn ask(&mut self, offset: i8, content: u8, then: Then, stale: bool, allow: &[Rule]) {
        let at = self.servers.len().saturating_sub(if stale { 2 } else { 1 });
        let server = self.servers[at].clone();
        let base = self.base(&server);
        self.compare(&base);
        let next = Self::version(&base) + 1;
        let version = next.saturating_add_signed(i32::from(offset)).max(1);
        let item = targets_item(&targets_document(version, content));
        let history = self.ledger().history(&gun()).unwrap();
        let Ok(pass) = ask(&history, Some(&base), std::slice::from_ref(&item), allow) else {
            self.observe(&base);
            return;
        };
        if then == Then::DiedBefore {
            self.restart();
            assert_eq!(self.ledger().history(&gun()).unwrap(), history);
            return;
        }
        let lineage = pass.lineage;
        let numbers = self.record(&base, &item, history, pass);
        self.is_recorded(&item, &numbers, lineage);
        self.released.insert(item.payload.hash());
        let arrives = version == Self::version(&self.server().base()) + 1;
        if arrives && matches!(then, Then::Unreported | Then::Reported) {
            self.publish(&item);
        }
        let arrived = arrives && then == Then::Reported;
        if arrived || then == Then::Rejected {
            let marks = [(RoleName::Targets, mark(&item))];
            let entry = NewEntry {
                kind: "publish",
                ..NewEntry::default()
            };
            self.ledger()
                .report(&gun(), lineage, &marks, arrived, &entry)
                .unwrap();
        }
    }

    /// As `keyring/request/release.rs` writes it.
    fn record(
        &mut self,
        base: &VerifiedBase,
        item: &Item,
        history: History,
        pass: Pass,
    ) -> Vec<u64> {
        let replaces = |(_, mark): &(RoleName, Mark)| format!("replaces v{}", mark.version);
        let entry = NewEntry {
            kind: "sign",
            gun: gun().to_string(),
            role: "targets".to_owned(),
            version: mark(item).version,
            payload: Some(item.payload.hash()),
            summary: pass.supersedes.iter().map(replaces).collect(),
            rule: pass.overrides.iter().map(ToString::to_string).collect(),
            // What the person's words do not say, for the check below.
            outcome: format!("base v{}", Self::version(base)),
            ..NewEntry::default()
        };
        let root = pass.new_lineage.then(|| base.root().wire().to_vec());
        self.ledger()
            .release(&gun(), &history, &pass, root.as_deref(), &[entry])
            .unwrap()
    }

    /// A signature that leaves has its entry, and its state.
    fn is_recorded(&mut self, item: &Item, numbers: &[u64], lineage: Lineage) {
        let [number] = numbers else {
            panic!("{numbers:?}")
        };
        let entries = self.ledger().entries(*number, 1).unwrap();
        assert_eq!(entries[0].entry.payload, Some(item.payload.hash()));
        let history = self.ledger().history(&gun()).unwrap();
        let role = history.collections[&lineage].roles[&RoleName::Targets];
        let is_at = |mark: &Mark| mark.version >= self::mark(item).version;
        let signed = role.signed.map(|(mark, _)| mark);
        assert!(
            signed.filter(is_at).or(role.seen.filter(is_at)).is_some(),
            "{role:?}"
        );
    }

    fn observe(&mut self, base: &VerifiedBase) {
        let Some(lineage) = base.lineage() else {
            return;
        };
        let history = self.ledger().history(&gun()).unwrap();
        if let Some(state) = history.collections.get(&lineage) {
            let seen = observe(state, base);
            self.ledger().observe(&gun(), lineage, None, &seen).unwrap();
        }
    }

    fn restart(&mut self) {
        self.ledger = None;
        self.ledger = Some(Ledger::open(self.dir.path()).unwrap());
    }

    fn copy(&mut self) {
        // Closed, so that all of it is in one file.
        self.ledger = None;
        self.copy = Some(fs::read(self.dir.path().join(FILE_NAME)).unwrap());
        self.restart();
    }

    fn put_back(&mut self) {
        let Some(copy) = self.copy.clone() else {
            return;
        };
        self.ledger = None;
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(self.dir.path().join(FILE_NAME), copy).unwrap();
        self.restart();
        self.forgotten = self.released.clone();
    }

    fn rollback(&mut self, back: usize) {
        let keep = self.servers.len().saturating_sub(back).max(1);
        let restored = self.servers[keep - 1].clone();
        self.servers.push(restored);
        self.ask(0, 50, Then::Reported, false, &[Rule::Rollback]);
    }

    /// The chain holds, and no version has two contents in the log, unless the later entry says
    /// that it replaces one, or that the person let the server go back, and its base was at the
    /// version before.
    fn log_is_sound(&mut self) {
        let count = self.ledger().verify_chain().unwrap();
        let mut signed: Vec<Entry> = self.ledger().entries(1, count).unwrap();
        signed.retain(|entry| entry.entry.kind == "sign");
        for (at, later) in signed.iter().enumerate() {
            let later = &later.entry;
            let differs = |earlier: &&Entry| {
                earlier.entry.version == later.version && earlier.entry.payload != later.payload
            };
            let Some(earlier) = signed[..at].iter().find(differs) else {
                continue;
            };
            let before = format!("base v{}", later.version - 1);
            // Signed again as it was, after something that replaced it.
            let again = signed[..at]
                .iter()
                .any(|earlier| earlier.entry.payload == later.payload);
            let rolled_back = signed[..=at]
                .iter()
                .any(|entry| entry.entry.rule.contains("rollback"));
            assert!(
                again
                    || rolled_back
                    || (later.summary.contains("replaces") && later.outcome == before),
                "{earlier:?}\n{later:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn whatever_happens_a_signature_has_its_entry_and_a_version_one_content(events in events()) {
        let mut run = Run::new();
        for event in events {
            match event {
                Event::Ask { offset, content, then, stale } => {
                    run.ask(offset, content, then, stale, &[]);
                }
                Event::Foreign { content } => {
                    let version = Run::version(&run.server().base()) + 1;
                    run.publish(&targets_item(&targets_document(version, content)));
                }
                Event::Restart => run.restart(),
                Event::Copy => run.copy(),
                Event::PutBack => run.put_back(),
                Event::Rollback { back } => run.rollback(back),
            }
            run.log_is_sound();
        }
        // A last look at what the server has.
        let server = run.server().clone();
        let base = run.base(&server);
        run.compare(&base);
        let (_, hash) = base.mark(&RoleName::Targets).unwrap();
        let ours = run.released.contains(&hash);
        prop_assert!(!ours || run.ledger().knows_payload(&hash).unwrap());
    }
}
