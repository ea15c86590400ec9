//! Killed at any instant: no key lost, no file half-written, no signature without its log entry,
//! and the next run works.
//!
//! `signet-faults` counts every operation on a file below the home and Docker's directory, over
//! all threads of command and agent, and kills before one of them. `SIGNET_CRASH_POINTS` is how
//! many of them are tried, drawn by `SIGNET_CRASH_SEED`, or `all`; `SIGNET_CRASH_REPORT` names a
//! file that gets a line for each run (`make soak`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, thread};

use age::secrecy::SecretString;
use age::{Decryptor, scrypt, x25519};
use sha2::{Digest as _, Sha256};
use signet_tests::lab::command::clean;
use signet_tests::lab::{KEYRING_PASSPHRASE, built};
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Cli, Home, Lab, Run};
use signet_trust::document::Root;
use signet_trust::keyfile::KeyFile;
use signet_trust::verify::Raw;

/// Points in CI, over all commands together.
const POINTS: usize = 40;

/// Of these, for each command that publishes; the others are for `key generate`, which has fewer
/// operations than half of a soak's points.
const PUBLISHING: usize = 13;

const SEED: u64 = 20_261_121;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// `signet push` of a first image.
    Push,
    /// `signet sign` of a first digest: as push, without an engine.
    Sign,
    /// `signet key generate` in an empty home.
    Generate,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Sign => "sign",
            Self::Generate => "key generate",
        }
    }

    fn command(self, home: &Home, image: &str) -> Command {
        let mut command = home.unattended();
        // The first run may have made the keyrings; then the root one asks for its own.
        command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
        match self {
            Self::Push => command.args(["push", image]),
            Self::Sign => command.args(["sign", &format!("{image}@{DIGEST}"), "--size", SIZE]),
            Self::Generate => {
                let gun = gun(image);
                command.args(["key", "generate", "--role", "targets", "--gun", gun])
            }
        };
        command
    }
}

/// When it is killed.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Before this operation, from 1.
    at: u64,
    /// Everything at once, as in a power cut; else the one process that was about to do it.
    all: bool,
}

/// A home and an image for one run.
struct Site<'a> {
    lab: &'a Lab,
    home: Home,
    image: String,
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab, act: Act, number: usize) -> Self {
        let name = format!("acme/p{number}:v1");
        let image = match act {
            Act::Push => lab.import_image(&name),
            Act::Sign | Act::Generate => lab.image(&name),
        };
        let home = lab.home();
        Self { lab, home, image }
    }

    /// Runs it under the tracer; the operations that it did.
    fn traced(&self, act: Act, point: Option<Point>) -> (Option<i32>, Vec<String>, String) {
        let report = self.home.user_home().join("operations");
        let inner = act.command(&self.home, &self.image);
        let mut command = clean(built("signet-faults"));
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
            .current_dir(self.home.user_home())
            .arg("--root")
            .arg(self.home.path())
            .arg("--root")
            .arg(self.home.docker_config())
            .arg("--report")
            .arg(&report);
        if let Some(point) = point {
            command.args(["--kill-at", &point.at.to_string()]);
            if point.all {
                command.arg("--all");
            }
        }
        command
            .arg("--")
            .arg(inner.get_program())
            .args(inner.get_args());
        let output = command.run();
        let operations = fs::read_to_string(&report).unwrap_or_default();
        let operations = operations.lines().map(str::to_owned).collect();
        (output.code(), operations, output.text())
    }

    /// What must hold after a run was killed, and after the next one.
    fn check(&self, act: Act) -> Result<(), String> {
        let left: BTreeSet<PathBuf> = self.key_files().into_iter().collect();
        let next = act.command(&self.home, &self.image).run();
        if next.code() != Some(0) {
            return Err(format!("the next run fails: {}", next.text()));
        }
        let kept: BTreeSet<PathBuf> = self.key_files().into_iter().collect();
        if let Some(lost) = left.difference(&kept).next() {
            return Err(format!("{} is gone", lost.display()));
        }
        self.nothing_is_left_over()?;
        let opened = self.keys_open()?;
        self.log_is_sound()?;
        if act == Act::Generate {
            return Ok(());
        }
        self.signatures_are_in_the_log(&opened)?;
        let pulled = match act {
            Act::Push => self.lab.pull_as_newcomer(Cli::Debian12, &self.image),
            _ => self.home.signet().args(["verify", &self.image]).run(),
        };
        if pulled.code() != Some(0) {
            return Err(format!("nobody can use it: {}", pulled.text()));
        }
        Ok(())
    }

    fn key_files(&self) -> Vec<PathBuf> {
        let all = files(&self.home.path().join("keys")).into_keys();
        // A temporary file is no key yet.
        all.filter(|path| path.extension().is_some_and(|ext| ext == "age"))
            .filter(|path| is_hex(path.file_stem().and_then(|stem| stem.to_str())))
            .collect()
    }

    /// Only files that are known by name: whatever is half-written has another.
    fn nothing_is_left_over(&self) -> Result<(), String> {
        let home = self.home.path();
        let docker = self.home.docker_config();
        for path in files(&home).into_keys().chain(files(docker).into_keys()) {
            let name = path.strip_prefix(&home).or(path.strip_prefix(docker));
            let name = name.expect("it is below one of the two").to_string_lossy();
            let parts: Vec<&str> = name.split('/').collect();
            let known = match parts[..] {
                [
                    "keyring.age" | "root.age" | "agent.lock" | "ledger.sqlite"
                    | "ledger.sqlite-wal" | "ledger.sqlite-shm" | "same-passphrase" | "config.json",
                ] => true,
                ["keys", key] => is_hex(key.strip_suffix(".age")),
                ["lock", lock] => lock == "start" || is_hex(Some(lock)),
                ["tls", _, "ca.crt"] => true,
                ["trust", "tuf", .., "metadata", document] => {
                    matches!(
                        document,
                        "root.json" | "targets.json" | "snapshot.json" | "timestamp.json"
                    )
                }
                _ => false,
            };
            if !known {
                return Err(format!("{name} is left over"));
            }
        }
        Ok(())
    }

    /// Every key file decrypts to the key that it is named by, and every key of the list is there.
    fn keys_open(&self) -> Result<BTreeSet<String>, String> {
        let mut rings = Vec::new();
        for name in ["keyring.age", "root.age"] {
            let path = self.home.path().join(name);
            rings.extend(identities(&path).map_err(|why| format!("{name}: {why}"))?);
        }
        let mut opened = BTreeSet::new();
        for path in self.key_files() {
            let id = path.file_stem().expect("it has a name").to_string_lossy();
            let pem = decrypt(&path, &rings).map_err(|why| format!("{id}: {why}"))?;
            let file = KeyFile::parse(&pem).map_err(|why| format!("{id}: {why}"))?;
            let key = file.open(None).map_err(|why| format!("{id}: {why}"))?;
            if key.id().to_string() != id {
                return Err(format!("{id} holds {}", key.id()));
            }
            opened.insert(id.into_owned());
        }
        for key in self.home.keys() {
            let id = key["id"].as_str().unwrap_or_default();
            let fine = key["problem"].as_str().is_none_or(str::is_empty);
            if !opened.contains(id) || !fine || key["state"] == "gone" {
                return Err(format!("listed, but no good: {key}"));
            }
        }
        Ok(opened)
    }

    /// The chain holds, and no version was signed with two contents, but where the later entry says
    /// that it replaces one that never arrived.
    fn log_is_sound(&self) -> Result<(), String> {
        let verified = self.home.signet().args(["log", "verify"]).run();
        if verified.code() != Some(0) {
            return Err(format!("the log does not hold: {}", verified.text()));
        }
        let log = self.home.log();
        let entries = log["entries"].as_array().into_iter().flatten();
        let mut signed: Vec<_> = entries.filter(|entry| entry["kind"] == "sign").collect();
        signed.sort_by_key(|entry| entry["number"].as_u64());
        for (at, later) in signed.iter().enumerate() {
            let is_another = |earlier: &&&serde_json::Value| {
                ["gun", "role", "version"]
                    .iter()
                    .all(|member| earlier[member] == later[member])
                    && earlier["payload"] != later["payload"]
            };
            if let Some(earlier) = signed[..at].iter().find(is_another)
                && !later["summary"].to_string().contains("replaces v")
            {
                return Err(format!("signed twice: {earlier:#}\n{later:#}"));
            }
        }
        Ok(())
    }

    /// What the server and the cache hold was signed by keys that are here, and is in the log.
    fn signatures_are_in_the_log(&self, keys: &BTreeSet<String>) -> Result<(), String> {
        let log = self.home.log();
        let logged: BTreeSet<&str> = log["entries"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["payload"].as_str())
            .collect();
        let mut documents = BTreeMap::new();
        for name in ["root.json", "targets.json"] {
            let url = format!(
                "{}/v2/{}/_trust/tuf/{name}",
                self.lab.trust_server(),
                gun(&self.image)
            );
            let got = clean("curl")
                .args(["--silent", "--show-error", "--fail", "--cacert"])
                .arg(self.lab.certs().ca())
                .arg(&url)
                .output()
                .map_err(|err| err.to_string())?;
            if !got.status.success() {
                return Err(format!("{url}: {}", String::from_utf8_lossy(&got.stderr)));
            }
            documents.insert(url, got.stdout);
        }
        let cache = self.home.docker_config().join("trust/tuf");
        for (path, content) in files(&cache) {
            if path.ends_with("root.json") || path.ends_with("targets.json") {
                documents.insert(path.display().to_string(), content);
            }
        }
        for (name, wire) in documents {
            let hash = payload_hash(&name, wire.clone())?;
            if !logged.contains(hash.as_str()) {
                return Err(format!("{name} ({hash}) is not in the log: {log:#}"));
            }
            let Ok(root) = Raw::<Root>::parse(wire, 1 << 20) else {
                continue;
            };
            for role in ["root", "targets"] {
                let role = role.parse().expect("a role");
                for id in &root.claimed().roles[&role].key_ids {
                    let canonical = root.claimed().keys[id].canonical_id();
                    let canonical = canonical.map_err(|err| err.to_string())?.to_string();
                    if !keys.contains(&canonical) {
                        return Err(format!("{name} lists {canonical}, which is lost"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn gun(image: &str) -> &str {
    image.rsplit_once(':').map_or(image, |(gun, _)| gun)
}

fn is_hex(name: Option<&str>) -> bool {
    name.is_some_and(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn payload_hash(name: &str, wire: Vec<u8>) -> Result<String, String> {
    use signet_trust::document::Targets;
    let canonical = match Raw::<Root>::parse(wire.clone(), 1 << 20) {
        Ok(root) => root.canonical().to_vec(),
        Err(_) => Raw::<Targets>::parse(wire, 1 << 20)
            .map_err(|err| format!("{name}: {err}"))?
            .canonical()
            .to_vec(),
    };
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(&canonical) {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The identities in a keyring file.
fn identities(path: &Path) -> Result<Vec<x25519::Identity>, String> {
    let passphrase = SecretString::from(KEYRING_PASSPHRASE.to_owned());
    let identity = scrypt::Identity::new(passphrase);
    let file = fs::read(path).map_err(|err| err.to_string())?;
    let plain = open(&file, &[&identity])?;
    let text = String::from_utf8(plain).map_err(|err| err.to_string())?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.parse().map_err(str::to_owned))
        .collect()
}

fn decrypt(path: &Path, rings: &[x25519::Identity]) -> Result<Vec<u8>, String> {
    let file = fs::read(path).map_err(|err| err.to_string())?;
    let rings: Vec<&dyn age::Identity> = rings.iter().map(|ring| ring as _).collect();
    open(&file, &rings)
}

fn open(file: &[u8], identities: &[&dyn age::Identity]) -> Result<Vec<u8>, String> {
    let decryptor = Decryptor::new_buffered(file).map_err(|err| err.to_string())?;
    let mut reader = decryptor
        .decrypt(identities.iter().copied())
        .map_err(|err| err.to_string())?;
    let mut plain = Vec::new();
    reader
        .read_to_end(&mut plain)
        .map_err(|err| err.to_string())?;
    Ok(plain)
}

/// Numbers that are the same for the same seed (Steele, Lea, Flood: `SplitMix`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn seed() -> u64 {
    let given = env::var("SIGNET_CRASH_SEED").ok();
    given.map_or(SEED, |text| {
        text.parse().expect("SIGNET_CRASH_SEED is a number")
    })
}

/// The points of one command: a sample, or each of them.
fn points(act: Act, operations: u64, share: usize) -> Vec<Point> {
    let given = env::var("SIGNET_CRASH_POINTS").ok();
    if given.as_deref() == Some("all") {
        return (1..=operations)
            .map(|at| Point { at, all: false })
            .collect();
    }
    let given = given.map(|text| {
        text.parse()
            .expect("SIGNET_CRASH_POINTS is a number, or all")
    });
    let count: usize = given.map_or(share, |all: usize| all * share / POINTS);
    let mut random = Random(seed() ^ act as u64);
    let mut drawn = BTreeSet::new();
    // More than there are cannot be drawn.
    while drawn.len() < count && (drawn.len() as u64) < operations {
        drawn.insert(1 + random.below(operations));
    }
    drawn
        .into_iter()
        .map(|at| Point {
            at,
            all: random.below(2) == 0,
        })
        .collect()
}

/// Counts the operations of a command, then kills it at each of its points.
fn survives(lab: &Lab, act: Act, share: usize) {
    let start = Instant::now();
    let whole = Site::new(lab, act, 0);
    let (code, operations, said) = whole.traced(act, None);
    assert_eq!(code, Some(0), "it fails under the tracer: {said}");
    assert!(
        operations.len() > 10,
        "the tracer saw next to nothing: {operations:?}"
    );
    whole.check(act).expect("without a kill all is well");
    drop(whole);

    let points = points(act, operations.len() as u64, share);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let killed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number = 1 + point.at as usize + 10_000 * usize::from(point.all);
                    let site = Site::new(lab, act, number);
                    let (code, done, said) = site.traced(act, Some(*point));
                    // A run takes an operation less now and then: SQLite's checkpoints and the
                    // threads' order vary.
                    let was_killed = done.len() as u64 >= point.at;
                    killed.fetch_add(usize::from(was_killed), Ordering::Relaxed);
                    if let Err(why) = site.check(act) {
                        let at = done.get(point.at as usize - 1).cloned().unwrap_or_default();
                        let mut failures = failures.lock().expect("no panic holds it");
                        failures.push(format!("{point:?} ({at}; {code:?}: {said}): {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic holds it");
    report(
        act,
        operations.len(),
        points.len(),
        killed.load(Ordering::Relaxed),
        failures.len(),
        start,
    );
    assert!(
        failures.is_empty(),
        "{} of {} points:\n{}",
        failures.len(),
        points.len(),
        failures.join("\n\n")
    );
}

/// A line for the report: command, seed, operations, points, killed, failed, seconds.
fn report(
    act: Act,
    operations: usize,
    points: usize,
    killed: usize,
    failed: usize,
    start: Instant,
) {
    let seconds = start.elapsed().as_secs();
    let line = format!(
        "| {} | {} | {operations} | {points} | {killed} | {failed} | {seconds} |\n",
        act.word(),
        seed()
    );
    let Some(path) = env::var_os("SIGNET_CRASH_REPORT") else {
        return;
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the report can be written");
}

#[test]
fn a_first_push_killed_at_any_file_operation_is_finished_by_the_next_run() {
    let lab = Lab::start();
    survives(&lab, Act::Push, PUBLISHING);
}

#[test]
fn a_first_signature_killed_at_any_file_operation_is_finished_by_the_next_run() {
    let lab = Lab::builder().registry().notary().build();
    survives(&lab, Act::Sign, PUBLISHING);
}

#[test]
fn a_key_killed_while_it_is_made_is_there_or_not_and_the_next_one_is_made() {
    let lab = Lab::builder().registry().build();
    survives(&lab, Act::Generate, POINTS - 2 * PUBLISHING);
}

/// Each run takes a core while it derives keys.
const THREADS: usize = 2;
