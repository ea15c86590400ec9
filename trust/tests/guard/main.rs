//! The guard, row by row and over random histories, on real documents with real signatures.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod base;
mod histories;
mod rows;
mod signers;
mod steps;
mod words;
mod world;
