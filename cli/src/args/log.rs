//! `signet log` and `signet policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `signet log`
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    pub(crate) command: LogCommand,
}

/// Verbs of `signet log`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the entries, oldest first
    Show(LogShowArgs),
    /// Compute the whole chain anew and compare it with checkpoints
    Verify(LogVerifyArgs),
    /// Write every entry and checkpoint as lines of JSON
    Export(LogExportArgs),
}

/// `signet policy`
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// Verbs of `signet policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say which rule of agent.toml would decide about a signature, and why
    Explain(PolicyExplainArgs),
}

/// `signet policy explain`
#[derive(Args, Debug)]
pub(crate) struct PolicyExplainArgs {
    /// Whose collection
    #[arg(long, value_name = "GUN")]
    pub(crate) gun: String,
    /// Whose document: root, targets, snapshot, targets/NAME
    #[arg(long, value_name = "ROLE", default_value = "targets")]
    pub(crate) role: String,
    /// With this key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// What kind of payload, if not what the role signs
    #[arg(long, value_name = "KIND", value_parser = ["root", "targets", "snapshot", "timestamp", "opaque"])]
    pub(crate) payload: Option<String>,
    /// Asked by this program instead of this command
    #[arg(long, value_name = "PATH")]
    pub(crate) exe: Option<String>,
    /// Asked from this systemd unit
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// With an override (--allow) in force
    #[arg(long)]
    pub(crate) overrides: bool,
}

/// `signet log verify`
#[derive(Args, Debug)]
pub(crate) struct LogVerifyArgs {
    /// A file with checkpoints that was kept elsewhere: from the journal, a witness, an export;
    /// `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Vec<PathBuf>,
}

/// `signet log export`
#[derive(Args, Debug)]
pub(crate) struct LogExportArgs {
    /// Where to; standard output if left out
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `signet log show`
#[derive(Args, Debug)]
pub(crate) struct LogShowArgs {
    /// Only the newest N entries
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "from")]
    pub(crate) last: Option<u64>,
    /// Start at this entry
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from: Option<u64>,
}
