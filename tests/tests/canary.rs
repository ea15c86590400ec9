//! Canaries: secrets that are looked for everywhere, and found nowhere but where they must be,
//! encrypted.
//!
//! Every passphrase and every private number of a run is known to the test. They are searched for,
//! as they are, in hexadecimal and in base64, in logs at trace level, the ledger and every other
//! file of home and lab, in what `/proc` shows of command and agent, and in core files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Fault, Home, Lab, Run, Terminal};
use signet_trust::keyfile::write_plain;
use signet_trust::{Algorithm, PrivateKey};

const GUN: &str = "registry.example.com/acme/app";

const KEYRING: &str = "canary-keyring-c2f7e1";
const ROOT: &str = "canary-root-keyring-94b0aa";
const DOCKER_ROOT: &str = "canary-docker-root-1d5c03";
const DOCKER_REPOSITORY: &str = "canary-docker-repository-77e2d9";
const EXPORTED: &str = "canary-exported-e08f46";
const WRONG: &str = "canary-wrong-one-5ab911";
const CHANGED: &str = "canary-changed-0f3c6e";

const PASSPHRASES: [&str; 7] = [
    KEYRING,
    ROOT,
    DOCKER_ROOT,
    DOCKER_REPOSITORY,
    EXPORTED,
    WRONG,
    CHANGED,
];

/// What is searched for: in every form, with what it is.
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn new() -> Self {
        let mut all = Self(Vec::new());
        for passphrase in PASSPHRASES {
            all.add(passphrase, passphrase.as_bytes());
        }
        all
    }

    fn add(&mut self, what: &str, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push((what.to_owned(), secret.to_vec()));
        self.0
            .push((format!("{what}, HEX"), hex.to_uppercase().into_bytes()));
        self.0.push((format!("{what}, hex"), hex.into_bytes()));
        // As it looks in base64, wherever in a longer text it begins.
        for skip in 0..3 {
            let padded = [&vec![0; skip][..], secret].concat();
            let text = STANDARD.encode(padded).replace('=', "");
            // Characters at both ends mix in their neighbours' bits.
            let inner = &text.as_bytes()[(skip * 8).div_ceil(6)..text.len() - 1];
            self.0
                .push((format!("{what}, base64+{skip}"), inner.to_vec()));
        }
    }

    /// What of it is in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found: Vec<&str> = self
            .0
            .iter()
            .filter(|(_, secret)| contains(bytes, secret))
            .map(|(what, _)| what.as_str())
            .collect();
        found.dedup();
        found
    }

    #[track_caller]
    fn nowhere_in(&self, place: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{found:?} in {place}");
    }

    #[track_caller]
    fn nowhere_below(&self, dir: &Path, but: &[PathBuf]) {
        let all = files(dir);
        assert!(!all.is_empty(), "nothing to search in {}", dir.display());
        for (path, content) in all {
            if !but.contains(&path) {
                self.nowhere_in(&path.display().to_string(), &content);
                let name = path.to_string_lossy().into_owned();
                self.nowhere_in("a file's name", name.as_bytes());
            }
        }
    }
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    // Most windows differ in their first byte.
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == words[0])
        .any(|(at, _)| bytes[at..].starts_with(words))
}

/// What `/proc` shows of a process: its arguments, its environment, and what it has open.
fn shown(pid: Pid) -> BTreeMap<&'static str, Vec<u8>> {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let mut all = BTreeMap::new();
    for name in ["cmdline", "environ"] {
        // The kernel shows nothing of an undumpable process to those who are not root.
        all.insert(name, fs::read(proc.join(name)).unwrap_or_default());
    }
    let mut open = Vec::new();
    for entry in fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        open.extend_from_slice(target.as_os_str().as_encoded_bytes());
        open.push(b'\n');
        if target.is_file() && fs::metadata(&target).is_ok_and(|file| file.len() < 64 << 20) {
            open.extend(fs::read(&target).unwrap_or_default());
        }
    }
    all.insert("fd", open);
    all
}

/// `signetd` in the foreground, logging everything.
fn tracing_agent(home: &Home, log: &Path) -> Child {
    let signetd = home.signetd();
    let mut command = clean("bash");
    for (name, value) in signetd.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let log = File::create(log).expect("the lab is ours");
    let child = command
        .current_dir(home.user_home())
        .args(["-c", "ulimit -c unlimited; exec \"$0\""])
        .arg(signetd.get_program())
        .env("SIGNET_LOG", "trace")
        .env("RUST_LOG", "trace")
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn()
        .expect("bash runs");
    let start = Instant::now();
    while home.agent_pid().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "no agent");
        std::thread::yield_now();
    }
    child
}

/// A command that says everything.
fn traced(mut command: Command) -> Command {
    command
        .env("SIGNET_LOG", "trace")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full");
    command
}

fn sign(command: &mut Command, tag: &str) {
    sign_image(command, &format!("{GUN}:{tag}"));
}

fn sign_image(command: &mut Command, image: &str) {
    command.args(["sign", &format!("{image}@{DIGEST}"), "--size", SIZE]);
}

fn passphrase_file(dir: &Path, name: &str, passphrase: &str) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, format!("{passphrase}\n")).expect("it is ours");
    file
}

#[test]
fn a_canary_is_recognised_in_every_form_wherever_it_lies() {
    let canaries = Canaries::new();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    for before in ["", "a", "ab", "abc", "abcd"] {
        let text = format!("{before}{KEYRING}{before}");
        for form in [
            text.clone(),
            STANDARD.encode(&text),
            hex(text.as_bytes()),
            hex(text.as_bytes()).to_uppercase(),
        ] {
            assert!(!canaries.found_in(form.as_bytes()).is_empty(), "{form}");
        }
    }
    assert!(canaries.found_in(b"canary-keyring-").is_empty());
}

#[test]
fn secrets_are_nowhere_but_encrypted_however_they_are_given() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let mut canaries = Canaries::new();
    // Files of the test's own with secrets in them lie elsewhere.
    let own = tempfile::tempdir().expect("/tmp is writable");
    let keyring = passphrase_file(own.path(), "keyring", KEYRING);
    let root = passphrase_file(own.path(), "root", ROOT);
    let log = lab.logs().join("signetd");
    let mut agent = tracing_agent(&home, &log);
    let said = Mutex::new(Vec::new());
    let run = |command: Command, code: i32| {
        let output = traced(command).run().exits(code);
        said.lock()
            .expect("no panic holds it")
            .extend_from_slice(output.text().as_bytes());
        output
    };

    // By file: both keyrings are made, a collection is created.
    let mut by_file = home.signet();
    by_file
        .arg("--no-input")
        .env("SIGNET_PASSPHRASE_FILE", &keyring)
        .env("SIGNET_ROOT_PASSPHRASE_FILE", &root);
    sign(&mut by_file, "file");
    run(by_file, 0);

    // By descriptor, a wrong one first.
    for (passphrase, code) in [(WRONG, 5), (KEYRING, 0)] {
        home.signet().arg("lock").run().ok();
        let mut by_descriptor = home.with_descriptors(&[(3, passphrase)]);
        by_descriptor.args(["--passphrase-fd", "keyring:3"]);
        sign(&mut by_descriptor, "descriptor");
        run(by_descriptor, code);
    }

    // By variable, for keys in Docker's format.
    let mut by_variable = home.signet();
    by_variable
        .args(["--no-input", "key", "generate", "--store", "docker"])
        .args(["--role", "targets", "--gun", GUN])
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", DOCKER_ROOT)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            DOCKER_REPOSITORY,
        );
    run(by_variable, 0);

    // Typed, a wrong one first.
    home.signet().arg("lock").run().ok();
    let mut typed = traced(home.signet());
    sign(&mut typed, "typed");
    let mut terminal = Terminal::start(typed);
    terminal.answer("(?i)passphrase[^\n]*:", WRONG);
    terminal.answer("(?i)passphrase[^\n]*:", KEYRING);
    let screen = terminal.exits(0);
    canaries.nowhere_in("the terminal", screen.as_bytes());

    // A key from a file: its material is known.
    let imported = PrivateKey::generate(Algorithm::P256).expect("there is randomness");
    canaries.add("an imported key", imported.expose_material());
    let pem = own.path().join("imported.pem");
    fs::write(
        &pem,
        write_plain(&imported, "targets", Some(GUN)).as_bytes(),
    )
    .expect("ours");
    let mut import = home.signet();
    import
        .args(["--no-input", "key", "import"])
        .arg(&pem)
        .env("SIGNET_PASSPHRASE_FILE", &keyring);
    run(import, 0);
    let mut export = home.with_descriptors(&[(3, KEYRING), (4, EXPORTED)]);
    export
        .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
        .args(["key", "export", "--format", "docker", "--output"])
        .arg(home.user_home().join("exported.key"))
        .arg(imported.id().to_string());
    run(export, 0);

    // Another passphrase, another identity.
    let mut change = home.with_descriptors(&[(3, KEYRING), (4, CHANGED)]);
    change
        .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
        .args(["keyring", "passphrase"]);
    run(change, 0);
    let mut rotate = home.with_descriptors(&[(3, CHANGED)]);
    rotate
        .args(["--passphrase-fd", "keyring:3"])
        .args(["keyring", "rotate"]);
    run(rotate, 0);
    for args in [&["status"][..], &["key", "list"], &["log", "show"]] {
        let mut command = home.signet();
        command.args(args).arg("--json");
        run(command, 0);
    }

    // Everything that is encrypted there, opened: its material is a canary, too.
    let known = material(&home, CHANGED, ROOT);
    assert!(known.len() >= 3, "{} keys", known.len());
    for (id, secret) in &known {
        canaries.add(&format!("key {id}"), secret);
    }

    let pid = home.agent_pid().expect("it still runs");
    for (what, content) in shown(pid) {
        canaries.nowhere_in(&format!("{what} of the agent"), &content);
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()));
    let limits = limits.unwrap_or_default();
    if let Some(core) = limits.lines().find(|line| line.contains("core file size")) {
        assert!(core.contains(" 0 "), "{core}");
    }
    kill_process(pid, Signal::ABORT).expect("it is ours");
    let ended = agent.wait().expect("it is our child");
    assert!(!ended.core_dumped(), "the agent left a core: {ended}");
    assert_no_core(&[home.user_home(), &home.path(), Path::new("/"), lab.dir()]);

    let traced = fs::read(&log).expect("it has logged");
    assert!(
        contains(&traced, b"TRACE") || contains(&traced, b"DEBUG"),
        "the log is not at trace level: {}",
        String::from_utf8_lossy(&traced)
    );
    canaries.nowhere_in(
        "what the commands said",
        &said.into_inner().expect("no panic"),
    );
    // Descriptors are files here.
    let but = [3, 4].map(|fd| home.user_home().join(format!("secret{fd}")));
    canaries.nowhere_below(lab.dir(), &but);
}

/// Private numbers of all native keys.
fn material(home: &Home, keyring: &str, root: &str) -> Vec<(String, Vec<u8>)> {
    use age::secrecy::SecretString;
    let open = |file: &Path, identities: &[&dyn age::Identity]| -> Option<Vec<u8>> {
        let file = fs::read(file).ok()?;
        let decryptor = age::Decryptor::new_buffered(&file[..]).ok()?;
        let mut reader = decryptor.decrypt(identities.iter().copied()).ok()?;
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut plain).ok()?;
        Some(plain)
    };
    let mut rings: Vec<age::x25519::Identity> = Vec::new();
    for (name, passphrase) in [("keyring.age", keyring), ("root.age", root)] {
        let identity = age::scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
        let text = open(&home.path().join(name), &[&identity]).expect("it opens");
        let text = String::from_utf8(text).expect("identities are text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        rings.extend(lines.map(|line| line.parse::<age::x25519::Identity>().expect("one")));
    }
    let rings: Vec<&dyn age::Identity> = rings.iter().map(|ring| ring as _).collect();
    let keys = files(&home.path().join("keys")).into_keys();
    keys.map(|path| {
        let plain = open(&path, &rings).expect("every key opens");
        let file = signet_trust::keyfile::KeyFile::parse(&plain).expect("a key file");
        let key = file.open(None).expect("in clear");
        (key.id().to_string(), key.expose_material().to_vec())
    })
    .collect()
}

#[track_caller]
fn assert_no_core(dirs: &[&Path]) {
    for dir in dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(
                name != "core" && !name.starts_with("core."),
                "{} in {}",
                name,
                dir.display()
            );
        }
    }
}

/// Runs a command whose upload waits while `/proc` is read.
fn watched(lab: &Lab, home: &Home, command: Command) -> BTreeMap<&'static str, Vec<u8>> {
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let pid: Arc<Mutex<Option<Pid>>> = Arc::default();
    let seen: Arc<Mutex<Option<BTreeMap<_, _>>>> = Arc::default();
    let look = {
        let (pid, seen) = (Arc::clone(&pid), Arc::clone(&seen));
        Fault::Call(Arc::new(move |_: &_| {
            let pid = pid.lock().expect("no panic holds it").expect("it runs");
            *seen.lock().expect("no panic holds it") = Some(shown(pid));
        }))
    };
    proxy.on("POST *", look);
    let mut command = traced(command);
    command
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut held = pid.lock().expect("no panic holds it");
    let child = command.spawn().expect("signet runs");
    *held = Some(Pid::from_child(&child));
    drop(held);
    let ended = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}: {said}", ended.status);
    let seen = seen.lock().expect("no panic holds it").take();
    seen.expect("it has uploaded")
}

#[test]
fn proc_shows_no_secret_of_the_command_or_of_the_agent_that_it_starts() {
    let lab = Lab::builder().notary().build();
    let canaries = Canaries::new();
    let own = tempfile::tempdir().expect("/tmp is writable");
    let keyring = passphrase_file(own.path(), "keyring", KEYRING);
    let root = passphrase_file(own.path(), "root", ROOT);

    // By file: nothing shows.
    let by_file = lab.home();
    let mut command = by_file.signet();
    command
        .arg("--no-input")
        .env("SIGNET_PASSPHRASE_FILE", &keyring)
        .env("SIGNET_ROOT_PASSPHRASE_FILE", &root);
    sign_image(&mut command, "registry.example.com/by/file:v1");
    for (what, content) in watched(&lab, &by_file, command) {
        canaries.nowhere_in(&format!("{what} of a command with files"), &content);
    }

    // By variable: its own environment is what the test gave it.
    let by_variable = lab.home();
    let mut command = by_variable.signet();
    command
        .arg("--no-input")
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", DOCKER_ROOT)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            DOCKER_REPOSITORY,
        );
    sign_image(&mut command, "registry.example.com/by/variable:v1");
    command.args(["--store", "docker"]);
    for (what, content) in watched(&lab, &by_variable, command) {
        if what != "environ" {
            canaries.nowhere_in(&format!("{what} of a command with variables"), &content);
        }
    }

    // By descriptor: its own descriptors are what the test gave it.
    let by_descriptor = lab.home();
    let mut command = by_descriptor.with_descriptors(&[(3, KEYRING), (4, ROOT)]);
    command.args(["--passphrase-fd", "keyring:3", "--passphrase-fd", "root:4"]);
    sign_image(&mut command, "registry.example.com/by/descriptor:v1");
    for (what, content) in watched(&lab, &by_descriptor, command) {
        if what != "fd" {
            canaries.nowhere_in(&format!("{what} of a command with descriptors"), &content);
        }
    }

    // The agents that these commands started know the secrets, and show none.
    for home in [&by_file, &by_variable, &by_descriptor] {
        let pid = home.agent_pid().expect("it was started");
        for (what, content) in shown(pid) {
            canaries.nowhere_in(&format!("{what} of an agent"), &content);
        }
        let dir = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        if let Ok(dir) = dir {
            assert_eq!(dir, Path::new("/"));
        }
    }
    let but: Vec<PathBuf> = [3, 4]
        .map(|fd| by_descriptor.user_home().join(format!("secret{fd}")))
        .into();
    canaries.nowhere_below(lab.dir(), &but);
}

#[test]
fn a_command_that_aborts_at_a_question_leaves_no_core() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let mut command = clean("bash");
    let mut signet = home.signet();
    sign(&mut signet, "v1");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .current_dir(home.user_home())
        .args([
            "-c",
            "ulimit -c unlimited; \"$@\"; echo ended with $?",
            "bash",
        ])
        .arg(signet.get_program())
        .args(signet.get_args());
    let mut terminal = Terminal::start(command);
    terminal.expect("(?i)passphrase");
    let victim = children_named(&home, "signet");
    for pid in victim {
        kill_process(pid, Signal::ABORT).expect("it is ours");
    }
    let (_, said) = terminal.end();
    assert!(said.contains("ended with 134"), "{said}");
    assert!(!said.contains("core dumped"), "{said}");
    assert_no_core(&[home.user_home(), &home.path(), lab.dir()]);
}

/// Processes of this home with this program.
fn children_named(home: &Home, name: &str) -> Vec<Pid> {
    let here = format!("SIGNET_HOME={}", home.path().display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().parse().ok();
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_here = contains(&environ, here.as_bytes()) || cwd == home.user_home();
        if comm.trim() == name && is_here {
            found.push(pid);
        }
    }
    found
}
