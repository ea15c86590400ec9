//! The lab: the real peers that Signet's tests run against.
//!
//! No mock stands where a real peer can run. [`Lab`] starts Docker's engine, a registry,
//! `notary-signer` and `notary-server` on loopback, on free ports, in a throwaway directory, and
//! stops them again; [`Proxy`] stands before a registry or a trust server and makes it ask for
//! tokens, stall, lie and break off.
//!
//! [`Cards`] are virtual YubiKeys in the readers of a real `pcscd`.
//!
//! The peers come from Debian's packages (`tests/lab/install.sh`). Nothing here needs root, and
//! nothing outside the throwaway directory is written.

pub mod bench;
pub mod forge;
pub mod fuzzing;
mod keyrings;
pub mod lab;
pub mod raw;
pub mod schema;
pub mod steps;
mod terminal;
pub mod tmux;

pub use lab::cards::{Cards, Firmware};
pub use lab::command::{Output, Run};
pub use lab::proxy::{Auth, Fault, Proxy};
pub use lab::{Builder, Cli, Home, Lab};
pub use terminal::Terminal;
