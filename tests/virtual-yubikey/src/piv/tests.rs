mod keys;

use super::*;
use crate::management;
use crate::tlv::{encode, find, split};
use crate::touch::Finger;

const SELECT: &[u8] = &[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8];
const PIN: &[u8; 8] = b"123456\xff\xff";
const WRONG: &[u8; 8] = b"000000\xff\xff";
const PUK: &[u8; 8] = b"12345678";

/// A card with PIV selected.
fn card(firmware: Firmware) -> Piv {
    touched(firmware, Finger::Present)
}

fn touched(firmware: Firmware, finger: Finger) -> Piv {
    let mut card = Piv::new(1001, firmware, Kind::YubiKey, Box::new(finger));
    let answer = card.transmit(SELECT);
    assert!(answer.ends_with(&[0x90, 0]), "{answer:02x?}");
    card
}

/// Sends a command in short pieces and fetches the answer in portions; data, or status word.
fn send(card: &mut Piv, ins: u8, p1: u8, p2: u8, data: &[u8]) -> Result<Vec<u8>, u16> {
    let mut pieces: Vec<&[u8]> = data.chunks(255).collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let answer = card.transmit(&[&[0x10, ins, p1, p2, 255][..], piece].concat());
        assert_eq!(answer, [0x90, 0]);
    }
    let length = u8::try_from(last.len()).expect("pieces are short");
    let mut answer = card.transmit(&[&[0, ins, p1, p2, length][..], last].concat());
    let mut data = Vec::new();
    loop {
        let low = answer.pop().expect("there is a status word");
        let high = answer.pop().expect("there is a status word");
        data.append(&mut answer);
        match (high, low) {
            (0x90, 0) => return Ok(data),
            (0x61, _) => answer = card.transmit(&[0, 0xc0, 0, 0, 0]),
            _ => return Err(u16::from_be_bytes([high, low])),
        }
    }
}

fn verify(card: &mut Piv, pin: &[u8]) -> Result<Vec<u8>, u16> {
    send(card, 0x20, 0, 0x80, pin)
}

/// Proves the management key that the card has, both sides to each other.
fn manage(card: &mut Piv) {
    let id = card.management.algorithm().id();
    let answer = send(card, 0x87, id, 0x9b, &[0x7c, 2, 0x80, 0]).expect("a witness");
    let witness = inner(&answer, 0x80);
    let shown = card.management.decrypt(&witness).expect("it is a block");
    let challenge = vec![7; shown.len()];
    let ours = [encode(0x80, &shown), encode(0x81, &challenge)].concat();
    let answer = send(card, 0x87, id, 0x9b, &encode(0x7c, &ours)).expect("a response");
    assert_eq!(
        Some(inner(&answer, 0x82)),
        card.management.encrypt(&challenge)
    );
    assert!(card.managed());
}

/// An element within the first one.
fn inner(answer: &[u8], tag: u16) -> Vec<u8> {
    let (_, content, _) = split(answer).expect("an element");
    let elements = crate::tlv::all(content).expect("elements");
    find(&elements, tag).expect("the tag is there").to_vec()
}

fn sign(card: &mut Piv, algorithm: u8, place: u8, input: &[u8]) -> Result<Vec<u8>, u16> {
    let template = [vec![0x82, 0], encode(0x81, input)].concat();
    let answer = send(card, 0x87, algorithm, place, &encode(0x7c, &template))?;
    Ok(inner(&answer, 0x82))
}

/// Generates, and returns what is within 7F49.
fn generate(card: &mut Piv, place: u8, algorithm: u8, policies: &[u8]) -> Result<Vec<u8>, u16> {
    let template = [&[0x80, 1, algorithm][..], policies].concat();
    let answer = send(card, 0x47, 0, place, &encode(0xac, &template))?;
    let (tag, content, _) = split(&answer).expect("an element");
    assert_eq!(tag, 0x7f49);
    Ok(content.to_vec())
}

#[test]
fn selection_tells_the_application_and_ends_the_session() {
    let mut card = card(Firmware::V5_7);
    let template = [
        0x61, 0x11, 0x4f, 6, 0, 0, 0x10, 0, 1, 0, 0x79, 7, 0x4f, 5, 0xa0, 0, 0, 3, 8, 0x90, 0,
    ];
    assert_eq!(card.transmit(SELECT), template);
    assert_eq!(card.transmit(&[0, 0xa4, 4, 0, 2, 1, 2]), [0x6a, 0x82]);
    verify(&mut card, PIN).expect("it is the PIN");
    manage(&mut card);
    assert_eq!(card.transmit(SELECT), template);
    assert!(!card.pin_verified() && !card.managed());
    verify(&mut card, PIN).expect("it is the PIN");
    card.reset_session();
    assert!(!card.pin_verified());
    assert_eq!(verify(&mut card, PIN), Err(0x6d00), "nothing is selected");
}

#[test]
fn each_firmware_knows_its_own_commands() {
    for (firmware, serial, metadata, relocation) in [
        (Firmware::V4_3, false, false, false),
        (Firmware::V5_2, true, false, false),
        (Firmware::V5_4, true, true, false),
        (Firmware::V5_7, true, true, true),
        (Firmware::V6_0, true, true, true),
    ] {
        let mut card = card(firmware);
        let version = send(&mut card, 0xfd, 0, 0, &[]);
        assert_eq!(version, Ok(firmware.bytes().to_vec()));
        let told = send(&mut card, 0xf8, 0, 0, &[]);
        assert_eq!(
            told,
            if serial {
                Ok(vec![0, 0, 3, 0xe9])
            } else {
                Err(0x6d00)
            }
        );
        let told = send(&mut card, 0xf7, 0, 0x80, &[]);
        let known = Ok(vec![1, 1, 0xff, 5, 1, 1, 6, 2, 3, 3]);
        assert_eq!(told, if metadata { known } else { Err(0x6d00) });
        let moved = send(&mut card, 0xf6, 0x9c, 0x9a, &[]);
        assert_eq!(moved, Err(if relocation { 0x6982 } else { 0x6d00 }));
    }
}

#[test]
fn old_firmware_tells_its_serial_in_another_application() {
    let mut card = card(Firmware::V4_3);
    verify(&mut card, PIN).expect("it is the PIN");
    let otp = [0, 0xa4, 4, 0, 8, 0xa0, 0, 0, 5, 0x27, 0x20, 1, 1];
    assert_eq!(card.transmit(&otp), [4, 3, 7, 1, 0, 0, 0x90, 0]);
    let serial = [0, 0, 3, 0xe9, 0x90, 0];
    assert_eq!(card.transmit(&[0, 1, 0x10, 0, 0]), serial);
    let _ = card.transmit(SELECT);
    assert!(!card.pin_verified());
}

#[test]
fn another_makers_card_knows_nothing_of_yubicos() {
    let mut card = Piv::new(1, Firmware::V5_7, Kind::Foreign, Box::new(Finger::Present));
    let template = card.transmit(SELECT);
    assert!(template.ends_with(&[0x90, 0]));
    for ins in [0xfd, 0xf8, 0xf7, 0xf9, 0xfa, 0xfb, 0xfe, 0xff, 0xf6] {
        assert_eq!(send(&mut card, ins, 0, 0, &[]), Err(0x6d00));
    }
    verify(&mut card, PIN).expect("it is the PIN");
    manage(&mut card);
    generate(&mut card, 0x9a, 0x11, &[]).expect("SP 800-73 has this");
    sign(&mut card, 0x11, 0x9a, &[1; 32]).expect("and this");
}

#[test]
fn tries_are_counted_down_to_blocked_and_unblocked_by_the_puk() {
    let mut card = card(Firmware::V5_4);
    assert_eq!(verify(&mut card, &[]), Err(0x63c3));
    assert_eq!(verify(&mut card, WRONG), Err(0x63c2));
    assert_eq!(
        verify(&mut card, b"123456"),
        Err(0x6a80),
        "not padded, not counted"
    );
    verify(&mut card, PIN).expect("it is the PIN");
    assert_eq!(verify(&mut card, &[]), Ok(vec![]));
    assert_eq!(send(&mut card, 0x20, 0xff, 0x80, &[]), Ok(vec![]));
    assert_eq!(verify(&mut card, &[]), Err(0x63c3));
    for left in [0x63c2, 0x63c1, 0x63c0, 0x6983] {
        assert_eq!(verify(&mut card, WRONG), Err(left));
    }
    assert_eq!(verify(&mut card, PIN), Err(0x6983));
    assert_eq!(verify(&mut card, &[]), Err(0x6983));
    let unblock = |puk: &[u8], pin: &[u8]| [puk, pin].concat();
    let mut reset = |data: &[u8]| send(&mut card, 0x2c, 0, 0x80, data);
    assert_eq!(reset(&unblock(WRONG, b"654321\xff\xff")), Err(0x63c2));
    assert_eq!(reset(&unblock(PUK, b"12345\xff\xff\xff")), Err(0x6a80));
    assert_eq!(reset(&unblock(PUK, b"654321\xff\xff")), Ok(vec![]));
    assert_eq!((card.pin_tries(), card.puk_tries()), (3, 3));
    verify(&mut card, b"654321\xff\xff").expect("it is the PIN");
}

#[test]
fn firmware_4_cannot_forget_the_pin_but_by_selection() {
    let mut card = card(Firmware::V4_3);
    verify(&mut card, PIN).expect("it is the PIN");
    assert_eq!(send(&mut card, 0x20, 0xff, 0x80, &[]), Err(0x6a86));
    assert!(card.pin_verified());
}

#[test]
fn pin_and_puk_are_changed_by_whoever_knows_them() {
    let mut card = card(Firmware::V5_7);
    let both = |old: &[u8], new: &[u8]| [old, new].concat();
    let mut change = |reference, data: &[u8]| send(&mut card, 0x24, 0, reference, data);
    assert_eq!(change(0x80, &both(WRONG, PIN)), Err(0x63c2));
    assert_eq!(change(0x80, &both(PIN, b"1234567\xff")), Ok(vec![]));
    assert_eq!(change(0x81, &both(PUK, b"87654321")), Ok(vec![]));
    assert_eq!(change(0x81, &both(PUK, b"87654321")), Err(0x63c2));
    assert_eq!(change(0x82, &both(PUK, b"87654321")), Err(0x6a88));
    let told = send(&mut card, 0xf7, 0, 0x80, &[]);
    assert_eq!(told, Ok(vec![1, 1, 0xff, 5, 1, 0, 6, 2, 3, 3]));
}

#[test]
fn other_numbers_of_tries_bring_back_the_factorys_pin() {
    let mut card = card(Firmware::V5_4);
    manage(&mut card);
    assert_eq!(send(&mut card, 0xfa, 5, 7, &[]), Err(0x6982));
    verify(&mut card, PIN).expect("it is the PIN");
    assert_eq!(send(&mut card, 0xfa, 5, 7, &[]), Ok(vec![]));
    assert_eq!((card.pin_tries(), card.puk_tries()), (5, 7));
}

#[test]
fn every_kind_of_management_key_is_proved_and_a_wrong_one_refused() {
    let mut card = card(Firmware::V5_7);
    for (id, length) in [(3, 24), (8, 16), (0x0a, 24), (0x0c, 32)] {
        assert_eq!(
            send(&mut card, 0xff, 0xff, 0xff, &[id, 0x9b, 0]),
            Err(0x6982)
        );
        manage(&mut card);
        let key = vec![0x5a; length];
        let setting = [&[id, 0x9b, u8::try_from(length).unwrap()][..], &key].concat();
        assert_eq!(send(&mut card, 0xff, 0xff, 0xff, &setting), Ok(vec![]));
        let _ = card.transmit(SELECT);
        manage(&mut card);
        let _ = card.transmit(SELECT);
        // The single way: the card asks, and either answer is a response.
        for right in [false, true] {
            let asked = send(&mut card, 0x87, id, 0x9b, &[0x7c, 2, 0x81, 0]).unwrap();
            let challenge = inner(&asked, 0x81);
            let mut response = card.management.encrypt(&challenge).unwrap();
            response[0] ^= u8::from(!right);
            let answer = encode(0x7c, &encode(0x82, &response));
            let answer = send(&mut card, 0x87, id, 0x9b, &answer);
            assert_eq!(answer, if right { Ok(vec![]) } else { Err(0x6982) });
            assert_eq!(card.managed(), right);
        }
        // No challenge is good twice.
        let old = encode(0x7c, &encode(0x82, &[0; 16]));
        assert_eq!(send(&mut card, 0x87, id, 0x9b, &old), Err(0x6982));
        assert!(!card.managed());
    }
    assert_eq!(
        send(&mut card, 0x87, 3, 0x9b, &[0x7c, 2, 0x80, 0]),
        Err(0x6a80)
    );
}

#[test]
fn old_firmware_takes_3des_management_keys_only() {
    let mut card = card(Firmware::V5_2);
    manage(&mut card);
    let aes = [&[8, 0x9b, 16][..], &[1; 16]].concat();
    assert_eq!(send(&mut card, 0xff, 0xff, 0xff, &aes), Err(0x6a80));
    let short = [&[3, 0x9b, 16][..], &[1; 16]].concat();
    assert_eq!(send(&mut card, 0xff, 0xff, 0xff, &short), Err(0x6a80));
    assert_eq!(
        card.management.algorithm(),
        management::Algorithm::TripleDes
    );
}

#[test]
fn data_objects_are_kept_fetched_in_portions_and_deleted() {
    let mut card = card(Firmware::V5_7);
    let name = [0x5c, 3, 0x5f, 0xc1, 0x0a];
    let content: Vec<u8> = (0..3000_u16).map(|at| at as u8).collect();
    let put = |content: &[u8]| [&name[..], &encode(0x53, content)].concat();
    assert_eq!(
        send(&mut card, 0xdb, 0x3f, 0xff, &put(&content)),
        Err(0x6982)
    );
    manage(&mut card);
    assert_eq!(send(&mut card, 0xcb, 0x3f, 0xff, &name), Err(0x6a82));
    assert_eq!(
        send(&mut card, 0xdb, 0x3f, 0xff, &put(&content)),
        Ok(vec![])
    );
    let read = send(&mut card, 0xcb, 0x3f, 0xff, &name);
    assert_eq!(read, Ok(encode(0x53, &content)));
    // In one piece where the client takes it.
    let extended = [&[0, 0xcb, 0x3f, 0xff, 0, 0, 5][..], &name, &[0, 0]].concat();
    assert_eq!(card.transmit(&extended).len(), 3000 + 4 + 2);
    assert_eq!(
        send(&mut card, 0xdb, 0x3f, 0xff, &put(&[0; 3064])),
        Err(0x6a84)
    );
    card.set_capacity(3600);
    let other = [&[0x5c, 3, 0x5f, 0xc1, 5][..], &encode(0x53, &[0; 300])].concat();
    assert_eq!(
        send(&mut card, 0xdb, 0x3f, 0xff, &other),
        Err(0x6a84),
        "the card is full"
    );
    assert_eq!(send(&mut card, 0xdb, 0x3f, 0xff, &put(&[])), Ok(vec![]));
    assert_eq!(send(&mut card, 0xcb, 0x3f, 0xff, &name), Err(0x6a82));
    let discovery = send(&mut card, 0xcb, 0x3f, 0xff, &[0x5c, 1, 0x7e]);
    assert!(discovery.is_ok_and(|object| object.starts_with(&[0x7e, 0x12])));
}

#[test]
fn printed_information_is_for_those_who_know_the_pin() {
    let mut card = card(Firmware::V5_7);
    manage(&mut card);
    let name = [0x5c, 3, 0x5f, 0xc1, 9];
    let put = [&name[..], &[0x53, 1, 7]].concat();
    assert_eq!(send(&mut card, 0xdb, 0x3f, 0xff, &put), Ok(vec![]));
    assert_eq!(send(&mut card, 0xcb, 0x3f, 0xff, &name), Err(0x6982));
    verify(&mut card, PIN).expect("it is the PIN");
    assert_eq!(
        send(&mut card, 0xcb, 0x3f, 0xff, &name),
        Ok(vec![0x53, 1, 7])
    );
}

#[test]
fn the_factory_is_reached_once_pin_and_puk_are_blocked() {
    let mut card = card(Firmware::V5_4);
    manage(&mut card);
    generate(&mut card, 0x9a, 0x11, &[]).expect("it is allowed");
    assert_eq!(send(&mut card, 0xfb, 0, 0, &[]), Err(0x6985));
    for _ in 0..3 {
        let _ = verify(&mut card, WRONG);
        let _ = send(&mut card, 0x2c, 0, 0x80, &[*WRONG, [0xff; 8]].concat());
    }
    assert_eq!(send(&mut card, 0xfb, 0, 0, &[]), Ok(vec![]));
    assert_eq!(send(&mut card, 0xf7, 0, 0x9a, &[]), Err(0x6a88));
    assert!(
        send(&mut card, 0xf7, 0, 0xf9, &[]).is_ok(),
        "the attestation key stays"
    );
    verify(&mut card, PIN).expect("it is the factory's PIN");
}

#[test]
fn nonsense_is_refused_and_never_panics() {
    let mut card = card(Firmware::V5_7);
    verify(&mut card, PIN).expect("it is the PIN");
    manage(&mut card);
    generate(&mut card, 0x9a, 0x11, &[]).expect("it is allowed");
    assert_eq!(card.transmit(&[0x0c, 0x20, 0, 0x80]), [0x6e, 0]);
    assert_eq!(card.transmit(&[]), [0x67, 0]);
    // A linear congruential generator (Knuth's MMIX): the same nonsense every time.
    let mut state = 1_u64;
    let mut next = || {
        let step = state.wrapping_mul(6_364_136_223_846_793_005);
        state = step.wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let known = [
        0x20, 0x24, 0x2c, 0x47, 0x87, 0xa4, 0xc0, 0xcb, 0xdb, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb,
        0xfd, 0xfe, 0xff,
    ];
    for _ in 0..20_000 {
        let length = next() % 24;
        let ins = known[usize::from(next()) % known.len()];
        let mut command = vec![
            next() & 0x10,
            ins,
            next(),
            [0x80, 0x9a, 0x9b, 0xff][usize::from(next() % 4)],
        ];
        if length > 0 {
            command.push(length);
            command.extend((0..length).map(|_| match next() % 3 {
                0 => [0x7c, 0x5c, 0xac, 0x53, 0x80, 0x81, 0x82, 0x85][usize::from(next() % 8)],
                1 => next() % 8,
                _ => next(),
            }));
        }
        assert!(card.transmit(&command).len() >= 2);
        if ins == 0xa4 {
            let _ = card.transmit(SELECT);
        }
    }
}
