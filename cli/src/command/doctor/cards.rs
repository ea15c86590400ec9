//! The cards themselves, as the agent sees them.

use signet_proto::v1::{CardInfo, ListCardsReply};

use super::{Finding, State};
use crate::ui::card::named;

/// Whether somebody relies on this card, so that what keeps it from working is a failure.
pub(super) fn matters(card: &CardInfo) -> bool {
    card.slots.iter().any(|slot| slot.state == "enrolled") || card.present
}

/// Everything about cards that is not among `before` already.
pub(super) fn look(cards: &ListCardsReply, wanted: bool, before: &[Finding]) -> Vec<Finding> {
    let is_said = |text: &str| before.iter().any(|one| one.message == text);
    let mut found: Vec<Finding> = cards
        .problems
        .iter()
        .filter(|problem| !is_said(problem))
        .map(|problem| {
            // Another card in another reader is nobody's trouble.
            let state = if problem.contains("is no YubiKey") {
                State::Note
            } else if wanted {
                State::Failed
            } else {
                State::Warning
            };
            Finding::new("cards", state, problem.clone())
        })
        .collect();
    // Without pcscd there are none, which was said.
    let unreachable = before
        .iter()
        .any(|one| one.check == "pcscd" && one.state != State::Ok);
    if unreachable {
        for one in &mut found {
            one.state = State::Note;
        }
    }
    for card in &cards.cards {
        found.extend(one(card).into_iter().filter(|one| !is_said(&one.message)));
    }
    if found.is_empty() {
        found.push(Finding::new("cards", State::Ok, "no YubiKey is plugged in"));
    }
    found
}

fn one(card: &CardInfo) -> Vec<Finding> {
    let name = named(card.card.as_ref());
    let serial = card.card.as_ref().map_or(0, |card| card.serial);
    let finding = |state, text: &str| Finding::new("card", state, format!("{name}: {text}"));
    if !card.present {
        return vec![finding(
            State::Note,
            "it holds enrolled keys, and is not plugged in",
        )];
    }
    if !card.problem.is_empty() {
        return vec![Finding::new(
            "card",
            State::Failed,
            format!("{name}: {}", card.problem),
        )];
    }
    let mut found = Vec::new();
    let defaults: Vec<&str> = [
        (card.default_pin, "PIN"),
        (card.default_puk, "PUK"),
        (card.default_management_key, "management key"),
    ]
    .into_iter()
    .filter_map(|(is_default, what)| is_default.then_some(what))
    .collect();
    if !defaults.is_empty() {
        found.push(
            finding(
                State::Warning,
                &format!(
                    "it has the {} of the factory, which everybody knows",
                    defaults.join(", ")
                ),
            )
            .fix(format!("signet card setup {serial}")),
        );
    }
    let few = card.tries_known.then(|| tries(card, serial)).flatten();
    // What is said here in our own words need not be said twice.
    let is_default = |text: &str| text.contains("default") || text.contains("factory");
    let is_of_tries = |text: &str| text.contains("is blocked") || text.contains("try left");
    for warning in &card.warnings {
        let is_said = (!defaults.is_empty() && is_default(warning))
            || (few.is_some() && is_of_tries(warning));
        if !is_said {
            found.push(finding(State::Warning, warning));
        }
    }
    found.extend(few.map(|(state, text, fix)| finding(state, text).fix(fix)));
    for slot in card.slots.iter().filter(|slot| !slot.problem.is_empty()) {
        found.push(finding(
            State::Warning,
            &format!("slot {}: {}", slot.slot, slot.problem),
        ));
    }
    if found.is_empty() {
        let firmware = match card.firmware.as_str() {
            "" => String::new(),
            version => format!(", firmware {version}"),
        };
        found.push(finding(State::Ok, &format!("ready{firmware}")));
    }
    found
}

/// What is left of PIN and PUK, where that is a finding.
fn tries(card: &CardInfo, serial: u32) -> Option<(State, &'static str, String)> {
    let reset = format!("signet card reset {serial}; every key on it is lost");
    let unblock = format!("signet card pin {serial} --puk");
    match (card.pin_tries, card.puk_tries) {
        (0, 0) => Some((
            State::Failed,
            "its PIN and PUK are blocked: it can only be reset",
            reset,
        )),
        (0, _) => Some((State::Failed, "its PIN is blocked", unblock)),
        (_, 0) => Some((
            State::Warning,
            "its PUK is blocked: a blocked PIN would be the end of its keys",
            "mind the PIN; have every key of it on another card or in a backup".into(),
        )),
        (1, _) => Some((
            State::Warning,
            "its PIN has one try left, which is not spent unasked",
            format!("--use-last-try if you are sure of the PIN, else {unblock}"),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::CardName;

    use super::*;

    fn card() -> CardInfo {
        CardInfo {
            card: Some(CardName {
                serial: 7,
                ..CardName::default()
            }),
            present: true,
            pin_tries: 3,
            puk_tries: 3,
            tries_known: true,
            ..CardInfo::default()
        }
    }

    fn states(card: CardInfo) -> Vec<(State, Option<String>)> {
        one(&card)
            .into_iter()
            .map(|finding| (finding.state, finding.fix))
            .collect()
    }

    #[test]
    fn each_finding_about_a_card_has_its_fix() {
        assert_eq!(states(card()), [(State::Ok, None)]);
        let mut factory = card();
        factory.default_pin = true;
        factory.warnings.push("the factory PIN is in force".into());
        assert_eq!(
            states(factory),
            [(State::Warning, Some("signet card setup 7".into()))]
        );
        let mut blocked = card();
        blocked.pin_tries = 0;
        blocked.warnings.push("the PIN is blocked: …".into());
        assert_eq!(
            states(blocked.clone()),
            [(State::Failed, Some("signet card pin 7 --puk".into()))]
        );
        blocked.puk_tries = 0;
        assert!(
            states(blocked)[0]
                .1
                .as_deref()
                .unwrap()
                .contains("card reset 7")
        );
        let mut last = card();
        last.pin_tries = 1;
        assert_eq!(states(last)[0].0, State::Warning);
    }

    #[test]
    fn a_card_of_somebody_else_is_no_failure() {
        let state = |problem: &str, wanted| {
            let reply = ListCardsReply {
                problems: vec![problem.into()],
                ..ListCardsReply::default()
            };
            look(&reply, wanted, &[])[0].state
        };
        let foreign = "the card in \"x\" is no YubiKey that can be used: no serial";
        assert_eq!(state(foreign, true), State::Note);
        assert_eq!(state("it cannot be reached", true), State::Failed);
        assert_eq!(state("it cannot be reached", false), State::Warning);
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let reply = ListCardsReply {
            problems: vec!["pcscd does not answer".into(), "polkit said no".into()],
            ..ListCardsReply::default()
        };
        let before = [Finding::new("polkit", State::Failed, "polkit said no")];
        assert_eq!(look(&reply, true, &before).len(), 1);
        let before = [Finding::new("pcscd", State::Note, "not installed")];
        assert!(
            look(&reply, true, &before)
                .iter()
                .all(|one| one.state == State::Note)
        );
    }
}
