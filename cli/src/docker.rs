//! Docker as it is set up here: its configuration, credentials, contexts and engine.

pub(crate) mod config;
pub(crate) mod credentials;
pub(crate) mod endpoint;
pub(crate) mod engine;
mod info;
pub(crate) mod progress;
pub(crate) mod stream;
