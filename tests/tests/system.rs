//! The agent and the system around it: what it gave up, its helper, systemd.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signet_agent::daemon::sandbox::Sandbox;
use signet_tests::lab::built;
use signet_tests::steps::{has_ended, write_script};
use signet_tests::{Home, Lab, Run};

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "not so after a minute: {what}");
        std::thread::yield_now();
    }
}

/// A field of `/proc/PID/status`.
fn field(pid: Pid, name: &str) -> String {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).expect("the process is there");
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|rest| rest.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// Children of a process, by name.
fn children(pid: Pid) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let Some((before, after)) = stat.rsplit_once(')') else {
            continue;
        };
        let parent = after.split_whitespace().nth(1);
        if parent == Some(&pid.as_raw_nonzero().to_string())
            && let Some((id, name)) = before.split_once(" (")
        {
            found.insert(id.parse().expect("a pid"), name.to_owned());
        }
    }
    found
}

/// `signetd` in the foreground, ended when dropped.
struct Agent(Child);

impl Agent {
    fn start(home: &Home, command: &mut Command) -> Self {
        let agent = Self(command.stdin(Stdio::null()).spawn().expect("it runs"));
        wait("the agent answers", || {
            home.signet().arg("status").run().code() == Some(0)
        });
        agent
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_the_sandbox_promises_is_refused_and_the_agents_own_work_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("it is ours");
        path
    };
    let (home, config, sockets) = (place("home"), place("config"), place("run"));
    let (docker, others) = (place("docker"), place("others"));
    fs::create_dir_all(docker.join("trust/private")).expect("it is ours");
    fs::write(docker.join("config.json"), "a password").expect("it is ours");
    fs::write(others.join("secret"), "not for the agent").expect("it is ours");
    fs::write(config.join("agent.toml"), "").expect("it is ours");
    let witness = place("log").join("witness");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let target = tcp.local_addr().expect("an address");
    let listener = UnixListener::bind(others.join("socket")).expect("it is ours");

    // It holds for the thread and those that it starts: this one, and not its siblings.
    let inside = std::thread::spawn(move || {
        Sandbox {
            home: &home,
            config: &config,
            docker: &docker,
            sockets: Some(&sockets),
            witness: Some(&witness),
            roots: None,
        }
        .apply()
        .expect("this kernel has both");
        std::thread::spawn(move || {
            let denied = |what: &str, result: io::Result<()>| {
                let error = result.expect_err(what);
                let refused = matches!(error.raw_os_error(), Some(1 | 13));
                assert!(refused, "{what}: {error}");
            };
            // Files that are not its own.
            denied("read", fs::read(others.join("secret")).map(drop));
            denied("write", fs::write(others.join("new"), "x"));
            denied("list", fs::read_dir(&others).map(drop));
            denied("remove", fs::remove_file(others.join("secret")));
            denied("read", fs::read(docker.join("config.json")).map(drop));
            denied("write", fs::write(config.join("agent.toml"), "x"));
            denied("mkdir", fs::create_dir("/tmp/signet-forbidden"));
            let out = fs::rename(home.join("."), others.join("home"));
            assert!(out.is_err(), "moved out");
            // Another process's memory, program and descriptors.
            let parent = rustix::process::getppid()
                .expect("a parent")
                .as_raw_nonzero();
            denied(
                "exe",
                fs::read_link(format!("/proc/{parent}/exe")).map(drop),
            );
            denied(
                "fd",
                fs::read_link(format!("/proc/{parent}/fd/0")).map(drop),
            );
            // The network.
            denied("tcp", std::net::TcpStream::connect(target).map(drop));
            denied("udp", UdpSocket::bind("127.0.0.1:0").map(drop));
            let family = rustix::net::AddressFamily::NETLINK;
            let netlink = rustix::net::socket(family, rustix::net::SocketType::RAW, None);
            denied("netlink", netlink.map(drop).map_err(io::Error::from));
            // Programs, by either way.
            denied("exec", Err(Command::new("/bin/true").exec()));
            denied("spawn", Command::new("/bin/true").status().map(drop));
            // Signals to others: there is no such call.
            let signal = kill_process(Pid::from_raw(1).expect("a pid"), Signal::CONT);
            assert!(signal.is_err(), "a signal was sent");

            // Its own work.
            fs::create_dir(home.join("keys")).expect("home");
            fs::write(home.join("new"), "x").expect("home");
            fs::rename(home.join("new"), home.join("keys/key")).expect("home");
            fs::remove_file(home.join("keys/key")).expect("home");
            fs::write(docker.join("trust/private/key"), "x").expect("docker");
            fs::read(config.join("agent.toml")).expect("config");
            fs::write(&witness, "line").expect("witness");
            fs::read_to_string("/proc/self/maps").expect("proc");
            let own = UnixListener::bind(sockets.join("agent.sock")).expect("bind");
            UnixStream::connect(sockets.join("agent.sock")).expect("connect");
            own.accept().expect("accept");
            fs::remove_file(sockets.join("agent.sock")).expect("unbind");
            // Buses and pcscd lie wherever they lie.
            UnixStream::connect(others.join("socket")).expect("connect");
            std::thread::spawn(|| ()).join().expect("a thread");
        })
        .join()
    });
    inside.join().expect("applied").expect("as promised");
    drop((udp, tcp, listener));
}

#[test]
fn the_agent_is_filtered_and_its_helper_its_only_child_ends_with_it() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.signet().args(["agent", "start"]).run().ok();
    let pid = home.agent_pid().expect("an agent runs");
    assert_eq!(field(pid, "Seccomp"), "2");
    assert_eq!(field(pid, "NoNewPrivs"), "1");
    let children = children(pid);
    let names: Vec<&str> = children.values().map(String::as_str).collect();
    assert_eq!(names, ["signet-helper"]);
    let helper = children.keys().next().copied().and_then(Pid::from_raw);
    let helper = helper.expect("a pid");
    // Nothing of the home: it was made before anything was opened. (Who is not root may not look.)
    let open = fs::read_dir(format!("/proc/{}/fd", helper.as_raw_nonzero()));
    for descriptor in open.into_iter().flatten().flatten() {
        let path = fs::read_link(descriptor.path()).unwrap_or_default();
        let text = path.display().to_string();
        assert!(text == "/dev/null" || text.starts_with("socket:"), "{text}");
    }
    let status = home.signet().args(["status", "--json"]).run().ok();
    assert!(!status.stdout.contains("landlock"), "{}", status.text());
    assert!(!status.stdout.contains("system calls"), "{}", status.text());
    kill_process(pid, Signal::KILL).expect("it is ours");
    wait("the helper is gone", || has_ended(helper));
}

#[test]
fn a_helper_that_was_killed_is_missed_and_signing_goes_on() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let told = home.user_home().join("told");
    let script = home.user_home().join("witness");
    write_script(&script, &format!("#!/bin/sh\ncat >>{}\n", told.display()));
    let settings = home.user_home().join("config");
    fs::create_dir(&settings).expect("it is ours");
    let text = format!(
        "[log]\njournal = false\nwitness = [{:?}]\n",
        script.display().to_string()
    );
    fs::write(settings.join("agent.toml"), text).expect("it is ours");
    let log = home.user_home().join("agent.log");
    let mut command = home.signetd();
    command
        .env("SIGNET_CONFIG", &settings)
        .stderr(fs::File::create(&log).expect("it is ours"));
    let agent = Agent::start(&home, &mut command);
    let generate = |gun: &str| {
        let args = ["key", "generate", "--role", "repository", "--gun", gun];
        home.unattended().args(args).run().ok();
    };
    generate("registry.example.com/acme/one");
    // Locking makes a checkpoint, which the witness is told of, by the helper.
    home.signet().arg("lock").run().ok();
    wait("the witness was told", || {
        fs::read_to_string(&told).is_ok_and(|text| text.contains("checkpoint"))
    });
    let (helper, _) = children(agent.pid()).pop_first().expect("a helper");
    let helper = Pid::from_raw(helper).expect("a pid");
    kill_process(helper, Signal::KILL).expect("it is ours");
    wait("the helper is gone", || {
        has_ended(helper) || field(helper, "State").starts_with('Z')
    });
    generate("registry.example.com/acme/two");
    home.signet().arg("lock").run().ok();
    wait("both are said", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("callers' programs are unknown") && text.contains("helper process is gone")
    });
}

/// `agent.toml` of this agent, and where it logs.
fn settings(home: &Home, text: &str) -> (PathBuf, PathBuf) {
    let dir = home.user_home().join("settings");
    fs::create_dir(&dir).expect("it is ours");
    fs::write(dir.join("agent.toml"), text).expect("it is ours");
    (dir, home.user_home().join("agent.log"))
}

#[test]
fn an_activated_agent_serves_on_the_socket_it_was_given_and_leaves_it() {
    let lab = Lab::builder().build();
    let home = lab.home();
    // The shell: systemd makes the socket with the mode of the unit, which this one has not.
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "umask 077; exec systemd-socket-activate --listen=\"$0\" \"$@\"",
        ])
        .arg(home.socket());
    let signetd = home.signetd();
    for (name, value) in signetd.get_envs() {
        let value = value.unwrap_or_default().to_str().expect("text");
        command.arg(format!("--setenv={}={value}", name.to_str().expect("text")));
    }
    command.arg(signetd.get_program()).stderr(Stdio::null());
    let mut agent = Agent(command.spawn().expect("it runs"));
    wait("somebody listens", || home.socket().exists());
    home.signet().args(["key", "list"]).run().ok();
    assert_eq!(home.agent_pid(), Some(agent.pid()), "no other was started");
    home.signet().arg("status").run().ok();
    assert_eq!(field(agent.pid(), "Seccomp"), "2");
    assert_eq!(children(agent.pid()).len(), 1);
    kill_process(agent.pid(), Signal::TERM).expect("it is ours");
    assert!(agent.0.wait().expect("it is our child").success());
    assert!(home.socket().exists(), "an inherited socket is not its own");
}

/// What comes on a notify socket, without `EXTEND_TIMEOUT` and the like.
fn hear(socket: &UnixDatagram) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer)?;
    let text = buffer.get(..len).expect("as much as came");
    Ok(String::from_utf8_lossy(text).trim().to_owned())
}

#[test]
fn the_supervisor_is_told_of_start_end_and_life_and_not_of_life_when_the_ledger_hangs() {
    const PATIENCE: Duration = Duration::from_millis(1500);
    let lab = Lab::builder().build();
    let home = lab.home();
    let path = home.user_home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("it is ours");
    let minute = Some(Duration::from_secs(60));
    socket.set_read_timeout(minute).expect("it is ours");
    let mut command = home.signetd();
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", PATIENCE.as_micros().to_string())
        .stderr(Stdio::null());
    let mut agent = Agent(command.spawn().expect("it runs"));
    let mut heard = Vec::new();
    while heard.iter().filter(|word| *word == "WATCHDOG=1").count() < 3 {
        heard.push(hear(&socket).expect("it goes on"));
    }
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");

    // The thread of the ledger alone stands still.
    let tasks = format!("/proc/{}/task", agent.pid().as_raw_nonzero());
    let ledger = fs::read_dir(tasks)
        .expect("it runs")
        .flatten()
        .find(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "ledger")
        });
    let thread = ledger.expect("a thread of that name").file_name();
    let thread = thread.to_str().and_then(|id| id.parse().ok());
    let thread = nix::unistd::Pid::from_raw(thread.expect("an id"));
    let none = nix::sys::ptrace::Options::empty();
    // Only root may trace what made itself undumpable.
    if nix::sys::ptrace::seize(thread, none).is_ok() {
        nix::sys::ptrace::interrupt(thread).expect("it is traced");
        let all = Some(nix::sys::wait::WaitPidFlag::__WALL);
        nix::sys::wait::waitpid(thread, all).expect("it stops");
        socket
            .set_read_timeout(Some(2 * PATIENCE))
            .expect("it is ours");
        // What was on its way before comes first.
        let quiet = (0..4).any(|_| hear(&socket).is_err());
        assert!(
            quiet,
            "it says that it lives, though its ledger does not answer"
        );
        nix::sys::ptrace::detach(thread, None).expect("it is traced");
        socket.set_read_timeout(minute).expect("it is ours");
        assert_eq!(hear(&socket).expect("it goes on"), "WATCHDOG=1");
    }

    kill_process(agent.pid(), Signal::TERM).expect("it is ours");
    assert!(agent.0.wait().expect("it is our child").success());
    socket.set_nonblocking(true).expect("it is ours");
    let rest: Vec<String> = std::iter::from_fn(|| hear(&socket).ok()).collect();
    assert_eq!(rest.last().map(String::as_str), Some("STOPPING=1"));
}

#[test]
fn an_agent_that_nobody_needs_ends_but_not_while_it_holds_a_key() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let (config, log) = settings(&home, "idle_exit = \"1s\"\n");
    let start = || {
        let mut command = home.signetd();
        let log = fs::File::create(&log).expect("it is ours");
        Agent(
            command
                .env("SIGNET_CONFIG", &config)
                .stderr(log)
                .spawn()
                .expect("it runs"),
        )
    };
    let said = |words: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(words));
    let mut agent = start();
    assert!(agent.0.wait().expect("it is our child").success());
    assert!(said("nobody needs the agent"));
    assert!(!home.socket().exists(), "it has cleaned up");

    let mut agent = start();
    wait("the agent listens", || home.socket().exists());
    // Who is connected needs it.
    let connected = UnixStream::connect(home.socket()).expect("it listens");
    let args = [
        "key",
        "generate",
        "--role",
        "repository",
        "--gun",
        "registry.example.com/acme/app",
    ];
    home.unattended().args(args).run().ok();
    home.unattended().args(["unlock", "--for", "5s"]).run().ok();
    drop(connected);
    wait("it says why it stays", || {
        said("the agent stays, as it holds an unlocked key")
    });
    assert!(agent.0.try_wait().expect("it is our child").is_none());
    assert!(agent.0.wait().expect("it is our child").success());
    assert!(said("nobody needs the agent"));
}

#[test]
fn five_hundred_idle_connections_starve_nobody_and_cost_little() {
    /// What an HTTP/2 client says first (RFC 9113, section 3.4), and an empty SETTINGS frame.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let lab = Lab::builder().build();
    let home = lab.home();
    home.signet().args(["agent", "start"]).run().ok();
    let pid = home.agent_pid().expect("an agent runs");
    let idle: Vec<UnixStream> = (0..500)
        .map(|_| {
            let mut stream = UnixStream::connect(home.socket()).expect("it listens");
            stream.write_all(PREFACE).expect("it reads");
            stream
        })
        .collect();
    for mut stream in &idle {
        // Its own settings: the connection is served, and waits.
        stream.read_exact(&mut [0; 9]).expect("it answers");
    }
    let busy: Vec<Child> = (0..32)
        .map(|_| {
            let mut command = home.signet();
            command.args(["key", "list"]).stdout(Stdio::null());
            command.spawn().expect("it runs")
        })
        .collect();
    for mut one in busy {
        assert!(one.wait().expect("it is our child").success());
    }
    let resident = field(pid, "VmRSS");
    let size: u64 = resident.trim_end_matches(" kB").parse().expect("a number");
    assert!(
        size < 40 * 1024,
        "{resident} with {} connections",
        idle.len()
    );
}

/// The units as they are installed.
fn units(dir: &Path) -> [PathBuf; 2] {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../udev");
    let signetd = built("signetd");
    let place = signetd
        .parent()
        .expect("it lies somewhere")
        .display()
        .to_string();
    ["signetd.service", "signetd.socket"].map(|name| {
        let text = fs::read_to_string(source.join(name)).expect("it is ours");
        let path = dir.join(name);
        fs::write(&path, text.replace("@bindir@", &place)).expect("it is ours");
        path
    })
}

#[test]
fn the_units_are_right_and_tight_as_systemd_sees_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let [service, socket] = units(dir.path());
    // Manual pages are there once it is installed.
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--user", "--man=no"])
        .args([&service, &socket])
        .env("XDG_RUNTIME_DIR", dir.path())
        .run()
        .ok();
    assert_eq!(verify.stderr, "", "no warning");
    // In tenths, so that 2.0 and more fails.
    Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=19", "--no-pager"])
        .arg(&service)
        .run()
        .ok();
}
