//! `signet migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// `signet migrate`
#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    pub(crate) command: MigrateCommand,
}

/// Verbs of `signet migrate`.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// New host: print an offer; with a file, take in a package or a closing note
    Receive(MigrateReceiveArgs),
    /// Old host: pack keys for an offer, and hold them as leaving
    Send(MigrateSendArgs),
    /// Old host: retire what a receipt proves, and write a closing note
    Finish(MigrateFinishArgs),
    /// Say of each migration what is there and what is missing
    Status,
    /// Undo a migration that is not finished
    Cancel(MigrateCancelArgs),
}

/// `signet migrate receive`
#[derive(Args, Debug)]
pub(crate) struct MigrateReceiveArgs {
    /// What the old host wrote: a package, or a closing note; without, an offer is made
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Where to write the offer or the receipt; without, the offer goes to stdout, and the receipt
    /// to signet-ID.receipt in this directory
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,

    /// Write the receipt of this migration once more
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub(crate) receipt: Option<String>,

    /// Speak with `signet migrate send --ssh` on the standard streams
    #[arg(long, hide = true, conflicts_with_all = ["file", "receipt", "output"])]
    pub(crate) stdio: bool,
}

/// `signet migrate send`
#[derive(Args, Debug)]
pub(crate) struct MigrateSendArgs {
    /// The new host's offer, as a file or as the line itself; not with --ssh
    #[arg(value_name = "OFFER", value_hint = ValueHint::FilePath)]
    pub(crate) offer: Option<String>,

    /// The keys that move; without, every one that is on no card
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,

    /// Where to write the package; without, signet-ID.package in this directory
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,

    /// Do all of it over ssh: offer, package, receipt and closing note
    #[arg(long, value_name = "USER@HOST", value_hint = ValueHint::Hostname, conflicts_with = "output")]
    pub(crate) ssh: Option<String>,
}

/// `signet migrate finish`
#[derive(Args, Debug)]
pub(crate) struct MigrateFinishArgs {
    /// What the new host wrote
    #[arg(value_name = "RECEIPT", value_hint = ValueHint::FilePath)]
    pub(crate) receipt: PathBuf,

    /// Where to write the closing note; without, signet-ID.note in this directory
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// `signet migrate cancel`
#[derive(Args, Debug)]
pub(crate) struct MigrateCancelArgs {
    /// Which one, where several are open
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}
