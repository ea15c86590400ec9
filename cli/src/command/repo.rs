//! `signet repo init`: creates the trust of a repository without signing a tag.

use super::sign;
use crate::{
    Context,
    args::{RepoArgs, RepoCommand, RepoInitArgs},
    collection::{
        publish::{self, Change},
        server,
    },
    failure::Failure,
    net::trust_server::Access,
};

/// Runs it.
pub(crate) async fn run(args: RepoArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        RepoCommand::Init(args) => init(args, ctx).await,
        RepoCommand::Rotate(_)
        | RepoCommand::Pin(_)
        | RepoCommand::Delete(_)
        | RepoCommand::Refresh(_)
        | RepoCommand::Archive(_)
        | RepoCommand::Copy(_)
        | RepoCommand::Audit(_) => {
            unreachable!("reserved names are refused before a command runs")
        }
    }
}

async fn init(args: RepoInitArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = sign::parse(&args.image)?;
    if image.tag.is_some() || image.digest.is_some() {
        return Err(
            Failure::usage(format!("{}: a repository has no tag", args.image))
                .fix(format!("`signet repo init {}`", image.familiar())),
        );
    }
    let remote = server::remote(ctx, &image, Access::Write).await?;
    let done = publish::publish(ctx, &image, &remote.trust, &Change::Init, &args.new_keys).await?;
    ctx.ui
        .say(format_args!("Finished initializing trust of {}", image.gun));
    if ctx.ui.is_json() {
        ctx.ui.json(&sign::facts(&image, &remote.trust, &done));
    } else {
        ctx.ui.data(&image.gun);
    }
    Ok(())
}
