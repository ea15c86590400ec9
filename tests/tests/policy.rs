//! The policy of `agent.toml`: what it refuses, what it asks for, and that it says which rule it was.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use signet_tests::steps::{DIGEST, SIZE, write_script};
use signet_tests::{Home, Lab, Output, Run};

const GUN: &str = "registry.example.com/acme/app";

fn sign(home: &Home, tag: &str) -> Command {
    let mut command = home.unattended();
    command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
    command.args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE]);
    command
}

fn write(home: &Home, policy: &str) {
    let dir = home.user_home().join(".config/signet");
    fs::create_dir_all(&dir).expect("the home is ours");
    fs::write(dir.join("agent.toml"), policy).expect("the home is ours");
}

fn explain(home: &Home, more: &[&str]) -> Output {
    let mut command = home.signet();
    command.args(["policy", "explain", "--gun", GUN]).args(more);
    command.run()
}

/// Tells the agent to read its policy anew, and waits until `explain` shows it.
fn reload(home: &Home, word: &str) {
    let pid = home.agent_pid().expect("an agent runs");
    kill_process(pid, Signal::HUP).expect("it is there");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !explain(home, &[]).ok().stdout.contains(word) {
        assert!(Instant::now() < deadline, "not reloaded: {word}");
    }
}

#[test]
fn a_rule_refuses_before_anything_is_asked_and_the_log_names_it() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    write(
        &home,
        "[[policy]]\nname = \"frozen\"\nguns = [\"*/acme/*\"]\nroles = [\"targets\"]\n\
         do = \"deny\"\n",
    );
    sign(&home, "v1")
        .run()
        .exits(4)
        .says("refused by policy")
        .says("frozen");
    assert!(home.keys().is_empty(), "no key was made for it");
    home.signet()
        .args(["log", "show"])
        .run()
        .ok()
        .says("rule policy: frozen");
    explain(&home, &[])
        .ok()
        .says("deny: the rule \"frozen\" denies it");
    explain(&home, &["--role", "snapshot"])
        .ok()
        .says("allow: no rule is about it");

    // Another policy, without another agent.
    write(&home, "");
    reload(&home, "no rule is about it");
    sign(&home, "v1").run().ok();
    // One with a mistake changes nothing.
    write(
        &home,
        "[[policy]]\nname = \"x\"\ndo = \"allow\"\nper_week = 3\n",
    );
    let pid = home.agent_pid().expect("an agent runs");
    kill_process(pid, Signal::HUP).expect("it is there");
    sign(&home, "v2").run().ok();
    home.signet().args(["agent", "stop"]).run().ok();
    sign(&home, "v3")
        .run()
        .exits(6)
        .says("per_week")
        .says("agent.toml");
}

#[test]
fn a_rule_that_asks_is_not_content_with_what_is_held() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, "v1").run().ok();
    home.unattended().arg("unlock").run().ok();
    let mut held = sign(&home, "v2");
    held.env_remove("SIGNET_PASSPHRASE_FILE");
    held.run().ok();
    write(
        &home,
        "[[policy]]\nname = \"releases\"\nroles = [\"targets\"]\ndo = \"ask\"\n",
    );
    reload(&home, "releases");
    let mut held = sign(&home, "v3");
    held.env_remove("SIGNET_PASSPHRASE_FILE");
    held.run().exits(5);
    sign(&home, "v3").run().ok();
    let log = home.log();
    let entry = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .find(|entry| entry["kind"] == "sign")
        .unwrap();
    assert_eq!(entry["grade"], 3, "{entry}");
    assert_eq!(entry["facts"]["consent"]["policy"][0], "releases");
}

#[test]
fn a_rule_counts_signatures_and_bounds_expiries() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    write(
        &home,
        "[[policy]]\nname = \"two a day\"\nroles = [\"targets\"]\ndo = \"allow\"\nper_day = 2\n",
    );
    sign(&home, "v1").run().ok();
    sign(&home, "v2").run().ok();
    sign(&home, "v3")
        .run()
        .exits(4)
        .says("2 signatures within 24 hours");
    write(
        &home,
        "[[policy]]\nname = \"short\"\nroles = [\"targets\"]\ndo = \"allow\"\nmax_expiry = \"30d\"\n",
    );
    reload(&home, "short");
    sign(&home, "v3").run().exits(4).says("allows 30");
}

/// The block of this language in the guide.
fn block(guide: &str, language: &str) -> String {
    let start = guide.find(&format!("```{language}\n")).expect("a block");
    let text = &guide[start..];
    let text = &text[text.find('\n').expect("a line") + 1..];
    text[..text.find("\n```").expect("its end") + 1].to_owned()
}

#[test]
fn the_guides_checker_decides_what_is_signed_and_an_override_is_logged() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let guide = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/guides/scan-before-sign.md"
    );
    let guide = fs::read_to_string(guide).expect("the home is ours");
    let program = home.user_home().join("check-sbom");
    let sboms = home.user_home().join("sboms");
    fs::create_dir(&sboms).expect("the home is ours");
    write_script(&program, &block(&guide, "python"));
    let rule = block(&guide, "toml")
        .replace("/usr/local/bin/check-sbom", program.to_str().unwrap())
        .replace("/srv/sboms", sboms.to_str().unwrap());
    write(&home, &rule);
    fs::write(sboms.join("denied"), "openssl@1.0.2\n").expect("the home is ours");

    sign(&home, "v1")
        .run()
        .exits(4)
        .says("no bill of materials")
        .says("--allow check");
    let sbom = |version: &str| {
        let text =
            format!("{{\"packages\":[{{\"name\":\"openssl\",\"versionInfo\":\"{version}\"}}]}}");
        let name = format!("{}.spdx.json", DIGEST.trim_start_matches("sha256:"));
        fs::write(sboms.join(name), text).expect("the home is ours");
    };
    sbom("1.0.2");
    sign(&home, "v1").run().exits(4).says("has openssl@1.0.2");
    sbom("3.0.15");
    sign(&home, "v1").run().ok();
    sbom("1.0.2");
    let mut anyway = sign(&home, "v2");
    anyway.args(["--allow", "check"]);
    anyway.run().ok();
    let shown = home.signet().args(["log", "show"]).run().ok();
    for words in [
        "1 packages, none denied",
        "rule check",
        "check-sbom: refuses it",
        "[released]",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }

    // One that does not run refuses.
    fs::remove_file(&program).expect("the home is ours");
    sign(&home, "v3").run().exits(4).says("cannot be run");
}

#[test]
fn a_check_that_takes_long_keeps_nobody_waiting_and_ends_with_its_caller() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let program = home.user_home().join("check");
    let begun = home.user_home().join("begun");
    fs::create_dir(&begun).expect("the home is ours");
    let script = "#!/bin/sh\ncase $(cat) in *'\"tag\":\"slow\"'*) ;; *) exit 0 ;; esac\n\
                  : > \"$1/$$\"\nexec sleep 1000\n";
    write_script(&program, script);
    write(
        &home,
        &format!(
            "[[policy]]\nname = \"scanned\"\nroles = [\"targets\"]\ndo = \"allow\"\ncheck = [{:?}, {:?}]\n",
            program.to_str().unwrap(),
            begun.to_str().unwrap()
        ),
    );
    sign(&home, "v1").run().ok();
    // As many as the agent has threads for what blocks, and one more.
    let slow = |number: u32| {
        let mut command = home.unattended();
        command.env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file());
        let image = format!("{GUN}{number}:slow@{DIGEST}");
        command.args(["sign", &image, "--size", SIZE]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut callers: Vec<_> = (0..3).map(slow).collect();
    let running = || {
        let names = fs::read_dir(&begun).expect("the home is ours");
        let pids = names.map(|entry| entry.expect("it is there").file_name());
        pids.filter(|pid| Path::new("/proc").join(pid).exists())
            .count()
    };
    until("the checks run", || running() == 3);
    sign(&home, "v2").run().ok();
    assert_eq!(running(), 3);
    for caller in &mut callers {
        caller.kill().expect("it runs");
        caller.wait().expect("it was killed");
    }
    until("the checks are gone", || running() == 0);
    sign(&home, "v3").run().ok();
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}
