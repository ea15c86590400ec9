//! With pinentries that are shell scripts: the protocol, and what comes of what they say.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::presence::question;

/// A pinentry that notes what it is told, and answers `GETPIN` and `CONFIRM` with these lines.
fn scripted(answers: &str) -> (tempfile::TempDir, Pinentry) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("pinentry");
    let text = format!(
        "#!/bin/sh\necho 'OK Pleased to meet you'\nwhile read -r line; do\n\
         echo \"$line\" >> '{}'\n\
         case $line in GETPIN|CONFIRM) printf '{answers}' ;; *) echo OK ;; esac\ndone\n",
        dir.path().join("told").display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let pinentry = Pinentry::new(Choice::Program(program), |name| {
        (name == "DISPLAY").then(|| ":0".into())
    });
    (dir, pinentry)
}

fn passphrase_of_keyring() -> prompt::Ask {
    prompt::Ask::Passphrase(v1::NeedPassphrase {
        what: need_passphrase::What::Keyring.into(),
        attempts_left: 1,
        refused: "wrong passphrase".to_owned(),
        summary: vec!["adds v1: 100% new".to_owned()],
        ..v1::NeedPassphrase::default()
    })
}

async fn ask(pinentry: &Pinentry, ask: &prompt::Ask) -> Result<Option<Reply>, Fault> {
    let answer = pinentry.ask(ask, "pid 7 /usr/bin/front", None).await?;
    Ok(answer.map(|answer| answer.reply))
}

#[tokio::test]
async fn what_is_typed_comes_back_and_everything_is_told() {
    let (dir, pinentry) = scripted("S PASSWORD_FROM_CACHE\\nD 100%%25 se\\nD cret\\nOK\\n");
    let answer = ask(&pinentry, &passphrase_of_keyring()).await.unwrap();
    let Some(Reply::Secret(secret, Typed::Yes)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(secret.expose(), b"100% secret");
    let told = fs::read_to_string(dir.path().join("told")).unwrap();
    for line in [
        "SETDESC pid 7 /usr/bin/front%0Aadds v1: 100%25 new%0A%0APassphrase of the keyring. Last \
         attempt.%0ATo be answered within 5 minutes.",
        "SETPROMPT Passphrase:",
        "SETERROR wrong passphrase",
        "SETTITLE Signet",
    ] {
        assert!(told.lines().any(|one| one == line), "{line}:\n{told}");
    }
    assert!(!told.contains("SETREPEAT"), "{told}");
}

#[tokio::test]
async fn an_end_without_an_answer_is_a_no_or_a_stop() {
    // gpg-error: pinentry's own source (5) and the code.
    let (_dir, pinentry) = scripted("ERR 83886179 Operation cancelled\\n");
    let stopped = ask(&pinentry, &passphrase_of_keyring()).await.unwrap();
    assert!(matches!(stopped, Some(Reply::Cancelled)));
    let question = question::for_yes("Sign?", &[], 2);
    let no = ask(&pinentry, &question).await.unwrap();
    assert!(matches!(no, Some(Reply::Yes(false))));
    let (_dir, pinentry) = scripted("ERR 83886142 Timeout\\n");
    let late = ask(&pinentry, &question).await;
    assert!(matches!(late, Err(Fault::NobodyAnswered)));
    let (_dir, pinentry) = scripted("OK\\n");
    let yes = ask(&pinentry, &question).await.unwrap();
    assert!(matches!(yes, Some(Reply::Yes(true))));
}

#[tokio::test]
async fn one_that_says_nonsense_or_too_much_or_goes_away_is_none() {
    let endless = format!("D {}\\n", "x".repeat(4000));
    for answers in [
        "HELLO\\n",
        "D %%2\\nOK\\n",
        endless.as_str(),
        "\\n\\n\\n",
        "ERR 83886081 General error\\n",
    ] {
        let (_dir, pinentry) = scripted(answers);
        let answer = ask(&pinentry, &passphrase_of_keyring()).await.unwrap();
        assert!(answer.is_none(), "{answers}");
    }
    let missing = Pinentry::new(Choice::Program("/nowhere/pinentry".into()), |_| {
        Some(":0".into())
    });
    let nobody = ask(&missing, &passphrase_of_keyring()).await.unwrap();
    assert!(nobody.is_none());
}

#[tokio::test]
async fn without_display_and_terminal_none_is_started() {
    let program = Choice::Program("/bin/true".into());
    let blind = Pinentry::new(program, |_| None);
    assert_eq!(blind.program(None), None);
    let nobody = ask(&blind, &passphrase_of_keyring()).await.unwrap();
    assert!(nobody.is_none());
    let terminal = Terminal {
        path: "/dev/pts/3".to_owned(),
        kind: "xterm".to_owned(),
    };
    assert!(blind.program(Some(&terminal)).is_some());
    let off = Pinentry::new(Choice::Off, |_| Some(":0".into()));
    assert_eq!(off.program(Some(&terminal)), None);
}

#[test]
fn a_long_summary_is_cut_and_the_question_stays() {
    let summary: Vec<String> = (0..50)
        .map(|n| format!("adds {n}: {}", "d".repeat(90)))
        .collect();
    let words = words(&question::for_yes("Sign this?", &summary, 2), "pid 7");
    assert!(
        words.description.len() <= DESCRIPTION + 8,
        "{}",
        words.description.len()
    );
    assert!(words.description.contains("…%0A"));
    assert!(words.description.contains("%0ASign this?%0A"));
}
