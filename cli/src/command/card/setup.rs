//! `signet card setup`: a factory-new YubiKey becomes somebody's.

use serde_json::json;
use signet_proto::v1::{SetUpCard, card_change::Change};

use super::{
    card_of,
    list::to_json,
    sheet::{Place, Sheet},
};
use crate::{Context, agent::change_card, args::CardSetupArgs, failure::Failure, ui::card::named};

/// Runs it.
pub(super) async fn run(args: CardSetupArgs, ctx: &mut Context) -> Result<(), Failure> {
    // Before the card is touched: secrets that nobody can be shown are lost.
    let place = Place::open(args.recovery_sheet)?;
    let change = Change::Setup(SetUpCard {
        label: args.label.unwrap_or_default(),
        pin_tries: args.pin_tries.map_or(0, u32::from),
        puk_tries: args.puk_tries.map_or(0, u32::from),
    });
    let mut done = change_card(ctx, args.card.serial.unwrap_or(0), change, false).await?;
    let recovery = done.recovery.take();
    let card = card_of(done);
    let serial = card.card.as_ref().map_or(0, |card| card.serial);
    let written = match recovery {
        Some(recovery) => Some(place.write(&Sheet::new(&card, recovery), serial, &ctx.ui)?),
        None => None,
    };
    if ctx.ui.is_json() {
        let file = written.flatten();
        ctx.ui.json(&json!({
            "v": 1,
            "card": to_json(&card),
            "recovery_sheet": file.map(|file| file.display().to_string()),
        }));
        return Ok(());
    }
    let name = named(card.card.as_ref());
    match written {
        Some(Some(file)) => ctx.ui.say(format_args!(
            "the {name} is set up; its recovery sheet is {}: print it, then delete the file",
            file.display()
        )),
        Some(None) => ctx.ui.say(format_args!(
            "the {name} is set up; keep its recovery sheet"
        )),
        None => ctx.ui.say(format_args!("the {name} was set up already")),
    }
    Ok(())
}
