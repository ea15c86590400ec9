//! The agent as a process: started when needed, one for each home, stopped without loss.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::steps::{DIGEST, SIZE, has_ended};
use signet_tests::{Fault, Home, Lab, Output, Run};

const IMAGE: &str = "registry.example.com/acme/app:v1";

fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.unattended();
    let image = IMAGE.replace(":v1", &format!(":{tag}@{DIGEST}"));
    command.args(["sign", &image, "--size", SIZE]);
    command
}

/// Signs with what the agent holds, and nothing else.
fn sign_with_nothing(home: &Home, tag: &str) -> Output {
    sign(home, tag).env_remove("SIGNET_PASSPHRASE_FILE").run()
}

fn signet(home: &Home, args: &[&str]) -> Output {
    home.signet().args(args).run()
}

fn agent(home: &Home) -> Pid {
    home.agent_pid().expect("an agent runs")
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "not so after a minute: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_command_starts_the_agent_once_and_stop_returns_when_it_is_gone() {
    let lab = Lab::builder().build();
    let home = lab.home();
    signet(&home, &["key", "list"]).ok();
    let first = agent(&home);
    signet(&home, &["key", "list"]).ok();
    signet(&home, &["agent", "start"]).ok();
    assert_eq!(agent(&home), first);
    let mode = |path: &Path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode(&home.socket()) & 0o777, 0o600);
    assert_eq!(mode(&home.path()) & 0o777, 0o700);

    signet(&home, &["agent", "stop"]).ok();
    assert!(has_ended(first), "the process is still there");
    assert_eq!(home.agent_pid(), None);
    // And again: there is none, which is what was asked for.
    signet(&home, &["agent", "stop"]).ok();
}

#[test]
fn a_second_agent_for_the_same_home_gives_up_and_says_why() {
    let lab = Lab::builder().build();
    let home = lab.home();
    signet(&home, &["agent", "start"]).ok();
    let first = agent(&home);
    let second = home.signetd().run();
    assert_ne!(second.code(), Some(0), "{}", second.text());
    second.says(&home.path().display().to_string());
    // Nor on another socket.
    let elsewhere = home.user_home().join("run/other.sock");
    let third = home.signetd().env("SIGNET_SOCKET", &elsewhere).run();
    assert_ne!(third.code(), Some(0), "{}", third.text());
    assert_eq!(agent(&home), first, "the first one goes on");
}

#[test]
fn an_agent_that_was_killed_leaves_a_socket_that_the_next_one_replaces() {
    let lab = Lab::builder().build();
    let home = lab.home();
    signet(&home, &["agent", "start"]).ok();
    let first = agent(&home);
    kill_process(first, Signal::KILL).expect("it is ours");
    wait("the agent is gone", || home.agent_pid().is_none());
    assert!(home.socket().exists(), "it had no time to clean up");
    signet(&home, &["key", "list"]).ok();
    assert_ne!(agent(&home), first);
}

#[test]
fn an_agent_of_another_home_is_not_used() {
    let lab = Lab::builder().build();
    let (ours, theirs) = (lab.home(), lab.home());
    signet(&theirs, &["agent", "start"]).ok();
    let with_their_socket = |args: &[&str]| {
        ours.signet()
            .env("SIGNET_SOCKET", theirs.socket())
            .args(args)
            .run()
    };
    with_their_socket(&["key", "list"])
        .exits(6)
        .says(&ours.path().display().to_string())
        .says(&theirs.path().display().to_string());
    with_their_socket(&["status"]).ok();
    with_their_socket(&["lock"]).ok();
    let pid = agent(&theirs);
    with_their_socket(&["agent", "stop"]).ok();
    assert!(has_ended(pid), "the process is still there");
}

#[test]
fn a_home_that_others_can_enter_is_refused() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let shared = fs::Permissions::from_mode(0o777);
    fs::set_permissions(home.path(), shared).expect("it is ours");
    let open = signet(&home, &["key", "list"]);
    assert!(matches!(open.code(), Some(1 | 6)), "{}", open.text());
    let open = open.says(&home.path().display().to_string());
    assert!(
        open.stderr.contains("chmod"),
        "the fix is named: {}",
        open.stderr
    );

    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(home.path(), private).expect("it is ours");
    let link = home.user_home().join("link");
    symlink(home.path(), &link).expect("it is ours");
    let linked = home
        .signet()
        .env("SIGNET_SOCKET", link.join("agent.sock"))
        .args(["key", "list"])
        .run();
    assert!(matches!(linked.code(), Some(1 | 6)), "{}", linked.text());
}

#[test]
fn secrets_are_held_until_they_are_locked_and_no_longer_than_the_agent() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    // A secret given for one request is not everybody's from then on.
    sign_with_nothing(&home, "v2").exits(5).says("passphrase");
    home.unattended().arg("unlock").run().ok();
    sign_with_nothing(&home, "v2").ok();
    signet(&home, &["lock"]).ok();
    sign_with_nothing(&home, "v3").exits(5);
    home.unattended()
        .args(["unlock", "--for", "10m"])
        .run()
        .ok();
    signet(&home, &["agent", "stop"]).ok();
    sign_with_nothing(&home, "v3").exits(5);
}

#[test]
fn a_wrong_passphrase_ends_in_5_and_is_not_tried_twice() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let wrong = home.user_home().join("wrong");
    fs::write(&wrong, "not this one\n").expect("it is ours");
    let tried = sign(&home, "v2")
        .env("SIGNET_PASSPHRASE_FILE", &wrong)
        .run()
        .exits(5)
        .says("passphrase");
    assert!(
        tried.stderr.contains("wrong"),
        "the file is named: {}",
        tried.stderr
    );
    // A file that is empty or not there is said to be that.
    fs::write(&wrong, "\n").expect("it is ours");
    sign(&home, "v2")
        .env("SIGNET_PASSPHRASE_FILE", &wrong)
        .run()
        .exits(5);
    sign(&home, "v2")
        .env("SIGNET_PASSPHRASE_FILE", "/nonexistent/file")
        .run()
        .exits(5)
        .says("/nonexistent/file");
    sign(&home, "v2").run().ok();
}

#[test]
fn whoever_goes_on_guessing_is_made_to_wait_and_what_is_unlocked_goes_on() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    home.has_keyrings();
    sign(&home, "v1")
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .run()
        .ok();
    let unlock = |passphrase: &str| {
        home.with_descriptors(&[(3, passphrase)])
            .args(["unlock", "--passphrase-fd", "keyring:3"])
            .run()
    };
    unlock(KEYRING_PASSPHRASE).ok();
    // The pauses grow, so that one of the next falls into one however slow this machine is.
    let stopped = (0..14).map(|_| unlock("not this one").exits(5));
    let stopped = stopped
        .enumerate()
        .find(|(_, said)| said.text().contains("too many"));
    let (wrong, said) = stopped.expect("nobody may guess for ever");
    assert!(wrong >= 6, "a person may mistype: {wrong}");
    said.says("wrong passphrases for the keyring: the next one is looked at in");
    sign_with_nothing(&home, "v2").ok();
    wait("the right one is looked at again", || {
        unlock(KEYRING_PASSPHRASE).code() == Some(0)
    });
    unlock("not this one").exits(5).says("wrong passphrase for");
    unlock(KEYRING_PASSPHRASE).ok();
}

/// A `sign` that has its signatures, and waits for the trust server's answer to its upload, which
/// comes when `meanwhile` has returned.
fn while_uploading(
    lab: &Lab,
    home: &Home,
    tag: &str,
    meanwhile: impl Fn() + Send + Sync + 'static,
) -> Output {
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let call = Arc::new(move |_: &_| meanwhile());
    proxy.on_next(1, "POST */_trust/tuf/", Fault::Call(call));
    sign(home, tag)
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .run()
}

#[test]
fn sigterm_lets_a_signing_run_end_first() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let pid = agent(&home);
    while_uploading(&lab, &home, "v2", move || {
        kill_process(pid, Signal::TERM).expect("it is ours");
    })
    .ok();
    wait("the agent is gone", || has_ended(pid));
    assert!(!home.socket().exists(), "it has cleaned up");
    signet(&home, &["verify", &IMAGE.replace("v1", "v2")]).ok();
    sign(&home, "v3").run().ok();
}

#[test]
fn an_agent_killed_after_it_has_signed_costs_nothing_but_the_run() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let pid = agent(&home);
    let killed = while_uploading(&lab, &home, "v2", move || {
        kill_process(pid, Signal::KILL).expect("it is ours");
    });
    // The upload went through all the same; whether the run says so or not, the next ones work.
    assert!(
        matches!(killed.code(), Some(0 | 1 | 6)),
        "{}",
        killed.text()
    );
    sign(&home, "v3").run().ok();
    sign(&home, "v2").run().ok();
    for tag in ["v1", "v2", "v3"] {
        signet(&home, &["verify", &IMAGE.replace("v1", tag)]).ok();
    }
}

#[test]
fn an_upload_that_was_lost_is_superseded_by_the_next_run() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let through = |tag: &str| {
        sign(&home, tag)
            .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
            .run()
    };
    // The first root never arrives, then a later version, then only the answer is lost.
    proxy.on_next(1, "POST */_trust/tuf/", Fault::Drop);
    through("v1").exits(1);
    through("v1").ok();
    proxy.on_next(1, "POST */_trust/tuf/", Fault::Status(500, "{}"));
    through("v2").exits(1);
    through("v2").ok();
    proxy.on_next(1, "POST */_trust/tuf/", Fault::LoseAnswer);
    through("v3").exits(1);
    through("v3").ok();
    through("v4").ok();
    assert_eq!(
        lab.notary_list(lab.trust_server(), "registry.example.com/acme/app")
            .len(),
        4
    );
    assert_eq!(home.keys().len(), 2, "no key was made twice");
}

/// KiB of files, its own program above all, that a process has in memory.
fn resident_files(pid: Pid) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssFile:"));
    let size = line.expect("VmRSS").trim().trim_end_matches(" kB");
    size.parse().expect("a number")
}

#[test]
fn an_agent_that_nobody_talks_to_lets_go_of_its_code_and_still_answers() {
    let lab = Lab::builder().build();
    let home = lab.home();
    signet(&home, &["key", "list"]).ok();
    // Asked once: to ask is to talk to it.
    let agent = agent(&home);
    let busy = resident_files(agent);
    wait("the agent is smaller", || {
        resident_files(agent) < busy * 3 / 4
    });
    signet(&home, &["key", "list"]).ok();
}

#[test]
fn the_agent_runs_in_the_foreground_when_asked_to() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut child: Child = home
        .signet()
        .args(["agent", "run"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    wait("the agent answers", || home.agent_pid().is_some());
    signet(&home, &["status"]).ok();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), Signal::INT).expect("it is ours");
    let status = child.wait().expect("it is our child");
    assert!(status.success() || status.code() == Some(130), "{status}");
    assert_eq!(home.agent_pid(), None);
}

#[test]
fn status_is_one_screen_with_keys_and_warnings() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    let status = signet(&home, &["status", "--json"]).ok().json();
    assert_eq!(status["v"], 1);
    let output = signet(&home, &["status"]).ok();
    for word in [
        home.path().display().to_string().as_str(),
        "registry.example.com/acme/app",
    ] {
        assert!(output.stdout.contains(word), "no {word}: {}", output.text());
    }
    // The same passphrase opens both keyrings here, and that is said.
    output.says("same passphrase");
}
