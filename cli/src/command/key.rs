//! `signet key …`: keys of every store.
//!
//! The agent decides what a KEY argument means wherever something changes; only what is merely
//! shown is looked up here.

mod export;
pub(crate) mod import;
mod show;
mod transfer;

use signet_proto::v1::{
    ChangeKeyPassphrase, GenerateKey, KeyDone, KeyInfo, LabelKey, RemoveKey, ReviveKey,
    key_change::Change,
};

pub(crate) use show::{places, problems, table, to_json, versioned};

use crate::{
    Context,
    agent::{change, find::describe},
    args::{
        KeyArgs, KeyCommand, KeyGenerateArgs, OnCardArgs,
        store::{is_card, names_slot},
    },
    failure::Failure,
    ui::text::escape,
};

/// Runs one of the verbs.
pub(crate) async fn run(args: KeyArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        KeyCommand::List => show::list(ctx).await,
        KeyCommand::Show(args) => show::one(&args.key, ctx).await,
        KeyCommand::Generate(args) => generate(args, ctx).await,
        KeyCommand::Import(args) => import::run(args, ctx).await,
        KeyCommand::Export(args) => export::run(args, ctx).await,
        KeyCommand::Label(args) => {
            let wanted = Change::Label(LabelKey {
                key: args.key,
                label: args.label,
            });
            let key = key_of(change(ctx, wanted, &[]).await?);
            let done = if key.label.is_empty() {
                "without a label"
            } else {
                "labelled"
            };
            report(ctx, &key, done);
            Ok(())
        }
        KeyCommand::Remove(args) => {
            let key = key_of(change(ctx, Change::Remove(RemoveKey { key: args.key }), &[]).await?);
            report(ctx, &key, "removed");
            Ok(())
        }
        KeyCommand::Passphrase(args) => {
            let wanted = Change::KeyPassphrase(ChangeKeyPassphrase { key: args.key });
            let key = key_of(change(ctx, wanted, &[]).await?);
            report(ctx, &key, "passphrase changed");
            Ok(())
        }
        KeyCommand::Move(args) => transfer::run(args, ctx).await,
        KeyCommand::Revive(args) => {
            let key = key_of(change(ctx, Change::Revive(ReviveKey { key: args.key }), &[]).await?);
            report(ctx, &key, "revived");
            if key.state == "gone" && !ctx.ui.is_json() {
                ctx.ui.say(
                    "its file is not here: `signet restore` from a backup or `signet key import` \
                     brings it back",
                );
            }
            Ok(())
        }
    }
}

async fn generate(args: KeyGenerateArgs, ctx: &mut Context) -> Result<(), Failure> {
    let stores: Vec<String> = args.store.iter().cloned().collect();
    let wire = on_card(&args.on_card, &stores)?;
    if matches!(args.role.as_str(), "targets" | "snapshot") && args.gun.is_none() {
        return Err(
            Failure::usage(format!("a {} key is for one repository", args.role))
                .fix("--gun docker.io/me/app"),
        );
    }
    let wanted = Change::Generate(GenerateKey {
        role: args.role,
        gun: args.gun.unwrap_or_default(),
        store: args.store.unwrap_or_default(),
        algorithm: args
            .algorithm
            .map_or("", |algorithm| algorithm.as_str())
            .to_owned(),
        label: args.label.unwrap_or_default(),
        pin_policy: wire.pin_policy,
        touch_policy: wire.touch_policy,
        overwrite: wire.overwrite,
    });
    let key = key_of(change(ctx, wanted, &[]).await?);
    if ctx.ui.is_json() {
        ctx.ui.json(&versioned(to_json(&key)));
    } else {
        ctx.ui.data(&key.key_id);
        ctx.ui
            .say(format_args!("made {}{}", describe(&key), at(&key)));
        for place in places(&key) {
            ctx.ui.say(format_args!("  {place}"));
        }
    }
    Ok(())
}

/// What the wire says of a key on a card.
struct OnCard {
    pin_policy: String,
    touch_policy: String,
    overwrite: String,
}

/// The flags for keys on cards, as they go on the wire.
///
/// # Errors
///
/// Exit 2: they make no sense for these stores.
fn on_card(args: &OnCardArgs, stores: &[String]) -> Result<OnCard, Failure> {
    let is_set = args.pin_policy.is_some() || args.touch_policy.is_some();
    // Without a store the agent's default decides, and says so if it is no card.
    if is_set && !stores.is_empty() && !stores.iter().any(|store| is_card(store)) {
        return Err(
            Failure::usage("--pin-policy and --touch-policy are for keys on a YubiKey")
                .fix("--store piv, piv:SERIAL or piv:SERIAL:SLOT"),
        );
    }
    if args.overwrite.is_some() && !stores.iter().any(|store| names_slot(store)) {
        return Err(Failure::usage(
            "--overwrite names the key that is lost, and --store must name its slot",
        )
        .fix("--store piv:SERIAL:SLOT; `signet card list` shows which key is where"));
    }
    Ok(OnCard {
        pin_policy: args.pin_policy.map_or("", |policy| policy.as_str()).into(),
        touch_policy: args
            .touch_policy
            .map_or("", |policy| policy.as_str())
            .into(),
        overwrite: args.overwrite.clone().unwrap_or_default(),
    })
}

/// The key that a change was about.
fn key_of(done: KeyDone) -> KeyInfo {
    done.key.unwrap_or_default()
}

fn at(key: &KeyInfo) -> String {
    if key.path.is_empty() {
        String::new()
    } else {
        format!(", {}", escape(&key.path))
    }
}

fn report(ctx: &Context, key: &KeyInfo, done: &str) {
    if ctx.ui.is_json() {
        ctx.ui.json(&versioned(to_json(key)));
    } else {
        ctx.ui.say(format_args!("{done}: {}", describe(key)));
    }
}
