//! The wire: every byte that crosses the agent's socket, generated, and where the two ends meet.
//!
//! The contract is `proto/signet/v1/signet.proto`; its comments are the documentation.
#![forbid(unsafe_code)]

pub mod archive;
pub mod endpoint;
pub mod migration;

/// Version 1 of the protocol.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::use_self
)]
pub mod v1 {
    tonic::include_proto!("signet.v1");
}

/// The encoded file descriptor set, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signet.v1.bin"));

/// Number of this protocol, sent in `HelloReply`.
pub const PROTOCOL: u32 = 1;

/// Most bytes in one `Chunk`, 1 MiB.
pub const MAX_CHUNK: usize = 1024 * 1024;
