//! Attending: `signet watch` on a terminal of tmux's answers for requests that cannot ask on their
//! own, and grants answer beforehand.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signet_proto::v1::{self, attend_event::Event, attend_request::Message};
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::tmux::Screen;
use signet_tests::{Home, Lab, Run};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const GUN: &str = "registry.example.com/acme/app";
/// What is shown while nothing is asked.
const IDLE: &str = "No request waits.";
/// The keys that are taken then.
const COMMANDS: &str = "l lock · q end";
/// What a question for a secret says once it takes keys.
const TYPE_IT: &str = "Type it; nothing is shown";

fn unattended(home: &Home, args: &[&str]) -> Command {
    let mut command = home.unattended();
    command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
    command.args(args);
    command
}

fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.signet();
    command.args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE]);
    command
}

/// A repository, and an agent that holds nothing.
fn published(lab: &Lab) -> Home {
    let home = lab.home();
    let image = format!("{GUN}:v1@{DIGEST}");
    let first = ["sign", &image, "--size", SIZE];
    unattended(&home, &first).run().ok();
    home
}

/// The command in a session of its own, which has no terminal to ask on.
fn alone(command: &Command) -> Command {
    let mut alone = clean("setsid");
    alone.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            alone.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        alone.current_dir(dir);
    }
    alone
}

fn start(command: &Command) -> Child {
    let mut alone = alone(command);
    alone.stdout(Stdio::null()).stderr(Stdio::null());
    alone.spawn().expect("setsid is there")
}

#[track_caller]
fn ends(mut child: Child, code: i32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            assert_eq!(status.code(), Some(code));
            return;
        }
        assert!(Instant::now() < deadline, "it has not ended");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn watch(lab: &Lab, home: &Home) -> Screen {
    let mut command = home.signet();
    command.arg("watch");
    Screen::start(&lab.fresh_dir("w"), &command)
}

fn policy(home: &Home, text: &str) {
    let dir = home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(dir.join("agent.toml"), text).expect("the home is ours");
    home.signet().args(["agent", "stop"]).run().ok();
}

const ASK: &str = "[[policy]]\nname = \"releases\"\nroles = [\"targets\"]\ndo = \"ask\"\n";

/// The newest entry about a signature.
fn signed(home: &Home) -> Value {
    let log = home.log();
    let entries = log["entries"].as_array().expect("a list").iter();
    let of_targets = |entry: &&Value| entry["kind"] == "sign" && entry["role"] == "targets";
    entries.rev().find(of_targets).expect("one").clone()
}

/// The grants that stand.
fn grants(home: &Home) -> Vec<Value> {
    let list = home
        .signet()
        .args(["grant", "list", "--json"])
        .run()
        .ok()
        .json();
    list["grants"].as_array().expect("a list").clone()
}

/// Signs these tags one after the other, all in the session of one shell.
fn in_one_shell(home: &Home, tags: &[&str]) -> Command {
    let signet = home.signet();
    let mut shell = Command::new("/bin/sh");
    let lines: Vec<String> = tags
        .iter()
        .map(|tag| format!("\"$0\" sign {GUN}:{tag}@{DIGEST} --size {SIZE}"))
        .collect();
    shell
        .arg("-c")
        .arg(lines.join(" && "))
        .arg(signet.get_program());
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

#[test]
fn a_passphrase_typed_in_a_watch_signs_for_a_command_without_a_terminal() {
    let lab = Lab::builder().notary().build();
    let home = published(&lab);
    // Nobody attends yet.
    alone(&sign(&home, "v2")).run().exits(5);
    let screen = watch(&lab, &home);
    screen.shows(IDLE);
    let status = home.signet().args(["status", "--json"]).run().ok().json();
    let attendant = &status["attendants"][0];
    assert_eq!(attendant["pid"], screen.pid().as_raw_nonzero().get());
    assert!(
        attendant["terminal"].as_str().unwrap().starts_with("pts/"),
        "{attendant}"
    );
    home.signet().arg("status").run().ok().says("attends");

    let child = start(&sign(&home, "v2"));
    let shown = screen.shows(TYPE_IT);
    let asked_by = format!("asked by pid {}", child.id());
    for words in [
        &*asked_by,
        "it claims: command signet sign",
        GUN,
        "v2",
        "Passphrase of the keyring, 3 tries left",
    ] {
        assert!(shown.contains(words), "no {words}:\n{shown}");
    }
    screen.types("not this one");
    screen.press("Enter");
    screen.shows("2 tries left");
    let shown = screen.shows(TYPE_IT);
    assert!(shown.to_lowercase().contains("wrong"), "{shown}");
    screen.types(KEYRING_PASSPHRASE);
    let shown = screen.shows("Enter sends what is typed");
    assert!(
        !shown.contains("lab keyring"),
        "a secret was shown:\n{shown}"
    );
    // Another size in the middle of it.
    screen.resize(60, 12);
    screen.shows("Passphrase of the keyring, 2 tries left");
    screen.resize(100, 30);
    screen.press("Enter");
    ends(child, 0);
    screen.shows(IDLE);
    let entry = signed(&home);
    assert_eq!(entry["grade"], 3, "{entry}");
    assert_eq!(entry["facts"]["consent"]["channel"], "attendant", "{entry}");

    // Whoever said that nobody is to be asked is not shown.
    alone(&sign(&home, "v3")).arg("--no-input").run().exits(5);
    let shown = screen.text();
    assert!(
        shown.contains(IDLE) && !shown.contains("Passphrase"),
        "{shown}"
    );
    let child = start(&sign(&home, "v3"));
    screen.shows(TYPE_IT);
    screen.press("Escape");
    ends(child, 4);

    // The agent ends, and the terminal is as it was.
    home.signet().args(["agent", "stop"]).run().ok();
    screen.exits(6);
    let left = screen.shows("error: the agent has ended");
    assert!(!left.contains(IDLE), "{left}");
}

#[test]
fn a_rule_that_asks_takes_a_yes_and_one_for_a_while_is_a_grant() {
    let lab = Lab::builder().notary().build();
    let home = published(&lab);
    policy(&home, ASK);
    unattended(&home, &["unlock"]).run().ok();
    let screen = watch(&lab, &home);
    screen.shows(IDLE);
    let child = start(&sign(&home, "v2"));
    screen.shows("y yes");
    screen.types("y");
    ends(child, 0);
    let entry = signed(&home);
    assert_eq!(
        (&entry["grade"], &entry["facts"]["consent"]["channel"]),
        (&2.into(), &"attendant".into()),
        "{entry}"
    );
    let child = start(&sign(&home, "v3"));
    screen.shows("y yes");
    screen.types("n");
    ends(child, 4);

    // For a quarter of an hour, in one session: the second is not asked about.
    let child = start(&in_one_shell(&home, &["v4", "v5"]));
    screen.shows("t yes, and for 15 min");
    screen.types("t");
    ends(child, 0);
    let entry = signed(&home);
    let consent = &entry["facts"]["consent"];
    assert_eq!(consent["channel"], "grant", "{entry}");
    assert_eq!(consent["grant"], grants(&home)[0]["id"], "{entry}");
    home.signet().arg("status").run().ok().says("GRANT");
    let log = home.signet().args(["log", "show"]).run().ok();
    log.says("for callers of this session, for 15 minutes (grant ");
    // Locking ends it.
    screen.shows(COMMANDS);
    screen.types("l");
    screen.shows("keyring locked");
    assert_eq!(grants(&home), Vec::<Value>::new());
}

#[test]
fn digests_that_were_granted_are_signed_once_without_a_question() {
    let lab = Lab::builder().notary().build();
    let home = published(&lab);
    policy(&home, ASK);
    unattended(&home, &["unlock"]).run().ok();
    let screen = watch(&lab, &home);
    screen.shows(IDLE);
    let grant = [
        "grant", "--digest", DIGEST, "--for", "1h", "--gun", "*/acme/*",
    ];
    unattended(&home, &grant).run().ok().says("1 digest, once");
    alone(&sign(&home, "v2")).run().ok();
    assert_eq!(signed(&home)["facts"]["consent"]["channel"], "grant");
    assert_eq!(grants(&home), Vec::<Value>::new(), "it is spent");
    let child = start(&sign(&home, "v3"));
    screen.shows("y yes");
    screen.types("n");
    ends(child, 4);

    // Somebody who attends gives one, and one that was taken back answers nothing.
    let child = start(home.signet().args(["grant", "--digest", DIGEST]));
    screen.shows("Give this grant?");
    screen.shows("y yes");
    screen.types("y");
    ends(child, 0);
    let id = grants(&home)[0]["id"].as_str().expect("an ID").to_owned();
    home.signet().args(["grant", "list"]).run().ok().says(&id);
    home.signet().args(["grant", "revoke", &id]).run().ok();
    let child = start(&sign(&home, "v3"));
    screen.shows("y yes");
    screen.press("C-c");
    // He who was asked has left, and nobody else attends.
    ends(child, 5);
    screen.exits(0);
}

#[test]
fn questions_are_asked_one_by_one_and_go_with_whoever_asked_or_was_asked() {
    let lab = Lab::builder().notary().build();
    let home = published(&lab);
    let first = watch(&lab, &home);
    first.shows(IDLE);

    // A request that is killed takes its question along.
    let mut killed = start(&sign(&home, "v2"));
    first.shows(TYPE_IT);
    first.types("half of a pass");
    killed.kill().and_then(|()| killed.wait()).expect("it ends");
    first.shows("The request went away");
    first.shows(IDLE);

    // Two: the first is asked about first, the other one is counted.
    let one = start(&sign(&home, "v2"));
    first.shows(TYPE_IT);
    let image = format!("{GUN}2:v1@{DIGEST}");
    let of_another = ["sign", &image, "--size", SIZE];
    unattended(&home, &of_another).run().ok();
    let two = start(home.signet().args(of_another));
    let shown = first.shows("1 more question waits");
    let asked_by = |child: &Child| format!("asked by pid {}", child.id());
    assert!(
        shown.contains(&asked_by(&one)) && !shown.contains(&asked_by(&two)),
        "{shown}"
    );
    first.types(KEYRING_PASSPHRASE);
    first.press("Enter");
    ends(one, 0);
    let shown = first.until("the other question", |text| text.contains(&asked_by(&two)));
    assert!(!shown.contains("more question"), "{shown}");

    // Whoever attends is killed: the next one is asked, with a terminal as it should be.
    let second = watch(&lab, &home);
    second.shows("request ");
    kill_process(first.pid(), Signal::KILL).expect("it is there");
    let shown = second.shows(TYPE_IT);
    assert!(shown.contains(&asked_by(&two)), "{shown}");

    // And another request. What both wait for is given elsewhere.
    let three = start(&sign(&home, "v3"));
    second.shows("1 more question waits");
    unattended(&home, &["unlock"]).run().ok();
    ends(two, 0);
    ends(three, 0);
    second.shows(COMMANDS);
    second.types("q");
    second.exits(0);
    second.until("the screen of before", |text| !text.contains(IDLE));
}

#[test]
fn answers_of_others_and_second_answers_are_dropped() {
    let lab = Lab::builder().notary().build();
    let home = published(&lab);
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    runtime.block_on(async {
        let (first, mut of_first) = attend(&home).await;
        let (last, mut of_last) = attend(&home).await;
        let child = start(&sign(&home, "v2"));
        let id = asked(&mut of_last).await;
        for wrong in [&id, "", "00000000000000000000000000000000"] {
            say(&first, wrong, KEYRING_PASSPHRASE).await;
        }
        say(&last, &"0".repeat(32), KEYRING_PASSPHRASE).await;
        say(&last, &id, "not this one").await;
        // The same again: it was used up by the wrong one.
        say(&last, &id, KEYRING_PASSPHRASE).await;
        let again = asked(&mut of_last).await;
        assert_ne!(id, again);
        say(&last, &again, KEYRING_PASSPHRASE).await;
        let waited = tokio::task::spawn_blocking(|| ends(child, 0));
        waited.await.expect("it signs");
        // Nobody is put out for a few of them; for many he is.
        for _ in 0..40 {
            say(&first, &again, "x").await;
        }
        let ended = loop {
            match of_first.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        let status = ended.expect_err("he is let go");
        assert!(status.message().contains("too many answers"), "{status}");
    });
    let log = home.log();
    let failed = log["entries"].as_array().expect("a list").iter();
    assert_eq!(failed.filter(|entry| entry["kind"] == "fail").count(), 0);
}

/// Attends by the bare protocol.
async fn attend(
    home: &Home,
) -> (
    mpsc::Sender<v1::AttendRequest>,
    tonic::Streaming<v1::AttendEvent>,
) {
    let socket = home.socket();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://signet.invalid");
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.expect("the agent listens");
    let (sender, requests) = mpsc::channel(64);
    let start = Message::Start(v1::AttendStart::default());
    let start = v1::AttendRequest {
        message: Some(start),
    };
    sender.send(start).await.expect("it is open");
    let mut client = v1::presence_client::PresenceClient::new(channel);
    let events = client.attend(ReceiverStream::new(requests)).await;
    let mut events = events.expect("the agent takes calls").into_inner();
    // From here on he is asked.
    let first = events
        .message()
        .await
        .expect("it attends")
        .expect("an event");
    assert!(
        matches!(first.event, Some(Event::Attending(_))),
        "{first:?}"
    );
    (sender, events)
}

/// The name of the next question.
async fn asked(events: &mut tonic::Streaming<v1::AttendEvent>) -> String {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), events.message()).await;
        let event = next
            .expect("the agent asks")
            .expect("it is there")
            .expect("an event");
        if let Some(Event::Prompt(prompt)) = event.event {
            return prompt.prompt.expect("it says what").id;
        }
    }
}

async fn say(to: &mpsc::Sender<v1::AttendRequest>, id: &str, secret: &str) {
    let answer = v1::Answer {
        prompt_id: id.to_owned(),
        answer: Some(v1::answer::Answer::Secret(v1::Secret {
            value: secret.as_bytes().to_vec(),
            source: v1::secret::Source::Typed.into(),
        })),
        grant_seconds: 0,
    };
    let message = Some(Message::Answer(answer));
    // He who was let go says nothing any more.
    let _ = to.send(v1::AttendRequest { message }).await;
}

#[test]
fn a_watch_needs_a_terminal() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let watch = || {
        let mut command = home.signet();
        command.arg("watch");
        command
    };
    alone(&watch()).run().exits(2).says("needs a terminal");
    alone(&watch())
        .arg("--no-input")
        .run()
        .exits(2)
        .says("--no-input");
    assert!(home.agent_pid().is_none(), "none was started for it");

    // However it ends, the terminal is as it was.
    let signet = watch();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "\"$0\" watch; echo ended $?; stty -a; read _"])
        .arg(signet.get_program());
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let screen = Screen::start(&lab.fresh_dir("w"), &shell);
    screen.shows(IDLE);
    let status = home.signet().args(["status", "--json"]).run().ok().json();
    let pid = status["attendants"][0]["pid"].as_i64().expect("it attends");
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process ID"), Signal::TERM).expect("it is there");
    screen.shows("ended 130");
    let left = screen.shows("icanon");
    assert!(
        left.contains(" icanon ") && left.contains(" echo ") && !left.contains(IDLE),
        "{left}"
    );
}
