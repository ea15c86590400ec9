//! Changes to cards, each with its log entry.

use std::sync::Arc;

use signet_proto::v1::{
    self, CardDone, CardEvent, CardRequest, Notice, RecoverySheet, card_change::Change, card_event,
};

use super::Present;
use crate::{
    keyring::{Fault, Keyring, Person, fault::chain, person::Work},
    ledger::{KnownCard, NewEntry},
    presence::{CardName, stream::Stream},
    service::status::word,
    store::{
        StoreError,
        piv::{CardStore, SetUp, Slot, attest},
    },
};

/// Tries that a card can be given.
const TRIES: std::ops::RangeInclusive<u32> = 1..=255;

impl Keyring {
    /// Carries out one change.
    pub(crate) async fn change_card(
        &self,
        change: v1::CardChange,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let serial = (change.serial != 0).then_some(change.serial);
        let Some(change) = change.change else {
            return Err(Fault::Malformed("a change that says nothing".to_owned()));
        };
        let kind = match &change {
            Change::Setup(_) => "card setup",
            Change::Pin(_) => "card pin",
            Change::Puk(_) => "card puk",
            Change::Attest(_) => "card attest",
            Change::Forget(_) => "card forget",
            Change::Reset(_) => "card reset",
        };
        if person.caller.is_forwarded() {
            return Err(Fault::Forwarded);
        }
        let done = match change {
            Change::Setup(setup) => self.set_up_card(serial, setup, person, stream).await,
            Change::Pin(pin) => {
                self.change_pin(serial, Some(pin.with_puk), person, stream)
                    .await
            }
            Change::Puk(_) => self.change_pin(serial, None, person, stream).await,
            Change::Attest(slot) => self.attest_slot(serial, &slot.slot, person, stream).await,
            Change::Forget(_) => self.forget_card(serial, person, stream).await,
            Change::Reset(_) => self.reset_card(serial, person, stream).await,
        };
        if let Err(fault) = &done
            && !matches!(fault, Fault::Gone | Fault::Stopping)
        {
            let entry = NewEntry {
                summary: chain(fault),
                outcome: word(fault).to_owned(),
                ..self.entry(kind, person)
            };
            self.log(entry).await?;
        }
        done
    }

    fn card_done(&self, card: &Present) -> CardDone {
        let now = self.cards.with_serial(card.facts.serial);
        let card = now.as_ref().unwrap_or(card);
        CardDone {
            card: Some(self.info(card, &self.index())),
            ..CardDone::default()
        }
    }

    async fn log_card(
        &self,
        kind: &'static str,
        card: &CardName,
        what: &str,
        person: &Person<'_>,
    ) -> Result<(), Fault> {
        let entry = NewEntry {
            summary: format!("{card}: {what}"),
            ..self.entry(kind, person)
        };
        self.log(entry).await.map(drop)
    }

    async fn set_up_card(
        &self,
        serial: Option<u32>,
        setup: v1::SetUpCard,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let label = self.free_label(&setup.label, None)?;
        let tries = match (setup.pin_tries, setup.puk_tries) {
            (0, 0) => None,
            (pin, puk) if TRIES.contains(&pin) && TRIES.contains(&puk) => {
                let byte = |tries| u8::try_from(tries).expect("in the range above");
                Some((byte(pin), byte(puk)))
            }
            _ => {
                return Err(Fault::Usage(
                    "give both --pin-tries and --puk-tries, from 1 to 255, or neither".to_owned(),
                ));
            }
        };
        let card = self.card_at(serial, person, stream).await?;
        person.about(vec![format!("sets up {}", card.name)]);
        let work: Work<CardStore, _> =
            Arc::new(move |store, presence| store.set_up(SetUp { tries }, presence));
        let recovery = person.with_card(&card.worker, stream, true, work).await?;
        let known = KnownCard {
            serial: card.facts.serial,
            label: match label.is_empty() {
                true => card.name.label.clone(),
                false => label,
            },
            firmware: card.facts.version.to_string(),
        };
        let entry = NewEntry {
            summary: format!(
                "{}: PIN, PUK and management key ({})",
                card.name, recovery.algorithm
            ),
            ..self.entry("card setup", person)
        };
        let named = known.clone();
        self.recorder
            .run(move |ledger| ledger.name_card(&named, &entry))
            .await?;
        self.cards.set_known(known.serial, Some(known));
        Ok(CardDone {
            recovery: Some(RecoverySheet {
                puk: recovery.puk.expose().to_vec(),
                management_key: recovery.management_key.expose().to_vec(),
                management_algorithm: recovery.algorithm.to_owned(),
            }),
            ..self.card_done(&card)
        })
    }

    /// `with_puk`: `None` changes the PUK itself.
    async fn change_pin(
        &self,
        serial: Option<u32>,
        with_puk: Option<bool>,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let card = self.card_at(serial, person, stream).await?;
        let (kind, what) = match with_puk {
            Some(false) => ("card pin", "the PIN"),
            Some(true) => ("card pin", "the PIN, with the PUK"),
            None => ("card puk", "the PUK"),
        };
        person.about(vec![format!("changes {what} of {}", card.name)]);
        let work: Work<CardStore, _> = Arc::new(move |store, presence| match with_puk {
            Some(with_puk) => store.change_pin(with_puk, presence),
            None => store.change_puk(presence),
        });
        person.with_card(&card.worker, stream, true, work).await?;
        let what = format!("changed {what}");
        self.log_card(kind, &card.name, &what, person).await?;
        Ok(self.card_done(&card))
    }

    async fn attest_slot(
        &self,
        serial: Option<u32>,
        slot: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let slot: Slot = slot
            .parse()
            .map_err(|error| Fault::Usage(format!("{error}")))?;
        let card = self.card_at(serial, person, stream).await?;
        let attested = card.worker.run(move |store| store.attest(slot)).await?;
        let (der, own, proves) = attested.map_err(StoreError::from)?;
        // What was proved at the making of an enrolled key is kept; what is known now may be more.
        let id = card.facts.slot(slot).and_then(|slot| slot.id);
        if let Some(entry) = id.and_then(|id| self.index().get(&id).cloned()) {
            let mut entry = entry;
            let place = entry
                .places
                .iter_mut()
                .find(|place| place.serial == card.facts.serial && place.slot == slot.to_string());
            if let Some(place) = place {
                place.attestation.clone_from(&der);
                place.own.clone_from(&own);
                place.proves.clone_from(&proves);
                let log = NewEntry {
                    summary: format!("{} slot {slot}: {proves}", card.name),
                    ..self.entry_of("card attest", &entry, person)
                };
                self.enrol(entry, log).await?;
            }
        }
        Ok(CardDone {
            attestation: vec![attest::pem(&der), attest::pem(&own)],
            attestation_result: proves,
            ..self.card_done(&card)
        })
    }

    async fn forget_card(
        &self,
        serial: Option<u32>,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let serial = serial.ok_or_else(|| {
            Fault::Usage("name the card that is lost by its serial number".to_owned())
        })?;
        let (keys, _) = self.list_keys("").await?;
        let on = |key: &v1::KeyInfo| {
            let here = |place: &v1::KeyOnCard| {
                place
                    .card
                    .as_ref()
                    .is_some_and(|card| card.serial == serial)
            };
            (
                key.state == "enrolled" && key.cards.iter().any(here),
                key.cards.iter().all(here),
            )
        };
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for key in keys {
            match on(&key) {
                (false, _) => {}
                (true, true) => lost.push(key),
                (true, false) => kept.push(key),
            }
        }
        let name = self.cards.name(serial);
        let known = self.cards.known().iter().any(|card| card.serial == serial);
        if kept.is_empty() && lost.is_empty() && !known {
            return Err(Fault::Usage(format!(
                "nothing is known of a card with the serial number {serial}"
            )));
        }
        let names: Vec<String> = lost
            .iter()
            .map(|key| {
                let used = match key.used_by.as_slice() {
                    [] => String::new(),
                    used => format!(", listed by {}", used.join(", ")),
                };
                format!("{} key {}{used}", key.role, &key.key_id[..12])
            })
            .collect();
        let question = match names.as_slice() {
            [] => format!("Forget {name}? No key is lost with it."),
            names => format!(
                "Forget {name}? Lost with it: {}. Their repositories need new keys.",
                names.join("; ")
            ),
        };
        person.confirm(stream, &question).await?;
        let ids: Vec<signet_trust::KeyId> = lost
            .iter()
            .filter_map(|key| key.key_id.parse().ok())
            .collect();
        let entry = NewEntry {
            summary: match names.as_slice() {
                [] => format!("{name}: no key is lost with it"),
                names => format!("{name}: lost with it: {}", names.join("; ")),
            },
            ..self.entry("card forget", person)
        };
        let index = self
            .recorder
            .run(move |ledger| {
                ledger.forget_card(serial, &ids, &entry)?;
                ledger.index()
            })
            .await?;
        self.set_index(index);
        self.cards.set_known(serial, None);
        Ok(CardDone {
            card: Some(v1::CardInfo {
                card: Some(v1::CardName {
                    serial,
                    label: name.label,
                    slot: String::new(),
                }),
                present: self.cards.with_serial(serial).is_some(),
                ..v1::CardInfo::default()
            }),
            kept,
            lost,
            ..CardDone::default()
        })
    }

    async fn reset_card(
        &self,
        serial: Option<u32>,
        person: &mut Person<'_>,
        stream: &mut Stream<CardRequest>,
    ) -> Result<CardDone, Fault> {
        let card = self.card_at(serial, person, stream).await?;
        let index = self.index();
        let lost: Vec<String> = card
            .facts
            .slots
            .iter()
            .filter_map(|slot| {
                let id = slot.id?;
                let what = index.get(&id).map(|entry| entry.role.clone());
                let id = id.to_string();
                Some(format!(
                    "{} key {} in slot {}",
                    what.unwrap_or_else(|| "unknown".to_owned()),
                    &id[..12],
                    slot.slot
                ))
            })
            .collect();
        let question = match lost.as_slice() {
            [] => format!("Reset {}? It holds no key.", card.name),
            lost => format!(
                "Reset {}? Every key on it is lost for good: {}.",
                card.name,
                lost.join("; ")
            ),
        };
        person.about(vec![format!("resets {}", card.name)]);
        person.confirm(stream, &question).await?;
        let reset = card.worker.run(|store| store.reset_card()).await?;
        reset.map_err(StoreError::from)?;
        let what = match lost.as_slice() {
            [] => "it held no key".to_owned(),
            lost => format!("lost: {}", lost.join("; ")),
        };
        self.log_card("card reset", &card.name, &what, person)
            .await?;
        let serial = card.facts.serial;
        for entry in index.values() {
            let Some(place) = entry.places.iter().find(|place| place.serial == serial) else {
                continue;
            };
            self.lose(Some(entry.id), place, person).await?;
        }
        stream
            .send(CardEvent {
                event: Some(card_event::Event::Notice(Notice {
                    text: format!(
                        "{} is as from the factory; `signet card setup {serial}` sets it up",
                        card.name
                    ),
                })),
            })
            .await?;
        Ok(self.card_done(&card))
    }
}
