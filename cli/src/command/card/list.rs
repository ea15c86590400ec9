//! `signet card list`.

use serde_json::{Value, json};
use signet_proto::v1::{CardInfo, SlotInfo};

use crate::{
    Context,
    failure::Failure,
    ui::{
        card::named,
        text::{columns, escape, short_id},
    },
};

/// Prints every card.
pub(crate) async fn run(ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let reply = agent.list_cards().await?;
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({
            "v": 1,
            "cards": reply.cards.iter().map(to_json).collect::<Vec<_>>(),
            "problems": reply.problems,
        }));
        return Ok(());
    }
    for line in table(&reply.cards) {
        ctx.ui.data(line);
    }
    let slots = slots(&reply.cards);
    if !slots.is_empty() {
        ctx.ui.data("");
    }
    for line in slots {
        ctx.ui.data(line);
    }
    if reply.cards.is_empty() && reply.problems.is_empty() {
        ctx.ui
            .say("no YubiKey is plugged in, and no key lies on one");
    }
    for warning in warnings(&reply.cards).iter().chain(&reply.problems) {
        ctx.ui.warn(escape(warning));
    }
    Ok(())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        escape(text)
    }
}

/// The cards, one a line below a head; nothing for no cards.
pub(crate) fn table(cards: &[CardInfo]) -> Vec<String> {
    if cards.is_empty() {
        return Vec::new();
    }
    let head = [
        "SERIAL",
        "FIRMWARE",
        "FORM",
        "PIN TRIES",
        "PUK TRIES",
        "STATE",
        "LABEL",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for info in cards {
        let card = info.card.clone().unwrap_or_default();
        let tries = |left: u32| {
            if info.tries_known {
                left.to_string()
            } else {
                "-".to_owned()
            }
        };
        rows.push(vec![
            match card.serial {
                0 => "-".to_owned(),
                serial => serial.to_string(),
            },
            or_dash(&info.firmware),
            or_dash(&info.form),
            tries(info.pin_tries),
            tries(info.puk_tries),
            state(info).to_owned(),
            escape(&card.label),
        ]);
    }
    columns(&rows)
}

/// How a card is, in a word or two.
pub(crate) fn state(info: &CardInfo) -> &'static str {
    if !info.present {
        "absent"
    } else if !info.problem.is_empty() {
        "unusable"
    } else if info.default_pin || info.default_puk || info.default_management_key {
        "not set up"
    } else if info.tries_known && info.pin_tries == 0 {
        "PIN blocked"
    } else {
        "ready"
    }
}

/// The slots of all cards, one a line below a head; nothing for none.
fn slots(cards: &[CardInfo]) -> Vec<String> {
    let head = [
        "SERIAL",
        "SLOT",
        "KEY",
        "ROLE",
        "REPOSITORY",
        "ALGORITHM",
        "PIN",
        "TOUCH",
        "ORIGIN",
        "STATE",
        "CERTIFICATE",
        "LABEL",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for info in cards {
        let serial = info.card.as_ref().map_or(0, |card| card.serial);
        for slot in &info.slots {
            rows.push(vec![
                serial.to_string(),
                or_dash(&slot.slot),
                or_dash(short_id(&slot.key_id)),
                or_dash(&slot.role),
                or_dash(&slot.gun),
                or_dash(&slot.algorithm),
                or_dash(&slot.pin_policy),
                or_dash(&slot.touch_policy),
                or_dash(&slot.origin),
                or_dash(&slot.state),
                or_dash(&slot.certificate),
                escape(&slot.label),
            ]);
        }
    }
    if rows.len() == 1 {
        return Vec::new();
    }
    columns(&rows)
}

/// What is wrong with cards and slots, one line each.
pub(crate) fn warnings(cards: &[CardInfo]) -> Vec<String> {
    let mut all = Vec::new();
    for info in cards {
        let card = named(info.card.as_ref());
        let mut add = |text: &str| {
            if !text.is_empty() {
                all.push(format!("{card}: {text}"));
            }
        };
        add(&info.problem);
        for warning in &info.warnings {
            add(warning);
        }
        for slot in info.slots.iter().filter(|slot| !slot.problem.is_empty()) {
            add(&format!("slot {}: {}", slot.slot, slot.problem));
        }
    }
    all
}

/// A card as scripts see it.
pub(crate) fn to_json(info: &CardInfo) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let card = info.card.clone().unwrap_or_default();
    json!({
        "serial": (card.serial != 0).then_some(card.serial),
        "label": text(&card.label),
        "present": info.present,
        "reader": text(&info.reader),
        "firmware": text(&info.firmware),
        "form": text(&info.form),
        "pin_tries": info.tries_known.then_some(info.pin_tries),
        "puk_tries": info.tries_known.then_some(info.puk_tries),
        "default_pin": info.default_pin,
        "default_puk": info.default_puk,
        "default_management_key": info.default_management_key,
        "management_algorithm": text(&info.management_algorithm),
        "management_protected": info.management_protected,
        "leave_verified": info.leave_verified,
        "slots": info.slots.iter().map(slot_to_json).collect::<Vec<_>>(),
        "warnings": info.warnings,
        "problem": text(&info.problem),
    })
}

fn slot_to_json(slot: &SlotInfo) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "slot": slot.slot,
        "key": text(&slot.key_id),
        "algorithm": text(&slot.algorithm),
        "pin_policy": text(&slot.pin_policy),
        "touch_policy": text(&slot.touch_policy),
        "origin": text(&slot.origin),
        "certificate": text(&slot.certificate),
        "state": text(&slot.state),
        "role": text(&slot.role),
        "gun": text(&slot.gun),
        "label": text(&slot.label),
        "attestation": text(&slot.attestation),
        "problem": text(&slot.problem),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use signet_proto::v1::CardName;

    use super::*;

    pub(in crate::command::card) fn card() -> CardInfo {
        CardInfo {
            card: Some(CardName {
                serial: 12_345_678,
                label: "work".into(),
                slot: String::new(),
            }),
            present: true,
            firmware: "5.7.1".into(),
            form: "USB-A keychain".into(),
            pin_tries: 3,
            puk_tries: 3,
            tries_known: true,
            slots: vec![SlotInfo {
                slot: "9c".into(),
                key_id: "ab".repeat(32),
                algorithm: "p256".into(),
                pin_policy: "once".into(),
                touch_policy: "always".into(),
                origin: "generated".into(),
                state: "enrolled".into(),
                role: "root".into(),
                certificate: "CN=root\x1b".into(),
                problem: "no good".into(),
                ..SlotInfo::default()
            }],
            warnings: vec!["old".into()],
            ..CardInfo::default()
        }
    }

    #[test]
    fn cards_and_slots_are_tables() {
        assert_eq!(
            table(&[card()])[1],
            "12345678  5.7.1     USB-A keychain  3          3          ready  work"
        );
        let slots = slots(&[card()]);
        assert!(
            slots[1].starts_with("12345678  9c    ababababab  root  -"),
            "{slots:?}"
        );
        assert!(slots[1].ends_with("CN=root\\u{1b}"), "{slots:?}");
        assert!(table(&[]).is_empty() && super::slots(&[]).is_empty());
    }

    #[test]
    fn a_state_says_what_keeps_a_card_from_signing() {
        let with = |change: &dyn Fn(&mut CardInfo)| {
            let mut card = card();
            change(&mut card);
            state(&card)
        };
        assert_eq!(with(&|card| card.present = false), "absent");
        assert_eq!(with(&|card| card.problem = "x".into()), "unusable");
        assert_eq!(with(&|card| card.default_puk = true), "not set up");
        assert_eq!(with(&|card| card.pin_tries = 0), "PIN blocked");
    }

    #[test]
    fn warnings_name_their_card_and_slot() {
        assert_eq!(
            warnings(&[card()]),
            [
                "YubiKey 'work' (serial 12345678): old",
                "YubiKey 'work' (serial 12345678): slot 9c: no good"
            ]
        );
    }

    #[test]
    fn json_has_null_for_what_is_unknown() {
        let mut unknown = card();
        unknown.tries_known = false;
        let list =
            json!({ "v": 1, "cards": [to_json(&card()), to_json(&unknown)], "problems": [] });
        crate::schema::assert_fits("signet card list", &list);
        assert_eq!(list["cards"][0]["pin_tries"], 3);
        assert_eq!(list["cards"][1]["pin_tries"], Value::Null);
    }
}
