//! HTTP towards trust server and registry.
//!
//! Every answer is bounded before it is read, every error names the URL, nothing is retried in
//! silence. Connections are made when the first request needs one and kept for the next (HTTP/1.1
//! keep-alive); the system's roots are loaded only for servers whose certificate is verified.

pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod error;
pub(crate) mod multipart;
pub(crate) mod registry;
pub(crate) mod tls;
pub(crate) mod trust_server;

pub(crate) use error::NetError;
