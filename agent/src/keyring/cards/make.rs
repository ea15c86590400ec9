//! Keys made on a card, or taken to one.

use std::sync::Arc;

use signet_trust::{KeyId, payload::escape};
use tokio::time::{Duration, Instant, timeout_at};

use super::{Present, sign::tell_missing};
use crate::{
    keyring::{Fault, Keyring, Person, StoreName, manage::Fresh, person::Work},
    ledger::{IndexEntry, NewEntry, Place},
    presence::{
        CardName,
        stream::{Carries, Stream},
    },
    service::now,
    store::{
        NewKey, StoreError,
        piv::{CardFault, CardStore, Made, NewOnCard, PinPolicy, Slot, TouchPolicy},
    },
};

/// How long a card is waited for.
const INSERTION: Duration = Duration::from_secs(60);

/// Which card, and which slot of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::keyring) struct Where {
    /// The only one there otherwise.
    pub(in crate::keyring) serial: Option<u32>,
    /// The next free one otherwise.
    pub(in crate::keyring) slot: Option<Slot>,
}

/// How a key is to lie on a card.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::keyring) struct OnCard {
    pub(in crate::keyring) place: Where,
    pub(in crate::keyring) pin: Option<PinPolicy>,
    pub(in crate::keyring) touch: Option<TouchPolicy>,
    pub(in crate::keyring) overwrite: Option<KeyId>,
}

impl Where {
    /// `piv`, `piv:SERIAL`, `piv:SERIAL:SLOT`, `piv:SERIAL:auto`; `None` for other stores.
    pub(in crate::keyring) fn parse(store: &str) -> Result<Option<Self>, Fault> {
        let mut parts = store.split(':');
        if parts.next() != Some("piv") {
            return Ok(None);
        }
        let wrong = || {
            Fault::Usage(format!(
                "{:?} is no place on a card; write piv, piv:SERIAL or piv:SERIAL:SLOT",
                escape(store)
            ))
        };
        let serial = parts
            .next()
            .map(|serial| serial.parse().map_err(|_| wrong()))
            .transpose()?;
        let slot = match parts.next() {
            None | Some("auto") => None,
            Some(slot) => Some(
                slot.parse()
                    .map_err(|error| Fault::Usage(format!("{error}")))?,
            ),
        };
        match parts.next() {
            None => Ok(Some(Self { serial, slot })),
            Some(_) => Err(wrong()),
        }
    }
}

impl OnCard {
    /// From the words of a request.
    pub(in crate::keyring) fn read(
        store: &str,
        pin: &str,
        touch: &str,
        overwrite: &str,
    ) -> Result<Option<Self>, Fault> {
        let Some(place) = Where::parse(store)? else {
            let given = [
                ("--pin-policy", pin),
                ("--touch-policy", touch),
                ("--overwrite", overwrite),
            ];
            return match given.iter().find(|(_, word)| !word.is_empty()) {
                None => Ok(None),
                Some((flag, _)) => Err(Fault::Usage(format!("{flag} is for keys on cards"))),
            };
        };
        let unknown = |what: &str, word: &str, there: &str| {
            Fault::Usage(format!(
                "{:?} is no {what} policy; there are {there}",
                escape(word)
            ))
        };
        let pin = match pin {
            "" => None,
            word => Some(
                PinPolicy::from_name(word)
                    .ok_or_else(|| unknown("PIN", word, "never, once and always"))?,
            ),
        };
        let touch = match touch {
            "" => None,
            word => Some(
                TouchPolicy::from_name(word)
                    .ok_or_else(|| unknown("touch", word, "never, cached and always"))?,
            ),
        };
        let overwrite = match overwrite {
            "" => None,
            id => Some(
                id.parse()
                    .map_err(|error| Fault::Usage(format!("{error}")))?,
            ),
        };
        if overwrite.is_some() && place.slot.is_none() {
            return Err(Fault::Usage(
                "--overwrite needs the slot: --store piv:SERIAL:SLOT".to_owned(),
            ));
        }
        Ok(Some(Self {
            place,
            pin,
            touch,
            overwrite,
        }))
    }

    /// All facts of the key to be.
    pub(in crate::keyring) fn facts(
        &self,
        algorithm: signet_trust::Algorithm,
        key: &NewKey,
        label: &str,
    ) -> NewOnCard {
        let plain = NewOnCard::plain(algorithm, key);
        NewOnCard {
            slot: self.place.slot,
            pin: self.pin.unwrap_or(plain.pin),
            touch: self.touch.unwrap_or(plain.touch),
            overwrite: self.overwrite,
            label: label.to_owned(),
            ..plain
        }
    }
}

impl Keyring {
    /// The card that is meant, waited for where somebody is there.
    pub(in crate::keyring) async fn card_at<M: Carries>(
        &self,
        serial: Option<u32>,
        person: &Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Present, Fault> {
        let find = || {
            let mut there = self.cards.present();
            there.retain(|card| serial.is_none_or(|serial| card.facts.serial == serial));
            there
        };
        self.cards.retry();
        self.cards.settle().await;
        let mut found = find();
        if found.is_empty() {
            if let Some(obstacle) = self.cards.obstacle() {
                return Err(StoreError::from(obstacle).into());
            }
            let names: Vec<CardName> = serial
                .iter()
                .map(|serial| self.cards.name(*serial))
                .collect();
            let missing = |names| Fault::from(StoreError::from(CardFault::Missing(names)));
            if let [problem, ..] = self.cards.problems().as_slice()
                && serial.is_none()
            {
                return Err(Fault::Usage(problem.clone()));
            }
            if !person.is_there() {
                return Err(missing(names));
            }
            let mut changes = self.cards.changes();
            let appears = async {
                loop {
                    changes.borrow_and_update();
                    let found = find();
                    if !found.is_empty() {
                        return found;
                    }
                    let soon = Instant::now() + Duration::from_secs(2);
                    let _ = timeout_at(soon, changes.changed()).await;
                    self.cards.watch().await;
                }
            };
            found = tell_missing(stream, &names, INSERTION, appears)
                .await?
                .ok_or_else(|| missing(names))?;
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(card), None) => Ok(card),
            (Some(one), Some(other)) => {
                let all: Vec<String> = [one, other]
                    .into_iter()
                    .chain(found)
                    .map(|card| card.name.to_string())
                    .collect();
                Err(Fault::Usage(format!(
                    "there are several cards: {}; name one by its serial number",
                    all.join(", ")
                )))
            }
            (None, _) => Err(Fault::Internal("a card that was found is not there")),
        }
    }

    /// Makes a key on a card and enrols it.
    pub(in crate::keyring) async fn generate_on_card<M: Carries>(
        &self,
        new: Fresh,
        on: OnCard,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<IndexEntry, Fault> {
        let card = self.card_at(on.place.serial, person, stream).await?;
        let key = NewKey {
            role: new.role.clone(),
            gun: new.gun.clone(),
        };
        let facts = on.facts(new.algorithm, &key, &new.label);
        let work: Work<CardStore, _> =
            Arc::new(move |store, presence| store.generate_on_card(&facts, presence));
        let made = person.with_card(&card.worker, stream, false, work).await?;
        let place = place(&card, &made);
        let public = made
            .slot
            .public
            .clone()
            .ok_or(Fault::Internal("a new key has no public half"))?;
        let entry = IndexEntry {
            id: public.id(),
            role: new.role,
            gun: new.gun,
            label: new.label,
            store: StoreName::Piv.as_str().to_owned(),
            public,
            enrolled_at: now(),
            certificates: Vec::new(),
            used_opaque: false,
            places: vec![place.clone()],
            label_claimed: false,
        };
        self.lose(on.overwrite, &place, person).await?;
        let log = NewEntry {
            summary: format!(
                "{} key, made on {} in slot {}, PIN {}, touch {}; attestation {}",
                new.algorithm.name(),
                card.name,
                place.slot,
                place.pin_policy,
                place.touch_policy,
                match place.proves.as_str() {
                    "" => "none",
                    proves => proves,
                }
            ),
            ..self.entry_of("generate", &entry, person)
        };
        self.enrol(entry.clone(), log).await?;
        Ok(entry)
    }

    /// A key in a slot was overwritten: it lies there no more.
    pub(in crate::keyring) async fn lose(
        &self,
        lost: Option<KeyId>,
        place: &Place,
        person: &Person<'_>,
    ) -> Result<(), Fault> {
        let Some(id) = lost else { return Ok(()) };
        let index = self.index();
        let Some(entry) = index.get(&id) else {
            return Ok(());
        };
        let mut entry = entry.clone();
        entry
            .places
            .retain(|known| (known.serial, &known.slot) != (place.serial, &place.slot));
        let log = NewEntry {
            summary: format!(
                "overwritten in slot {} of YubiKey {}",
                place.slot, place.serial
            ),
            ..self.entry_of("remove", &entry, person)
        };
        if entry.places.is_empty() && entry.store == StoreName::Piv.as_str() {
            self.forget(id, log).await?;
        } else {
            self.enrol(entry, log).await?;
        }
        Ok(())
    }
}

/// Where a key lies by now, for the index.
pub(in crate::keyring) fn place(card: &Present, made: &Made) -> Place {
    let (attestation, own) = made.attestation.clone().unwrap_or_default();
    Place {
        serial: card.facts.serial,
        slot: made.slot.slot.to_string(),
        pin_policy: made.slot.pin.map_or("", PinPolicy::as_str).to_owned(),
        touch_policy: made.slot.touch.map_or("", TouchPolicy::as_str).to_owned(),
        origin: origin(made.slot.generated).to_owned(),
        firmware: card.facts.version.to_string(),
        attestation,
        own,
        proves: made.proves.clone(),
    }
}

/// In the words of the wire.
pub(in crate::keyring) fn origin(generated: Option<bool>) -> &'static str {
    match generated {
        Some(true) => "generated",
        Some(false) => "imported",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_on_a_card_is_read_and_anything_else_is_an_error_with_the_right_form() {
        let at = |text: &str| Where::parse(text).map_err(|fault| fault.to_string());
        let place = |serial, slot: Option<&str>| {
            Ok(Some(Where {
                serial,
                slot: slot.map(|slot| slot.parse().unwrap()),
            }))
        };
        assert_eq!(at("file"), Ok(None));
        assert_eq!(at("piv"), place(None, None));
        assert_eq!(at("piv:123"), place(Some(123), None));
        assert_eq!(at("piv:123:auto"), place(Some(123), None));
        assert_eq!(at("piv:123:9C"), place(Some(123), Some("9c")));
        for wrong in [
            "piv:",
            "piv:x",
            "piv:1:",
            "piv:1:9b",
            "piv:1:9c:x",
            "piv:-1",
        ] {
            let error = at(wrong).unwrap_err();
            assert!(
                error.contains("piv:SERIAL:SLOT") || error.contains("no slot"),
                "{error}"
            );
        }
    }
}
