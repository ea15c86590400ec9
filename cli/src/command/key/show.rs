//! `signet key list`, `show`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signet_proto::v1::{KeyInfo, KeyOnCard, PublicKey};

use crate::{
    Context,
    agent::find::find,
    failure::Failure,
    ui::{
        card::placed,
        text::{columns, escape, local_time, rfc3339, short_id},
    },
};

/// Prints every key.
pub(crate) async fn list(ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let reply = agent.list_keys(ctx.docker_dir()).await?;
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({
            "v": 1,
            "keys": reply.keys.iter().map(to_json).collect::<Vec<_>>(),
            "problems": reply.problems,
        }));
        return Ok(());
    }
    for line in table(&reply.keys) {
        ctx.ui.data(line);
    }
    if reply.keys.is_empty() {
        ctx.ui
            .say("no keys; the first `signet push` makes them, `signet key import` takes them in");
    }
    for problem in problems(&reply.keys, &reply.problems) {
        ctx.ui.warn(escape(&problem));
    }
    Ok(())
}

/// Prints one key with all that is known of it.
pub(crate) async fn one(name: &str, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let reply = agent.list_keys(ctx.docker_dir()).await?;
    let key = find(&reply.keys, name)?;
    if ctx.ui.is_json() {
        ctx.ui.json(&versioned(to_json(key)));
        return Ok(());
    }
    let mut rows = Vec::new();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), escape(value)]);
        }
    };
    row("key", &key.key_id);
    for id in &key.other_ids {
        row("certificate", id);
    }
    row("role", &key.role);
    row("repository", &key.gun);
    row("label", &key.label);
    if key.label_claimed {
        row("", "as a backup calls it; `signet key label` confirms it");
    }
    row("store", &key.store);
    row("algorithm", &key.algorithm);
    row("state", &key.state);
    if key.enrolled_at != 0 {
        row("enrolled", &local_time(key.enrolled_at));
    }
    row("file", &key.path);
    if !key.encrypted && !key.path.is_empty() {
        row("encrypted", "no: whoever can read the file has the key");
    }
    for place in &key.cards {
        row("card", &on_card(place));
        row("attestation", &place.attestation);
    }
    for gun in &key.used_by {
        row("signs", gun);
    }
    if key.used_opaque {
        row("opaque", "it has signed what could not be read");
    }
    row("problem", &key.problem);
    for line in columns(&rows) {
        ctx.ui.data(line);
    }
    if let Some(pem) = key.public.as_ref().and_then(public_pem) {
        ctx.ui.data(pem.trim_end());
    }
    Ok(())
}

/// Where a key lies on cards, one line each.
pub(crate) fn places(key: &KeyInfo) -> Vec<String> {
    key.cards
        .iter()
        .flat_map(|place| {
            let attested = (!place.attestation.is_empty())
                .then(|| format!("attestation: {}", place.attestation));
            std::iter::once(on_card(place)).chain(attested)
        })
        .map(|line| escape(&line))
        .collect()
}

/// A place on a card: which card and slot, and how the key lies there.
fn on_card(place: &KeyOnCard) -> String {
    let mut facts = vec![placed(place.card.as_ref())];
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            facts.push(format!("{name}{value}"));
        }
    };
    fact("", &place.origin);
    fact("PIN ", &place.pin_policy);
    fact("touch ", &place.touch_policy);
    fact("firmware ", &place.firmware);
    if !place.present {
        facts.push("not plugged in".into());
    }
    facts.join(", ")
}

/// The slots of cards that hold a key, short: `12345678:9c 23456789:9c`.
fn store_cell(key: &KeyInfo) -> String {
    if key.cards.is_empty() {
        return key.store.clone();
    }
    let places: Vec<String> = key
        .cards
        .iter()
        .filter_map(|place| place.card.as_ref())
        .map(|card| format!("{}:{}", card.serial, card.slot))
        .collect();
    format!("{} {}", key.store, places.join(" "))
}

/// The keys, one a line below a head; nothing for no keys.
pub(crate) fn table(keys: &[KeyInfo]) -> Vec<String> {
    if keys.is_empty() {
        return Vec::new();
    }
    let head = [
        "KEY",
        "ROLE",
        "REPOSITORY",
        "STORE",
        "ALGORITHM",
        "STATE",
        "LABEL",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            escape(text)
        }
    };
    for key in keys {
        rows.push(vec![
            short_id(&key.key_id).to_owned(),
            or_dash(&key.role),
            or_dash(&key.gun),
            or_dash(&store_cell(key)),
            or_dash(&key.algorithm),
            or_dash(&key.state),
            match key.label_claimed {
                true => format!("{} (from a backup)", escape(&key.label)),
                false => escape(&key.label),
            },
        ]);
    }
    columns(&rows)
}

/// What is wrong with keys and stores, one line each.
pub(crate) fn problems(keys: &[KeyInfo], stores: &[String]) -> Vec<String> {
    let of_keys = keys.iter().filter(|key| !key.problem.is_empty());
    of_keys
        .map(|key| format!("key {}: {}", short_id(&key.key_id), key.problem))
        .chain(stores.iter().cloned())
        .collect()
}

/// A key as scripts see it.
pub(crate) fn to_json(key: &KeyInfo) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": key.key_id,
        "other_ids": key.other_ids,
        "role": text(&key.role),
        "gun": text(&key.gun),
        "label": text(&key.label),
        "label_claimed": key.label_claimed,
        "store": key.store,
        "algorithm": text(&key.algorithm),
        "state": key.state,
        "enrolled": rfc3339(key.enrolled_at),
        "encrypted": key.encrypted,
        "path": text(&key.path),
        "problem": text(&key.problem),
        "used_opaque": key.used_opaque,
        "used_by": key.used_by,
        "cards": key.cards.iter().map(|place| {
            let card = place.card.clone().unwrap_or_default();
            json!({
                "serial": card.serial,
                "label": text(&card.label),
                "slot": card.slot,
                "present": place.present,
                "pin_policy": text(&place.pin_policy),
                "touch_policy": text(&place.touch_policy),
                "origin": text(&place.origin),
                "attestation": text(&place.attestation),
                "firmware": text(&place.firmware),
            })
        }).collect::<Vec<_>>(),
        "public": key.public.as_ref().map(|public| json!({
            "type": public.key_type,
            "pem": public_pem(public),
        })),
    })
}

/// A key as the one object of a command.
pub(crate) fn versioned(mut key: Value) -> Value {
    key["v"] = 1.into();
    key
}

/// SubjectPublicKeyInfo of an Ed25519 key, up to the key itself (RFC 8410, section 4).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// `PUBLIC KEY` PEM, or the certificate's own.
fn public_pem(public: &PublicKey) -> Option<String> {
    let spki = match public.key_type.as_str() {
        "ecdsa" | "rsa" => public.public.clone(),
        "ed25519" => [&ED25519_SPKI[..], &public.public].concat(),
        "ecdsa-x509" | "rsa-x509" => return String::from_utf8(public.public.clone()).ok(),
        // A kind that a later agent knows.
        _ => return None,
    };
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in STANDARD.encode(spki).as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    Some(pem)
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::CardName;

    use super::*;

    fn key() -> KeyInfo {
        KeyInfo {
            key_id: "ab".repeat(32),
            role: "targets".into(),
            gun: "reg/app".into(),
            store: "file".into(),
            algorithm: "p256".into(),
            state: "enrolled".into(),
            ..KeyInfo::default()
        }
    }

    #[test]
    fn a_table_has_a_head_and_dashes_for_what_is_unknown() {
        let odd = KeyInfo {
            key_id: "cd".repeat(32),
            label: "x\x1b".into(),
            ..KeyInfo::default()
        };
        let table = table(&[key(), odd]);
        assert_eq!(
            table[1],
            "ababababab  targets  reg/app     file   p256       enrolled"
        );
        assert!(
            table[2].starts_with("cdcdcdcdcd  -") && table[2].ends_with("x\\u{1b}"),
            "{table:?}"
        );
    }

    #[test]
    fn a_key_on_two_cards_shows_both_places() {
        let place = |serial, present| KeyOnCard {
            card: Some(CardName {
                serial,
                label: "work".into(),
                slot: "9c".into(),
            }),
            present,
            pin_policy: "once".into(),
            touch_policy: "always".into(),
            origin: "generated".into(),
            attestation: "verified: made on YubiKey 5.7.1".into(),
            firmware: "5.7.1".into(),
        };
        let key = KeyInfo {
            store: "piv".into(),
            cards: vec![place(7, true), place(8, false)],
            ..key()
        };
        assert!(table(std::slice::from_ref(&key))[1].contains("piv 7:9c 8:9c"));
        let places = places(&key);
        assert_eq!(
            places[0],
            "YubiKey 'work' (serial 7), slot 9c, generated, PIN once, touch always, firmware 5.7.1"
        );
        assert!(places[1].starts_with("attestation: verified"));
        assert!(places[2].ends_with("not plugged in"));
        crate::schema::assert_fits("signet key show", &versioned(to_json(&key)));
    }

    #[test]
    fn json_has_null_for_what_is_unknown() {
        let json = to_json(&key());
        let list = json!({ "v": 1, "keys": [json.clone()], "problems": [] });
        crate::schema::assert_fits("signet key list", &list);
        crate::schema::assert_fits("signet key show", &versioned(json.clone()));
        assert_eq!(json["label"], Value::Null);
        assert_eq!(json["enrolled"], Value::Null);
        assert_eq!(json["role"], "targets");
    }
}
