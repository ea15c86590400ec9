//! What the agent adds to a card's own time, from caller to caller: one client with the PIN held,
//! many at once, a card that comes back, and how soon a caller learns that it is to be touched.
//! Beside it a session of libykcs11 that is held open: one login, then signatures only.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::now;
use super::super::socket::{Publisher, Signs as _, Way, connect};
use super::super::table::{Table, middle, percentile, time};
use super::{COMPUTING, PIN, SERIAL, SIGN};
use crate::lab::cards::Card;
use crate::lab::{KEYRING_PASSPHRASE, REPOSITORY_PASSPHRASE};
use crate::{Cards, Firmware, Home, Lab, Run as _};
use signet_trust::Algorithm;

/// Clients at one card.
const CLIENTS: usize = 32;
/// Keys that they sign with: a card has not enough slots for one each.
const KEYS: usize = 8;
/// What the person takes to touch, so that the notice comes before.
const FINGER: Duration = Duration::from_millis(600);
const MODULE: &str = "/usr/lib/x86_64-linux-gnu/libykcs11.so.2";
const YKCS11: &str = include_str!("ykcs11.py");

/// Measures single clients `runs` times, all together for `span`.
///
/// # Errors
///
/// When a program or the agent fails.
pub async fn table(lab: &Lab, runs: usize, span: Duration) -> Result<Table> {
    let cards = Cards::builder().card(Firmware::V5_7, SERIAL).start();
    let card = cards.card(SERIAL);
    let home = lab.home_with(&lab.client_config()).with_cards(&cards);
    home.has_keyrings();
    set_up(&home);
    let mut keys = Vec::new();
    for number in 0..KEYS {
        keys.push(key_on_card(&home, number, "never")?);
    }
    let mut always = key_on_card(&home, KEYS, "always")?;
    let mut cached = key_on_card(&home, KEYS + 1, "cached")?;
    card.delay_of(SIGN, COMPUTING);
    card.touch_cache(Duration::ZERO);

    let mut table = Table::new(
        "Caller to caller, every signature verified twice; the card computes 70 ms",
        &[
            "what",
            "median",
            "p99",
            "over the card's own",
            "exchanges each",
        ],
    );
    let mut first = again(&keys[0]);
    first.ask(connect(&home.socket()).await?);
    let held = alone(&mut first, card, runs).await?;
    row(&mut table, "signet, PIN held", held);
    row(
        &mut table,
        "libykcs11, session held open",
        ykcs11(&cards, card, runs)?,
    );

    let (each, longest) = together(&home, &keys, span).await?;
    let (least, most) = (each.iter().min(), each.iter().max());
    let (least, most) = least.zip(most).context("there are clients")?;
    table.row(&[
        format!("{CLIENTS} clients at one card, signatures of each: {least} to {most}"),
        time(middle(longest.clone())),
        time(percentile(longest, 99)),
    ]);

    let (mut back, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..runs.min(5) {
        card.remove();
        let plugged = Instant::now();
        card.insert();
        let there = Instant::now();
        first.sign().await?;
        back.push(plugged.elapsed());
        seen.push(there.elapsed());
    }
    table.row(&[
        "plugged in again, to signed with the PIN asked".to_owned(),
        time(middle(back)),
    ]);
    table.row(&[
        "the same from when PC/SC sees the card".to_owned(),
        time(middle(seen)),
    ]);

    card.touch_after(FINGER);
    for (what, client) in [("always", &mut always), ("cached", &mut cached)] {
        client.ask(connect(&home.socket()).await?);
        let mut late = Vec::new();
        for _ in 0..runs.min(5) {
            card.reset_stats();
            client.sign().await?;
            let began = card.stats().touches.last().context("no wait")?.begin;
            let noticed = client.touch_noticed().context("no notice")?;
            late.push(Duration::from_nanos(noticed.saturating_sub(began)));
        }
        let longest = percentile(late.clone(), 99);
        table.row(&[
            format!("card waits for a touch ({what}), to the caller told"),
            time(middle(late)),
            time(longest),
        ]);
    }

    // Last, because it takes another agent.
    home.signet().args(["agent", "stop"]).run().ok();
    let config = home.user_home().join(".config/signet");
    fs::create_dir_all(&config)?;
    let setting = format!("[cards.{SERIAL}]\nleave_verified = true\n");
    fs::write(config.join("agent.toml"), setting)?;
    home.signet().arg("status").run().ok();
    let mut first = again(&first);
    first.ask(connect(&home.socket()).await?);
    let left = alone(&mut first, card, runs).await?;
    row(&mut table, "signet, leave_verified", left);
    Ok(table)
}

fn set_up(home: &Home) {
    let mut command = home.with_descriptors(&[(3, PIN)]);
    command
        .args(["card", "setup", "--pin-fd", "3", "--recovery-sheet"])
        .arg(home.user_home().join("sheet"))
        .run()
        .ok();
}

/// A collection whose targets key lies on the card.
fn key_on_card(home: &Home, number: usize, touch: &str) -> Result<Publisher> {
    let gun = format!("docker.io/bench/card{number}");
    let mut publisher = Publisher::new(Way::None, false, &gun, Algorithm::P256, now()?)?;
    publisher.types(PIN);
    let dir = tempfile::tempdir()?;
    let [_, targets] = publisher.collection().write_keys(dir.path())?;
    home.unattended()
        .args(["--yes", "key", "import", "--store", "file"])
        .arg(&targets)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .run()
        .ok();
    let id = publisher.collection().targets.public().id().to_string();
    // libykcs11 calls the key in 9a 01.
    let slot = match number {
        0 => "9a".to_owned(),
        number => format!("{:x}", 0x81 + number),
    };
    let store = format!("piv:{SERIAL}:{slot}");
    home.with_descriptors(&[(3, PIN), (4, KEYRING_PASSPHRASE)])
        .args([
            "--yes",
            "key",
            "move",
            &id,
            "--no-backup",
            "--store",
            &store,
        ])
        .args(["--touch-policy", touch, "--pin-fd", "3"])
        .args(["--passphrase-fd", "keyring:4"])
        .run()
        .ok();
    Ok(publisher)
}

/// Another client of the same collection.
fn again(publisher: &Publisher) -> Publisher {
    let mut again = publisher.again();
    again.types(PIN);
    again
}

struct Figures {
    took: Vec<Duration>,
    exchanges: u64,
}

/// One client alone; the first signature, for which the PIN is asked, does not count.
async fn alone(client: &mut Publisher, card: &Card, runs: usize) -> Result<Figures> {
    client.sign().await?;
    let runs = runs.max(1) * 4;
    card.reset_stats();
    let mut took = Vec::new();
    for _ in 0..runs {
        took.push(client.sign().await?);
    }
    let exchanges = card.stats().exchanges / u64::try_from(runs)?;
    Ok(Figures { took, exchanges })
}

fn ykcs11(cards: &Cards, card: &Card, runs: usize) -> Result<Figures> {
    let runs = runs.max(1) * 4;
    // What a session takes to begin and end is left out of what each signature takes.
    let (_, once) = ykcs11_session(cards, card, 1)?;
    let (took, all) = ykcs11_session(cards, card, runs + 1)?;
    Ok(Figures {
        took,
        exchanges: all.saturating_sub(once) / u64::try_from(runs)?,
    })
}

/// Times of all signatures but the first, and the exchanges of the whole session.
fn ykcs11_session(cards: &Cards, card: &Card, runs: usize) -> Result<(Vec<Duration>, u64)> {
    card.reset_stats();
    let mut command = cards.command("python3");
    command
        .args(["-c", YKCS11, MODULE, &runs.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("it is piped")?;
    writeln!(stdin, "{PIN}")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "libykcs11 fails");
    let took = std::str::from_utf8(&output.stdout)?
        .lines()
        .skip(1)
        .map(|line| Ok(Duration::from_nanos(line.parse()?)))
        .collect::<Result<_>>()?;
    Ok((took, card.stats().exchanges))
}

/// How many signatures each client got, and the times of all of them.
async fn together(
    home: &Home,
    keys: &[Publisher],
    span: Duration,
) -> Result<(Vec<usize>, Vec<Duration>)> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = again(&keys[number % keys.len()]);
        client.ask(connect(&home.socket()).await?);
        clients.push(client);
    }
    for client in &mut clients {
        client.sign().await?;
    }
    let end = Instant::now() + span;
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    took.push(client.sign().await?);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let (mut each, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let took = task.await??;
        each.push(took.len());
        all.extend(took);
    }
    Ok((each, all))
}

fn row(table: &mut Table, what: &str, figures: Figures) {
    let median = middle(figures.took.clone());
    table.row(&[
        what.to_owned(),
        time(median),
        time(percentile(figures.took, 99)),
        time(median.saturating_sub(COMPUTING)),
        figures.exchanges.to_string(),
    ]);
}
