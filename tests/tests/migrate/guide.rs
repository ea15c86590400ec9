//! `docs/guides/new-machine.md` works as it is written: its shell blocks, in order, each on the
//! machine that its heading names.

use std::path::Path;

use signet_tests::lab::command::clean;
use signet_tests::lab::ssh::Ssh;
use signet_tests::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::sections;
use signet_tests::{Home, Lab, Output, Run};

use super::{key_files, state, with_keys};

/// Runs a block in `dir`; what a person would type comes from descriptors and files.
fn run(home: &Home, dir: &Path, ssh: &Ssh, block: &str) -> Output {
    let signet = home.signet();
    let function = format!(
        "signet() {{ '{}' --no-input --yes --passphrase-fd archive:3 \"$@\" 3<<<'of the backup'; }}\n",
        signet.get_program().display()
    );
    let mut shell = clean("bash");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
        .current_dir(dir)
        .env("PATH", format!("{}:/usr/bin:/bin", ssh.bin().display()))
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["-euc", &format!("{function}{block}")])
        .run()
}

fn moved(old: &Home, new: &Home) {
    assert_eq!(
        (state(old).as_str(), state(new).as_str()),
        ("retired", "closed")
    );
    assert_eq!(key_files(old).len(), 0);
    assert_eq!(new.keys().len(), 3);
}

#[test]
fn the_guide_moves_the_keys_by_ssh_and_by_files() {
    let mut lab = Lab::builder().build();
    let (by_ssh, by_files): (Vec<_>, Vec<_>) = sections("new-machine.md")
        .into_iter()
        .partition(|(heading, _)| heading.starts_with("In one command"));
    for sections in [by_ssh, by_files] {
        assert!(!sections.is_empty());
        let (old, new) = (with_keys(&lab), lab.home());
        let ssh = lab.ssh_into(&new);
        let stick = lab.fresh_dir("s");
        for (heading, blocks) in &sections {
            let home = match (
                heading.contains("old machine"),
                heading.contains("new machine"),
            ) {
                (true, false) => &old,
                (false, true) => &new,
                _ => panic!("{heading}: on which machine?"),
            };
            for block in blocks {
                run(home, &stick, &ssh, block).ok();
            }
        }
        moved(&old, &new);
    }
}
