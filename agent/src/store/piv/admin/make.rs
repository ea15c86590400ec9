//! Keys made on a card, or put there: in one transaction from the management key to the certificate.

use signet_trust::{Algorithm, PrivateKey, PublicKey};

use super::{Made, NewOnCard, Step};
use crate::{
    presence::{CardName, Presence, Wait},
    store::{
        Purpose, StoreError,
        piv::{
            CardFacts, CardFault, CardStore, Slot, SlotFacts, TouchPolicy, Version, apdu, applet,
            attest,
            card::{CardError, Exchange},
            certificate, encode, facts,
            provision::{self, Cipher, ManagementKey},
            sign::Need,
        },
    },
};

/// Where the key of an operation comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    Here,
    Elsewhere(&'a PrivateKey),
}

impl CardStore {
    /// Makes a key on the card, with its attestation and a certificate.
    ///
    /// # Errors
    ///
    /// [`CardFault`], and what the person said.
    pub fn generate_on_card(
        &mut self,
        new: &NewOnCard,
        presence: &mut dyn Presence,
    ) -> Result<Made, StoreError> {
        self.provide(new, Origin::Here, presence)
    }

    /// Puts a key onto the card, proves it by a signature, and gives it a certificate.
    ///
    /// # Errors
    ///
    /// As [`CardStore::generate_on_card`].
    pub fn import_to_card(
        &mut self,
        key: &PrivateKey,
        new: &NewOnCard,
        presence: &mut dyn Presence,
    ) -> Result<Made, StoreError> {
        self.provide(new, Origin::Elsewhere(key), presence)
    }

    /// Slots that `new` may go to, best first.
    fn candidates(&self, new: &NewOnCard, facts: &CardFacts) -> Result<Vec<Slot>, CardFault> {
        let held = |slot: &SlotFacts| match slot.id {
            Some(id) => format!("key {id}"),
            None => "a key that cannot be read".to_owned(),
        };
        let Some(slot) = new.slot else {
            let free: Vec<Slot> = Slot::for_new_keys()
                .filter(|slot| facts.slot(*slot).is_none())
                .collect();
            return match free.is_empty() {
                true => Err(CardFault::Full(self.name_of())),
                false => Ok(free),
            };
        };
        match facts.slot(slot) {
            Some(there) if there.id.is_none() || there.id != new.overwrite => {
                Err(CardFault::Taken {
                    card: self.name_of(),
                    slot,
                    held: held(there),
                })
            }
            _ => Ok(vec![slot]),
        }
    }

    fn provide(
        &mut self,
        new: &NewOnCard,
        origin: Origin<'_>,
        presence: &mut dyn Presence,
    ) -> Result<Made, StoreError> {
        self.may_be_busy(presence);
        let facts = CardFacts::clone(&*self.refresh()?);
        self.check_new(new, origin, &facts)?;
        let candidates = self.candidates(new, &facts)?;
        let management = match facts.protected {
            true => None,
            false => Some(self.ask_management(&facts, presence)?),
        };
        let mut serial = [0; 16];
        getrandom::fill(&mut serial)
            .map_err(|_| CardFault::System("the system has no randomness"))?;
        let need = Need {
            pin: true,
            always: true,
            by_touch: false,
            again: false,
            slot: new.slot,
            key: None,
            what: match origin {
                Origin::Here => "make a key",
                Origin::Elsewhere(_) => "take in a key",
            },
        };
        let touch = self.touch_of_new(new);
        let (mut step, mut occupied) = (Step::Management, None);
        let made = self.with_pin(&need, presence, &mut |card, presence| {
            step = Step::Management;
            authenticate(card, &facts, management.as_ref())?;
            step = Step::Slot;
            let Some(slot) = free_slot(card, &candidates, new, &facts, &mut occupied)? else {
                return Ok(None);
            };
            step = Step::Key;
            let policies = (new.pin, new.touch);
            let public = match origin {
                Origin::Here => provision::generate(card, slot, new.algorithm, policies)?,
                Origin::Elsewhere(key) => {
                    let material = (new.algorithm, key.expose_material());
                    provision::import(card, slot, material, policies)?;
                    key.public().clone()
                }
            };
            let attestation = match origin {
                Origin::Here => attestation(card, slot, facts.version)?,
                Origin::Elsewhere(_) => None,
            };
            step = Step::Proof;
            let body = certificate::to_be_signed(&new.name, new.algorithm, &public, serial);
            let input = encode::input(new.algorithm, Purpose::Certificate, &body)
                .ok()
                .flatten()
                .ok_or(CardError::Malformed("nothing to sign"))?;
            if let Some(touch) = &touch {
                presence.waits(touch.clone());
            }
            let signed = applet::sign(card, slot, new.algorithm, &input);
            presence.waits(Wait::Over);
            if signed.is_err() && facts.version >= Version::CURVES {
                // A key that nobody knows of is of no use to anybody; where the card cannot delete
                // it, the slot says so from now on.
                let _ = provision::delete(card, slot);
            }
            let signature = signed?;
            step = Step::Certificate;
            let der = certificate::finish(&body, new.algorithm, &signature);
            let written = provision::put_certificate(card, slot, &der);
            if written.is_err() && facts.version >= Version::CURVES {
                // As above: what is not enrolled is of no use.
                let _ = provision::delete(card, slot);
            }
            written?;
            Ok(Some((slot, public, attestation, body, signature)))
        });
        let made = match made {
            Ok(made) => made,
            Err(StoreError::Card(CardFault::Status {
                status, card, what, ..
            })) => {
                self.forget_slots();
                return Err(match (step, status) {
                    (Step::Management, _) => CardFault::WrongManagementKey(card),
                    (Step::Proof, apdu::NOT_SATISFIED) => CardFault::NotTouched(card),
                    _ => CardFault::Status { card, what, status },
                }
                .into());
            }
            Err(error) => {
                self.forget_slots();
                return Err(error);
            }
        };
        let Some((slot, public, attestation, body, signature)) = made else {
            self.forget_slots();
            return Err(occupied
                .unwrap_or_else(|| CardFault::Full(self.name_of()))
                .into());
        };
        self.prove(slot, new.algorithm, &public, &body, &signature)?;
        let mut there = SlotFacts::empty(slot);
        there.set_public(public.clone());
        there.pin = Some(new.pin);
        there.touch = Some(new.touch);
        there.generated = Some(matches!(origin, Origin::Here));
        there.subject = Some(new.name.clone());
        self.change_facts(|facts| {
            facts.slots.retain(|known| known.slot != slot);
            facts.slots.push(there.clone());
            facts.slots.sort_by_key(|known| known.slot);
        });
        let proves = match &attestation {
            Some((der, own)) => self.judge(der, own, &public),
            None => String::new(),
        };
        Ok(Made {
            slot: there,
            attestation,
            proves,
        })
    }

    /// Another look at the slots is due.
    fn forget_slots(&mut self) {
        // Where the card is gone it is read when it comes back.
        if let Err(error) = self.arrive() {
            tracing::debug!(%error, "a card could not be read again");
        }
    }

    fn prove(
        &self,
        slot: Slot,
        algorithm: Algorithm,
        public: &PublicKey,
        body: &[u8],
        signature: &[u8],
    ) -> Result<(), CardFault> {
        let method = match algorithm {
            Algorithm::Rsa(_) => signet_trust::Method::RsaPkcs1v15,
            _ => public.method(),
        };
        encode::signature(algorithm, signature)
            .ok()
            .filter(|plain| public.verify(method, body, plain).is_ok())
            .map(drop)
            .ok_or_else(|| CardFault::Unverified {
                card: self.name_in(slot),
                id: public.id(),
            })
    }

    fn check_new(
        &self,
        new: &NewOnCard,
        origin: Origin<'_>,
        facts: &CardFacts,
    ) -> Result<(), StoreError> {
        let card = self.name_of();
        match new.algorithm {
            Algorithm::Ed25519 => self.needs(Version::CURVES, "Ed25519", facts)?,
            Algorithm::Rsa(3072 | 4096) => {
                self.needs(Version::CURVES, &new.algorithm.name(), facts)?;
            }
            Algorithm::Rsa(2048) | Algorithm::P256 | Algorithm::P384 => {}
            Algorithm::Rsa(bits) => {
                return Err(StoreError::Unsupported(format!(
                    "a card takes no RSA key of {bits} bits"
                )));
            }
        }
        if matches!((new.algorithm, origin), (Algorithm::Rsa(_), Origin::Here))
            && facts.version.has_roca()
        {
            return Err(StoreError::Unsupported(format!(
                "RSA keys made by the firmware {} of {card} can be factored (ROCA); use p256, or \
                 import an RSA key",
                facts.version
            )));
        }
        if new.touch == TouchPolicy::Cached {
            self.needs(Version::ATTESTATION, "the touch policy `cached`", facts)?;
        }
        for (is, what) in facts
            .defaults
            .into_iter()
            .zip(["PIN", "PUK", "management key"])
        {
            if is {
                return Err(CardFault::Factory { card, what }.into());
            }
        }
        Ok(())
    }

    fn touch_of_new(&self, new: &NewOnCard) -> Option<Wait> {
        let after = match new.touch {
            TouchPolicy::Never => return None,
            TouchPolicy::Always => std::time::Duration::ZERO,
            TouchPolicy::Cached => std::time::Duration::from_millis(200),
        };
        let slot = new.slot.map(|slot| slot.to_string()).unwrap_or_default();
        Some(Wait::Touch {
            card: CardName {
                slot,
                ..self.name_of()
            },
            role: new.role.clone(),
            gun: new.gun.clone(),
            label: new.label.clone(),
            after,
        })
    }
}

fn authenticate(
    card: &mut dyn Exchange,
    facts: &CardFacts,
    given: Option<&ManagementKey>,
) -> Result<(), CardError> {
    if let Some(given) = given {
        return provision::authenticate(card, given);
    }
    let key = provision::stored_key(card)?.ok_or(CardError::Status(apdu::NOT_FOUND))?;
    let cipher = Cipher::from_name(facts.management)
        .or_else(|| {
            // Firmware 5.4 to 5.2 does not tell; the length does.
            [Cipher::TripleDes, Cipher::Aes128, Cipher::Aes256]
                .into_iter()
                .find(|cipher| cipher.key_len() == key.len())
        })
        .ok_or(CardError::Malformed("a management key of no known length"))?;
    provision::authenticate(card, &ManagementKey { cipher, key })
}

/// The first slot in which there is neither key nor certificate, or the one that may be overwritten.
fn free_slot(
    card: &mut dyn Exchange,
    candidates: &[Slot],
    new: &NewOnCard,
    facts: &CardFacts,
    occupied: &mut Option<CardFault>,
) -> Result<Option<Slot>, CardError> {
    for slot in candidates {
        let there = facts::read_slot(card, *slot, facts.version)?;
        let id = there.as_ref().and_then(|there| there.id);
        let free = match (&there, new.overwrite) {
            (None, _) => applet::get_data(card, slot.certificate())?.is_none(),
            (Some(_), overwrite) => id.is_some() && id == overwrite,
        };
        if free || (new.slot.is_some() && there.is_none() && new.overwrite.is_some()) {
            return Ok(Some(*slot));
        }
        *occupied = new.slot.map(|slot| CardFault::Taken {
            card: CardName {
                serial: facts.serial,
                ..CardName::default()
            },
            slot,
            held: match id {
                Some(id) => format!("key {id}"),
                None => "a certificate".to_owned(),
            },
        });
    }
    Ok(None)
}

/// The certificate of a key and that of the card's own attestation key, DER.
type Chain = (Vec<u8>, Vec<u8>);

/// The attestation of a new key, which never fails its making.
fn attestation(
    card: &mut dyn Exchange,
    slot: Slot,
    version: Version,
) -> Result<Option<Chain>, CardError> {
    if version < Version::ATTESTATION {
        return Ok(None);
    }
    let both = attest::fetch(card, slot).and_then(|der| Ok((der, attest::fetch_own(card)?)));
    match both {
        Ok(both) => Ok(Some(both)),
        Err(CardError::Status(_) | CardError::Malformed(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
