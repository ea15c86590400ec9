//! `signet backup`: every key in one encrypted file, and the rehearsal that it opens.

mod create;
pub(super) mod foreign;
mod person;
pub(super) mod sealed;
mod shared;
mod show;
mod verify;

use serde_json::{Value, json};
use signet_proto::{
    archive::{Manifest, manifest},
    v1::ArchivedKey,
};

use crate::{
    Context,
    args::{BackupArgs, BackupCommand},
    failure::{Failure, Missing, exit},
    ui::text::{escape, short_id},
};

/// Does what the command line says.
pub(crate) async fn run(args: BackupArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        BackupCommand::Create(args) => create::run(args, ctx).await,
        BackupCommand::Verify(args) => verify::run(args, ctx).await,
        BackupCommand::Show(args) => show::run(args, ctx).await,
    }
}

/// A key as one line names it: `targets of reg.corp/app, 0123456789ab`.
pub(super) fn named(role: &str, gun: &str, label: &str, id: &str) -> String {
    let mut text = match (role, gun) {
        ("", _) => "key".to_owned(),
        (role, "") => escape(role),
        (role, gun) => format!("{} of {}", escape(role), escape(gun)),
    };
    if !label.is_empty() {
        text += &format!(" {:?}", escape(label));
    }
    format!("{text}, {}", short_id(id))
}

/// What the agent says of a key, as JSON.
pub(super) fn key_json(key: &ArchivedKey) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": key.key_id,
        "role": or_null(&key.role),
        "gun": or_null(&key.gun),
        "label": or_null(&key.label),
        "store": key.store,
        "proved": key.proved,
        "problem": or_null(&key.problem),
        "here": or_null(&key.here),
        "action": or_null(&key.action),
        "target": or_null(&key.target),
    })
}

/// The keys that something is wrong with.
pub(super) fn missing(keys: &[ArchivedKey]) -> Vec<Missing> {
    let wrong = keys.iter().filter(|key| key.exit != 0);
    wrong
        .map(|key| Missing {
            what: named(&key.role, &key.gun, &key.label, &key.key_id),
            reason: escape(&key.problem),
            exit: u8::try_from(key.exit).unwrap_or(exit::FAILED),
        })
        .collect()
}

/// The manifest as JSON.
fn manifest_json(manifest: &Manifest) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let keys: Vec<Value> = manifest
        .keys
        .iter()
        .map(|key| {
            let cards = key.cards.iter();
            let cards: Vec<Value> = cards
                .map(|card| {
                    json!({
                        "serial": card.serial,
                        "slot": card.slot,
                        "origin": or_null(&card.origin),
                        "firmware": or_null(&card.firmware),
                        "attestation": or_null(&card.attestation),
                        "own": or_null(&card.own),
                        "proves": or_null(&card.proves),
                    })
                })
                .collect();
            json!({
                "id": key.id,
                "role": or_null(&key.role),
                "gun": or_null(&key.gun),
                "label": or_null(&key.label),
                "store": key.store,
                "algorithm": or_null(&key.algorithm),
                "enrolled": key.enrolled,
                "file": or_null(&key.file),
                "proved": key.proved,
                "problem": or_null(&key.problem),
                "cards": cards,
            })
        })
        .collect();
    json!({
        "id": manifest.id,
        "host": manifest.host,
        "created": time(manifest.created),
        "signet": manifest.signet,
        "keys": keys,
        "notes": manifest.notes,
        "passphrases": passphrases(manifest),
    })
}

/// Every secret that a restore will need besides the backup's own.
fn passphrases(manifest: &Manifest) -> Vec<String> {
    let packed = || manifest.keys.iter().filter(|key| !key.file.is_empty());
    let native = |key: &&manifest::Key| key.store == "file";
    let mut needed = Vec::new();
    if packed().any(|key| native(&key)) {
        needed.push("the keyring's".to_owned());
        needed.push("the root keyring's".to_owned());
    }
    for key in packed().filter(|key| !native(key)) {
        needed.push(format!(
            "that of {} (Docker's format)",
            named(&key.role, &key.gun, &key.label, &key.id)
        ));
    }
    needed
}

/// RFC 3339, UTC.
fn time(unix: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(unix).ok()?;
    Some(time.to_string())
}
