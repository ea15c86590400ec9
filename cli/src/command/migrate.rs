//! `signet migrate`: keys move to another host, and the old one retires them.

mod new;
mod old;
mod qr;
mod ssh;
mod text;
pub(crate) mod wire;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use signet_proto::{
    archive::Member,
    migration,
    v1::{
        BackupDone, Migrate, MigrateCancel, MigrateStatus, Migration, backup_start::What,
        migrate::Step,
    },
};

use crate::{
    Context,
    agent::archive::{Archived, archive},
    args::{MigrateArgs, MigrateCommand},
    failure::{Failure, exit},
};

/// The member that a package travels as.
const PACKAGE: &str = "package";
/// Largest file read: a package.
const MAX_FILE: u64 = 96 * 1024 * 1024;

/// Does what the command line says.
pub(crate) async fn run(args: MigrateArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        MigrateCommand::Receive(args) => new::run(args, ctx).await,
        MigrateCommand::Send(args) => old::send(args, ctx).await,
        MigrateCommand::Finish(args) => old::finish(args, ctx).await,
        MigrateCommand::Status => status(ctx).await,
        MigrateCommand::Cancel(args) => cancel(args.id.unwrap_or_default(), ctx).await,
    }
}

/// One step; what the agent says of it.
async fn step(
    ctx: &mut Context,
    step: Step,
    members: Option<Vec<Member>>,
) -> Result<Archived, Failure> {
    let migrate = Migrate {
        step: Some(step),
        host: host(),
    };
    archive(ctx, What::Migrate(migrate), members).await
}

/// The migration that an answer is about, and the message that goes to the other host.
fn about(done: BackupDone) -> Result<(Migration, Vec<u8>), Failure> {
    let told = done.migration.unwrap_or_default();
    match told.migrations.into_iter().next() {
        Some(migration) => Ok((migration, told.message)),
        None => Err(Failure::new(
            exit::NO_AGENT,
            "agent_version",
            "the agent knows no migrations",
        )
        .fix("it is of another version: `signet agent stop`, then run the command again")),
    }
}

async fn list(ctx: &mut Context) -> Result<Vec<Migration>, Failure> {
    let done = step(ctx, Step::Status(MigrateStatus {}), None).await?.done;
    Ok(done.migration.unwrap_or_default().migrations)
}

async fn status(ctx: &mut Context) -> Result<(), Failure> {
    let all = list(ctx).await?;
    if ctx.ui.is_json() {
        let all: Vec<_> = all.iter().map(text::to_json).collect();
        ctx.ui
            .json(&serde_json::json!({ "v": 1, "migrations": all }));
        return Ok(());
    }
    if all.is_empty() {
        ctx.ui.say("no keys have moved to or from this host");
    }
    for (at, migration) in all.iter().enumerate() {
        if at > 0 {
            ctx.ui.data("");
        }
        for line in text::lines(migration) {
            ctx.ui.data(line);
        }
    }
    Ok(())
}

async fn cancel(id: String, ctx: &mut Context) -> Result<(), Failure> {
    let done = step(ctx, Step::Cancel(MigrateCancel { id }), None)
        .await?
        .done;
    let (migration, _) = about(done)?;
    if ctx.ui.is_json() {
        ctx.ui.json(&text::object(&migration));
        return Ok(());
    }
    ctx.ui.data(format_args!("cancelled: {}", migration.id));
    for line in text::cancelled(&migration) {
        ctx.ui.warn(line);
    }
    Ok(())
}

/// A file that the other host wrote.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::file("read", file, error);
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::other("it is larger than any package")));
    }
    Ok(bytes)
}

/// Where a message goes: as asked, else by the migration's ID in this directory.
fn place(output: Option<PathBuf>, id: &str, kind: &str) -> PathBuf {
    let short = id.get(..8).unwrap_or(id);
    output.unwrap_or_else(|| PathBuf::from(format!("signet-{short}.{kind}")))
}

/// Fails where a file cannot be written without replacing another.
fn must_be_free(file: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("write", file, error)),
        Ok(_) => Err(Failure::new(
            exit::FAILED,
            "file_exists",
            format!("{} exists already", file.display()),
        )
        .fix("choose another name with -o; nothing is ever overwritten")),
    }
}

/// Writes a new file, whole and on disk. One that holds the same already is left alone.
fn put(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if fs::read(file).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    must_be_free(file)?;
    let failed = |error| Failure::file("write", file, error);
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut temp = tempfile::Builder::new();
    let mut temp = temp
        .prefix(".signet-")
        .make_in(dir, |path| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })
        .map_err(failed)?;
    temp.write_all(bytes).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist_noclobber(file)
        .map_err(|error| failed(error.error))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

/// The name of this machine.
fn host() -> String {
    let name = rustix::system::uname();
    migration::host_name(&name.nodename().to_string_lossy())
}
