//! Verified bases, compared with the log.
//!
//! What a server shows that is newer than what was seen and signed here is looked at: a document
//! that a key signed which is only here, and of which the log knows nothing, is reported. Only keys
//! of the native store are asked about: docker and notary sign with theirs by themselves, and a card
//! signs wherever it is plugged in.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use signet_trust::{
    Gun, KeyId, RoleName,
    base::VerifiedBase,
    guard::{History, State},
    payload::escape,
};

use super::{Fault, Keyring, Person, StoreName, base::compute};
use crate::{
    ledger::{ALARM, NewEntry},
    service::now,
};

/// How long `status` warns of a report. The log keeps it.
const WARNED: i64 = 90 * 24 * 60 * 60;
/// Digits of a key ID in a sentence.
const SHORT: usize = 12;

/// Keys of which copies are known to be elsewhere: that stays so.
#[derive(Debug, Default)]
pub(super) struct Copied(Mutex<HashSet<KeyId>>);

impl Copied {
    fn has(&self, id: &KeyId) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.contains(id)
    }

    fn add(&self, id: KeyId) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(id);
    }
}

/// A document that the log should have.
#[derive(Debug)]
struct Unlogged {
    role: RoleName,
    version: u32,
    hash: [u8; 32],
    key: KeyId,
    label: String,
}

impl Keyring {
    /// Reports what keys of this host signed without this log; gives the sentences for the caller.
    pub(super) async fn compare_with_log(
        &self,
        gun: &Gun,
        base: &VerifiedBase,
        history: &History,
        person: &Person<'_>,
    ) -> Result<Vec<String>, Fault> {
        let state = base
            .lineage()
            .and_then(|lineage| history.collections.get(&lineage));
        let mut told = Vec::new();
        for found in self.signed_by_ours(base, state) {
            let (id, hash) = (found.key, found.hash);
            if self.copied.has(&id) {
                continue;
            }
            let only_here = self
                .recorder
                .run(move |ledger| ledger.is_only_here(&id))
                .await?;
            if !only_here {
                self.copied.add(id);
                continue;
            }
            let known = self
                .recorder
                .run(move |ledger| ledger.knows_payload(&hash))
                .await?;
            if !known {
                told.push(self.report_unlogged(gun, found, person).await?);
            }
        }
        Ok(told)
    }

    /// What is newer in the base than what is recorded, and signed by keys of the native store.
    fn signed_by_ours(&self, base: &VerifiedBase, state: Option<&State>) -> Vec<Unlogged> {
        let index = self.index();
        let mut found = Vec::new();
        for (role, (version, hash)) in base.marks() {
            let known = state.and_then(|state| state.roles.get(role));
            let seen = known.and_then(|known| known.seen);
            let signed = known.and_then(|known| known.signed).map(|(mark, _)| mark);
            let is_known = [seen, signed]
                .iter()
                .flatten()
                .any(|mark| (mark.version, mark.hash) == (version, hash));
            if is_known || signed.is_some_and(|mark| mark.version > version) {
                continue;
            }
            let Some((message, signatures)) = base.signed(role) else {
                continue;
            };
            let listed = base.signers(role).map(|signers| signers.keys);
            for (listed_id, public) in listed.into_iter().flatten() {
                let entry = public.canonical_id().ok().and_then(|id| index.get(&id));
                let Some(entry) = entry.filter(|entry| entry.store == StoreName::File.as_str())
                else {
                    continue;
                };
                // Nobody is accused by a signature that does not hold.
                let holds = signatures
                    .iter()
                    .filter(|signature| signature.key_id == listed_id)
                    .any(|signature| {
                        let check = || {
                            public
                                .verify(signature.method, message, &signature.bytes)
                                .is_ok()
                        };
                        !self.copied.has(&entry.id) && compute(message.len(), check)
                    });
                if holds {
                    found.push(Unlogged {
                        role: role.clone(),
                        version,
                        hash,
                        key: entry.id,
                        label: entry.label.clone(),
                    });
                }
            }
        }
        found
    }

    async fn report_unlogged(
        &self,
        gun: &Gun,
        found: Unlogged,
        person: &Person<'_>,
    ) -> Result<String, Fault> {
        let mut key = found.key.to_string();
        key.truncate(SHORT);
        if !found.label.is_empty() {
            key = format!("{} ({key})", escape(&found.label));
        }
        let (role, version) = (&found.role, found.version);
        let text = format!(
            "{gun}: the server has {role} v{version}, signed by the key {key}, which was made here \
             and never given away, but this log has no such signature: a copy of the key signed \
             elsewhere, or this ledger was put back to an older one; `signet log verify --against \
             CHECKPOINT` tells which"
        );
        tracing::warn!("{text}");
        let entry = NewEntry {
            kind: ALARM,
            time: now(),
            gun: gun.to_string(),
            role: role.to_string(),
            version,
            key: Some(found.key),
            payload: Some(found.hash),
            summary: text.clone(),
            caller: person.caller.describe(),
            outcome: "unlogged".to_owned(),
            facts: person.facts(""),
            ..NewEntry::default()
        };
        self.recorder
            .run(move |ledger| ledger.alarm(&entry))
            .await?;
        Ok(text)
    }

    /// What `status` says of it.
    pub(super) async fn unlogged_warning(&self) -> Result<Option<String>, Fault> {
        let alarms = self.recorder.run(|ledger| ledger.alarms()).await?;
        let recent = alarms.filter(|alarms| now().saturating_sub(alarms.last) < WARNED);
        Ok(recent.map(|alarms| {
            let (what, were) = match alarms.count {
                1 => ("published document was", "it"),
                _ => ("published documents were", "them"),
            };
            format!(
                "{} {what} signed by keys of this host, and the log has no entry for {were}: a copy \
                 of a key signed elsewhere, or the ledger was put back (`signet log show` has them \
                 as `alarm`)",
                alarms.count
            )
        }))
    }
}
