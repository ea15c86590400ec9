//! What it costs that everything is durable: signatures beside the disk's own time, bytes of the
//! ledger an entry, and a large log verified.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use signet_agent::ledger::{Entry, FILE_NAME, Ledger, NewEntry, Release, Report, Write};
use signet_trust::{
    Algorithm, Gun, RoleName,
    base::Lineage,
    guard::{History, Mark, Pass, Standing, State, published},
};

use super::{
    agent::OwnAgent,
    cost, now,
    signatures::{CLIENTS, bring, drive, fresh_in, gun},
    socket::{Publisher, Signs as _, Way, connect},
    table::{Table, memory, middle, percentile, time},
};
use crate::{Lab, Run as _, lab::command::clean};

/// A directory on this machine's disk.
const DISK: &str = "/var/tmp";
/// And one in memory.
const MEMORY: &str = "/dev/shm";
/// Writes that the disk's own time is the median of.
const SYNCS: usize = 400;
/// What is written before each: a page of the ledger.
const PAGE: [u8; 4096] = [0x5a; 4096];
/// Releases and reports in one transaction, as the agent's recorder groups them at most.
const GROUP: usize = 64;
/// Runs over a large log, at most.
const MAX_RUNS: usize = 3;

/// The sixteen clients of the socket's table, all of which report, beside the disk itself.
///
/// # Errors
///
/// When the agent refuses.
pub async fn signatures(lab: &Lab, span: Duration) -> Result<Table> {
    let mut table = Table::new(
        "Signatures that are reported, ledger on this machine's disk (/var/tmp)",
        &[
            "algorithm",
            "fdatasync: appended",
            "overwritten",
            "1 client: median",
            "p99",
            "over appended",
            "over overwritten",
            "16 clients: signatures/s",
            "median",
            "p99",
            "ledger: bytes an entry",
        ],
    );
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let dir = fresh_in(DISK)?;
        let agent = OwnAgent::at(lab, dir.path());
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let gun = gun(number);
            clients.push(Publisher::new(Way::None, true, &gun, algorithm, now()?)?);
        }
        bring(&agent, &clients)?;
        agent.stop()?;
        let before = Size::of(&agent.home.path())?;
        agent.unlock();
        for client in &mut clients {
            client.ask(connect(&agent.home.socket()).await?);
        }
        let (appended, overwritten) = syncs(dir.path())?;
        let figures = drive(clients, &[agent.pid()?], span).await?;
        agent.stop()?;
        let after = Size::of(&agent.home.path())?;
        let alone = middle(figures.alone.clone());
        table.row(&[
            algorithm.name(),
            time(appended),
            time(overwritten),
            time(alone),
            time(percentile(figures.alone, 99)),
            time(alone.saturating_sub(appended)),
            time(alone.saturating_sub(overwritten)),
            format!("{:.0}", figures.per_second),
            time(middle(figures.together.clone())),
            time(percentile(figures.together, 99)),
            format!("{:.0}", after.each_since(&before)?),
        ]);
    }
    Ok(table)
}

/// Median of `fdatasync` after 4 KiB were written: at the end of a file that grows, and over what
/// the file has, as a write-ahead log that is used again is written.
fn syncs(dir: &Path) -> Result<(Duration, Duration)> {
    let path = dir.join("syncs");
    let mut file = File::create_new(&path)?;
    let mut appended = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&PAGE)?;
        let start = Instant::now();
        file.sync_data()?;
        appended.push(start.elapsed());
    }
    let mut overwritten = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        file.write_all_at(&PAGE, (number * PAGE.len()) as u64)?;
        let start = Instant::now();
        file.sync_data()?;
        overwritten.push(start.elapsed());
    }
    fs::remove_file(path)?;
    Ok((middle(appended), middle(overwritten)))
}

/// What a ledger that nobody has open takes.
struct Size {
    entries: u64,
    bytes: u64,
}

impl Size {
    fn of(home: &Path) -> Result<Self> {
        // Whoever closes it last empties the write-ahead log into the file.
        let (entries, _) = Ledger::open(home)?.head()?;
        let mut bytes = 0;
        for end in ["", "-wal"] {
            let path = home.join(format!("{FILE_NAME}{end}"));
            bytes += fs::metadata(path).map_or(0, |facts| facts.len());
        }
        Ok(Self { entries, bytes })
    }

    fn each_since(&self, before: &Self) -> Result<f64> {
        ensure!(self.entries > before.entries, "nothing was recorded");
        let bytes = self.bytes.saturating_sub(before.bytes);
        Ok(bytes as f64 / (self.entries - before.entries) as f64)
    }
}

/// A log of this many entries: filled through the agent's library as its recorder does it, verified
/// by `signet log verify`, and taken out and verified by the script beside the format's description.
///
/// # Errors
///
/// When a program fails.
pub async fn large_log(lab: &Lab, entries: u64, runs: usize) -> Result<Table> {
    let mut table = Table::new(
        &format!("A log of {entries} entries, ledger on tmpfs"),
        &["what", "wall", "CPU", "peak memory", "figure"],
    );
    let dir = fresh_in(MEMORY)?;
    let agent = OwnAgent::at(lab, dir.path());
    let templates = templates(&agent).await?;
    let home = agent.home.path();
    let before = Size::of(&home)?;
    let start = Instant::now();
    fill(&home, entries.saturating_sub(before.entries), &templates)?;
    let filled = start.elapsed();
    let after = Size::of(&home)?;
    table.row(&[
        "filled in process".to_owned(),
        time(filled),
        String::new(),
        String::new(),
        format!("{:.0} bytes an entry", after.each_since(&before)?),
    ]);

    agent.home.signet().arg("status").run().ok();
    let pid = agent.pid()?;
    let mut verified = Vec::new();
    for _ in 0..runs.clamp(1, MAX_RUNS) {
        let mut command = agent.home.signet();
        verified.push(cost::of(command.args(["log", "verify"]), Some(pid))?);
    }
    let export = dir.path().join("export");
    let mut command = agent.home.signet();
    command.args(["log", "export", "-o"]).arg(&export);
    let exported = cost::of(&mut command, Some(pid))?;
    agent.stop()?;
    let mut script = clean("/usr/bin/python3");
    script
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/log-verify.py"))
        .arg(&export);
    let script = cost::of(&mut script, None)?;
    for (what, run, figure) in [
        ("signet log verify", cost::median(verified), None),
        (
            "signet log export",
            exported,
            Some(fs::metadata(&export)?.len()),
        ),
        ("log-verify.py", script, None),
    ] {
        table.row(&[
            what.to_owned(),
            time(run.wall),
            time(run.cpu),
            memory(run.peak),
            figure.map_or_else(String::new, |bytes| memory(bytes / 1024)),
        ]);
    }
    Ok(table)
}

/// The entries of a real signature and of its report.
struct Templates {
    sign: NewEntry,
    publish: NewEntry,
}

async fn templates(agent: &OwnAgent) -> Result<Templates> {
    let gun = gun(0);
    let mut client = Publisher::new(Way::None, true, &gun, Algorithm::P256, now()?)?;
    bring(agent, std::slice::from_ref(&client))?;
    agent.unlock();
    client.ask(connect(&agent.home.socket()).await?);
    client.sign().await?;
    agent.stop()?;
    let ledger = Ledger::open(&agent.home.path())?;
    let (newest, _) = ledger.head()?;
    let entries = ledger.entries(1, newest)?;
    let last = |kind: &str| -> Result<NewEntry> {
        let found = |entry: &&Entry| entry.entry.kind == kind;
        let entry = entries.iter().rev().find(found);
        let entry = &entry.with_context(|| format!("no entry {kind}"))?.entry;
        ensure!(!entry.facts.is_empty(), "an entry {kind} without facts");
        Ok(entry.clone())
    };
    Ok(Templates {
        sign: last("sign")?,
        publish: last("publish")?,
    })
}

/// A collection that is signed and published in turns.
struct Growing {
    gun: Gun,
    lineage: Lineage,
    history: History,
    mark: Mark,
    released: bool,
}

impl Growing {
    fn new(number: usize) -> Result<Self> {
        let gun: Gun = format!("docker.io/bench/large-{number}").parse()?;
        Ok(Self {
            lineage: Lineage(Sha256::digest(gun.as_str()).into()),
            gun,
            history: History::default(),
            mark: Mark {
                version: 0,
                hash: [0; 32],
            },
            released: false,
        })
    }

    /// What the recorder would write next, after which it is as if it were written.
    fn next(&mut self, templates: &Templates) -> Write {
        let state = self.history.collections.get(&self.lineage);
        let new_lineage = state.is_none();
        let mut state: State = state.cloned().unwrap_or_default();
        let mut entry = match self.released {
            true => templates.publish.clone(),
            false => templates.sign.clone(),
        };
        entry.gun = self.gun.to_string();
        if self.released {
            self.released = false;
            entry.version = self.mark.version;
            let released = vec![(RoleName::Targets, self.mark)];
            let state = published(&state, &released);
            self.history.collections.insert(self.lineage, state);
            return Write::Report(Report {
                gun: self.gun.clone(),
                lineage: self.lineage,
                released,
                arrived: true,
                entry,
            });
        }
        self.released = true;
        self.mark = Mark {
            version: self.mark.version + 1,
            hash: Sha256::digest(self.mark.hash).into(),
        };
        entry.version = self.mark.version;
        entry.payload = Some(self.mark.hash);
        let role = state.roles.entry(RoleName::Targets).or_default();
        role.signed = Some((self.mark, Standing::Released));
        let decided_on = self.history.clone();
        self.history.collections.insert(self.lineage, state.clone());
        Write::Release(Release {
            gun: self.gun.clone(),
            decided_on,
            pass: Pass {
                lineage: self.lineage,
                state,
                new_lineage,
                superseded_lineages: Vec::new(),
                supersedes: Vec::new(),
                overrides: Vec::new(),
            },
            root_wire: None,
            entries: vec![entry],
        })
    }
}

fn fill(home: &Path, entries: u64, templates: &Templates) -> Result<()> {
    let mut ledger = Ledger::open(home)?;
    let mut all = (0..GROUP)
        .map(Growing::new)
        .collect::<Result<Vec<Growing>>>()?;
    let mut left = usize::try_from(entries)?;
    while left > 0 {
        let now_written = left.min(GROUP);
        let group: Vec<Write> = all
            .iter_mut()
            .take(now_written)
            .map(|one| one.next(templates))
            .collect();
        for written in ledger.write_many(&group) {
            written?;
        }
        left -= now_written;
    }
    Ok(())
}
