//! A backup and a restore, killed at any instant: a backup is whole or not there, a restore is done
//! or not begun after the next start, nothing half-written is left, and the same command then works.
//!
//! As in `crash.rs`: `SIGNET_CRASH_POINTS` is how many instants are tried, drawn by
//! `SIGNET_CRASH_SEED`, or `all`; `SIGNET_CRASH_REPORT` names a file that gets a line for each.

#[path = "backup_crash/moves.rs"]
mod moves;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use signet_tests::lab::built;
use signet_tests::lab::command::clean;
use signet_tests::steps::files;
use signet_tests::{Home, Lab, Run};

/// Instants in CI, for each of the two commands.
const POINTS: usize = 20;

const SEED: u64 = 20_261_121;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Create,
    Restore,
}

/// An age identity, its recipient, and a backup that it opens.
struct Backup {
    key: PathBuf,
    recipient: String,
    file: PathBuf,
}

fn unattended(home: &Home) -> Command {
    let mut command = home.unattended();
    command
        .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
        .env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "repository");
    command
}

fn create(home: &Home, recipient: &str, file: &Path) -> Command {
    let mut command = unattended(home);
    command
        .args(["backup", "create", "-r", recipient, "-o"])
        .arg(file);
    command
}

fn restore(home: &Home, backup: &Backup) -> Command {
    let mut command = unattended(home);
    command
        .args(["--yes", "restore", "-i"])
        .arg(&backup.key)
        .arg(&backup.file);
    command
}

fn with_keys(lab: &Lab) -> Home {
    let home = lab.home();
    home.has_keyrings();
    for args in [
        &["--role", "root"][..],
        &["--role", "targets", "--gun", "reg.example.com/app"],
        &["--role", "alice", "--store", "docker"],
    ] {
        unattended(&home)
            .args(["key", "generate"])
            .args(args)
            .run()
            .ok();
    }
    home
}

fn backup(lab: &Lab) -> Backup {
    let dir = lab.fresh_dir("b");
    let key = dir.join("key.txt");
    let made = clean("age-keygen").arg("-o").arg(&key).run().ok().text();
    let recipient = made.split("Public key: ").nth(1).expect("its recipient");
    let recipient = recipient.trim().to_owned();
    let file = dir.join("keys.age");
    let home = with_keys(lab);
    create(&home, &recipient, &file).run().ok();
    Backup {
        key,
        recipient,
        file,
    }
}

/// Runs a command under the tracer; its exit code, and the operations that it did.
fn traced(
    home: &Home,
    inner: &Command,
    roots: &[&Path],
    at: Option<u64>,
    all: bool,
) -> Vec<String> {
    let report = home.user_home().join("operations");
    let mut command = clean(built("signet-faults"));
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir(home.user_home());
    for root in roots {
        command.arg("--root").arg(root);
    }
    command.arg("--report").arg(&report);
    if let Some(at) = at {
        command.args(["--kill-at", &at.to_string()]);
    }
    if all {
        command.arg("--all");
    }
    command
        .arg("--")
        .arg(inner.get_program())
        .args(inner.get_args());
    let output = command.run();
    if at.is_none() {
        output.ok();
    }
    let operations = fs::read_to_string(&report).unwrap_or_default();
    operations.lines().map(str::to_owned).collect()
}

/// Whatever is half-written has another name than these.
fn nothing_is_left_over(home: &Home) -> Result<(), String> {
    let signet = home.path();
    for path in files(&signet)
        .into_keys()
        .chain(files(home.docker_config()).into_keys())
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name.ends_with(".pair") || name.ends_with(".journal") {
            return Err(format!("{} is left over", path.display()));
        }
    }
    Ok(())
}

/// What must hold after a restore was killed.
fn restored(home: &Home, backup: &Backup) -> Result<(), String> {
    // The next start finishes it, or there was nothing to finish.
    let keys = home.keys();
    nothing_is_left_over(home)?;
    if !matches!(keys.len(), 0 | 3) || keys.iter().any(|key| key["state"] != "enrolled") {
        return Err(format!("neither all nor nothing: {keys:#?}"));
    }
    let again = restore(home, backup).run();
    if again.code() != Some(0) || home.keys().len() != 3 {
        return Err(format!("the next run fails: {}", again.text()));
    }
    // Every key opens: one that does not is exit code 8.
    let packed = create(home, &backup.recipient, &home.user_home().join("again.age")).run();
    match packed.code() {
        Some(0) => Ok(()),
        _ => Err(format!("a key is not usable: {}", packed.text())),
    }
}

/// What must hold after a backup was killed.
fn created(home: &Home, backup: &Backup, dir: &Path) -> Result<(), String> {
    let verify = |file: &Path| {
        let mut command = unattended(home);
        let output = command
            .args(["backup", "verify", "-i"])
            .arg(&backup.key)
            .arg(file)
            .run();
        match output.code() {
            Some(0) => Ok(()),
            _ => Err(format!("{}: {}", file.display(), output.text())),
        }
    };
    for file in files(dir).into_keys() {
        verify(&file)?;
    }
    let next = dir.join("next.age");
    let again = create(home, &backup.recipient, &next).run();
    if again.code() != Some(0) {
        return Err(format!("the next run fails: {}", again.text()));
    }
    nothing_is_left_over(home)?;
    verify(&next)
}

/// The instants to try, of `count` there are: `few` in CI.
fn points(count: usize, few: usize) -> Vec<(u64, bool)> {
    let all = || {
        (1..=count as u64)
            .flat_map(|at| [(at, false), (at, true)])
            .collect::<Vec<_>>()
    };
    let wanted = match env::var("SIGNET_CRASH_POINTS").as_deref() {
        Ok("all") => return all(),
        Ok(number) => number.parse().expect("a number, or all"),
        Err(_) => few,
    };
    let seed = env::var("SIGNET_CRASH_SEED").ok();
    let mut seed = seed.map_or(SEED, |seed| seed.parse().expect("a number"));
    let mut left = all();
    let mut drawn = Vec::new();
    while drawn.len() < wanted && !left.is_empty() {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let at = usize::try_from(z ^ (z >> 31)).expect("64 bits") % left.len();
        drawn.push(left.swap_remove(at));
    }
    drawn
}

fn killed_at_any_instant(act: Act) {
    let lab = Lab::builder().build();
    let backup = backup(&lab);
    let run = |point: Option<(u64, bool)>| -> (usize, Result<(), String>) {
        let (at, all) = point.map_or((None, false), |(at, all)| (Some(at), all));
        let home = match act {
            Act::Create => with_keys(&lab),
            Act::Restore => lab.home(),
        };
        home.signet().args(["agent", "stop"]).run().ok();
        let out = lab.fresh_dir("o");
        let (signet, docker) = (home.path(), home.docker_config().to_owned());
        let (inner, roots) = match act {
            Act::Create => {
                let file = out.join("keys.age");
                let inner = create(&home, &backup.recipient, &file);
                (
                    inner,
                    vec![signet.as_path(), docker.as_path(), out.as_path()],
                )
            }
            Act::Restore => {
                let inner = restore(&home, &backup);
                (inner, vec![signet.as_path(), docker.as_path()])
            }
        };
        let operations = traced(&home, &inner, &roots, at, all);
        let checked = match act {
            Act::Create => created(&home, &backup, &out),
            Act::Restore => restored(&home, &backup),
        };
        let last = operations.last().cloned().unwrap_or_default();
        (
            operations.len(),
            checked.map_err(|why| format!("killed before {last}: {why}")),
        )
    };
    let start = Instant::now();
    let (count, checked) = run(None);
    assert_eq!(checked, Ok(()), "not killed at all");
    assert!(count > 10, "only {count} operations");
    let mut failed = Vec::new();
    let points = points(count, POINTS);
    for (at, all) in &points {
        let (_, checked) = run(Some((*at, *all)));
        if let Err(why) = checked {
            failed.push(format!("{at}/{count} (all: {all}): {why}"));
        }
    }
    let what = match act {
        Act::Create => "backup create",
        Act::Restore => "restore",
    };
    report(what, count, points.len(), failed.len(), start);
    assert!(failed.is_empty(), "{act:?}:\n{}", failed.join("\n"));
}

/// A line for the report: command, seed, operations, points, failed, seconds.
fn report(what: &str, operations: usize, points: usize, failed: usize, start: Instant) {
    let Some(path) = env::var_os("SIGNET_CRASH_REPORT") else {
        return;
    };
    let seed = env::var("SIGNET_CRASH_SEED").unwrap_or_else(|_| SEED.to_string());
    let seconds = start.elapsed().as_secs();
    let line = format!("| {what} | {seed} | {operations} | {points} | {failed} | {seconds} |\n");
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the report can be written");
}

#[test]
fn a_restore_killed_at_any_instant_is_done_or_not_begun() {
    killed_at_any_instant(Act::Restore);
}

#[test]
fn a_backup_killed_at_any_instant_is_whole_or_not_there() {
    killed_at_any_instant(Act::Create);
}
