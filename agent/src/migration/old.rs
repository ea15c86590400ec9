//! The host that the keys leave.

use std::{collections::BTreeSet, path::PathBuf};

use hmac::Mac as _;
use serde::{Deserialize, Serialize};
use signet_proto::migration::{self, FORMAT, Head, Key, Note, Offer, Receipt};
use signet_trust::{KeyId, PublicKey};

use super::{Named, Public, Refusal, seal};

/// What became of a key that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Departure {
    /// It is here and signs; it may be on the new host as well.
    Leaving,
    /// The new host proved that it has it: it is refused here, and its files are being removed.
    Retiring,
    /// Its files are removed.
    Retired,
    /// The migration was cancelled before its receipt came.
    Stays,
}

/// A key that is to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Moved {
    pub(crate) named: Named,
    pub(crate) public: Public,
    pub(crate) state: Departure,
}

/// A migration that this host sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Old {
    pub(crate) id: String,
    /// The new host's name, as its offer says.
    pub(crate) to: String,
    pub(crate) recipient: String,
    /// This host's name, as its messages say.
    pub(crate) host: String,
    pub(crate) nonce: String,
    pub(crate) keys: Vec<Moved>,
    /// `$DOCKER_CONFIG` of the agent that retires the keys.
    #[serde(default)]
    pub(crate) docker_dir: PathBuf,
    /// Digests of every package that was written for it.
    pub(crate) packages: Vec<String>,
    /// When it began: for people only.
    pub(crate) time: i64,
    pub(crate) cancelled: bool,
}

/// What a receipt is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Proved now, still leaving.
    pub(crate) retire: Vec<KeyId>,
    /// Sent, and not proved by this receipt or an earlier one.
    pub(crate) missing: Vec<KeyId>,
}

impl Old {
    /// Begins one; `nonce` is fresh.
    pub(crate) fn begin(
        offer: &Offer,
        host: &str,
        nonce: String,
        keys: Vec<(Named, PublicKey)>,
        time: i64,
    ) -> Self {
        let moved = |(named, public): (Named, PublicKey)| Moved {
            named,
            public: Public::new(&public),
            state: Departure::Leaving,
        };
        Self {
            id: offer.id.clone(),
            to: offer.host.clone(),
            recipient: offer.recipient.clone(),
            host: host.to_owned(),
            nonce,
            keys: keys.into_iter().map(moved).collect(),
            docker_dir: PathBuf::new(),
            packages: Vec::new(),
            time,
            cancelled: false,
        }
    }

    /// Whether the same offer may be sent to once more: the package was lost, say.
    ///
    /// # Errors
    ///
    /// [`Refusal::Cancelled`], [`Refusal::Finished`], [`Refusal::Other`].
    pub(crate) fn again(&self, offer: &Offer) -> Result<(), Refusal> {
        if self.recipient != offer.recipient {
            return Err(Refusal::Other {
                found: format!("{} to {}", offer.id, offer.recipient),
                wanted: format!("{} to {}", self.id, self.recipient),
            });
        }
        if self.cancelled {
            return Err(Refusal::Cancelled(self.id.clone()));
        }
        if self.is_over() {
            return Err(Refusal::Finished(self.id.clone()));
        }
        Ok(())
    }

    /// `migration.json` of its package.
    pub(crate) fn head(&self) -> Head {
        let leaving = self.keys.iter().filter(|k| k.state == Departure::Leaving);
        Head {
            format: FORMAT,
            id: self.id.clone(),
            nonce: self.nonce.clone(),
            host: self.host.clone(),
            docker: String::new(),
            keys: leaving
                .map(|key| Key {
                    id: key.named.id.clone(),
                    role: key.named.role.clone(),
                    gun: key.named.gun.clone(),
                    label: key.named.label.clone(),
                    store: key.named.store.clone(),
                })
                .collect(),
        }
    }

    /// A package was made: receipts for it count.
    pub(crate) fn packed(&mut self, digest: String) {
        if !self.packages.contains(&digest) {
            self.packages.push(digest);
        }
    }

    /// Reads a receipt. Nothing has changed yet; one false proof spoils it all.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(crate) fn judge(&self, receipt: &Receipt) -> Result<Verdict, Refusal> {
        if receipt.id != self.id {
            return Err(Refusal::Other {
                found: receipt.id.clone(),
                wanted: self.id.clone(),
            });
        }
        if !self.packages.contains(&receipt.package) {
            return Err(Refusal::OtherPackage(self.id.clone()));
        }
        let mut proved = BTreeSet::new();
        for proof in &receipt.proofs {
            let id: KeyId = proof.key.parse().map_err(|_| {
                Refusal::Message(migration::BadMessage::Syntax("no key ID".to_owned()))
            })?;
            let moved = self.keys.iter().find(|key| key.named.id == proof.key);
            let moved = moved.ok_or(Refusal::OtherKey(id))?;
            let public = moved.public.read().filter(|public| public.id() == id);
            let public = public.ok_or(Refusal::OtherKey(id))?;
            let statement = migration::statement(&self.id, &proof.key, &self.nonce);
            let signature = hex::decode(&proof.signature).unwrap_or_default();
            public
                .verify(public.method(), statement.as_bytes(), &signature)
                .map_err(|_| Refusal::Forged(id))?;
            proved.insert(id);
        }
        if self.cancelled {
            return Err(Refusal::Cancelled(self.id.clone()));
        }
        let mut verdict = Verdict::default();
        for key in self.keys.iter().filter(|k| k.state == Departure::Leaving) {
            let Some(id) = key.named.key_id() else {
                continue;
            };
            match proved.contains(&id) {
                true => verdict.retire.push(id),
                false => verdict.missing.push(id),
            }
        }
        Ok(verdict)
    }

    /// These keys are refused from now on; their files are to be removed.
    pub(crate) fn retiring(&mut self, ids: &[KeyId]) {
        self.turn(ids, Departure::Leaving, Departure::Retiring);
    }

    /// Keys whose files may still be there.
    pub(crate) fn to_remove(&self) -> Vec<KeyId> {
        let retiring = self.keys.iter().filter(|k| k.state == Departure::Retiring);
        retiring.filter_map(|key| key.named.key_id()).collect()
    }

    /// Their files are gone.
    pub(crate) fn removed(&mut self, ids: &[KeyId]) {
        self.turn(ids, Departure::Retiring, Departure::Retired);
    }

    fn turn(&mut self, ids: &[KeyId], from: Departure, to: Departure) {
        for key in self.keys.iter_mut().filter(|key| key.state == from) {
            if key.named.key_id().is_some_and(|id| ids.contains(&id)) {
                key.state = to;
            }
        }
    }

    /// What is left to leave stays. What is retired remains so.
    ///
    /// # Errors
    ///
    /// [`Refusal::Finished`].
    pub(crate) fn cancel(&mut self) -> Result<(), Refusal> {
        if !self.cancelled && self.is_over() {
            return Err(Refusal::Finished(self.id.clone()));
        }
        self.cancelled = true;
        for key in &mut self.keys {
            if key.state == Departure::Leaving {
                key.state = Departure::Stays;
            }
        }
        Ok(())
    }

    /// The closing note; `None` while nothing is retired.
    pub(crate) fn note(&self) -> Option<Note> {
        let gone = |key: &&Moved| matches!(key.state, Departure::Retiring | Departure::Retired);
        let retired: Vec<String> = self
            .keys
            .iter()
            .filter(gone)
            .map(|k| k.named.id.clone())
            .collect();
        if retired.is_empty() {
            return None;
        }
        let mut note = Note {
            signet: Note::KIND.to_owned(),
            format: FORMAT,
            id: self.id.clone(),
            host: self.host.clone(),
            retired,
            mac: String::new(),
        };
        note.mac = hex::encode(seal(&note, &self.nonce).finalize().into_bytes());
        Some(note)
    }

    /// Keys that are still to leave.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &Named> {
        let leaving = self.keys.iter().filter(|k| k.state == Departure::Leaving);
        leaving.map(|key| &key.named)
    }

    /// Nothing is left to leave.
    pub(crate) fn is_over(&self) -> bool {
        self.leaving().next().is_none()
    }

    /// The word for people.
    pub(crate) fn word(&self) -> &'static str {
        match (self.cancelled, self.is_over()) {
            (true, _) => "cancelled",
            (false, false) => "sent",
            (false, true) => "retired",
        }
    }
}
