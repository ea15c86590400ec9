//! What a large collection takes in memory: bytes allocated at once, by an allocator that counts.
//!
//! A collection of 50,000 tags is 4.6 MiB of JSON. It is held as these bytes and as a document of
//! some 60 bytes a tag; whatever else reading, editing and signing need at once is bounded here.
#![allow(unsafe_code, reason = "an allocator is")]
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use signet_trust::{
    document::{Body, Hashes, Target, Targets, to_wire},
    payload::Payload,
    verify::{Raw, limit},
};

/// The system's allocator, with counts.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// One measurement at a time, where tests are threads of one process.
static TURN: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is the system allocator's; counting touches no memory but the counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What `work` returns, the most that was allocated meanwhile beyond what was before, and how much
/// of it stays.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let value = work();
    (
        value,
        MOST.load(Relaxed) - before,
        NOW.load(Relaxed) - before,
    )
}

const TAGS: u32 = 50_000;
const MIB: usize = 1 << 20;

fn large() -> Targets {
    let tag = |number: u32| {
        let mut digest = [0xab; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        let target = Target {
            custom: None,
            hashes: Hashes::of_sha256(digest),
            length: 528,
        };
        (format!("v1.0.{number}"), target)
    };
    let mut targets = Targets::empty(7, 1_795_219_200);
    targets.targets = (0..TAGS).map(tag).collect();
    targets
}

#[test]
fn a_large_file_is_read_without_a_tree_of_it() {
    let _turn = TURN.lock().unwrap();
    let wire = to_wire(&large().canonical(), &[]);
    let size = wire.len();
    assert!((9 * MIB / 2..5 * MIB).contains(&size), "{size}");
    let (raw, most, stays) = measured(|| Raw::<Targets>::parse(wire, limit::ROLE).unwrap());
    assert_eq!(raw.claimed().targets.len(), TAGS as usize);
    // The document; growing it takes up to twice that.
    assert!(stays < 4 * MIB, "{stays} bytes stay");
    assert!(most < 9 * MIB, "{most} bytes at once");
}

#[test]
fn a_large_payload_is_read_and_compared_without_a_copy_of_it() {
    let _turn = TURN.lock().unwrap();
    let bytes = large().canonical();
    let (payload, most, stays) = measured(|| Payload::read(bytes));
    assert!(payload.document().is_ok());
    assert!(stays < 4 * MIB, "{stays} bytes stay");
    assert!(most < 9 * MIB, "{most} bytes at once");
}
