//! Mutates the corpus of every fuzz target for some seconds each, on a stable toolchain.
//!
//! `fuzz-smoke --seconds 20 [TARGET…]`; an input that breaks its target is left in `target/fuzz`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is its purpose"
)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use signet_tests::fuzzing::{TARGETS, mutate};

#[derive(Parser)]
#[command(about = "Mutates the corpus of every fuzz target for some seconds each")]
struct Arguments {
    /// For each target
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Repeats a run; a new one each time without it
    #[arg(long)]
    seed: Option<u64>,
    /// Only these
    targets: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crashes: PathBuf = here.join("../target/fuzz");
    if let Some(unknown) = arguments
        .targets
        .iter()
        .find(|name| TARGETS.iter().all(|(known, _)| known != name))
    {
        bail!("{unknown:?} is no fuzz target");
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("seed {seed}, {} s each", arguments.seconds);
    for target in TARGETS {
        let name = target.0;
        if !arguments.targets.is_empty() && !arguments.targets.iter().any(|wanted| wanted == name) {
            continue;
        }
        let corpus = mutate::corpus(&here.join("fuzz/corpus"), name)
            .with_context(|| format!("the corpus of {name}"))?;
        let time = Duration::from_secs(arguments.seconds);
        match mutate::mutate(target, &corpus, seed, time, &crashes) {
            Ok(count) => println!("{name:16} {count:>10} inputs, none broke it"),
            Err(crash) => bail!("{name}: {} with {}", crash.what, crash.path.display()),
        }
    }
    Ok(())
}
