//! A card as any other store: what the contract of stores asks of it.

use std::{sync::Arc, time::Duration};

use signet_trust::{Algorithm, KeyId, PrivateKey};

use super::{CardFault, CardStore, NewOnCard, PinPolicy, ToSign};
use crate::{
    key::Secret,
    presence::{Presence, RequestId},
    store::{Hint, KeyStore, Listing, NewKey, Purpose, StoreError, StoredKey, opened::check_new},
};

impl KeyStore for CardStore {
    fn name(&self) -> &'static str {
        "piv"
    }

    fn list(&mut self) -> Result<Listing, StoreError> {
        let facts = match &self.facts {
            Some(facts) => Arc::clone(facts),
            None => self.arrive()?,
        };
        let name = self.name_of();
        let keys = facts.slots.iter().filter_map(|slot| {
            Some(StoredKey {
                id: slot.id?,
                role: (slot.subject.as_deref() == Some("root")).then(|| "root".to_owned()),
                gun: None,
                public: slot.public.clone(),
                path: format!("piv:{}:{}", facts.serial, slot.slot).into(),
                encrypted: slot.pin != Some(PinPolicy::Never),
                problem: slot.problem.clone(),
            })
        });
        let problems = facts.slots.iter().filter_map(|slot| {
            let problem = slot.problem.as_ref().filter(|_| slot.id.is_none())?;
            Some(format!("slot {} of {name}: {problem}", slot.slot))
        });
        Ok(Listing {
            keys: keys.collect(),
            problems: problems.collect(),
        })
    }

    fn sign(
        &mut self,
        id: &KeyId,
        purpose: Purpose,
        message: &[u8],
        presence: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError> {
        let asked = ToSign {
            id: *id,
            purpose,
            message,
        };
        let signed = self.sign_all(&[asked], presence)?;
        let signature = signed.into_iter().next();
        signature.ok_or(CardFault::System("a signature that did not come").into())
    }

    fn open(&mut self, id: &KeyId, _: &mut dyn Presence) -> Result<StoredKey, StoreError> {
        self.list()?
            .keys
            .into_iter()
            .find(|key| key.id == *id)
            .ok_or(StoreError::NotFound(*id))
    }

    fn generate(
        &mut self,
        algorithm: Algorithm,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        let made = self.generate_on_card(&NewOnCard::plain(algorithm, new), presence)?;
        let id = made
            .slot
            .id
            .ok_or(CardFault::System("a key without an ID"))?;
        self.open(&id, presence)
    }

    fn import(
        &mut self,
        key: &PrivateKey,
        new: &NewKey,
        presence: &mut dyn Presence,
    ) -> Result<StoredKey, StoreError> {
        check_new(new)?;
        let (id, new) = (key.id(), NewOnCard::plain(key.algorithm(), new));
        if self.list()?.keys.iter().all(|known| known.id != id) {
            self.import_to_card(key, &new, presence)?;
        }
        // The name of its certificate is all that a card knows of what a key is for.
        let there = self.facts.as_ref().and_then(|facts| facts.slot_of(&id));
        match there.and_then(|slot| slot.subject.clone()) {
            Some(role) if role != new.name => Err(StoreError::Exists { id, role }),
            _ => self.open(&id, presence),
        }
    }

    fn export(
        &mut self,
        _: &KeyId,
        _: &Secret,
        _: &mut dyn Presence,
    ) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Unsupported(
            "a key on a card never leaves it".to_owned(),
        ))
    }

    fn remove(&mut self, id: &KeyId) -> Result<(), StoreError> {
        Err(match self.list()?.keys.iter().any(|key| key.id == *id) {
            true => StoreError::Unsupported(
                "a key on a card is removed by making another in its slot (--overwrite), or by \
                 `signet card reset`"
                    .to_owned(),
            ),
            false => StoreError::NotFound(*id),
        })
    }

    fn change_passphrase(&mut self, _: &KeyId, _: &mut dyn Presence) -> Result<(), StoreError> {
        Err(StoreError::Unsupported(format!(
            "a key on a card has no passphrase; `signet card pin {}` changes the card's PIN",
            self.name_of().serial
        )))
    }

    fn hint(&mut self, id: &KeyId, hint: Hint) {
        self.hints.insert(*id, hint);
    }

    fn expire(&mut self) -> Option<Duration> {
        let idle = self
            .card
            .as_ref()
            .map(|_| self.settings.idle.saturating_sub(self.last_use.elapsed()));
        let idle = match idle {
            Some(Duration::ZERO) => {
                self.take_back();
                self.let_go();
                None
            }
            idle => idle,
        };
        let held = self.held.expire(&self.clock);
        idle.into_iter().chain(held).min()
    }

    fn end_request(&mut self, request: RequestId) {
        self.refused.retain(|(of, _)| *of != request);
        if self
            .good
            .as_ref()
            .is_some_and(|good| good.request == request)
        {
            self.good = None;
        }
    }

    fn lock(&mut self) {
        self.held.drop_all();
        self.refused.clear();
        self.good = None;
        self.take_back();
        self.let_go();
    }
}
