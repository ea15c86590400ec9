//! The command line itself: usage, help, completions, JSON errors, and what starts no agent.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Home, Lab, Output, Run};

const IMAGE: &str = "registry.example.com/acme/app:v1";

fn signet(home: &Home, args: &[&str]) -> Output {
    home.signet().args(args).run()
}

/// The error object of `--json`: the last line of stderr.
fn json_error(output: &Output) -> Value {
    let line = output.stderr.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(line)
        .unwrap_or_else(|err| panic!("stderr ends with no JSON ({err}): {}", output.text()));
    assert_eq!(value["v"], 1);
    value["error"].clone()
}

#[test]
fn what_is_no_command_line_ends_in_2() {
    let lab = Lab::builder().build();
    let home = lab.home();
    for args in [
        &["pusch", IMAGE][..],
        &[],
        &["push"],
        &["push", IMAGE, "more"],
        &["push", "Not/An/Image"],
        &["push", "registry.example.com/acme/app:no tag"],
        &["sign", "registry.example.com/acme/app@sha256:12"],
        &["sign", IMAGE, "--size", "many"],
        &["verify", ""],
        &["key", "generate"],
        &["key", "generate", "--role", "targets", "--no-input"],
        &["key", "generate", "--role", "root", "--algorithm", "dsa"],
        &["push", IMAGE, "--allow", "everything"],
        &["push", IMAGE, "--store", "tape"],
        &["push", IMAGE, "--passphrase-fd", "x", "--no-input"],
        &["push", IMAGE, "--server", "http://registry.example.com"],
        &["completions", "tcsh-and-more"],
        &["unlock", "--for", "2d"],
    ] {
        let output = signet(&home, args);
        assert_eq!(output.code(), Some(2), "{args:?}: {}", output.text());
        assert!(!output.stderr.is_empty(), "{args:?} says nothing");
        assert_eq!(output.stdout, "", "{args:?} prints on stdout");
        let mut with_json = vec!["--json"];
        with_json.extend(args);
        let error = json_error(&signet(&home, &with_json));
        assert_eq!(error["exit"], 2, "{args:?}: {error:#}");
        for member in ["code", "message"] {
            assert!(
                error[member].is_string(),
                "{args:?}: no {member} in {error:#}"
            );
        }
        assert!(
            error
                .as_object()
                .is_some_and(|error| error.contains_key("fix"))
        );
    }
    assert_eq!(home.agent_pid(), None, "an agent was started for nothing");
}

#[test]
fn names_of_later_releases_are_said_to_be_that() {
    let lab = Lab::builder().build();
    let home = lab.home();
    for args in [&["repo", "rotate", "root"][..], &["signer", "add", "alice"]] {
        signet(&home, args).exits(2).says("release");
    }
}

/// The verbs below a command, from its own help.
fn verbs(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn every_command_has_a_help_text() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let mut open = vec![Vec::<String>::new()];
    let mut seen = Vec::new();
    while let Some(command) = open.pop() {
        let mut run = home.signet();
        let output = run.args(&command).arg("--help").run().ok();
        let first = output.stdout.lines().next().unwrap_or_default();
        assert!(
            first.len() > 5,
            "signet {command:?} has no first line: {}",
            output.stdout
        );
        assert!(output.stdout.contains("Usage: signet"), "{}", output.stdout);
        for verb in verbs(&output.stdout) {
            let mut below = command.clone();
            below.push(verb);
            open.push(below);
        }
        seen.push(command.join(" "));
    }
    for wanted in [
        "push",
        "sign",
        "verify",
        "inspect",
        "revoke",
        "repo init",
        "key list",
        "key show",
        "key generate",
        "key import",
        "key export",
        "key label",
        "key remove",
        "key passphrase",
        "keyring passphrase",
        "keyring rotate",
        "lock",
        "unlock",
        "status",
        "log show",
        "agent start",
        "agent stop",
        "agent run",
        "completions",
    ] {
        assert!(
            seen.iter().any(|name| name == wanted),
            "no {wanted} in {seen:?}"
        );
    }
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    let lab = Lab::builder().build();
    let home = lab.home();
    for (shell, check) in [("bash", Some("bash")), ("zsh", None), ("fish", None)] {
        let script = signet(&home, &["completions", shell]).ok().stdout;
        for word in ["signet", "push", "no-input"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        let file = home.user_home().join(shell);
        fs::write(&file, &script).expect("the home is ours");
        if let Some(shell) = check {
            clean(shell).arg("-n").arg(&file).run().ok();
        }
    }
    // The script completes, too.
    let file = home.user_home().join("bash");
    let ask = format!(
        "source '{}'; COMP_WORDS=(signet ver) COMP_CWORD=1; _signet signet ver signet; \
         echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    clean("bash").args(["-c", &ask]).run().ok().says("verify");
}

#[test]
fn man_pages_are_written_for_every_command() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let dir = lab.fresh_dir("man");
    home.signet().arg("man").arg(&dir).run().ok();
    for page in ["signet.1", "signet-push.1", "signet-key-import.1"] {
        let text = fs::read_to_string(dir.join(page)).unwrap_or_else(|err| panic!("{page}: {err}"));
        assert!(text.contains(".TH"), "{page} is no man page");
    }
}

#[test]
fn both_programs_say_their_version() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let version = env!("CARGO_PKG_VERSION");
    let said = signet(&home, &["--version"]).ok();
    assert_eq!(said.stdout, format!("signet {version}\n"));
    let said = home.signetd().arg("--version").run().ok();
    assert_eq!(said.stdout, format!("signetd {version}\n"));
}

#[test]
fn docker_finds_its_plugin() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let plugins = home.docker_config().join("cli-plugins");
    fs::create_dir_all(&plugins).expect("the configuration is ours");
    let program = Path::new(home.signet().get_program()).to_path_buf();
    std::os::unix::fs::symlink(program, plugins.join("docker-signet")).expect("it is ours");
    let docker = |args: &[&str]| {
        let mut docker = lab.docker(signet_tests::Cli::Debian13, home.docker_config());
        docker.env("SIGNET_HOME", home.path()).args(args).run()
    };
    docker(&["signet", "--version"])
        .ok()
        .says(env!("CARGO_PKG_VERSION"));
    docker(&["signet", "push"]).exits(2);
    let metadata = clean(plugins.join("docker-signet"))
        .arg("docker-cli-plugin-metadata")
        .run()
        .ok()
        .json();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
}

#[test]
fn those_who_only_read_start_no_agent_and_make_no_keyring() {
    let lab = Lab::builder().notary().build();
    lab.home().signs(IMAGE);
    let home = lab.home();
    for args in [
        &["verify", IMAGE][..],
        &["inspect", IMAGE],
        &["inspect", "--json", IMAGE],
        &["completions", "bash"],
        &["agent", "stop"],
        &["lock"],
        &["--version"],
        &["--help"],
    ] {
        signet(&home, args).ok();
        assert_eq!(home.agent_pid(), None, "{args:?} started an agent");
    }
    let left: Vec<_> = signet_tests::steps::files(&home.path())
        .into_keys()
        .collect();
    assert!(
        left.iter()
            .all(|path| path.starts_with(home.path().join("lock"))),
        "{left:?}"
    );
}

#[test]
fn without_an_agent_and_without_leave_to_start_one_it_ends_in_6() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let error = json_error(
        &home
            .signet()
            .args(["--json", "--no-autostart", "key", "list"])
            .run()
            .exits(6),
    );
    assert_eq!(error["exit"], 6);
    assert_eq!(home.agent_pid(), None);
}

#[test]
fn flags_stand_before_and_after_the_verb() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let file = home.passphrase_file();
    let sign = |args: &[&str]| {
        let mut command: Command = home.signet();
        command.env("SIGNET_PASSPHRASE_FILE", &file).args(args);
        command.run().ok().json()
    };
    let image = format!("{IMAGE}@{DIGEST}");
    for args in [
        &["--json", "--no-input", "sign", "--size", SIZE, &image][..],
        &["sign", &image, "--size", SIZE, "--no-input", "--json"],
    ] {
        assert_eq!(sign(args)["v"], 1);
    }
}

#[test]
fn a_server_is_remembered_when_asked_to() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let url = lab.trust_server();
    let without = |args: &[&str]| {
        let mut command = home.unattended();
        command.env_remove("DOCKER_CONTENT_TRUST_SERVER").args(args);
        command.run()
    };
    let image = format!("{IMAGE}@{DIGEST}");
    without(&["sign", &image, "--size", SIZE, "--server", url, "--save"]).ok();
    without(&["verify", IMAGE]).ok();
}
