//! Rules as they are written in `agent.toml`. What is not understood is an error, never ignored.

use std::path::PathBuf;

use toml::{Table, Value};

use super::{DAY, Hours, Kind, MIN_PREFIX, Pattern, Policy, Rule, TOUCH, Verdict};

/// More rules than anybody can oversee.
const MAX_RULES: usize = 256;
const MEMBERS: [&str; 14] = [
    "check",
    "confirm",
    "do",
    "exe",
    "grade",
    "guns",
    "hours",
    "keys",
    "max_expiry",
    "name",
    "payloads",
    "per_day",
    "roles",
    "unit",
];

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPolicy(String);

impl Policy {
    /// Reads `[[policy]]` of `agent.toml`.
    ///
    /// # Errors
    ///
    /// [`BadPolicy`], naming the rule and the member.
    pub fn read(value: &Value) -> Result<Self, BadPolicy> {
        let all = value.as_array().ok_or_else(|| {
            BadPolicy("policy is a list of rules, each under [[policy]]".to_owned())
        })?;
        if all.len() > MAX_RULES {
            return Err(BadPolicy(format!("there are more than {MAX_RULES} rules")));
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(all.len());
        for (number, rule) in all.iter().enumerate() {
            let rule = rule
                .as_table()
                .ok_or_else(|| BadPolicy("a rule is a table".to_owned()))
                .and_then(|table| read(table, number + 1))?;
            if rules.iter().any(|other| other.name == rule.name) {
                let name = &rule.name;
                return Err(BadPolicy(format!("two rules have the name {name:?}")));
            }
            rules.push(rule);
        }
        Ok(Self { rules })
    }
}

fn read(table: &Table, number: usize) -> Result<Rule, BadPolicy> {
    let named = table.get("name").and_then(Value::as_str);
    let name = named.map_or_else(|| format!("rule {number}"), str::to_owned);
    let mut rule = Rule {
        name: name.clone(),
        ..Rule::default()
    };
    let mut said = false;
    for (key, value) in table {
        let wrong = |expected: &str| {
            BadPolicy(format!(
                "policy rule {name:?}: {key} = {value} does not fit: it is {expected}"
            ))
        };
        let texts = || {
            let texts = value.as_array()?.iter();
            let texts: Option<Vec<String>> =
                texts.map(|text| text.as_str().map(str::to_owned)).collect();
            texts.filter(|texts| !texts.is_empty())
        };
        match key.as_str() {
            "name" => {
                named
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| wrong("a text"))?;
            }
            "guns" => rule.guns = patterns(texts().ok_or_else(|| wrong(LIST))?),
            "roles" => rule.roles = patterns(texts().ok_or_else(|| wrong(LIST))?),
            "keys" => {
                rule.keys = texts().ok_or_else(|| wrong("a list of labels or IDs"))?;
                let short = |key: &String| {
                    key.len() < MIN_PREFIX && key.bytes().all(|byte| byte.is_ascii_hexdigit())
                };
                if rule.keys.iter().any(short) {
                    return Err(wrong("a list of labels, or IDs of at least 7 digits"));
                }
            }
            "payloads" => {
                let kinds = texts().ok_or_else(|| wrong(KINDS))?;
                let kinds: Option<Vec<Kind>> =
                    kinds.iter().map(|kind| Kind::from_name(kind)).collect();
                rule.payloads = kinds.ok_or_else(|| wrong(KINDS))?;
            }
            "exe" => {
                let paths = texts().ok_or_else(|| wrong("a list of absolute paths"))?;
                rule.exes = paths.into_iter().map(PathBuf::from).collect();
                if !rule.exes.iter().all(|path| path.is_absolute()) {
                    return Err(wrong("a list of absolute paths"));
                }
            }
            "unit" => rule.units = texts().ok_or_else(|| wrong("a list of systemd units"))?,
            "hours" => {
                let hours = value.as_str().and_then(hours);
                rule.hours = Some(hours.ok_or_else(|| wrong("as \"08:00-18:00\", in UTC"))?);
            }
            "do" => {
                said = true;
                rule.verdict = match value.as_str() {
                    Some("allow") => Verdict::Allow,
                    Some("ask") => Verdict::Ask,
                    Some("deny") => Verdict::Deny,
                    _ => return Err(wrong("\"allow\", \"ask\" or \"deny\"")),
                };
            }
            "grade" => {
                let grade = value
                    .as_integer()
                    .and_then(|grade| u32::try_from(grade).ok());
                rule.grade = grade
                    .filter(|grade| (1..=TOUCH).contains(grade))
                    .ok_or_else(|| wrong("1 to 4"))?;
            }
            "confirm" => {
                rule.confirm = value.as_bool().ok_or_else(|| wrong("true or false"))?;
            }
            "check" => {
                let program = |command: &Vec<String>| {
                    command
                        .first()
                        .is_some_and(|program| program.starts_with('/'))
                };
                let command = texts().filter(program);
                rule.check = command
                    .ok_or_else(|| wrong("a command: an absolute path and its arguments"))?;
            }
            "max_expiry" => {
                let days = value.as_str().and_then(days);
                rule.max_expiry = Some(days.ok_or_else(|| wrong("days, as \"400d\""))?);
            }
            "per_day" => {
                let most = value.as_integer().and_then(|most| u64::try_from(most).ok());
                rule.per_day = Some(most.ok_or_else(|| wrong("a number"))?);
            }
            _ => {
                return Err(BadPolicy(format!(
                    "policy rule {name:?} has no member {key:?}; there are {}",
                    MEMBERS.join(", ")
                )));
            }
        }
    }
    if !said {
        return Err(BadPolicy(format!(
            "policy rule {name:?} does not say what to do: do = \"allow\", \"ask\" or \"deny\""
        )));
    }
    Ok(rule)
}

const LIST: &str = "a list of texts, in which * stands for any characters";
const KINDS: &str = "a list of root, targets, snapshot, timestamp, opaque";

fn patterns(texts: Vec<String>) -> Vec<Pattern> {
    texts.into_iter().map(Pattern).collect()
}

/// `08:00-18:00`; 24:00 is the day's end.
fn hours(text: &str) -> Option<Hours> {
    let (from, until) = text.split_once('-')?;
    let minute = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let two = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten()
        };
        let (hour, minute) = (two(hour)?, two(minute)?);
        let minutes = hour * 60 + minute;
        (minute < 60 && minutes <= DAY / 60).then_some(minutes)
    };
    let hours = Hours {
        from: minute(from)?,
        until: minute(until)?,
    };
    (hours.from != hours.until).then_some(hours)
}

/// `400d`, in seconds.
fn days(text: &str) -> Option<i64> {
    let days = text.strip_suffix('d')?;
    let digits = !days.is_empty() && days.len() <= 5 && days.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| days.parse::<i64>().ok())
        .flatten()?
        .checked_mul(DAY)
}
