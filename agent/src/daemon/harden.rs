//! What the process gives up at start, and what the system around it still allows.
#![allow(unsafe_code)]

use std::{
    fs::{self, OpenOptions},
    io,
    ops::Range,
    path::Path,
};

use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit},
};

/// Locked memory below this is reported: the arena for secrets would not fit.
const SMALL_MEMLOCK: u64 = 64 * 1024;

/// Makes the process undumpable (no core, no ptrace by the user's other processes, `/proc` owned by
/// root), and files private by default.
///
/// # Errors
///
/// When the kernel refuses.
pub fn apply() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}

/// Leaves the session and the descriptors of whoever started this process, but for the standard
/// ones.
pub fn leave_caller() {
    // Fails only for a process group leader, which a shell's job is: then it stays one.
    let _ = rustix::process::setsid();
    // SAFETY: called first thing in a process that has opened nothing yet, so that no descriptor
    // from 3 on has an owner here.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Raises the number of descriptors that the process may have open to `wanted`, as far as the system
/// allows. (The usual first limit, 1,024, is for programs that use select(2).)
pub fn more_descriptors(wanted: u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if limit.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        // Then connections wait, as they do when there are too many.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}

/// Turns stderr to `/dev/null`, which ends the pipe of the command that waits for the agent to be
/// ready: from here on nobody reads it.
///
/// # Errors
///
/// When there is no `/dev/null`.
pub fn close_stderr() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}

/// Sets the allocator up to give memory back: by default glibc raises the size from which it maps
/// (mallopt(3), `M_MMAP_THRESHOLD`) with each large block that was freed, and keeps a heap for each
/// thread, so that an agent which signed in one large collection would stay large.
///
/// Called while the process has one thread.
pub fn thrifty_memory() {
    /// Blocks from here on are mapped, and so returned when freed; glibc's own first value.
    const MAPPED_FROM: libc::c_int = 128 * 1024;
    /// One for the runtime, one for the threads of stores and ledger.
    const HEAPS: libc::c_int = 2;
    // SAFETY: mallopt(3) takes two integers; the process has one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives freed memory back to the system; takes milliseconds after a large request.
pub fn give_memory_back() {
    // SAFETY: malloc_trim(3) may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what an agent that nobody talks to does not need: freed memory, and the program's code,
/// which comes back from the system's cache of the file as it is used. (Linux maps code by 64 KiB
/// and more, so that most of what counts as resident was never executed.) Without `/proc` code
/// stays.
pub fn rest() {
    give_memory_back();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for range in maps.lines().filter_map(code) {
        let start = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: private pages of a file that are mapped to be executed and not to be written are
        // what the file has in them, and are read from there again (madvise(2), `MADV_DONTNEED`).
        // Nothing here unloads a library; a range that is not mapped any more would be an error.
        let done =
            unsafe { rustix::mm::madvise(start, range.len(), rustix::mm::Advice::LinuxDontNeed) };
        if let Err(error) = done {
            tracing::debug!(%error, "code stays in memory");
        }
    }
}

/// The addresses of a line of `/proc/self/maps` that is code of a file (proc(5)).
fn code(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()? != "r-xp" {
        return None;
    }
    // Offset, device, inode; without a file the inode is 0.
    if words.nth(2)? == "0" {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

/// What the system around the agent does not do for it (see [`super::sandbox`]), and findings about
/// memory that a secret could leave through; one line each, with the fix.
#[must_use]
pub fn warnings() -> Vec<String> {
    let mut found = super::sandbox::warnings().to_vec();
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    if let Some(bytes) = limit.filter(|bytes| *bytes < SMALL_MEMLOCK) {
        found.push(format!(
            "the limit for locked memory is {bytes} bytes: secrets may be swapped out; raise \
             LimitMEMLOCK= of the unit, or `ulimit -l`"
        ));
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    for device in unencrypted(&swaps, &is_encrypted) {
        found.push(format!(
            "swap on {device} is not encrypted: memory that is swapped out stays readable on disk; \
             use dm-crypt with a random key, or zram"
        ));
    }
    found
}

/// Swap areas of a `/proc/swaps` listing that are neither in memory nor on dm-crypt.
fn unencrypted<'a>(swaps: &'a str, encrypted: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|name| !name.starts_with("/dev/zram") && !encrypted(name))
        .collect()
}

/// Device-mapper names its own kind in `dm/uuid`: `CRYPT-…`.
fn is_encrypted(device: &str) -> bool {
    let Ok(real) = fs::canonicalize(device) else {
        return false;
    };
    let Some(name) = real.file_name() else {
        return false;
    };
    let uuid = Path::new("/sys/block").join(name).join("dm/uuid");
    fs::read_to_string(uuid).is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go_of() {
        let line = "55d0c1a00000-55d0c1b00000 r-xp 00040000 fe:00 131 /usr/bin/signetd";
        assert_eq!(code(line), Some(0x55d0_c1a0_0000..0x55d0_c1b0_0000));
        for other in [
            "55d0c1a00000-55d0c1b00000 r--p 00040000 fe:00 131 /usr/bin/signetd",
            "55d0c1a00000-55d0c1b00000 rw-p 00040000 fe:00 131 /usr/bin/signetd",
            "55d0c1a00000-55d0c1b00000 rwxp 00040000 fe:00 131 /usr/bin/signetd",
            "7ffd5b5f2000-7ffd5b5f4000 r-xp 00000000 00:00 0 [vdso]",
            "x-y r-xp 0 0 1 f",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn plain_partitions_and_files_are_reported_and_zram_is_not() {
        let swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 1 0 5\n\
                     /swapfile file 1 0 -2\n/dev/dm-1 partition 1 0 -3\n";
        assert_eq!(
            unencrypted(swaps, &|name| name == "/dev/dm-1"),
            ["/swapfile"]
        );
        assert!(unencrypted("", &|_| false).is_empty());
    }
}
