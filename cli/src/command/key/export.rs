//! `signet key export`.

use std::io::Write as _;

use serde_json::json;
use signet_proto::v1::{ExportKey, key_change::Change};
use zeroize::Zeroizing;

use super::{to_json, versioned};
use crate::{
    Context,
    agent::{change, find::describe},
    args::KeyExportArgs,
    failure::Failure,
    new_file::{NewFile, must_be_free},
};

/// Writes a key to stdout or a new file.
pub(crate) async fn run(args: KeyExportArgs, ctx: &mut Context) -> Result<(), Failure> {
    // Before anything is asked: a passphrase chosen for nothing is annoying.
    if let Some(path) = &args.output {
        must_be_free(path)?;
    }
    let wanted = Change::Export(ExportKey {
        key: args.key,
        public_only: args.public,
    });
    let done = change(ctx, wanted, &[]).await?;
    let key = done.key.unwrap_or_default();
    let pem = Zeroizing::new(done.pem);
    if let Some(path) = &args.output {
        let mut new = NewFile::begin(path)?;
        let written = new.file().write_all(&pem);
        written.map_err(|error| Failure::file("write", path, error))?;
        new.keep()?;
    }
    if ctx.ui.is_json() {
        let mut object = versioned(to_json(&key));
        object["file"] = json!(args.output);
        object["pem"] = json!(args.output.is_none().then(|| String::from_utf8_lossy(&pem)));
        ctx.ui.json(&object);
        return Ok(());
    }
    match &args.output {
        Some(path) => ctx.ui.say(format_args!(
            "exported {} to {}",
            describe(&key),
            path.display()
        )),
        None => ctx.ui.bytes(&pem)?,
    }
    Ok(())
}
