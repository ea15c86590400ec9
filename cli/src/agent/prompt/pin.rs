//! Secrets of a card: a PIN, a PUK, a management key; typed, or from a descriptor.
//!
//! Nothing goes to the card that cannot be right: a card counts what is wrong, and blocks. What an
//! accidental touch of the YubiKey types into the prompt is recognised and never sent.

use std::sync::Arc;

use signet_proto::v1::{self, NeedPin, answer::Answer as Given, need_pin::What, secret::Source};
use zeroize::Zeroizing;

use super::secret_of;
use crate::{
    Context,
    failure::Failure,
    secrets::{Held, cards::PIN_BYTES},
    ui::{
        Asked, blocking,
        card::{key, placed, tries},
        terminal::{self, Typed},
        text::{escape, short_id},
    },
};

/// PIN and PUK of a new card (Yubico, "YubiKey PIV: PIN, PUK, and management key").
const FACTORY: [&[u8]; 2] = [b"123456", b"12345678"];

/// Letters that a YubiKey types, the same on most keyboard layouts (Yubico, "Modified hexadecimal
/// encoding").
const MODHEX: &[u8] = b"cbdefghijklnrtuv";

/// Letters of a one-time password: 32, after an identity of up to 32 more (Yubico OTP).
const TOUCHED: std::ops::RangeInclusive<usize> = 32..=64;

/// Digits of a management key: AES-128, 3DES and AES-192, AES-256.
const MANAGEMENT_DIGITS: [usize; 3] = [32, 48, 64];

/// Answers a prompt for a card's secret.
///
/// # Errors
///
/// Exit 2 and 5: what a descriptor holds cannot be used.
pub(super) async fn answer(ctx: &mut Context, ask: &NeedPin) -> Result<Given, Failure> {
    if let Some((secret, source)) = ctx.secrets.next_pin(ask).await? {
        ctx.tell(&ask.summary);
        if ask.what() == What::NewPin {
            ctx.chosen_pin = Some(Arc::clone(&secret));
        }
        return Ok(secret_of(&secret, source));
    }
    let may_be_made = ask.what() == What::NewPuk && ctx.secrets.sets_up_card();
    if !ctx.ui.may_ask() {
        ctx.tell(&ask.summary);
        // It goes on the recovery sheet; nobody need have thought of it.
        return Ok(if may_be_made {
            secret_of(&made(ctx.chosen_pin.as_ref()), Source::Descriptor)
        } else {
            Given::Unavailable(v1::Unavailable {})
        });
    }
    let mut ask = ask.clone();
    if ctx.told == ask.summary {
        ask.summary.clear();
    } else {
        ctx.told.clone_from(&ask.summary);
    }
    let is_new_pin = ask.what() == What::NewPin;
    let chosen = ctx.chosen_pin.clone();
    let asked = blocking(move || typed(&ask, chosen.as_ref(), may_be_made)).await;
    Ok(match asked {
        Asked::Answer(secret) => {
            let answer = secret_of(&secret, Source::Typed);
            if is_new_pin {
                ctx.chosen_pin = Some(Arc::new(secret));
            }
            answer
        }
        Asked::Cancelled => Given::Cancelled(v1::Cancelled {}),
        Asked::NoTerminal => Given::Unavailable(v1::Unavailable {}),
    })
}

/// Asks the person; what is new, twice.
fn typed(ask: &NeedPin, chosen: Option<&Held>, may_be_made: bool) -> Asked<Typed> {
    let mut lines: Vec<String> = ask.summary.iter().map(|line| escape(line)).collect();
    if !ask.refused.is_empty() {
        lines.push(format!("{}.", escape(&ask.refused)));
    }
    if ask.tries_left == 1 && matches!(ask.what(), What::Pin | What::Puk) {
        lines.push("This is the last try: a wrong one blocks it.".into());
    }
    terminal::show(&lines);
    let line = line(ask, may_be_made);
    loop {
        let first = match terminal::secret(&line) {
            Asked::Answer(secret) => secret,
            other => return other,
        };
        if first.is_empty() && may_be_made {
            terminal::show(&["A PUK is made; it will be on the recovery sheet.".to_owned()]);
            return Asked::Answer(made(chosen));
        }
        if let Some(fault) = fault(ask.what(), &first, chosen) {
            terminal::show(&[fault.to_owned()]);
            continue;
        }
        if !matches!(ask.what(), What::NewPin | What::NewPuk) {
            return Asked::Answer(first);
        }
        match terminal::secret("The same once more: ") {
            Asked::Answer(second) if *second == *first => return Asked::Answer(first),
            Asked::Answer(second) if is_touch(&second) => {
                terminal::show(&[TOUCH.to_owned()]);
            }
            Asked::Answer(_) => {
                terminal::show(&["The two are not the same.".to_owned()]);
            }
            other => return other,
        }
    }
}

/// The question, in one line.
pub(crate) fn line(ask: &NeedPin, may_be_made: bool) -> String {
    let what = match ask.what() {
        What::Unspecified | What::Pin => "PIN of the",
        What::Puk => "PUK of the",
        What::NewPin => "New PIN for the",
        What::NewPuk => "New PUK for the",
        What::ManagementKey => "Management key (hexadecimal) of the",
    };
    let mut facts = vec![format!("{what} {}", placed(ask.card.as_ref()))];
    let mut used = key(&ask.role, &ask.label, &ask.gun);
    if used.is_empty() && !ask.key_id.is_empty() {
        used = format!("key {}", short_id(&ask.key_id));
    }
    facts.extend((!used.is_empty()).then_some(used));
    match ask.what() {
        What::NewPin => facts.push("6 to 8 characters".into()),
        What::NewPuk if may_be_made => {
            facts.push("6 to 8 characters (Enter: one is made)".into());
        }
        What::NewPuk => facts.push("6 to 8 characters".into()),
        _ => facts.extend(tries(ask.tries_left)),
    }
    format!("{}: ", facts.join(", "))
}

const TOUCH: &str =
    "That was the YubiKey's own touch, which typed a one-time password; nothing was sent.";

/// Whether this is what a touched YubiKey types.
fn is_touch(typed: &[u8]) -> bool {
    TOUCHED.contains(&typed.len())
        && typed
            .iter()
            .all(|letter| MODHEX.contains(&letter.to_ascii_lowercase()))
}

/// Why this is not sent to the card; nothing when it is.
pub(crate) fn fault(what: What, typed: &[u8], chosen: Option<&Held>) -> Option<&'static str> {
    if is_touch(typed) {
        return Some(TOUCH);
    }
    if what == What::ManagementKey {
        let is_key = MANAGEMENT_DIGITS.contains(&typed.len())
            && typed.iter().all(|digit| digit.is_ascii_hexdigit());
        return (!is_key).then_some("A management key is 32, 48 or 64 hexadecimal digits.");
    }
    let is_new = matches!(what, What::NewPin | What::NewPuk);
    let is_puk = matches!(what, What::Puk | What::NewPuk);
    if !PIN_BYTES.contains(&typed.len()) {
        return Some(if is_puk {
            "A PUK has 6 to 8 characters; nothing was sent."
        } else {
            "A PIN has 6 to 8 characters; nothing was sent."
        });
    }
    if !is_new {
        return None;
    }
    if !typed.iter().all(|byte| byte.is_ascii_graphic()) {
        return Some("Use letters, digits and signs that every keyboard has, and no spaces.");
    }
    if FACTORY.contains(&typed) {
        return Some("That is a factory value, which everybody knows.");
    }
    if is_puk && chosen.is_some_and(|pin| pin.as_slice() == typed) {
        return Some("The PUK must differ from the PIN: it is what helps when the PIN is lost.");
    }
    None
}

/// Eight random digits that are no factory value and not the PIN.
fn made(chosen: Option<&Held>) -> Typed {
    loop {
        let mut puk = Zeroizing::new(Vec::with_capacity(*PIN_BYTES.end()));
        while puk.len() < *PIN_BYTES.end() {
            let mut byte = Zeroizing::new([0; 1]);
            getrandom::fill(&mut *byte).expect("the kernel gives random bytes");
            // 250 is the largest multiple of 10 in a byte: every digit is as likely.
            if byte[0] < 250 {
                puk.push(b'0' + byte[0] % 10);
            }
        }
        if fault(What::NewPuk, &puk, chosen).is_none() {
            return puk;
        }
    }
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::CardName;

    use super::*;

    fn ask(what: What) -> NeedPin {
        NeedPin {
            what: what.into(),
            card: Some(CardName {
                serial: 12_345_678,
                label: "work".into(),
                slot: "9c".into(),
            }),
            tries_left: 3,
            role: "root".into(),
            gun: "docker.io/me/app".into(),
            ..NeedPin::default()
        }
    }

    #[test]
    fn a_prompt_names_card_slot_key_and_tries() {
        assert_eq!(
            line(&ask(What::Pin), false),
            "PIN of the YubiKey 'work' (serial 12345678), slot 9c, root key for docker.io/me/app, \
             3 tries left: "
        );
        let bare = NeedPin {
            what: What::NewPuk.into(),
            ..NeedPin::default()
        };
        assert_eq!(
            line(&bare, true),
            "New PUK for the YubiKey, 6 to 8 characters (Enter: one is made): "
        );
    }

    #[test]
    fn what_a_touch_types_is_never_sent() {
        let otp = b"ccccccjlfkhidbnkteghtrffjbbvjbevhcjvtcuvjgdk";
        for what in [What::Pin, What::Puk, What::NewPin, What::ManagementKey] {
            assert_eq!(fault(what, otp, None), Some(TOUCH), "{what:?}");
        }
        assert_eq!(
            fault(What::Pin, b"CCCCCCJLFKHIDBNKTEGHTRFFJBBVJBEV", None),
            Some(TOUCH)
        );
        // Eight such letters may be somebody's PIN.
        assert_eq!(fault(What::Pin, b"cccccccc", None), None);
        assert!(!is_touch(b"0123456789012345678901234567890123456789"));
    }

    #[test]
    fn a_new_pin_is_long_enough_typeable_and_nobody_elses() {
        for wrong in [
            &b"12345"[..],
            b"123456789",
            b"123456",
            b"12345678",
            b"p\xc3\xa4ssig",
            b"ab cdef",
            b"",
        ] {
            assert!(fault(What::NewPin, wrong, None).is_some(), "{wrong:?}");
        }
        assert_eq!(fault(What::NewPin, b"73!aBc", None), None);
        // An old one is the card's to judge, where its length can be right.
        assert_eq!(fault(What::Pin, b"123456", None), None);
        assert!(fault(What::Pin, b"12345", None).is_some());
    }

    #[test]
    fn the_puk_is_not_the_pin() {
        let pin: Held = Arc::new(Zeroizing::new(b"73!aBc".to_vec()));
        assert!(fault(What::NewPuk, b"73!aBc", Some(&pin)).is_some());
        assert_eq!(fault(What::NewPuk, b"73!aBd", Some(&pin)), None);
        let made = made(Some(&pin));
        assert!(made.len() == 8 && made.iter().all(u8::is_ascii_digit));
    }

    #[test]
    fn a_management_key_is_hexadecimal() {
        let key = "0102030405060708".repeat(3);
        assert_eq!(fault(What::ManagementKey, key.as_bytes(), None), None);
        for wrong in ["", "01", &key[1..], &key.replace('0', "x")] {
            assert!(fault(What::ManagementKey, wrong.as_bytes(), None).is_some());
        }
    }
}
