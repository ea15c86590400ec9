//! The new host: offer, package, receipt, closing note.

use std::path::PathBuf;

use serde_json::json;
use signet_proto::{
    archive::Member,
    migration::{Kind, kind},
    v1::{
        BackupDone, MigrateClose, MigrateOffer, MigrateReceipt, MigrateReceive, Migration,
        migrate::Step,
    },
};

use super::{PACKAGE, about, must_be_free, place, put, qr, read, ssh, step, text};
use crate::{
    Context,
    args::MigrateReceiveArgs,
    failure::{Failure, Missing, exit},
    ui::text::escape,
};

/// Does what the command line says.
pub(super) async fn run(args: MigrateReceiveArgs, ctx: &mut Context) -> Result<(), Failure> {
    if args.stdio {
        return ssh::serve(ctx).await;
    }
    if let Some(id) = args.receipt {
        let done = step(ctx, Step::Receipt(MigrateReceipt { id }), None)
            .await?
            .done;
        let (migration, receipt) = about(done)?;
        let file = place(args.output, &migration.id, "receipt");
        put(&file, &receipt)?;
        say_receipt(&migration, &file, None, ctx);
        return Ok(());
    }
    let Some(file) = args.file else {
        return offer(args.output, ctx).await;
    };
    let bytes = read(&file)?;
    match kind(&bytes) {
        Some(Kind::Package) => {
            if let Some(output) = &args.output {
                must_be_free(output)?;
            }
            let done = receive(bytes, &file.display().to_string(), ctx).await?;
            let (migration, receipt) = about(done.clone())?;
            let place = place(args.output, &migration.id, "receipt");
            put(&place, &receipt)?;
            say_receipt(&migration, &place, Some(&done), ctx);
            partial(&migration)
        }
        Some(Kind::Note) => {
            let migration = close(bytes, ctx).await?;
            if ctx.ui.is_json() {
                ctx.ui.json(&text::object(&migration));
            } else {
                for line in text::lines(&migration) {
                    ctx.ui.data(line);
                }
            }
            Ok(())
        }
        Some(Kind::Offer) => Err(Failure::usage(format!(
            "{} is an offer, which is for the host that has the keys",
            file.display()
        ))
        .fix("run `signet migrate send OFFER` there")),
        Some(Kind::Receipt) => Err(Failure::usage(format!(
            "{} is a receipt, which is for the host that sent the keys",
            file.display()
        ))
        .fix("run `signet migrate finish RECEIPT` there")),
        None => Err(Failure::new(
            exit::FAILED,
            "bad_message",
            format!("{} is neither a package nor a closing note", file.display()),
        )
        .fix("nothing was changed; use another copy of it")),
    }
}

/// Hands a package to the agent.
pub(super) async fn receive(
    package: Vec<u8>,
    source: &str,
    ctx: &mut Context,
) -> Result<BackupDone, Failure> {
    let receive = MigrateReceive {
        source: source.to_owned(),
    };
    let member = Member {
        path: PACKAGE.to_owned(),
        data: package,
    };
    let archived = step(ctx, Step::Receive(receive), Some(vec![member])).await?;
    Ok(archived.done)
}

/// Hands a closing note to the agent.
pub(super) async fn close(note: Vec<u8>, ctx: &mut Context) -> Result<Migration, Failure> {
    let done = step(ctx, Step::Close(MigrateClose { note }), None)
        .await?
        .done;
    Ok(about(done)?.0)
}

async fn offer(output: Option<PathBuf>, ctx: &mut Context) -> Result<(), Failure> {
    if let Some(file) = &output {
        must_be_free(file)?;
    }
    let done = step(ctx, Step::Offer(MigrateOffer::default()), None)
        .await?
        .done;
    let (migration, line) = about(done)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    if let Some(file) = &output {
        put(file, format!("{line}\n").as_bytes())?;
    }
    if ctx.ui.is_json() {
        let mut object = text::object(&migration);
        object["offer"] = json!(line);
        object["file"] = json!(output);
        ctx.ui.json(&object);
        return Ok(());
    }
    match &output {
        Some(file) => ctx.ui.data(file.display()),
        None => ctx.ui.data(escape(&line)),
    }
    if ctx.ui.talk_is_terminal() {
        qr::show(&line);
    }
    ctx.ui
        .say(format_args!("recipient  {}", migration.recipient));
    ctx.ui.say(
        "on the host that has the keys: signet migrate send OFFER, and compare the recipient that \
         it shows",
    );
    ctx.ui.say(format_args!(
        "what opens the package is kept in {}, mode 0600, until its keys are proved",
        ctx.places
            .home
            .join("migration")
            .join(format!("{}.key", migration.id))
            .display()
    ));
    Ok(())
}

fn say_receipt(
    migration: &Migration,
    file: &std::path::Path,
    done: Option<&BackupDone>,
    ctx: &mut Context,
) {
    if ctx.ui.is_json() {
        let mut object = text::object(migration);
        object["file"] = json!(file);
        let missing = missing(migration);
        if !missing.is_empty() && done.is_some() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
        return;
    }
    ctx.ui.data(file.display());
    for key in &migration.keys {
        ctx.ui.say(text::key(key));
    }
    let from = escape(&migration.peer);
    ctx.ui.say(format_args!(
        "until {from} has read this receipt both hosts can sign; there: signet migrate finish {}",
        file.display()
    ));
    ctx.ui.say(
        "its closing note, once it is here (signet migrate receive NOTE), says that the keys are \
         retired there",
    );
}

/// The keys that were not proved.
pub(super) fn missing(migration: &Migration) -> Vec<Missing> {
    let open = migration.keys.iter().filter(|key| key.exit != 0);
    open.map(|key| Missing {
        what: text::name(key),
        reason: escape(&key.problem),
        exit: u8::try_from(key.exit).unwrap_or(exit::FAILED),
    })
    .collect()
}

/// Exit 8 where keys are missing.
pub(super) fn partial(migration: &Migration) -> Result<(), Failure> {
    let missing = missing(migration);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of {} keys were not proved here, and stay with {}",
        missing.len(),
        migration.keys.len(),
        escape(&migration.peer)
    );
    Err(Failure::new(exit::PARTIAL, "partial", message)
        .fix(
            "the same package again, with the passphrases that were missing or the card plugged in, \
             proves the rest",
        )
        .missing(missing))
}
