//! Many connections, few of them at work: does anybody starve, and what does the agent hold.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use signet_proto::v1::{HelloRequest, agent_client::AgentClient};
use signet_trust::Algorithm;
use tonic::transport::Channel;

use super::{
    agent::OwnAgent,
    cost, now,
    signatures::{bring, fresh_in, gun, until},
    socket::{Publisher, Signs as _, Way, channel, connect},
    table::{Table, memory, middle, percentile, time},
};
use crate::Lab;

/// Clients at work, each on a collection of its own.
const BUSY: usize = 32;
/// Connections that have said hello and nothing since.
const IDLE: usize = 500;
/// Between two connections that come while the others are at work.
const PAUSE: Duration = Duration::from_millis(20);

/// Measures `span` without idle connections and `span` with them.
///
/// # Errors
///
/// When the agent refuses somebody.
pub async fn table(lab: &Lab, span: Duration) -> Result<Table> {
    let mut table = Table::new(
        "32 clients that report, ledger on this machine's disk, and idle connections beside them",
        &[
            "idle",
            "signatures/s",
            "median",
            "p99",
            "longest",
            "of each client: fewest, most",
            "one more's hello: median",
            "longest",
            "agent's CPU each",
            "resident",
            "peak",
        ],
    );
    let dir = fresh_in("/var/tmp")?;
    let agent = OwnAgent::at(lab, dir.path());
    let mut clients = Vec::new();
    for number in 0..BUSY {
        let gun = gun(number);
        clients.push(Publisher::new(
            Way::None,
            true,
            &gun,
            Algorithm::P256,
            now()?,
        )?);
    }
    bring(&agent, &clients)?;
    // What the agent needed for the keys' import is not what is measured.
    agent.stop()?;
    agent.unlock();
    let socket = agent.home.socket();
    let pid = agent.pid()?;
    for client in &mut clients {
        client.ask(connect(&socket).await?);
        client.sign().await?;
    }
    let mut idle: Vec<Channel> = Vec::new();
    for wanted in [0, IDLE] {
        while idle.len() < wanted {
            idle.push(hello(&socket).await?.0);
        }
        // "5" resets the peak resident size (proc(5), clear_refs).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        let before = cost::cpu_of(pid)?;
        let start = Instant::now();
        let tasks: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                tokio::spawn(async move {
                    let times = until(&mut client, span).await?;
                    anyhow::Ok((client, times))
                })
            })
            .collect();
        let come = socket.clone();
        let coming = tokio::spawn(async move { coming(&come, span).await });
        clients = Vec::new();
        let (mut all, mut counts) = (Vec::new(), Vec::new());
        for task in tasks {
            let (client, times) = task.await??;
            clients.push(client);
            counts.push(times.len());
            all.extend(times);
        }
        let took = start.elapsed();
        let hellos = coming.await??;
        let cpu = cost::cpu_of(pid)?.saturating_sub(before);
        table.row(&[
            idle.len().to_string(),
            format!("{:.0}", all.len() as f64 / took.as_secs_f64()),
            time(middle(all.clone())),
            time(percentile(all.clone(), 99)),
            time(longest(&all)),
            format!(
                "{}, {}",
                counts.iter().min().unwrap_or(&0),
                counts.iter().max().unwrap_or(&0)
            ),
            time(middle(hellos.clone())),
            time(longest(&hellos)),
            time(cpu / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1)),
            memory(cost::resident_of(pid)?),
            memory(cost::peak_of(pid)?),
        ]);
    }
    drop(idle);
    agent.stop()?;
    Ok(table)
}

fn longest(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap_or_default()
}

/// Connects and is greeted; how long both took.
async fn hello(socket: &Path) -> Result<(Channel, Duration)> {
    let start = Instant::now();
    let channel = channel(socket).await?;
    let request = HelloRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    AgentClient::new(channel.clone()).hello(request).await?;
    Ok((channel, start.elapsed()))
}

/// One connection after the other, for some time.
async fn coming(socket: &Path, span: Duration) -> Result<Vec<Duration>> {
    let start = Instant::now();
    let mut took = Vec::new();
    while start.elapsed() < span {
        took.push(hello(socket).await?.1);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}
