//! Readers and cards as they come and go.
