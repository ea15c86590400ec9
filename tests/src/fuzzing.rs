//! One function for each parser of bytes from outside, which must take anything without a panic,
//! and the properties that hold of whatever it accepts.
//!
//! The same functions are called by the coverage-guided targets of `tests/fuzz`, by the replay of
//! the committed corpus (a plain test), and by the mutations of [`mutate`], which need nothing but
//! a stable toolchain.
//!
//! This file and what is below it are compiled into `tests/fuzz` too, which is a workspace of its
//! own: they use nothing else of this crate.

// Named, because a file that is itself included by its path is looked beside, not below.
#[path = "fuzzing/mutate.rs"]
pub mod mutate;
#[path = "fuzzing/request.rs"]
mod request;

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use signet_trust::{
    base::{BaseDocuments, VerifiedBase},
    document::{Body, Document, Root, Snapshot, Targets, Timestamp, to_wire},
    json,
    keyfile::{KeyFile, legacy_name, parse_public_pem, write_plain},
    payload::{Payload, escape},
    verify::Raw,
};

/// A fuzz target: its name, which is that of its corpus directory, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 12] = [
    ("keyfile", fuzz_keyfile),
    ("key_der", fuzz_key_der),
    ("wire_metadata", fuzz_wire_metadata),
    ("canonical_json", fuzz_canonical_json),
    ("error_body", fuzz_error_body),
    ("grpc_request", fuzz_grpc_request),
    ("archive", fuzz_archive),
    ("manifest", fuzz_manifest),
    ("card", fuzz_card),
    ("shares", fuzz_shares),
    ("offer", fuzz_offer),
    ("receipt", fuzz_receipt),
];

/// Passphrases of the seeds.
const PASSPHRASES: [&[u8]; 5] = [
    b"",
    b"rootpass123",
    b"targetspass123",
    b"delegpass123",
    b"repopass123",
];
/// Above this an input only shows that PBKDF2 is slow.
const MAX_ROUNDS: u32 = 4096;
/// Smaller than the real limits, so that inputs stay fast.
const MAX_DOCUMENT: usize = 1 << 20;
/// 2026-11-21.
const NOW: i64 = 1_795_219_200;

/// Key files: PEM with headers, one block or a bundle.
pub fn fuzz_keyfile(data: &[u8]) {
    if let Ok(file) = KeyFile::parse(data) {
        open(&file);
    }
    for file in KeyFile::parse_all(data).into_iter().flatten().take(8) {
        let text = file.to_pem();
        let again = KeyFile::parse(text.as_bytes()).expect("what was read is written readably");
        assert_eq!((&again.role, &again.gun), (&file.role, &file.gun));
        assert!(again.to_pem() == text);
    }
    if let Ok(public) = parse_public_pem(data) {
        let _ = public.key.canonical_id();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = legacy_name(text);
        assert!(!escape(text).chars().any(char::is_control));
    }
}

/// What is inside the PEM of a key file: the first byte picks the type of the block.
pub fn fuzz_key_der(data: &[u8]) {
    const TYPES: [&str; 6] = [
        "PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "EC PRIVATE KEY",
        "RSA PRIVATE KEY",
        "ED25519 PRIVATE KEY",
        "PUBLIC KEY",
    ];
    let Some((pick, der)) = data.split_first() else {
        return;
    };
    let label = TYPES[usize::from(*pick) % TYPES.len()];
    let mut text = format!("-----BEGIN {label}-----\n");
    let _ = writeln!(text, "{}", STANDARD.encode(der));
    let _ = writeln!(text, "-----END {label}-----");
    if label == "PUBLIC KEY" {
        let _ = parse_public_pem(text.as_bytes());
    } else if let Ok(file) = KeyFile::parse(text.as_bytes()) {
        open(&file);
    }
}

/// Opens a file with every passphrase; a key that comes out comes out again when it is written.
fn open(file: &KeyFile) {
    let _ = file.open(None);
    if file.rounds().is_some_and(|rounds| rounds > MAX_ROUNDS) {
        return;
    }
    for passphrase in PASSPHRASES {
        let Ok(key) = file.open(Some(passphrase)) else {
            continue;
        };
        let text = write_plain(&key, "alice", None);
        let again = KeyFile::parse(text.as_bytes()).and_then(|file| file.open(None));
        assert_eq!(again.expect("what was written opens").id(), key.id());
        break;
    }
}

/// Documents as a server sends them, read as each of the four types.
pub fn fuzz_wire_metadata(data: &[u8]) {
    document::<Root>(data);
    document::<Targets>(data);
    document::<Snapshot>(data);
    document::<Timestamp>(data);
    if let Ok(gun) = "docker.io/library/vec1".parse() {
        let documents = BaseDocuments {
            roots: vec![data.to_vec()],
            ..BaseDocuments::default()
        };
        if let Ok(base) = VerifiedBase::verify(&gun, documents, &[], NOW) {
            assert_eq!(base.roots().len(), 1);
        }
    }
}

fn document<T: Body>(data: &[u8]) {
    let Ok(raw) = Raw::<T>::parse(data.to_vec(), MAX_DOCUMENT) else {
        return;
    };
    let canonical = raw.claimed().canonical();
    let wire = to_wire(&canonical, &[]);
    // No signature is needed to be read; but some readers insist on one.
    if let Ok(again) = Raw::<T>::parse(wire, 2 * MAX_DOCUMENT) {
        assert!(again.claimed().canonical() == canonical);
    }
}

/// JSON in any layout, and the bytes that are signed.
pub fn fuzz_canonical_json(data: &[u8]) {
    if let Ok(value) = json::parse(data) {
        let canonical = value.canonical();
        // Raw control characters are canonical, but no reader takes them.
        if let Ok(again) = json::parse(&canonical) {
            assert!(again.canonical() == canonical);
            let wire = json::wire(&canonical);
            let again = json::parse(&wire).expect("wire bytes are read where canonical ones are");
            assert!(again.canonical() == canonical);
        }
    }
    let payload = Payload::read(data.to_vec());
    if let Ok(document) = payload.document() {
        let canonical = match document {
            Document::Root(document) => document.canonical(),
            Document::Targets(document) => document.canonical(),
            Document::Snapshot(document) => document.canonical(),
            Document::Timestamp(document) => document.canonical(),
        };
        assert!(canonical == data, "what is signed is what is shown");
    }
}

/// The body of an error answer, from a trust server or whatever answers in its place.
pub fn fuzz_error_body(data: &[u8]) {
    request::error_body(data);
}

/// A message that a client sends to the agent.
pub fn fuzz_grpc_request(data: &[u8]) {
    request::sign_request(data);
}

/// A backup below its encryption, or a tarball of Docker's.
pub fn fuzz_archive(data: &[u8]) {
    request::archive(data);
}

/// `manifest.json` and `signet/state.json` of a backup.
pub fn fuzz_manifest(data: &[u8]) {
    request::manifest(data);
}

/// Shares of a backup's key: files, scanned codes, words alone.
pub fn fuzz_shares(data: &[u8]) {
    request::shares(data);
}

/// The line that a new host gives to an old one.
pub fn fuzz_offer(data: &[u8]) {
    request::offer(data);
}

/// The other messages of a move: receipts, closing notes, what a package says of itself.
pub fn fuzz_receipt(data: &[u8]) {
    request::receipt(data);
}

/// What a card answers: metadata, certificates, attestations, signatures. The first byte picks.
pub fn fuzz_card(data: &[u8]) {
    request::card(data);
}
