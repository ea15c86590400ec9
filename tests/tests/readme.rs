//! The README's tour works as it is written: its shell blocks, in order, unchanged but for the
//! names of the hosts.

use std::fs;
use std::path::{Path, PathBuf};

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and every page of `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    for dir in ["docs", "docs/guides", "docs/decisions"] {
        let entries = fs::read_dir(root().join(dir)).expect("it is there");
        let files = entries.map(|entry| entry.expect("it can be read").path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    pages
}

#[test]
fn what_the_pages_link_to_is_there() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("it can be read");
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
            .filter(|link| !link.is_empty() && !link.starts_with("https://"));
        for link in links {
            let target = page.parent().expect("a directory").join(link);
            assert!(target.exists(), "{}: {link} is not there", page.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were looked at");
}

#[test]
fn each_attacker_of_the_threat_model_has_a_test_that_is_there() {
    let page = fs::read_to_string(root().join("docs/THREAT-MODEL.md")).expect("it is there");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.matches('|').count() == 5)
        .skip(1)
        .collect();
    assert!(rows.len() > 10, "{rows:#?}");
    for row in rows {
        let shown = row.split('|').nth(4).expect("four columns");
        let names = shown.split('`').skip(1).step_by(2);
        let mut named = 0;
        for name in names.filter(|name| name.contains('/')) {
            assert!(root().join(name).exists(), "{name} is not there: {row}");
            named += 1;
        }
        assert!(named > 0, "no test: {row}");
    }
}
