//! The verbs, one file each.

pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod card;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod grant;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod keyring;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod plugin;
pub(crate) mod policy;
pub(crate) mod push;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod sign;
pub(crate) mod status;
pub(crate) mod unlock;
pub(crate) mod verify;
pub(crate) mod watch;

use crate::{
    Context,
    args::{Command, RepoCommand},
    failure::Failure,
};

/// Does what the command line says.
pub(crate) async fn run(command: Command, ctx: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Push(args) => push::run(args, ctx).await,
        Command::Sign(args) => sign::run(args, ctx).await,
        Command::Verify(args) => verify::run(args, ctx).await,
        Command::Inspect(args) => inspect::run(args, ctx).await,
        Command::Revoke(args) => revoke::run(args, ctx).await,
        Command::Repo(args) => repo::run(args, ctx).await,
        Command::Key(args) => key::run(args, ctx).await,
        Command::Keyring(args) => keyring::run(args, ctx).await,
        Command::Card(args) => card::run(args, ctx).await,
        Command::Lock => lock::run(ctx).await,
        Command::Unlock(args) => unlock::run(args, ctx).await,
        Command::Watch => watch::run(ctx).await,
        Command::Grant(args) => grant::run(args, ctx).await,
        Command::Status => status::run(ctx).await,
        Command::Doctor => doctor::run(ctx).await,
        Command::Log(args) => log::run(args, ctx).await,
        Command::Backup(args) => backup::run(args, ctx).await,
        Command::Restore(args) => restore::run(args, ctx).await,
        Command::Migrate(args) => migrate::run(args, ctx).await,
        Command::Policy(args) => policy::run(args, ctx).await,
        Command::Agent(args) => agent::run(args, ctx).await,
        Command::Completions(args) => completions::run(&args, &ctx.ui),
        Command::Man(args) => man::run(&args, &ctx.ui),
        Command::Signer(_) | Command::Plan(_) | Command::Pull(_) | Command::Run(_) => {
            unreachable!("reserved names are refused before a command runs")
        }
    }
}

/// The name of a command that is reserved for a later release.
pub(crate) const fn reserved(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Signer(_) => "signer",
        Command::Plan(_) => "plan",
        Command::Pull(_) => "pull",
        Command::Run(_) => "run",
        Command::Repo(args) => match args.command {
            RepoCommand::Rotate(_) => "repo rotate",
            RepoCommand::Pin(_) => "repo pin",
            RepoCommand::Delete(_) => "repo delete",
            RepoCommand::Refresh(_) => "repo refresh",
            RepoCommand::Archive(_) => "repo archive",
            RepoCommand::Copy(_) => "repo copy",
            RepoCommand::Audit(_) => "repo audit",
            RepoCommand::Init(_) => return None,
        },
        _ => return None,
    })
}
