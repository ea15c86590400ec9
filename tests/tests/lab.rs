//! The lab itself: its peers agree with each other, and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use signet_tests::lab::{BASIC_PASSWORD, BASIC_USER};
use signet_tests::{Auth, Cli, Fault, Lab, Run};

#[test]
fn both_docker_clis_sign_on_push_and_pull_only_what_is_signed() {
    let lab = Lab::start();
    for (number, cli) in Cli::all().into_iter().enumerate() {
        let config = lab.client_config();
        let signed = lab.import_image(&format!("acme/app{number}:v1"));
        let unsigned = lab.import_image(&format!("acme/app{number}:unsigned"));
        lab.docker_trusted(cli, &config)
            .args(["push", &signed])
            .run()
            .ok()
            .says(&format!("Successfully signed {signed}"));
        lab.docker(cli, &config)
            .args(["push", &unsigned])
            .run()
            .ok();
        for image in [&signed, &unsigned] {
            lab.forget_image(image);
        }

        for other in Cli::all() {
            let config = lab.client_config();
            let pull = |image: &str| {
                lab.docker_trusted(other, &config)
                    .args(["pull", image])
                    .run()
            };
            pull(&signed).ok().says("Tagging");
            pull(&unsigned)
                .exits(1)
                .says("No valid trust data for unsigned");
            lab.forget_image(&signed);
        }
    }
}

#[test]
fn notary_and_docker_name_the_same_digest() {
    let lab = Lab::start();
    let config = lab.client_config();
    let image = lab.import_image("acme/app:v1");
    let gun = lab.image("acme/app");
    lab.docker_trusted(Cli::Debian12, &config)
        .args(["push", &image])
        .run()
        .ok();

    let list = lab
        .notary(&lab.fresh_dir("n"))
        .args(["list", &gun])
        .run()
        .ok();
    let inspect = lab
        .docker(Cli::Debian13, &config)
        .args(["trust", "inspect", &gun])
        .run()
        .ok();

    let tag = &inspect.json()[0]["SignedTags"][0];
    assert_eq!(tag["SignedTag"], "v1");
    let digest = tag["Digest"].as_str().expect("a digest");
    assert!(
        list.stdout.contains(digest),
        "{} does not list {digest}",
        list.stdout
    );
}

#[test]
fn the_second_trust_server_signs_with_ed25519() {
    let lab = Lab::builder().local_notary().build();
    let gun = "reg.example/acme/app";
    let trust = lab.fresh_dir("n");
    let notary = || lab.notary_at(lab.local_trust_server(), &trust);
    notary().args(["init", "--publish", gun]).run().ok();
    notary()
        .args(["key", "rotate", gun, "snapshot", "--server-managed"])
        .run()
        .ok();
    let root = fs::read(trust.join("tuf").join(gun).join("metadata/root.json")).expect("cached");
    let root: Value = serde_json::from_slice(&root).expect("JSON");
    let timestamp = root["signed"]["roles"]["timestamp"]["keyids"][0]
        .as_str()
        .expect("an ID");
    assert_eq!(root["signed"]["keys"][timestamp]["keytype"], "ed25519");
}

#[test]
fn a_registry_with_basic_authentication_wants_the_password() {
    let lab = Lab::builder().engine().registry_with_basic_auth().build();
    let config = lab.client_config();
    let image = lab.import_image("acme/app:v1");
    let push = || {
        lab.docker(Cli::Debian12, &config)
            .args(["push", &image])
            .run()
    };
    push().exits(1).says("no basic auth credentials");
    log_in(&lab, &config, lab.registry());
    push().ok();
}

#[test]
fn a_push_passes_a_proxy_that_asks_for_tokens() {
    let lab = Lab::start();
    let (registry, trust) = (lab.proxy(lab.registry()), lab.proxy(lab.trust_server()));
    for proxy in [&registry, &trust] {
        proxy.ask_for(Auth::Bearer {
            user: BASIC_USER.into(),
            password: BASIC_PASSWORD.into(),
            refresh_token: None,
            anonymous_pull: true,
        });
    }
    let config = lab.client_config();
    lab.trust_host(&config, trust.host());
    let image = format!("{}/acme/app:v1", registry.host());
    lab.import_image_as(&image);
    let docker = |args: &[&str]| {
        let mut docker = lab.docker_trusted(Cli::Debian13, &config);
        docker
            .env("DOCKER_CONTENT_TRUST_SERVER", trust.url())
            .args(args)
            .run()
    };
    log_in(&lab, &config, registry.host());
    docker(&["push", &image]).ok().says("Successfully signed");
    docker(&["pull", &image]).ok();

    let tokens = trust
        .requests()
        .into_iter()
        .filter(|seen| seen.path == "/lab/token");
    let queries: Vec<String> = tokens.map(|seen| seen.query).collect();
    let scope = format!("acme%2Fapp%3A{}", "push%2Cpull");
    assert!(
        queries.iter().any(|query| query.contains(&scope)),
        "{queries:?}"
    );
}

#[test]
fn a_proxy_misbehaves_as_told_and_no_longer() {
    let lab = Lab::start();
    let proxy = lab.proxy(lab.trust_server());
    let config = lab.client_config();
    lab.trust_host(&config, proxy.host());
    let image = lab.import_image("acme/app:v1");
    lab.docker_trusted(Cli::Debian12, &config)
        .args(["push", &image])
        .run()
        .ok();
    let gun = lab.image("acme/app");
    let list = || {
        lab.notary_at(&proxy.url(), &lab.fresh_dir("n"))
            .args(["list", &gun])
            .run()
    };
    list().ok();

    // The Go client asks for the timestamp twice, and is content with the second answer.
    proxy.on_next(1, "*/timestamp.json", Fault::Status(500, "{}"));
    list().ok();
    for fault in [
        Fault::Drop,
        Fault::Cut(50),
        Fault::Corrupt(50),
        Fault::Html,
        Fault::Endless,
    ] {
        proxy.on("*/timestamp.json", fault.clone());
        let output = list();
        assert_ne!(output.code(), Some(0), "{fault:?}: {}", output.text());
        proxy.behave();
    }
    list().ok();
    assert!(
        proxy.count("GET */timestamp.json") >= 8,
        "{:?}",
        proxy.requests()
    );
}

#[test]
fn a_proxy_plays_back_an_older_state_of_the_server() {
    let lab = Lab::start();
    let proxy = lab.proxy(lab.trust_server());
    let config = lab.client_config();
    let gun = lab.image("acme/app");
    let trust = lab.fresh_dir("n");
    let list = |trust: &Path| {
        lab.notary_at(&proxy.url(), trust)
            .args(["list", &gun])
            .run()
    };
    let push = |tag: &str| {
        let image = lab.import_image(&format!("acme/app:{tag}"));
        lab.docker_trusted(Cli::Debian12, &config)
            .args(["push", &image])
            .run()
            .ok();
    };
    push("v1");
    list(&trust).ok();
    let old = proxy.tape();
    push("v2");
    list(&trust).ok().says("v2");

    proxy.on("*", Fault::Old(old));
    let fresh = list(&lab.fresh_dir("n")).ok();
    assert!(
        !fresh.stdout.contains("v2"),
        "a newcomer cannot know: {}",
        fresh.stdout
    );
    list(&trust)
        .exits(1)
        .says("version 1 is lower than current version 2");
}

#[test]
fn nothing_is_left_when_a_lab_is_dropped() {
    let lab = Lab::start();
    let (dir, pids) = (lab.dir().to_path_buf(), with_children(&lab.pids()));
    assert!(pids.len() > 4, "four peers and containerd: {pids:?}");
    drop(lab);
    assert_eq!(alive(&pids), BTreeSet::new());
    assert!(!dir.exists(), "{} is still there", dir.display());
}

#[test]
fn nothing_is_left_when_the_test_is_killed() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut up = Command::new(env!("CARGO_BIN_EXE_signet-lab"))
        .args(["up", "--exports"])
        .arg(file.path())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("the lab starts");
    let exports = || fs::read_to_string(file.path()).unwrap_or_default();
    wait("the lab is up", || exports().contains("LAB_DOCKER_13"));
    let exports = exports();
    let dir = exports
        .lines()
        .find_map(|line| line.strip_prefix("export LAB_DIR='"));
    let dir = dir
        .and_then(|dir| dir.strip_suffix('\''))
        .expect("the lab's directory")
        .to_owned();
    let pids = with_children(&[up.id()]);
    assert!(
        pids.len() > 7,
        "five peers, containerd and the keeper: {pids:?}"
    );

    up.kill().expect("SIGKILL");
    up.wait().expect("it is our child");
    wait("everything is gone", || {
        alive(&pids).is_empty() && !Path::new(&dir).exists()
    });
}

fn log_in(lab: &Lab, config: &Path, host: &str) {
    let args = ["login", "-u", BASIC_USER, "-p", BASIC_PASSWORD, host];
    lab.docker(Cli::Debian12, config).args(args).run().ok();
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "not so after a minute: {what}");
        std::thread::yield_now();
    }
}

/// These processes and all that they have started, with their start times.
fn with_children(pids: &[u32]) -> BTreeSet<(u32, u64)> {
    let mut found: BTreeSet<u32> = pids.iter().copied().collect();
    loop {
        let more: Vec<u32> = fs::read_dir("/proc")
            .expect("/proc is mounted")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| !found.contains(pid))
            .filter(|pid| stat(*pid).is_some_and(|(parent, _)| found.contains(&parent)))
            .collect();
        if more.is_empty() {
            return found
                .into_iter()
                .filter_map(|pid| Some((pid, stat(pid)?.1)))
                .collect();
        }
        found.extend(more);
    }
}

fn alive(pids: &BTreeSet<(u32, u64)>) -> BTreeSet<(u32, u64)> {
    let same = |(pid, start): &&(u32, u64)| stat(*pid).is_some_and(|(_, now)| now == *start);
    pids.iter().filter(same).copied().collect()
}

/// A process's parent and start time, unless it is a zombie: fields 3, 4 and 22 of
/// `/proc/PID/stat` (proc(5)).
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (fields.first() != Some(&"Z")).then_some(())?;
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}
