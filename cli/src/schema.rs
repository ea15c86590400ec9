//! `docs/json.md` as a test sees it: each section's schema, and whether an object fits it.

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/json.md");

/// The schemas, each below its heading.
fn sections() -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    let mut heading = "";
    let mut rest = DOCUMENT;
    while let Some((line, tail)) = rest.split_once('\n') {
        rest = tail;
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        } else if line == "```json" {
            let (block, tail) = rest.split_once("\n```").expect("a block ends");
            rest = tail;
            let schema = serde_json::from_str(block)
                .unwrap_or_else(|error| panic!("the schema of {heading}: {error}"));
            found.push((heading, schema));
        }
    }
    found
}

/// Fails where `value` is not what the section says, naming the place.
pub(crate) fn assert_fits(section: &str, value: &Value) {
    let sections = sections();
    let of = |name: &str| {
        let found = sections.iter().find(|(heading, _)| *heading == name);
        &found
            .unwrap_or_else(|| panic!("docs/json.md has no section {name}"))
            .1
    };
    check(of(section), value, &of("Shared")["$defs"], section);
}

fn check(schema: &Value, value: &Value, shared: &Value, at: &str) {
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$ref" => {
                let name = wanted
                    .as_str()
                    .and_then(|path| path.strip_prefix("#/$defs/"));
                let name = name.expect("references are to the shared block");
                check(&shared[name], value, shared, at);
            }
            "const" => assert_eq!(value, wanted, "{at}"),
            "enum" => assert!(wanted.as_array().unwrap().contains(value), "{at}: {value}"),
            "type" => assert!(is_type(wanted, value), "{at}: {value} is not {wanted}"),
            "pattern" => {
                if let Some(text) = value.as_str() {
                    assert!(matches(wanted.as_str().unwrap(), text), "{at}: {text}");
                }
            }
            "required" => {
                for name in wanted.as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    assert!(
                        value.is_null() || value.get(name).is_some(),
                        "{at}: no {name}"
                    );
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(wanted, item, shared, &format!("{at}[{index}]"));
                }
            }
            // Names that are data: nothing there is declared by name.
            "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    check(wanted, member, shared, &format!("{at}.{name}"));
                }
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let schema = wanted.get(name);
                    let schema = schema.unwrap_or_else(|| panic!("{at}: {name} is not documented"));
                    check(schema, member, shared, &format!("{at}.{name}"));
                }
            }
            other => panic!("{at}: the schema uses {other}"),
        }
    }
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Array(several) => several.iter().any(|one| is_type(one, value)),
        one => match one.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("no type {other}"),
        },
    }
}

/// The three patterns that the document uses.
fn matches(pattern: &str, text: &str) -> bool {
    let hex =
        |text: &str| text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
    match pattern {
        "^[0-9a-f]{64}$" => hex(text),
        "^sha256:[0-9a-f]{64}$" => text.strip_prefix("sha256:").is_some_and(hex),
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$" => {
            text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
        }
        other => panic!("no pattern {other}"),
    }
}

#[test]
fn every_section_is_a_schema() {
    let sections = sections();
    assert!(sections.len() > 10, "{}", sections.len());
    for (heading, schema) in sections {
        assert!(schema.is_object(), "{heading}");
    }
}
