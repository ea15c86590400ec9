//! `signet key …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::store::parse_store;

/// `signet key`
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// Verbs of `signet key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List the keys of every store
    #[command(visible_alias = "ls")]
    List,
    /// Show one key
    Show(KeyNameArgs),
    /// Make a key
    Generate(KeyGenerateArgs),
    /// Take in key files, a whole private/ directory, or an export bundle; the source stays
    Import(KeyImportArgs),
    /// Write one key, encrypted for docker and notary, or its public part
    Export(KeyExportArgs),
    /// Name a key; an empty label removes the name
    Label(KeyLabelArgs),
    /// Delete a key for good
    #[command(visible_alias = "rm")]
    Remove(KeyNameArgs),
    /// Change the passphrase of one key in Docker's format
    Passphrase(KeyNameArgs),
    /// Take a key to one or several YubiKeys, or to another store; the source goes last
    Move(KeyMoveArgs),
    /// Let a key come back that was removed here or moved to another host
    Revive(KeyNameArgs),
}

/// A key by its name.
#[derive(Args, Debug)]
pub(crate) struct KeyNameArgs {
    /// A key ID, a unique prefix of at least 7 digits, a label, or ROLE@GUN
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

/// `signet key generate`
#[derive(Args, Debug)]
pub(crate) struct KeyGenerateArgs {
    /// What it signs: root, targets, snapshot, or a signer's name
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: String,
    /// The repository it is for, such as docker.io/me/app (targets and snapshot need one)
    #[arg(long, value_name = "GUN")]
    pub(crate) gun: Option<String>,
    /// Where it goes: file, docker, or a YubiKey: piv, piv:SERIAL, piv:SERIAL:SLOT
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub(crate) store: Option<String>,
    /// Kind of key
    #[arg(long, value_name = "ALGORITHM")]
    pub(crate) algorithm: Option<KeyAlgorithm>,
    /// A name of your own for it
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) on_card: OnCardArgs,
}

/// How a key lies on a YubiKey.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OnCardArgs {
    /// When the YubiKey wants its PIN: never, once a session, always; fixed for good
    #[arg(long, value_name = "POLICY")]
    pub(crate) pin_policy: Option<PinPolicy>,
    /// When it wants to be touched: never, always, cached (a touch counts for 15 seconds); fixed
    /// for good
    #[arg(long, value_name = "POLICY")]
    pub(crate) touch_policy: Option<TouchPolicy>,
    /// ID of the key in the slot named by --store: it is lost, the new one takes its place
    #[arg(long, value_name = "KEYID")]
    pub(crate) overwrite: Option<String>,
}

/// `signet key move`
#[derive(Args, Debug)]
pub(crate) struct KeyMoveArgs {
    /// A key ID, a unique prefix of at least 7 digits, a label, or ROLE@GUN
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Where it goes: piv:SERIAL or piv:SERIAL:SLOT, file or docker; repeat it for the same key on two YubiKeys
    #[arg(long, value_name = "STORE", value_parser = parse_store, required = true)]
    pub(crate) store: Vec<String>,
    /// Go on without a rehearsed backup: a key on a card cannot be copied off it
    #[arg(long)]
    pub(crate) no_backup: bool,
    #[command(flatten)]
    pub(crate) on_card: OnCardArgs,
}

/// When a card wants its PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum PinPolicy {
    /// Never.
    Never,
    /// Once a session.
    Once,
    /// For each signature.
    Always,
}

impl PinPolicy {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Once => "once",
            Self::Always => "always",
        }
    }
}

/// When a card wants to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum TouchPolicy {
    /// Never.
    Never,
    /// A touch counts for 15 seconds.
    Cached,
    /// For each signature.
    Always,
}

impl TouchPolicy {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Cached => "cached",
            Self::Always => "always",
        }
    }
}

/// Kinds of keys that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum KeyAlgorithm {
    /// ECDSA on P-256; what docker and notary make.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// `signet key import`
#[derive(Args, Debug)]
pub(crate) struct KeyImportArgs {
    /// Key files, directories, export bundles
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Role of a key whose file names none
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<String>,
    /// Repository of a key whose file names none
    #[arg(long, value_name = "GUN")]
    pub(crate) gun: Option<String>,
    /// Where it goes: file or docker; `key move` takes it on to a YubiKey
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub(crate) store: Option<String>,
    /// A name of your own for it (one key only)
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
}

/// `signet key export`
#[derive(Args, Debug)]
pub(crate) struct KeyExportArgs {
    /// A key ID, a unique prefix of at least 7 digits, a label, or ROLE@GUN
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Only the public key, PEM
    #[arg(long, conflicts_with = "format")]
    pub(crate) public: bool,
    /// Format of the private key
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ExportFormat>,
    /// Write to a new file (mode 0600) instead of stdout
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// Formats of `key export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum ExportFormat {
    /// The encrypted PEM of docker and notary.
    Docker,
}

/// `signet key label`
#[derive(Args, Debug)]
pub(crate) struct KeyLabelArgs {
    /// A key ID, a unique prefix of at least 7 digits, a label, or ROLE@GUN
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Its new name
    #[arg(value_name = "LABEL")]
    pub(crate) label: String,
}
