//! Notary v1 trust collections, without I/O.
//!
//! Documents, key IDs, canonical JSON, verification, editing, and the rules by which the agent
//! decides whether a document may be signed. Nothing here reads a file, a socket or a clock: bytes
//! and the time come in as arguments, and what has to be fetched or signed goes out as data. So the
//! command (which edits and verifies) and the agent (which reads what it is about to sign) share
//! one reading of every document.
#![forbid(unsafe_code)]

// Names
pub mod gun;
pub mod role;

// Bytes
pub mod json;
pub mod time;

// Keys
pub mod cert;
pub mod key;
pub mod keyfile;
pub mod private;

// Documents and what is asked of them
pub mod document;
pub mod edit;
pub mod pin;
pub mod update;
pub mod verify;

// What the agent makes of a request
pub mod base;
pub mod guard;
pub mod payload;

pub use gun::Gun;
pub use key::{Algorithm, KeyId, KeyType, Method, PublicKey, Signature};
pub use private::PrivateKey;
pub use role::RoleName;
