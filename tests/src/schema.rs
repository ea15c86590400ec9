//! The schemas of `docs/json.md`, and whether an output fits them.
//!
//! Only the subset of JSON Schema that the page names is known; any other word in a schema is an
//! error, so that nothing there is silently ignored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Every schema of the page, by its heading: `signet status`, `Errors`.
#[derive(Debug)]
pub struct Schemas {
    shared: Value,
    sections: BTreeMap<String, Value>,
}

impl Schemas {
    /// Reads the page.
    ///
    /// # Panics
    /// When it is not there, or a block on it is no JSON.
    #[must_use]
    pub fn of_the_docs() -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
        let text = fs::read_to_string(page).expect("docs/json.md is there");
        let mut sections = BTreeMap::new();
        for section in text.split("\n## ").skip(1) {
            let heading = section.lines().next().unwrap_or_default();
            let block = section.split("```json\n").nth(1);
            let block = block.and_then(|rest| rest.split("\n```").next());
            let block = block.unwrap_or_else(|| panic!("no schema below {heading:?}"));
            let before = match serde_json::from_str(block) {
                Ok(schema) => sections.insert(heading.to_owned(), schema),
                Err(err) => panic!("the schema below {heading:?} is no JSON: {err}"),
            };
            assert_eq!(before, None, "{heading:?} is there twice");
        }
        let shared = sections.remove("Shared").expect("the shared definitions");
        Self { shared, sections }
    }

    /// The headings.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// What is wrong with a value, one line each; nothing when it fits.
    ///
    /// # Panics
    /// When there is no such schema.
    #[must_use]
    pub fn faults(&self, name: &str, value: &Value) -> Vec<String> {
        let schema = self.sections.get(name);
        let schema = schema.unwrap_or_else(|| panic!("docs/json.md has no section {name:?}"));
        let mut faults = Vec::new();
        self.check(schema, value, name, &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let words = schema.as_object().expect("a schema is an object");
        for (word, wanted) in words {
            let fits = match word.as_str() {
                "$ref" => {
                    let pointer = wanted.as_str().expect("a reference is text");
                    let pointer = pointer.trim_start_matches('#');
                    let target = self.shared.pointer(pointer);
                    let target = target.unwrap_or_else(|| panic!("no {pointer} to refer to"));
                    self.check(target, value, at, faults);
                    true
                }
                "type" => any(wanted, |one| is(value, one)),
                "const" => value == wanted,
                "enum" => any(wanted, |one| value == one),
                "pattern" => value
                    .as_str()
                    .is_none_or(|text| matches(wanted.as_str().expect("a pattern is text"), text)),
                "required" => {
                    let members = value.as_object();
                    let missing = |name: &Value| {
                        !members.is_some_and(|all| {
                            name.as_str().is_some_and(|name| all.contains_key(name))
                        })
                    };
                    let names = wanted.as_array().expect("a list of names");
                    members.is_none() || !names.iter().any(missing)
                }
                "properties" => {
                    let wanted = wanted.as_object().expect("schemas by name");
                    self.members(wanted, value, at, faults);
                    true
                }
                "additionalProperties" => {
                    // Names that are data: nothing there is declared by name.
                    for (name, member) in value.as_object().into_iter().flatten() {
                        self.check(wanted, member, &format!("{at}.{name}"), faults);
                    }
                    true
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}[{number}]"), faults);
                    }
                    true
                }
                other => panic!("{at}: {other:?} is not in the subset"),
            };
            if !fits {
                faults.push(format!("{at}: {word} is {wanted}, found {value}"));
            }
        }
    }

    fn members(
        &self,
        wanted: &Map<String, Value>,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        for (name, member) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match wanted.get(name) {
                Some(schema) => self.check(schema, member, &at, faults),
                // Members may be added, but not without being written down.
                None => faults.push(format!("{at} is not in docs/json.md")),
            }
        }
    }
}

fn any(wanted: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    match wanted.as_array() {
        Some(list) => list.iter().any(fits),
        None => fits(wanted),
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => panic!("{kind} is not in the subset"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let regex = regex::Regex::new(pattern);
    regex
        .unwrap_or_else(|err| panic!("{pattern:?} is no pattern: {err}"))
        .is_match(text)
}
