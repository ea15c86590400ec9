//! The host that the keys come to.

use hmac::Mac as _;
use serde::{Deserialize, Serialize};
use signet_proto::migration::{FORMAT, Head, Note, Offer, Proof, Receipt};
use signet_trust::KeyId;

use super::{Named, Refusal, seal};

/// How far a migration has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NewState {
    /// Ready for the package: the one-time identity is kept.
    Offered,
    /// The package was opened; no key is proved yet.
    Received,
    /// Keys are here and proved; the old host may still hold them.
    Proved,
    /// The old host has said that it retired every key.
    Closed,
    /// Given up here.
    Cancelled,
}

impl NewState {
    /// The word for people.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Received => "received",
            Self::Proved => "proved",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A key that is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arrival {
    pub(crate) named: Named,
    /// Its possession proof, in hex; empty until it was made.
    pub(crate) proof: String,
    /// The old host has retired it.
    pub(crate) retired: bool,
}

/// A migration that this host receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    pub(crate) id: String,
    pub(crate) recipient: String,
    /// This host's name.
    pub(crate) host: String,
    pub(crate) state: NewState,
    /// Whom it was offered to over a connection, as that host calls itself; empty otherwise.
    #[serde(default)]
    pub(crate) offered_to: String,
    /// The old host's name; empty until the package came.
    pub(crate) from: String,
    nonce: String,
    pub(crate) package: String,
    pub(crate) keys: Vec<Arrival>,
    /// The checkpoint of this host's log that goes with the proofs; empty: none.
    #[serde(default)]
    pub(crate) checkpoint: String,
    /// When it began: for people only.
    pub(crate) time: i64,
}

impl New {
    /// Begins one; the ID is fresh.
    pub(crate) fn begin(id: String, recipient: String, host: &str, time: i64) -> Self {
        Self {
            id,
            recipient,
            host: host.to_owned(),
            state: NewState::Offered,
            offered_to: String::new(),
            from: String::new(),
            nonce: String::new(),
            package: String::new(),
            keys: Vec::new(),
            checkpoint: String::new(),
            time,
        }
    }

    /// What the old host is given.
    pub(crate) fn offer(&self) -> Offer {
        Offer {
            id: self.id.clone(),
            recipient: self.recipient.clone(),
            host: self.host.clone(),
        }
    }

    /// Takes what a package says. The same package once more changes nothing; another one of the
    /// same migration (the first was lost, or its passphrases changed) counts while it comes from
    /// the same host for the same keys.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(crate) fn receive(&mut self, head: &Head, digest: &str) -> Result<(), Refusal> {
        if head.id != self.id {
            return Err(Refusal::Other {
                found: head.id.clone(),
                wanted: self.id.clone(),
            });
        }
        match self.state {
            NewState::Cancelled => return Err(Refusal::Cancelled(self.id.clone())),
            NewState::Closed => return Err(Refusal::Finished(self.id.clone())),
            NewState::Offered => {
                head.nonce.clone_into(&mut self.nonce);
                head.host.clone_into(&mut self.from);
                self.keys = head
                    .keys
                    .iter()
                    .map(|key| Arrival {
                        named: Named {
                            id: key.id.clone(),
                            role: key.role.clone(),
                            gun: key.gun.clone(),
                            label: key.label.clone(),
                            store: key.store.clone(),
                        },
                        proof: String::new(),
                        retired: false,
                    })
                    .collect();
                self.state = NewState::Received;
            }
            NewState::Received | NewState::Proved => {
                let known = |id: &String| self.keys.iter().any(|key| &key.named.id == id);
                let same = self.nonce == head.nonce && head.keys.iter().all(|key| known(&key.id));
                if !same {
                    return Err(Refusal::SecondPackage(self.id.clone()));
                }
            }
        }
        digest.clone_into(&mut self.package);
        Ok(())
    }

    /// What the proofs are bound to.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Keys that are not proved yet.
    pub(crate) fn unproved(&self) -> Vec<KeyId> {
        let open = self.keys.iter().filter(|key| key.proof.is_empty());
        open.filter_map(|key| key.named.key_id()).collect()
    }

    /// Remembers proofs by keys that this migration moves.
    pub(crate) fn prove(&mut self, proofs: &[(KeyId, Vec<u8>)]) {
        if !matches!(self.state, NewState::Received | NewState::Proved) {
            return;
        }
        for (id, signature) in proofs {
            let id = id.to_string();
            if let Some(key) = self.keys.iter_mut().find(|key| key.named.id == id)
                && key.proof.is_empty()
            {
                key.proof = hex::encode(signature);
                self.state = NewState::Proved;
            }
        }
    }

    /// The receipt, as often as it is wanted.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooEarly`], [`Refusal::Cancelled`].
    pub(crate) fn receipt(&self) -> Result<Receipt, Refusal> {
        match self.state {
            NewState::Offered => return Err(Refusal::TooEarly(self.id.clone())),
            NewState::Cancelled => return Err(Refusal::Cancelled(self.id.clone())),
            NewState::Received | NewState::Proved | NewState::Closed => {}
        }
        let proved = self.keys.iter().filter(|key| !key.proof.is_empty());
        Ok(Receipt {
            signet: Receipt::KIND.to_owned(),
            format: FORMAT,
            id: self.id.clone(),
            host: self.host.clone(),
            package: self.package.clone(),
            proofs: proved
                .map(|key| Proof {
                    key: key.named.id.clone(),
                    signature: key.proof.clone(),
                })
                .collect(),
            checkpoint: (!self.checkpoint.is_empty()).then(|| self.checkpoint.clone()),
        })
    }

    /// Reads a closing note; the IDs that it says are retired.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(crate) fn close(&mut self, note: &Note) -> Result<Vec<KeyId>, Refusal> {
        if note.id != self.id {
            return Err(Refusal::Other {
                found: note.id.clone(),
                wanted: self.id.clone(),
            });
        }
        match self.state {
            NewState::Offered => return Err(Refusal::TooEarly(self.id.clone())),
            NewState::Cancelled => return Err(Refusal::Cancelled(self.id.clone())),
            NewState::Received | NewState::Proved | NewState::Closed => {}
        }
        let mac = hex::decode(&note.mac).unwrap_or_default();
        seal(note, &self.nonce)
            .verify_slice(&mac)
            .map_err(|_| Refusal::NotSealed)?;
        let mut retired = Vec::new();
        for key in &mut self.keys {
            if note.retired.contains(&key.named.id) {
                key.retired = true;
                retired.extend(key.named.key_id());
            }
        }
        // What the old host has not retired may still come.
        if self.keys.iter().all(|key| key.retired) {
            self.state = NewState::Closed;
        }
        Ok(retired)
    }

    /// A package or a closing note may still come.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, NewState::Closed | NewState::Cancelled)
    }

    /// The one-time identity is still needed: a package may come, or come again with a passphrase.
    pub(crate) fn needs_identity(&self) -> bool {
        self.state == NewState::Offered || (self.is_open() && !self.unproved().is_empty())
    }

    /// How many keys are here of which the old host has not said that it retired them.
    pub(crate) fn held_by_both(&self) -> usize {
        let both = |key: &&Arrival| !key.proof.is_empty() && !key.retired;
        self.keys.iter().filter(both).count()
    }

    /// Gives it up. What is here stays here.
    ///
    /// # Errors
    ///
    /// [`Refusal::Finished`].
    pub(crate) fn cancel(&mut self) -> Result<(), Refusal> {
        if self.state == NewState::Closed {
            return Err(Refusal::Finished(self.id.clone()));
        }
        self.state = NewState::Cancelled;
        Ok(())
    }
}
