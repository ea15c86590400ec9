//! Pinentries: one with a window (a script stands for it) and Debian's own on a terminal, for
//! requests that neither their own stream nor anybody who attends can answer.

use std::fs;
use std::process::Command;

use serde_json::Value;
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE, write_script};
use signet_tests::{Home, Lab, Output, Run, Terminal};

const GUN: &str = "registry.example.com/acme/app";

/// A repository, and an agent with these settings that is locked and in a graphical session.
fn scene(settings: impl FnOnce(&Home) -> String) -> (Lab, Home) {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    home.unattended()
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .args(["sign", &format!("{GUN}:v1@{DIGEST}"), "--size", SIZE])
        .run()
        .ok();
    home.signet().args(["agent", "stop"]).run().ok();
    let dir = home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(dir.join("agent.toml"), settings(&home)).expect("the home is ours");
    home.signet()
        .env("DISPLAY", ":7")
        .args(["agent", "start"])
        .run()
        .ok();
    (lab, home)
}

/// A pinentry that notes what it is told and how it was started; its answers to what asks.
fn scripted(home: &Home, answers: &str) -> String {
    let program = home.user_home().join("pinentry");
    let told = home.user_home().join("told");
    write_script(
        &program,
        &format!(
            "#!/bin/sh\necho 'OK Your orders please'\necho \"display $DISPLAY home $HOME \
             secret $SIGNET_PASSPHRASE_FILE\" >> '{told}'\nwhile read -r line; do\n\
             echo \"$line\" >> '{told}'\n\
             case $line in GETPIN|CONFIRM) {answers} ;; *) echo OK ;; esac\ndone\n",
            told = told.display()
        ),
    );
    format!(
        "[presence]\npinentry = {:?}\n",
        program.display().to_string()
    )
}

/// `signet` of somebody who has no terminal.
fn alone(home: &Home, args: &[&str]) -> Output {
    let signet = home.signet();
    let mut command = clean("setsid");
    command.arg("--wait").arg(signet.get_program()).args(args);
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.run()
}

fn sign(home: &Home, tag: &str) -> Output {
    alone(
        home,
        &["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE],
    )
}

fn told(home: &Home) -> String {
    fs::read_to_string(home.user_home().join("told")).unwrap_or_default()
}

#[test]
fn a_passphrase_typed_in_a_window_signs_and_the_window_says_what_for() {
    let (_lab, home) =
        scene(|home| scripted(home, &format!("echo 'D {KEYRING_PASSPHRASE}'; echo OK")));
    sign(&home, "v2").ok();
    let told = told(&home);
    for words in [
        "display :7",
        "v2",
        GUN,
        "Passphrase of the keyring.",
        "signet",
    ] {
        assert!(told.contains(words), "{words}:\n{told}");
    }
    // Of the caller's environment it has nothing.
    assert!(told.contains("secret \n"), "{told}");
    let log = home.log();
    let entries = log["entries"].as_array().expect("entries");
    let signed = entries.iter().rev().find(|entry| entry["kind"] == "sign");
    let signed = signed.expect("it was signed");
    assert_eq!(signed["grade"], 3, "{signed}");
    let facts = signed["facts"]["consent"]["channel"].clone();
    assert_eq!(facts, Value::from("pinentry"), "{signed}");
}

#[test]
fn a_window_that_is_closed_ends_the_request_and_one_that_fails_is_nobody() {
    let (_lab, home) =
        scene(|home| scripted(home, "echo 'ERR 83886179 Operation cancelled <Pinentry>'"));
    sign(&home, "v2").exits(130);
    scripted(&home, "exit 1");
    sign(&home, "v2").exits(5).says("signet unlock");
    // --no-input asks nobody, not even in a window.
    scripted(&home, &format!("echo 'D {KEYRING_PASSPHRASE}'; echo OK"));
    fs::remove_file(home.user_home().join("told")).expect("it was there");
    let unattended = format!("{GUN}:v2@{DIGEST}");
    alone(&home, &["--no-input", "sign", &unattended, "--size", SIZE]).exits(5);
    assert_eq!(told(&home), "");
}

#[test]
fn a_rule_that_asks_takes_a_yes_in_a_window() {
    let (_lab, home) = scene(|home| {
        let answers = format!(
            "case $line in CONFIRM) echo OK ;; *) echo 'D {KEYRING_PASSPHRASE}'; echo OK ;; esac"
        );
        scripted(home, &answers) + "[[policy]]\nname = \"mine\"\nguns = [\"*\"]\ndo = \"ask\"\n"
    });
    home.unattended().arg("unlock").run().ok();
    sign(&home, "v2").ok();
    assert!(told(&home).contains("CONFIRM"), "{}", told(&home));
    assert!(!told(&home).contains("GETPIN"), "{}", told(&home));
    // A no.
    scripted(&home, "echo 'ERR 83886194 Not confirmed'");
    sign(&home, "v3").exits(4).says("declined");
}

/// A front without prompts, on a terminal, in a shell that names it or does not.
fn front(home: &Home, shell: &str) -> Terminal {
    let mut command: Command = clean("/bin/sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" \"$1\"")])
        .arg(env!("CARGO_BIN_EXE_signet-front"))
        .arg(home.socket());
    Terminal::start(command)
}

#[test]
fn pinentry_curses_asks_on_the_terminal_that_the_callers_environment_names() {
    let (_lab, home) =
        scene(|_| "[presence]\npinentry = \"/usr/bin/pinentry-curses\"\n".to_owned());
    home.signet().args(["agent", "stop"]).run().ok();
    // No display: this one writes on a terminal or nowhere.
    home.signet().args(["agent", "start"]).run().ok();
    let mut terminal = front(&home, "GPG_TTY=$(tty); export GPG_TTY;");
    let screen = terminal.expect("Passphrase of the keyring");
    assert!(screen.contains("signet-front"), "{screen}");
    terminal.expect("Passphrase:");
    terminal.press(KEYRING_PASSPHRASE);
    terminal.press("\r");
    let said = terminal.exits(0);
    assert!(said.contains("done"), "{said}");
    assert!(!said.contains(KEYRING_PASSPHRASE), "it was shown");

    // Not named, or another one: nobody is asked.
    for shell in ["unset GPG_TTY;", "GPG_TTY=/dev/pts/0000; export GPG_TTY;"] {
        let (code, said) = front(&home, shell).end();
        assert_eq!(code, Some(1), "{shell}: {said}");
        assert!(said.contains("locked"), "{shell}: {said}");
        assert!(!said.contains("Passphrase of"), "{shell}: {said}");
    }
}
