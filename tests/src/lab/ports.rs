//! Free ports, and waiting for somebody to listen on them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a peer may take to come up on a machine that is busy with something else.
pub(super) const START: Duration = Duration::from_secs(60);

/// A port of loopback on which nobody listens.
///
/// Taken from below Linux's range for outgoing connections (32768 up), so that no connection of
/// another test takes it before the peer does; by pid, so that tests running side by side look in
/// different places. A peer that still finds it taken is given another.
pub(super) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % (RANGE / STRIDE)) * STRIDE;
    for _ in 0..RANGE {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % RANGE;
        let port = FIRST + u16::try_from(offset).expect("the range is below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Whether the process `pid` listens on this port of loopback, by the kernel's own tables: a
/// stranger on the port, or the process before it listens, is a no.
pub(super) fn listens(pid: u32, port: u16) -> bool {
    // Columns of proc_net_tcp(5): local address (here 127.0.0.1, in host order), state (0A is
    // LISTEN) and, tenth, the inode.
    let local = format!(
        "{:08X}:{port:04X}",
        u32::from(Ipv4Addr::LOCALHOST).swap_bytes()
    );
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let sockets = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let found = columns.get(1) == Some(&local.as_str()) && columns.get(3) == Some(&"0A");
        found.then(|| format!("socket:[{}]", columns.get(9).unwrap_or(&"")))
    });
    let sockets: Vec<PathBuf> = sockets.map(PathBuf::from).collect();
    // notary-signer is undumpable, and shows its descriptors to nobody but root.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return !sockets.is_empty();
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| sockets.contains(&target))
    })
}

/// Asks `ready` again and again until it says yes, or `limit` has passed.
pub(crate) fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

const FIRST: u16 = 20_000;
const RANGE: u32 = 12_000;
const STRIDE: u32 = 16;
