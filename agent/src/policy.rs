//! What the owner of the keys allows, beyond what the guard refuses anyway.
//!
//! Rules stand in `agent.toml`, in order; the first one that fits a document decides, and where
//! none does, the defaults do. [`decide`] is pure and total: it is shown every fact, asks nothing
//! and looks at no clock, so `signet policy explain` and a request get the same answer.
//!
//! ```toml
//! [[policy]]
//! name = "releases by day"
//! guns = ["reg.corp/app/*"]       # * stands for any characters
//! roles = ["targets", "targets/*"]
//! keys = ["release", "3f2a91c"]   # labels, or the beginning of IDs
//! payloads = ["targets"]          # root targets snapshot timestamp opaque
//! exe = ["/usr/bin/signet"]       # the caller's program, or
//! unit = ["runner.service"]       # its unit
//! hours = "08:00-18:00"           # UTC
//! do = "allow"                    # allow, ask or deny
//! grade = 3                       # what the person's answer has to be worth
//! confirm = true                  # a yes on top of it
//! max_expiry = "400d"
//! per_day = 20                    # signatures within 24 hours
//! check = ["/usr/bin/scan"]       # run before tags are signed; `keyring/check.rs`
//! ```
//!
//! A rule can only add to what the defaults ask: root keys, overrides and opaque payloads need a
//! secret given for the request or a touch, whatever a rule says, and a rule that rests on the
//! caller's program or unit, which prevents accidents only, never decides those.

use std::path::{Path, PathBuf};

mod read;

pub use read::BadPolicy;

/// Grade of a yes by somebody who attends.
const ATTENDED: u32 = 2;
/// Grade of a secret given for the request.
const GIVEN: u32 = 3;
/// Grade of a touch: the best there is.
const TOUCH: u32 = 4;
const DAY: i64 = 24 * 60 * 60;

/// All rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// One rule: what it is about, and what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    name: String,
    guns: Vec<Pattern>,
    roles: Vec<Pattern>,
    keys: Vec<String>,
    payloads: Vec<Kind>,
    exes: Vec<PathBuf>,
    units: Vec<String>,
    hours: Option<Hours>,
    verdict: Verdict,
    grade: u32,
    confirm: bool,
    /// Seconds.
    max_expiry: Option<i64>,
    per_day: Option<u64>,
    check: Vec<String>,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody need be asked.
    #[default]
    Allow,
    /// Somebody has to answer for this request.
    Ask,
    /// Refused.
    Deny,
}

/// What kind of document a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Root.
    Root,
    /// Targets, delegations included.
    Targets,
    /// Snapshot.
    Snapshot,
    /// Timestamp.
    Timestamp,
    /// Not a document that the agent reads.
    Opaque,
}

impl Kind {
    /// As rules name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Opaque => "opaque",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Root,
            Self::Targets,
            Self::Snapshot,
            Self::Timestamp,
            Self::Opaque,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }
}

/// A text in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        fits(&self.0, text)
    }
}

/// Whether a pattern, in which `*` stands for any characters, fits a text. Greedy parts between the
/// stars: linear, whatever the text.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        match text.find(part) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Minutes of the day in UTC, from and until; the second may lie before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hours {
    from: i64,
    until: i64,
}

impl Hours {
    fn hold(self, now: i64) -> bool {
        let minute = now.rem_euclid(DAY) / 60;
        match self.from <= self.until {
            true => (self.from..self.until).contains(&minute),
            false => !(self.until..self.from).contains(&minute),
        }
    }
}

/// One document that is to be signed, by one key, for one caller.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whose collection.
    pub gun: &'a str,
    /// Whose document.
    pub role: &'a str,
    /// Of the key, in hex.
    pub key: &'a str,
    /// Of the key; empty if none.
    pub label: &'a str,
    /// What is to be signed.
    pub payload: Kind,
    /// When the document expires, in Unix seconds; `None` if it does not say.
    pub expires: Option<i64>,
    /// The caller's program, if the kernel tells it.
    pub exe: Option<&'a Path>,
    /// The caller's control group, if it is known.
    pub cgroup: Option<&'a str>,
    /// Exe and cgroup are of the process that connected.
    pub confirmed: bool,
    /// An override is in force.
    pub overrides: bool,
    /// Signatures by this key within the last 24 hours.
    pub signed_today: u64,
    /// Unix seconds.
    pub now: i64,
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule that decided; `None`: the defaults did.
    pub rule: Option<String>,
    /// What it says.
    pub verdict: Verdict,
    /// What the person's answer has to be worth; 0: a held secret is enough.
    pub grade: u32,
    /// A yes is wanted on top of it.
    pub confirm: bool,
    /// A command, program and arguments, that has to agree; none if empty.
    pub check: Vec<String>,
    /// In words.
    pub why: String,
}

impl Policy {
    /// The commands that rules name.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &[String]> {
        let named = self.rules.iter().map(|rule| &rule.check[..]);
        named.filter(|check| !check.is_empty())
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule counts signatures.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.rules.iter().any(|rule| rule.per_day.is_some())
    }
}

impl Rule {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        let among = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text))
        };
        let key = |name: &String| {
            name == asked.label || (name.len() >= MIN_PREFIX && asked.key.starts_with(name))
        };
        among(&self.guns, asked.gun)
            && among(&self.roles, asked.role)
            && (self.keys.is_empty() || self.keys.iter().any(key))
            && (self.payloads.is_empty() || self.payloads.contains(&asked.payload))
            && self.hours.is_none_or(|hours| hours.hold(asked.now))
            && self.fits_caller(asked)
    }

    fn rests_on_caller(&self) -> bool {
        !self.exes.is_empty() || !self.units.is_empty()
    }

    fn fits_caller(&self, asked: &Asked<'_>) -> bool {
        if !self.rests_on_caller() {
            return true;
        }
        // A denial holds on suspicion, anything else only for whom the kernel vouches for.
        if !asked.confirmed && self.verdict != Verdict::Deny {
            return false;
        }
        if self.verdict == Verdict::Allow && is_grave(asked) {
            return false;
        }
        let exe = |exe: &PathBuf| asked.exe == Some(exe.as_path());
        let unit = |unit: &String| {
            let mut parts = asked.cgroup.unwrap_or_default().split('/');
            parts.any(|part| part == unit)
        };
        (self.exes.is_empty() || self.exes.iter().any(exe))
            && (self.units.is_empty() || self.units.iter().any(unit))
    }

    fn decide(&self, asked: &Asked<'_>) -> Decision {
        let named = |verdict, why: String| Decision {
            rule: Some(self.name.clone()),
            verdict,
            grade: 0,
            confirm: false,
            check: Vec::new(),
            why,
        };
        if self.verdict == Verdict::Deny {
            return named(Verdict::Deny, format!("the rule {:?} denies it", self.name));
        }
        if let (Some(most), Some(expires)) = (self.max_expiry, asked.expires)
            && expires.saturating_sub(asked.now) > most
        {
            let why = format!(
                "it expires in {} days, and the rule {:?} allows {}",
                expires.saturating_sub(asked.now) / DAY,
                self.name,
                most / DAY
            );
            return named(Verdict::Deny, why);
        }
        if let Some(most) = self.per_day
            && asked.signed_today >= most
        {
            let why = format!(
                "the key has made {} signatures within 24 hours, and the rule {:?} allows {most}",
                asked.signed_today, self.name
            );
            return named(Verdict::Deny, why);
        }
        let least = match self.verdict {
            Verdict::Ask => self.grade.max(ATTENDED),
            _ => self.grade,
        };
        let grade = least.max(default_grade(asked));
        Decision {
            grade,
            confirm: self.confirm,
            check: self.check.clone(),
            ..named(
                self.verdict,
                format!("the rule {:?} decides; {}", self.name, wanted(grade)),
            )
        }
    }
}

/// As keys are named everywhere.
const MIN_PREFIX: usize = 7;

/// Which rule decides, and what is to be done.
#[must_use]
pub fn decide(policy: &Policy, asked: &Asked<'_>) -> Decision {
    match policy.rules.iter().find(|rule| rule.fits(asked)) {
        Some(rule) => rule.decide(asked),
        None => {
            let grade = default_grade(asked);
            Decision {
                rule: None,
                verdict: Verdict::Allow,
                grade,
                confirm: false,
                check: Vec::new(),
                why: format!("no rule is about it; {}", wanted(grade)),
            }
        }
    }
}

/// What no rule that rests on the caller decides, and what always needs an answer.
fn is_grave(asked: &Asked<'_>) -> bool {
    asked.overrides || asked.payload == Kind::Opaque || asked.role == "root"
}

fn default_grade(asked: &Asked<'_>) -> u32 {
    if is_grave(asked) { GIVEN } else { 0 }
}

fn wanted(grade: u32) -> &'static str {
    match grade {
        0 => "an unlocked key is enough",
        1 => "a yes is wanted",
        ATTENDED => "a yes on an attending terminal is wanted, or a secret given for this request",
        GIVEN => "a secret given for this request is wanted, or a touch",
        _ => "a touch is wanted",
    }
}

#[cfg(test)]
mod tests;
