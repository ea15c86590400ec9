//! `signet key import`: key files, whole `private/` directories, export bundles.
//!
//! The command reads the files and sends each key block to the agent, which opens it, checks its
//! ID, and stores it; nothing of the source is changed. One file that fails does not keep the
//! others back: then the exit code is 8, and what is missing is named.

pub(crate) mod source;

use serde_json::json;
use signet_proto::v1::{ImportKey, key_change::Change};

use source::{Block, Found};

use super::{at, to_json};
use crate::{
    Context,
    agent::{change, find::describe},
    args::KeyImportArgs,
    failure::{Failure, Missing, exit},
};

/// Imports every key found.
pub(crate) async fn run(args: KeyImportArgs, ctx: &mut Context) -> Result<(), Failure> {
    let store = args.store.clone().unwrap_or_default();
    let Found {
        blocks,
        mut failures,
        notes,
    } = source::find(&args.paths);
    for note in notes {
        ctx.ui.warn(note);
    }
    if args.label.is_some() && blocks.len() > 1 {
        return Err(Failure::usage(format!(
            "--label names one key, but there are {}",
            blocks.len()
        ))
        .fix("import them, then `signet key label KEY LABEL` each"));
    }
    // Secrets are asked for one after the other; nothing to ask for when no file is a key.
    if blocks.is_empty() && failures.is_empty() {
        return Err(
            Failure::new(exit::FAILED, "no_keys", "there are no key files in it")
                .fix("key files end in .key or .pem; Docker's are in ~/.docker/trust/private"),
        );
    }
    let mut imported = Vec::new();
    for block in &blocks {
        match import(block, &args, &store, ctx).await {
            Ok(done) => imported.push(done),
            Err(failure) if failure.exit == exit::INTERRUPTED || failure.exit == exit::NO_AGENT => {
                return Err(failure);
            }
            Err(failure) => failures.push((block.source.clone(), failure)),
        }
    }
    finish(ctx, imported, failures)
}

async fn import(
    block: &Block,
    args: &KeyImportArgs,
    store: &str,
    ctx: &mut Context,
) -> Result<serde_json::Value, Failure> {
    let or_given = |own: &Option<String>, given: &Option<String>| {
        own.clone().or_else(|| given.clone()).unwrap_or_default()
    };
    let wanted = Change::Import(ImportKey {
        size: block.pem.len() as u64,
        role: or_given(&block.role, &args.role),
        gun: or_given(&block.gun, &args.gun),
        store: store.to_owned(),
        label: args.label.clone().unwrap_or_default(),
        source: block.source.clone(),
        expected_key_id: block.expected_id.clone().unwrap_or_default(),
    });
    ctx.secrets.next_file();
    let done = change(ctx, wanted, &block.pem).await?;
    let key = done.key.unwrap_or_default();
    if !ctx.ui.is_json() {
        let what = if done.unchanged {
            "was here already"
        } else {
            "imported"
        };
        ctx.ui.data(format_args!(
            "{}: {what}: {}{}",
            block.source,
            describe(&key),
            at(&key)
        ));
    }
    Ok(json!({ "source": block.source, "unchanged": done.unchanged, "key": to_json(&key) }))
}

fn finish(
    ctx: &Context,
    imported: Vec<serde_json::Value>,
    mut failures: Vec<(String, Failure)>,
) -> Result<(), Failure> {
    let missing: Vec<Missing> = failures
        .iter()
        .map(|(source, failure)| failure.as_missing(source))
        .collect();
    if ctx.ui.is_json() && !imported.is_empty() {
        let mut object = json!({ "v": 1, "imported": imported });
        if !missing.is_empty() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
    }
    let fails = failures.len();
    match (imported.len(), fails) {
        (_, 0) => Ok(()),
        (0, 1) => {
            let (source, mut failure) = failures.remove(0);
            if !failure.message.contains(&source) {
                failure.message = format!("{source}: {}", failure.message);
            }
            Err(failure)
        }
        (0, _) => {
            // One code where all agree, as when every passphrase was missing.
            let exit = missing[0].exit;
            let exit = if missing.iter().all(|one| one.exit == exit) {
                exit
            } else {
                exit::FAILED
            };
            let message = format!("none of {fails} keys was imported");
            Err(Failure::new(exit, "import", message).missing(missing))
        }
        (done, _) => Err(Failure::new(
            exit::PARTIAL,
            "partial",
            format!("{done} of {} keys were imported", done + fails),
        )
        .fix("the same command again imports what is missing; what is there is left as it is")
        .missing(missing)),
    }
}
