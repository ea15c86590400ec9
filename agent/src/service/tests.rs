//! The path of a request over a real socket, with real stores and a real ledger.

mod client;

use signet_proto::v1::{
    self, need_passphrase::What, report::Outcome, sign_event::Event, sign_request::Message,
};
use signet_trust::RoleName;

use self::client::{
    Agent, GUN, PASSPHRASE, Server, asked_for, at, create, creation, failure, next, published,
    signatures, target,
};

fn kinds(log: &[v1::LogEntry]) -> Vec<&str> {
    log.iter().map(|entry| entry.kind.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_publish_makes_both_keyrings_two_keys_and_a_certificate_and_logs_it_all() {
    let agent = Agent::start().await;
    let mut server = Server::new();
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let edit = create(&mut talk, &server, false).await;
    server.take(edit.finish());
    talk.report(Outcome::Published).await;

    assert_eq!(asked_for(&talk), [What::Keyring, What::Root]);
    assert!(talk.asked.iter().all(|need| need.new_secret));
    assert!(
        talk.asked[1]
            .summary
            .iter()
            .any(|line| line.contains("creates the trust collection"))
    );
    let log = agent.log().await;
    assert_eq!(
        kinds(&log),
        [
            "generate",
            "generate",
            "certificate",
            "sign",
            "sign",
            "publish"
        ]
    );
    assert!(
        log[3].grade >= 3,
        "a root signs only with a secret given for the request"
    );
    let keys = agent.list().await;
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter()
            .all(|key| key.state == "enrolled" && key.used_by == [GUN])
    );
    assert_eq!(
        keys[0].other_ids.len(),
        1,
        "the root key answers to its certificate's ID, too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_version_needs_only_the_keyring_and_names_its_base_by_hash_afterwards() {
    let (agent, mut server) = published().await;
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let (start, bodies) = next(&server, "v2", 2);
    talk.start(start.clone(), &bodies).await;
    let signed = talk.signed().await;
    assert_eq!(asked_for(&talk), [What::Keyring]);
    assert!(
        signed.summary.iter().any(|line| line.contains("v2")),
        "{:?}",
        signed.summary
    );

    let payload = bodies.last().unwrap();
    let wire = signet_trust::document::to_wire(payload, &signatures(&signed, &RoleName::Targets));
    server.take([(RoleName::Targets, wire)].into());
    talk.report(Outcome::Published).await;

    // The same stream again: nobody is asked, and the base is what the agent holds.
    use sha2::Digest as _;
    let (mut start, bodies) = next(&server, "v3", 3);
    start.base = Some(v1::Base {
        parts: Vec::new(),
        released: sha2::Sha256::digest(payload).to_vec(),
    });
    let last = bodies.last().unwrap().clone();
    talk.start(start, &[last]).await;
    talk.signed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_arrived_is_superseded_and_what_did_is_not_signed_again() {
    let (agent, mut server) = published().await;
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let (start, bodies) = next(&server, "lost", 2);
    talk.start(start, &bodies).await;
    talk.signed().await;
    talk.report(Outcome::Unknown).await;

    let (start, bodies) = next(&server, "again", 3);
    talk.start(start, &bodies).await;
    let signed = talk.signed().await;
    assert!(
        signed
            .summary
            .iter()
            .any(|line| line.starts_with("replaces v2")),
        "{signed:?}"
    );
    let wire = signet_trust::document::to_wire(
        bodies.last().unwrap(),
        &signatures(&signed, &RoleName::Targets),
    );
    let before = server.base();
    server.take([(RoleName::Targets, wire)].into());
    talk.report(Outcome::Published).await;

    // An old answer of the server: the agent knows better.
    let (mut start, mut bodies) = next(&server, "late", 4);
    let payload = bodies.pop().unwrap();
    start.base = Some(before.0);
    bodies = before.1;
    bodies.push(payload);
    talk.start(start, &bodies).await;
    assert!(matches!(talk.next().await, Ok(Event::StaleBase(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_refused_before_anybody_is_asked_and_logged() {
    let (agent, server) = published().await;
    let mut targets = server.targets();
    targets.version += 5;
    targets.targets.insert("other".to_owned(), target(9));
    let (start, bodies) = at(&server, &targets);
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    talk.start(start.clone(), &bodies).await;
    let failure = talk.next().await.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (4, "guard.gap"));
    assert_eq!((failure.rule.as_str(), failure.next), ("gap", 2));
    assert!(talk.asked.is_empty());
    let log = agent.log().await;
    let last = log.last().unwrap();
    assert_eq!((last.kind.as_str(), last.rule.as_str()), ("refuse", "gap"));

    // Held secrets do not confirm an override.
    let mut unlock = start;
    unlock.allow = vec!["gap".to_owned()];
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    talk.start(unlock, &bodies).await;
    talk.signed().await;
    assert_eq!(asked_for(&talk), [What::Keyring]);
    assert!(
        talk.asked[0]
            .summary
            .iter()
            .any(|line| line.contains("--allow gap"))
    );
    let log = agent.log().await;
    let last = log.last().unwrap();
    assert_eq!((last.rule.as_str(), last.grade), ("gap", 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_passphrase_is_said_three_times_and_nothing_is_signed() {
    let (agent, server) = published().await;
    let mut talk = agent.talk(Some("wrong")).await;
    let (start, bodies) = next(&server, "v2", 2);
    talk.start(start, &bodies).await;
    let failure = talk.next().await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_str()),
        (5, "wrong_passphrase")
    );
    let left: Vec<u32> = talk.asked.iter().map(|need| need.attempts_left).collect();
    assert_eq!(left, [3, 2, 1]);
    assert!(talk.asked[0].refused.is_empty() && !talk.asked[1].refused.is_empty());
    assert_eq!(agent.log().await.last().unwrap().kind, "fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_to_answer_it_is_locked() {
    let (agent, server) = published().await;
    let mut talk = agent.talk(None).await;
    let (mut start, bodies) = next(&server, "v2", 2);
    start.prompt_mode = v1::PromptMode::None.into();
    talk.start(start, &bodies).await;
    let failure = talk.next().await.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (5, "locked"));
    assert!(failure.fix.contains("unlock"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_ours_is_a_second_step_covered_by_the_consent_of_the_first() {
    let agent = Agent::start().await;
    let mut server = Server::new();
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let mut edit = create(&mut talk, &server, true).await;
    let before = talk.asked.len();
    let request = edit.snapshot_request(&|_: &_| true, None).unwrap().unwrap();
    talk.step(std::slice::from_ref(&request)).await;
    let signed = talk.signed().await;
    edit.sign(
        &RoleName::Snapshot,
        signatures(&signed, &RoleName::Snapshot),
    )
    .unwrap();
    assert_eq!(talk.asked.len(), before, "nobody is asked again");
    server.take(edit.finish());
    talk.report(Outcome::Published).await;
    let log = agent.log().await;
    assert_eq!(log.last().unwrap().role, "root targets snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_root_that_lists_other_keys_than_consented_to_is_refused() {
    let agent = Agent::start().await;
    let server = Server::new();
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    talk.start(creation(false), &[]).await;
    let Ok(Event::Created(created)) = talk.next().await else {
        panic!("not created")
    };
    let other = signet_trust::PrivateKey::generate(signet_trust::Algorithm::P256).unwrap();
    let root = created.root.unwrap();
    let keys = signet_trust::edit::NewCollection {
        root: signet_trust::PublicKey::new(
            signet_trust::KeyType::from_name(&root.key_type).unwrap(),
            root.public,
        ),
        targets: other.public().clone(),
        snapshot: other.public().clone(),
        timestamp: other.public().clone(),
        snapshot_is_ours: false,
    };
    let _ = server;
    let edit = signet_trust::edit::Edit::init(
        client::gun(),
        keys,
        signet_trust::edit::InitVersions::default(),
        super::now(),
    )
    .unwrap();
    talk.step(&edit.requests(&|_: &_| true).unwrap()).await;
    let failure = talk.next().await.unwrap_err();
    assert_eq!(failure.code, "malformed", "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_cannot_be_read_are_refused_unless_allowed_and_mark_the_key() {
    let (agent, server) = published().await;
    let (mut start, mut bodies) = next(&server, "v2", 2);
    *bodies.last_mut().unwrap() = b"not a document".to_vec();
    start.step.as_mut().unwrap().items[0].size = 14;
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    talk.start(start.clone(), &bodies).await;
    assert_eq!(talk.next().await.unwrap_err().code, "guard.opaque");
    start.allow = vec!["opaque".to_owned()];
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    talk.start(start, &bodies).await;
    talk.signed().await;
    assert!(
        agent
            .list()
            .await
            .iter()
            .any(|key| key.role == "targets" && key.used_opaque)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_asked_for_are_dropped_and_many_of_them_end_the_stream() {
    let (agent, server) = published().await;
    let mut talk = agent.talk(None).await;
    let stray = || {
        Message::Answer(v1::Answer {
            grant_seconds: 0,
            prompt_id: "0".repeat(32),
            answer: Some(v1::answer::Answer::Secret(v1::Secret {
                value: PASSPHRASE.as_bytes().to_vec(),
                source: v1::secret::Source::Typed.into(),
            })),
        })
    };
    talk.say(stray()).await;
    let (start, bodies) = next(&server, "v2", 2);
    talk.start(start, &bodies).await;
    let prompt = match talk.hear().await {
        Ok(Event::Prompt(prompt)) => prompt,
        other => panic!("{other:?}"),
    };
    assert_eq!(prompt.id.len(), 32);
    talk.say(stray()).await;
    for _ in 0..40 {
        talk.say(stray()).await;
    }
    let failure = talk.hear().await.unwrap_err();
    assert_eq!(failure.code, "malformed", "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_refuses_what_comes_and_takes_the_report_of_what_it_released() {
    let (agent, server) = published().await;
    let mut talk = agent.talk(Some(PASSPHRASE)).await;
    let (start, bodies) = next(&server, "v2", 2);
    talk.start(start, &bodies).await;
    talk.signed().await;
    let mut control = agent.agent();
    control.stop(v1::StopRequest {}).await.unwrap();
    let refused = v1::signer_client::SignerClient::new(agent.channel.clone())
        .sign(tokio_stream::iter(Vec::new()))
        .await;
    if let Err(status) = refused {
        // Either the connection is closed to new streams already, or the agent says why.
        assert!(
            status.details().is_empty() || failure(&status).code == "stopping",
            "{status:?}"
        );
    }
    talk.report(Outcome::Published).await;
    talk.hang_up();
    drop((talk, control));
    let dir = agent.stop().await;
    drop(dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_in_the_same_process_needs_no_socket() {
    let (agent, server) = published().await;
    let (requests, receiver) = tokio::sync::mpsc::channel(64);
    let mut events = super::sign_in_process(&agent.shared, receiver);
    let (start, bodies) = next(&server, "v2", 2);
    let say = |message| v1::SignRequest {
        message: Some(message),
    };
    requests.send(say(Message::Start(start))).await.unwrap();
    for data in bodies {
        requests
            .send(say(Message::Chunk(v1::Chunk { data })))
            .await
            .unwrap();
    }
    let event = tokio_stream::StreamExt::next(&mut events)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event.event, Some(Event::Prompt(_))), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_take_no_events_keep_nobody_waiting() {
    let (agent, server) = published().await;
    let mut first = agent.talk(None).await;
    let (start, bodies) = next(&server, "v2", 2);
    first.start(start.clone(), &bodies).await;
    assert!(matches!(first.hear().await, Ok(Event::Prompt(_))));
    let deaf = (
        agent.ask_deaf(&start, &bodies).await,
        agent.ask_deaf(&start, &bodies).await,
    );
    // Each that comes now is told how many it is behind: until the two are among them.
    let mut others = Vec::new();
    loop {
        assert!(others.len() < 50, "they did not come");
        let other = agent.talk(Some(PASSPHRASE)).await;
        other.start(start.clone(), &bodies).await;
        others.push(other);
        let behind = match others.last_mut().unwrap().hear().await {
            Ok(Event::Queued(queued)) => queued.behind as usize,
            other => panic!("{other:?}"),
        };
        if behind == others.len() + 2 {
            break;
        }
    }
    let mut last = others.pop().unwrap();
    drop((others, first));
    let signed = tokio::time::timeout(std::time::Duration::from_secs(20), last.signed());
    signed.await.expect("it is its turn");
    last.report(Outcome::Published).await;
    drop(deaf);
}
