//! Mutations of a corpus, from a seed: the smoke test of parsers that every machine can run.

use std::{
    fs, io,
    panic::catch_unwind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Target;

/// An input that takes longer is a fault of its own.
const SLOW: Duration = Duration::from_secs(10);
/// Larger inputs find nothing that smaller ones do not.
const MAX_INPUT: usize = 64 << 10;
/// What parsers of lengths and versions stumble over.
const BYTES: [u8; 12] = [
    0, 1, 0x7f, 0x80, 0x81, 0x84, 0xff, b'"', b'{', b'\\', b':', b'\n',
];
const WORDS: [&[u8]; 12] = [
    b"\"version\":",
    b"2147483648",
    b"9007199254740993",
    b"-1",
    b"null",
    b"{}",
    b"[]",
    b"\\ud800",
    b"\xe2\x80\xa8",
    b"-----BEGIN ",
    b"-----END ",
    b"\x30\x80",
];

/// An input that broke its target.
#[derive(Debug)]
pub struct Crash {
    /// Where it was written.
    pub path: PathBuf,
    /// What it did.
    pub what: &'static str,
}

/// The committed corpus of a target, sorted by file name.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn corpus(root: &Path, target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> = fs::read_dir(root.join(target))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Runs one input.
///
/// # Errors
///
/// When it panicked, or took too long; the input is then below `crashes`.
pub fn run(target: Target, input: &[u8], crashes: &Path) -> Result<(), Crash> {
    let (name, function) = target;
    let start = Instant::now();
    let result = catch_unwind(|| function(input));
    let what = match result {
        Err(_) => "it panics",
        Ok(()) if start.elapsed() > SLOW => "it takes more than ten seconds",
        Ok(()) => return Ok(()),
    };
    let path = crashes.join(format!("crash-{name}-{:016x}", hash(input)));
    let written = fs::create_dir_all(crashes).and_then(|()| fs::write(&path, input));
    written.expect("a crash can be written down");
    Err(Crash { path, what })
}

/// Mutates the corpus until the time is over; the number of inputs run.
///
/// # Errors
///
/// The first crash.
pub fn mutate(
    target: Target,
    corpus: &[Vec<u8>],
    seed: u64,
    time: Duration,
    crashes: &Path,
) -> Result<u64, Crash> {
    let mut random = Random(seed ^ hash(target.0.as_bytes()));
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let mut input = random.pick(corpus).cloned().unwrap_or_default();
        for _ in 0..=random.below(6) {
            change(&mut input, corpus, &mut random);
        }
        input.truncate(MAX_INPUT);
        run(target, &input, crashes)?;
        count += 1;
    }
    Ok(count)
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = random.below(32).min(input.len() - at);
    match random.below(8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = BYTES[random.below(BYTES.len())];
            }
        }
        2 => drop(input.drain(at..at + length)),
        3 => {
            let copy = input[at..at + length].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, copy);
        }
        4 => drop(input.splice(
            at..at + length,
            WORDS[random.below(WORDS.len())].iter().copied(),
        )),
        5 => input.insert(at, BYTES[random.below(BYTES.len())]),
        6 => input.truncate(at),
        _ => {
            if let Some(other) = random.pick(corpus) {
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
        }
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64: the same inputs from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, or 0 where that is impossible.
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).expect("lengths fit into 64 bits");
        usize::try_from(self.next() % limit).expect("below a length")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
