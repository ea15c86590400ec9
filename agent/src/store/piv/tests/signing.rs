//! Signatures, counted by what the card is told for them; PINs and touches, and what is not sent.

use super::*;

#[test]
fn a_signature_with_a_held_pin_is_three_exchanges_and_leaves_nothing_behind() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store
        .sign(&id, Purpose::Document, b"one", &mut with_pin())
        .unwrap();
    device.reset_stats();
    let mut nobody = Person::default();
    store
        .sign(&id, Purpose::Document, b"two", &mut nobody)
        .unwrap();
    assert!(nobody.asked.is_empty());
    let sent = sequence(&device);
    let heads: Vec<&str> = sent.iter().map(|line| &line[..8]).collect();
    assert_eq!(heads, ["00200080", "0087119c", "0020ff80"], "{sent:?}");
    assert_eq!(device.stats()["exchanges"], 3);
    assert_eq!(device.stats()["pin_verified"], false);
}

#[test]
fn a_card_that_is_left_verified_needs_one_exchange_until_it_is_locked() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let settings = CardSettings {
        leave_verified: true,
        ..CardSettings::default()
    };
    store.configure(String::new(), settings);
    store
        .sign(&id, Purpose::Document, b"one", &mut with_pin())
        .unwrap();
    device.reset_stats();
    store
        .sign(&id, Purpose::Document, b"two", &mut Person::default())
        .unwrap();
    assert_eq!(device.stats()["exchanges"], 1, "{:?}", sequence(&device));
    assert_eq!(device.stats()["pin_verified"], true);
    // Another program had it forget the PIN.
    let _ = device.exchange(b"\x00\x20\xff\x80\x00");
    store
        .sign(&id, Purpose::Document, b"three", &mut Person::default())
        .unwrap();
    store.lock();
    assert_eq!(device.stats()["pin_verified"], false);
}

#[test]
fn several_signatures_of_one_request_share_one_pin_unless_a_finger_or_the_pin_is_wanted_each_time()
{
    let (device, mut store) = card(Firmware::V5_7);
    let mut make = |pin, touch| {
        let new = NewOnCard {
            pin,
            ..plain(Algorithm::P256, touch)
        };
        let made = store.generate_on_card(&new, &mut with_pin()).unwrap();
        made.slot.id.unwrap()
    };
    let plain = [(); 3].map(|()| make(PinPolicy::Once, TouchPolicy::Never));
    let touched = make(PinPolicy::Once, TouchPolicy::Cached);
    let always = make(PinPolicy::Always, TouchPolicy::Never);
    let mut sent = |ids: &[KeyId]| {
        let asked: Vec<ToSign<'_>> = ids
            .iter()
            .map(|id| ToSign {
                id: *id,
                purpose: Purpose::Document,
                message: b"message",
            })
            .collect();
        device.reset_stats();
        let signed = store.sign_all(&asked, &mut with_pin()).unwrap();
        assert_eq!(signed.len(), ids.len());
        assert_eq!(device.stats()["pin_verified"], false);
        let sent = sequence(&device);
        let of = |ins| sent.iter().filter(|line| line.starts_with(ins)).count();
        [of("00200080"), of("0087"), of("0020ff80")]
    };
    // The first time the PIN is given, and the tries are read before.
    assert_eq!(sent(&plain), [1, 3, 1]);
    assert_eq!(sent(&plain), [1, 3, 1]);
    assert_eq!(device.stats()["exchanges"], 5);
    assert_eq!(sent(&[plain[0], touched, plain[1]]), [3, 3, 3]);
    assert_eq!(sent(&[always, plain[0], plain[1]]), [2, 3, 2]);
    // A card that loses its session in the middle makes all of them again.
    device.fail(0x87, Fault::Answer(vec![]), 1);
    assert_eq!(sent(&plain), [2, 4, 2]);
}

#[test]
fn a_card_that_is_left_verified_is_locked_also_after_it_refused_something() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    let settings = CardSettings {
        leave_verified: true,
        ..CardSettings::default()
    };
    store.configure(String::new(), settings);
    device.fail(0x87, Fault::Answer(vec![0x6f, 0x00]), 1);
    store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap_err();
    assert_eq!(device.stats()["pin_verified"], true);
    store.lock();
    assert_eq!(device.stats()["pin_verified"], false);
}

#[test]
fn a_wrong_pin_is_told_with_its_tries_and_the_last_one_is_never_spent() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store.lock();
    let mut person = Person {
        pin: vec!["111111", "111111", "222222"],
        ..Person::default()
    };
    let error = store.sign(&id, Purpose::Document, b"m", &mut person);
    let error = words(&error.unwrap_err());
    assert!(error.contains("one try left"), "{error}");
    assert_eq!(person.asked[0].card.as_ref().unwrap().tries_left, 3);
    assert_eq!(person.asked[1].refused, "wrong PIN; 2 tries left");
    // The second answer was the first again, and not sent.
    assert_eq!(device.stats()["pin_tries"], 1);
    let error = store.sign(&id, Purpose::Document, b"m", &mut with_pin());
    assert!(words(&error.unwrap_err()).contains("one try left"));
    assert_eq!(device.stats()["pin_tries"], 1);
    let mut sure = Person {
        last_try: true,
        ..with_pin()
    };
    store.sign(&id, Purpose::Document, b"m", &mut sure).unwrap();
    assert_eq!(device.stats()["pin_tries"], 3);
}

#[test]
fn what_is_no_pin_is_not_sent() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store.lock();
    device.reset_stats();
    let mut person = Person {
        pin: vec!["cccccckbhvdgtjrdffndkhvcgkgvvhnrlkjubllrldcl", "123"],
        ..Person::default()
    };
    let error = store.sign(&id, Purpose::Document, b"m", &mut person);
    assert!(words(&error.unwrap_err()).contains("6 to 8 characters"));
    assert!(person.asked[1].refused.contains("touch of the YubiKey"));
    assert!(
        sequence(&device)
            .iter()
            .all(|line| !line.starts_with("00200080"))
    );
    assert_eq!(device.stats()["pin_tries"], 3);
}

#[test]
fn a_blocked_pin_says_how_it_is_unblocked() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Never);
    store.lock();
    for _ in 0..3 {
        let _ = device.exchange(b"\x00\x20\x00\x80\x08999999\xff\xff");
    }
    let error = store
        .sign(&id, Purpose::Document, b"m", &mut with_pin())
        .unwrap_err();
    assert!(words(&error).contains("blocked"), "{error}");
    assert!(error.fix().unwrap().contains("--puk"));
}

#[test]
fn a_missed_touch_is_an_error_of_its_own_and_the_pin_stays_good() {
    let (device, mut store) = card(Firmware::V5_7);
    let id = made(&mut store, TouchPolicy::Always);
    device.set_touching(Touching::Never);
    device.set_touch_timeout(Duration::from_millis(30));
    let mut person = with_pin();
    let error = store
        .sign(&id, Purpose::Document, b"m", &mut person)
        .unwrap_err();
    assert!(words(&error).contains("not touched in time"), "{error}");
    assert!(
        person
            .waits
            .iter()
            .any(|wait| matches!(wait, Wait::Touch { after, .. } if after.is_zero()))
    );
    assert_eq!(person.waits.last(), Some(&Wait::Over));
    assert_eq!(device.stats()["pin_tries"], 3);
    assert_eq!(device.stats()["pin_verified"], false);
}

#[test]
fn a_payload_that_ed25519_cannot_take_is_refused_before_anybody_is_asked() {
    let (_, mut store) = card(Firmware::V5_7);
    let new = plain(Algorithm::Ed25519, TouchPolicy::Never);
    let made = store.generate_on_card(&new, &mut with_pin()).unwrap();
    let mut person = with_pin();
    let error = store
        .sign(
            &made.slot.id.unwrap(),
            Purpose::Document,
            &[0; 2000],
            &mut person,
        )
        .unwrap_err();
    assert!(words(&error).contains("2000 bytes"), "{error}");
    assert!(error.fix().unwrap().contains("P-256"));
    assert!(person.asked.is_empty());
}
