//! The old host: package, and the end of the keys here.

use std::{fs, path::Path};

use serde_json::json;
use signet_proto::{
    migration::{BadMessage, MAX_OFFER, Offer},
    v1::{MigrateFinish, MigrateSend, Migration, migrate::Step},
};

use super::{PACKAGE, about, must_be_free, new::missing, place, put, read, ssh, step, text};
use crate::{
    Context,
    args::{MigrateFinishArgs, MigrateSendArgs},
    failure::{Failure, exit},
    ui::text::escape,
};

/// Packs the keys for an offer.
pub(super) async fn send(args: MigrateSendArgs, ctx: &mut Context) -> Result<(), Failure> {
    // Over ssh what comes first is a key already.
    let mut arguments: Vec<String> = args.offer.into_iter().collect();
    arguments.extend(args.keys);
    if let Some(target) = args.ssh {
        return ssh::send(&target, arguments, ctx).await;
    }
    let (line, keys) = offer_of(arguments)?;
    let offer = Offer::parse(&line).map_err(|error| bad_offer(&error))?;
    let file = place(args.output, &offer.id, "package");
    must_be_free(&file)?;
    let (migration, package) = pack(line, keys, false, ctx).await?;
    put(&file, &package)?;
    if ctx.ui.is_json() {
        let mut object = text::object(&migration);
        object["file"] = json!(file);
        let missing = missing(&migration);
        if !missing.is_empty() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
    } else {
        ctx.ui.data(file.display());
        for key in &migration.keys {
            ctx.ui.say(text::key(key));
        }
        let to = escape(&migration.peer);
        ctx.ui.say(format_args!(
            "on {to}: signet migrate receive {}",
            file.display()
        ));
        ctx.ui.say(format_args!(
            "until the receipt of {to} is read here (signet migrate finish RECEIPT) both hosts can \
             sign"
        ));
    }
    stays(&migration)
}

/// Has the agent make a package.
pub(super) async fn pack(
    offer: String,
    keys: Vec<String>,
    compared: bool,
    ctx: &mut Context,
) -> Result<(Migration, Vec<u8>), Failure> {
    let send = MigrateSend {
        offer,
        keys,
        compared,
    };
    let archived = step(ctx, Step::Send(send), None).await?;
    let (migration, _) = about(archived.done)?;
    let package = archived.members.into_iter().find(|m| m.path == PACKAGE);
    let package = package.ok_or_else(|| {
        Failure::new(exit::NO_AGENT, "agent_version", "the agent made no package")
    })?;
    Ok((migration, package.data))
}

/// Exit 8 where a key could not leave.
pub(super) fn stays(migration: &Migration) -> Result<(), Failure> {
    let missing = missing(migration);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} keys are not in the package and stay here",
        missing.len()
    );
    Err(Failure::new(exit::PARTIAL, "partial", message)
        .fix("give their passphrases, and send them in another migration")
        .missing(missing))
}

/// Retires what a receipt proves.
pub(super) async fn finish(args: MigrateFinishArgs, ctx: &mut Context) -> Result<(), Failure> {
    let receipt = read(&args.receipt)?;
    if let Some(output) = &args.output {
        must_be_free(output)?;
    }
    let (migration, note) = retire(receipt, ctx).await?;
    let file = place(args.output, &migration.id, "note");
    if !note.is_empty() {
        put(&file, &note)?;
    }
    let written = (!note.is_empty()).then_some(file.as_path());
    say_retired(&migration, written, ctx);
    unproved(&migration)
}

/// Hands a receipt to the agent; the closing note.
pub(super) async fn retire(
    receipt: Vec<u8>,
    ctx: &mut Context,
) -> Result<(Migration, Vec<u8>), Failure> {
    let done = step(ctx, Step::Finish(MigrateFinish { receipt }), None)
        .await?
        .done;
    about(done)
}

/// What is over now, and what that means.
pub(super) fn say_retired(migration: &Migration, note: Option<&Path>, ctx: &mut Context) {
    if ctx.ui.is_json() {
        let mut object = text::object(migration);
        object["file"] = json!(note);
        let missing = missing(migration);
        if !missing.is_empty() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
        return;
    }
    if let Some(note) = note {
        ctx.ui.data(note.display());
    }
    for key in &migration.keys {
        ctx.ui.say(text::key(key));
    }
    if migration.keys.iter().any(|key| key.state == "retired") {
        for line in text::retired(&escape(&migration.peer)) {
            ctx.ui.say(line);
        }
    }
}

/// Exit 8 where keys are still leaving.
pub(super) fn unproved(migration: &Migration) -> Result<(), Failure> {
    let missing = missing(migration);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} keys are still leaving: the receipt does not prove them",
        missing.len()
    );
    Err(Failure::new(exit::PARTIAL, "partial", message)
        .fix(
            "take the package in again on the new host, with what was missing, and finish with the \
             receipt that it writes then; or `signet migrate cancel`",
        )
        .missing(missing))
}

/// The offer and the keys: the offer is a file, or a line that a shell may have taken apart.
fn offer_of(arguments: Vec<String>) -> Result<(String, Vec<String>), Failure> {
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else {
        return Err(Failure::usage("no offer is named").fix(
            "run `signet migrate receive` on the new host, and give this command the line that it \
             prints; or --ssh USER@HOST",
        ));
    };
    if first.starts_with("signet-offer-") {
        let line = match first.contains(' ') {
            true => first,
            false => {
                let rest: Vec<String> = arguments.by_ref().take(3).collect();
                format!("{first} {}", rest.join(" "))
            }
        };
        return Ok((line, arguments.collect()));
    }
    let file = Path::new(&first);
    let failed = |error| Failure::file("read", file, error);
    let size = fs::metadata(file).map_err(failed)?.len();
    if size > MAX_OFFER as u64 {
        return Err(bad_offer(&BadMessage::Kind { expected: "offer" }));
    }
    let line = fs::read_to_string(file).map_err(failed)?;
    Ok((line, arguments.collect()))
}

pub(super) fn bad_offer(error: &BadMessage) -> Failure {
    Failure::new(
        exit::USAGE,
        "bad_offer",
        format!("the offer cannot be used: {error}"),
    )
    .fix("copy the whole line that `signet migrate receive` printed on the new host")
}
