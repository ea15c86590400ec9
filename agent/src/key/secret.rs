//! The only secret type, and the memory it lives in.
//!
//! A [`Secret`] lies in pages of its own that are locked (never swapped), left out of core dumps
//! and empty in a forked child; it is wiped when dropped. The limit on locked memory may be tiny
//! (64 KiB on older systems), so small secrets share pages: slots of 64, 256 or 1024 bytes are cut
//! from a page and used again, and only what is larger has a mapping of its own. Where the limit is
//! reached the agent goes on with unlocked pages and [`Secret::locked_memory_ok`] says so, because
//! refusing to sign would be the worse outcome.
//!
//! Every `unsafe` of the key store is in this file.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, handle_alloc_error},
    fmt,
    ptr::NonNull,
    slice,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// A passphrase, PIN, age identity or key material. Lives in locked memory where the limit allows,
/// is wiped on drop, and prints as `Secret(..)`.
pub struct Secret {
    start: NonNull<u8>,
    len: usize,
    /// Bytes that belong to it: a slot's size, or a whole mapping's.
    capacity: usize,
}

// SAFETY: a `Secret` owns its slot exclusively and hands out nothing but shared slices of it; no
// thread-bound state is involved.
unsafe impl Send for Secret {}
// SAFETY: as above; the bytes do not change between `new` and `drop`.
unsafe impl Sync for Secret {}

/// Sizes of the slots that share pages: scalars and passphrases, age identities, small PEM.
const SLOTS: [usize; 3] = [64, 256, 1024];
/// What slots are cut from; a multiple of every slot size and of the smallest page.
const PAGE: usize = 4096;

/// Addresses of free slots, per size. Pages are kept for the life of the process: their number is
/// bounded by the most secrets ever held at once.
static FREE: Mutex<[Vec<usize>; SLOTS.len()]> = Mutex::new([const { Vec::new() }; SLOTS.len()]);
static LOCK_FAILED: AtomicBool = AtomicBool::new(false);

impl Secret {
    /// Moves `bytes` into locked memory and wipes the source.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let secret = Self::copy_of(&bytes);
        bytes.zeroize();
        secret
    }

    /// Copies `bytes` into locked memory; wiping the source is the caller's business.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let (start, capacity) = take(bytes.len());
        // SAFETY: `start` points to `capacity >= bytes.len()` writable bytes that nobody else uses,
        // and `bytes` cannot overlap them.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Self {
            start,
            len: bytes.len(),
            capacity,
        }
    }

    /// The bytes themselves. Grep for this name to find every use of a secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes as long as `self` lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Whether both hold the same bytes; the time it takes depends on the lengths only.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let differences = self
            .expose()
            .iter()
            .zip(other.expose())
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        self.len == other.len && std::hint::black_box(differences) == 0
    }

    /// Whether every page of secrets so far could be locked. False means that a secret could reach
    /// swap: `status` warns, and the limit (`ulimit -l`, `LimitMEMLOCK=`) should be raised.
    #[must_use]
    pub fn locked_memory_ok() -> bool {
        !LOCK_FAILED.load(Ordering::Relaxed)
    }

    fn wipe(&mut self) {
        // SAFETY: the slot is exclusively ours and `capacity` bytes long; all of them were
        // initialised (zero pages, then our copy).
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }.zeroize();
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.wipe();
        give_back(self.start, self.capacity);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// At least `len` bytes of locked memory, and how many there are.
fn take(len: usize) -> (NonNull<u8>, usize) {
    let Some(class) = SLOTS.iter().position(|slot| len <= *slot) else {
        let capacity = len.next_multiple_of(PAGE);
        return (map(capacity), capacity);
    };
    let size = SLOTS[class];
    // A panic while the lists are held cannot leave them half changed, so poison means nothing.
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(address) = free[class].pop() {
        let start = std::ptr::with_exposed_provenance_mut(address);
        return (
            NonNull::new(start).expect("free slots are addresses of mappings"),
            size,
        );
    }
    let page = map(PAGE);
    for offset in (size..PAGE).step_by(size) {
        // SAFETY: `offset` is below PAGE, so this stays inside the mapping.
        free[class].push(unsafe { page.add(offset) }.as_ptr().expose_provenance());
    }
    (page, size)
}

/// Returns a wiped slot to its list, or a mapping to the system.
fn give_back(start: NonNull<u8>, capacity: usize) {
    if let Some(class) = SLOTS.iter().position(|slot| *slot == capacity) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free[class].push(start.as_ptr().expose_provenance());
        return;
    }
    // SAFETY: `start` and `capacity` are those of a mapping made by `take`, whose only owner is
    // being dropped. Unmapping unlocks it, too.
    let unmapped = unsafe { munmap(start.as_ptr().cast(), capacity) };
    debug_assert!(unmapped.is_ok(), "a mapping of our own unmaps");
}

/// New zeroed pages: locked, not dumped, wiped in a child.
fn map(size: usize) -> NonNull<u8> {
    // SAFETY: a new private mapping at an address of the kernel's choice touches no memory in use.
    let mapped = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let Some(start) = mapped
        .ok()
        .and_then(|start| NonNull::new(start.cast::<u8>()))
    else {
        // As any allocation that fails.
        handle_alloc_error(Layout::from_size_align(size, PAGE).expect("sizes fit a layout"));
    };
    // SAFETY: the range is the mapping just made. None of these calls changes its contents.
    let locked = unsafe {
        // Older kernels know neither advice; then the process being undumpable has to do.
        let _ = madvise(start.as_ptr().cast(), size, Advice::LinuxDontDump);
        let _ = madvise(start.as_ptr().cast(), size, Advice::LinuxWipeOnFork);
        mlock(start.as_ptr().cast(), size)
    };
    if locked.is_err() {
        LOCK_FAILED.store(true, Ordering::Relaxed);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_what_it_was_given_whatever_its_size() {
        for len in [0, 1, 63, 64, 65, 256, 257, 1024, 1025, 4096, 4097, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let secret = Secret::new(bytes.clone());
            assert_eq!(secret.expose(), bytes, "{len}");
        }
    }

    #[test]
    fn slots_do_not_overlap_and_are_used_again() {
        let many: Vec<Secret> = (0..1000u32)
            .map(|i| Secret::new(i.to_be_bytes().repeat(1 + i as usize % 20)))
            .collect();
        for (i, secret) in (0u32..).zip(&many) {
            assert_eq!(secret.expose(), i.to_be_bytes().repeat(1 + i as usize % 20));
        }
    }

    #[test]
    fn what_a_drop_wipes_is_the_whole_slot() {
        let mut secret = Secret::copy_of(b"canary of a secret that has gone");
        secret.wipe();
        assert_eq!(secret.expose(), [0; 32]);
        // SAFETY: as in `wipe`.
        let slot = unsafe { slice::from_raw_parts(secret.start.as_ptr(), secret.capacity) };
        assert!(slot.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        assert_eq!(format!("{:?}", Secret::copy_of(b"canary")), "Secret(..)");
    }

    #[test]
    fn equal_secrets_are_the_same_and_others_are_not() {
        let secret = Secret::copy_of(b"correct horse");
        assert!(secret.same_as(&Secret::copy_of(b"correct horse")));
        assert!(!secret.same_as(&Secret::copy_of(b"correct horsf")));
        assert!(!secret.same_as(&Secret::copy_of(b"correct")));
        assert!(!Secret::copy_of(b"").same_as(&secret));
    }
}
