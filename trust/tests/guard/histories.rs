//! Random histories: we publish, others publish, uploads get lost, servers are put back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use signet_trust::{
    RoleName,
    base::VerifiedBase,
    document::Targets,
    guard::{History, Mark, Pass, Refusal, Rule, State, observe, published},
    payload::Item,
};

use crate::world::{
    Server, alice_item, ask, keys, mark, role, targets_document, targets_item, with_alice,
};

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// We ask for a version this far from the base's next, with this content; and the upload…
    Ask {
        role: Who,
        offset: i8,
        content: u8,
        upload: Upload,
        stale: bool,
    },
    /// Somebody else publishes.
    Foreign { role: Who, content: u8 },
    /// The server is put back to what it was some publishes ago.
    Restore { back: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Targets,
    Alice,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Upload {
    Reported,
    /// The server has it, but we never heard.
    Unreported,
    Lost,
}

impl Who {
    fn role(self) -> RoleName {
        match self {
            Self::Targets => RoleName::Targets,
            Self::Alice => role("targets/alice"),
        }
    }

    fn document(self, version: u32, content: u8) -> Targets {
        let targets = targets_document(version, content);
        match self {
            Self::Targets => with_alice(targets, keys().alice.public()),
            Self::Alice => targets,
        }
    }

    fn item(self, version: u32, content: u8) -> Item {
        match self {
            Self::Targets => targets_item(&self.document(version, content)),
            Self::Alice => alice_item(&self.document(version, content)),
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = prop_oneof![2 => Just(Who::Targets), 1 => Just(Who::Alice)];
    let upload = prop_oneof![
        Just(Upload::Reported),
        Just(Upload::Unreported),
        Just(Upload::Lost)
    ];
    let offset = prop_oneof![4 => Just(0i8), 1 => -4i8..4];
    let stale = prop::bool::weighted(0.2);
    let event = prop_oneof![
        6 => (who.clone(), offset, 0..4u8, upload, stale).prop_map(
            |(role, offset, content, upload, stale)| Event::Ask { role, offset, content, upload, stale }
        ),
        3 => (who, 100..104u8).prop_map(|(role, content)| Event::Foreign { role, content }),
        1 => (1..4usize).prop_map(|back| Event::Restore { back }),
    ];
    prop::collection::vec(event, 1..25)
}

/// The agent, the server, and what an onlooker knows of both.
struct Run {
    history: History,
    servers: Vec<Server>,
    /// Per role and version: every content for which a request passed without an override.
    passed: BTreeMap<(RoleName, u32), Vec<Mark>>,
    /// Highest version that the agent knows to be published, per role.
    known: BTreeMap<RoleName, u32>,
}

impl Run {
    fn new() -> Self {
        let mut server = Server::with_targets(1, 0);
        server.take(RoleName::Targets, &Who::Targets.document(2, 0));
        let history = History {
            collections: [(server.record().lineage, State::default())].into(),
        };
        Self {
            history,
            servers: vec![server],
            passed: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    fn server(&self) -> &Server {
        self.servers.last().unwrap()
    }

    /// The current version of a role at a server, from 0.
    fn version(server: &Server, who: Who) -> u32 {
        server
            .base()
            .mark(&who.role())
            .map_or(0, |(version, _)| version)
    }

    fn publish(&mut self, who: Who, version: u32, content: u8) {
        let mut server = self.server().clone();
        if version == Self::version(&server, who) + 1 {
            server.take(who.role(), &who.document(version, content));
            self.servers.push(server);
        }
    }

    fn state(&mut self) -> &mut State {
        self.history.collections.values_mut().next().unwrap()
    }

    fn ask(&mut self, who: Who, offset: i8, content: u8, upload: Upload, stale: bool) {
        let at = self.servers.len().saturating_sub(if stale { 2 } else { 1 });
        let base = self.servers[at].base();
        let version = Self::version(&self.servers[at], who).saturating_add(1);
        let version = version.saturating_add_signed(i32::from(offset)).max(1);
        let item = who.item(version, content);
        match ask(&self.history, Some(&base), std::slice::from_ref(&item), &[]) {
            Ok(pass) => self.release(who, &base, &item, pass, content, upload),
            Err(refusal) => self.check_refusal(who, &base, &refusal, content),
        }
        // The agent keeps what it saw only from bases that it does not call stale.
    }

    fn release(
        &mut self,
        who: Who,
        base: &VerifiedBase,
        item: &Item,
        pass: Pass,
        content: u8,
        upload: Upload,
    ) {
        let role = who.role();
        let mark = mark(item);
        assert!(pass.overrides.is_empty());
        let at_base = base.mark(&role) == Some((mark.version, mark.hash));
        let known = self.known.get(&role).copied().unwrap_or(0);
        let earlier = self.passed.entry((role.clone(), mark.version)).or_default();
        let is_new = !earlier.contains(&mark);
        assert!(
            at_base || !is_new || mark.version > known,
            "{role}: other content at {}, although {known} is known to be published",
            mark.version
        );
        if is_new
            && !at_base
            && let Some(lost) = earlier.last()
        {
            let named = pass
                .supersedes
                .iter()
                .any(|(r, m)| *r == role && m.version >= lost.version);
            let by_restore = base.mark(&role).is_some_and(|(v, _)| v >= lost.version);
            assert!(
                named || by_restore,
                "{role}: {lost:?} was replaced without a word"
            );
        }
        earlier.push(mark);

        *self.state() = pass.state;
        self.note(base);
        let arrives = Self::version(self.server(), who) + 1 == mark.version;
        if upload != Upload::Lost && arrives {
            self.publish(who, mark.version, content);
            if upload == Upload::Reported {
                let state = published(self.state(), &[(role.clone(), mark)]);
                *self.state() = state;
                let known = self.known.entry(role).or_default();
                *known = (*known).max(mark.version);
            }
        }
    }

    /// What the agent knows to be published after it saw this base.
    fn note(&mut self, base: &VerifiedBase) {
        for who in [Who::Targets, Who::Alice] {
            if let Some((version, _)) = base.mark(&who.role()) {
                let known = self.known.entry(who.role()).or_default();
                *known = (*known).max(version);
            }
        }
    }

    /// Every refusal names a version, and with the base that it speaks of, that version passes.
    fn check_refusal(&mut self, who: Who, base: &VerifiedBase, refusal: &Refusal, content: u8) {
        let next = refusal.next();
        match refusal {
            Refusal::Refused { .. } => {
                let item = who.item(next, content);
                let again = ask(&self.history, Some(base), &[item], &[]);
                assert!(again.is_ok(), "{next} was named, but: {again:?}");
            }
            Refusal::StaleBase { .. } => {
                // A server whose version is the one before: made for the purpose if it is not there.
                let mut server = self.server().clone();
                let highest = self.servers.iter().map(|server| server.timestamp).max();
                server.timestamp = highest.unwrap() + 1;
                server.snapshot = server.timestamp;
                for role in [Who::Targets, Who::Alice] {
                    let highest = self.known.get(&role.role()).copied().unwrap_or(0);
                    let wanted = if role == who { next - 1 } else { highest };
                    if wanted > 0 {
                        server.take(role.role(), &role.document(wanted, 200));
                    } else if role == who {
                        // The base spoken of lists none; the server may have got one since.
                        server.drop_role(&role.role());
                    }
                }
                let item = who.item(next, content);
                let again = ask(&self.history, Some(&server.base()), &[item], &[]);
                assert!(again.is_ok(), "{next} was named, but: {again:?}");
            }
            Refusal::RefetchOnce { .. } => panic!("there was a base"),
        }
    }

    /// The person consents to the server having gone back.
    fn restore(&mut self, back: usize) {
        let keep = self.servers.len().saturating_sub(back).max(1);
        let restored = self.servers[keep - 1].clone();
        self.servers.push(restored);
        let base = self.server().base();
        let version = Self::version(self.server(), Who::Targets) + 1;
        let item = Who::Targets.item(version, 50);
        let pass = ask(&self.history, Some(&base), &[item], &[Rule::Rollback]).unwrap();
        *self.state() = pass.state;
        if pass.overrides.contains(&Rule::Rollback) {
            // From here on the server's versions are those that count.
            self.known.clear();
            self.passed.clear();
        }
        self.passed.entry((RoleName::Targets, version)).or_default();
        self.note(&base);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_history_makes_two_contents_of_one_published_version(events in events()) {
        let mut run = Run::new();
        for event in events {
            match event {
                Event::Ask { role, offset, content, upload, stale } => {
                    run.ask(role, offset, content, upload, stale);
                }
                Event::Foreign { role, content } => {
                    let version = Run::version(run.server(), role) + 1;
                    run.publish(role, version, content);
                }
                Event::Restore { back } => run.restore(back),
            }
        }
    }

    #[test]
    fn observing_never_lowers_what_is_known(versions in prop::collection::vec(1..20u32, 1..6)) {
        let mut state = State::default();
        let mut highest = 0;
        for version in versions {
            let base = Server::with_targets(version, version as u8).base();
            state = observe(&state, &base);
            highest = highest.max(version);
            let seen = state.roles[&RoleName::Targets].seen.unwrap();
            prop_assert_eq!(seen.version, highest);
        }
    }
}
