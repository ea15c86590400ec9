//! Requests of other machines: what they may do, who is asked, and that nobody there is.

#[path = "forward/guide.rs"]
mod guide;

use std::fs;
use std::path::PathBuf;

use signet_proto::v1::{
    self, agent_client::AgentClient, keys_client::KeysClient, log_client::LogClient,
    presence_client::PresenceClient, report::Outcome, sign_event::Event,
};
use signet_tests::forge::{Edition, Forge, with_delegations, with_tag};
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::raw::{Ask, Raw, Refused};
use signet_tests::{Home, Lab, Run};
use signet_trust::RoleName;
use tonic::Code;

const GUN: &str = "registry.example.com/acme/app";

/// An agent that offers the targets key of a forged collection, and not its snapshot key.
struct Scene {
    /// The workstation itself.
    here: Raw,
    /// The build server, by the forward socket.
    there: Raw,
    forge: Forge,
    edition: Edition,
    home: Home,
    _lab: Lab,
}

fn forward_socket(home: &Home) -> PathBuf {
    home.socket().with_file_name("forward.sock")
}

fn settings(home: &Home, text: &str) {
    let dir = home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(dir.join("agent.toml"), text).expect("the home is ours");
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::builder().build();
        let home = lab.home();
        home.has_keyrings();
        let forge = Forge::new(GUN);
        forge.import(&home, &[RoleName::Targets, RoleName::Snapshot]);
        let key = format!("targets@{GUN}");
        home.signet()
            .args(["key", "label", &key, "release"])
            .run()
            .ok();
        home.signet().args(["agent", "stop"]).run().ok();
        settings(&home, "[forward]\nkeys = [\"release\"]\n");
        let here = Raw::connect(&home);
        Self {
            there: Raw::connect_to(&home, &forward_socket(&home)),
            here,
            edition: forge.edition(5),
            forge,
            home,
            _lab: lab,
        }
    }

    fn ask(&self, tag: &str) -> Ask {
        let targets = RoleName::Targets;
        let next = with_tag(self.edition.top(), 6, tag);
        Ask::new(GUN, Some(self.forge.documents(&self.edition)))
            .item(&targets, &next, self.forge.key_id(&targets))
            .reporting(Some(Outcome::Rejected))
    }

    fn newest(&self) -> v1::LogEntry {
        let log = self.here.log();
        let signed = log.into_iter().rev().find(|entry| entry.kind == "sign");
        signed.expect("something was signed")
    }

    fn is_unlocked(&self) -> bool {
        let status = self.here.call(async |channel| {
            let mut agent = AgentClient::new(channel);
            agent.status(v1::StatusRequest {}).await
        });
        status.expect("it says how it is").unlocked
    }
}

#[track_caller]
fn failure(raw: &Raw, ask: &Ask) -> (u32, String, String) {
    match raw.ask(ask) {
        Err(Refused::Failed(failure)) => (failure.exit, failure.code, failure.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_machine_may_list_the_named_keys_and_sign_and_nothing_else() {
    let scene = Scene::new();
    let listed = |raw: &Raw| {
        let listed = raw.call(async |channel| {
            let mut keys = KeysClient::new(channel);
            keys.list(v1::ListKeysRequest::default()).await
        });
        listed.expect("keys are listed").keys
    };
    let keys = listed(&scene.there);
    let labels: Vec<&str> = keys.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["release"]);
    assert_eq!(keys[0].path, "", "no path of this machine");
    assert_eq!(listed(&scene.here).len(), 2);

    // A key that is not offered.
    let snapshot = RoleName::Snapshot;
    let ask = Ask::new(GUN, Some(scene.forge.documents(&scene.edition))).bytes(
        &snapshot,
        b"{}".to_vec(),
        &[scene.forge.key_id(&snapshot)],
    );
    let (exit, code, why) = failure(&scene.there, &ask);
    assert_eq!((exit, code.as_str()), (4, "policy"), "{why}");
    assert!(why.contains("other machines"), "{why}");

    // Everything else that the agent does.
    let there = &scene.there;
    let refused: Vec<(&str, tonic::Status)> = vec![
        (
            "status",
            there
                .call(async |channel| AgentClient::new(channel).status(v1::StatusRequest {}).await)
                .expect_err("status"),
        ),
        (
            "lock",
            there
                .call(async |channel| AgentClient::new(channel).lock(v1::LockRequest {}).await)
                .expect_err("lock"),
        ),
        (
            "stop",
            there
                .call(async |channel| AgentClient::new(channel).stop(v1::StopRequest {}).await)
                .expect_err("stop"),
        ),
        (
            "explain",
            there
                .call(async |channel| {
                    let request = v1::ExplainRequest::default();
                    AgentClient::new(channel).explain(request).await
                })
                .expect_err("explain"),
        ),
        (
            "log",
            there
                .call(async |channel| {
                    LogClient::new(channel)
                        .show(v1::LogRequest::default())
                        .await
                })
                .expect_err("log"),
        ),
        (
            "change",
            there
                .call(async |channel| {
                    let nothing = tokio_stream::empty::<v1::KeyRequest>();
                    KeysClient::new(channel).change(nothing).await
                })
                .expect_err("change"),
        ),
        (
            "grants",
            there
                .call(async |channel| {
                    PresenceClient::new(channel)
                        .grants(v1::GrantsRequest {})
                        .await
                })
                .expect_err("grants"),
        ),
        ("attend", there.attend().expect_err("attend")),
    ];
    for (what, status) in refused {
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
        assert!(status.message().contains("forwarded"), "{what}: {status}");
    }
    assert!(scene.home.agent_pid().is_some(), "it was not stopped");
}

#[test]
fn the_key_that_is_judged_is_the_one_that_signs_whatever_a_document_calls_it() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.has_keyrings();
    let mut forge = Forge::new(GUN);
    let [releases, mine]: [RoleName; 2] =
        ["targets/releases", "targets/mine"].map(|name| name.parse().expect("a role"));
    forge.add_signer(&releases);
    forge.add_signer(&mine);
    let targets = RoleName::Targets;
    forge.import(&home, &[targets.clone(), releases.clone(), mine.clone()]);
    let short = |role: &RoleName| forge.key_id(role).to_string()[..10].to_owned();
    home.signet().args(["agent", "stop"]).run().ok();
    // And a rule about the key that is not offered, for those who ask here.
    settings(
        &home,
        &format!(
            "[forward]\nkeys = [{:?}, {:?}]\n[[policy]]\nname = \"mine\"\nkeys = [{:?}]\ndo = \"deny\"\n",
            short(&targets),
            short(&releases),
            short(&mine)
        ),
    );
    home.unlocks();
    let here = Raw::connect(&home);
    let there = Raw::connect_to(&home, &forward_socket(&home));

    let mut edition = forge.edition(5);
    let top = with_delegations(edition.top(), &[(&releases, forge.key(&releases))]);
    let signer = with_tag(edition.top(), 5, "v0");
    edition.targets.insert(targets.clone(), top);
    edition.targets.insert(releases.clone(), signer);
    // The next one says that the offered ID is another key's.
    let named = forge.key_id(&releases);
    let mut next = with_tag(edition.top(), 6, "v1");
    let public = forge.key(&mine).public().clone();
    next.delegations.keys.insert(named, public);
    let signer = with_tag(&edition.targets[&releases], 6, "v1");
    let ask = Ask::new(GUN, Some(forge.documents(&edition)))
        .item(&targets, &next, forge.key_id(&targets))
        .item(&releases, &signer, named)
        .reporting(Some(Outcome::Rejected));
    // Whatever comes of it, with every yes that it wants.
    let mut attendant = here.attend().expect("he attends");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| there.ask(&ask));
        while !asking.is_finished() {
            match attendant.hear().expect("he attends") {
                Some(v1::attend_event::Event::Prompt(prompt)) => {
                    let id = prompt.prompt.expect("a prompt").id;
                    attendant.answer(&id, v1::answer::Answer::Yes(true));
                }
                Some(v1::attend_event::Event::Entry(_)) => break,
                _ => {}
            }
        }
    });
    let _ = here.ask(&ask);
    let mine = forge.key_id(&mine).to_string();
    let log = here.log();
    let by_it = log
        .iter()
        .find(|entry| entry.kind == "sign" && entry.key_id == mine);
    assert!(by_it.is_none(), "{by_it:?}");
}

#[test]
fn what_is_held_here_serves_another_machine_only_with_a_yes_of_who_attends_here() {
    let scene = Scene::new();
    scene.home.unlocks();
    let (exit, code, why) = failure(&scene.there, &scene.ask("v1"));
    assert_eq!((exit, code.as_str()), (5, "forwarded"), "{why}");

    let mut attendant = scene.here.attend().expect("he attends");
    let ask = scene.ask("v1");
    let (done, asked) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| scene.there.ask(&ask));
        let asked = attendant.says(true);
        (asking.join().expect("no panic"), asked)
    });
    let done = done.expect("it is signed");
    assert!(done.prompts.is_empty(), "nobody there is asked: {done:?}");
    assert_eq!(asked.summary, done.summary, "one text for both");
    assert!(asked.question.contains("another machine"), "{asked:?}");
    let entry = scene.newest();
    assert_eq!(entry.grade, 2, "{entry:?}");
    for word in ["\"channel\":\"attendant\"", "\"forwarded\":true"] {
        assert!(entry.facts.contains(word), "{word}: {}", entry.facts);
    }

    // A no is a no, and `--yes` of the other machine is worth nothing.
    let ask = scene.ask("v2");
    let refused = std::thread::scope(|scope| {
        let asking = scope.spawn(|| failure(&scene.there, &ask));
        attendant.says(false);
        asking.join().expect("no panic")
    });
    assert_eq!((refused.0, refused.1.as_str()), (4, "declined"));

    // --no-input: nobody is asked on its behalf, so nothing is signed.
    let mut ask = scene.ask("v3");
    ask.no_input = true;
    let (exit, code, why) = failure(&scene.there, &ask);
    assert_eq!((exit, code.as_str()), (5, "forwarded"), "{why}");
}

#[test]
fn a_secret_for_another_machine_is_typed_here_and_serves_nothing_else() {
    let scene = Scene::new();
    assert!(!scene.is_unlocked());
    let mut attendant = scene.here.attend().expect("he attends");
    let ask = scene.ask("v1");
    let done = std::thread::scope(|scope| {
        let asking = scope.spawn(|| scene.there.ask(&ask));
        attendant.says(true);
        let asked = attendant.types("not this one");
        assert!(
            asked.summary.iter().any(|line| line.contains("v1")),
            "{asked:?}"
        );
        let asked = attendant.types(KEYRING_PASSPHRASE);
        assert_eq!(asked.refused, "wrong passphrase");
        asking.join().expect("no panic")
    });
    assert!(done.expect("it is signed").prompts.is_empty());
    let entry = scene.newest();
    assert_eq!(entry.grade, 3, "{entry:?}");
    assert!(!scene.is_unlocked(), "it was for that request only");
}

#[test]
fn a_forwarded_stream_that_goes_away_withdraws_its_question() {
    let scene = Scene::new();
    scene.home.unlocks();
    let mut attendant = scene.here.attend().expect("he attends");
    let talk = scene.there.open();
    talk.start(&scene.ask("v1"));
    let prompt = attendant.prompt().prompt.expect("a prompt");
    drop(talk);
    loop {
        match attendant.hear().expect("he still attends") {
            Some(v1::attend_event::Event::PromptOver(over)) => {
                assert_eq!(
                    (over.prompt_id.as_str(), over.reason.as_str()),
                    (prompt.id.as_str(), "withdrawn")
                );
                break;
            }
            Some(_) => {}
            None => panic!("he attends no more"),
        }
    }
    attendant.answer(&prompt.id, v1::answer::Answer::Yes(true));
    // It answers nothing: the next request is asked about anew.
    let ask = scene.ask("v2");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| scene.there.ask(&ask));
        attendant.says(true);
        asking.join().expect("no panic").expect("it is signed");
    });
    let log = scene.here.log();
    let signed = log.iter().filter(|entry| entry.kind == "sign").count();
    assert_eq!(signed, 1, "{log:#?}");
}

#[test]
fn a_creation_is_not_for_other_machines() {
    let scene = Scene::new();
    scene.home.unlocks();
    let mut talk = scene.there.open();
    talk.say(v1::sign_request::Message::Start(v1::Start {
        gun: "registry.example.com/acme/new".to_owned(),
        creation: Some(v1::Creation {
            root: Some(v1::KeyChoice::default()),
            targets: Some(v1::KeyChoice::default()),
            snapshot: None,
        }),
        ..v1::Start::default()
    }));
    match talk.hear() {
        Err(Refused::Failed(failure)) => {
            assert_eq!((failure.exit, failure.code.as_str()), (4, "forwarded_only"));
        }
        Ok(Some(Event::Prompt(prompt))) => panic!("it asks there: {prompt:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_keys_to_offer_there_is_no_such_socket() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.signet().args(["agent", "start"]).run().ok();
    assert!(home.socket().exists() && !forward_socket(&home).exists());
    home.signet().args(["agent", "stop"]).run().ok();
    settings(&home, "[forward]\nkeys = []\n");
    home.signet()
        .args(["agent", "start"])
        .run()
        .exits(6)
        .says("forward");
}
