//! `signet backup show`.

use serde_json::json;

use super::{manifest_json, named, passphrases, sealed, time};
use crate::{Context, args::BackupOpenArgs, failure::Failure, ui::text::escape};

/// Lists what a backup holds, without a secret and without an agent.
pub(crate) async fn run(args: BackupOpenArgs, ctx: &mut Context) -> Result<(), Failure> {
    let (manifest, _) = sealed::open(&args.file, &args.with, ctx).await?;
    if ctx.ui.is_json() {
        let mut object = manifest_json(&manifest);
        object["v"] = json!(1);
        object["file"] = json!(args.file);
        ctx.ui.json(&object);
        return Ok(());
    }
    ctx.ui.data(format_args!(
        "backup {} of {}, {}",
        manifest.id,
        escape(&manifest.host),
        time(manifest.created).unwrap_or_default()
    ));
    for key in &manifest.keys {
        let state = match (key.file.is_empty(), key.proved) {
            (true, _) => "NOT in it",
            (false, true) => "proved",
            (false, false) => "not proved",
        };
        let why = match key.problem.as_str() {
            "" => String::new(),
            problem => format!(" ({})", escape(problem)),
        };
        ctx.ui.data(format_args!(
            "{:<7} {} {}: {state}{why}",
            escape(&key.store),
            named(&key.role, &key.gun, &key.label, &key.id),
            escape(&key.algorithm)
        ));
    }
    if let Some(line) = manifest
        .log
        .as_ref()
        .and_then(|log| log.checkpoint.as_deref())
    {
        // As `signet log verify --against` reads it.
        ctx.ui
            .data(format_args!("checkpoint of its log: {}", escape(line)));
    }
    for key in &manifest.keys {
        for card in &key.cards {
            let proves = match card.proves.as_str() {
                "" => String::new(),
                proves => format!("; attestation {}", escape(proves)),
            };
            ctx.ui.data(format_args!(
                "{} is on YubiKey {} in slot {}{proves}",
                named(&key.role, &key.gun, &key.label, &key.id),
                card.serial,
                escape(&card.slot)
            ));
        }
    }
    for note in &manifest.notes {
        ctx.ui.data(escape(note));
    }
    for one in passphrases(&manifest) {
        ctx.ui
            .data(format_args!("needed for a restore: {one} passphrase"));
    }
    Ok(())
}
