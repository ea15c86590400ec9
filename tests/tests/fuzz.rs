//! The fuzz targets on a stable toolchain: the committed corpus, and some seconds of mutations.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use signet_tests::fuzzing::{TARGETS, mutate};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn crashes() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz")
}

#[test]
fn the_corpus_breaks_no_target() {
    for target in TARGETS {
        let corpus = mutate::corpus(&root(), target.0).expect(target.0);
        assert!(
            (1..40).contains(&corpus.len()),
            "{}: {} files",
            target.0,
            corpus.len()
        );
        for input in corpus {
            if let Err(crash) = mutate::run(target, &input, &crashes()) {
                panic!("{}: {} with {}", target.0, crash.what, crash.path.display());
            }
        }
    }
}

/// `SIGNET_FUZZ_SECONDS` for each target (2).
#[test]
fn mutations_of_the_corpus_break_no_target() {
    let seconds = std::env::var("SIGNET_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| {
        text.parse().expect("SIGNET_FUZZ_SECONDS is a number")
    });
    for target in TARGETS {
        let corpus = mutate::corpus(&root(), target.0).expect(target.0);
        let time = Duration::from_secs(seconds);
        if let Err(crash) = mutate::mutate(target, &corpus, 20_261_121, time, &crashes()) {
            panic!("{}: {} with {}", target.0, crash.what, crash.path.display());
        }
    }
}
