//! What a server with the snapshot key accepts and nobody can read afterwards.
//!
//! notary-server hashes its own re-serialisation of an upload and serves the uploaded bytes: what
//! is not byte for byte what Go would write is answered with 200 and leaves the repository
//! unreadable. Each row of the table was seen to do so. Here each of them is published by somebody
//! else, and what our writer makes of it is again what Go writes; and no document whatever is
//! written otherwise.
#![allow(clippy::unwrap_used, reason = "a fault of the setup is a failed test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use signet_trust::{
    KeyId, KeyType, Method, PublicKey, RoleName, Signature,
    document::{Body, Delegation, Delegations, FileMeta, Hashes, Target, Targets, to_wire},
    edit::Edit,
    json::{self, Value},
    time::Expiry,
    update::Cached,
};

#[path = "support/world.rs"]
mod world;

use world::{NOW, World, target};

enum Flaw {
    /// In what is signed.
    Signed(&'static str, &'static str),
    /// In the file around it: the whole file is rewritten.
    File(fn(&str) -> String),
}

const ROWS: [(&str, Flaw); 16] = [
    (
        "pretty print",
        Flaw::File(|wire| wire.replace(",\"", ",\n  \"").replace(":{", ": {")),
    ),
    (
        "other member order",
        Flaw::Signed(
            "\"_type\":\"Targets\",\"delegations\":{\"keys\":{",
            "\"delegations\":{\"keys\":{",
        ),
    ),
    (
        "signatures first",
        Flaw::File(|wire| {
            let (signed, signatures) = wire.split_once(",\"signatures\":").unwrap();
            let signatures = signatures.strip_suffix('}').unwrap();
            format!("{{\"signatures\":{signatures},{}}}", &signed[1..])
        }),
    ),
    ("trailing newline", Flaw::File(|wire| format!("{wire}\n"))),
    (
        "extra member in a signature",
        Flaw::File(|wire| wire.replace("\"sig\":", "\"x\":1,\"sig\":")),
    ),
    (
        "extra member in the file",
        Flaw::File(|wire| wire.replace(",\"signatures\"", ",\"x\":1,\"signatures\"")),
    ),
    (
        "extra member in signed",
        Flaw::Signed("\"version\":", "\"x\":1,\"version\":"),
    ),
    (
        "upper-case method",
        Flaw::File(|wire| wire.replace("\"ecdsa\",\"sig\"", "\"ECDSA\",\"sig\"")),
    ),
    (
        "raw ampersand",
        Flaw::File(|wire| wire.replace("\\u0026", "&")),
    ),
    (
        "fraction with a trailing zero",
        Flaw::Signed("00Z\",\"targets\"", "00.120Z\",\"targets\""),
    ),
    (
        "fraction of zeros",
        Flaw::Signed("00Z\",\"targets\"", "00.000Z\",\"targets\""),
    ),
    (
        "zone +00:00",
        Flaw::Signed("00Z\",\"targets\"", "00+00:00\",\"targets\""),
    ),
    ("delegations absent", Flaw::Signed("<delegations>", "")),
    (
        "keys null",
        Flaw::Signed(
            "\"delegations\":{\"keys\":{}",
            "\"delegations\":{\"keys\":null",
        ),
    ),
    (
        "explicit empty paths",
        Flaw::Signed(
            "\"name\":\"targets/a\",",
            "\"name\":\"targets/a\",\"paths\":[],",
        ),
    ),
    (
        "key without private",
        Flaw::Signed("\"private\":null,\"public\"", "\"public\""),
    ),
];

/// Whether Go would write these bytes for what they say: the members of every object in rising
/// order, nothing left out, strings as `encoding/json` has them.
fn is_go_s(wire: &[u8]) -> bool {
    let Ok(file) = json::parse(wire) else {
        return false;
    };
    let Some(signed) = file.get("signed") else {
        return false;
    };
    let mut out = String::from("{\"signed\":");
    go_value(signed, &mut out);
    out.push_str(",\"signatures\":[");
    let Some(Value::Array(signatures)) = file.get("signatures") else {
        return false;
    };
    for (index, signature) in signatures.iter().enumerate() {
        out.push_str(if index > 0 { ",{" } else { "{" });
        for (index, name) in ["keyid", "method", "sig"].into_iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            go_string(name, &mut out);
            out.push(':');
            let Some(Value::String(text)) = signature.get(name) else {
                return false;
            };
            // Its readers fold the case, so that what it writes is lower case.
            let text = if name == "method" {
                text.to_lowercase()
            } else {
                text.to_string()
            };
            go_string(&text, &mut out);
        }
        out.push('}');
    }
    out.push_str("]}");
    out.as_bytes() == wire && go_structs(signed)
}

fn go_value(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(&flag.to_string()),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::String(text) => go_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                go_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&[u8], _> = members
                .iter()
                .map(|(name, value)| (name.as_bytes(), (name, value)))
                .collect();
            out.push('{');
            for (index, (name, value)) in sorted.values().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                go_string(name, out);
                out.push(':');
                go_value(value, out);
            }
            out.push('}');
        }
    }
}

/// Canonical escapes, then those for HTML.
fn go_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// What the Go structs have and leave out, as far as the table goes.
fn go_structs(signed: &Value<'_>) -> bool {
    let members = |value: &Value<'_>| match value {
        Value::Object(members) => members.iter().map(|(name, _)| name.to_string()).collect(),
        _ => Vec::new(),
    };
    let Some(Value::String(expires)) = signed.get("expires") else {
        return false;
    };
    let (fraction, utc) = (
        expires.contains(".1") || expires.contains(".0"),
        expires.ends_with('Z'),
    );
    if (fraction && expires.ends_with("0Z")) || (!utc && expires.ends_with("00:00")) {
        return false;
    }
    let Some(delegations) = signed.get("delegations") else {
        return false;
    };
    if members(signed) != ["_type", "delegations", "expires", "targets", "version"]
        || members(delegations) != ["keys", "roles"]
    {
        return false;
    }
    let Some(Value::Object(keys)) = delegations.get("keys") else {
        return false;
    };
    let roles = match delegations.get("roles") {
        Some(Value::Array(roles)) => &roles[..],
        _ => &[],
    };
    keys.iter().all(|(_, key)| {
        let halves = key.get("keyval").map(members);
        members(key) == ["keytype", "keyval"]
            && halves.is_some_and(|halves| halves == ["private", "public"])
    }) && roles
        .iter()
        .all(|role| role.get("paths") != Some(&Value::Array(Vec::new())))
}

#[test]
fn the_model_agrees_with_what_go_wrote() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/documents");
    for name in [
        "delegations-rootrotation/targets",
        "delegations-rootrotation/targets/bob",
        "docker-trust/targets",
        "publish-local-ed25519/targets-name-ampersand",
        "publish-local-ed25519/targets-name-u2028",
        "publish-remote-signer/v1/targets",
    ] {
        let wire = std::fs::read(format!("{directory}/{name}.json")).unwrap();
        assert!(is_go_s(&wire), "{name}");
    }
}

#[test]
fn no_row_of_the_table_comes_from_our_writer() {
    for (name, flaw) in ROWS {
        let mut world = World::new();
        // A document in which every row can show.
        let mut top = world.targets(&RoleName::Targets);
        top.version += 1;
        top.targets.insert("a&b".to_owned(), target(1));
        if !name.contains("keys null") && !name.contains("delegations absent") {
            let key = world.ours.bare();
            top.delegations.keys.insert(key.id(), key.clone());
            top.delegations.roles = Some(vec![Delegation {
                key_ids: Some(vec![key.id()]),
                name: "targets/a".parse().unwrap(),
                paths: Vec::new(),
                threshold: 1,
            }]);
        }
        let id = world.root().roles[&RoleName::Targets].key_ids[0];
        let plain = world.ours.wire(&top, &[id]);
        assert!(is_go_s(&plain), "{name}");

        let flawed = match flaw {
            Flaw::File(rewrite) => rewrite(std::str::from_utf8(&plain).unwrap()).into_bytes(),
            Flaw::Signed(from, to) => {
                let from = match from {
                    "<delegations>" => "\"delegations\":{\"keys\":{},\"roles\":[]},",
                    other => other,
                };
                let signed = String::from_utf8(top.canonical()).unwrap();
                let mut other = signed.replace(from, to);
                if name == "other member order" {
                    other = other.replace("\"version\":2}", "\"version\":2,\"_type\":\"Targets\"}");
                }
                assert_ne!(other, signed, "{name}");
                let canonical = json::parse(other.as_bytes()).unwrap().canonical();
                let signature = world.ours.sign(&id, &canonical);
                to_wire(other.as_bytes(), &[signature])
            }
        };
        assert!(!is_go_s(&flawed), "{name}");
        world.upload(BTreeMap::from([(RoleName::Targets, flawed.clone())]));

        // A server without the snapshot key would have let it stand, and we would read it.
        match world.update(Cached::default()) {
            Err(error) => assert_eq!(name, "extra member in signed", "{error}"),
            Ok(trusted) => {
                assert_eq!(trusted.top().wire(), flawed);
                let mut edit = Edit::of(&trusted, NOW);
                edit.add(&RoleName::Targets, "next", target(2)).unwrap();
                let ours = world.sign(edit).remove(&RoleName::Targets).unwrap();
                assert!(is_go_s(&ours), "{name}: {}", String::from_utf8_lossy(&ours));
                let text = String::from_utf8(ours).unwrap();
                assert!(text.contains("\"a\\u0026b\"") && text.contains("\"method\":\"ecdsa\""));
                assert!(!text.contains(char::is_whitespace));
            }
        }
    }
}

/// Text that may stand in a document: everything but control characters.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\"\\\\<>&/a\u{7f}\u{2027}-\u{202a}é\u{fffd}\u{1f600}]{0,12}",
        any::<String>().prop_map(|text| text.chars().filter(|c| !c.is_control()).collect()),
    ]
}

fn hashes() -> impl Strategy<Value = Hashes> {
    prop::collection::btree_map(text(), prop::collection::vec(any::<u8>(), 0..80), 0..3)
        .prop_map(Hashes::from)
}

fn custom() -> impl Strategy<Value = Option<String>> {
    let plain = prop_oneof![
        Just("null"),
        Just("{\"a\":[1,true,null],\"b\":\"c\"}"),
        Just("[]")
    ];
    prop::option::of(plain.prop_map(str::to_owned))
}

fn any_target() -> impl Strategy<Value = Target> {
    (custom(), hashes(), 0..=1_u64 << 53).prop_map(|(custom, hashes, length)| Target {
        custom,
        hashes,
        length,
    })
}

fn key() -> impl Strategy<Value = PublicKey> {
    let types = prop::sample::select(vec![
        KeyType::Ecdsa,
        KeyType::EcdsaX509,
        KeyType::Ed25519,
        KeyType::Rsa,
        KeyType::RsaX509,
    ]);
    (types, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(key_type, public)| PublicKey::new(key_type, public))
}

fn delegations() -> impl Strategy<Value = Delegations> {
    let role = (
        prop::option::of(prop::collection::vec(
            any::<[u8; 32]>().prop_map(KeyId),
            0..3,
        )),
        prop::collection::vec(text(), 0..3),
        1..=0x7fff_ffff_u32,
    );
    let roles = prop::collection::btree_map("targets(/[-a-z0-9_]{1,5}){1,2}", role, 0..4);
    (prop::collection::vec(key(), 0..3), prop::option::of(roles)).prop_map(|(keys, roles)| {
        let named = |(name, (key_ids, paths, threshold)): (String, (_, _, _))| Delegation {
            key_ids,
            name: name.parse().unwrap(),
            paths,
            threshold,
        };
        Delegations {
            keys: keys.into_iter().map(|key| (key.id(), key)).collect(),
            roles: roles.map(|roles| roles.into_iter().map(named).collect()),
        }
    })
}

fn any_targets() -> impl Strategy<Value = Targets> {
    (
        delegations(),
        -62_167_219_200..=253_402_207_200_i64,
        prop::collection::btree_map(text(), any_target(), 0..6),
        1..=0x7fff_ffff_u32,
    )
        .prop_map(|(delegations, expires, targets, version)| Targets {
            delegations,
            expires: Expiry::at(expires),
            targets: targets.into(),
            version,
        })
}

fn signatures() -> impl Strategy<Value = Vec<Signature>> {
    let methods = prop::sample::select(vec![Method::Ecdsa, Method::Eddsa, Method::RsaPss]);
    let signature = (
        any::<[u8; 32]>(),
        methods,
        prop::collection::vec(any::<u8>(), 0..70),
    );
    prop::collection::vec(
        signature.prop_map(|(id, method, bytes)| Signature {
            key_id: KeyId(id),
            method,
            bytes,
        }),
        0..3,
    )
}

proptest! {
    #[test]
    fn whatever_we_write_is_what_go_would_write(
        document in any_targets(),
        signatures in signatures(),
    ) {
        let wire = to_wire(&document.canonical(), &signatures);
        prop_assert!(is_go_s(&wire), "{}", String::from_utf8_lossy(&wire));
        let read = signet_trust::verify::Raw::<Targets>::parse(wire, usize::MAX).unwrap();
        prop_assert_eq!(read.claimed(), &document);
        prop_assert_eq!(read.signatures(), &signatures[..]);
        prop_assert_eq!(read.canonical(), document.canonical());
    }

    #[test]
    fn a_hash_or_length_that_differs_is_no_match(
        wire in prop::collection::vec(any::<u8>(), 0..64),
        other in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let meta = FileMeta::of(&wire);
        prop_assert!(signet_trust::verify::matches(&meta, &wire));
        prop_assert_eq!(signet_trust::verify::matches(&meta, &other), wire == other);
        let longer = FileMeta { length: meta.length + 1, ..meta };
        prop_assert!(!signet_trust::verify::matches(&longer, &wire));
    }
}
