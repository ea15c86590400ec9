//! `signet card …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::store::{parse_serial, parse_slot};

/// `signet card`
#[derive(Args, Debug)]
pub(crate) struct CardArgs {
    #[command(subcommand)]
    pub(crate) command: CardCommand,
}

/// Verbs of `signet card`.
#[derive(Debug, Subcommand)]
pub(crate) enum CardCommand {
    /// List the YubiKeys, their slots, and what is to be known of them
    #[command(visible_alias = "ls")]
    List,
    /// Replace a YubiKey's factory PIN, PUK and management key; its keys stay
    Setup(CardSetupArgs),
    /// Change the PIN, or set a new one with the PUK when it is blocked
    Pin(CardPinArgs),
    /// Change the PUK
    Puk(CardSerialArgs),
    /// Prove where the key in a slot was made: prints the card's attestation certificates
    Attest(CardAttestArgs),
    /// Give up a lost YubiKey: its keys are no longer expected, and what to rotate is listed
    Forget(CardForgetArgs),
    /// Erase the PIV part of a YubiKey: every key in it is lost
    Reset(CardResetArgs),
}

/// A card by its serial.
#[derive(Args, Debug)]
pub(crate) struct CardSerialArgs {
    /// Its serial; not needed when only one is plugged in
    #[arg(value_name = "SERIAL", value_parser = parse_serial)]
    pub(crate) serial: Option<u32>,
}

/// `signet card setup`
#[derive(Args, Debug)]
#[command(
    after_help = "Without a terminal: --pin-fd N is the PIN that the card is to have. Where it has one of \
                  yours already, or its firmware is older than 5.3 and does not say, --pin-fd N is \
                  the PIN that it has (123456 from the factory) and --new-passphrase-fd N the new \
                  one. The PUK is made, and is on the recovery sheet."
)]
pub(crate) struct CardSetupArgs {
    #[command(flatten)]
    pub(crate) card: CardSerialArgs,
    /// A name of your own for it, shown in every question about it
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    /// How many wrong PINs block it (1 to 255); goes with --puk-tries
    #[arg(long, value_name = "N", requires = "puk_tries", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) pin_tries: Option<u8>,
    /// How many wrong PUKs block it (1 to 255); goes with --pin-tries
    #[arg(long, value_name = "N", requires = "pin_tries", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) puk_tries: Option<u8>,
    /// Write the recovery sheet (PUK, management key) to a new file instead of the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_sheet: Option<PathBuf>,
}

/// `signet card pin`
#[derive(Args, Debug)]
pub(crate) struct CardPinArgs {
    #[command(flatten)]
    pub(crate) card: CardSerialArgs,
    /// With the PUK instead of the old PIN: what unblocks it
    #[arg(long)]
    pub(crate) puk: bool,
}

/// `signet card attest`
#[derive(Args, Debug)]
pub(crate) struct CardAttestArgs {
    /// The slot: 9a, 9c, 9d, 9e, or 82 to 95
    #[arg(value_name = "SLOT", value_parser = parse_slot)]
    pub(crate) slot: String,
    /// The card's serial; not needed when only one is plugged in
    #[arg(long, value_name = "SERIAL", value_parser = parse_serial)]
    pub(crate) serial: Option<u32>,
}

/// `signet card forget`
#[derive(Args, Debug)]
pub(crate) struct CardForgetArgs {
    /// Serial of the card that is gone
    #[arg(value_name = "SERIAL", value_parser = parse_serial)]
    pub(crate) serial: u32,
}

/// `signet card reset`
#[derive(Args, Debug)]
pub(crate) struct CardResetArgs {
    #[command(flatten)]
    pub(crate) card: CardSerialArgs,
    /// The serial once more, for scripts: otherwise it is typed (--yes does not answer this)
    #[arg(long, value_name = "SERIAL", value_parser = parse_serial)]
    pub(crate) confirm: Option<u32>,
}
