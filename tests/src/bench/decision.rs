//! How soon a person sees what is asked, and what guard and policy take for their answer.

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use signet_agent::{
    config::Config,
    policy::{Asked, Decision, Kind, Verdict, decide},
};
use signet_trust::{
    Algorithm, RoleName,
    base::{RecordedRoot, VerifiedBase},
    document::{Body as _, Tags},
    guard::{self, History, Pass, Question, Refusal, Rule, State},
    payload::{Item, Payload},
};

use super::{
    agent::OwnAgent,
    collection::target,
    now,
    signatures::{bring, gun},
    socket::{Publisher, Signs as _, Way, connect},
    table::{Table, middle, percentile, time},
};
use crate::{Lab, Run as _};

/// Rules before the one that decides.
const RULES: usize = 20;
/// Times that something quick is done.
const QUICK: usize = 2_000;
/// And something that has to read documents.
const SLOW: usize = 200;
/// Tags that a summary names one by one.
const FEW: usize = 4;
const YEAR: i64 = 365 * 24 * 60 * 60;

/// From the first byte of a request with this many tags to the prompt that shows its summary, the
/// agent being locked.
///
/// # Errors
///
/// When the agent does anything but ask.
pub async fn summary(lab: &Lab, tags: usize, runs: usize) -> Result<Table> {
    let mut table = Table::new(
        &format!("A change of {tags} tags, from the first byte sent to its summary shown"),
        &["change", "base", "median", "longest", "lines shown"],
    );
    let agent = OwnAgent::in_lab(lab);
    let new = |number: usize, tags: usize| {
        Publisher::with_tags(
            Way::None,
            false,
            &gun(number),
            Algorithm::P256,
            now()?,
            tags,
        )
    };
    let mut clients = [new(0, 1)?, new(1, tags)?];
    bring(&agent, &clients)?;
    for client in &mut clients {
        client.ask(connect(&agent.home.socket()).await?);
    }
    let [small, large] = &mut clients;
    for (client, change, base) in [
        (small, "added to one tag", "sent along"),
        (large, "all changed", "sent along"),
    ] {
        agent.home.signet().arg("lock").run().ok();
        shown(&mut table, client, change, base, tags, runs).await?;
    }
    // A signature later the agent has the base, and the command names it by its hash.
    let [_, large] = &mut clients;
    agent.unlock();
    large.sign().await?;
    agent.home.signet().arg("lock").run().ok();
    let base = "named by hash";
    shown(&mut table, large, "all changed", base, tags, runs).await?;
    agent.stop()?;
    Ok(table)
}

async fn shown(
    table: &mut Table,
    client: &mut Publisher,
    change: &str,
    base: &str,
    tags: usize,
    runs: usize,
) -> Result<()> {
    let mut times = Vec::new();
    let mut words = Vec::new();
    for run in 0..runs.max(1) {
        let first = (run + 1) * tags;
        let change: Tags = (0..tags)
            .map(|number| {
                let target = target((first + number) as u64);
                (format!("v1.0.{number}"), target)
            })
            .collect();
        let (took, lines) = client.until_shown(change).await?;
        let counted = lines.iter().any(|line| line.contains(" more "));
        ensure!(counted || tags < FEW, "no summary: {lines:?}");
        times.push(took);
        words = lines;
    }
    table.row(&[
        change.to_owned(),
        base.to_owned(),
        time(middle(times.clone())),
        time(percentile(times, 99)),
        words.len().to_string(),
    ]);
    Ok(())
}

/// Guard and policy by themselves, and what a request that is refused costs before its refusal.
///
/// # Errors
///
/// When one of them answers otherwise than it should.
pub fn decisions(lab: &Lab, tags: usize) -> Result<Table> {
    let mut table = Table::new(
        "Guard and decision, in process",
        &["what", "tags", "median", "p99"],
    );
    let small = Scene::new(1)?;
    let large = Scene::new(tags)?;
    let mut row = |what: &str, tags: usize, times: Vec<Duration>| {
        table.row(&[
            what.to_owned(),
            tags.to_string(),
            time(middle(times.clone())),
            time(percentile(times, 99)),
        ]);
    };
    for (scene, tags) in [(&small, 1), (&large, tags)] {
        let passes = scene.times(QUICK, || scene.pass())?;
        row("guard, passed", tags, passes);
        let refusals = scene.times(QUICK, || scene.refuse(&scene.base, &scene.again))?;
        row("guard, refused (rollback)", tags, refusals);
    }
    let config = config(lab)?;
    let decided = small.times(QUICK, || small.decided(&config))?;
    row("policy, the last of 20 rules decides", 1, decided);
    let whole = small.times(SLOW, || {
        let base = small.verified()?;
        let payload = Payload::read(small.again[0].payload.bytes().to_vec());
        let items = [Item {
            payload,
            ..small.again[0].clone()
        }];
        small.decided(&config)?;
        small.refuse(&base, &items)
    })?;
    row(
        "payload read, base verified, policy, guard refuses",
        1,
        whole,
    );
    Ok(table)
}

/// Rules about other collections, and one about these.
fn config(lab: &Lab) -> Result<Config> {
    let mut text = String::new();
    for number in 1..RULES {
        text.push_str(&format!(
            "[[policy]]\nname = \"rule {number}\"\nguns = [\"reg{number}.example/*/app-*\"]\n\
             roles = [\"targets\", \"targets/*\"]\ndo = \"ask\"\ngrade = 3\n"
        ));
    }
    text.push_str("[[policy]]\nname = \"last\"\nguns = [\"docker.io/bench/*\"]\ndo = \"allow\"\n");
    let dir = lab.fresh_dir("p");
    fs::write(dir.join("agent.toml"), text)?;
    Ok(Config::load(&dir)?)
}

/// A published collection, a document that may be signed next, and one that may not.
struct Scene {
    publisher: Publisher,
    base: VerifiedBase,
    history: History,
    now: i64,
    next: Vec<Item>,
    again: Vec<Item>,
}

impl Scene {
    fn new(tags: usize) -> Result<Self> {
        let now = now()?;
        let publisher =
            Publisher::with_tags(Way::None, false, &gun(0), Algorithm::P256, now, tags)?;
        let base = verified(&publisher, now)?;
        let lineage = base.own_lineage();
        let state = guard::observe(&State::default(), &base);
        let mut next = publisher.targets().clone();
        next.targets = (0..tags)
            .map(|number| {
                let target = target((tags + number) as u64);
                (format!("v1.0.{number}"), target)
            })
            .collect();
        let again = vec![item(&publisher, next.canonical())];
        next.version += 1;
        Ok(Self {
            next: vec![item(&publisher, next.canonical())],
            again,
            publisher,
            base,
            history: History {
                collections: [(lineage, state)].into(),
            },
            now,
        })
    }

    fn verified(&self) -> Result<VerifiedBase> {
        verified(&self.publisher, self.now)
    }

    fn asked(&self, base: &VerifiedBase, items: &[Item]) -> Result<Pass, Refusal> {
        let question = Question {
            gun: &self.publisher.collection().gun,
            base: Some(base),
            items,
            allow: &[],
            now: self.now,
            creating: false,
        };
        guard::check(&self.history, &question)
    }

    fn pass(&self) -> Result<()> {
        black_box(
            self.asked(&self.base, &self.next)
                .map_err(|why| anyhow::anyhow!("the guard refuses what it should not: {why}"))?,
        );
        Ok(())
    }

    fn refuse(&self, base: &VerifiedBase, items: &[Item]) -> Result<()> {
        match black_box(self.asked(base, items)) {
            Err(refusal) if refusal.rule() == Rule::Rollback => Ok(()),
            other => bail!("the guard says otherwise: {other:?}"),
        }
    }

    fn decided(&self, config: &Config) -> Result<()> {
        let collection = self.publisher.collection();
        let key = collection.targets.public().id().to_string();
        let asked = Asked {
            gun: collection.gun.as_str(),
            role: "targets",
            key: &key,
            label: "",
            payload: Kind::Targets,
            expires: Some(self.now + YEAR),
            exe: None,
            cgroup: None,
            confirmed: true,
            overrides: false,
            signed_today: 0,
            now: self.now,
        };
        let Decision { rule, verdict, .. } = black_box(decide(&config.policy, &asked));
        let right = verdict == Verdict::Allow && rule.as_deref() == Some("last");
        ensure!(right, "the rule {rule:?} decides");
        Ok(())
    }

    fn times(&self, count: usize, work: impl Fn() -> Result<()>) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

fn item(publisher: &Publisher, payload: Vec<u8>) -> Item {
    Item {
        role: RoleName::Targets,
        payload: Payload::read(payload),
        key_ids: vec![publisher.collection().targets.public().id()],
    }
}

fn verified(publisher: &Publisher, now: i64) -> Result<VerifiedBase> {
    let gun = &publisher.collection().gun;
    let documents = publisher.documents();
    let wire = documents.roots.first().context("a root")?.clone();
    let first = VerifiedBase::verify(gun, documents.clone(), &[], now)?;
    let recorded = RecordedRoot {
        lineage: first.own_lineage(),
        wire,
    };
    Ok(VerifiedBase::verify(gun, documents, &[recorded], now)?)
}
