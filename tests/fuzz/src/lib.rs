//! The functions of the fuzz targets, as signet-tests has them.

#[path = "../../src/fuzzing.rs"]
pub mod fuzzing;
