//! A client that means harm, or is broken: what it says is bounded, judged, and never believed.

#[path = "guard_hostile/attacks.rs"]
mod attacks;

use std::os::unix::net::UnixStream;

use signet_proto::MAX_CHUNK;
use signet_proto::v1::{self, report::Outcome, sign_event::Event, sign_request::Message};
use signet_tests::forge::{Edition, Forge, with_tag};
use signet_tests::raw::{Ask, Raw, Refused, Talk};
use signet_tests::{Home, Lab, Run};
use signet_trust::RoleName;

const GUN: &str = "registry.example.com/acme/app";

/// `size` bytes of a request by default, 100 MiB at most.
const REQUEST_LIMIT: u64 = 100 << 20;

struct Scene {
    raw: Raw,
    forge: Forge,
    edition: Edition,
    home: Home,
    _lab: Lab,
}

impl Scene {
    /// An agent with the targets key of a forged collection, and an edition of that.
    fn locked() -> Self {
        let lab = Lab::builder().build();
        let home = lab.home();
        home.has_keyrings();
        let forge = Forge::new(GUN);
        forge.import(&home, &[RoleName::Targets]);
        home.signet().arg("lock").run().ok();
        Self {
            raw: Raw::connect(&home),
            edition: forge.edition(5),
            forge,
            home,
            _lab: lab,
        }
    }

    fn unlocked() -> Self {
        let scene = Self::locked();
        scene.home.unlocks();
        scene
    }

    fn good(&self, tag: &str) -> Ask {
        let targets = RoleName::Targets;
        let next = with_tag(self.edition.top(), 6, tag);
        Ask::new(GUN, Some(self.forge.documents(&self.edition)))
            .item(&targets, &next, self.forge.key_id(&targets))
            .reporting(Some(Outcome::Rejected))
    }

    /// The agent still does what it is there for, and has signed nothing else.
    #[track_caller]
    fn still_works(&self) {
        let signed = || {
            let log = self.raw.log();
            log.iter().filter(|entry| entry.kind == "sign").count()
        };
        assert_eq!(signed(), 0, "something was signed: {:#?}", self.raw.log());
        self.home.unlocks();
        self.raw
            .ask(&self.good("after"))
            .expect("a good request is signed");
        assert_eq!(signed(), 1);
    }
}

#[track_caller]
fn refused(raw: &Raw, what: &str, ask: &Ask) -> v1::Failure {
    match raw.ask(ask) {
        Err(Refused::Failed(failure)) => *failure,
        other => panic!("{what}: {other:?}"),
    }
}

/// Hears nothing but its end.
#[track_caller]
fn ends_badly(talk: &mut Talk<'_>, what: &str) -> v1::Failure {
    loop {
        match talk.hear() {
            Err(refused) => return refused.failure(),
            Ok(Some(Event::Queued(_) | Event::Notice(_))) => {}
            Ok(other) => panic!("{what}: {other:?}"),
        }
    }
}

#[track_caller]
fn prompt(talk: &mut Talk<'_>) -> v1::Prompt {
    loop {
        match talk.hear().expect("a question") {
            Some(Event::Prompt(prompt)) => return prompt,
            Some(Event::Queued(_) | Event::Notice(_)) => {}
            other => panic!("no question but {other:?}"),
        }
    }
}

#[test]
fn a_malformed_request_is_refused_and_says_why() {
    let scene = Scene::unlocked();
    let targets = RoleName::Targets;
    let key = scene.forge.key_id(&targets);
    let base = || Some(scene.forge.documents(&scene.edition));
    let next = with_tag(scene.edition.top(), 6, "v1");
    let snapshot = signet_trust::document::Snapshot {
        expires: next.expires.clone(),
        meta: std::collections::BTreeMap::new(),
        version: 6,
    };
    let mut no_key = Ask::new(GUN, base()).item(&targets, &next, key);
    no_key.items[0].key_ids.clear();
    let mut bad_key = Ask::new(GUN, base()).item(&targets, &next, key);
    bad_key.items[0].key_ids = vec!["../../etc/passwd".to_owned()];
    let mut bad_role = Ask::new(GUN, base()).item(&targets, &next, key);
    bad_role.items[0].role = "targets/../root".to_owned();
    let cases = [
        ("nothing", Ask::new(GUN, base())),
        (
            "a timestamp",
            Ask::new(GUN, base()).item(&RoleName::Timestamp, &snapshot, key),
        ),
        (
            "a snapshot as targets",
            Ask::new(GUN, base()).item(&targets, &snapshot, key),
        ),
        (
            "a role twice",
            Ask::new(GUN, base())
                .item(&targets, &next, key)
                .item(&targets, &next, key),
        ),
        ("no key", no_key),
        ("a path as key", bad_key),
        ("a path as role", bad_role),
        (
            "no GUN",
            Ask {
                gun: String::new(),
                ..scene.good("v1")
            },
        ),
        (
            "a GUN with a line end",
            Ask {
                gun: "registry.example.com/a\nb".to_owned(),
                ..scene.good("v1")
            },
        ),
        (
            "a wildcard for a GUN",
            Ask {
                gun: "*".to_owned(),
                ..scene.good("v1")
            },
        ),
        ("a rule that is none", scene.good("v1").allow("everything")),
    ];
    for (what, ask) in cases {
        let failure = refused(&scene.raw, what, &ask);
        assert!(!failure.message.is_empty(), "{what}: {failure:?}");
        assert!(matches!(failure.exit, 1 | 2 | 4), "{what}: {failure:?}");
        assert!(!failure.message.contains('\n'), "{what}: {failure:?}");
    }
    scene.still_works();
}

#[test]
fn a_base_that_does_not_verify_is_refused_by_the_document_that_is_wrong() {
    let scene = Scene::unlocked();
    let good = scene.forge.documents(&scene.edition);
    let stranger = Forge::new(GUN).documents(&scene.edition);
    let other_edition = scene.forge.documents(&scene.forge.edition(6));
    let flip = |wire: &[u8]| {
        let mut wire = wire.to_vec();
        let middle = wire.len() / 2;
        wire[middle] ^= 1;
        wire
    };
    let targets = RoleName::Targets;
    let mut cases = Vec::new();
    let mut case = |what: &'static str, change: &dyn Fn(&mut signet_trust::base::BaseDocuments)| {
        let mut base = good.clone();
        change(&mut base);
        cases.push((what, base));
    };
    case("root", &|base| base.roots[0] = flip(&base.roots[0]));
    case("timestamp", &|base| {
        base.timestamp = stranger.timestamp.clone();
    });
    case("timestamp", &|base| {
        base.timestamp = base.timestamp.as_deref().map(flip);
    });
    case("snapshot", &|base| {
        base.snapshot = other_edition.snapshot.clone()
    });
    case("snapshot", &|base| {
        base.snapshot = stranger.snapshot.clone()
    });
    case("targets", &|base| {
        let wire = flip(&base.targets[&targets]);
        base.targets.insert(targets.clone(), wire);
    });
    case("targets", &|base| {
        let wire = other_edition.targets[&targets].clone();
        base.targets.insert(targets.clone(), wire);
    });
    case("root", &|base| base.roots.clear());
    case("timestamp", &|base| base.timestamp = None);
    case("snapshot", &|base| base.snapshot = None);
    case("targets", &|base| base.targets.clear());
    case("root", &|base| base.roots[0] = vec![b'['; 4 << 20]);
    case("targets", &|base| {
        base.targets.insert(targets.clone(), b"\xff\xfe".to_vec());
    });
    let next = with_tag(scene.edition.top(), 6, "v1");
    for (role, base) in cases {
        let ask = Ask::new(GUN, Some(base)).item(&targets, &next, scene.forge.key_id(&targets));
        let failure = refused(&scene.raw, role, &ask);
        assert!(
            failure.message.contains(role),
            "{role} is wrong, but: {failure:?}"
        );
    }
    scene.still_works();
}

#[test]
fn a_first_root_for_another_name_is_not_taken_for_this_one() {
    let scene = Scene::unlocked();
    let other = Forge::new("registry.example.com/acme/other");
    let edition = other.edition(5);
    let targets = RoleName::Targets;
    let ask = Ask::new(GUN, Some(other.documents(&edition))).item(
        &targets,
        &with_tag(edition.top(), 6, "v1"),
        other.key_id(&targets),
    );
    let failure = refused(&scene.raw, "another name", &ask);
    assert_eq!(failure.exit, 3, "{failure:?}");
    scene.still_works();
}

#[test]
fn a_key_of_another_role_or_repository_does_not_sign() {
    let scene = Scene::unlocked();
    // A collection of another name lists our targets key: it is for this GUN, so the agent's
    // authority, its own file, says no.
    let targets = RoleName::Targets;
    let snapshot = RoleName::Snapshot;
    scene.forge.import(&scene.home, &[RoleName::Snapshot]);
    let mut edition = scene.edition.clone();
    let mut root = scene.forge.root(1);
    let swapped = scene.forge.key_id(&snapshot);
    root.roles.get_mut(&targets).expect("listed").key_ids = vec![swapped];
    edition.roots = vec![scene.forge.sign(&RoleName::Root, &root)];
    let own = [(swapped, scene.forge.key(&snapshot))];
    let wire = Forge::sign_by(edition.top(), &own);
    let base = scene
        .forge
        .documents_of(&edition, [(targets.clone(), wire)].into());
    let next = with_tag(edition.top(), 6, "v1");
    let ask = Ask::new(GUN, Some(base)).item(&targets, &next, swapped);
    let failure = refused(&scene.raw, "a snapshot key for targets", &ask);
    assert!(failure.message.contains("snapshot"), "{failure:?}");
}

#[test]
fn an_answer_counts_once_on_its_own_stream_and_for_its_own_prompt() {
    let scene = Scene::locked();
    let mut first = scene.raw.open();
    first.start(&scene.good("first"));
    let theirs = prompt(&mut first);

    // From another stream (of another collection: one is handled at a time), with the id of the
    // first one's prompt: not an answer to anything.
    let other = Forge::new("registry.example.com/acme/other");
    other.import(&scene.home, &[RoleName::Targets]);
    scene.home.signet().arg("lock").run().ok();
    let edition = other.edition(5);
    let targets = RoleName::Targets;
    let ask = Ask::new(other.gun(), Some(other.documents(&edition))).item(
        &targets,
        &with_tag(edition.top(), 6, "second"),
        other.key_id(&targets),
    );
    let mut second = scene.raw.open();
    second.start(&ask);
    let own = prompt(&mut second);
    assert_ne!(theirs.id, own.id);
    assert!(theirs.id.len() >= 16, "{theirs:?}");
    second.answer(&theirs);
    second.answer_with("", signet_tests::lab::KEYRING_PASSPHRASE);
    second.close();
    let failure = ends_badly(&mut second, "an answer to somebody else's prompt");
    assert!(matches!(failure.exit, 5 | 130), "{failure:?}");

    // A wrong answer uses its prompt up: the right one under the same id comes too late.
    first.answer_with(&theirs.id, "wrong passphrase");
    let next = prompt(&mut first);
    assert_ne!(next.id, theirs.id);
    first.answer(&theirs);
    first.answer_with(&next.id, "wrong passphrase again");
    let third = prompt(&mut first);
    assert_ne!(third.id, theirs.id);
    assert_ne!(third.id, next.id);
    first.answer_with(&third.id, "wrong passphrase a third time");
    let failure = ends_badly(&mut first, "three wrong passphrases");
    assert_eq!(failure.exit, 5, "{failure:?}");
    scene.still_works();
}

#[test]
fn a_yes_is_no_secret() {
    let scene = Scene::locked();
    let mut talk = scene.raw.open();
    talk.start(&scene.good("v1"));
    let asked = prompt(&mut talk);
    talk.say(Message::Answer(v1::Answer {
        grant_seconds: 0,
        prompt_id: asked.id,
        answer: Some(v1::answer::Answer::Yes(true)),
    }));
    talk.close();
    ends_badly(&mut talk, "a yes instead of a secret");
    scene.still_works();
}

#[test]
fn what_is_announced_too_large_is_refused_before_it_is_sent() {
    let scene = Scene::unlocked();
    let targets = RoleName::Targets;
    let announce = |change: &dyn Fn(&mut v1::Start)| {
        let mut messages = scene.good("v1").messages(scene.home.docker_config());
        let Some(Message::Start(start)) = &mut messages[0].message else {
            unreachable!("a request begins with its head")
        };
        change(start);
        messages.remove(0)
    };
    let item = |start: &mut v1::Start, size: u64| {
        start.step.as_mut().expect("a step").items[0].size = size;
    };
    let part = |start: &mut v1::Start, size: u64| {
        start.base.as_mut().expect("a base").parts[0].size = size;
    };
    for (what, head) in [
        ("an item", announce(&|start| item(start, REQUEST_LIMIT + 1))),
        (
            "an item of all bytes",
            announce(&|start| item(start, u64::MAX)),
        ),
        ("a part", announce(&|start| part(start, REQUEST_LIMIT + 1))),
        (
            "parts that overflow",
            announce(&|start| {
                part(start, u64::MAX);
                item(start, 2);
            }),
        ),
        (
            "too many items",
            announce(&|start| {
                let items = &mut start.step.as_mut().expect("a step").items;
                *items = vec![items[0].clone(); 100_000];
            }),
        ),
        (
            "too many keys",
            announce(&|start| {
                let items = &mut start.step.as_mut().expect("a step").items;
                items[0].key_ids = vec![scene.forge.key_id(&targets).to_string(); 50_000];
            }),
        ),
        (
            "a part by a hash that is none",
            announce(&|start| {
                let parts = &mut start.base.as_mut().expect("a base").parts;
                parts[0].sha256 = vec![0; 3];
                parts[0].by_hash = true;
            }),
        ),
    ] {
        let mut talk = scene.raw.open();
        talk.send(head);
        let failure = ends_badly(&mut talk, what);
        assert_eq!(failure.exit, 1, "{what}: {failure:?}");
    }
    scene.still_works();
}

#[test]
fn a_flood_of_chunks_ends_the_stream() {
    let scene = Scene::unlocked();
    let full = || {
        Message::Chunk(v1::Chunk {
            data: vec![b' '; MAX_CHUNK],
        })
    };
    // More than was announced.
    let mut talk = scene.raw.open();
    let mut messages = scene.good("v1").messages(scene.home.docker_config());
    let last = messages.pop().expect("the item's bytes");
    for message in messages {
        talk.send(message);
    }
    for _ in 0..300 {
        talk.say(full());
    }
    talk.send(last);
    let failure = ends_badly(&mut talk, "more than was announced");
    assert_eq!(failure.exit, 1, "{failure:?}");

    // Before anything was announced.
    let mut talk = scene.raw.open();
    talk.say(full());
    ends_badly(&mut talk, "a chunk before its head");

    // A chunk larger than a chunk may be.
    let mut talk = scene.raw.open();
    let mut head = scene.good("v1").messages(scene.home.docker_config());
    talk.send(head.remove(0));
    talk.say(Message::Chunk(v1::Chunk {
        data: vec![b' '; MAX_CHUNK + 1],
    }));
    ends_badly(&mut talk, "a chunk too large");

    // Empty ones for ever.
    let mut talk = scene.raw.open();
    let mut head = scene.good("v1").messages(scene.home.docker_config());
    talk.send(head.remove(0));
    for _ in 0..100_000 {
        talk.say(Message::Chunk(v1::Chunk::default()));
    }
    talk.close();
    ends_badly(&mut talk, "nothing but empty chunks");
    scene.still_works();
}

#[test]
fn a_stream_that_is_cut_signs_nothing_wherever_it_is_cut() {
    let scene = Scene::locked();
    let messages = scene.good("v1").messages(scene.home.docker_config());
    for sent in 0..messages.len() {
        let mut talk = scene.raw.open();
        for message in &messages[..sent] {
            talk.send(message.clone());
        }
        talk.close();
        // An end in good order is an error, too, where something was left out.
        while let Ok(Some(event)) = talk.hear() {
            assert!(!matches!(event, Event::Signed(_)), "{sent}: {event:?}");
        }
        // Gone without a word.
        let gone = scene.raw.open();
        for message in &messages[..sent] {
            gone.send(message.clone());
        }
        drop(gone);
    }
    // Gone at the question.
    let mut talk = scene.raw.open();
    talk.start(&scene.good("v1"));
    let _ = prompt(&mut talk);
    drop(talk);
    scene.still_works();
}

#[test]
fn what_is_no_grpc_at_all_is_cut_off() {
    use std::io::{Read as _, Write as _};
    let scene = Scene::unlocked();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
        vec![0; 1 << 16],
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            vec![0xff; 1 << 16],
        ]
        .concat(),
    ] {
        let mut stream = UnixStream::connect(scene.home.socket()).expect("the agent listens");
        // It may hang up before all of it was said.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
    }
    scene.still_works();
}

#[test]
fn messages_out_of_order_end_the_stream() {
    let scene = Scene::unlocked();
    let report = || {
        Message::Report(v1::Report {
            outcome: Outcome::Published.into(),
            http_status: 200,
            message: String::new(),
        })
    };
    let answer = || Message::Answer(v1::Answer::default());
    for (what, first) in [
        ("a report", report()),
        ("an answer", answer()),
        ("a step", Message::Step(v1::Step::default())),
        ("an empty head", Message::Start(v1::Start::default())),
    ] {
        let mut talk = scene.raw.open();
        talk.say(first);
        talk.close();
        match talk.hear() {
            Err(_) | Ok(None) => {}
            Ok(Some(event)) => panic!("{what}: {event:?}"),
        }
    }
    scene.still_works();
}

/// What a terminal would act on.
const EVIL: [char; 3] = ['\u{9b}', '\u{7f}', '\u{202e}'];

#[test]
fn names_from_outside_are_escaped_in_prompts_and_log() {
    let scene = Scene::locked();
    let targets = RoleName::Targets;
    let evil = "v1\u{9b}2J\u{7f}\u{202e}live";
    let next = with_tag(scene.edition.top(), 6, evil);
    let ask = Ask::new(GUN, Some(scene.forge.documents(&scene.edition))).item(
        &targets,
        &next,
        scene.forge.key_id(&targets),
    );
    let mut talk = scene.raw.open();
    talk.start(&ask);
    let asked = prompt(&mut talk);
    let shown = format!("{:?}", asked.ask);
    let Some(v1::prompt::Ask::Passphrase(passphrase)) = &asked.ask else {
        panic!("{shown}")
    };
    let words = passphrase.summary.join("\n");
    assert!(words.contains("live"), "{words}");
    assert!(!words.contains(EVIL), "{words:?}");
    talk.answer(&asked);
    while let Some(event) = talk.hear().expect("it is signed") {
        if let Event::Signed(_) = event {
            break;
        }
    }
    drop(talk);
    let log = scene.home.signet().args(["log", "show"]).run().ok();
    assert!(!log.stdout.contains(EVIL), "{:?}", log.stdout);
}

#[test]
fn the_signature_that_is_released_holds() {
    let scene = Scene::unlocked();
    let ask = scene.good("v1");
    let done = scene.raw.ask(&ask).expect("it is signed");
    let [signature] = &done.signatures[..] else {
        panic!("{done:?}")
    };
    let key = scene.forge.key(&RoleName::Targets).public();
    assert_eq!(signature.key_id, key.id().to_string());
    assert_eq!(signature.method, key.method().as_str());
    key.verify(key.method(), &ask.items[0].payload, &signature.signature)
        .expect("it holds");
    let entry = scene.raw.log().pop().expect("there is a log");
    assert!(entry.number >= signature.log_entry && signature.log_entry > 0);
}
