//! A YubiKey's PIV application, in software and for tests only.
//!
//! [`Piv`] is the application: a command goes in, an answer comes out, and nothing else happens,
//! so that its tests are byte vectors. [`Device`] puts it in a case that can be unplugged, told to
//! fail, slowed down and counted. [`vpcd`] connects that to a reader of the real `pcscd`, and
//! [`control`] lets a test play the person, who touches, unplugs and swaps.
//!
//! ```text
//! client ──► pcscd ──► vpcd ──TCP──► vpcd::run ──► Device ──► Piv
//!                                test ──unix──► control ──┘
//! ```
//!
//! What a command answers follows NIST SP 800-73-4 and Yubico's documents on its extensions
//! (<https://docs.yubico.com/yesdk/users-manual/application-piv/commands.html>). Where these are
//! silent, it does what ykman and yubico-piv-tool expect; no answer was measured on a real key.
//!
//! Nothing here keeps a secret: keys and PINs are in plain memory, traces show them, and the root
//! of the attestation chain is derived from a sentence in the source.

pub mod apdu;
pub mod attest;
pub mod control;
mod credential;
mod der;
pub mod device;
mod firmware;
pub mod keys;
mod management;
mod piv;
mod stats;
pub mod tlv;
mod touch;
pub mod vpcd;

pub use device::{Device, Outcome};
pub use firmware::{Firmware, UnknownFirmware};
pub use piv::{Kind, Piv};
pub use touch::{Finger, Touch};
