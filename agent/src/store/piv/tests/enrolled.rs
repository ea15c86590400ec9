//! What the index knows of cards: cards that only pretend, and cards that tell too little.

use super::*;

/// A card that tells everything that the genuine one tells, and has none of its keys.
struct FalseCard {
    genuine: Device,
    own: Device,
}

impl Reader for FalseCard {
    fn name(&self) -> &str {
        "reader"
    }

    fn connect(&mut self) -> Result<Box<dyn Card>, CardError> {
        Ok(Box::new(Self {
            genuine: self.genuine.clone(),
            own: self.own.clone(),
        }))
    }
}

impl Card for FalseCard {
    fn transaction(&mut self, work: card::Work<'_>) -> Result<(), CardError> {
        work(self)
    }
}

impl Exchange for FalseCard {
    fn transmit(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        // GET METADATA, GET DATA, version, serial number, and the selection before them.
        if matches!(apdu[1], 0xf7 | 0xcb | 0xfd | 0xf8 | 0xa4) {
            let _ = self.own.exchange(apdu);
            return InReader(self.genuine.clone()).transmit(apdu);
        }
        InReader(self.own.clone()).transmit(apdu)
    }
}

fn enrolled(key: &SlotFacts) -> Arc<EnrolledKeys> {
    let enrolled = Enrolled {
        slot: key.slot,
        public: key.public.clone().unwrap(),
        pin: key.pin,
        touch: key.touch,
    };
    Arc::new(EnrolledKeys::from([(SERIAL, vec![enrolled])]))
}

fn made_in_9e(store: &mut CardStore) -> SlotFacts {
    let new = NewOnCard {
        slot: Some(Slot::CARD_AUTHENTICATION),
        pin: PinPolicy::Never,
        ..plain(Algorithm::P256, TouchPolicy::Never)
    };
    store.generate_on_card(&new, &mut with_pin()).unwrap().slot
}

fn verified(device: &Device) -> usize {
    let sent = sequence(device);
    sent.iter()
        .filter(|line| line.starts_with("00200080"))
        .count()
}

#[test]
fn a_card_that_copies_what_can_be_read_gets_no_pin_where_9e_proves_the_card() {
    let (genuine, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let proof = made_in_9e(&mut store);
    let (own, mut keys_of_its_own) = card(Firmware::V5_7);
    made(&mut keys_of_its_own, TouchPolicy::Never);
    made_in_9e(&mut keys_of_its_own);
    let pretender = || {
        let (genuine, own) = (genuine.clone(), own.clone());
        Box::new(FalseCard { genuine, own })
    };
    own.reset_stats();
    let mut trusting = CardStore::new(pretender(), CardSettings::default(), Box::new(|_| {}));
    trusting.arrive().unwrap();
    trusting
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap_err();
    assert_eq!(verified(&own), 1, "which is what the proof is for");

    own.reset_stats();
    let mut careful = CardStore::new(pretender(), CardSettings::default(), Box::new(|_| {}));
    careful.set_enrolled(enrolled(&proof));
    careful.arrive().unwrap();
    let mut person = with_pin();
    let error = careful
        .sign(&id, Purpose::Document, b"m", &mut person)
        .unwrap_err();
    assert!(words(&error).contains("did not prove"), "{error}");
    assert!(words(&error).contains("no PIN was sent"), "{error}");
    assert!(error.fix().unwrap().contains("signet key remove"));
    assert!(person.asked.is_empty(), "nobody types one either");
    let setup = careful.set_up(SetUp::default(), &mut with_pin());
    assert!(words(&setup.unwrap_err()).contains("did not prove"));
    let changed = careful.change_pin(false, &mut with_pin());
    assert!(words(&changed.unwrap_err()).contains("did not prove"));
    assert_eq!(verified(&own), 0);
}

#[test]
fn the_card_itself_proves_its_key_once_a_connection_and_signs() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let proof = made_in_9e(&mut store);
    store.set_enrolled(enrolled(&proof));
    let signatures = |store: &mut CardStore| {
        device.reset_stats();
        store
            .sign(&id, Purpose::Document, b"m", &mut with_pin())
            .unwrap();
        let sent = sequence(&device);
        sent.iter().filter(|line| line.starts_with("0087")).count()
    };
    store.let_go();
    assert_eq!(signatures(&mut store), 2);
    assert_eq!(signatures(&mut store), 1);
    store.let_go();
    assert_eq!(signatures(&mut store), 2);
    // A key that wants a PIN, or lies elsewhere, proves nothing.
    let with_a_pin = SlotFacts {
        pin: Some(PinPolicy::Once),
        ..proof
    };
    store.set_enrolled(enrolled(&with_a_pin));
    store.let_go();
    assert_eq!(signatures(&mut store), 1);
}

#[test]
fn a_key_in_9e_that_was_replaced_stops_the_pin_as_well() {
    let (_, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let old = made_in_9e(&mut store);
    let new = NewOnCard {
        slot: Some(Slot::CARD_AUTHENTICATION),
        overwrite: old.id,
        pin: PinPolicy::Never,
        ..plain(Algorithm::P256, TouchPolicy::Never)
    };
    store.generate_on_card(&new, &mut with_pin()).unwrap();
    store.set_enrolled(enrolled(&old));
    store.lock();
    let error = store.sign(&id, Purpose::Document, b"m", &mut with_pin());
    assert!(words(&error.unwrap_err()).contains("did not prove"));
}

#[test]
fn keys_without_a_certificate_are_found_by_attestation_or_by_the_index_on_old_firmware() {
    for firmware in [Firmware::V4_3, Firmware::V5_2] {
        let (device, mut store) = card(firmware);
        let made = made(&mut store, TouchPolicy::Never);
        let key = PrivateKey::generate(Algorithm::P256).unwrap();
        let new = plain(Algorithm::P256, TouchPolicy::Never);
        let imported = store.import_to_card(&key, &new, &mut with_pin()).unwrap();
        let imported = imported.slot;
        for slot in [Slot::SIGNATURE, imported.slot] {
            device.put_object(slot.certificate(), None);
        }
        let facts = store.arrive().unwrap();
        assert_eq!(facts.slots.len(), 1, "{firmware:?}");
        assert_eq!(facts.slot_of(&made).unwrap().generated, Some(true));
        let sign =
            |store: &mut CardStore, id| store.sign(&id, Purpose::Document, b"m", &mut with_pin());
        sign(&mut store, made).unwrap();

        store.set_enrolled(enrolled(&imported));
        let facts = store.arrive().unwrap();
        assert!(facts.slot_of(&key.id()).unwrap().assumed);
        sign(&mut store, key.id()).unwrap();
        store.let_go();
        sign(&mut store, key.id()).unwrap();

        // What is not there after all signs nothing that is let out.
        let other = PrivateKey::generate(Algorithm::P256).unwrap();
        let mut elsewhere = imported.clone();
        elsewhere.set_public(other.public().clone());
        store.set_enrolled(enrolled(&elsewhere));
        store.arrive().unwrap();
        let error = sign(&mut store, other.id()).unwrap_err();
        assert!(words(&error).contains("does not verify"), "{error}");
    }
}
