//! What a private key is to the agent: vocabulary without I/O.

pub mod secret;

pub use secret::Secret;
