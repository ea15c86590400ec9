//! The lab by hand: `make lab`.

fn main() {}
