//! `docs/guides/remote-signing.md` works as it is written, over a real ssh connection.

use std::path::{Path, PathBuf};
use std::process::Command;

use signet_tests::lab::command::clean;
use signet_tests::lab::ssh::Ssh;
use signet_tests::raw::Raw;
use signet_tests::steps::sections;
use signet_tests::{Cli, Home, Lab, Run, Terminal};

/// The workstation as its owner has it: everything where the defaults say.
fn here(home: &Home, ssh: &Ssh) -> Command {
    let signet = home.signet();
    let mut shell = clean("bash");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value.filter(|_| name != "SIGNET_HOME") {
            shell.env(name, value);
        }
    }
    let bin = Path::new(signet.get_program())
        .parent()
        .expect("a directory");
    shell
        .current_dir(home.user_home())
        .env("XDG_DATA_HOME", home.user_home())
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env(
            "PATH",
            format!("{}:{}:/usr/bin:/bin", ssh.bin().display(), bin.display()),
        );
    shell
}

fn agent_socket(home: &Home) -> PathBuf {
    home.user_home().join("run/signet/agent.sock")
}

#[test]
fn the_guide_signs_here_what_is_pushed_there_and_nobody_there_is_asked() {
    let mut lab = Lab::start();
    let (workstation, build) = (lab.home(), lab.home());
    let first = lab.import_image("acme/app:1.0");
    workstation.unattended().args(["push", &first]).run().ok();
    let second = lab.import_image("acme/app:2.0");
    let (repository, _) = second.rsplit_once(':').expect("it has a tag");
    let ssh = lab.ssh_into(&build);
    workstation.signet().args(["agent", "stop"]).run().ok();

    let guide = sections("remote-signing.md");
    let blocks = |heading: &str| {
        let section = guide.iter().find(|(found, _)| found == heading);
        section.expect(heading).1.join("\n")
    };
    let run_here = |block: &str| {
        let block = block.replace(" build", " newhost");
        here(&workstation, &ssh)
            .env("REPOSITORY", repository)
            .args(["-euc", &block])
            .run()
            .ok()
    };
    let there = |block: &str| {
        let mut shell = here(&workstation, &ssh);
        let block = format!("REPOSITORY='{repository}'; {block}");
        // A terminal there: it could be asked on, and is not.
        shell.args(["-euc", "exec ssh -tt newhost \"$0\"", &block]);
        Terminal::start(shell)
    };
    run_here(&blocks("On the workstation, once"));
    there(&blocks("On the build server, once")).exits(0);
    run_here(&blocks("On the workstation, while you sign"));

    // Nobody attends yet: that is said, there, and nothing is asked.
    let each_time = blocks("On the build server, each time");
    let said = there(&each_time).exits(8);
    assert!(said.contains("nobody attends"), "{said}");
    assert!(!said.contains("assphrase of"), "{said}");

    let raw = Raw::connect_to(&workstation, &agent_socket(&workstation));
    let mut attendant = raw.attend().expect("he attends");
    let pushing = there(&each_time);
    let asked = attendant.says(true);
    assert!(
        asked.summary.iter().any(|line| line.contains("2.0")),
        "{asked:?}"
    );
    attendant.types(signet_tests::lab::KEYRING_PASSPHRASE);
    let said = pushing.exits(0);
    assert!(
        !said.contains("assphrase of") && !said.contains("[y/N]"),
        "{said}"
    );
    lab.everybody_pulls(&second);

    // Approved beforehand, by its digest.
    let third = lab.import_image("acme/app:3.0");
    lab.docker(Cli::Debian12, workstation.docker_config())
        .args(["push", &third])
        .run()
        .ok();
    let digest = lab.registry_digest(&third).expect("it was pushed");
    here(&workstation, &ssh)
        .env("DIGEST", &digest)
        .args([
            "-euc",
            &blocks("Approved beforehand").replace("signet grant", "signet --no-input grant"),
        ])
        .run()
        .ok();
    run_here("signet --no-input unlock");
    drop(attendant);
    let sign =
        format!("SIGNET_SOCKET=~/.signet-forward/agent.sock signet --no-autostart sign {third}");
    there(&sign).exits(0);
    lab.everybody_pulls(&third);

    // The agent's own socket, forwarded: whoever comes out of ssh is treated alike.
    let remote = build.user_home().join(".signet-forward/own.sock");
    run_here(&format!(
        "ssh -f -N -o ExitOnForwardFailure=yes -R {}:$XDG_RUNTIME_DIR/signet/agent.sock newhost",
        remote.display()
    ));
    let through = format!("SIGNET_SOCKET={} signet --no-autostart", remote.display());
    let said = there(&format!("{through} lock")).exits(4);
    assert!(
        said.contains("a forwarded connection may only list keys"),
        "{said}"
    );
    let log = here(&workstation, &ssh)
        .args(["-euc", "signet log show"])
        .run()
        .ok();
    assert!(log.stdout.contains("(forwarded)"), "{}", log.text());
    run_here("signet agent stop");
}
