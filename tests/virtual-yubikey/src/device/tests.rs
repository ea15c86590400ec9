use super::*;
use crate::control::obey;

const SELECT: &[u8] = &[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8];
const VERSION: &[u8] = &[0, 0xfd, 0, 0, 0];

fn device() -> Device {
    let device = Device::new(1001, Firmware::V5_4, Kind::YubiKey);
    assert!(matches!(device.exchange(SELECT), Outcome::Answer(_)));
    device.reset_stats();
    device
}

fn told(device: &Device, line: &str) {
    obey(device, line).unwrap_or_else(|err| panic!("{line}: {err}"));
}

fn answered(device: &Device, command: &[u8]) -> Vec<u8> {
    match device.exchange(command) {
        Outcome::Answer(answer) => answer,
        Outcome::Vanished => panic!("the card is gone"),
    }
}

#[test]
fn faults_come_in_order_for_their_instruction_only() {
    let device = device();
    told(&device, "fault fd 6f00 2");
    told(&device, "garbage fd ffff");
    told(&device, "raw fd -");
    assert_eq!(answered(&device, SELECT).len(), 21);
    for expected in [
        &[0x6f, 0][..],
        &[0x6f, 0],
        &[0xff, 0xff, 0x90, 0],
        &[],
        &[5, 4, 3, 0x90, 0],
    ] {
        assert_eq!(answered(&device, VERSION), expected);
    }
    told(&device, "fault fd 6f00 9");
    told(&device, "heal");
    assert_eq!(answered(&device, VERSION), [5, 4, 3, 0x90, 0]);
}

#[test]
fn a_card_told_to_vanish_is_gone_until_it_is_plugged_in() {
    let device = device();
    told(&device, "drop fd");
    assert_eq!(device.exchange(VERSION), Outcome::Vanished);
    assert!(!device.present());
    told(&device, "insert");
    assert_eq!(answered(&device, VERSION), [5, 4, 3, 0x90, 0]);
}

#[test]
fn stats_count_commands_and_tell_of_the_card() {
    let device = device();
    let _ = answered(&device, &[0, 0x20, 0, 0x80, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let _ = answered(&device, VERSION);
    device.reset();
    let stats = device.stats();
    assert_eq!(stats["ins"], json!({"20": 1, "FD": 1}));
    assert_eq!(stats["sequence"], json!(["00200080 63c2", "00fd0000 9000"]));
    assert_eq!(
        (&stats["exchanges"], &stats["resets"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&stats["pin_tries"], &stats["puk_tries"]),
        (&json!(2), &json!(3))
    );
    told(&device, "stats-reset");
    assert_eq!(device.stats()["exchanges"], json!(0));
}

#[test]
fn a_card_swapped_out_comes_back_as_it_was() {
    let device = device();
    assert!(obey(&device, "swap 7").is_err(), "it is still plugged in");
    let _ = answered(&device, &[0, 0x20, 0, 0x80, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    told(&device, "remove");
    told(&device, "swap 7 4.3.7");
    told(&device, "insert");
    let stats = device.stats();
    assert_eq!(
        (&stats["serial"], &stats["firmware"]),
        (&json!(7), &json!("4.3.7"))
    );
    assert_eq!(stats["pin_tries"], json!(3));
    told(&device, "remove");
    told(&device, "swap 1001");
    assert_eq!(device.stats()["pin_tries"], json!(2));
}

#[test]
fn a_line_that_is_no_command_is_refused_with_a_reason() {
    let device = device();
    for line in [
        "",
        "jump",
        "fault xx 6f00",
        "fault 20 6f",
        "delay soon",
        "swap",
        "touch",
    ] {
        assert!(obey(&device, line).is_err(), "{line}");
    }
}
