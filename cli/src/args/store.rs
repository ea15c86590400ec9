//! STORE, and the parts of it that stand alone: where a key goes.

use std::{ops::RangeInclusive, str::FromStr};

/// Slots of a YubiKey that sign, beside the retired ones: authentication, signature, key
/// management, card authentication (SP 800-73-4 part 1, table 4b).
const SLOTS: [u8; 4] = [0x9a, 0x9c, 0x9d, 0x9e];

/// Retired key management slots, all of which may sign on a YubiKey (SP 800-73-4 part 1,
/// table 4b).
const RETIRED: RangeInclusive<u8> = 0x82..=0x95;

/// Longest serial in digits: 32 bits.
const MAX_DIGITS: usize = 10;

/// A STORE that this release has, as it goes on the wire.
pub(super) fn parse_store(text: &str) -> Result<String, String> {
    match text {
        "file" | "docker" | "piv" => return Ok(text.to_owned()),
        _ => {}
    }
    if let Some(place) = text.strip_prefix("piv:") {
        let Some((serial, slot)) = place.split_once(':') else {
            return Ok(format!("piv:{}", parse_serial(place)?));
        };
        let serial = parse_serial(serial)?;
        return Ok(match slot {
            // The next free one is what the agent takes where none is named.
            "auto" => format!("piv:{serial}"),
            slot => format!("piv:{serial}:{}", parse_slot(slot)?),
        });
    }
    if text.starts_with("pkcs11") {
        return Err("PKCS#11 tokens are not in this release".into());
    }
    Err(
        "a store is file (the keyring), docker (Docker's own directory), or a YubiKey: piv, \
         piv:SERIAL or piv:SERIAL:SLOT"
            .into(),
    )
}

/// Whether a STORE is on a card.
pub(crate) fn is_card(store: &str) -> bool {
    store == "piv" || store.starts_with("piv:")
}

/// Whether a STORE names the very slot, which holds one key.
pub(crate) fn names_slot(store: &str) -> bool {
    is_card(store) && store.matches(':').count() == 2
}

/// A card's serial, as it is printed on it.
pub(crate) fn parse_serial(text: &str) -> Result<u32, String> {
    let digits = text.len() <= MAX_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(serial) if digits && serial > 0 => Ok(serial),
        _ => Err(format!(
            "{text:?} is no serial; `signet card list` shows the serials, as they are printed on \
             the cards"
        )),
    }
}

/// A slot, in the two digits that `ykman` uses too.
pub(super) fn parse_slot(text: &str) -> Result<String, String> {
    let slot = (text.len() == 2)
        .then(|| u8::from_str_radix(text, 16).ok())
        .flatten()
        .filter(|slot| SLOTS.contains(slot) || RETIRED.contains(slot));
    match slot {
        Some(slot) => Ok(format!("{slot:02x}")),
        None => Err(format!(
            "{text:?} is no slot that signs; these do: 9a, 9c, 9d, 9e, and 82 to 95"
        )),
    }
}

/// `[SERIAL:]N`: a descriptor whose first line is a PIN, and the card that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinFd {
    /// The card; `None`: the only one that the command needs.
    pub(crate) serial: Option<u32>,
    /// The descriptor.
    pub(crate) fd: i32,
}

impl FromStr for PinFd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (serial, number) = match text.split_once(':') {
            Some((serial, number)) => (Some(parse_serial(serial)?), number),
            None => (None, text),
        };
        match number.parse::<i32>() {
            Ok(fd) if fd >= 0 => Ok(Self { serial, fd }),
            _ => Err(format!("{number:?} is no descriptor number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_as_it_is_meant() {
        for (text, store) in [
            ("file", "file"),
            ("docker", "docker"),
            ("piv", "piv"),
            ("piv:12345678", "piv:12345678"),
            ("piv:012", "piv:12"),
            ("piv:1:9C", "piv:1:9c"),
            ("piv:4294967295:95", "piv:4294967295:95"),
            ("piv:1:auto", "piv:1"),
        ] {
            assert_eq!(parse_store(text).as_deref(), Ok(store), "{text}");
        }
        for wrong in [
            "",
            "tape",
            "piv:",
            "piv:x",
            "piv:0",
            "piv:-1",
            "piv:+1",
            "piv:4294967296",
            "piv:1:",
            "piv:1:9b",
            "piv:1:f9",
            "piv:1:96",
            "piv:1:81",
            "piv:1:9",
            "piv:1:9c:",
            "piv:1:+9",
            "piv9c",
            "pkcs11:x",
        ] {
            assert!(parse_store(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_named_slot_holds_one_key() {
        assert!(names_slot("piv:1:9c"));
        for store in ["piv", "piv:1", "file"] {
            assert!(!names_slot(store), "{store}");
        }
    }

    #[test]
    fn a_pin_may_say_which_card_it_is_for() {
        let spec = |text: &str| text.parse::<PinFd>();
        assert_eq!(
            spec("3"),
            Ok(PinFd {
                serial: None,
                fd: 3
            })
        );
        assert_eq!(
            spec("12345678:4"),
            Ok(PinFd {
                serial: Some(12_345_678),
                fd: 4
            })
        );
        for wrong in ["", ":3", "x:3", "0:3", "1:x", "1:-1", "1:2:3", "piv:3"] {
            assert!(spec(wrong).is_err(), "{wrong}");
        }
    }
}
