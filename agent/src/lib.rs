//! signetd: owns keys, reads what it signs, asks the person, records, then releases.
//!
//! ```text
//! main → daemon → service → keyring → store → key          an arrow means "may use"
//!                    │         ├──→ trust (guard)           pure decisions
//!                    │         └──→ ledger                  SQLite: index, collections, guard, log
//!                    └──→ presence                          who is asked, and how
//!        daemon → desktop → keyring                          when to lock; what is shown
//! ```
//!
//! A request goes `parse → verify base → guard → consent and secrets → sign → verify → ledger →
//! release`; nothing is released that is not durable in the ledger.

pub mod backup;
pub mod config;
pub mod daemon;
pub mod desktop;
pub mod key;
pub mod keyring;
pub mod ledger;
pub mod migration;
pub mod policy;
pub mod presence;
pub mod service;
pub mod store;

#[doc(hidden)]
pub use keyring::request::read_request;
#[doc(hidden)]
pub use store::piv::read_answer;
