//! `signet-bench`: the table of `make bench`.
//!
//! Everything is measured side by side in one run, against the real peers of the lab. Figures are
//! medians of `--runs` runs (10). Works with release builds of `signet` and `signetd` beside it.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use signet_tests::{
    Lab, Run as _,
    bench::{
        agent::OwnAgent,
        backup, cards,
        collection::Collection,
        connections,
        cost::{self, Cost},
        decision, ledger, now, signatures,
        table::{Table, memory, middle, ratio, time},
    },
    lab::built,
};
use signet_trust::{Algorithm, PrivateKey};

#[derive(clap::Parser)]
struct Options {
    /// Runs of each command
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Seconds for each throughput figure
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Tags of the collections to sign in
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10_000, 50_000])]
    tags: Vec<usize>,
    /// Entries of the log that is verified
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Only these parts: primitive, socket, ledger, decision, connections, sign, verify, start,
    /// backup, cards
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Of the signatures only these rows, by their words (for a profile): signet, process,
    /// reported, notary-signer; p256, ed25519; disk, tmpfs
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() -> Result<ExitCode> {
    if let Some(ended) = cost::measured_run() {
        return Ok(ended);
    }
    let options = <Options as clap::Parser>::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let lab = Lab::builder().notary().build();
    if options.wants("primitive") {
        print(&primitive()?)?;
    }
    if options.wants("socket") {
        let span = Duration::from_secs(options.seconds);
        print(&runtime.block_on(signatures::table(&lab, span, &options.rows))?)?;
    }
    if options.wants("ledger") {
        let span = Duration::from_secs(options.seconds);
        print(&runtime.block_on(ledger::signatures(&lab, span))?)?;
        let large = ledger::large_log(&lab, options.entries, options.runs);
        print(&runtime.block_on(large)?)?;
    }
    if options.wants("decision") {
        let tags = options.tags.iter().max().copied().unwrap_or(1);
        print(&runtime.block_on(decision::summary(&lab, tags, options.runs))?)?;
        print(&decision::decisions(&lab, tags)?)?;
    }
    if options.wants("connections") {
        let span = Duration::from_secs(options.seconds);
        print(&runtime.block_on(connections::table(&lab, span))?)?;
    }
    if options.wants("sign") {
        print(&signs(&runtime, &lab, &options)?)?;
    }
    if options.wants("verify") {
        print(&verifies(&runtime, &lab, &options)?)?;
    }
    if options.wants("start") {
        print(&starts(&lab, &options)?)?;
    }
    if options.wants("backup") {
        print(&backup::table(&lab, options.runs)?)?;
    }
    if options.wants("cards") {
        print(&cards::table(&lab, options.runs)?)?;
        let span = Duration::from_secs(options.seconds);
        print(&runtime.block_on(cards::held::table(&lab, options.runs, span))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The bare operations, on this machine.
fn primitive() -> Result<Table> {
    let mut table = Table::new(
        "Bare primitives, one thread",
        &["algorithm", "sign", "verify"],
    );
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let key = PrivateKey::generate(algorithm)?;
        let message = [0x5a; 600];
        let method = key.public().method();
        let mut signing = Vec::new();
        let mut verifying = Vec::new();
        for _ in 0..2_000 {
            let start = Instant::now();
            let signature = key.sign(&message)?;
            signing.push(start.elapsed());
            let start = Instant::now();
            key.public().verify(method, &message, &signature)?;
            verifying.push(start.elapsed());
        }
        table.row(&[
            algorithm.name(),
            time(middle(signing)),
            time(middle(verifying)),
        ]);
    }
    Ok(table)
}

/// A collection on the lab's server, its keys with signet and with notary, both caches warm.
struct Scene {
    agent: OwnAgent,
    notary_dir: PathBuf,
    gun: String,
}

impl Scene {
    fn new(runtime: &tokio::runtime::Runtime, lab: &Lab, tags: usize) -> Result<Self> {
        let gun = format!("127.0.0.1:5000/bench/of-{tags}");
        let collection = Collection::new(&gun, Algorithm::P256, now()?)?;
        runtime.block_on(collection.publish(lab.trust_server(), tags, now()?))?;
        let notary_dir = lab.fresh_dir("n");
        collection.write_keys(&notary_dir)?;
        let agent = OwnAgent::in_lab(lab);
        agent.import(&[&collection])?;
        agent.unlock();
        let scene = Self {
            agent,
            notary_dir,
            gun,
        };
        cost::of(&mut scene.notary(lab, "warm"), None)?;
        cost::of(&mut scene.signet("warm"), None)?;
        Ok(scene)
    }

    fn notary(&self, lab: &Lab, tag: &str) -> Command {
        let mut command = lab.notary(&self.notary_dir);
        command.args(["addhash", &self.gun, tag, "528", "--sha256", DIGEST, "-p"]);
        command
    }

    fn signet(&self, tag: &str) -> Command {
        let mut command = self.agent.home.signet();
        command.args(["--no-input", "sign", "--size", "528"]);
        command.arg(format!("{}:{tag}@sha256:{DIGEST}", self.gun));
        command
    }
}

/// `signet sign` beside `notary addhash -p`, each raising the same collection.
fn signs(runtime: &tokio::runtime::Runtime, lab: &Lab, options: &Options) -> Result<Table> {
    let mut table = Table::new(
        "One tag signed and published: signet (command and agent together) beside notary",
        &[
            "tags",
            "who",
            "wall",
            "CPU",
            "peak memory",
            "server's CPU",
            "wall ratio",
            "CPU ratio",
            "memory ratio",
        ],
    );
    for &tags in &options.tags {
        let scene = Scene::new(runtime, lab, tags)?;
        let agent = scene.agent.pid()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut server_ours, mut server_theirs) = (Vec::new(), Vec::new());
        for run in 0..options.runs {
            let tag = format!("run-{run}");
            let server = server_cpu(lab)?;
            ours.push(cost::of(&mut scene.signet(&tag), Some(agent))?);
            server_ours.push(server_cpu(lab)?.saturating_sub(server));
            let server = server_cpu(lab)?;
            // Another tag: notary publishes nothing when nothing changed.
            let tag = format!("notary-{run}");
            theirs.push(cost::of(&mut scene.notary(lab, &tag), None)?);
            server_theirs.push(server_cpu(lab)?.saturating_sub(server));
        }
        let (ours, theirs) = (cost::median(ours), cost::median(theirs));
        table.row(&cells(
            tags,
            "signet sign",
            ours,
            middle(server_ours),
            Some(theirs),
        ));
        table.row(&cells(
            tags,
            "notary addhash -p",
            theirs,
            middle(server_theirs),
            None,
        ));
    }
    Ok(table)
}

fn cells(
    tags: usize,
    who: &str,
    run: Cost,
    server: Duration,
    against: Option<Cost>,
) -> Vec<String> {
    let mut cells = vec![
        tags.to_string(),
        who.to_owned(),
        time(run.wall),
        time(run.cpu),
        memory(run.peak),
        time(server),
    ];
    if let Some(other) = against {
        cells.push(ratio(run.wall.as_secs_f64(), other.wall.as_secs_f64()));
        cells.push(ratio(run.cpu.as_secs_f64(), other.cpu.as_secs_f64()));
        cells.push(ratio(run.peak as f64, other.peak as f64));
    }
    cells
}

/// `signet verify` beside `docker trust inspect`.
fn verifies(runtime: &tokio::runtime::Runtime, lab: &Lab, options: &Options) -> Result<Table> {
    let mut table = Table::new(
        "Asking for one signed tag of a collection with one tag",
        &["who", "wall", "CPU", "peak memory"],
    );
    let scene = Scene::new(runtime, lab, 2)?;
    let image = format!("{}:warm", scene.gun);
    let mut verify = Vec::new();
    let mut inspect = Vec::new();
    for _ in 0..options.runs {
        verify.push(cost::of(
            scene.agent.home.signet().args(["verify", &image]),
            None,
        )?);
        let cli = *signet_tests::Cli::all()
            .first()
            .context("no docker command")?;
        let mut docker = lab.docker_trusted(cli, &scene.agent.config);
        inspect.push(cost::of(docker.args(["trust", "inspect", &image]), None)?);
    }
    for (who, runs) in [("signet verify", verify), ("docker trust inspect", inspect)] {
        let run = cost::median(runs);
        table.row(&[
            who.to_owned(),
            time(run.wall),
            time(run.cpu),
            memory(run.peak),
        ]);
    }
    Ok(table)
}

/// Start-up, and what an idle agent holds.
fn starts(lab: &Lab, options: &Options) -> Result<Table> {
    let mut table = Table::new("Start", &["what", "figure"]);
    let mut version = Vec::new();
    for _ in 0..options.runs {
        let mut command = Command::new(built("signet"));
        version.push(cost::of(
            command.arg("--version").stdin(Stdio::null()),
            None,
        )?);
    }
    table.row(&[
        "signet --version".to_owned(),
        time(cost::median(version).wall),
    ]);
    let mut answers = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..options.runs {
        let home = lab.home();
        let start = Instant::now();
        let mut agent = home
            .signetd()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        while std::os::unix::net::UnixStream::connect(home.socket()).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                bail!("signetd does not answer");
            }
            std::thread::yield_now();
        }
        home.signet().args(["status", "--json"]).run().ok();
        answers.push(start.elapsed());
        // It gives memory back when nobody has been connected for two seconds.
        std::thread::sleep(Duration::from_secs(3));
        resident.push(cost::resident_of(agent.id())?);
        home.signet().args(["agent", "stop"]).run().ok();
        agent.wait()?;
    }
    table.row(&[
        "agent start to first `signet status`".to_owned(),
        time(middle(answers)),
    ]);
    resident.sort_unstable();
    table.row(&[
        "agent resident, idle for 3 s".to_owned(),
        memory(resident[resident.len() / 2]),
    ]);
    Ok(table)
}

/// CPU time of notary-server and notary-signer so far.
fn server_cpu(lab: &Lab) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in lab.pids() {
        total += cost::cpu_of(pid)?;
    }
    Ok(total)
}

fn print(table: &Table) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(table.render().as_bytes())?;
    Ok(out.flush()?)
}

/// A manifest digest, as good as any.
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
