//! `signet restore`: from a backup, or from what Docker's documentation taught to keep.

use std::{fs, io::Write as _, path::Path};

use serde_json::{Value, json};
use signet_proto::{
    archive::{Member, path},
    v1::{ArchivedKey, ArchivedTombstone, RestoreBackup, backup_start::What},
};

use super::backup::{
    foreign, key_json, missing, named,
    sealed::{self, Kind, kind},
};
use crate::{
    Context,
    agent::archive::archive,
    args::RestoreArgs,
    failure::{Failure, Missing, exit},
    ui::text::{escape, rfc3339},
};

/// Restores keys.
pub(crate) async fn run(args: RestoreArgs, ctx: &mut Context) -> Result<(), Failure> {
    let file = &args.file;
    let unread = |error| Failure::file("read", file, error);
    let is_dir = fs::metadata(file).map_err(unread)?.is_dir();
    let mut wrong: Vec<Missing> = Vec::new();
    let members = if !is_dir && kind(file).map_err(unread)? == Kind::Age {
        sealed::open(file, &args.with, ctx).await?.1
    } else {
        let found = foreign::read(file).await?;
        for note in &found.notes {
            ctx.ui.warn(note);
        }
        wrong = found.missing;
        if found.members.is_empty() {
            return Err(Failure::new(
                exit::FAILED,
                "no_keys",
                format!("{} holds no key that could be restored", file.display()),
            )
            .fix("a backup of Signet's, a tarball or copy of trust/private, or a notary export bundle")
            .missing(wrong));
        }
        found.members
    };
    let policy = members
        .iter()
        .find(|member| member.path == path::POLICY)
        .cloned();
    let restore = RestoreBackup {
        source: file.display().to_string(),
        dry_run: args.dry_run,
        only: args.only.clone(),
        store: args.store.clone().unwrap_or_default(),
        revive: args.revive,
    };
    let done = archive(ctx, What::Restore(restore), Some(members))
        .await?
        .done;
    let settings = match policy {
        Some(policy) if !args.dry_run => put_beside(&policy, &ctx.places.config)?,
        _ => None,
    };
    wrong.extend(missing(&done.keys));
    if ctx.ui.is_json() {
        let state: Vec<_> = done
            .state
            .iter()
            .map(|state| {
                json!({
                    "gun": state.gun,
                    "role": state.role,
                    "archived": state.archived,
                    "here": (state.here > 0).then_some(state.here),
                    "action": state.action,
                })
            })
            .collect();
        let tombstones: Vec<_> = done.tombstones.iter().map(tombstone_json).collect();
        let mut object = json!({
            "v": 1,
            "file": file,
            "tombstones": tombstones,
            "dry_run": args.dry_run,
            "changed": done.changed,
            "keys": done.keys.iter().map(key_json).collect::<Vec<_>>(),
            "state": state,
            "settings": settings.as_ref().map(|(path, _)| path),
            "log_entry": (done.log_entry > 0).then_some(done.log_entry),
        });
        if !wrong.is_empty() {
            object["missing"] = json!(wrong);
        }
        ctx.ui.json(&object);
    } else {
        for key in &done.keys {
            ctx.ui.data(line(key, args.dry_run));
        }
        for state in done.state.iter().filter(|state| state.action == "rises") {
            ctx.ui.data(format_args!(
                "guard: {} of {} rises to version {}, as the backup claims",
                escape(&state.role),
                escape(&state.gun),
                state.archived
            ));
        }
        for stone in done.tombstones.iter().filter(|s| s.action == "recorded") {
            ctx.ui
                .data(format_args!("{}: stays away", tombstone(stone)));
        }
        if let Some((path, difference)) = &settings {
            ctx.ui.warn(format_args!(
                "the backup has other settings than agent.toml; they are in {path} and not in \
                 force. What would change:"
            ));
            for line in difference {
                ctx.ui.say(format_args!("  {}", escape(line)));
            }
        }
    }
    finish(file, &done.keys, done.changed, wrong)
}

fn line(key: &ArchivedKey, dry_run: bool) -> String {
    let name = named(&key.role, &key.gun, &key.label, &key.key_id);
    let said = match (key.action.as_str(), dry_run) {
        ("new", true) => format!("would go into the store {}", key.target),
        ("new", false) => format!("restored into the store {}", key.target),
        ("enrol", true) => format!("is in the store {} and would be enrolled", key.target),
        ("enrol", false) => format!("was in the store {}; enrolled", key.target),
        ("same", _) => "is here already".to_owned(),
        ("conflict", _) => "is here as something else; left out".to_owned(),
        ("tombstoned", _) => "tombstoned".to_owned(),
        _ => "left out".to_owned(),
    };
    match key.problem.as_str() {
        "" => format!("{name}: {said}"),
        problem => format!("{name}: {said}: {}", escape(problem)),
    }
}

/// A key that is gone where the backup was made, in words.
fn tombstone(stone: &ArchivedTombstone) -> String {
    let name = named(&stone.role, &stone.gun, &stone.label, &stone.key_id);
    match (stone.reason.as_str(), stone.detail.as_str()) {
        ("retired", "") => format!("{name}: was moved to another host, as the backup says"),
        ("retired", to) => format!("{name}: was moved to {}, as the backup says", escape(to)),
        (reason, _) => format!("{name}: was {}, as the backup says", escape(reason)),
    }
}

fn tombstone_json(stone: &ArchivedTombstone) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": stone.key_id,
        "role": or_null(&stone.role),
        "gun": or_null(&stone.gun),
        "label": or_null(&stone.label),
        "reason": stone.reason,
        "detail": or_null(&stone.detail),
        "time": rfc3339(stone.time),
        "action": stone.action,
    })
}

fn finish(
    file: &Path,
    keys: &[ArchivedKey],
    changed: bool,
    wrong: Vec<Missing>,
) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let left_away = keys.iter().any(|key| key.action == "tombstoned");
    let fine = keys.iter().filter(|key| key.exit == 0).count();
    let one = wrong[0].exit;
    let exit = match !changed && fine == 0 && wrong.iter().all(|missing| missing.exit == one) {
        true => one,
        false => exit::PARTIAL,
    };
    let message = format!(
        "{} of the keys in {} were not restored, or not proved",
        wrong.len(),
        file.display()
    );
    Err(Failure::new(exit, "partial", message)
        .fix(if left_away {
            "--revive brings back the keys that were removed here or moved away; what is there is \
             left as it is"
        } else {
            "the same command again, with the passphrases that were missing, restores and enrols \
             the rest; what is there is left as it is"
        })
        .missing(wrong))
}

/// Settings are never merged: those of the archive are written beside the ones in force, where
/// they differ.
fn put_beside(policy: &Member, config: &Path) -> Result<Option<(String, Vec<String>)>, Failure> {
    let current = fs::read(config.join("agent.toml")).unwrap_or_default();
    if current == policy.data {
        return Ok(None);
    }
    let beside = config.join("agent.toml.restored");
    let failed = |error| Failure::file("write", &beside, error);
    fs::create_dir_all(config).map_err(failed)?;
    let mut temp = tempfile::NamedTempFile::new_in(config).map_err(failed)?;
    temp.write_all(&policy.data).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist(&beside).map_err(|error| failed(error.error))?;
    let difference = difference(
        &String::from_utf8_lossy(&current),
        &String::from_utf8_lossy(&policy.data),
    );
    Ok(Some((beside.display().to_string(), difference)))
}

/// Lines that only one of two settings has, `-` of those in force and `+` of the others, without
/// comments and empty lines.
fn difference(current: &str, other: &str) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim_end);
        let said = lines.filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'));
        said.map(ToOwned::to_owned).collect()
    };
    let (current, other) = (lines(current), lines(other));
    let gone = current.iter().filter(|line| !other.contains(line));
    let new = other.iter().filter(|line| !current.contains(line));
    gone.map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_settings_is_what_only_one_of_them_says() {
        let here = "# mine\nunlock = \"5m\"\nask = true\n";
        let there = "unlock = \"5m\"\nask = false\n\n";
        assert_eq!(difference(here, there), ["- ask = true", "+ ask = false"]);
    }
}
