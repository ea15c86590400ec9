//! How the command starts the agent: which program, with what of its own surroundings, and for
//! whom.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use signet_tests::lab::built;
use signet_tests::lab::command::clean;
use signet_tests::{Home, Lab, Run};

/// The two programs in a directory of their own, as somebody might have installed them.
fn installed(lab: &Lab) -> PathBuf {
    let dir = lab.fresh_dir("bin");
    for name in ["signet", "signetd"] {
        let program = dir.join(name);
        fs::copy(built(name), &program).expect("the lab's directory is ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    dir
}

fn signet_of(dir: &Path, home: &Home) -> Command {
    let mut command = clean(dir.join("signet"));
    for (name, value) in home.signet().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.args(["agent", "start"]);
    command
}

#[test]
fn an_agent_has_nothing_of_the_command_that_started_it() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.signet()
        .args(["agent", "start"])
        .env("SIGNET_PASSPHRASE_FILE", home.passphrase_file())
        .env(
            "DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE",
            "a secret of the caller's",
        )
        .env("AWS_SECRET_ACCESS_KEY", "another secret of the caller's")
        .run()
        .ok();
    let pid = home.agent_pid().expect("it runs").as_raw_nonzero();
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(proc.join("stat")).expect("it is there");
    let session = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(3)?.parse::<i32>().ok());
    assert_eq!(session, Some(pid.get()), "a session of its own: {stat}");
    // It is undumpable, so that only root may look at the rest.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert_eq!(
        fs::read_link(proc.join("cwd")).expect("a directory"),
        Path::new("/")
    );
    let environ = fs::read(proc.join("environ")).expect("an environment");
    let names: Vec<String> = environ
        .split(|byte| *byte == 0)
        .filter(|variable| !variable.is_empty())
        .map(|variable| String::from_utf8_lossy(variable).into_owned())
        .map(|variable| variable.split('=').next().unwrap_or_default().to_owned())
        .collect();
    let allowed = [
        "HOME",
        "USER",
        "LANG",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
    ];
    let allowed = |name: &String| {
        allowed.contains(&name.as_str())
            || name.starts_with("XDG_")
            || ["WAYLAND_DISPLAY", "DOCKER_CONFIG", "SIGNET_HOME"].contains(&name.as_str())
            || ["SIGNET_CONFIG", "SIGNET_SOCKET"].contains(&name.as_str())
    };
    assert!(names.iter().all(allowed), "{names:?}");
    for descriptor in ["0", "1", "2"] {
        let target = fs::read_link(proc.join("fd").join(descriptor)).expect("it is open");
        assert_eq!(target, Path::new("/dev/null"), "descriptor {descriptor}");
    }
    let status = fs::read_to_string(proc.join("status")).expect("it is there");
    assert!(status.contains("Umask:\t0077"), "{status}");
    let limits = fs::read_to_string(proc.join("limits")).expect("it is there");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "no core file");
}

#[test]
fn the_agent_is_the_one_beside_the_command_and_nobody_elses() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let dir = installed(&lab);
    // One on the PATH is not looked at.
    let elsewhere = installed(&lab);
    fs::remove_file(dir.join("signetd")).expect("it is ours");
    let path = format!("{}:/usr/bin:/bin", elsewhere.display());
    signet_of(&dir, &home).env("PATH", path).run().exits(6);

    fs::copy(built("signetd"), dir.join("signetd")).expect("it is ours");
    for (what, mode) in [(dir.join("signetd"), 0o777), (dir.clone(), 0o777)] {
        let before = fs::metadata(&what).expect("it is there").permissions();
        fs::set_permissions(&what, fs::Permissions::from_mode(mode)).expect("it is ours");
        signet_of(&dir, &home)
            .run()
            .exits(6)
            .says(&what.display().to_string());
        fs::set_permissions(&what, before).expect("it is ours");
    }
    signet_of(&dir, &home).run().ok();
    // Called by a link, it is still the one beside the program itself.
    home.signet().args(["agent", "stop"]).run().ok();
    let links = lab.fresh_dir("links");
    std::os::unix::fs::symlink(dir.join("signet"), links.join("signet")).expect("it is ours");
    signet_of(&links, &home).run().ok();
}

#[test]
fn root_in_somebody_elses_home_is_refused_and_told_why() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::builder().build();
    let home = lab.home();
    let theirs = lab.fresh_dir("theirs");
    chown(&theirs, Some(12345), Some(12345)).expect("we are root");
    for variable in ["HOME", "DOCKER_CONFIG"] {
        let refused = home
            .signet()
            .env(variable, &theirs)
            .args(["key", "list"])
            .run();
        assert_ne!(refused.code(), Some(0), "{variable}: {}", refused.text());
        assert!(
            refused.stderr.contains(&theirs.display().to_string()),
            "{}",
            refused.text()
        );
        assert!(
            refused.stderr.contains("sudo"),
            "{variable}: {}",
            refused.text()
        );
        assert_eq!(home.agent_pid(), None);
    }
}

#[test]
fn a_socket_that_somebody_else_could_have_made_is_not_spoken_to() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let open = lab.fresh_dir("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let socket = open.join("agent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("it is ours");
    let refused = home
        .signet()
        .env("SIGNET_SOCKET", &socket)
        .args(["key", "list"])
        .run();
    assert!(matches!(refused.code(), Some(1 | 6)), "{}", refused.text());
    refused.says(&open.display().to_string());
}
