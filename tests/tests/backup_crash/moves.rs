//! A move, killed at any instant of sending, receiving and finishing: the next start and the same
//! command bring it to its end, and no key is ever on neither host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use signet_tests::steps::files;
use signet_tests::{Home, Lab, Run};

use super::{nothing_is_left_over, points, report, traced, unattended, with_keys};

/// Instants in CI, for each of the three commands.
const POINTS: usize = 10;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Send,
    Receive,
    Finish,
}

/// Two homes, and what goes between them.
struct Two {
    old: Home,
    new: Home,
    dir: PathBuf,
}

fn migrate(home: &Home) -> Command {
    let mut command = unattended(home);
    command.args(["--yes", "migrate"]);
    command
}

impl Two {
    fn new(lab: &Lab) -> Self {
        let two = Self {
            old: with_keys(lab),
            new: lab.home(),
            dir: lab.fresh_dir("m"),
        };
        migrate(&two.new)
            .args(["receive", "-o"])
            .arg(two.dir.join("offer"))
            .run()
            .ok();
        two
    }

    /// The command of a step; what it writes has a name of its own.
    fn command(&self, step: Step, output: &str) -> Command {
        let (home, verb, input) = match step {
            Step::Send => (&self.old, "send", "offer"),
            Step::Receive => (&self.new, "receive", "package"),
            Step::Finish => (&self.old, "finish", "receipt"),
        };
        let mut command = migrate(home);
        command
            .arg(verb)
            .arg(self.dir.join(input))
            .arg("-o")
            .arg(self.dir.join(output));
        command
    }

    /// Runs a step; its message then has the name that the next step looks for.
    fn goes_on(&self, step: Step) -> Result<(), String> {
        let name = match step {
            Step::Send => "package",
            Step::Receive => "receipt",
            Step::Finish => "note",
        };
        let output = self.command(step, "next").run();
        if output.code() != Some(0) {
            return Err(format!("{step:?} fails: {}", output.text()));
        }
        fs::rename(self.dir.join("next"), self.dir.join(name)).map_err(|error| error.to_string())
    }

    /// Every key is enrolled on one of the two at least.
    fn no_key_is_lost(&self) -> Result<(), String> {
        let enrolled = |home: &Home| {
            let keys = home.keys().into_iter();
            keys.filter(|key| key["state"] == "enrolled")
                .map(|key| key["id"].to_string())
                .collect::<Vec<_>>()
        };
        let (old, new) = (enrolled(&self.old), enrolled(&self.new));
        if !matches!((old.len(), new.len()), (3, 0) | (3, 3) | (0, 3)) {
            return Err(format!("old: {old:?}, new: {new:?}"));
        }
        nothing_is_left_over(&self.old)?;
        nothing_is_left_over(&self.new)
    }

    /// From the killed step to the end.
    fn ends(&self, killed: Step) -> Result<(), String> {
        self.no_key_is_lost()?;
        let steps = [Step::Send, Step::Receive, Step::Finish];
        for step in steps.into_iter().skip_while(|step| *step != killed) {
            self.goes_on(step)?;
            self.no_key_is_lost()?;
        }
        let closed = migrate(&self.new)
            .arg("receive")
            .arg(self.dir.join("note"))
            .run();
        if closed.code() != Some(0) {
            return Err(format!("the note fails: {}", closed.text()));
        }
        let old = self.old.docker_config().join("trust/private");
        let left = [self.old.path().join("keys"), old].map(|dir| files(&dir).len());
        let identities = files(&self.new.path().join("migration")).len();
        if left != [0, 0] || identities != 0 {
            return Err(format!(
                "key files left: {left:?}, identities: {identities}"
            ));
        }
        // Every key opens where it is now: one that does not is exit code 8.
        let packed = unattended(&self.new)
            .args(["backup", "create", "-r", RECIPIENT, "-o"])
            .arg(self.dir.join("all.age"))
            .run();
        match packed.code() {
            Some(0) => Ok(()),
            _ => Err(format!("a key is not usable: {}", packed.text())),
        }
    }
}

/// Of no identity that anybody has.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn killed_at_any_instant(killed: Step) {
    let lab = Lab::builder().build();
    let run = |point: Option<(u64, bool)>| -> (usize, Result<(), String>) {
        let (at, all) = point.map_or((None, false), |(at, all)| (Some(at), all));
        let two = Two::new(&lab);
        let steps = [Step::Send, Step::Receive, Step::Finish];
        for step in steps.into_iter().take_while(|step| *step != killed) {
            if let Err(why) = two.goes_on(step) {
                return (0, Err(why));
            }
        }
        let home = match killed {
            Step::Receive => &two.new,
            _ => &two.old,
        };
        home.signet().args(["agent", "stop"]).run().ok();
        let (signet, docker) = (home.path(), home.docker_config().to_owned());
        let roots: [&Path; 3] = [&signet, &docker, &two.dir];
        let operations = traced(home, &two.command(killed, "killed"), &roots, at, all);
        let last = operations.last().cloned().unwrap_or_default();
        let checked = two.ends(killed);
        (
            operations.len(),
            checked.map_err(|why| format!("killed before {last}: {why}")),
        )
    };
    let start = Instant::now();
    let (count, checked) = run(None);
    assert_eq!(checked, Ok(()), "not killed at all");
    assert!(count > 5, "only {count} operations");
    let mut failed = Vec::new();
    let points = points(count, POINTS);
    for (at, all) in &points {
        let (_, checked) = run(Some((*at, *all)));
        if let Err(why) = checked {
            failed.push(format!("{at}/{count} (all: {all}): {why}"));
        }
    }
    let what = match killed {
        Step::Send => "migrate send",
        Step::Receive => "migrate receive",
        Step::Finish => "migrate finish",
    };
    report(what, count, points.len(), failed.len(), start);
    assert!(failed.is_empty(), "{killed:?}:\n{}", failed.join("\n"));
}

#[test]
fn sending_killed_at_any_instant_is_gone_on_with() {
    killed_at_any_instant(Step::Send);
}

#[test]
fn receiving_killed_at_any_instant_is_done_or_not_begun() {
    killed_at_any_instant(Step::Receive);
}

#[test]
fn finishing_killed_at_any_instant_retires_all_or_nothing() {
    killed_at_any_instant(Step::Finish);
}
