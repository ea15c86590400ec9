//! The guard as a user meets it: the rows that speak of a server, with the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use signet_tests::lab::{KEYRING_PASSPHRASE, REPOSITORY_PASSPHRASE};
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Fault, Home, Lab, Output, Proxy, Run};

const GUN: &str = "registry.example.com/acme/app";

/// Signs a tag, unattended, with both passphrases, through this server.
fn sign(home: &Home, server: &str, tag: &str, more: &[&str]) -> Output {
    home.unattended()
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_SERVER", server)
        .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE])
        .args(more)
        .run()
}

/// The error that `--json` prints.
#[track_caller]
fn error(output: &Output) -> Value {
    let line = output.stderr.lines().rfind(|line| line.starts_with('{'));
    let line = line.unwrap_or_else(|| panic!("no JSON error: {}", output.text()));
    let error: Value = serde_json::from_str(line).expect("it is JSON");
    error["error"].clone()
}

/// Refused with exit 4, the rule and its override named.
#[track_caller]
fn refused(output: Output, rule: &str) {
    let output = output.exits(4).says(&format!("--allow {rule}"));
    let error = error(&output);
    assert_eq!(error["exit"], 4, "{error}");
    assert_eq!(error["code"], format!("guard.{rule}"), "{error}");
    assert!(
        error["message"].as_str().is_some_and(|m| m.contains(GUN)),
        "{error}"
    );
}

/// Entries of signatures.
fn signatures(home: &Home) -> Vec<Value> {
    let mut entries = home.log()["entries"].as_array().expect("entries").clone();
    entries.retain(|entry| entry["kind"] == "sign");
    entries
}

#[track_caller]
fn logged_with(home: &Home, rule: &str) {
    let entries = signatures(home);
    let found = entries.iter().rfind(|entry| entry["rule"] == rule);
    let entry = found.unwrap_or_else(|| panic!("no signature under {rule}: {entries:#?}"));
    assert!(entry["grade"].as_u64() >= Some(3), "{entry}");
}

fn tags(lab: &Lab, server: &str) -> Vec<String> {
    let list = lab.notary_list(server, GUN);
    list.into_iter().map(|[tag, ..]| tag).collect()
}

/// A proxy before the server with ECDSA keys, which this home trusts.
fn proxied(lab: &Lab, home: &Home, upstream: &str) -> Proxy {
    let proxy = lab.proxy(upstream);
    lab.trust_host(home.docker_config(), proxy.host());
    proxy
}

/// How many requests asked past every cache on the way.
fn uncached(proxy: &Proxy) -> usize {
    let requests = proxy.requests();
    let past = |seen: &&signet_tests::lab::proxy::Seen| {
        seen.header("cache-control")
            .is_some_and(|value| value.contains("no-cache"))
    };
    requests.iter().filter(past).count()
}

fn with_the_key_of(lab: &Lab, first: &Home) -> Home {
    let second = lab.home();
    let file = first.user_home().join("targets.pem");
    first
        .with_descriptors(&[(3, KEYRING_PASSPHRASE), (4, REPOSITORY_PASSPHRASE)])
        .args(["key", "export", "--format", "docker", "--output"])
        .arg(&file)
        .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
        .arg(format!("targets@{GUN}"))
        .run()
        .ok();
    import(&second, &file);
    second
}

fn import(home: &Home, file: &std::path::Path) {
    home.unattended()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["key", "import"])
        .arg(file)
        .run()
        .ok();
}

#[test]
fn a_server_that_lost_everything_is_not_filled_again_unasked() {
    let lab = Lab::builder().notary().local_notary().build();
    let home = lab.home();
    sign(&home, lab.trust_server(), "v1", &[]).ok();
    let before = signatures(&home).len();

    // Restarted with nothing in its memory: a second server that has never heard of anything.
    let lost = proxied(&lab, &home, lab.local_trust_server());
    let output = sign(&home, &lost.url(), "v2", &["--json"]);
    refused(output, "restart");
    assert!(uncached(&lost) > 0, "it asks once more, past the caches");
    assert_eq!(lost.count("POST *"), 0, "nothing was sent");
    assert_eq!(home.keys().len(), 2, "no key was made");
    assert_eq!(signatures(&home).len(), before, "nothing was signed");

    sign(&home, &lost.url(), "v2", &["--allow", "restart"]).ok();
    logged_with(&home, "restart");
    assert_eq!(tags(&lab, lab.local_trust_server()), ["v2"]);
}

#[test]
fn an_explicit_init_starts_again_once_its_root_passphrase_is_given() {
    let lab = Lab::builder().notary().local_notary().build();
    let home = lab.home();
    sign(&home, lab.trust_server(), "v1", &[]).ok();
    let init = |root_passphrase: bool| {
        let mut command = home.unattended();
        if root_passphrase {
            command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
        }
        lab.trust_host(
            home.docker_config(),
            lab.local_trust_server().trim_start_matches("https://"),
        );
        command
            .env("DOCKER_CONTENT_TRUST_SERVER", lab.local_trust_server())
            .args(["repo", "init", GUN])
            .run()
    };
    init(false).exits(5);
    init(true).ok();
    logged_with(&home, "restart");
}

#[test]
fn a_first_root_that_never_arrived_is_published_again_unchanged() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let proxy = proxied(&lab, &home, lab.trust_server());
    proxy.on_next(1, "POST *", Fault::Status(500, "{}"));
    sign(&home, &proxy.url(), "v1", &[]).exits(1);
    let keys = || {
        let keys = home.keys().into_iter();
        keys.map(|key| (key["id"].clone(), key["other_ids"].clone()))
            .collect::<Vec<_>>()
    };
    let before = keys();
    sign(&home, &proxy.url(), "v1", &[]).ok();
    assert_eq!(keys(), before, "no key and no certificate was made twice");

    let posts: Vec<Vec<u8>> = proxy
        .requests()
        .into_iter()
        .filter(|seen| seen.method == "POST")
        .map(|seen| seen.body)
        .collect();
    let roots: Vec<&[u8]> = posts.iter().filter_map(|body| root_in(body)).collect();
    assert!(roots.len() >= 2, "{} uploads with a root", roots.len());
    assert!(
        roots.windows(2).all(|pair| pair[0] == pair[1]),
        "another root the second time"
    );
    assert_eq!(tags(&lab, lab.trust_server()), ["v1"]);
}

/// The wire bytes of the root in a multipart upload.
fn root_in(body: &[u8]) -> Option<&[u8]> {
    let start = find(body, br#"{"signed":{"_type":"Root""#)?;
    let end = find(&body[start..], b"\r\n--")?;
    Some(&body[start..start + end])
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|window| window == words)
}

#[test]
fn the_same_name_on_another_server_is_another_lineage() {
    let lab = Lab::builder().notary().local_notary().build();
    let home = lab.home();
    sign(&home, lab.trust_server(), "v1", &[]).ok();
    // Somebody else has made the collection on the second server.
    let other = lab.home();
    sign(&other, lab.local_trust_server(), "theirs", &[]).ok();

    // Docker's cache holds one root a name: with the same DOCKER_CONFIG nothing is asked at all.
    sign(&home, lab.local_trust_server(), "v2", &[])
        .exits(3)
        .says(GUN);
    let fresh = lab.client_config();
    let elsewhere = |more: &[&str]| {
        home.unattended()
            .env("DOCKER_CONFIG", &fresh)
            .env("DOCKER_CONTENT_TRUST_SERVER", lab.local_trust_server())
            .args(["sign", &format!("{GUN}:v2@{DIGEST}"), "--size", SIZE])
            .args(more)
            .run()
    };
    let file = other.user_home().join("targets.pem");
    let theirs = with_the_key_of(&lab, &other);
    import(&home, &file);
    drop(theirs);
    refused(elsewhere(&["--json"]), "lineage");
    elsewhere(&["--allow", "lineage"]).ok();
    logged_with(&home, "lineage");
    assert_eq!(tags(&lab, lab.local_trust_server()), ["theirs", "v2"]);
    // From then on both are known.
    sign(&home, lab.trust_server(), "v2", &[]).ok();
}

#[test]
fn a_server_put_back_is_refetched_and_then_given_up_naming_the_override() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let proxy = proxied(&lab, &home, lab.trust_server());
    sign(&home, &proxy.url(), "v1", &[]).ok();
    // Answers of this moment.
    home.signet()
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
    let old = proxy.tape();
    sign(&home, &proxy.url(), "v2", &[]).ok();
    // The agent sees the server's newest.
    sign(&home, &proxy.url(), "v3", &[]).ok();

    proxy.on("GET *", Fault::Old(old));
    proxy.forget_requests();
    let before = signatures(&home).len();
    // A cache that remembers would stop it before the agent is asked.
    let fresh = lab.client_config();
    lab.trust_host(&fresh, proxy.host());
    let again = |tag: &str, more: &[&str]| {
        home.unattended()
            .env("DOCKER_CONFIG", &fresh)
            .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
            .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE])
            .args(more)
            .run()
    };
    again("v4", &[]).exits(1).says("--allow rollback");
    assert!(uncached(&proxy) > 0, "it asks again, past the caches");
    assert_eq!(proxy.count("POST *"), 0, "nothing was sent");
    assert_eq!(signatures(&home).len(), before, "nothing was signed");

    // The server would take it: it really went back.
    proxy.on("POST *", Fault::Body(b"{}".to_vec()));
    again("v4", &["--allow", "rollback"]).ok();
    logged_with(&home, "rollback");
}

#[test]
fn what_only_a_backup_claims_is_said_and_an_override_sets_it_to_the_server_s() {
    let lab = Lab::builder().notary().build();
    let old = lab.home();
    let proxy = proxied(&lab, &old, lab.trust_server());
    sign(&old, &proxy.url(), "v1", &[]).ok();
    // Answers of this moment.
    old.signet()
        .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
    let tape = proxy.tape();
    sign(&old, &proxy.url(), "v2", &[]).ok();
    sign(&old, &proxy.url(), "v3", &[]).ok();
    let with_archive = |home: &Home, args: &[&str]| {
        home.with_descriptors(&[(3, "of the archive")])
            .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
            .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
            .args(["--yes", "--passphrase-fd", "archive:3"])
            .args(args)
            .run()
            .ok()
    };
    let file = lab.fresh_dir("b").join("keys.age");
    let file = file.to_str().expect("the lab's paths are text");
    with_archive(&old, &["backup", "create", "-o", file]);

    // Another host, and a server that has only what came first: nobody but the archive says more.
    let new = lab.home();
    lab.trust_host(new.docker_config(), proxy.host());
    with_archive(&new, &["restore", file]).says("as the backup claims");
    proxy.on("GET *", Fault::Old(tape));
    let again = |more: &[&str]| {
        new.unattended()
            .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
            .args(["sign", &format!("{GUN}:v4@{DIGEST}"), "--size", SIZE])
            .args(more)
            .run()
    };
    again(&[])
        .exits(1)
        .says(&format!("is known from the backup {file} alone"))
        .says("--allow rollback");
    proxy.on("POST *", Fault::Body(b"{}".to_vec()));
    again(&["--allow", "rollback"]).ok();
    logged_with(&new, "rollback");
}

#[test]
fn an_upload_that_failed_is_superseded_and_the_log_says_by_what() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let proxy = proxied(&lab, &home, lab.trust_server());
    sign(&home, &proxy.url(), "v1", &[]).ok();
    proxy.on_next(1, "POST *", Fault::Drop);
    sign(&home, &proxy.url(), "lost", &[]).exits(1);
    let lost = signatures(&home).pop().expect("it was signed");
    sign(&home, &proxy.url(), "v2", &[]).ok();

    let entry = signatures(&home).pop().expect("it was signed");
    assert_eq!(entry["version"], lost["version"], "the same version again");
    let words = entry["summary"].to_string();
    assert!(words.contains("replaces"), "{entry:#}");
    let hash = lost["payload"].as_str().expect("a hash");
    let hash = hash.trim_start_matches("sha256:");
    assert!(words.contains(&hash[..8]), "{words} does not name {hash}");
    assert_eq!(tags(&lab, lab.trust_server()), ["v1", "v2"]);
}

#[test]
fn an_answer_that_was_lost_costs_no_version() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let proxy = proxied(&lab, &home, lab.trust_server());
    sign(&home, &proxy.url(), "v1", &[]).ok();
    proxy.on_next(1, "POST *", Fault::LoseAnswer);
    sign(&home, &proxy.url(), "v2", &[]).exits(1);
    sign(&home, &proxy.url(), "v3", &[]).ok();
    assert_eq!(tags(&lab, lab.trust_server()), ["v1", "v2", "v3"]);
}

#[test]
fn a_lost_race_is_run_again_and_given_up_after_some_tries() {
    let lab = Arc::new(Lab::builder().notary().build());
    let home = lab.home();
    sign(&home, lab.trust_server(), "v1", &[]).ok();
    let rival = Arc::new(with_the_key_of(&lab, &home));
    home.unlocks();
    rival.unlocks();
    let proxy = proxied(&lab, &home, lab.trust_server());
    let rounds = Arc::new(AtomicU32::new(0));
    let overtaken = {
        let (lab, rival, rounds) = (Arc::clone(&lab), Arc::clone(&rival), Arc::clone(&rounds));
        Fault::Call(Arc::new(move |_: &_| {
            let round = rounds.fetch_add(1, Ordering::SeqCst);
            sign(&rival, lab.trust_server(), &format!("rival{round}"), &[]).ok();
        }))
    };
    proxy.on_next(2, "POST *", overtaken.clone());
    sign(&home, &proxy.url(), "v2", &[]).ok();
    assert_eq!(rounds.load(Ordering::SeqCst), 2, "it lost twice");
    assert_eq!(
        tags(&lab, lab.trust_server()),
        ["rival0", "rival1", "v1", "v2"]
    );

    // Somebody is always faster.
    proxy.on("POST *", overtaken);
    sign(&home, &proxy.url(), "v3", &[]).exits(1).says(GUN);
    let tries = rounds.load(Ordering::SeqCst) - 2;
    assert!((2..=20).contains(&tries), "{tries} tries");
    assert!(!tags(&lab, lab.trust_server()).contains(&"v3".to_owned()));
    proxy.behave();
    sign(&home, &proxy.url(), "v3", &[]).ok();
}
