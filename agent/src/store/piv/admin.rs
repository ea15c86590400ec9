//! What changes a card, as a store does it: every secret is asked for before anything is changed,
//! then all of it happens in one transaction, after which the card has forgotten PIN and management
//! key.

mod make;
mod setup;

use signet_trust::{Algorithm, KeyId, PublicKey};
use zeroize::Zeroizing;

use super::{
    CardFacts, CardFault, CardStore, NewKey, PinPolicy, Slot, SlotFacts, StoreError, TouchPolicy,
    Version, attest,
    pin::{self, BadPin},
    provision::{Cipher, ManagementKey},
};
use crate::{
    key::Secret,
    presence::{NoSecret, OfCard, Presence, SecretName, SecretRequest},
};

/// A key to be made on a card, or put there.
#[derive(Clone, Debug)]
pub struct NewOnCard {
    /// What kind.
    pub algorithm: Algorithm,
    /// Where; the next free one otherwise.
    pub slot: Option<Slot>,
    /// When it wants the PIN.
    pub pin: PinPolicy,
    /// When it wants a finger.
    pub touch: TouchPolicy,
    /// Common name of its certificate.
    pub name: String,
    /// The key that is lost by this.
    pub overwrite: Option<KeyId>,
    /// Facts for prompts.
    pub role: String,
    /// GUN, empty if none.
    pub gun: String,
    /// Label, empty if none.
    pub label: String,
}

/// A key that a card has by now.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it lies, and what it is.
    pub slot: SlotFacts,
    /// Its attestation and the card's own certificate, DER; for keys made on the card.
    pub attestation: Option<(Vec<u8>, Vec<u8>)>,
    /// What the attestation proves, in one line; empty: there is none.
    pub proves: String,
}

/// How a card is to be set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetUp {
    /// Tries of PIN and PUK.
    pub tries: Option<(u8, u8)>,
}

/// What whoever sets a card up writes down.
#[derive(Debug)]
pub struct Recovery {
    /// Empty: it stays as it was.
    pub puk: Secret,
    /// In hexadecimal.
    pub management_key: Secret,
    /// `aes256` …
    pub algorithm: &'static str,
}

impl NewOnCard {
    /// By the defaults: PIN once a session, a touch for each signature of a root key, otherwise one
    /// in 15 seconds; before firmware 4.3, which is never asked, `cached` would be refused.
    #[must_use]
    pub fn plain(algorithm: Algorithm, new: &NewKey) -> Self {
        let root = new.role == "root";
        Self {
            algorithm,
            slot: None,
            pin: PinPolicy::Once,
            touch: if root {
                TouchPolicy::Always
            } else {
                TouchPolicy::Cached
            },
            name: match &new.gun {
                Some(gun) => gun.clone(),
                None => new.role.clone(),
            },
            overwrite: None,
            role: new.role.clone(),
            gun: new.gun.clone().unwrap_or_default(),
            label: String::new(),
        }
    }
}

/// Which part of a change the card refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Management,
    Slot,
    Key,
    Proof,
    Certificate,
    Pin,
    Puk,
}

impl CardStore {
    /// What an attestation of a slot proves now; the attestation and the card's own certificate.
    ///
    /// # Errors
    ///
    /// [`CardFault`].
    pub fn attest(&mut self, slot: Slot) -> Result<(Vec<u8>, Vec<u8>, String), CardFault> {
        self.ready()?;
        let facts = self.known()?;
        self.needs(Version::ATTESTATION, "attestation", &facts)?;
        let public = facts
            .slot(slot)
            .and_then(|slot| slot.public.clone())
            .ok_or_else(|| CardFault::Empty {
                card: self.name_of(),
                slot,
            })?;
        let mut found = None;
        self.read(&mut |card| {
            found = Some((attest::fetch(card, slot)?, attest::fetch_own(card)?));
            Ok(())
        })?
        .map_err(|error| self.failed("attest that it made this key", error))?;
        let (der, own) = found.ok_or(CardFault::System("an attestation that did not come"))?;
        let proves = self.judge(&der, &own, &public);
        Ok((der, own, proves))
    }

    fn judge(&self, der: &[u8], own: &[u8], public: &PublicKey) -> String {
        let serial = self.name_of().serial;
        match attest::verify(der, own, serial, public, &self.settings.roots) {
            Ok(statement) => format!(
                "verified: made on YubiKey {} serial {serial}",
                statement.version.unwrap_or_default()
            ),
            Err(why) => format!("not verified: {why}"),
        }
    }

    fn known(&self) -> Result<CardFacts, CardFault> {
        self.facts
            .as_deref()
            .cloned()
            .ok_or(CardFault::System("a card of which nothing is known"))
    }

    fn needs(&self, needed: Version, what: &str, facts: &CardFacts) -> Result<(), CardFault> {
        if facts.version >= needed {
            return Ok(());
        }
        Err(CardFault::Firmware {
            card: self.name_of(),
            what: what.to_owned(),
            needed,
            found: facts.version,
        })
    }

    /// A secret of this card, existing or to be chosen.
    fn ask(
        &self,
        name: SecretName,
        new_secret: bool,
        refused: String,
        presence: &mut dyn Presence,
    ) -> Result<Secret, StoreError> {
        let what = match name {
            SecretName::Puk(_) => "PUK",
            SecretName::ManagementKey(_) => "management key",
            _ => "PIN",
        };
        let facts = self.facts.as_ref();
        let tries = match name {
            SecretName::Pin(_) if !new_secret => facts.and_then(|facts| facts.pin_tries),
            SecretName::Puk(_) if !new_secret => facts.and_then(|facts| facts.puk_tries),
            _ => None,
        };
        let ask = SecretRequest {
            name: name.clone(),
            role: String::new(),
            gun: String::new(),
            label: String::new(),
            new_secret,
            refused,
            attempts_left: 1,
            card: Some(OfCard {
                card: self.name_of(),
                tries_left: tries.unwrap_or(0),
                key: None,
                cards: 0,
            }),
        };
        match presence.secret(ask) {
            Ok(given) => {
                presence.accepted(&name, given.grade);
                Ok(given.secret)
            }
            Err(NoSecret::Unavailable) => Err(CardFault::Wanted {
                card: self.name_of(),
                what,
            }
            .into()),
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// A new PIN or PUK that can be one.
    fn ask_new(&self, name: SecretName, presence: &mut dyn Presence) -> Result<Secret, StoreError> {
        let mut refused = String::new();
        for _ in 0..3 {
            let secret = self.ask(name.clone(), true, refused, presence)?;
            match pin::check_new(secret.expose()) {
                Ok(()) => return Ok(secret),
                Err(why) => refused = why.to_string(),
            }
        }
        Err(CardFault::BadPin {
            card: self.name_of(),
            why: BadPin::Length,
        }
        .into())
    }

    fn ask_management(
        &self,
        facts: &CardFacts,
        presence: &mut dyn Presence,
    ) -> Result<ManagementKey, StoreError> {
        let name = SecretName::ManagementKey(facts.serial);
        let typed = match self.ask(name, false, String::new(), presence) {
            Err(StoreError::Card(CardFault::Wanted { card, .. })) => {
                return Err(CardFault::ManagementKey(card).into());
            }
            typed => typed?,
        };
        let digits = typed.expose().trim_ascii();
        let mut key = Zeroizing::new(vec![0; digits.len() / 2]);
        let cipher = Cipher::from_name(facts.management).unwrap_or(Cipher::TripleDes);
        hex::decode_to_slice(digits, &mut key[..])
            .ok()
            .filter(|()| key.len() == cipher.key_len())
            .ok_or_else(|| CardFault::WrongManagementKey(self.name_of()))?;
        Ok(ManagementKey { cipher, key })
    }
}
