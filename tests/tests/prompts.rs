//! What a person on a terminal is asked, and what typing, mistyping and Ctrl-C do.

use std::process::Command;

use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Home, Lab, Run, Terminal};

const GUN: &str = "registry.example.com/acme/app";
const KEYRING: &str = "correct horse battery staple";
const ROOT: &str = "another passphrase for the root";

fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.signet();
    command.args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE]);
    command
}

/// Waits for the next question for a passphrase and returns everything shown with it.
fn question(terminal: &mut Terminal) -> String {
    terminal.expect(r"(New passphrase for [^:\n]*|Passphrase of [^:\n]*|The same once more): ")
}

/// Makes keyrings and a repository, everything typed.
fn first_signature(home: &Home) -> String {
    let mut terminal = Terminal::start(sign(home, "v1"));
    // Two new secrets, each typed twice, in whatever order they are asked for.
    for _ in 0..2 {
        let root = question(&mut terminal).ends_with("for the root keyring: ");
        let secret = if root { ROOT } else { KEYRING };
        terminal.type_line(secret);
        question(&mut terminal);
        terminal.type_line(secret);
    }
    terminal.exits(0)
}

fn stopped(home: &Home) {
    home.signet().args(["agent", "stop"]).run().ok();
}

#[test]
fn the_first_signature_asks_for_two_new_passphrases_and_says_what_is_made() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let said = first_signature(&home);
    for word in [GUN, "root"] {
        assert!(said.contains(word), "no {word} in:\n{said}");
    }
    assert!(
        !said.contains(KEYRING) && !said.contains(ROOT),
        "a secret was shown"
    );
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
}

#[test]
fn a_push_on_a_terminal_asks_after_the_upload_and_ctrl_c_then_leaves_an_image_to_be_signed() {
    let lab = Lab::start();
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    let push = || {
        let mut command = home.signet();
        command.args(["push", &image]);
        Terminal::start(command)
    };
    let mut terminal = push();
    let before = question(&mut terminal);
    assert!(before.contains(&image), "{before}");
    terminal.interrupt();
    // The image is out, which cannot be undone: that is said, with what finishes the job.
    let (code, said) = terminal.end();
    assert!(matches!(code, Some(8 | 130)), "{code:?}: {said}");
    assert!(said.contains("signet sign"), "{said}");
    assert!(!home.path().join("keyring.age").exists());

    let mut terminal = push();
    for _ in 0..4 {
        question(&mut terminal);
        terminal.type_line(KEYRING);
    }
    terminal.exits(0);
    lab.everybody_pulls(&image);
}

#[test]
fn a_wrong_passphrase_is_asked_for_again_and_a_right_one_is_held_for_the_session() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    first_signature(&home);
    stopped(&home);

    let mut terminal = Terminal::start(sign(&home, "v2"));
    let asked = question(&mut terminal);
    // What is about to be signed, before the secret is given away.
    assert!(asked.contains(GUN) && asked.contains("v2"), "{asked}");
    terminal.type_line("not this one");
    let asked = question(&mut terminal);
    assert!(asked.to_lowercase().contains("wrong"), "{asked}");
    terminal.type_line(KEYRING);
    terminal.exits(0);

    // Three commands of one shell, one question.
    stopped(&home);
    let mut shell = home.signet();
    let program = shell.get_program().to_owned();
    let script = format!(
        "for tag in v3 v4 v5; do \"$0\" sign {GUN}:$tag@{DIGEST} --size {SIZE} || exit; done"
    );
    let mut in_one_shell = Command::new("/bin/sh");
    in_one_shell.env_clear();
    for (name, value) in shell.args(["status"]).get_envs() {
        if let Some(value) = value {
            in_one_shell.env(name, value);
        }
    }
    in_one_shell.args(["-c", &script]).arg(program);
    let mut terminal = Terminal::start(in_one_shell);
    question(&mut terminal);
    terminal.type_line(KEYRING);
    terminal.exits(0);

    // Another session is asked for itself.
    let mut terminal = Terminal::start(sign(&home, "v6"));
    question(&mut terminal);
    terminal.type_line(KEYRING);
    terminal.exits(0);
    // And one without a terminal has nobody to ask.
    sign(&home, "v7").run().exits(5);
}

#[test]
fn three_wrong_passphrases_are_enough() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    first_signature(&home);
    stopped(&home);
    let mut terminal = Terminal::start(sign(&home, "v2"));
    for _ in 0..3 {
        question(&mut terminal);
        terminal.type_line("not this one");
    }
    terminal.exits(5);
    home.signet()
        .args(["verify", &format!("{GUN}:v2")])
        .run()
        .exits(3);
}

#[test]
fn a_new_passphrase_is_long_enough_and_typed_twice_alike() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut command = home.signet();
    command.args(["key", "generate", "--role", "alice"]);
    let mut terminal = Terminal::start(command);
    question(&mut terminal);
    terminal.type_line("short");
    terminal.expect("8");
    question(&mut terminal);
    terminal.type_line(KEYRING);
    question(&mut terminal);
    terminal.type_line("something else entirely");
    for _ in 0..4 {
        question(&mut terminal);
        terminal.type_line(KEYRING);
    }
    terminal.exits(0);
    let _one = home.key_id("alice");
}

#[test]
fn ctrl_c_at_a_question_leaves_nothing_half_done() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    // At the first question of all…
    let mut terminal = Terminal::start(sign(&home, "v1"));
    question(&mut terminal);
    terminal.interrupt();
    terminal.exits(130);
    assert!(!home.path().join("keyring.age").exists());
    assert!(!home.path().join("root.age").exists());
    assert!(files(&home.path().join("keys")).is_empty());
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .exits(3);
    // …and once there is something to lose.
    first_signature(&home);
    stopped(&home);
    let before = files(&home.path().join("keys"));
    let mut terminal = Terminal::start(sign(&home, "v2"));
    question(&mut terminal);
    terminal.interrupt();
    terminal.exits(130);
    assert_eq!(files(&home.path().join("keys")), before);
    home.signet()
        .args(["verify", &format!("{GUN}:v2")])
        .run()
        .exits(3);
    let mut terminal = Terminal::start(sign(&home, "v2"));
    question(&mut terminal);
    terminal.type_line(KEYRING);
    terminal.exits(0);
}

#[test]
fn ctrl_c_gives_the_terminal_back_as_it_was() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let signet = home.signet();
    let mut shell = Command::new("/bin/sh");
    shell.env_clear();
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
        .args([
            "-c",
            "trap : INT; stty echo; \"$0\" key generate --role alice; echo ended $?; stty -a",
        ])
        .arg(signet.get_program());
    let mut terminal = Terminal::start(shell);
    question(&mut terminal);
    terminal.interrupt();
    terminal.expect("ended 130");
    let said = terminal.exits(0);
    assert!(
        said.contains(" echo ") && said.contains(" icanon "),
        "{said}"
    );
}

#[test]
fn every_signature_of_a_repository_is_revoked_after_a_yes_only() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    first_signature(&home);
    let revoke = || {
        let mut command = home.signet();
        command.args(["revoke", GUN]);
        Terminal::start(command)
    };
    let mut terminal = revoke();
    terminal.answer(r"(?i)\[?y/n\]?", "n");
    terminal.exits(4);
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
    let mut terminal = revoke();
    terminal.answer(r"(?i)\[?y/n\]?", "y");
    question(&mut terminal);
    terminal.type_line(KEYRING);
    terminal.exits(0);
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .exits(3);
}

#[test]
fn several_root_keys_are_a_question() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    for label in ["one", "two"] {
        home.unattended()
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["key", "generate", "--role", "root", "--label", label])
            .run()
            .ok();
    }
    // Nobody to ask: the candidates are named.
    home.unattended()
        .args(["sign", &format!("{GUN}:v1@{DIGEST}"), "--size", SIZE])
        .run()
        .exits(2)
        .says("one")
        .says("two");
    // On a terminal it is a question, which offers a new one, too; Escape is no answer.
    let menu = r"Root key of the new repository";
    let mut terminal = Terminal::start(sign(&home, "v1"));
    terminal.expect(menu);
    let offered = terminal.expect("a new root key");
    assert!(
        offered.contains("one") && offered.contains("two"),
        "{offered}"
    );
    terminal.press("\u{1b}");
    terminal.exits(130);
    let mut terminal = Terminal::start(sign(&home, "v1"));
    terminal.expect("a new root key");
    terminal.press("\u{1b}[B\r");
    assert!(
        question(&mut terminal).contains("two"),
        "the second one was picked"
    );
    terminal.interrupt();
    terminal.exits(130);
    assert_eq!(home.keys().len(), 2, "nothing was made");

    home.unattended()
        .args(["sign", &format!("{GUN}:v1@{DIGEST}"), "--size", SIZE])
        .args(["--root", "two"])
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .run()
        .ok();
    assert_eq!(home.keys().len(), 3, "two roots, one targets key");
}
