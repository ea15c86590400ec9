//! What can be told of cards and of the keys on them, without asking anybody anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use signet_proto::v1::{CardInfo, KeyOnCard, SlotInfo};
use signet_trust::{Algorithm, KeyId};
use tokio::time::timeout;

use super::{Present, make::origin};
use crate::{
    keyring::{Keyring, StoreName, creation::store_of},
    ledger::{IndexEntry, Place},
    presence::{CardName, question::card_name},
    store::{
        StoredKey,
        piv::{PinPolicy, SlotFacts, TouchPolicy, Version, attest},
    },
};

/// How long a card has to say how many tries are left.
const PATIENCE: Duration = Duration::from_secs(3);

impl Keyring {
    /// Cards in readers, and those that hold enrolled keys or have a name, with what is wrong.
    pub(crate) async fn list_cards(&self) -> (Vec<CardInfo>, Vec<String>) {
        self.cards.retry();
        self.cards.settle().await;
        let mut refreshed = Vec::new();
        for card in self.cards.present() {
            // Tries may have changed by other programs.
            let facts = card.worker.run(|store| store.refresh());
            refreshed.push(match timeout(PATIENCE, facts).await {
                Ok(Ok(Ok(facts))) => (Present { facts, ..card }, String::new()),
                Ok(Ok(Err(error))) => (card, error.to_string()),
                Ok(Err(_)) => continue,
                Err(_) => (card, "another program uses it just now".to_owned()),
            });
        }
        let index = self.index();
        let mut cards: Vec<CardInfo> = refreshed
            .iter()
            .map(|(card, problem)| CardInfo {
                problem: problem.clone(),
                ..self.info(card, &index)
            })
            .collect();
        let there: BTreeSet<u32> = refreshed
            .iter()
            .map(|(card, _)| card.facts.serial)
            .collect();
        let mut away: BTreeMap<u32, CardInfo> = BTreeMap::new();
        for known in self.cards.known() {
            if !there.contains(&known.serial) {
                let absent = self.absent(known.serial, known.firmware);
                away.insert(known.serial, absent);
            }
        }
        for entry in index.values() {
            for place in &entry.places {
                if there.contains(&place.serial) {
                    continue;
                }
                let card = away
                    .entry(place.serial)
                    .or_insert_with(|| self.absent(place.serial, place.firmware.clone()));
                card.slots.push(slot_of_place(entry, place));
            }
        }
        cards.extend(away.into_values().map(|mut card| {
            card.slots.sort_by(|a, b| a.slot.cmp(&b.slot));
            card
        }));
        (cards, self.cards.problems())
    }

    fn absent(&self, serial: u32, firmware: String) -> CardInfo {
        CardInfo {
            card: Some(card_name(&self.cards.name(serial))),
            firmware,
            leave_verified: self.cards.leaves_verified(serial),
            ..CardInfo::default()
        }
    }

    /// A card that is there.
    pub(super) fn info(&self, card: &Present, index: &super::Index) -> CardInfo {
        let facts = &card.facts;
        let slots: Vec<SlotInfo> = facts
            .slots
            .iter()
            .map(|slot| slot_info(slot, facts.serial, index))
            .collect();
        let [default_pin, default_puk, default_management_key] = facts.defaults;
        let form = index
            .values()
            .flat_map(|entry| &entry.places)
            .filter(|place| place.serial == facts.serial && !place.attestation.is_empty())
            .find_map(|place| attest::Statement::parse(&place.attestation).ok())
            .map_or("", |statement| statement.form);
        CardInfo {
            card: Some(card_name(&card.name)),
            present: true,
            reader: card.reader.clone(),
            firmware: facts.version.to_string(),
            form: form.to_owned(),
            pin_tries: facts.pin_tries.unwrap_or(0).into(),
            puk_tries: facts.puk_tries.unwrap_or(0).into(),
            tries_known: facts.pin_tries.is_some(),
            default_pin,
            default_puk,
            default_management_key,
            management_algorithm: facts.management.to_owned(),
            management_protected: facts.protected,
            warnings: self.warnings(card),
            slots,
            problem: String::new(),
            leave_verified: self.cards.leaves_verified(facts.serial),
        }
    }

    fn warnings(&self, card: &Present) -> Vec<String> {
        let facts = &card.facts;
        let mut warnings = Vec::new();
        let has = |is: fn(&SlotFacts) -> bool| facts.slots.iter().any(is);
        let ecdsa = has(|slot| matches!(slot.algorithm, Some(Algorithm::P256 | Algorithm::P384)));
        if facts.version.has_eucleak() && ecdsa {
            warnings.push(format!(
                "firmware {} (before 5.7): whoever has the card in hand, its PIN and special \
                 equipment can read out ECDSA keys (EUCLEAK, YSA-2024-03)",
                facts.version
            ));
        }
        let rsa = has(|slot| {
            matches!(slot.algorithm, Some(Algorithm::Rsa(_))) && slot.generated != Some(false)
        });
        if facts.version.has_roca() && rsa {
            warnings.push(format!(
                "firmware {}: RSA keys made on it can be factored (ROCA, YSA-2017-01)",
                facts.version
            ));
        }
        for (is, what) in facts.defaults.iter().zip(["PIN", "PUK", "management key"]) {
            if *is {
                warnings.push(format!(
                    "the {what} is still the factory's: `signet card setup {}`",
                    facts.serial
                ));
            }
        }
        for slot in facts.slots.iter().filter(|slot| slot.assumed) {
            warnings.push(format!(
                "slot {}: this firmware does not tell what key is in a slot without a certificate; \
                 by the index it is the one shown, and a signature will tell",
                slot.slot
            ));
        }
        match facts.pin_tries {
            Some(0) => warnings.push(format!(
                "the PIN is blocked: `signet card pin {} --puk` sets a new one",
                facts.serial
            )),
            Some(1) => warnings.push("the PIN has one try left".to_owned()),
            _ => {}
        }
        if self.cards.leaves_verified(facts.serial) {
            warnings.push(
                "leave_verified is set for it: between signatures any program of this user can \
                 sign with it"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Keys that lie on cards, with their places: of every card that is there, and of the index.
    pub(in crate::keyring) fn keys_on_cards(
        &self,
        index: &super::Index,
    ) -> Vec<(StoredKey, Vec<KeyOnCard>)> {
        let present = self.cards.present();
        let mut keys: BTreeMap<KeyId, (StoredKey, Vec<KeyOnCard>)> = BTreeMap::new();
        for entry in index.values().filter(|e| store_of(e) == StoreName::Piv) {
            let mut stored = StoredKey {
                id: entry.id,
                role: None,
                gun: None,
                public: Some(entry.public.clone()),
                path: path(&entry.places),
                encrypted: true,
                problem: None,
            };
            let mut places = Vec::new();
            for place in &entry.places {
                let card = present
                    .iter()
                    .find(|card| card.facts.serial == place.serial);
                let holds = |card: &Present| card.facts.slot_of(&entry.id).is_some();
                if card.is_some_and(|card| !holds(card)) {
                    stored.problem = Some(format!(
                        "{} no longer holds it in slot {}",
                        self.cards.name(place.serial),
                        place.slot
                    ));
                }
                places.push(self.on_card_by_index(place, card.is_some_and(holds)));
            }
            keys.insert(entry.id, (stored, places));
        }
        for card in &present {
            for slot in &card.facts.slots {
                let Some(id) = slot.id else { continue };
                let here = self.on_card(card, slot);
                let (stored, places) = keys.entry(id).or_insert_with(|| {
                    let stored = StoredKey {
                        id,
                        role: (slot.subject.as_deref() == Some("root")).then(|| "root".to_owned()),
                        gun: None,
                        public: slot.public.clone(),
                        path: format!("piv:{}:{}", card.facts.serial, slot.slot).into(),
                        encrypted: slot.pin != Some(PinPolicy::Never),
                        problem: slot.problem.clone(),
                    };
                    (stored, Vec::new())
                });
                let same = |known: &KeyOnCard| known.card == here.card;
                match places.iter_mut().find(|known| same(known)) {
                    // What the card says now counts; what was proved then stays.
                    Some(known) => {
                        known.pin_policy.clone_from(&here.pin_policy);
                        known.touch_policy.clone_from(&here.touch_policy);
                    }
                    None => places.push(here),
                }
                if stored.public.is_none() {
                    stored.public.clone_from(&slot.public);
                }
            }
        }
        keys.into_values().collect()
    }

    fn on_card_by_index(&self, place: &Place, present: bool) -> KeyOnCard {
        KeyOnCard {
            card: Some(card_name(&CardName {
                slot: place.slot.clone(),
                ..self.cards.name(place.serial)
            })),
            present,
            pin_policy: place.pin_policy.clone(),
            touch_policy: place.touch_policy.clone(),
            origin: place.origin.clone(),
            attestation: proof(place),
            firmware: place.firmware.clone(),
        }
    }

    fn on_card(&self, card: &Present, slot: &SlotFacts) -> KeyOnCard {
        KeyOnCard {
            card: Some(card_name(&CardName {
                slot: slot.slot.to_string(),
                ..card.name.clone()
            })),
            present: true,
            pin_policy: slot.pin.map_or("", PinPolicy::as_str).to_owned(),
            touch_policy: slot.touch.map_or("", TouchPolicy::as_str).to_owned(),
            origin: origin(slot.generated).to_owned(),
            attestation: String::new(),
            firmware: card.facts.version.to_string(),
        }
    }
}

fn path(places: &[Place]) -> std::path::PathBuf {
    let first = places.first();
    first
        .map(|place| format!("piv:{}:{}", place.serial, place.slot))
        .unwrap_or_default()
        .into()
}

/// What an attestation proves, with what its firmware takes from that.
fn proof(place: &Place) -> String {
    let old = place
        .firmware
        .split('.')
        .map(str::parse)
        .collect::<Result<Vec<u8>, _>>()
        .ok()
        .and_then(|parts| match parts.as_slice() {
            [major, minor, patch] => Some(Version(*major, *minor, *patch)),
            _ => None,
        })
        .is_some_and(Version::has_eucleak);
    match (place.proves.as_str(), old) {
        ("", _) => String::new(),
        (proves, false) => proves.to_owned(),
        (proves, true) => format!("{proves} (firmware before 5.7: EUCLEAK)"),
    }
}

fn slot_of_place(entry: &IndexEntry, place: &Place) -> SlotInfo {
    SlotInfo {
        slot: place.slot.clone(),
        key_id: entry.id.to_string(),
        algorithm: entry
            .public
            .algorithm()
            .map(Algorithm::name)
            .unwrap_or_default(),
        pin_policy: place.pin_policy.clone(),
        touch_policy: place.touch_policy.clone(),
        origin: place.origin.clone(),
        certificate: String::new(),
        state: "enrolled".to_owned(),
        role: entry.role.clone(),
        gun: entry.gun.clone().unwrap_or_default(),
        label: entry.label.clone(),
        attestation: proof(place),
        problem: String::new(),
    }
}

fn slot_info(slot: &SlotFacts, serial: u32, index: &super::Index) -> SlotInfo {
    let entry = slot.id.and_then(|id| index.get(&id));
    let place = entry.and_then(|entry| {
        entry
            .places
            .iter()
            .find(|place| place.serial == serial && place.slot == slot.slot.to_string())
    });
    SlotInfo {
        slot: slot.slot.to_string(),
        key_id: slot.id.map(|id| id.to_string()).unwrap_or_default(),
        algorithm: slot.algorithm.map(Algorithm::name).unwrap_or_default(),
        pin_policy: slot.pin.map_or("", PinPolicy::as_str).to_owned(),
        touch_policy: slot.touch.map_or("", TouchPolicy::as_str).to_owned(),
        origin: origin(slot.generated).to_owned(),
        certificate: slot.subject.clone().unwrap_or_default(),
        state: match (slot.id, entry) {
            (None, _) => "",
            (Some(_), Some(_)) => "enrolled",
            (Some(_), None) => "new",
        }
        .to_owned(),
        role: match entry {
            Some(entry) => entry.role.clone(),
            None if slot.subject.as_deref() == Some("root") => "root".to_owned(),
            None => String::new(),
        },
        gun: entry
            .and_then(|entry| entry.gun.clone())
            .unwrap_or_default(),
        label: entry.map(|entry| entry.label.clone()).unwrap_or_default(),
        attestation: place.map(proof).unwrap_or_default(),
        problem: slot.problem.clone().unwrap_or_default(),
    }
}
