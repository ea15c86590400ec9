//! How cards look as text.

use signet_proto::v1::CardName;

use super::text::escape;

/// A card as a person knows it: `YubiKey 'work' (serial 12345678)`.
pub(crate) fn named(card: Option<&CardName>) -> String {
    let Some(card) = card else {
        return "YubiKey".into();
    };
    match (card.label.is_empty(), card.serial) {
        (true, 0) => "YubiKey".into(),
        (true, serial) => format!("YubiKey (serial {serial})"),
        (false, serial) => format!("YubiKey '{}' (serial {serial})", escape(&card.label)),
    }
}

/// A card and its slot: `YubiKey (serial 12345678), slot 9c`.
pub(crate) fn placed(card: Option<&CardName>) -> String {
    let slot = card.map_or("", |card| &card.slot);
    if slot.is_empty() {
        named(card)
    } else {
        format!("{}, slot {}", named(card), escape(slot))
    }
}

/// A key in words: `root key 'main' for docker.io/me/app`; nothing for none.
pub(crate) fn key(role: &str, label: &str, gun: &str) -> String {
    let mut text = String::new();
    if !role.is_empty() {
        text = format!("{} key", escape(role));
    }
    if !label.is_empty() {
        let label = escape(label);
        text = if text.is_empty() {
            format!("key '{label}'")
        } else {
            format!("{text} '{label}'")
        };
    }
    if !gun.is_empty() {
        text = if text.is_empty() {
            escape(gun)
        } else {
            format!("{text} for {}", escape(gun))
        };
    }
    text
}

/// Tries before a PIN or PUK is blocked; nothing where they are not known.
pub(crate) fn tries(left: u32) -> Option<String> {
    match left {
        0 => None,
        1 => Some("the last try".into()),
        left => Some(format!("{left} tries left")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_named_by_label_and_serial() {
        let mut card = CardName {
            serial: 7,
            label: "work\x1b[2J".into(),
            slot: "9c".into(),
        };
        assert_eq!(
            placed(Some(&card)),
            "YubiKey 'work\\u{1b}[2J' (serial 7), slot 9c"
        );
        card.label.clear();
        assert_eq!(named(Some(&card)), "YubiKey (serial 7)");
        assert_eq!(named(None), "YubiKey");
    }

    #[test]
    fn a_key_is_named_by_what_is_known_of_it() {
        assert_eq!(
            key("root", "main", "reg/app"),
            "root key 'main' for reg/app"
        );
        assert_eq!(key("", "main", ""), "key 'main'");
        assert_eq!(key("", "", ""), "");
    }
}
