//! A migration in words and as JSON.

use serde_json::{Value, json};
use signet_proto::v1::{MigratingKey, Migration};

use crate::{
    command::backup::named,
    ui::text::{escape, local_time, rfc3339},
};

/// A key as one line names it.
pub(super) fn name(key: &MigratingKey) -> String {
    named(&key.role, &key.gun, &key.label, &key.key_id)
}

/// A key and what becomes of it.
pub(super) fn key(key: &MigratingKey) -> String {
    let what = match key.state.as_str() {
        "leaving" => "leaving; still signs here",
        "retired" => "retired on the old host",
        "stays" => "stays",
        "proved" => "here, and proved",
        _ => "missing",
    };
    match key.problem.as_str() {
        "" => format!("{}: {what}", name(key)),
        problem => format!("{}: {what}: {}", name(key), escape(problem)),
    }
}

/// A migration as `status` shows it: what each side knows, and what is missing.
pub(super) fn lines(migration: &Migration) -> Vec<String> {
    let peer = match migration.peer.as_str() {
        "" => "another host".to_owned(),
        peer => escape(peer),
    };
    let way = match migration.side.as_str() {
        "old" => format!("to {peer}"),
        _ => format!("from {peer}"),
    };
    let mut lines = vec![format!(
        "{} {way}: {}, begun {}",
        migration.id,
        migration.state,
        local_time(migration.time)
    )];
    lines.extend(migration.keys.iter().map(|one| format!("  {}", key(one))));
    let retired = migration.keys.iter().filter(|key| key.state == "retired");
    let next = match (migration.side.as_str(), migration.state.as_str()) {
        ("old", "sent") => format!(
            "  both hosts can sign; missing: the receipt of {peer} (signet migrate finish RECEIPT)"
        ),
        ("old", "retired") => format!("  this host refuses these keys; {peer} has them"),
        ("old", _) if retired.clone().count() > 0 => {
            "  what is retired stays retired; the other keys stay here".to_owned()
        }
        ("old", _) => "  the keys stay here; the package cannot be recalled".to_owned(),
        (_, "offered") => {
            "  missing: the package (signet migrate send OFFER on the host that has the keys)"
                .to_owned()
        }
        (_, "received") => "  no key is proved yet: take the package in again".to_owned(),
        (_, "proved") if !migration.keys.iter().any(|key| key.state == "proved") => format!(
            "  what is proved is retired on {peer}; missing keys stay there until the package is \
             taken in again"
        ),
        (_, "proved") => format!(
            "  {peer} may still hold these keys; missing: its closing note (signet migrate finish \
             RECEIPT there, signet migrate receive NOTE here)"
        ),
        (_, "closed") => format!("  {peer} has retired them"),
        _ => "  what came stays here; remove it with `signet key remove`".to_owned(),
    };
    lines.push(next);
    lines
}

/// What *retired* means, and what to do with old backups.
pub(super) fn retired(peer: &str) -> Vec<String> {
    vec![
        "retired means: this agent refuses these keys and removed the files it knew.".to_owned(),
        "It does not reach copies in backups, snapshots, other directories or spare blocks of the \
         disk; if that matters, rotate the keys."
            .to_owned(),
        format!(
            "Old backups of this host still hold them: make and rehearse one on {peer} (signet \
             backup create, signet backup verify), then destroy the old ones or keep them as safe \
             as the keys."
        ),
        format!("The closing note is for {peer}: signet migrate receive NOTE"),
    ]
}

/// What a cancelled migration leaves.
pub(super) fn cancelled(migration: &Migration) -> Vec<String> {
    match migration.side.as_str() {
        "old" => vec![
            "the package cannot be recalled: who has it and what opens it has the keys, as \
             encrypted as they are here; if that matters, rotate them"
                .to_owned(),
        ],
        _ if migration.state == "cancelled" && !migration.keys.is_empty() => vec![
            "keys that came stay here; where the receipt was handed over already, the old host may \
             retire its own: cancel there before you remove anything here"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

/// One object of a command.
pub(super) fn object(migration: &Migration) -> Value {
    let mut object = to_json(migration);
    object["v"] = json!(1);
    object
}

/// As JSON.
pub(super) fn to_json(migration: &Migration) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let keys = migration.keys.iter().map(|key| {
        json!({
            "id": key.key_id,
            "role": or_null(&key.role),
            "gun": or_null(&key.gun),
            "label": or_null(&key.label),
            "store": key.store,
            "state": key.state,
            "problem": or_null(&key.problem),
        })
    });
    json!({
        "id": migration.id,
        "side": migration.side,
        "state": migration.state,
        "peer": or_null(&migration.peer),
        "recipient": migration.recipient,
        "packages": migration.packages,
        "begun": rfc3339(migration.time),
        "keys": keys.collect::<Vec<_>>(),
    })
}
