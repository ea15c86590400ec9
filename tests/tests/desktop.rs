//! The desktop around the agent: private buses with a mocked logind and a mocked notification
//! daemon, and the agent as a user would have it.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use signet_proto::v1::answer::Answer;
use signet_tests::forge::{Forge, with_tag};
use signet_tests::lab::bus::{Bus, Mock};
use signet_tests::raw::{Ask, Raw};
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Cards, Firmware, Home, Lab, Output, Run};
use signet_trust::RoleName;

const GUN: &str = "registry.example.com/acme/app";
const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";

/// A `signetd` that was started by hand, with its log in a file.
struct Agent {
    child: Child,
    log: std::path::PathBuf,
}

impl Agent {
    fn start(home: &Home, mut command: Command) -> Self {
        let log = home.user_home().join("agent.log");
        let file = File::create(&log).expect("the home is ours");
        let child = command
            .env("SIGNET_LOG", "debug")
            .stderr(Stdio::from(file))
            .spawn()
            .expect("signetd is built");
        let agent = Self { child, log };
        wait("it listens", || home.agent_pid().is_some());
        agent
    }

    fn on(home: &Home, system: &Bus) -> Self {
        let mut command = home.signetd();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", system.address());
        Self::start(home, command)
    }

    fn says(&self, words: &str) {
        wait(words, || {
            fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words))
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "not so after a minute: {what}");
        std::thread::yield_now();
    }
}

fn settings(home: &Home, text: &str) {
    let dir = home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(dir.join("agent.toml"), text).expect("the home is ours");
}

fn unlock(home: &Home) {
    home.unattended().arg("unlock").run().ok();
}

/// Signs with what the agent holds, and nothing else.
fn sign(home: &Home, tag: &str) -> Output {
    let image = format!("{GUN}:{tag}@{DIGEST}");
    let mut command = home.signet();
    command.args(["--no-input", "sign", &image, "--size", SIZE]);
    command.run()
}

/// A collection whose keys are in the keyring.
fn collection(home: &Home) {
    let image = format!("{GUN}:v0@{DIGEST}");
    let mut command = home.unattended();
    command.args(["sign", &image, "--size", SIZE]);
    command.run().ok();
}

fn locks(home: &Home) -> Vec<String> {
    let log = home.log();
    let entries = log["entries"].as_array().expect("a list").iter();
    let locks = entries.filter(|entry| entry["kind"] == "lock");
    locks
        .map(|entry| entry["summary"][0].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_machine_that_goes_to_sleep_waits_until_the_keyring_is_locked() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let mut system = Bus::start(Mock::Logind);
    let _agent = Agent::on(&home, &system);
    collection(&home);
    unlock(&home);
    sign(&home, "v1").ok();
    wait("an inhibitor", || system.inhibitors().contains("Signet"));
    assert!(system.inhibitors().contains("'sleep'"));
    assert!(system.inhibitors().contains("'delay'"));

    system.prepare_for_sleep(true);
    wait("it lets go", || !system.inhibitors().contains("Signet"));
    sign(&home, "v2").exits(5).says("locked");
    assert_eq!(locks(&home), ["the machine goes to sleep"]);
    // Awake again, it waits for the next time, and for a logind that was started anew as well.
    system.prepare_for_sleep(false);
    wait("an inhibitor", || system.inhibitors().contains("Signet"));
    system.restart();
    unlock(&home);
    sign(&home, "v3").ok();
    wait("an inhibitor", || system.inhibitors().contains("Signet"));
    system.prepare_for_sleep(true);
    wait("it lets go", || !system.inhibitors().contains("Signet"));
    sign(&home, "v4").exits(5);
}

#[test]
fn a_locked_session_of_the_user_locks_the_keyring_and_one_of_another_user_does_not() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let system = Bus::start(Mock::Logind);
    settings(&home, "[lock]\nsuspend = false\n");
    let agent = Agent::on(&home, &system);
    agent.says("following logind");
    collection(&home);
    let uid = rustix::process::getuid().as_raw();
    let ours = system.session("c1", uid);
    let others = system.session("c2", uid + 1);
    let lock = |session: &str| {
        system.call(session, "org.freedesktop.login1.Session.Lock", &[]);
    };

    unlock(&home);
    lock(&others);
    agent.says("a session of another user was locked");
    // What is switched off is not even asked for.
    system.prepare_for_sleep(true);
    assert!(!system.inhibitors().contains("Signet"));
    sign(&home, "v1").ok();

    lock(&ours);
    wait("it is locked", || locks(&home).len() == 1);
    sign(&home, "v2").exits(5).says("locked");

    // Desktops that lock the screen themselves say so by a property.
    unlock(&home);
    let hint = "org.freedesktop.login1.Session.SetLockedHint";
    system.call(&ours, hint, &["true"]);
    wait("it is locked", || locks(&home).len() == 2);
    sign(&home, "v3").exits(5);
    assert_eq!(locks(&home), ["the screen was locked"; 2]);
}

#[test]
fn a_touch_is_shown_on_the_desktop_until_it_is_over_and_a_card_that_is_taken_out_locks() {
    let lab = Lab::builder().notary().build();
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let home = lab.home().with_cards(&cards);
    let session = Bus::start(Mock::Notifications);
    settings(&home, "[lock]\ncard_removed = true\n");
    // The command hands the bus of its session on to the agent that it starts.
    let mut command = home.signet();
    command.env("DBUS_SESSION_BUS_ADDRESS", session.address());
    command.args(["agent", "start"]).run().ok();
    let with_pin = |arguments: &[&str]| {
        let mut command = home.with_descriptors(&[(3, PIN)]);
        command.args(arguments).args(["--pin-fd", "3"]);
        command
    };
    let sheet = home.user_home().join("sheet");
    with_pin(&["card", "setup", &SERIAL.to_string()])
        .arg("--recovery-sheet")
        .arg(&sheet)
        .run()
        .ok();
    let label = "<b>& team</b>";
    let generate = ["key", "generate", "--store", "piv", "--role", "targets"];
    with_pin(&generate)
        .args(["--gun", GUN, "--touch-policy", "always", "--label", label])
        .run()
        .ok();
    home.unattended()
        .args(["key", "generate", "--role", "root"])
        .run()
        .ok();

    let card = cards.card(SERIAL);
    card.touch_never();
    let image = format!("{GUN}:v1@{DIGEST}");
    let mut signing = with_pin(&["sign", &image, "--size", SIZE])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .spawn()
        .expect("signet is built");
    // Making the key took a touch, too.
    let (number, shown) = session.await_notification("compared with nothing");
    assert!(
        shown.contains(&format!("Touch YubiKey {SERIAL} now")),
        "{shown}"
    );
    assert!(shown.contains(&format!("targets key of {GUN}")), "{shown}");
    // A body is markup: a name is not.
    assert!(shown.contains("&lt;b&gt;&amp; team&lt;/b&gt;"), "{shown}");
    assert!(!shown.contains("<b>") && !shown.contains(PIN), "{shown}");
    assert!(!session.is_closed(number));
    card.touch_auto();
    assert!(signing.wait().expect("it is our child").success());
    wait("it is closed", || session.is_closed(number));

    unlock(&home);
    card.remove();
    let why = format!("YubiKey {SERIAL} was taken out");
    wait("it is locked", || locks(&home).contains(&why));
}

#[test]
fn a_request_that_waits_for_an_answer_is_shown_and_one_that_found_nobody_is_too() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.has_keyrings();
    let forge = Forge::new(GUN);
    let targets = RoleName::Targets;
    forge.import(&home, std::slice::from_ref(&targets));
    let key = format!("targets@{GUN}");
    home.signet()
        .args(["key", "label", &key, "release"])
        .run()
        .ok();
    home.signet().args(["agent", "stop"]).run().ok();
    settings(&home, "[forward]\nkeys = [\"release\"]\n");
    let session = Bus::start(Mock::Notifications);
    let mut command = home.signetd();
    command.env("DBUS_SESSION_BUS_ADDRESS", session.address());
    let _agent = Agent::start(&home, command);
    unlock(&home);
    let there = Raw::connect_to(&home, &home.socket().with_file_name("forward.sock"));
    let edition = forge.edition(5);
    let next = with_tag(edition.top(), 6, "v1");
    let ask = Ask::new(GUN, Some(forge.documents(&edition))).item(
        &targets,
        &next,
        forge.key_id(&targets),
    );

    there.ask(&ask).expect_err("nobody attends");
    let (_, shown) = session.await_notification("nobody attends: run `signet watch`");
    assert!(shown.contains(GUN), "{shown}");

    let here = Raw::connect(&home);
    let mut attendant = here.attend().expect("he attends");
    let number = std::thread::scope(|scope| {
        let asking = scope.spawn(|| there.ask(&ask));
        let prompt = attendant.prompt().prompt.expect("a prompt");
        // He does not see it yet.
        let (number, shown) = session.await_notification("A request waits for a yes");
        assert!(shown.contains("`signet watch` shows it"), "{shown}");
        assert!(shown.contains("targets v5"), "{shown}");
        assert!(!session.is_closed(number));
        attendant.answer(&prompt.id, Answer::Yes(true));
        asking.join().expect("no panic").expect("it is signed");
        number
    });
    wait("it is closed", || session.is_closed(number));
}
