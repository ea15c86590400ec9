//! Which keys a new collection gets (`IMAGE` of the contract), and which keys are at hand.

use std::collections::HashSet;

use signet_proto::v1::{Creation, KeyChoice, KeyInfo, NewKey};
use signet_trust::{Gun, KeyId};

use crate::{
    args::{NewKeysArgs, store::names_slot},
    failure::Failure,
    ui::{
        Ui,
        text::{escape, short_id},
    },
};

/// Canonical IDs of the keys that the agent can sign with.
pub(crate) fn held(keys: &[KeyInfo]) -> HashSet<KeyId> {
    keys.iter()
        .filter(|key| matches!(key.state.as_str(), "enrolled" | "new"))
        .filter_map(|key| key.key_id.parse().ok())
        .collect()
}

/// The first of these keys that lies here, and was moved to another host.
pub(crate) fn moved_away<'a>(keys: &'a [KeyInfo], needed: &[KeyId]) -> Option<&'a KeyInfo> {
    let mut retired = keys.iter().filter(|key| key.state == "retired");
    retired.find(|key| {
        key.key_id
            .parse()
            .is_ok_and(|id: KeyId| needed.contains(&id))
    })
}

/// The root key of a new collection: the one named, else a question, else the only one.
///
/// # Errors
///
/// Exit 2: the name fits none or several, or nobody may be asked which of several.
pub(crate) async fn root(
    keys: &[KeyInfo],
    args: &NewKeysArgs,
    ui: &Ui,
) -> Result<KeyChoice, Failure> {
    if let Some(name) = &args.root {
        return find_root(keys, name).map(|key| existing(&key.key_id));
    }
    let enrolled: Vec<&KeyInfo> = keys
        .iter()
        .filter(|key| key.role == "root" && key.state == "enrolled")
        .collect();
    if enrolled.is_empty() {
        ui.say("No root key is enrolled yet: a new one is made.");
        return Ok(new(args));
    }
    if !ui.may_ask() {
        return match enrolled.as_slice() {
            [only] => Ok(existing(&only.key_id)),
            several => Err(Failure::usage(
                "several root keys are enrolled, and --no-input forbids to ask which",
            )
            .fix("name one with --root KEY")
            .candidates(several.iter().map(|key| describe(key)).collect())),
        };
    }
    let mut items: Vec<String> = enrolled.iter().map(|key| describe(key)).collect();
    items.push("a new root key".to_owned());
    let chosen = ui.select("Root key of the new repository", &items).await?;
    Ok(enrolled
        .get(chosen)
        .map_or_else(|| new(args), |key| existing(&key.key_id)))
}

/// The targets key of a new collection: the one enrolled for this GUN that no published
/// collection uses.
///
/// # Errors
///
/// Exit 2: several, and nobody may be asked.
pub(crate) async fn targets(
    keys: &[KeyInfo],
    gun: &Gun,
    args: &NewKeysArgs,
    ui: &Ui,
) -> Result<KeyChoice, Failure> {
    let free: Vec<&KeyInfo> = keys
        .iter()
        .filter(|key| key.role == "targets" && key.gun == gun.as_str())
        .filter(|key| key.state == "enrolled" && key.used_by.is_empty())
        .collect();
    match free.as_slice() {
        [] => Ok(new(args)),
        [only] => Ok(existing(&only.key_id)),
        several if !ui.may_ask() => Err(Failure::usage(format!(
            "several targets keys are enrolled for {gun}, and --no-input forbids to ask which"
        ))
        .fix("remove those that are not needed: `signet key remove KEY`")
        .candidates(several.iter().map(|key| describe(key)).collect())),
        several => {
            let items: Vec<String> = several.iter().map(|key| describe(key)).collect();
            let chosen = ui.select(&format!("Targets key of {gun}"), &items).await?;
            Ok(existing(&several[chosen].key_id))
        }
    }
}

/// New keys without a question, for a request that is to be refused.
pub(crate) fn none() -> Creation {
    let choice = new(&NewKeysArgs::default());
    Creation {
        root: Some(choice.clone()),
        targets: Some(choice),
        snapshot: None,
    }
}

/// Refuses two new keys for one slot, before either is made.
///
/// # Errors
///
/// Exit 2.
pub(crate) fn fit_in_slots(chosen: [&KeyChoice; 2], args: &NewKeysArgs) -> Result<(), Failure> {
    let slot = args.store.as_deref().filter(|store| names_slot(store));
    match slot {
        Some(slot) if chosen.iter().all(|key| key.new_key.is_some()) => {
            let card = slot.rsplit_once(':').map_or(slot, |(card, _)| card);
            Err(Failure::usage(format!(
                "--store {slot}: two keys are to be made, root and targets, and a slot holds one"
            ))
            .fix(format!(
                "--store {card} takes two free slots; or make the root key first: `signet key \
                 generate --role root --store {slot}`"
            )))
        }
        _ => Ok(()),
    }
}

/// A key that exists.
pub(crate) fn existing(key_id: &str) -> KeyChoice {
    KeyChoice {
        key_id: key_id.to_owned(),
        new_key: None,
    }
}

fn new(args: &NewKeysArgs) -> KeyChoice {
    let store = args.store.clone().unwrap_or_default();
    KeyChoice {
        key_id: String::new(),
        new_key: Some(NewKey {
            store,
            algorithm: String::new(),
            label: String::new(),
        }),
    }
}

/// A root key by ID (either of its two), unique prefix, label, or `root` alone.
pub(crate) fn find_root<'a>(keys: &'a [KeyInfo], name: &str) -> Result<&'a KeyInfo, Failure> {
    const SHORTEST: usize = 7;
    let roots: Vec<&KeyInfo> = keys
        .iter()
        .filter(|key| key.role == "root" && key.state != "gone")
        .collect();
    let is_prefix =
        name.len() >= SHORTEST && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let by_label: Vec<&KeyInfo> = roots
        .iter()
        .copied()
        .filter(|key| key.label == name)
        .collect();
    let found = if !by_label.is_empty() {
        by_label
    } else if name == "root" {
        roots.clone()
    } else if is_prefix {
        let fits = |id: &String| id.starts_with(name);
        roots
            .iter()
            .copied()
            .filter(|k| fits(&k.key_id) || k.other_ids.iter().any(fits))
            .collect()
    } else {
        Vec::new()
    };
    let describe_all = |keys: &[&KeyInfo]| keys.iter().map(|key| describe(key)).collect();
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(
            Failure::usage(format!("--root {name}: no root key is called so"))
                .fix(
                    "`signet key list` shows the keys; `signet key generate --role root` makes one",
                )
                .candidates(describe_all(&roots)),
        ),
        several => Err(
            Failure::usage(format!("--root {name}: that may be any of several keys"))
                .candidates(describe_all(several)),
        ),
    }
}

/// A key in one line: label, ID, store and date.
fn describe(key: &KeyInfo) -> String {
    let mut text = short_id(&key.key_id).to_owned();
    if !key.label.is_empty() {
        text = format!("{} ({text})", escape(&key.label));
    }
    text.push_str(&format!(", in {}", key.store));
    if let Ok(date) = jiff::Timestamp::from_second(key.enrolled_at)
        && key.enrolled_at > 0
    {
        text.push_str(&format!(", enrolled {}", date.strftime("%Y-%m-%d")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Globals;

    fn key(id: &str, role: &str, label: &str) -> KeyInfo {
        KeyInfo {
            key_id: id.repeat(64 / id.len()),
            role: role.to_owned(),
            label: label.to_owned(),
            state: "enrolled".to_owned(),
            store: "file".to_owned(),
            ..KeyInfo::default()
        }
    }

    fn silent() -> Ui {
        Ui::new(&Globals {
            no_input: true,
            ..Globals::default()
        })
    }

    #[test]
    fn a_root_key_answers_to_prefix_label_and_both_ids() {
        let mut first = key("ab", "root", "home");
        first.other_ids.push("ef".repeat(32));
        let keys = [first, key("cd", "root", ""), key("99", "targets", "home")];
        for name in ["home", "abababa", &"ab".repeat(32), "efefefe"] {
            assert_eq!(find_root(&keys, name).unwrap().label, "home", "{name}");
        }
        for name in ["root", "ababab", "nobody", "9999999"] {
            assert_eq!(find_root(&keys, name).unwrap_err().exit, 2, "{name}");
        }
    }

    #[test]
    fn two_new_keys_do_not_fit_in_one_slot() {
        let named = |store: &str| NewKeysArgs {
            store: Some(store.to_owned()),
            ..NewKeysArgs::default()
        };
        let made = new(&named("piv:1:9c"));
        let kept = existing("ab");
        let failure = fit_in_slots([&made, &made], &named("piv:1:9c")).unwrap_err();
        assert_eq!(failure.exit, 2);
        assert!(fit_in_slots([&kept, &made], &named("piv:1:9c")).is_ok());
        assert!(fit_in_slots([&made, &made], &named("piv:1")).is_ok());
    }

    #[tokio::test]
    async fn without_a_person_only_a_single_root_key_is_taken() {
        let args = NewKeysArgs::default();
        let none = root(&[], &args, &silent()).await.unwrap();
        assert!(none.new_key.is_some());
        let one = [key("ab", "root", "")];
        assert_eq!(
            root(&one, &args, &silent()).await.unwrap().key_id,
            one[0].key_id
        );
        let two = [key("ab", "root", ""), key("cd", "root", "")];
        let failure = root(&two, &args, &silent()).await.unwrap_err();
        assert_eq!((failure.exit, failure.candidates.len()), (2, 2));
    }

    #[tokio::test]
    async fn a_targets_key_in_use_is_never_taken_again() {
        let gun: Gun = "reg/a".parse().unwrap();
        let mut mine = key("ab", "targets", "");
        mine.gun = "reg/a".to_owned();
        let mut used = key("cd", "targets", "");
        used.gun = "reg/a".to_owned();
        used.used_by.push("reg/a".to_owned());
        let args = NewKeysArgs::default();
        let chosen = targets(&[used.clone(), mine.clone()], &gun, &args, &silent())
            .await
            .unwrap();
        assert_eq!(chosen.key_id, mine.key_id);
        assert!(
            targets(&[used], &gun, &args, &silent())
                .await
                .unwrap()
                .new_key
                .is_some()
        );
    }
}
