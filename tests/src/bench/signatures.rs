//! Signatures by the agent over its socket, by the same code without one, and by `notary-signer`.
//!
//! All of them are asked by the same kind of client: a task and a connection for each, one document
//! after the other, every signature verified. The agent verifies the base once and gets it by hash
//! from then on, asks its guard, verifies what it signed and records it before it is released.
//! `notary-signer` does none of this, and nothing there corresponds to the report of what was
//! published: rows with it are a second request, and a second transaction of the ledger.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use signet_agent::{config::Config, keyring::Keyring, service::Shared};
use signet_trust::Algorithm;
use tempfile::TempDir;

use super::{
    agent::OwnAgent,
    cost, notary, now,
    socket::{Publisher, Signs, Way, connect},
    table::{Table, middle, percentile, time},
};
use crate::lab::Lab;

/// Clients at once, each on a collection of its own.
pub(super) const CLIENTS: usize = 16;
/// Where the ledger lies; nowhere for who has none.
const PLACES: [(&str, Option<&str>); 3] = [
    ("disk", Some("/var/tmp")),
    ("tmpfs", Some("/dev/shm")),
    ("none", None),
];
const HEADS: [&str; 10] = [
    "who",
    "algorithm",
    "ledger",
    "1 client: median",
    "p99",
    "16 clients: signatures/s",
    "median",
    "CPU each: signer",
    "client",
    "1 client: over in process",
];

/// Who signs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The agent's code in this process.
    Process,
    /// The agent over its socket.
    Agent,
    /// The same, told that what it signed was published.
    Reported,
    Notary,
}

impl Who {
    fn words(self) -> &'static str {
        match self {
            Self::Process => "signet, in process",
            Self::Agent => "signet",
            Self::Reported => "signet, reported",
            Self::Notary => "notary-signer",
        }
    }
}

/// Measures each for `span` with one client, and for as long with sixteen. `wanted`: words that a
/// row must have, none for all rows.
///
/// # Errors
///
/// When a signer refuses.
pub async fn table(lab: &Lab, span: Duration, wanted: &[String]) -> Result<Table> {
    let mut table = Table::new("Signatures, verified by signer and client", &HEADS);
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        for (place, parent) in PLACES {
            let mut inside = None;
            for who in [Who::Process, Who::Agent, Who::Reported, Who::Notary] {
                let row = [who.words(), &algorithm.name(), place].join(" ");
                let has = |word: &String| row.split([' ', ',']).any(|part| part == word);
                if (who == Who::Notary) != (parent.is_none()) || !wanted.iter().all(has) {
                    continue;
                }
                let figures = match (who, parent) {
                    (Who::Notary, _) | (_, None) => by_notary(lab, algorithm, span).await?,
                    (Who::Process, Some(parent)) => {
                        in_process(lab, &fresh_in(parent)?, algorithm, span).await?
                    }
                    (Who::Agent | Who::Reported, Some(parent)) => {
                        let dir = fresh_in(parent)?;
                        over_socket(lab, &dir, algorithm, who == Who::Reported, span).await?
                    }
                };
                let mut cells = figures.cells(who.words(), algorithm, place);
                let median = middle(figures.alone);
                match (who, inside) {
                    (Who::Process, _) => inside = Some(median),
                    (Who::Agent, Some(inside)) => cells.push(time(median.saturating_sub(inside))),
                    _ => {}
                }
                table.row(&cells);
            }
        }
    }
    Ok(table)
}

pub(super) fn fresh_in(parent: &str) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("sb").tempdir_in(parent)?)
}

async fn over_socket(
    lab: &Lab,
    dir: &TempDir,
    algorithm: Algorithm,
    reports: bool,
    span: Duration,
) -> Result<Figures> {
    let agent = OwnAgent::at(lab, dir.path());
    agent.unlock();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let way = connect(&agent.home.socket()).await?;
        clients.push(Publisher::new(
            way,
            reports,
            &gun(number),
            algorithm,
            now()?,
        )?);
    }
    bring(&agent, &clients)?;
    drive(clients, &[agent.pid()?], span).await
}

async fn in_process(
    lab: &Lab,
    dir: &TempDir,
    algorithm: Algorithm,
    span: Duration,
) -> Result<Figures> {
    let agent = OwnAgent::at(lab, dir.path());
    let home = agent.home.path();
    // Keys come in by the command; the agent that it starts makes room for this process.
    let way = Way::None;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Publisher::new(
            way.clone(),
            false,
            &gun(number),
            algorithm,
            now()?,
        )?);
    }
    bring(&agent, &clients)?;
    agent.stop()?;
    let config = Config::load(&home)?;
    let keyring = Keyring::open(&home, &agent.config, &config)?;
    let shared = Arc::new(Shared::new(&home, &agent.config, &config, keyring));
    for client in &mut clients {
        client.ask(Way::Process(Arc::clone(&shared)));
    }
    drive(clients, &[], span).await
}

async fn by_notary(lab: &Lab, algorithm: Algorithm, span: Duration) -> Result<Figures> {
    let name = match algorithm {
        Algorithm::P256 => "ecdsa",
        _ => "ed25519",
    };
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(notary::Signer::new(lab, name, &gun(number)).await?);
    }
    drive(clients, &lab.pids(), span).await
}

pub(super) fn bring(agent: &OwnAgent, clients: &[Publisher]) -> Result<()> {
    let collections: Vec<_> = clients.iter().map(Publisher::collection).collect();
    agent.import(&collections)
}

pub(super) fn gun(number: usize) -> String {
    format!("docker.io/bench/c{number}")
}

pub(super) struct Figures {
    pub(super) alone: Vec<Duration>,
    pub(super) together: Vec<Duration>,
    pub(super) per_second: f64,
    /// CPU time per signature with all clients.
    signer: Duration,
    client: Duration,
}

/// One client alone, then all at once, each for some time.
pub(super) async fn drive<C: Signs>(
    mut clients: Vec<C>,
    signer: &[u32],
    span: Duration,
) -> Result<Figures> {
    for client in &mut clients {
        client.sign().await?;
    }
    let mut first = clients.swap_remove(0);
    let alone = tokio::spawn(async move {
        let took = until(&mut first, span).await?;
        anyhow::Ok((first, took))
    });
    let (first, alone) = alone.await??;
    clients.push(first);
    let before = (cpu_of(signer)?, cpu_of(&[std::process::id()])?);
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| tokio::spawn(async move { until(&mut client, span).await }))
        .collect();
    let mut together = Vec::new();
    for task in tasks {
        together.extend(task.await??);
    }
    let per_second = together.len() as f64 / start.elapsed().as_secs_f64();
    let each = |spent: Duration| spent / u32::try_from(together.len()).unwrap_or(u32::MAX).max(1);
    Ok(Figures {
        signer: each(cpu_of(signer)?.saturating_sub(before.0)),
        client: each(cpu_of(&[std::process::id()])?.saturating_sub(before.1)),
        alone,
        together,
        per_second,
    })
}

pub(super) async fn until<C: Signs>(client: &mut C, span: Duration) -> Result<Vec<Duration>> {
    let start = Instant::now();
    let mut took = Vec::new();
    while start.elapsed() < span {
        took.push(client.sign().await?);
    }
    Ok(took)
}

fn cpu_of(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cost::cpu_of(*pid)).sum()
}

impl Figures {
    fn cells(&self, who: &str, algorithm: Algorithm, place: &str) -> Vec<String> {
        vec![
            who.to_owned(),
            algorithm.name(),
            place.to_owned(),
            time(middle(self.alone.clone())),
            time(percentile(self.alone.clone(), 99)),
            format!("{:.0}", self.per_second),
            time(middle(self.together.clone())),
            time(self.signer),
            time(self.client),
        ]
    }
}
