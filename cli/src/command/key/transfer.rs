//! `signet key move`: a key to one or several cards, or to another store.

use serde_json::Value;
use signet_proto::v1::{KeyInfo, MoveKey, key_change::Change};

use super::{key_of, on_card, places, to_json, versioned};
use crate::{
    Context,
    agent::{change, find::describe},
    args::KeyMoveArgs,
    failure::Failure,
};

/// Runs it.
pub(super) async fn run(args: KeyMoveArgs, ctx: &mut Context) -> Result<(), Failure> {
    let wire = on_card(&args.on_card, &args.store)?;
    let wanted = Change::Move(MoveKey {
        key: args.key,
        stores: args.store,
        pin_policy: wire.pin_policy,
        touch_policy: wire.touch_policy,
        overwrite: wire.overwrite,
        no_backup: args.no_backup,
    });
    let key = key_of(change(ctx, wanted, &[]).await?);
    print(ctx, &key, &versioned(to_json(&key)));
    Ok(())
}

fn print(ctx: &Context, key: &KeyInfo, json: &Value) {
    if ctx.ui.is_json() {
        return ctx.ui.json(json);
    }
    ctx.ui.say(format_args!("moved: {}", describe(key)));
    for place in places(key) {
        ctx.ui.say(format_args!("  {place}"));
    }
}
