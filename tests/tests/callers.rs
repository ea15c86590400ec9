//! Who is on the other end of the socket: what the kernel says of it, what the log keeps of that,
//! and what a caller gets whose facts are another user's, uncertain, or another machine's.

use std::fs::{self, Permissions};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use signet_proto::v1::{self, agent_client::AgentClient, report::Outcome};
use signet_tests::forge::{Edition, Forge, with_tag};
use signet_tests::lab::command::clean;
use signet_tests::raw::{Ask, Raw, Refused};
use signet_tests::{Home, Lab, Run};
use signet_trust::RoleName;

const GUN: &str = "registry.example.com/acme/app";

struct Scene {
    forge: Forge,
    edition: Edition,
    home: Home,
    lab: Lab,
}

impl Scene {
    /// An agent, locked, with the targets key of a forged collection.
    fn new() -> Self {
        let lab = Lab::builder().build();
        let home = lab.home();
        home.has_keyrings();
        let forge = Forge::new(GUN);
        forge.import(&home, &[RoleName::Targets]);
        home.signet().arg("lock").run().ok();
        Self {
            edition: forge.edition(5),
            forge,
            home,
            lab,
        }
    }

    fn ask(&self, tag: &str) -> Ask {
        let targets = RoleName::Targets;
        let next = with_tag(self.edition.top(), 6, tag);
        Ask::new(GUN, Some(self.forge.documents(&self.edition)))
            .item(&targets, &next, self.forge.key_id(&targets))
            .reporting(Some(Outcome::Rejected))
    }

    /// The newest entry of the log that is about a signature: its caller, and what was noted of it.
    fn newest(&self) -> (String, Value) {
        let log = Raw::connect(&self.home).log();
        let mut kinds = log.iter().rev();
        let entry = kinds.find(|entry| ["sign", "refuse", "fail"].contains(&entry.kind.as_str()));
        let entry = entry.expect("something was asked");
        let facts: Value = serde_json::from_str(&entry.facts).expect("facts are JSON");
        (entry.caller.clone(), facts["caller"].clone())
    }

    /// A connection to the agent made by `python`, which hands it over and ends.
    ///
    /// `while_it_is_stopped` runs after that and before the agent accepts it.
    fn made_by(&self, mut python: Command, while_it_is_stopped: impl FnOnce(u32)) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        let agent = self.home.agent_pid().expect("an agent runs");
        kill_process(agent, Signal::STOP).expect("it is ours");
        let mut child = python
            .args(["-c", CONNECTS])
            .arg(self.home.socket())
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("python starts");
        let stream = handed_over(&ours);
        let done = child.wait().expect("it ends");
        assert!(done.success());
        while_it_is_stopped(child.id());
        kill_process(agent, Signal::CONT).expect("it is ours");
        stream
    }

    /// A connection to the agent made by a python of another name, which goes on running.
    fn made_by_living(&self, program: &Path) -> (Child, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        let child = clean(program)
            .args(["-c", &format!("{CONNECTS}test.recv(1)\n")])
            .arg(self.home.socket())
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("python starts");
        let stream = handed_over(&ours);
        // Its end is the program's: it stays until it is killed.
        std::mem::forget(ours);
        (child, stream)
    }
}

/// Connects to the agent and hands the connection over.
const CONNECTS: &str = "import socket, sys\n\
    agent = socket.socket(socket.AF_UNIX)\n\
    agent.connect(sys.argv[1])\n\
    test = socket.socket(fileno=0)\n\
    socket.send_fds(test, [b'x'], [agent.fileno()])\n";

fn handed_over(socket: &UnixStream) -> UnixStream {
    let mut byte = [0];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(socket.as_fd(), &mut bytes, &mut control, RecvFlags::empty()).expect("it sends");
    let mut all = control.drain();
    match all.next() {
        Some(RecvAncillaryMessage::ScmRights(mut fds)) => fds.next().expect("one").into(),
        _ => panic!("no descriptor"),
    }
}

fn python() -> Command {
    clean("/usr/bin/python3")
}

/// A process that sleeps under this ID.
fn somebody_else(pid: u32) -> Child {
    for _ in 0..50 {
        // The next process gets the next ID (proc(5), ns_last_pid).
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("as root");
        let mut child = clean("/bin/sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        if child.id() == pid {
            return child;
        }
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
    }
    panic!("the ID {pid} cannot be had again");
}

#[test]
fn a_caller_that_has_ended_is_unconfirmed_and_gets_nothing_that_a_session_holds() {
    let scene = Scene::new();
    // Held for this test's own terminal session, to which python belongs as well.
    scene
        .home
        .unattended()
        .args(["unlock", "--here"])
        .run()
        .ok();
    let steady = Raw::connect(&scene.home);
    steady
        .ask(&scene.ask("v1"))
        .expect("it is held for this session");
    let (caller, facts) = scene.newest();
    assert!(!caller.contains("unconfirmed"), "{caller}");
    assert_eq!(facts["confirmed"], true, "{facts}");
    assert_eq!(facts["pid"], std::process::id(), "{facts}");

    let stream = scene.made_by(python(), |_| {});
    let ended = Raw::on(&scene.home, stream);
    let done = ended
        .ask(&scene.ask("v2"))
        .expect("the passphrase is asked for and given");
    assert_eq!(
        done.prompts.len(),
        1,
        "what the session holds is not for it"
    );
    let (caller, facts) = scene.newest();
    assert!(caller.contains("(unconfirmed)"), "{caller}");
    assert_eq!(facts["confirmed"], false, "{facts}");
}

#[test]
fn a_process_that_got_the_id_of_the_caller_is_not_taken_for_it() {
    let scene = Scene::new();
    let dir = scene.home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    let sleeps = fs::canonicalize("/bin/sleep").expect("there is one");
    let policy = format!(
        "[[policy]]\nname = \"only sleep\"\nexe = [{sleeps:?}]\ndo = \"allow\"\n\
         [[policy]]\nname = \"nobody else\"\ndo = \"deny\"\n"
    );
    scene.home.signet().args(["agent", "stop"]).run().ok();
    fs::write(dir.join("agent.toml"), policy).expect("the home is ours");
    scene.home.unlocks();

    let mut other = None;
    let stream = scene.made_by(python(), |pid| other = Some(somebody_else(pid)));
    let reused = Raw::on(&scene.home, stream);
    match reused.ask(&scene.ask("v1")) {
        Err(Refused::Failed(failure)) => assert_eq!(failure.code, "policy", "{failure:?}"),
        signed => panic!("the rule was for another process: {signed:?}"),
    }
    let (caller, facts) = scene.newest();
    assert!(caller.contains("(unconfirmed)"), "{caller}");
    assert_eq!(facts["confirmed"], false, "{facts}");
    let mut other = other.expect("it was started");
    other.kill().expect("it is ours");
    other.wait().expect("it ends");
}

#[test]
fn another_user_is_refused_and_so_is_root_where_it_is_not_the_owner() {
    let scene = Scene::new();
    let socket = scene.home.socket();
    // The directories keep others out by themselves; here they do not.
    let mut above: Vec<&Path> = socket.ancestors().skip(1).take(5).collect();
    above.retain(|dir| dir.starts_with(scene.lab.dir()));
    let places: Vec<&Path> = above.into_iter().chain([socket.as_path()]).collect();
    let set_mode = |mode| {
        for place in &places {
            fs::set_permissions(place, Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    set_mode(0o777);
    let mut python = python();
    // nobody (Debian's base-passwd).
    python.uid(65534).gid(65534);
    let stream = scene.made_by(python, |_| {});
    set_mode(0o700);
    let status = Raw::on(&scene.home, stream).call(async |channel| {
        let mut agent = AgentClient::new(channel);
        agent.hello(v1::HelloRequest::default()).await
    });
    let status = status.expect_err("it is another user");
    // As good as no agent: exit 6.
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().contains("not user 65534"), "{status}");
}

#[test]
fn a_process_of_a_container_is_told_by_what_the_kernel_shows_of_it() {
    let scene = Scene::new();
    scene.home.unlocks();
    // Namespaces of its own, as a container has: from outside it has an ID like others.
    let mut inside = clean("unshare");
    inside.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--uts",
        "--ipc",
        "/usr/bin/python3",
    ]);
    let stream = scene.made_by(inside, |_| {});
    let raw = Raw::on(&scene.home, stream);
    raw.ask(&scene.ask("v1")).expect("it is this user's");
    let (caller, facts) = scene.newest();
    assert_ne!(facts["pid"], 1, "the ID here, not the one inside: {facts}");
    assert!(caller.contains("(unconfirmed)"), "it has ended: {caller}");

    // The other way round: an agent in a namespace that the caller is not in has no ID for it.
    scene.home.signet().args(["agent", "stop"]).run().ok();
    let daemon = scene.home.signetd();
    let mut inside = clean("unshare");
    inside
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(daemon.get_program());
    for (name, value) in daemon.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    let mut agent = inside.spawn().expect("it starts");
    let socket = scene.home.socket();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while UnixStream::connect(&socket).is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not listen");
    }
    let raw = Raw::connect_to(&scene.home, &socket);
    let done = raw.ask(&scene.ask("v2")).expect("with the passphrase");
    assert_eq!(done.prompts.len(), 1);
    let log = raw.log();
    let entry = log.iter().rev().find(|entry| entry.kind == "sign");
    let entry = entry.expect("it was signed");
    assert!(entry.caller.starts_with("pid 0"), "{}", entry.caller);
    assert!(entry.caller.contains("(unconfirmed)"), "{}", entry.caller);
    // Nothing is held for a session that the agent does not see.
    let done = raw.ask(&scene.ask("v3")).expect("with the passphrase");
    assert_eq!(done.prompts.len(), 1);
    agent.kill().expect("it is ours");
    agent.wait().expect("it ends");
}

#[test]
fn what_a_forwarder_carries_is_never_asked_about_on_its_own_stream() {
    let scene = Scene::new();
    let key = scene.forge.key_id(&RoleName::Targets).to_string();
    scene.home.signet().args(["agent", "stop"]).run().ok();
    let dir = scene.home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(
        dir.join("agent.toml"),
        format!("[forward]\nkeys = [{key:?}]\n"),
    )
    .expect("the home is ours");
    scene.home.signet().args(["agent", "start"]).run().ok();
    // A program of the name is enough, as ssh itself is hidden where it is undumpable.
    let ssh: PathBuf = scene.home.user_home().join("socat");
    fs::copy("/usr/bin/python3", &ssh).expect("the home is ours");
    let (mut forwarder, stream) = scene.made_by_living(&ssh);
    let raw = Raw::on(&scene.home, stream);
    match raw.ask(&scene.ask("v1")) {
        Err(Refused::Failed(failure)) => assert_eq!(failure.code, "forwarded", "{failure:?}"),
        signed => panic!("it was asked, or signed: {signed:?}"),
    }
    let (caller, facts) = scene.newest();
    assert!(caller.contains("(forwarded)"), "{caller}");
    assert_eq!(facts["forwarded"], true, "{facts}");
    forwarder.kill().expect("it is ours");
    forwarder.wait().expect("it ends");
}
