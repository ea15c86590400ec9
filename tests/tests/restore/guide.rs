//! `docs/guides/backup.md` works as it is written: its shell blocks, in order, unchanged but for the
//! name of the registry.

use signet_tests::lab::KEYRING_PASSPHRASE;
use signet_tests::lab::command::clean;
use signet_tests::{Cli, Terminal};

use super::*;

/// The backup's own passphrase.
const ARCHIVE: &str = "archive passphrase";

fn guide() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/backup.md");
    fs::read_to_string(file).expect("the guide is there")
}

/// The shell blocks below a heading.
fn blocks(text: &str, heading: &str) -> String {
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let mut blocks = String::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        if line == "```sh" {
            for line in lines.by_ref().take_while(|line| *line != "```") {
                blocks += line;
                blocks.push('\n');
            }
        }
    }
    assert!(!blocks.is_empty(), "nothing to run in {heading}");
    blocks
}

/// Runs blocks in a home; what a person would type comes from a descriptor and files.
fn run(home: &Home, script: &str) -> Output {
    let signet = home.signet();
    let words: Vec<String> = std::iter::once(signet.get_program())
        .chain(signet.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let function = format!(
        "signet() {{ {} --no-input --yes --passphrase-fd archive:3 \"$@\" 3<archive; }}\n",
        words.join(" ")
    );
    write(&home.user_home().join("archive"), ARCHIVE.as_bytes());
    let mut shell = clean("bash");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
        .current_dir(home.user_home())
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["-euc", &format!("{function}{script}")])
        .run()
}

#[test]
fn the_guide_makes_a_backup_that_restores_with_and_without_signet() {
    let lab = Lab::start();
    let guide = guide();
    let old = lab.home();
    old.has_keyrings();
    let images = ["v1", "v2"].map(|tag| lab.import_image(&format!("acme/app:{tag}")));
    signet(&old, "", &["push", "--store", "docker", &images[0]]).ok();
    signet(&old, "", &["key", "generate", "--role", "alice"]).ok();
    let keys = old.keys().len();
    fs::create_dir_all(old.user_home().join(".ssh")).expect("ours");
    let ssh = old.user_home().join(".ssh/id_ed25519");
    clean("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", text(&ssh)])
        .run()
        .ok();
    run(&old, &blocks(&guide, "Make one")).ok();
    run(&old, &blocks(&guide, "Shares")).ok().says("opens");
    let rehearsed = run(&old, &blocks(&guide, "Rehearse it")).ok();
    rehearsed.says(&format!("all {keys} keys of the backup open"));
    old.signet().args(["agent", "stop"]).run().ok();

    let file = old.user_home().join("keys.tar.gz.age");
    let new = lab.home();
    fs::copy(&file, new.user_home().join("keys.tar.gz.age")).expect("both are the lab's");
    run(&new, &blocks(&guide, "Restore it")).ok();
    assert_eq!(new.keys().len(), keys);
    assert!(new.keys().iter().all(|key| key["state"] == "enrolled"));

    // Docker's own tarball, made as its documentation says.
    let third = lab.home();
    let tarball = third.user_home().join("private_keys_backup.tar.gz");
    clean("bash")
        .args([
            "-c",
            "umask 077; tar -zcvf \"$1\" \"$2\"/trust/private",
            "-",
        ])
        .args([&tarball, old.docker_config()])
        .run()
        .ok();
    run(
        &third,
        &blocks(&guide, "What Docker's documentation taught"),
    )
    .ok();
    assert_eq!(third.keys().len(), keys - 1);

    // Without Signet, on a terminal.
    let dir = lab.fresh_dir("w");
    fs::copy(&file, dir.join("keys.tar.gz.age")).expect("both are the lab's");
    fs::create_dir(dir.join("docker")).expect("ours");
    clean("cp")
        .args(["-r", &format!("{}/tls", text(&lab.client_config()))])
        .arg(dir.join("docker"))
        .run()
        .ok();
    let script = blocks(&guide, "Without Signet").replace("registry.example.com", lab.registry());
    let docker = lab.docker_trusted(Cli::Debian13, &dir.join("docker"));
    let mut shell = clean("bash");
    for (name, value) in docker.get_envs() {
        if let Some(value) = value.filter(|_| name != "DOCKER_CONFIG") {
            shell.env(name, value);
        }
    }
    let function = format!(
        "docker() {{ '{}' \"$@\"; }}\n",
        docker.get_program().display()
    );
    shell.current_dir(&dir);
    shell.args(["-euo", "pipefail", "-c", &format!("{function}{script}")]);
    let mut terminal = Terminal::start(shell);
    terminal.answer("(?i)enter passphrase", ARCHIVE);
    terminal.expect("Successfully signed");
    terminal.answer("(?i)enter passphrase", KEYRING_PASSPHRASE);
    terminal.answer("(?i)enter passphrase", KEYRING_PASSPHRASE);
    terminal.exits(0);
    lab.everybody_pulls(&images[1]);
    let recovered = files(&dir.join("recovered"));
    assert_eq!(recovered.len(), 1, "the native key, in clear");
}
