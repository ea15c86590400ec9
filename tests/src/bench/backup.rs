//! Backups made, rehearsed and restored, beside `tar` and `age`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use signet_trust::{Algorithm, PrivateKey, keyfile::write_plain};

use super::{
    agent::OwnAgent,
    cost::{self, Cost},
    table::{Table, memory, time},
};
use crate::{
    Lab, Run as _,
    lab::{built, command::clean},
};

/// Keys of the small home, whose figures are what the passphrases cost, and of the large one.
const KEYS: [usize; 2] = [1, 1_000];
/// Most runs of each command: each derives keys for seconds.
const MAX_RUNS: usize = 2;
/// The backup's passphrase.
const PASSPHRASE: &str = "of the backup";

/// A home with so many native keys.
struct Scene {
    agent: OwnAgent,
    dir: PathBuf,
}

impl Scene {
    fn new(lab: &Lab, keys: usize) -> Result<Self> {
        let dir = lab.fresh_dir("b");
        let source = dir.join("source");
        fs::create_dir(&source)?;
        for number in 0..keys {
            let key = PrivateKey::generate(Algorithm::P256)?;
            let pem = write_plain(&key, "alice", None);
            fs::write(source.join(format!("{number}.pem")), pem.as_bytes())?;
        }
        fs::write(dir.join("passphrase"), PASSPHRASE)?;
        let agent = OwnAgent::in_lab(lab);
        let mut import = agent.home.unattended();
        import
            .args(["key", "import", "--store", "file"])
            .arg(&source);
        import.run().ok();
        Ok(Self { agent, dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `signet ARGS`, with the backup's passphrase from a descriptor.
    fn signet(&self, agent: &OwnAgent, args: &[&str], file: &Path) -> Command {
        let signet = agent.home.unattended();
        let script = "pass=$1; shift; exec \"$@\" 3<\"$pass\"";
        let mut shell = clean("sh");
        shell.envs(signet.get_envs().filter_map(|(k, v)| Some((k, v?))));
        shell
            .args(["-c", script, "-"])
            .arg(self.file("passphrase"))
            .arg(built("signet"))
            .args(["--no-input", "--yes", "--passphrase-fd", "archive:3"])
            .args(args)
            .arg(file);
        shell
    }

    /// A shell command of others, on a terminal where the passphrase is typed.
    fn others(&self, typed: usize, command: &str) -> Command {
        let lines = format!("{PASSPHRASE}\\n").repeat(typed);
        let script = format!("printf '{lines}' | script -qec '{command}' /dev/null");
        let mut shell = clean("sh");
        shell.current_dir(&self.dir).args(["-c", &script]);
        shell
    }
}

/// The table.
///
/// # Errors
///
/// When something fails.
pub fn table(lab: &Lab, runs: usize) -> Result<Table> {
    let mut table = Table::new(
        "Native keys in a backup with a passphrase (the rows of one key: what the passphrases cost)",
        &["what", "keys", "wall", "CPU", "peak memory", "bytes a key"],
    );
    let mut row = |what: &str, keys: usize, run: Cost, bytes: Option<u64>| {
        table.row(&[
            what.to_owned(),
            keys.to_string(),
            time(run.wall),
            time(run.cpu),
            memory(run.peak),
            bytes.map_or_else(String::new, |bytes| (bytes / keys as u64).to_string()),
        ]);
    };
    let runs = runs.clamp(1, MAX_RUNS);
    for keys in KEYS {
        let scene = Scene::new(lab, keys)?;
        let (mut create, mut verify, mut restore) = (Vec::new(), Vec::new(), Vec::new());
        let mut file = PathBuf::new();
        for run in 0..runs {
            file = scene.file(&format!("{run}.age"));
            let pid = scene.agent.pid()?;
            let mut command = scene.signet(&scene.agent, &["backup", "create", "-o"], &file);
            create.push(cost::of(&mut command, Some(pid))?);
            let mut command = scene.signet(&scene.agent, &["backup", "verify"], &file);
            verify.push(cost::of(&mut command, Some(pid))?);
            let empty = OwnAgent::in_lab(lab);
            empty.home.signet().arg("status").run().ok();
            let mut command = scene.signet(&empty, &["restore"], &file);
            restore.push(cost::of(&mut command, Some(empty.pid()?))?);
            empty.stop()?;
        }
        let bytes = fs::metadata(&file)?.len();
        row(
            "signet backup create",
            keys,
            cost::median(create),
            Some(bytes),
        );
        row("signet backup verify", keys, cost::median(verify), None);
        row("signet restore", keys, cost::median(restore), None);

        let source = scene.agent.home.path().join("keys");
        let source = source.to_str().context("the lab's paths are text")?;
        let (mut closed, mut opened) = (Vec::new(), Vec::new());
        for run in 0..runs {
            let out = format!("tar-{run}");
            fs::create_dir(scene.file(&out))?;
            let pack = format!("tar cz -C {source} . | age -p -o {out}.age");
            closed.push(cost::of(&mut scene.others(2, &pack), None)?);
            let unpack = format!("age -d {out}.age | tar xz -C {out}");
            opened.push(cost::of(&mut scene.others(1, &unpack), None)?);
        }
        let bytes = fs::metadata(scene.file("tar-0.age"))?.len();
        row("tar cz | age -p", keys, cost::median(closed), Some(bytes));
        row("age -d | tar xz", keys, cost::median(opened), None);
        scene.agent.stop()?;
    }
    Ok(table)
}
