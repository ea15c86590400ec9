//! `signet backup verify`: the rehearsal.

use std::collections::HashSet;

use serde_json::json;
use signet_proto::v1::{RehearseBackup, backup_start::What};

use super::{key_json, manifest_json, missing, named, sealed};
use crate::{
    Context,
    agent::archive::archive,
    args::BackupOpenArgs,
    failure::{Failure, exit},
};

/// Opens every key of a backup.
pub(crate) async fn run(args: BackupOpenArgs, ctx: &mut Context) -> Result<(), Failure> {
    let (manifest, members) = sealed::open(&args.file, &args.with, ctx).await?;
    let rehearse = RehearseBackup {
        source: args.file.display().to_string(),
    };
    let archived = archive(ctx, What::Rehearse(rehearse), Some(members)).await?;
    let keys = archived.done.keys;
    let packed: HashSet<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let agent = ctx.agent().await?;
    let here = agent.list_keys(ctx.docker_dir()).await?.keys;
    let newer: Vec<_> = here
        .iter()
        .filter(|key| key.state != "gone" && key.cards.is_empty())
        .filter(|key| !packed.contains(key.key_id.as_str()))
        .collect();
    let missing = missing(&keys);
    if ctx.ui.is_json() {
        let mut object = manifest_json(&manifest);
        object["v"] = json!(1);
        object["file"] = json!(args.file);
        object["keys"] = keys.iter().map(key_json).collect();
        object["not_in_it"] = newer.iter().map(|key| json!(key.key_id)).collect();
        object["log_entry"] = json!(archived.done.log_entry);
        if !missing.is_empty() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
    } else {
        for key in &keys {
            let state = if key.proved { "opens" } else { "does NOT open" };
            let here = match key.here.as_str() {
                "here" => "here, too",
                "gone" => "gone here",
                _ => "not here",
            };
            ctx.ui.data(format_args!(
                "{}: {state}; {here}",
                named(&key.role, &key.gun, &key.label, &key.key_id)
            ));
        }
        for key in &newer {
            ctx.ui.warn(format_args!(
                "{} is here, but not in this backup",
                named(&key.role, &key.gun, &key.label, &key.key_id)
            ));
        }
    }
    let total = keys.len();
    let opened = total - missing.len();
    if missing.is_empty() {
        if !ctx.ui.is_json() {
            ctx.ui
                .say(format_args!("all {total} keys of the backup open"));
        }
        return Ok(());
    }
    let message = format!("{opened} of {total} keys of {} open", args.file.display());
    // One code where none opens and all agree why.
    let one = missing[0].exit;
    let exit = match opened == 0 && missing.iter().all(|missing| missing.exit == one) {
        true => one,
        false => exit::PARTIAL,
    };
    Err(Failure::new(exit, "partial", message)
        .fix("give the passphrases that are missing; for damaged keys make another backup")
        .missing(missing))
}
