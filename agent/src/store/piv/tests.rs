//! The store on a YubiKey in software, without PC/SC between them.

mod enrolled;
mod signing;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use signet_trust::{Algorithm, PrivateKey};
use signet_virtual_yubikey::{
    Device, Firmware, Kind, Outcome,
    attest::root as attestation_root,
    device::{Fault, Touching},
};
use zeroize::Zeroizing;

use super::{card::Exchange, *};
use crate::{
    presence::{Given, NoSecret, Presence, SecretName, SecretRequest, Wait},
    store::{
        KeyStore,
        atomic::fault,
        contract::{self, PIN},
    },
};

/// A reader with a card that a test can touch.
struct InReader(Device);

impl Reader for InReader {
    fn name(&self) -> &str {
        "reader"
    }

    fn connect(&mut self) -> Result<Box<dyn Card>, CardError> {
        if self.0.present() {
            Ok(Box::new(Self(self.0.clone())))
        } else {
            Err(CardError::Gone)
        }
    }
}

impl Card for InReader {
    fn transaction(&mut self, work: card::Work<'_>) -> Result<(), CardError> {
        work(self)
    }
}

impl Exchange for InReader {
    fn transmit(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        // An agent that was killed says nothing more to any card.
        if !self.0.present() || fault::step().is_err() {
            return Err(CardError::Gone);
        }
        match self.0.exchange(apdu) {
            Outcome::Answer(answer) => Ok(Zeroizing::new(answer)),
            Outcome::Vanished => Err(CardError::Gone),
        }
    }
}

/// Gives these answers, then none; remembers what it was asked and told.
#[derive(Default)]
struct Person {
    pin: Vec<&'static str>,
    asked: Vec<SecretRequest>,
    waits: Vec<Wait>,
    touched: bool,
    grade: u32,
    last_try: bool,
}

fn with_pin() -> Person {
    Person {
        pin: vec![PIN; 9],
        ..Person::default()
    }
}

impl Presence for Person {
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret> {
        self.asked.push(ask);
        if self.pin.is_empty() {
            return Err(NoSecret::Unavailable);
        }
        Ok(Given {
            secret: Secret::copy_of(self.pin.remove(0).as_bytes()),
            grade: 3,
        })
    }

    fn request(&self) -> RequestId {
        RequestId(1)
    }

    fn session(&self) -> Option<SessionId> {
        Some(SessionId(7))
    }

    fn accepted(&mut self, _: &SecretName, grade: u32) {
        self.grade = self.grade.max(grade);
    }

    fn use_last_try(&self) -> bool {
        self.last_try
    }

    fn waits(&mut self, wait: Wait) {
        self.waits.push(wait);
    }

    fn touched(&mut self) {
        self.touched = true;
    }
}

const SERIAL: u32 = 1001;

fn store_on(device: &Device) -> CardStore {
    let settings = CardSettings {
        roots: Arc::new(vec![attestation_root().to_vec()]),
        ..CardSettings::default()
    };
    CardStore::new(
        Box::new(InReader(device.clone())),
        settings,
        Box::new(|_| {}),
    )
}

/// A card that was set up, and its store.
fn card(firmware: Firmware) -> (Device, CardStore) {
    let device = Device::new(SERIAL, firmware, Kind::YubiKey);
    let mut store = store_on(&device);
    let mut person = Person {
        pin: match firmware.has_metadata() {
            true => vec![PIN],
            // Older firmware does not tell that PIN and PUK are the factory's.
            false => vec!["123456", PIN, "12345678"],
        },
        ..Person::default()
    };
    store.arrive().unwrap();
    store.set_up(SetUp::default(), &mut person).unwrap();
    (device, store)
}

fn plain(algorithm: Algorithm, touch: TouchPolicy) -> NewOnCard {
    NewOnCard {
        touch,
        ..NewOnCard::plain(
            algorithm,
            &NewKey {
                role: "targets".to_owned(),
                gun: Some("reg/app".to_owned()),
            },
        )
    }
}

fn made(store: &mut CardStore, touch: TouchPolicy) -> KeyId {
    let made = store
        .generate_on_card(&plain(Algorithm::P256, touch), &mut with_pin())
        .unwrap();
    made.slot.id.unwrap()
}

fn sequence(device: &Device) -> Vec<String> {
    device.stats()["sequence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

fn words(error: &StoreError) -> String {
    error.to_string()
}

#[test]
fn a_card_that_was_set_up_has_nothing_of_the_factory_and_ykman_s_layout() {
    for firmware in [Firmware::V5_7, Firmware::V5_4] {
        let (_, store) = card(firmware);
        let facts = store.facts().unwrap();
        assert_eq!(facts.defaults, [false; 3], "{firmware:?}");
        assert!(facts.protected);
        assert_eq!(facts.management, "aes256");
    }
}

#[test]
fn setting_a_card_up_again_changes_neither_pin_nor_management_key() {
    let (_, mut store) = card(Firmware::V5_7);
    let mut person = with_pin();
    let recovery = store.set_up(SetUp::default(), &mut person).unwrap();
    assert_eq!(person.asked.len(), 1);
    assert!(recovery.puk.expose().is_empty());
    let again = store.set_up(SetUp::default(), &mut with_pin()).unwrap();
    assert!(again.management_key.same_as(&recovery.management_key));
}

#[test]
fn a_set_up_that_was_interrupted_is_finished_by_the_next_one() {
    let device = Device::new(SERIAL, Firmware::V5_7, Kind::YubiKey);
    let mut store = store_on(&device);
    device.fail(0xff, Fault::Answer(vec![0x6f, 0x00]), 1);
    let error = store.set_up(SetUp::default(), &mut with_pin()).unwrap_err();
    assert!(words(&error).contains("6f00"), "{error}");
    assert!(store.refresh().unwrap().defaults[2]);
    store.set_up(SetUp::default(), &mut with_pin()).unwrap();
    let facts = store.refresh().unwrap();
    assert_eq!((facts.defaults, facts.protected), ([false; 3], true));

    // The key was set, and that it lies on the card was not said any more.
    device.put_object(0x5f_ff00, None);
    assert!(!store.refresh().unwrap().protected);
    store.set_up(SetUp::default(), &mut with_pin()).unwrap();
    assert!(store.refresh().unwrap().protected);
    made(&mut store, TouchPolicy::Never);
    assert_eq!(device.stats()["pin_tries"], 3);
}

#[test]
fn a_key_whose_certificate_finds_no_room_or_whose_touch_is_missed_is_not_left_behind() {
    let (device, mut store) = card(Firmware::V5_7);
    device.set_capacity(600);
    let new = plain(Algorithm::P256, TouchPolicy::Never);
    let error = store.generate_on_card(&new, &mut with_pin()).unwrap_err();
    assert!(
        words(&error).contains("no room") || words(&error).contains("6a84"),
        "{error}"
    );
    device.set_capacity(100_000);
    device.set_touching(Touching::Never);
    device.set_touch_timeout(Duration::from_millis(30));
    let new = plain(Algorithm::P256, TouchPolicy::Always);
    let error = store.generate_on_card(&new, &mut with_pin()).unwrap_err();
    assert!(words(&error).contains("not touched in time"), "{error}");
    assert!(store.arrive().unwrap().slots.is_empty());
}

#[test]
fn a_key_is_made_attested_and_signs_on_every_firmware() {
    for firmware in [
        Firmware::V4_3,
        Firmware::V5_2,
        Firmware::V5_4,
        Firmware::V5_7,
    ] {
        let (device, mut store) = card(firmware);
        let new = plain(Algorithm::P256, TouchPolicy::Always);
        let mut person = with_pin();
        let made = store.generate_on_card(&new, &mut person).unwrap();
        assert!(
            made.proves.starts_with("verified: made on YubiKey"),
            "{made:?}"
        );
        let id = made.slot.id.unwrap();
        assert_eq!(made.slot.slot, Slot::SIGNATURE);
        let mut person = with_pin();
        store
            .sign(&id, Purpose::Document, b"message", &mut person)
            .unwrap();
        assert!(person.touched);
        // What a fresh reading finds is what was made.
        let mut again = store_on(&device);
        let facts = again.arrive().unwrap();
        let slot = facts.slot_of(&id).unwrap();
        assert_eq!(slot.touch, Some(TouchPolicy::Always), "{firmware:?}");
        assert_eq!(slot.subject.as_deref(), Some("reg/app"));
        assert_eq!(slot.generated, Some(true));
    }
}

#[test]
fn every_algorithm_signs_documents_and_certificates() {
    let (_, mut store) = card(Firmware::V5_7);
    for algorithm in [
        Algorithm::P256,
        Algorithm::P384,
        Algorithm::Rsa(2048),
        Algorithm::Ed25519,
    ] {
        let made = store
            .generate_on_card(&plain(algorithm, TouchPolicy::Never), &mut with_pin())
            .unwrap();
        let id = made.slot.id.unwrap();
        for purpose in [Purpose::Document, Purpose::Certificate] {
            store
                .sign(&id, purpose, b"message", &mut with_pin())
                .unwrap();
        }
        let key = PrivateKey::generate(algorithm).unwrap();
        let new = plain(algorithm, TouchPolicy::Never);
        let made = store.import_to_card(&key, &new, &mut with_pin()).unwrap();
        assert_eq!(made.slot.id, Some(key.id()));
        store
            .sign(&key.id(), Purpose::Document, &[b'a'; 600], &mut with_pin())
            .unwrap();
    }
}

#[test]
fn a_reset_by_another_program_or_another_application_costs_nothing() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap();
    // Another application is selected by somebody else.
    let select_other = b"\x00\xa4\x04\x00\x08\xa0\x00\x00\x05\x27\x20\x01\x01";
    let _ = device.exchange(select_other);
    store
        .sign(&id, Purpose::Document, b"m", &mut Person::default())
        .unwrap();
    // Also where the tries are read first, because no PIN is held.
    store.lock();
    let _ = device.exchange(select_other);
    store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap();
    let _ = device.exchange(select_other);
    assert_eq!(store.refresh().unwrap().pin_tries, Some(3));
    device.fail(0x87, Fault::Answer(vec![]), 1);
    store
        .sign(&id, Purpose::Document, b"m", &mut Person::default())
        .unwrap();
    assert_eq!(device.stats()["pin_tries"], 3);
}

#[test]
fn another_card_in_the_reader_gets_no_pin() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap();
    store.let_go();
    device.swap(2002, Firmware::V5_7, Kind::YubiKey);
    device.reset_stats();
    let error = store.sign(&id, Purpose::Document, b"m", &mut with_pin());
    assert!(words(&error.unwrap_err()).contains("is not YubiKey 1001 any more"));
    assert!(
        sequence(&device)
            .iter()
            .all(|line| !line.starts_with("00200080"))
    );
}

#[test]
fn slots_that_hold_something_are_not_overwritten_unless_the_key_is_named() {
    let (_, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let mut new = plain(Algorithm::P256, TouchPolicy::Never);
    new.slot = Some(Slot::SIGNATURE);
    let error = store.generate_on_card(&new, &mut with_pin()).unwrap_err();
    assert!(
        words(&error).contains(&format!("holds key {id}")),
        "{error}"
    );
    new.overwrite = Some(KeyId([7; 32]));
    assert!(store.generate_on_card(&new, &mut with_pin()).is_err());
    new.overwrite = Some(id);
    let made = store.generate_on_card(&new, &mut with_pin()).unwrap();
    assert_ne!(made.slot.id, Some(id));
    // Every slot that is offered is used once; then the card is full.
    for _ in 0..22 {
        store
            .generate_on_card(&plain(Algorithm::P256, TouchPolicy::Never), &mut with_pin())
            .unwrap();
    }
    let error = store
        .generate_on_card(&plain(Algorithm::P256, TouchPolicy::Never), &mut with_pin())
        .unwrap_err();
    assert!(words(&error).contains("is full"), "{error}");
}

#[test]
fn a_factory_new_card_makes_no_key_and_names_the_way() {
    let device = Device::new(SERIAL, Firmware::V5_7, Kind::YubiKey);
    let mut store = store_on(&device);
    let new = plain(Algorithm::P256, TouchPolicy::Never);
    let error = store.generate_on_card(&new, &mut with_pin()).unwrap_err();
    assert!(words(&error).contains("factory PIN"), "{error}");
    assert!(error.fix().unwrap().contains("signet card setup 1001"));
}

#[test]
fn pin_and_puk_are_changed_and_the_puk_unblocks() {
    let (device, mut store) = card(Firmware::V5_7);
    // A PUK that we know, by setting it from the factory's.
    let tries = SetUp {
        tries: Some((4, 5)),
    };
    let recovery = store.set_up(tries, &mut with_pin()).unwrap();
    let puk: &'static str =
        String::leak(String::from_utf8(recovery.puk.expose().to_vec()).unwrap());
    assert_eq!(device.stats()["pin_tries"], 4);
    let mut person = Person {
        pin: vec![PIN, "735261"],
        ..Person::default()
    };
    store.change_pin(false, &mut person).unwrap();
    assert!(person.asked[1].new_secret);
    for _ in 0..4 {
        let _ = device.exchange(b"\x00\x20\x00\x80\x08999999\xff\xff");
    }
    let mut person = Person {
        pin: vec![puk, PIN],
        ..Person::default()
    };
    store.change_pin(true, &mut person).unwrap();
    assert_eq!(device.stats()["pin_tries"], 4);
    let mut person = Person {
        pin: vec!["00000000", "64738291"],
        ..Person::default()
    };
    let error = store.change_puk(&mut person).unwrap_err();
    assert!(words(&error).contains("wrong PUK"), "{error}");
    store.reset_card().unwrap();
    assert_eq!(store.facts().unwrap().defaults, [true; 3]);
}

#[test]
fn a_foreign_card_and_nonsense_are_named_and_never_panic() {
    let device = Device::new(SERIAL, Firmware::V5_7, Kind::Foreign);
    let error = store_on(&device).arrive().unwrap_err();
    assert!(error.to_string().contains("no YubiKey"), "{error}");
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    for (ins, answer) in [
        (0xf7, vec![0x90, 0x00]),
        (0xf7, vec![0x01, 0xff, 0x90, 0x00]),
        (0xcb, vec![0x53, 0x04, 0x70, 0x02, 0x30, 0x80, 0x90, 0x00]),
        (0xfd, vec![1, 0x90, 0x00]),
        (0xf8, vec![0x6f, 0x00]),
    ] {
        device.fail(ins, Fault::Answer(answer), 3);
        let mut fresh = store_on(&device);
        let _ = fresh.arrive();
        device.heal();
    }
    for answer in [
        vec![0x90, 0x00],
        vec![0x7c, 0x80, 0x90, 0x00],
        vec![0x7c, 0x02, 0x82, 0x00, 0x90, 0x00],
        vec![0x6f, 0x00],
        vec![0x69, 0x85],
        vec![0x6a, 0x86],
    ] {
        device.fail(0x87, Fault::Answer(answer), 1);
        let error = store
            .sign(&id, Purpose::Document, b"m", &mut with_pin())
            .unwrap_err();
        assert!(words(&error).contains("1001"), "{error}");
        device.heal();
    }
    store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap();
    assert_eq!(device.stats()["pin_tries"], 3);
}

/// A card for each directory of the contract's tests, which outlives its store.
fn open(dir: &Path, clock: Clock) -> Box<dyn KeyStore> {
    static CARDS: OnceLock<Mutex<HashMap<PathBuf, Device>>> = OnceLock::new();
    let mut cards = CARDS.get_or_init(Mutex::default).lock().unwrap();
    let device = cards
        .entry(dir.to_owned())
        .or_insert_with(|| card(Firmware::V5_7).0);
    let mut store = store_on(device);
    store.settings.idle = Duration::ZERO;
    store.clock = clock;
    Box::new(store)
}

contract::contract! { open;
    an_absent_directory_is_an_empty_store_and_nobody_is_asked
    a_key_of_every_algorithm_signs_after_a_restart
    an_unknown_key_is_not_found_and_nobody_is_asked
    with_nobody_there_it_is_locked_and_nothing_is_written
    three_wrong_answers_end_it_and_each_is_told
    a_second_answer_may_be_right
    who_cancels_is_not_asked_again
    a_typed_secret_is_held_for_its_session_and_time
    a_held_secret_is_not_used_where_it_may_not_be
    a_root_key_is_opened_for_one_request
    importing_a_key_again_changes_nothing
    an_exported_copy_opens_in_docker_format
    a_removed_key_is_gone
    who_comes_again_with_the_answer_is_not_asked_another_question
    roles_and_guns_that_a_header_cannot_hold_are_refused
    generation_killed_anywhere_leaves_a_whole_key_or_none
}
