use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    String::from_utf8(parse(text.as_bytes()).unwrap().canonical()).unwrap()
}

#[test]
fn members_are_sorted_by_bytes_and_space_is_dropped() {
    assert_eq!(
        canonical(" {\"b\": [1, -2 ,{}], \"a\" : \"x\", \"\u{ffff}\":null,\"\u{10000}\":true }\n"),
        "{\"a\":\"x\",\"b\":[1,-2,{}],\"\u{ffff}\":null,\"\u{10000}\":true}"
    );
}

#[test]
fn only_quote_and_backslash_are_escaped_in_what_is_signed() {
    assert_eq!(
        canonical(r#""\"\\\/\n\u0001<>&\u2028\ud83d\ude00é""#),
        "\"\\\"\\\\/\n\u{1}<>&\u{2028}\u{1f600}é\""
    );
}

#[test]
fn the_wire_has_five_more_escapes() {
    assert_eq!(
        wire("\"a<b>&\u{2028}\u{2029}\u{2027}é\\\"\"".as_bytes()),
        "\"a\\u003cb\\u003e\\u0026\\u2028\\u2029\u{2027}é\\\"\"".as_bytes()
    );
    assert_eq!(wire(b"\xe2\x80"), b"\xe2\x80");
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "tru",
        "{",
        "[1",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "1 2",
        "01",
        "-",
        "-0",
        "1.0",
        "1e3",
        "1E3",
        "9007199254740993",
        "-9007199254740993",
        "99999999999999999999999",
        "\"\u{1}\"",
        "\"a",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "{\"a\":1,\"a\":1}",
        "{\"b\":1,\"a\":1,\"b\":2}",
        "{\"a\":1,\"\\u0061\":1}",
        "\u{feff}1",
        "NaN",
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(parse(b"\"\xff\"").is_err());
    assert!(parse(b"9007199254740992").is_ok());
}

#[test]
fn nesting_ends_at_sixty_four_levels() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(parse(nested(64).as_bytes()).is_ok());
    assert!(parse(nested(65).as_bytes()).is_err());
    assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn a_file_of_nothing_but_tiny_values_is_refused() {
    let dense = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    assert!(parse(dense(65_536).as_bytes()).is_ok());
    assert!(parse(dense(1_000_000).as_bytes()).is_err());
}

#[test]
fn a_fault_is_named_with_its_place() {
    let error = parse(b"{\"a\": tru}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "not valid JSON at byte 6: no value starts like this"
    );
}

/// Any value that the parser could have produced.
pub(crate) fn any_value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::Int),
        any::<String>().prop_map(|text| Value::String(text.into())),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..8).prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.into(), v)).collect())
            }),
        ]
    })
}

/// Another spelling of the same value: members reversed, everything escaped, space everywhere.
fn spelled_otherwise(value: &Value<'_>, out: &mut String) {
    let string = |text: &str, out: &mut String| {
        out.push('"');
        for unit in text.encode_utf16() {
            out.push_str(&format!("\\u{unit:04X}"));
        }
        out.push('"');
    };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(&flag.to_string()),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(" ,\n");
                }
                spelled_otherwise(item, out);
            }
            out.push_str("\t]");
        }
        Value::Object(members) => {
            out.push_str("{\r\n");
            for (index, (name, value)) in members.iter().rev().enumerate() {
                if index > 0 {
                    out.push_str(" , ");
                }
                string(name, out);
                out.push_str(" : ");
                spelled_otherwise(value, out);
            }
            out.push_str(" }");
        }
    }
}

proptest! {
    #[test]
    fn canonical_bytes_do_not_depend_on_the_spelling(value in any_value()) {
        let mut other = String::new();
        spelled_otherwise(&value, &mut other);
        prop_assert_eq!(parse(other.as_bytes()).unwrap().canonical(), value.canonical());
    }

    #[test]
    fn wire_bytes_read_back_to_the_same_canonical_bytes(value in any_value()) {
        // Raw control characters are valid in what is signed and not in JSON: no writer of ours
        // lets them into a document.
        let canonical = value.canonical();
        prop_assume!(canonical.iter().all(|byte| *byte >= 0x20));
        let wire = wire(&canonical);
        prop_assert_eq!(parse(&wire).unwrap().canonical(), canonical);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }
}
