//! `signet card reset`: the PIV part of a card back to factory.
//!
//! What it destroys nobody can bring back, so a yes is not enough: the serial is typed, or given
//! once more as `--confirm`. `--yes` answers yes/no questions, and this is none.

use serde_json::json;
use signet_proto::v1::{CardInfo, ResetCard, card_change::Change};

use super::list::to_json;
use crate::{
    Context,
    agent::change_card,
    args::CardResetArgs,
    failure::{Failure, exit},
    ui::{
        card::{key, named},
        text::{escape, short_id},
    },
};

/// Runs it.
pub(super) async fn run(args: CardResetArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let reply = agent.list_cards().await?;
    let card = chosen(&reply.cards, args.card.serial)?.clone();
    let name = named(card.card.as_ref());
    let serial = card.card.as_ref().map_or(0, |card| card.serial);
    for line in lost(&card) {
        ctx.ui.say(line);
    }
    let typed = match args.confirm {
        Some(serial) => serial.to_string(),
        None => {
            ctx.ui
                .line(&format!(
                    "Every key on the {name} will be lost. Type its serial to go on"
                ))
                .await?
        }
    };
    if typed.trim() != serial.to_string() {
        return Err(Failure::new(
            exit::REFUSED,
            "declined",
            format!("that is not the serial of the {name}; nothing was changed"),
        ));
    }
    let done = change_card(ctx, serial, Change::Reset(ResetCard {}), true).await?;
    let card = done.card.unwrap_or(card);
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({ "v": 1, "card": to_json(&card) }));
    } else {
        ctx.ui.say(format_args!("the {name} is reset"));
    }
    Ok(())
}

/// The card that is meant: the one named, else the only one that is plugged in.
fn chosen(cards: &[CardInfo], serial: Option<u32>) -> Result<&CardInfo, Failure> {
    let serial_of = |info: &CardInfo| info.card.as_ref().map_or(0, |card| card.serial);
    let present: Vec<&CardInfo> = cards
        .iter()
        .filter(|info| info.present)
        .filter(|info| serial.is_none_or(|serial| serial_of(info) == serial))
        .collect();
    match (present.as_slice(), serial) {
        ([only], _) => Ok(only),
        ([], Some(serial)) => Err(Failure::new(
            exit::CARD,
            "card_missing",
            format!("the YubiKey with serial {serial} is not plugged in"),
        )
        .fix("plug it in; `signet card list` shows those that are")),
        ([], None) => Err(
            Failure::new(exit::CARD, "card_missing", "no YubiKey is plugged in")
                .fix("plug it in; `signet doctor` says why one that is plugged in is not seen"),
        ),
        (several, _) => Err(
            Failure::usage("several YubiKeys are plugged in: which one?")
                .fix("name its serial: `signet card reset SERIAL`")
                .candidates(
                    several
                        .iter()
                        .map(|info| named(info.card.as_ref()))
                        .collect(),
                ),
        ),
    }
}

/// The keys that are lost by it, one line each.
fn lost(card: &CardInfo) -> Vec<String> {
    card.slots
        .iter()
        .filter(|slot| !slot.key_id.is_empty() || !slot.algorithm.is_empty())
        .map(|slot| {
            let known = key(&slot.role, &slot.label, &slot.gun);
            let id = match slot.key_id.as_str() {
                "" => "key of nobody known".to_owned(),
                id => short_id(id).to_owned(),
            };
            let line = format!("slot {}: {id} {known}", escape(&slot.slot));
            line.trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::card::list::tests::card;

    #[test]
    fn the_card_that_is_meant_is_named_or_the_only_one() {
        let mut absent = card();
        absent.present = false;
        let cards = [card(), absent.clone()];
        assert!(chosen(&cards, None).unwrap().present);
        assert!(chosen(&cards, Some(12_345_678)).unwrap().present);
        assert_eq!(chosen(&cards, Some(1)).unwrap_err().exit, exit::CARD);
        assert_eq!(chosen(&[absent], None).unwrap_err().exit, exit::CARD);
        let two = chosen(&[card(), card()], None).unwrap_err();
        assert_eq!((two.exit, two.candidates.len()), (exit::USAGE, 2));
    }

    #[test]
    fn what_is_lost_is_named() {
        assert_eq!(lost(&card()), ["slot 9c: ababababab root key"]);
    }
}
