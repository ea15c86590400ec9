//! Change → the lines that a person is asked to approve.

use super::{Item, Summary, escape};
use crate::{
    base::VerifiedBase,
    document::{Delegation, Document, RoleKeys, Root, Snapshot, Tags, TargetRef, Targets},
    gun::Gun,
    key::{KeyId, PublicKey},
    role::RoleName,
    time::{Expiry, UnixTime, lifetime},
};

/// Lines of one kind before the rest is only counted.
const LINES: usize = 3;
/// Digits of a digest or key ID: what docker shows of an image.
const SHORT: usize = 12;
/// An expiry this near to the default is named, and no more is said of it.
const SLACK: UnixTime = 2 * 24 * 60 * 60;

/// Gives the label of a key.
type Label<'a> = &'a dyn Fn(&KeyId) -> Option<String>;

/// Puts the difference between base and payloads into words.
///
/// Known and claimed are told apart: without a base, or for a role that the base does not know,
/// lines say "claimed" and "compared with nothing". `label` gives the label of a key, if it has
/// one; it is asked with the ID that documents list and with the one that files are named by.
#[must_use]
pub fn summarise(
    gun: &Gun,
    base: Option<&VerifiedBase>,
    items: &[Item],
    now: UnixTime,
    label: &dyn Fn(&KeyId) -> Option<String>,
) -> Summary {
    let mut lines = Vec::new();
    for item in items {
        let words = Words {
            gun,
            base,
            item,
            now,
            label,
        };
        words.item(&mut lines);
    }
    Summary { lines }
}

struct Words<'a> {
    gun: &'a Gun,
    base: Option<&'a VerifiedBase>,
    item: &'a Item,
    now: UnixTime,
    label: Label<'a>,
}

impl Words<'_> {
    fn item(&self, lines: &mut Vec<String>) {
        let role = &self.item.role;
        let gun = escape(self.gun.as_str());
        let gun = if self.base.is_some() {
            gun
        } else {
            format!("{gun} (claimed)")
        };
        let is_known = self
            .base
            .and_then(|base| base.signers(role))
            .is_some_and(|signers| {
                let lists = |id: &KeyId| signers.keys.iter().any(|(listed, _)| listed == id);
                match role {
                    // Its own new keys sign it, too, beside the threshold of the current ones.
                    RoleName::Root => self.item.key_ids.iter().any(lists),
                    _ => self.item.key_ids.iter().all(lists),
                }
            });
        let role_words = if is_known {
            role.to_string()
        } else {
            format!("{role} (claimed)")
        };
        let document = match self.item.payload.document() {
            Ok(document) => document,
            Err(error) => {
                let (bytes, hash) = (self.item.payload.bytes(), self.item.payload.hash());
                let hash = short(&hash);
                lines.push(format!(
                    "{gun}: {role_words}: {} bytes that cannot be read, sha256:{hash}…",
                    bytes.len()
                ));
                lines.push(format!("  {}", escape(&error.to_string())));
                return;
            }
        };
        let version = document.version();
        let change = match self.base.and_then(|base| base.mark(role)) {
            Some((old, hash)) if old == version && hash == self.item.payload.hash() => {
                format!("v{version}, as it is published")
            }
            Some((old, _)) => format!("v{old} → v{version}"),
            None => format!("v{version}, compared with nothing"),
        };
        let until = day(document.expires());
        lines.push(format!("{gun}: {role_words} {change}, until {until}"));
        let before = lines.len();
        match document {
            Document::Root(root) => self.root(root, lines),
            Document::Targets(targets) => self.targets(targets, lines),
            Document::Snapshot(snapshot) => self.snapshot(snapshot, lines),
            Document::Timestamp(_) => {}
        }
        if lines.len() == before && self.base.is_some_and(|base| base.mark(role).is_some()) {
            lines.push("  nothing changes but version and expiry".to_owned());
        }
        self.expiry(document.expires(), lines);
    }

    fn expiry(&self, expires: &Expiry, lines: &mut Vec<String>) {
        let usual = match self.item.role {
            RoleName::Root => lifetime::ROOT,
            RoleName::Snapshot => lifetime::SNAPSHOT,
            _ => lifetime::TARGETS,
        };
        let left = expires.unix().saturating_sub(self.now);
        if left < 0 {
            lines.push(format!("  expired at {expires}"));
        } else if left.abs_diff(usual) > SLACK.unsigned_abs() {
            let days = left / (24 * 60 * 60);
            lines.push(format!("  expires at {expires}, in {days} days"));
        }
    }

    fn key(&self, id: &KeyId, key: Option<&PublicKey>) -> String {
        let canonical = key.and_then(|key| key.canonical_id().ok());
        let label = (self.label)(id).or_else(|| (self.label)(&canonical?));
        match label {
            Some(label) => format!("{} ({})", escape(&label), short(&id.0)),
            None => format!("key {}", short(&id.0)),
        }
    }

    // ---------------------------------------------------------------- root

    fn root(&self, root: &Root, lines: &mut Vec<String>) {
        let old = self.base.map(|base| base.root().doc());
        for (role, keys) in &root.roles {
            let before = old.and_then(|old| old.roles.get(role));
            let had = |id: &KeyId| before.is_some_and(|before| before.key_ids.contains(id));
            for id in keys.key_ids.iter().filter(|id| !had(id)) {
                lines.push(format!(
                    "  + {} for {role}",
                    self.key(id, root.keys.get(id))
                ));
            }
            let gone = before.iter().flat_map(|before| &before.key_ids);
            for id in gone.filter(|id| !keys.key_ids.contains(id)) {
                let key = old.and_then(|old| old.keys.get(id));
                lines.push(format!("  - {} for {role}", self.key(id, key)));
            }
            if let Some(before) = before.filter(|before| before.threshold != keys.threshold) {
                let (from, to) = (before.threshold, keys.threshold);
                lines.push(format!("  ~ {role} needs {to} signatures, not {from}"));
            } else if before.is_none() && keys.threshold != 1 {
                lines.push(format!("  {role} needs {} signatures", keys.threshold));
            }
        }
        if let Some(keys) = root.roles.get(&RoleName::Root) {
            lines.push(format!(
                "  the next root can be signed, until {}, by {}",
                day(&root.expires),
                self.signers(root, keys)
            ));
        }
    }

    fn signers(&self, root: &Root, keys: &RoleKeys) -> String {
        let names: Vec<String> = keys
            .key_ids
            .iter()
            .map(|id| self.key(id, root.keys.get(id)))
            .collect();
        match (names.len(), keys.threshold) {
            (0, _) => "nobody".to_owned(),
            (1, 1) => names.concat(),
            (_, threshold) => format!("{threshold} of {}", names.join(", ")),
        }
    }

    // ---------------------------------------------------------------- targets and delegations

    fn targets(&self, targets: &Targets, lines: &mut Vec<String>) {
        let empty = Tags::default();
        let base = self.base.and_then(|base| base.targets(&self.item.role));
        let old = base.map(|base| base.doc());
        let old_tags = old.map_or(&empty, |old| &old.targets);
        let (mut added, mut changed) = (Shown::new("added"), Shown::new("changed"));
        let mut removed = Shown::new("removed");
        for (tag, before, after) in old_tags.beside(&targets.targets) {
            match (before, after) {
                (Some(before), Some(target)) if before == target => {}
                (Some(before), Some(target)) => changed.push(|| {
                    format!(
                        "  ~ {} {} → {}",
                        escape(tag),
                        digest(before),
                        content(target)
                    )
                }),
                (None, Some(target)) => {
                    added.push(|| format!("  + {} {}", escape(tag), content(target)));
                }
                (Some(before), None) => {
                    removed.push(|| format!("  - {} was {}", escape(tag), digest(before)));
                }
                (None, None) => {}
            }
        }
        for list in [added, changed, removed] {
            list.into_lines(lines);
        }
        self.delegations(old, targets, lines);
    }

    fn delegations(&self, old: Option<&Targets>, new: &Targets, lines: &mut Vec<String>) {
        let entries = |targets: Option<&'_ Targets>| -> Vec<Delegation> {
            targets
                .and_then(|targets| targets.delegations.roles.clone())
                .unwrap_or_default()
        };
        let (before, after) = (entries(old), entries(Some(new)));
        for entry in &after {
            let keys = entry.key_ids.as_deref().unwrap_or_default();
            let key = |id: &KeyId| self.key(id, new.delegations.keys.get(id));
            let Some(known) = before.iter().find(|known| known.name == entry.name) else {
                let names: Vec<_> = keys.iter().map(key).collect();
                let names = if names.is_empty() {
                    "nobody".to_owned()
                } else {
                    names.join(", ")
                };
                lines.push(format!(
                    "  + {} may sign {}: {}{names}",
                    entry.name,
                    paths(&entry.paths),
                    threshold(entry.threshold)
                ));
                continue;
            };
            let old_keys = known.key_ids.as_deref().unwrap_or_default();
            let name = &entry.name;
            for id in keys.iter().filter(|id| !old_keys.contains(id)) {
                lines.push(format!("  + {} for {name}", key(id)));
            }
            for id in old_keys.iter().filter(|id| !keys.contains(id)) {
                let key = old.and_then(|old| old.delegations.keys.get(id));
                lines.push(format!("  - {} for {name}", self.key(id, key)));
            }
            if known.threshold != entry.threshold {
                let (from, to) = (known.threshold, entry.threshold);
                lines.push(format!("  ~ {name} needs {to} signatures, not {from}"));
            }
            if known.paths != entry.paths {
                lines.push(format!("  ~ {name} may sign {}", paths(&entry.paths)));
            }
        }
        for known in before
            .iter()
            .filter(|known| after.iter().all(|new| new.name != known.name))
        {
            lines.push(format!("  - {} may sign no more", known.name));
        }
    }

    // ---------------------------------------------------------------- snapshot

    fn snapshot(&self, snapshot: &Snapshot, lines: &mut Vec<String>) {
        let base = self.base.and_then(VerifiedBase::snapshot);
        let old = base.map(|base| &base.doc().meta);
        let mut list = Shown::new("listed or changed");
        for (role, meta) in &snapshot.meta {
            match old.and_then(|old| old.get(role)) {
                Some(known) if known == meta => {}
                Some(_) => list.push(|| format!("  ~ {role}")),
                None => list.push(|| format!("  + {role}")),
            }
        }
        list.into_lines(lines);
        let mut gone = Shown::new("no longer listed");
        for role in old.into_iter().flat_map(|old| old.keys()) {
            if !snapshot.meta.contains_key(role) {
                gone.push(|| format!("  - {role}"));
            }
        }
        gone.into_lines(lines);
    }
}

/// Lines of one kind: some, and how many more.
struct Shown {
    kind: &'static str,
    lines: Vec<String>,
    more: usize,
}

impl Shown {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            lines: Vec::new(),
            more: 0,
        }
    }

    /// The words are made only if they will be shown: there may be 50,000 of them.
    fn push(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < LINES {
            self.lines.push(line())
        } else {
            self.more += 1
        }
    }

    fn into_lines(self, lines: &mut Vec<String>) {
        lines.extend(self.lines);
        if self.more > 0 {
            lines.push(format!("  … and {} more {}", self.more, self.kind));
        }
    }
}

fn short(bytes: &[u8]) -> String {
    let mut digits = hex::encode(bytes);
    digits.truncate(SHORT);
    digits
}

fn digest(target: TargetRef<'_>) -> String {
    match target.hashes.get("sha256") {
        Some(sha256) => format!("sha256:{}…", short(sha256)),
        None => "no sha256".to_owned(),
    }
}

fn content(target: TargetRef<'_>) -> String {
    let custom = if target.custom.is_some() {
        ", custom data"
    } else {
        ""
    };
    format!("{} ({} bytes{custom})", digest(target), target.length)
}

fn paths(paths: &[String]) -> String {
    if paths.is_empty() {
        return "nothing".to_owned();
    }
    if paths.iter().any(String::is_empty) {
        return "every tag".to_owned();
    }
    let names: Vec<_> = paths
        .iter()
        .take(LINES)
        .map(|path| format!("{}*", escape(path)))
        .collect();
    match paths.len().checked_sub(LINES) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn threshold(threshold: u32) -> String {
    if threshold == 1 {
        String::new()
    } else {
        format!("{threshold} of ")
    }
}

fn day(expires: &Expiry) -> &str {
    let text = expires.as_str();
    text.split_once('T').map_or(text, |(day, _)| day)
}
