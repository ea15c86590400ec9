//! The README's tour works as it is written: its shell blocks, in order, unchanged but for the
//! names of the hosts.

use std::fs;
use std::path::Path;

use signet_tests::lab::command::clean;
use signet_tests::{Cli, Lab, Run};

fn readme() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(file).expect("the README is there")
}

/// The content of every block that is fenced as `sh`.
fn shell_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "```sh" {
            let block = lines.by_ref().take_while(|line| *line != "```");
            blocks.push(block.map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

#[test]
fn the_tour_ends_with_docker_pulling_what_was_signed_on_push() {
    let lab = Lab::start();
    let home = lab.home();
    let script: String = shell_blocks(&readme()).concat();
    assert!(
        script.contains("signet --no-input push"),
        "no push in the tour:\n{script}"
    );
    let notary = lab.trust_server().trim_start_matches("https://");
    let script = script
        .replace("registry.example.com", lab.registry())
        .replace("notary.example.com", notary);
    assert!(!script.contains("example.com"), "another host:\n{script}");

    let signet = home.signet();
    let bin = Path::new(signet.get_program())
        .parent()
        .expect("a directory");
    let mut shell = clean("sh");
    for (name, value) in signet.get_envs() {
        // The tour says itself where the trust server is.
        if let Some(value) = value.filter(|_| name != "DOCKER_CONTENT_TRUST_SERVER") {
            shell.env(name, value);
        }
    }
    // Debian's own docker, whatever else is installed.
    shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    shell.current_dir(home.user_home());
    let output = shell.args(["-eux", "-c", &script]).run().ok();

    let image = lab.image("acme/app:1.0");
    let digest = lab.registry_digest(&image).expect("it was pushed");
    let pulled = output.stdout.rsplit_once("Pull (1 of 1)");
    let (before, pull) = pulled.expect("docker pulls with content trust");
    assert!(pull.contains(&digest), "{pull}");
    assert!(
        before.contains(&digest),
        "nothing but docker names {digest}:\n{before}"
    );
    for cli in Cli::all() {
        lab.pull_as_newcomer(cli, &image).ok();
    }
    // The passphrase is nobody else's to read, and was not printed.
    let passphrase = fs::read_to_string(home.user_home().join("signet-passphrase"))
        .expect("the tour has written it");
    assert!(
        !output.text().contains(passphrase.trim()),
        "the passphrase was printed"
    );
}

#[test]
fn what_the_readme_links_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = readme();
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let mut count = 0;
    for link in links.filter(|link| !link.starts_with("https://")) {
        let target = root.join(link);
        assert!(target.exists(), "{link} is not there");
        count += 1;
    }
    assert!(count > 3, "only {count} links were looked at");
}
