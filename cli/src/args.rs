//! The command line: every verb and flag, with the words that `--help` prints.
//!
//! Scripts depend on these names; they are only ever added to. Flags that every command knows are
//! in [`Globals`] and stand before or after the verb.

mod backup;
mod card;
mod grant;
mod key;
mod log;
mod migrate;
pub(crate) mod store;

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use backup::{
    BackupArgs, BackupCommand, BackupCreateArgs, BackupOpenArgs, OpenWithArgs, RestoreArgs,
};
pub(crate) use card::{
    CardArgs, CardAttestArgs, CardCommand, CardForgetArgs, CardPinArgs, CardResetArgs,
    CardSerialArgs, CardSetupArgs,
};
pub(crate) use grant::{GrantArgs, GrantCommand, GrantRevokeArgs};
pub(crate) use key::{
    KeyArgs, KeyCommand, KeyExportArgs, KeyGenerateArgs, KeyImportArgs, KeyMoveArgs, OnCardArgs,
};
pub(crate) use log::{
    LogArgs, LogCommand, LogExportArgs, LogShowArgs, LogVerifyArgs, PolicyArgs, PolicyCommand,
    PolicyExplainArgs,
};
pub(crate) use migrate::{
    MigrateArgs, MigrateCommand, MigrateFinishArgs, MigrateReceiveArgs, MigrateSendArgs,
};
pub(crate) use store::PinFd;
use store::parse_store;

const GLOBAL: &str = "Global options";

/// Signs container images on push and verifies them before pull.
///
/// Keys are owned by an agent, signetd, which is started when it is needed; it asks for passphrases
/// on this terminal, reads what it signs, and refuses what would roll a repository back.
#[derive(Debug, Parser)]
#[command(
    name = "signet",
    version,
    disable_help_subcommand = true,
    propagate_version = false,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 no valid trust data, 4 refused, \
                  5 locked or nobody to answer, 6 no agent, 7 card, 8 done in part, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Globals {
    /// Print one JSON object instead of text; errors too, on stderr
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Never ask anybody anything; secrets come from descriptors, files and variables only
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_input: bool,
    /// Answer yes to yes/no questions (never a passphrase or PIN, never an override)
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub(crate) yes: bool,
    /// Fail rather than start an agent
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_autostart: bool,
    /// Trust server to use instead of the one that belongs to the registry
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub(crate) server: Option<String>,
    /// Remember --server for this registry in config.toml
    #[arg(long, global = true, requires = "server", help_heading = GLOBAL)]
    pub(crate) save: bool,
    /// Override one rule of the agent; repeatable; confirmed with a passphrase, and logged
    #[arg(long, global = true, value_name = "RULE", help_heading = GLOBAL, hide_possible_values = true,
          long_help = "Override one rule of the agent; repeatable; confirmed with a passphrase, and \
                       logged. RULE is rollback, restart, lineage, gap, key, threshold, expiry, \
                       opaque or check: the refusal names it")]
    pub(crate) allow: Vec<Rule>,
    /// Read a passphrase from a descriptor; WHAT is keyring, root, repository, archive or a KEY; repeatable
    #[arg(long, global = true, value_name = "[WHAT:]N", help_heading = GLOBAL)]
    pub(crate) passphrase_fd: Vec<FdSpec>,
    /// Read the new secret from a descriptor (key passphrase, keyring passphrase, key export, card
    /// pin)
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL)]
    pub(crate) new_passphrase_fd: Option<i32>,
    /// Read a YubiKey's PIN from a descriptor; SERIAL where the command needs several; repeatable
    #[arg(long, global = true, value_name = "[SERIAL:]N", help_heading = GLOBAL)]
    pub(crate) pin_fd: Vec<PinFd>,
    /// Read a YubiKey's management key (hexadecimal) from a descriptor
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL)]
    pub(crate) management_key_fd: Option<i32>,
    /// Spend a YubiKey's last PIN try: a wrong PIN then blocks it
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) use_last_try: bool,
}

/// A rule of the agent that may be overridden once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Rule {
    /// The server's documents are older than what was seen.
    Rollback,
    /// Everything would be made anew.
    Restart,
    /// Another first root than the one recorded.
    Lineage,
    /// A version beyond the next one.
    Gap,
    /// A key that the documents do not list.
    Key,
    /// A threshold lowered, or a key set emptied.
    Threshold,
    /// An expiry past or too far off.
    Expiry,
    /// A payload that cannot be read.
    Opaque,
    /// A check that is set to refuse.
    Check,
}

impl Rule {
    /// The word on the command line and on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Restart => "restart",
            Self::Lineage => "lineage",
            Self::Gap => "gap",
            Self::Key => "key",
            Self::Threshold => "threshold",
            Self::Expiry => "expiry",
            Self::Opaque => "opaque",
            Self::Check => "check",
        }
    }
}

/// `[WHAT:]N`: a descriptor, and what its first line is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FdSpec {
    /// `keyring`, `root`, `archive`, `repository` or a KEY.
    pub(crate) what: Option<String>,
    /// The descriptor.
    pub(crate) fd: i32,
}

impl FromStr for FdSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The last colon: a KEY such as targets@reg.corp:5000/app holds colons of its own.
        let (what, number) = match text.rsplit_once(':') {
            Some(("", _)) => return Err("nothing before the colon".into()),
            Some((what, number)) => (Some(what.to_owned()), number),
            None => (None, text),
        };
        match number.parse::<i32>() {
            Ok(fd) if fd >= 0 => Ok(Self { what, fd }),
            _ => Err(format!("{number:?} is no descriptor number")),
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push an image through the Docker engine, and sign what that push reported
    Push(PushArgs),
    /// Sign an image that is in the registry already
    Sign(SignArgs),
    /// Print the signed digest and its signers, or fail
    Verify(VerifyArgs),
    /// Show the trust data of an image or repository
    Inspect(InspectArgs),
    /// Remove the signature of a tag, or of every tag
    Revoke(RevokeArgs),
    /// Trust collections
    Repo(RepoArgs),
    /// Keys, in every store
    Key(KeyArgs),
    /// What opens the native key store
    Keyring(KeyringArgs),
    /// YubiKeys
    Card(CardArgs),
    /// Forget every held secret
    Lock,
    /// Hold the keyring open, so that signing asks nothing
    Unlock(UnlockArgs),
    /// Attend: see what waits, and answer for requests that cannot ask on their own terminal
    #[command(
        long_about = "Attend: see what waits, cards and the newest log entries, and answer for \
                      requests that cannot ask on their own terminal. y or n answers a question, \
                      t says yes for that terminal session for 15 minutes, Esc declines, l locks, \
                      q ends. With --json it answers nothing and prints a line for each event"
    )]
    Watch,
    /// Approve requests beforehand: of this terminal session, or digests, each once
    Grant(GrantArgs),
    /// Agent, keys, expiries and warnings on one screen
    Status,
    /// Look for what keeps keys, cards or the agent from working, each with its fix
    Doctor,
    /// The signature log
    Log(LogArgs),
    /// Every key in one encrypted file, and the rehearsal that it opens
    Backup(BackupArgs),
    /// Put keys back from a backup, or from a tarball of Docker's
    Restore(RestoreArgs),
    /// Keys that move to another host, and leave nothing behind
    Migrate(MigrateArgs),
    /// What the agent's policy allows
    Policy(PolicyArgs),
    /// The daemon by hand
    Agent(AgentArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(ManArgs),

    // Names of later releases: said so, rather than "unrecognized".
    #[command(hide = true)]
    Signer(Reserved),
    #[command(hide = true)]
    Plan(Reserved),
    #[command(hide = true)]
    Pull(Reserved),
    #[command(hide = true)]
    Run(Reserved),
}

/// Whatever follows a name that is reserved.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Reserved {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<OsString>,
}

/// Which root key a new repository gets, and where new keys go.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NewKeysArgs {
    /// Root key of a new repository: an ID, a prefix of at least 7 digits, or a label
    #[arg(long, value_name = "KEY")]
    pub(crate) root: Option<String>,
    /// Where new keys go: file, docker, or a YubiKey: piv, piv:SERIAL, piv:SERIAL:SLOT
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub(crate) store: Option<String>,
}

/// `signet push`
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// What to push, as for `docker push`; without a tag, latest
    #[arg(value_name = "IMAGE[:TAG]")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) new_keys: NewKeysArgs,
}

/// `signet sign`
#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// What to sign; with a digest and --size no registry is asked
    #[arg(value_name = "IMAGE:TAG[@sha256:DIGEST]")]
    pub(crate) image: String,
    /// Size of the manifest in bytes
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) size: Option<u64>,
    #[command(flatten)]
    pub(crate) new_keys: NewKeysArgs,
}

/// `signet verify`
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// What to verify; without a tag, latest
    #[arg(value_name = "IMAGE[:TAG]")]
    pub(crate) image: String,
    /// Ask for the signature of this signer
    #[arg(long, value_name = "NAME")]
    pub(crate) signer: Option<String>,
    /// Refuse a repository whose root key was never seen here
    #[arg(long)]
    pub(crate) no_first_use: bool,
    /// Pull the verified digest and tag it
    #[arg(long)]
    pub(crate) pull: bool,
}

/// `signet inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Without a tag, the whole repository
    #[arg(value_name = "IMAGE[:TAG]")]
    pub(crate) image: String,
}

/// `signet revoke`
#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Without a tag, every signature of the repository, after a question
    #[arg(value_name = "IMAGE[:TAG]")]
    pub(crate) image: String,
}

/// `signet repo`
#[derive(Args, Debug)]
pub(crate) struct RepoArgs {
    #[command(subcommand)]
    pub(crate) command: RepoCommand,
}

/// Verbs of `signet repo`.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// Create the trust of a repository, without signing a tag
    Init(RepoInitArgs),
    #[command(hide = true)]
    Rotate(Reserved),
    #[command(hide = true)]
    Pin(Reserved),
    #[command(hide = true)]
    Delete(Reserved),
    #[command(hide = true)]
    Refresh(Reserved),
    #[command(hide = true)]
    Archive(Reserved),
    #[command(hide = true)]
    Copy(Reserved),
    #[command(hide = true)]
    Audit(Reserved),
}

/// `signet repo init`
#[derive(Args, Debug)]
pub(crate) struct RepoInitArgs {
    /// The repository, without a tag
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) new_keys: NewKeysArgs,
}

/// `signet keyring`
#[derive(Args, Debug)]
pub(crate) struct KeyringArgs {
    #[command(subcommand)]
    pub(crate) command: KeyringCommand,
}

/// Verbs of `signet keyring`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyringCommand {
    /// Change the passphrase of the keyring
    Passphrase(WhichKeyring),
    /// Make a new identity, and re-encrypt every key for it
    Rotate(WhichKeyring),
}

/// One of the two keyrings.
#[derive(Args, Debug)]
pub(crate) struct WhichKeyring {
    /// The keyring of root keys
    #[arg(long)]
    pub(crate) root: bool,
}

/// `signet unlock`
#[derive(Args, Debug)]
pub(crate) struct UnlockArgs {
    /// For how long: 90s, 15m, 1h (at most an hour)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<u32>,
    /// For this terminal session only
    #[arg(long)]
    pub(crate) here: bool,
}

/// `signet agent`
#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// Verbs of `signet agent`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Start it in the background
    Start,
    /// Stop it cleanly; returns when the process has ended
    Stop,
    /// Run it in the foreground
    Run,
}

/// `signet completions`
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `signet man`
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// An existing directory
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// Reads `90s`, `15m`, `1h` or bare seconds; one second to one hour.
fn parse_duration(text: &str) -> Result<u32, String> {
    match seconds(text)? {
        seconds @ 1..=3600 => Ok(seconds),
        _ => Err("must be between one second and one hour".into()),
    }
}

/// Reads `90s`, `15m`, `1h` or bare seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "not a duration such as 90s, 15m or 1h".to_owned())
}

#[cfg(test)]
mod tests;
