//! Who else uses cards just now, as far as the kernel tells: for the words of a person who waits.

use std::{fs, path::Path};

use crate::daemon::helper;

/// Where clients of pcscd connect (pcsc-lite).
const SOCKETS: [&str; 2] = ["/run/pcscd/pcscd.comm", "/var/run/pcscd/pcscd.comm"];
/// Programs that take a card for themselves, by another way than pcscd too.
const KNOWN: [&str; 7] = [
    "scdaemon",
    "ykman",
    "ykman-gui",
    "yubico-piv-tool",
    "pkcs11-tool",
    "opensc-tool",
    "gnupg-pkcs11-scd",
];
/// Processes looked at.
const MAX_PROCESSES: usize = 4096;

/// Another process that holds a connection to pcscd or is known to use cards: `scdaemon (pid 123)`.
/// Empty when it cannot be known.
pub(in crate::keyring) fn holder() -> String {
    let Ok(processes) = fs::read_dir("/proc") else {
        return String::new();
    };
    let own = std::process::id();
    let mut clients = Vec::new();
    for process in processes.flatten().take(MAX_PROCESSES) {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        let Ok(program) = fs::read_to_string(process.path().join("comm")) else {
            continue;
        };
        let program = signet_trust::payload::escape(program.trim());
        if program == "pcscd" {
            continue;
        }
        if KNOWN.contains(&program.as_str()) {
            return format!("{program} (pid {pid})");
        }
        if uses_library(pid) {
            clients.push(format!("{program} (pid {pid})"));
        }
    }
    match clients.as_slice() {
        // One that can be told from none: several would be a guess.
        [only] => only.clone(),
        _ => String::new(),
    }
}

/// Whether a process is a client of pcscd.
fn uses_library(pid: u32) -> bool {
    let served = SOCKETS.iter().any(|socket| Path::new(socket).exists());
    served && i32::try_from(pid).is_ok_and(helper::uses_cards)
}
