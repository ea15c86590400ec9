//! `signet backup` and `signet restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::store::parse_store;
use crate::shares::Threshold;

/// `signet backup`
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) command: BackupCommand,
}

/// Verbs of `signet backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write every key into one encrypted file, proving each that opens
    Create(BackupCreateArgs),
    /// Rehearse a restore: open every key of a backup, and write nothing
    Verify(BackupOpenArgs),
    /// List what a backup holds; needs no agent
    Show(BackupOpenArgs),
}

/// `signet backup create`
#[derive(Args, Debug)]
pub(crate) struct BackupCreateArgs {
    /// Where to write it; without, signet-HOST-DATE.tar.gz.age in this directory
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,

    /// Encrypt to this recipient instead of a passphrase: age1…, an SSH public key, or a file of
    /// such; repeatable
    #[arg(long, short, value_name = "RECIPIENT")]
    pub(crate) recipient: Vec<String>,

    /// Encrypt to a new key that any K of N share files open, such as 3/5; they are written beside
    /// the backup
    #[arg(long, value_name = "K/N", value_parser = Threshold::parse, conflicts_with = "recipient")]
    pub(crate) shares: Option<Threshold>,

    /// What goes in; without, everything
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) include: Vec<Included>,
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Included {
    /// Docker's key directory
    Docker,
    /// Native keys and keyrings
    File,
    /// What is known of keys on YubiKeys; never their private keys
    Cards,
    /// Guard state, settings and where the log stood
    State,
}

impl Included {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::File => "file",
            Self::Cards => "cards",
            Self::State => "state",
        }
    }
}

/// `signet backup verify`, `signet backup show`
#[derive(Args, Debug)]
pub(crate) struct BackupOpenArgs {
    /// The backup
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) with: OpenWithArgs,
}

/// What a backup is opened with, if not with a passphrase.
#[derive(Args, Debug)]
pub(crate) struct OpenWithArgs {
    /// Open it with this age identity or SSH key instead of a passphrase; repeatable
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Vec<PathBuf>,

    /// Open it with shares of its key: as many as are needed, in any order; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) share: Vec<PathBuf>,
}

/// `signet restore`
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// A backup; also a tarball or copy of Docker's trust/private, or a notary export bundle
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) file: PathBuf,

    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Only this key: an ID, a prefix of at least 7 digits, a label, ROLE@GUN, or root; repeatable
    #[arg(long, value_name = "KEY")]
    pub(crate) only: Vec<String>,

    /// Bring back keys, too, that were removed here or moved to another host
    #[arg(long)]
    pub(crate) revive: bool,

    /// Put the keys into this store instead of the one they came from: file or docker
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub(crate) store: Option<String>,

    #[command(flatten)]
    pub(crate) with: OpenWithArgs,
}
