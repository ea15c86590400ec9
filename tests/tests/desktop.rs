//! The desktop around the agent: private buses with a mocked logind and a mocked notification
//! daemon, and the agent as a user would have it.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use signet_tests::lab::bus::{Bus, Mock};
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Cards, Firmware, Home, Lab, Output, Run};

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
    let settings = home.user_home().join(".config/signet");
    fs::create_dir_all(&settings).expect("the home is ours");
    let no_suspend = "[lock]\nsuspend = false\n";
    fs::write(settings.join("agent.toml"), no_suspend).expect("the home is ours");
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
    let settings = home.user_home().join(".config/signet");
    fs::create_dir_all(&settings).expect("the home is ours");
    let lock = "[lock]\ncard_removed = true\n";
    fs::write(settings.join("agent.toml"), lock).expect("the home is ours");
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
    let shown = session.await_call("Notify ");
    assert!(
        shown.contains(&format!("Touch YubiKey {SERIAL} now")),
        "{shown}"
    );
    assert!(shown.contains(&format!("targets key of {GUN}")), "{shown}");
    // A body is markup: a name is not.
    assert!(shown.contains("&lt;b&gt;&amp; team&lt;/b&gt;"), "{shown}");
    assert!(!shown.contains("<b>") && !shown.contains(PIN), "{shown}");
    let closed = |session: &Bus| {
        let calls = session.calls();
        let closed = calls
            .iter()
            .filter(|call| call.starts_with("CloseNotification"));
        closed.count()
    };
    assert_eq!(closed(&session), 0);
    card.touch_auto();
    assert!(signing.wait().expect("it is our child").success());
    session.await_call("CloseNotification 1");

    unlock(&home);
    card.remove();
    let why = format!("YubiKey {SERIAL} was taken out");
    wait("it is locked", || locks(&home).contains(&why));
}
