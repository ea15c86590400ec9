//! `signet card …`: YubiKeys.
//!
//! The agent speaks to the cards; here is what a person is shown and asked before and after.

mod list;
mod reset;
mod setup;
mod sheet;

use serde_json::json;
use signet_proto::v1::{
    AttestSlot, CardDone, CardInfo, ChangeCardPin, ChangeCardPuk, ForgetCard, KeyInfo,
    card_change::Change,
};

pub(crate) use list::{state, table, to_json, warnings};

use crate::{
    Context,
    agent::{change_card, find::describe},
    args::{CardArgs, CardAttestArgs, CardCommand, CardForgetArgs, CardPinArgs, CardSerialArgs},
    command::key,
    failure::Failure,
    ui::{card::named, text::escape},
};

/// Runs one of the verbs.
pub(crate) async fn run(args: CardArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        CardCommand::List => list::run(ctx).await,
        CardCommand::Setup(args) => setup::run(args, ctx).await,
        CardCommand::Pin(args) => pin(args, ctx).await,
        CardCommand::Puk(args) => puk(args, ctx).await,
        CardCommand::Attest(args) => attest(args, ctx).await,
        CardCommand::Forget(args) => forget(args, ctx).await,
        CardCommand::Reset(args) => reset::run(args, ctx).await,
    }
}

async fn pin(args: CardPinArgs, ctx: &mut Context) -> Result<(), Failure> {
    let change = Change::Pin(ChangeCardPin { with_puk: args.puk });
    let done = change_card(ctx, args.card.serial.unwrap_or(0), change, false).await?;
    report(ctx, &card_of(done), "has a new PIN");
    Ok(())
}

async fn puk(args: CardSerialArgs, ctx: &mut Context) -> Result<(), Failure> {
    let change = Change::Puk(ChangeCardPuk {});
    let done = change_card(ctx, args.serial.unwrap_or(0), change, false).await?;
    report(ctx, &card_of(done), "has a new PUK");
    Ok(())
}

async fn attest(args: CardAttestArgs, ctx: &mut Context) -> Result<(), Failure> {
    let change = Change::Attest(AttestSlot {
        slot: args.slot.clone(),
    });
    let done = change_card(ctx, args.serial.unwrap_or(0), change, false).await?;
    let serial = done
        .card
        .as_ref()
        .and_then(|card| card.card.as_ref())
        .map(|name| name.serial)
        .or(args.serial);
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({
            "v": 1,
            "serial": serial,
            "slot": args.slot,
            "result": done.attestation_result,
            "certificates": done.attestation,
        }));
        return Ok(());
    }
    for certificate in &done.attestation {
        ctx.ui.data(certificate.trim_end());
    }
    ctx.ui.say(escape(&done.attestation_result));
    Ok(())
}

async fn forget(args: CardForgetArgs, ctx: &mut Context) -> Result<(), Failure> {
    let done = change_card(ctx, args.serial, Change::Forget(ForgetCard {}), false).await?;
    if ctx.ui.is_json() {
        let keys = |keys: &[KeyInfo]| keys.iter().map(key::to_json).collect::<Vec<_>>();
        ctx.ui.json(&json!({
            "v": 1,
            "serial": args.serial,
            "kept": keys(&done.kept),
            "lost": keys(&done.lost),
        }));
        return Ok(());
    }
    for key in &done.kept {
        ctx.ui.data(format_args!(
            "kept: {}{}",
            describe(key),
            elsewhere(key, args.serial)
        ));
    }
    for key in &done.lost {
        ctx.ui.data(format_args!("lost: {}", describe(key)));
        for gun in &key.used_by {
            ctx.ui.data(format_args!("  rotate it in {}", escape(gun)));
        }
    }
    ctx.ui.say(format_args!(
        "the YubiKey (serial {}) is forgotten: keys kept {}, keys lost {}",
        args.serial,
        done.kept.len(),
        done.lost.len()
    ));
    Ok(())
}

/// The other cards that hold a key.
fn elsewhere(key: &KeyInfo, gone: u32) -> String {
    let others: Vec<String> = key
        .cards
        .iter()
        .filter_map(|place| place.card.as_ref())
        .filter(|card| card.serial != gone)
        .map(|card| format!("the {}", named(Some(card))))
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(", on {}", others.join(" and "))
    }
}

/// The card that a change was about.
fn card_of(done: CardDone) -> CardInfo {
    done.card.unwrap_or_default()
}

fn report(ctx: &Context, card: &CardInfo, done: &str) {
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({ "v": 1, "card": to_json(card) }));
    } else {
        ctx.ui
            .say(format_args!("the {} {done}", named(card.card.as_ref())));
    }
}
