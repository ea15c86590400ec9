//! Trust collections as the command handles them: fetched, verified, changed and published.
//!
//! ```text
//! publish ──→ session ──→ the agent        what is to be signed, and who is asked
//!    │  └───→ update ───→ net, cache       what is published now
//!    └──────→ lock, keys, server           one run at a time, with which keys, where
//! ```
//!
//! Documents are read and edited by `signet_trust`; here are the files, the sockets and the loop.

pub(crate) mod cache;
pub(crate) mod keys;
pub(crate) mod lock;
pub(crate) mod publish;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod tags;
pub(crate) mod update;
