//! `signet keyring passphrase`, `rotate`: what opens the native key store.

use serde_json::json;
use signet_proto::v1::{ChangeKeyringPassphrase, RotateKeyring, key_change::Change};

use crate::{
    Context,
    agent::change,
    args::{KeyringArgs, KeyringCommand},
    failure::Failure,
};

/// Runs one of the verbs.
pub(crate) async fn run(args: KeyringArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        KeyringCommand::Passphrase(which) => {
            let root = which.root;
            let wanted = Change::KeyringPassphrase(ChangeKeyringPassphrase { root });
            change(ctx, wanted, &[]).await?;
            if ctx.ui.is_json() {
                ctx.ui.json(&json!({ "v": 1, "keyring": name(root) }));
            } else {
                ctx.ui.say(format_args!(
                    "the passphrase of the {} is changed",
                    words(root)
                ));
            }
        }
        KeyringCommand::Rotate(which) => {
            let root = which.root;
            let done = change(ctx, Change::KeyringRotate(RotateKeyring { root }), &[]).await?;
            if ctx.ui.is_json() {
                ctx.ui
                    .json(&json!({ "v": 1, "keyring": name(root), "keys": done.count }));
            } else {
                ctx.ui.say(format_args!(
                    "the {} has a new identity; keys encrypted for it: {}",
                    words(root),
                    done.count
                ));
            }
        }
    }
    Ok(())
}

const fn name(root: bool) -> &'static str {
    if root { "root" } else { "repository" }
}

const fn words(root: bool) -> &'static str {
    if root { "root keyring" } else { "keyring" }
}
