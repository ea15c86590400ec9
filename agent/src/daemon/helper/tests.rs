use std::io::{BufRead as _, BufReader};

use super::*;

fn shell(script: &str, input: &str, patience: Duration) -> Ran {
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    run(&command, input, patience).unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_command_gets_the_text_and_nothing_of_our_environment() {
    let ran = shell("cat; env", "the line\n", MINUTE);
    let said = String::from_utf8(ran.said).unwrap();
    assert!(
        said.starts_with("the line\n") && !said.contains("CARGO"),
        "{said}"
    );
    assert!(ran.status.unwrap().success());
    assert_eq!(shell("exit 3", "", MINUTE).status.unwrap().code(), Some(3));
}

#[test]
fn what_it_says_and_how_long_it_takes_is_bounded() {
    let ran = shell("head -c 1000000 /dev/zero", "", MINUTE);
    assert_eq!(
        (ran.said.len(), ran.status.unwrap().code()),
        (MAX_SAID, Some(0))
    );
    // It and its child, neither of which reads what it is sent.
    let long = "x".repeat(1 << 20);
    let ran = shell(
        "echo begun; sleep 1000 & sleep 1000",
        &long,
        Duration::from_millis(300),
    );
    assert!(ran.status.is_none());
    assert_eq!(ran.said, b"begun\n");
    let missing = run(&["/nowhere/at/all".to_owned()], "", MINUTE).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_long_input_is_read_whole_while_the_program_talks() {
    let long = "x".repeat(1 << 20);
    let ran = shell("cat | wc -c; cat /dev/null", &long, MINUTE);
    assert_eq!(String::from_utf8(ran.said).unwrap().trim(), "1048576");
}

#[test]
fn one_can_talk_with_a_program_and_dropping_it_kills_it_and_its_children() {
    let script = "echo hello $NAME; read line; echo got $line; sleep 1000 & sleep 1000";
    let arguments = ["-c", script].map(OsString::from);
    let env = [(OsString::from("NAME"), OsString::from("you"))];
    let child = spawn(Path::new("/bin/sh"), &arguments, &env).unwrap();
    let mut lines = BufReader::new(child.stream.try_clone().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "hello you");
    (&child.stream).write_all(b"it\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert!(child.wait(Duration::ZERO).unwrap().is_none());
    drop(child);
    // The end of the stream: nobody has its other end any more.
    assert!(lines.next().is_none());

    let child = spawn(Path::new("/bin/sh"), &["-c".into(), "exit 7".into()], &[]).unwrap();
    let status = child.wait(MINUTE).unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
    let missing = spawn(Path::new("/nowhere/at/all"), &[], &[]).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let script = format!("exec 3>{}; sleep 1000 & sleep 1000", path.display());
    let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let (held, gone) = oneshot::channel::<()>();
    let running = tokio::spawn(run_apart(command, String::new(), MINUTE * 60, held));
    // It is opened once the program opens it, and is at its end once all that had it are gone.
    let end = tokio::task::spawn_blocking(move || {
        let mut pipe = File::open(path).unwrap();
        running.abort();
        pipe.read(&mut [0]).unwrap()
    });
    assert_eq!(end.await.unwrap(), 0);
    assert!(gone.await.is_err());
}
