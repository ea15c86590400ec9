//! What a person is asked and shown about YubiKeys, and what never leaves the terminal: the command
//! on a pseudo-terminal, and behind its socket an agent that says what the test tells it to say.
//!
//! With the real agent and a card: `cards_cli.rs`. Here is what only a slow person or an odd moment
//! would bring about there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::process::Command;
use std::sync::Mutex;

use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use signet_proto::v1::agent_server::{Agent, AgentServer};
use signet_proto::v1::answer::Answer as Given;
use signet_proto::v1::card_change::Change;
use signet_proto::v1::cards_server::{Cards, CardsServer};
use signet_proto::v1::need_pin::What;
use signet_proto::v1::{self, card_event::Event, card_request::Message};
use signet_tests::{Home, Lab, Run, Terminal};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::{Request, Response, Status, Streaming};

const SERIAL: u32 = 12_345_678;

/// What a YubiKey types when it is touched by accident.
const TOUCHED: &str = "ccccccjlfkhidbnkteghtrffjbbvjbevhcjvtcuvjgdk";

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The test's end of one change of a card.
struct Call {
    said: Receiver<v1::CardRequest>,
    say: Sender<Result<v1::CardEvent, Status>>,
}

impl Call {
    fn say(&self, event: Event) {
        let event = v1::CardEvent { event: Some(event) };
        let sent = self.say.blocking_send(Ok(event));
        sent.expect("the command listens");
    }

    fn heard(&mut self) -> Option<Message> {
        self.said
            .blocking_recv()
            .and_then(|request| request.message)
    }

    fn change(&mut self) -> v1::CardChange {
        match self.heard() {
            Some(Message::Change(change)) => change,
            other => panic!("not a change: {other:?}"),
        }
    }

    fn secret(&mut self) -> v1::Secret {
        match self.heard() {
            Some(Message::Answer(v1::Answer {
                grant_seconds: 0,
                answer: Some(Given::Secret(secret)),
                ..
            })) => secret,
            other => panic!("no secret: {other:?}"),
        }
    }

    fn ask(&self, what: What, refused: &str, tries_left: u32) {
        let pin = v1::NeedPin {
            what: what.into(),
            card: Some(card()),
            tries_left,
            refused: refused.into(),
            cards: 1,
            role: "root".into(),
            gun: "registry.example.com/acme/app".into(),
            summary: vec!["root v2 of registry.example.com/acme/app".into()],
            ..v1::NeedPin::default()
        };
        self.say(Event::Prompt(v1::Prompt {
            id: "1".into(),
            ask: Some(v1::prompt::Ask::Pin(pin)),
        }));
    }

    fn done(self, done: v1::CardDone) {
        self.say(Event::Done(done));
    }
}

fn card() -> v1::CardName {
    v1::CardName {
        serial: SERIAL,
        label: "work".into(),
        slot: "9c".into(),
    }
}

fn info() -> v1::CardInfo {
    v1::CardInfo {
        card: Some(v1::CardName {
            slot: String::new(),
            ..card()
        }),
        present: true,
        slots: vec![v1::SlotInfo {
            slot: "9c".into(),
            key_id: "ab".repeat(32),
            role: "root".into(),
            ..v1::SlotInfo::default()
        }],
        ..v1::CardInfo::default()
    }
}

/// The agent's services, as far as the commands here ask for them.
struct Script {
    home: String,
    calls: Mutex<Sender<Call>>,
}

#[tonic::async_trait]
impl Agent for Script {
    async fn hello(
        &self,
        _: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        Ok(Response::new(v1::HelloReply {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: signet_proto::PROTOCOL,
            pid: 1,
            home: self.home.clone(),
            docker_dir: String::new(),
            forwarded: false,
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        Err(Status::unimplemented("status"))
    }

    async fn lock(&self, _: Request<v1::LockRequest>) -> Result<Response<v1::LockReply>, Status> {
        Err(Status::unimplemented("lock"))
    }

    type UnlockStream = Events<v1::UnlockEvent>;

    async fn unlock(
        &self,
        _: Request<Streaming<v1::UnlockRequest>>,
    ) -> Result<Response<Self::UnlockStream>, Status> {
        Err(Status::unimplemented("unlock"))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        Err(Status::unimplemented("stop"))
    }

    async fn explain(
        &self,
        _: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainReply>, Status> {
        Err(Status::unimplemented("explain"))
    }
}

#[tonic::async_trait]
impl Cards for Script {
    async fn list(
        &self,
        _: Request<v1::ListCardsRequest>,
    ) -> Result<Response<v1::ListCardsReply>, Status> {
        Ok(Response::new(v1::ListCardsReply {
            cards: vec![info()],
            problems: Vec::new(),
        }))
    }

    type ChangeStream = Events<v1::CardEvent>;

    async fn change(
        &self,
        request: Request<Streaming<v1::CardRequest>>,
    ) -> Result<Response<Self::ChangeStream>, Status> {
        let (heard, said) = channel(16);
        let (say, events) = channel(16);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if heard.send(request).await.is_err() {
                    break;
                }
            }
        });
        let calls = self.calls.lock().expect("nothing panics with it").clone();
        let call = Call { said, say };
        calls
            .send(call)
            .await
            .map_err(|_| Status::aborted("over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

/// An agent of a home that does as it is told. Its socket goes with it, before the home.
struct Scripted {
    calls: Receiver<Call>,
    socket: std::path::PathBuf,
    runtime: Option<Runtime>,
}

impl Scripted {
    fn start(home: &Home) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let socket = home.socket();
        let (send, calls) = channel(4);
        let script = |calls: &Sender<Call>| Script {
            home: home.path().display().to_string(),
            calls: Mutex::new(calls.clone()),
        };
        let services = (script(&send), script(&send));
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket) });
        let listener = listener.expect("the home is ours");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("ours");
        let (agent, cards) = (AgentServer::new(services.0), CardsServer::new(services.1));
        let by_path = tower::service_fn(move |request: http::Request<Body>| {
            let (mut agent, mut cards) = (agent.clone(), cards.clone());
            async move {
                if request.uri().path().starts_with("/signet.v1.Cards/") {
                    cards.call(request).await
                } else {
                    agent.call(request).await
                }
            }
        });
        runtime.spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            let server = tonic::transport::Server::builder();
            server.serve_with_incoming(by_path, incoming).await
        });
        Self {
            calls,
            socket,
            runtime: Some(runtime),
        }
    }

    fn call(&mut self) -> Call {
        self.calls.blocking_recv().expect("a command calls")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // Whoever stops the home's agent must not find this process behind its socket.
        let _ = fs::remove_file(&self.socket);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn signet(home: &Home, args: &[&str]) -> Command {
    let mut command = home.signet();
    command.args(args);
    command
}

fn touch(seconds: u32) -> Event {
    Event::Waiting(v1::Waiting {
        what: Some(v1::waiting::What::Touch(v1::TouchNow {
            card: Some(card()),
            seconds,
            role: "root".into(),
            gun: "registry.example.com/acme/app".into(),
            ..v1::TouchNow::default()
        })),
    })
}

fn over() -> Event {
    Event::Waiting(v1::Waiting {
        what: Some(v1::waiting::What::Over(v1::WaitOver {})),
    })
}

#[test]
fn a_pin_is_asked_for_by_card_and_key_and_an_accidental_touch_is_not_sent() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut terminal = Terminal::start(signet(&home, &["card", "pin"]));
    let mut call = agent.call();
    call.change();
    call.ask(What::Pin, "", 3);
    let asked = terminal.expect("tries left: ");
    for part in [
        "root v2 of registry.example.com/acme/app",
        "PIN of the YubiKey 'work' (serial 12345678), slot 9c, root key for \
         registry.example.com/acme/app, 3 tries left: ",
    ] {
        assert!(asked.contains(part), "no {part:?} in {asked}");
    }
    terminal.type_line(TOUCHED);
    terminal.expect("own touch.*nothing was sent");
    terminal.expect("tries left: ");
    terminal.type_line("12345");
    terminal.expect("6 to 8 characters");
    terminal.expect("tries left: ");
    terminal.type_line("654321");
    let secret = call.secret();
    assert_eq!(secret.value, b"654321", "only this was sent");
    assert_eq!(secret.source(), v1::secret::Source::Typed);

    call.ask(What::Pin, "wrong PIN", 1);
    let again = terminal.expect("app, the last try: ");
    assert!(again.contains("wrong PIN."), "{again}");
    assert!(again.contains("a wrong one blocks it"), "{again}");
    terminal.type_line("765432");
    assert_eq!(call.secret().value, b"765432");
    call.done(v1::CardDone {
        card: Some(info()),
        ..v1::CardDone::default()
    });
    let seen = terminal.exits(0);
    for secret in [TOUCHED, "12345\r", "654321", "765432"] {
        assert!(!seen.contains(secret), "{secret} was shown: {seen}");
    }
}

#[test]
fn a_touch_is_one_line_that_counts_down_and_is_erased() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut terminal = Terminal::start(signet(&home, &["card", "pin"]));
    let mut call = agent.call();
    call.change();
    call.say(touch(3));
    let first = terminal.expect(r"\[3 s\]");
    assert!(
        first.contains("Touch the YubiKey 'work' (serial 12345678): root key for"),
        "{first}"
    );
    let second = terminal.expect(r"\[2 s\]");
    // Drawn over the first, not below it.
    assert!(second.starts_with("\r\u{1b}[2K"), "{second:?}");
    assert!(!second.contains('\n'), "{second:?}");
    call.say(over());
    terminal.expect("\r\u{1b}\\[2K");
    call.say(Event::Notice(v1::Notice {
        text: "signed".into(),
    }));
    let notice = terminal.expect("signed");
    assert!(!notice.contains("Touch"), "{notice:?}");
    call.done(v1::CardDone::default());
    terminal.exits(0);
}

#[test]
fn interrupted_while_it_waits_the_line_is_gone() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut terminal = Terminal::start(signet(&home, &["card", "pin"]));
    let mut call = agent.call();
    call.change();
    call.say(Event::Waiting(v1::Waiting {
        what: Some(v1::waiting::What::Missing(v1::CardMissing {
            cards: vec![card()],
            seconds: 60,
        })),
    }));
    terminal.expect(r"Insert the YubiKey 'work' \(serial 12345678\) \[60 s\]");
    terminal.interrupt();
    let seen = terminal.exits(130);
    let (_, after) = seen.rsplit_once("[2K").expect("it was erased");
    assert!(!after.contains("Insert"), "{after:?}");
}

#[test]
fn without_a_terminal_each_is_a_plain_line_and_stdout_has_only_json() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut command = signet(&home, &["card", "pin", "--json"]);
    let running = std::thread::spawn(move || command.run());
    let mut call = agent.call();
    call.change();
    call.say(Event::Waiting(v1::Waiting {
        what: Some(v1::waiting::What::Busy(v1::Busy {
            card: Some(card()),
            holder: "scdaemon (pid 4211)".into(),
            seconds: 10,
        })),
    }));
    call.say(touch(15));
    call.say(over());
    call.done(v1::CardDone {
        card: Some(info()),
        ..v1::CardDone::default()
    });
    let output = running.join().expect("it ran").ok();
    assert_eq!(
        output.stderr,
        "The YubiKey 'work' (serial 12345678) is used by scdaemon (pid 4211); waiting\n\
         Touch the YubiKey 'work' (serial 12345678): root key for registry.example.com/acme/app\n"
    );
    let object: Value = serde_json::from_str(&output.stdout).expect("one object");
    assert_eq!(object["card"]["serial"], SERIAL);
}

#[test]
fn a_pin_of_a_descriptor_is_sent_once_and_its_refusal_is_the_end() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut command = home.with_descriptors(&[(3, "654321")]);
    command.args(["card", "pin", "--pin-fd", "3"]);
    let running = std::thread::spawn(move || command.run());
    let mut call = agent.call();
    call.change();
    call.ask(What::Pin, "", 3);
    assert_eq!(call.secret().value, b"654321");
    call.ask(What::Pin, "wrong PIN", 2);
    assert!(call.heard().is_none(), "nothing more is said");
    let output = running.join().expect("it ran").exits(5);
    output.clone().says("descriptor 3").says("2 tries left");
    assert!(!output.text().contains("654321"));
}

#[test]
fn a_pin_that_names_no_card_is_refused_where_there_are_two() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut command = home.with_descriptors(&[(3, "654321")]);
    command.args(["card", "pin", "--pin-fd", "3"]);
    let running = std::thread::spawn(move || command.run());
    let mut call = agent.call();
    call.change();
    call.say(Event::Prompt(v1::Prompt {
        id: "1".into(),
        ask: Some(v1::prompt::Ask::Pin(v1::NeedPin {
            what: What::Pin.into(),
            card: Some(card()),
            cards: 2,
            ..v1::NeedPin::default()
        })),
    }));
    assert!(call.heard().is_none(), "nothing is said");
    let output = running.join().expect("it ran").exits(2);
    output.says("--pin-fd 12345678:3");
}

#[test]
fn passphrases_of_variables_and_files_are_never_a_pin() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut command = home.unattended();
    command
        .args(["card", "pin"])
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "654321")
        .env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "654321")
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
    let running = std::thread::spawn(move || command.run());
    let mut call = agent.call();
    assert_eq!(call.change().prompt_mode(), v1::PromptMode::None);
    call.ask(What::Pin, "", 3);
    let heard = call.heard();
    let Some(Message::Answer(answer)) = &heard else {
        panic!("no answer: {heard:?}")
    };
    assert!(
        matches!(answer.answer, Some(Given::Unavailable(_))),
        "{answer:?}"
    );
    call.done(v1::CardDone::default());
    running.join().expect("it ran").ok();
}

fn recovery(puk: Vec<u8>) -> v1::CardDone {
    v1::CardDone {
        card: Some(info()),
        recovery: Some(v1::RecoverySheet {
            puk,
            management_key: b"0a".repeat(32),
            management_algorithm: "aes256".into(),
        }),
        ..v1::CardDone::default()
    }
}

#[test]
fn set_up_on_a_terminal_wants_a_new_pin_twice_and_shows_the_sheet() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let mut terminal = Terminal::start(signet(&home, &["card", "setup", "--label", "work"]));
    let mut call = agent.call();
    assert!(matches!(call.change().change, Some(Change::Setup(_))));
    call.ask(What::NewPin, "", 0);
    let question = "New PIN for the YubiKey 'work'";
    terminal.answer(question, "123456");
    terminal.expect("factory value");
    terminal.answer(question, "73aBc!");
    terminal.answer("once more", "73aBc?");
    terminal.expect("not the same");
    terminal.answer(question, "73aBc!");
    terminal.answer("once more", "73aBc!");
    assert_eq!(call.secret().value, b"73aBc!");
    call.ask(What::NewPuk, "", 0);
    terminal.answer("New PUK for the YubiKey 'work'.*Enter", "73aBc!");
    terminal.expect("must differ from the PIN");
    terminal.answer("New PUK for the YubiKey 'work'.*Enter", "");
    let puk = call.secret().value;
    assert!(
        puk.len() == 8 && puk.iter().all(u8::is_ascii_digit),
        "{puk:?}"
    );
    call.done(recovery(puk.clone()));
    let seen = terminal.exits(0);
    let puk = String::from_utf8(puk).expect("digits");
    for part in [
        &puk,
        &"0a".repeat(32),
        "whoever has the PIN also has the management key",
    ] {
        assert!(seen.contains(part), "no {part} in {seen}");
    }
}

#[test]
fn set_up_unattended_makes_a_puk_and_writes_the_sheet_to_a_new_file_only() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    let sheet = home.user_home().join("sheet");
    let setup = || {
        let mut command = home.with_descriptors(&[(3, "73aBc!")]);
        command.args(["card", "setup", "--json", "--pin-fd", "3"]);
        command
    };
    // Nobody would ever see it: nothing is begun.
    let nowhere = setup();
    // No terminal: a session of its own.
    let mut alone = Command::new("setsid");
    alone
        .arg("--wait")
        .arg(nowhere.get_program())
        .args(nowhere.get_args());
    for (name, value) in nowhere.get_envs() {
        if let Some(value) = value {
            alone.env(name, value);
        }
    }
    alone.current_dir(home.user_home());
    alone.run().exits(2).says("--recovery-sheet FILE");

    let mut command = setup();
    command.arg("--recovery-sheet").arg(&sheet);
    let running = std::thread::spawn(move || command.run());
    let mut call = agent.call();
    call.change();
    call.ask(What::NewPin, "", 0);
    assert_eq!(call.secret().value, b"73aBc!");
    call.ask(What::NewPuk, "", 0);
    let puk = call.secret().value;
    call.done(recovery(puk.clone()));
    let output = running.join().expect("it ran").ok();
    let text = fs::read_to_string(&sheet).expect("it is written");
    let puk = String::from_utf8(puk).expect("digits");
    assert!(
        text.contains(&puk) && text.contains(&"0a".repeat(32)),
        "{text}"
    );
    let mode = fs::metadata(&sheet)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for secret in [puk.as_str(), "0a0a0a", "73aBc!"] {
        assert!(
            !output.text().contains(secret),
            "{secret} in {}",
            output.text()
        );
    }
    // A file that is there is nobody's sheet to overwrite.
    let mut again = setup();
    again.arg("--recovery-sheet").arg(&sheet);
    again.run().exits(1).says("not overwritten");
    assert_eq!(fs::read_to_string(&sheet).expect("still there"), text);
}

#[test]
fn a_reset_wants_the_serial_typed_and_yes_is_not_enough() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut agent = Scripted::start(&home);
    signet(&home, &["--yes", "--no-input", "card", "reset"])
        .run()
        .exits(5);
    signet(&home, &["--yes", "card", "reset", "--confirm", "1"])
        .run()
        .exits(4)
        .says("nothing was changed");
    signet(&home, &["card", "reset", "7"]).run().exits(7);
    let mut terminal = Terminal::start(signet(&home, &["--yes", "card", "reset"]));
    terminal.expect("slot 9c: ababababab root key");
    terminal.answer("Type its serial to go on.*: ?", "12345678");
    let mut call = agent.call();
    let change = call.change();
    assert!(change.assume_yes && change.serial == SERIAL);
    assert!(matches!(change.change, Some(Change::Reset(_))));
    call.done(v1::CardDone {
        card: Some(info()),
        ..v1::CardDone::default()
    });
    terminal.exits(0);
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let args = [
                "--no-input",
                "card",
                "reset",
                "--confirm",
                "12345678",
                "--json",
            ];
            signet(&home, &args).run()
        });
        let mut call = agent.call();
        call.change();
        call.done(v1::CardDone::default());
        running.join().expect("it ran")
    });
    let object: Value = serde_json::from_str(&output.ok().stdout).expect("one object");
    assert_eq!(object["card"]["serial"], SERIAL);
}
