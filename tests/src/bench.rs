//! What the benchmarks of `make bench` are made of.

pub mod collection;
pub mod cost;
pub mod socket;
pub mod table;
