//! Which key a KEY argument means: an ID, a unique prefix, a label, or `role@GUN`.

use signet_proto::v1::KeyInfo;

use crate::{
    failure::{Failure, exit},
    ui::text::{escape, short_id},
};

/// Fewest digits of a prefix of an ID.
pub(crate) const MIN_PREFIX: usize = 7;

/// Finds the one key that `name` means. A root key answers to the IDs of its certificates too.
///
/// # Errors
///
/// Exit 2: `unknown_key`, or `ambiguous_key` with the candidates.
pub(crate) fn find<'a>(keys: &'a [KeyInfo], name: &str) -> Result<&'a KeyInfo, Failure> {
    // The kinds of names in order of how exact they are; the first kind that fits any key decides.
    let kinds: [&dyn Fn(&KeyInfo) -> bool; 4] = [
        &|key| ids(key).any(|id| id.eq_ignore_ascii_case(name)),
        &|key| !key.label.is_empty() && key.label == name,
        &|key| is_role(key, name),
        &|key| {
            let digits = name.to_ascii_lowercase();
            digits.len() >= MIN_PREFIX && ids(key).any(|id| id.starts_with(&digits))
        },
    ];
    for fits in kinds {
        let found: Vec<&KeyInfo> = keys.iter().filter(|key| fits(key)).collect();
        match found[..] {
            [] => {}
            [key] => return Ok(key),
            _ => {
                return Err(Failure::new(
                    exit::USAGE,
                    "ambiguous_key",
                    format!("{} may mean {} keys", escape(name), found.len()),
                )
                .candidates(found.into_iter().map(describe).collect())
                .fix("name one by its ID"));
            }
        }
    }
    let short = name.len() < MIN_PREFIX && name.chars().all(|c| c.is_ascii_hexdigit());
    let unknown = Failure::new(
        exit::USAGE,
        "unknown_key",
        format!("no key is called {}", escape(name)),
    );
    Err(unknown.fix(if short {
        "a prefix needs at least 7 digits; `signet key list` shows the keys"
    } else {
        "`signet key list` shows the keys"
    }))
}

/// One line that tells a key from others: ID, role, repository, label, store.
pub(crate) fn describe(key: &KeyInfo) -> String {
    let mut line = format!("{} {}", short_id(&key.key_id), escape(&key.role));
    if !key.gun.is_empty() {
        line = format!("{line} of {}", escape(&key.gun));
    }
    if !key.label.is_empty() {
        line = format!("{line}, {}", escape(&key.label));
    }
    format!("{line} ({})", key.store)
}

fn ids(key: &KeyInfo) -> impl Iterator<Item = &String> {
    std::iter::once(&key.key_id).chain(&key.other_ids)
}

fn is_role(key: &KeyInfo, name: &str) -> bool {
    match name.split_once('@') {
        Some((role, gun)) => {
            key.role == role && (key.gun == gun || key.used_by.iter().any(|used| used == gun))
        }
        None => name == "root" && key.role == "root",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, role: &str, gun: &str, label: &str) -> KeyInfo {
        KeyInfo {
            key_id: id.repeat(64 / id.len()),
            role: role.into(),
            gun: gun.into(),
            label: label.into(),
            store: "file".into(),
            ..KeyInfo::default()
        }
    }

    fn keys() -> Vec<KeyInfo> {
        let mut root = key("ab", "root", "", "main");
        root.other_ids = vec!["cd".repeat(32)];
        vec![
            root,
            key("12", "targets", "reg/a", ""),
            key("34", "targets", "reg/b", ""),
        ]
    }

    #[test]
    fn every_kind_of_name_finds_its_key() {
        let keys = keys();
        let (root, first) = (&keys[0], &keys[1]);
        for name in [
            "root",
            "main",
            "abababa",
            "cdcdcdc",
            "ABABABA",
            &"cd".repeat(32),
        ] {
            assert_eq!(find(&keys, name).unwrap(), root, "{name}");
        }
        for name in ["targets@reg/a", "1212121"] {
            assert_eq!(find(&keys, name).unwrap(), first, "{name}");
        }
    }

    #[test]
    fn an_ambiguous_name_lists_its_candidates() {
        let mut keys = keys();
        keys.push(key("ef", "root", "", "spare"));
        let failure = find(&keys, "root").unwrap_err();
        assert_eq!((failure.exit, failure.candidates.len()), (2, 2));
        assert_eq!(failure.candidates[1], "efefefefef root, spare (file)");
    }

    #[test]
    fn a_short_prefix_is_told_so() {
        let failure = find(&keys(), "121212").unwrap_err();
        assert_eq!(failure.exit, 2);
        assert!(failure.fix.as_deref().unwrap().contains("7 digits"));
    }
}
