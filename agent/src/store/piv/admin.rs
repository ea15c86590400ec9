//! What changes a card, as a store does it: every secret is asked for before anything is changed,
//! then all of it happens in one transaction, after which the card has forgotten PIN and management
//! key.

use signet_trust::{Algorithm, KeyId, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::{
    CardFacts, CardFault, CardStore, NewKey, PinPolicy, Purpose, Slot, SlotFacts, StoreError,
    TouchPolicy, Version, apdu, applet, attest,
    card::{CardError, Exchange},
    certificate, facts,
    pin::{self, BadPin, FACTORY_PIN, FACTORY_PUK},
    provision::{self, Cipher, ManagementKey},
    sign::Need,
};
use crate::{
    key::Secret,
    presence::{CardName, NoSecret, OfCard, Presence, SecretName, SecretRequest, Wait},
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
            let input = super::encode::input(new.algorithm, Purpose::Certificate, &body)
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
            provision::put_certificate(card, slot, &der)?;
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
        super::encode::signature(algorithm, signature)
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

    /// Leaves no factory PIN, PUK or management key; finishes what an interrupted run began.
    ///
    /// # Errors
    ///
    /// [`CardFault`], and what the person said.
    pub fn set_up(
        &mut self,
        how: SetUp,
        presence: &mut dyn Presence,
    ) -> Result<Recovery, StoreError> {
        self.may_be_busy(presence);
        let facts = CardFacts::clone(&*self.refresh()?);
        let serial = facts.serial;
        let tells = facts.version >= Version::METADATA;
        // Older firmware does not tell: whoever sets it up gives what is on it now.
        let factory_pin = tells && facts.defaults[0];
        let old_pin = match factory_pin {
            true => Secret::copy_of(FACTORY_PIN),
            false => self.ask(SecretName::Pin(serial), false, String::new(), presence)?,
        };
        if !factory_pin {
            pin::check(old_pin.expose()).map_err(|why| CardFault::BadPin {
                card: self.name_of(),
                why,
            })?;
            match self.read_tries()? {
                Some(0) => return Err(self.blocked("PIN").into()),
                Some(1) if !presence.use_last_try() => {
                    return Err(CardFault::LastTry(self.name_of()).into());
                }
                _ => {}
            }
        }
        let new_pin = match factory_pin || old_pin.expose() == FACTORY_PIN {
            true => self.ask_new(SecretName::Pin(serial), presence)?,
            false => Secret::copy_of(old_pin.expose()),
        };
        let old_puk = match (tells, facts.defaults[1] || how.tries.is_some()) {
            (_, true) => Some(Secret::copy_of(FACTORY_PUK)),
            (true, false) => None,
            (false, false) => {
                Some(self.ask(SecretName::Puk(serial), false, String::new(), presence)?)
            }
        };
        let puk = match &old_puk {
            Some(_) => random_puk(new_pin.expose())?,
            None => Secret::copy_of(&[]),
        };
        let known = match (facts.protected, tells && !facts.defaults[2]) {
            (false, true) => match self.stored_unflagged(&facts, &old_pin)? {
                true => None,
                false => Some(self.ask_management(&facts, presence)?),
            },
            _ => None,
        };
        let fresh = ManagementKey::random(Cipher::best(facts.version))
            .map_err(|_| CardFault::System("the system has no randomness"))?;
        let mut step = Step::Slot;
        let mut status = apdu::OK;
        let mut used = None;
        self.ready()?;
        let done = self.on_card(&mut |card| {
            let mut take = |card_status: u16, at: Step| {
                (status, step) = (card_status, at);
                match card_status {
                    apdu::OK => Ok(()),
                    other => Err(CardError::Status(other)),
                }
            };
            take(applet::verify(card, old_pin.expose())?, Step::Pin)?;
            let old = current_management(card, &facts, known.as_ref());
            take(
                match &old {
                    Ok(_) => apdu::OK,
                    Err(CardError::Status(status)) => *status,
                    Err(error) => return Err(error.clone()),
                },
                Step::Management,
            )?;
            let old = old?;
            let mut current: &[u8] = old_pin.expose();
            if let Some((pin, puk)) = how.tries {
                provision::set_tries(card, pin, puk)?;
                current = FACTORY_PIN;
            }
            if current != new_pin.expose() {
                let status = provision::change(card, applet::PIN, current, new_pin.expose())?;
                take(status, Step::Pin)?;
            }
            if let Some(old) = &old_puk {
                let status = provision::change(card, applet::PUK, old.expose(), puk.expose())?;
                take(status, Step::Puk)?;
            }
            take(applet::verify(card, new_pin.expose())?, Step::Pin)?;
            let keep = facts.protected && !facts.defaults[2] && used_is_stored(card, &old)?;
            let key = if keep { &old } else { &fresh };
            if !keep {
                provision::authenticate(card, &old)?;
                provision::store_key(card, &key.key)?;
                provision::set_management_key(card, key)?;
                provision::authenticate(card, key)?;
                provision::flag_stored_key(card)?;
            }
            used = Some((key.cipher, Secret::copy_of(hex_of(&key.key).as_bytes())));
            // Forgets PIN and management key.
            applet::select(card)
        });
        if done.is_err() && self.card.is_some() {
            // As above; a card that is gone has forgotten them.
            let _ = self.on_card(&mut applet_select);
        }
        presence.waits(Wait::Over);
        self.held.drop_all();
        if let Err(error) = done {
            return Err(self.refusal(step, status, error).into());
        }
        self.arrive()?;
        let (cipher, management_key) =
            used.ok_or(CardFault::System("a card that was not set up"))?;
        Ok(Recovery {
            puk,
            management_key,
            algorithm: cipher.name(),
        })
    }

    /// An interrupted run stored the key and did not say so.
    fn stored_unflagged(&mut self, facts: &CardFacts, pin: &Secret) -> Result<bool, CardFault> {
        let mut found = false;
        self.ready()?;
        let looked = self.on_card(&mut |card| {
            let status = applet::verify(card, pin.expose())?;
            if status != apdu::OK {
                return Err(CardError::Status(status));
            }
            if let Some(key) = provision::stored_key(card)?
                && let Some(cipher) = Cipher::from_name(facts.management)
            {
                found = provision::authenticate(card, &ManagementKey { cipher, key }).is_ok();
            }
            applet::select(card)
        });
        match looked {
            Ok(()) => Ok(found),
            Err(CardError::Status(status)) => {
                Err(self.refusal(Step::Pin, status, CardError::Status(status)))
            }
            Err(error) => Err(self.unreachable(error)),
        }
    }

    fn blocked(&self, what: &'static str) -> CardFault {
        CardFault::Blocked {
            card: self.name_of(),
            what,
        }
    }

    /// What a refused PIN, PUK or management key is called.
    fn refusal(&mut self, step: Step, status: u16, error: CardError) -> CardFault {
        let card = self.name_of();
        let what = match step {
            Step::Puk => "PUK",
            Step::Management => return CardFault::WrongManagementKey(card),
            _ => "PIN",
        };
        match (step, apdu::tries(status)) {
            (Step::Pin | Step::Puk, Some(0)) => {
                if step == Step::Pin {
                    self.set_tries(0);
                }
                self.blocked(what)
            }
            (Step::Pin | Step::Puk, Some(tries)) => {
                if step == Step::Pin {
                    self.set_tries(tries);
                }
                CardFault::Wrong { card, what, tries }
            }
            _ => self.failed("be set up", error),
        }
    }

    /// Changes the PIN, knowing the old one or the PUK.
    ///
    /// # Errors
    ///
    /// [`CardFault`], and what the person said.
    pub fn change_pin(
        &mut self,
        with_puk: bool,
        presence: &mut dyn Presence,
    ) -> Result<(), StoreError> {
        self.change_reference(applet::PIN, with_puk, presence)
    }

    /// Changes the PUK, knowing the old one.
    ///
    /// # Errors
    ///
    /// As [`CardStore::change_pin`].
    pub fn change_puk(&mut self, presence: &mut dyn Presence) -> Result<(), StoreError> {
        self.change_reference(applet::PUK, true, presence)
    }

    fn change_reference(
        &mut self,
        reference: u8,
        with_puk: bool,
        presence: &mut dyn Presence,
    ) -> Result<(), StoreError> {
        self.may_be_busy(presence);
        let facts = CardFacts::clone(&*self.refresh()?);
        let serial = facts.serial;
        let (known, what, tries) = match with_puk {
            true => (SecretName::Puk(serial), "PUK", facts.puk_tries),
            false => (SecretName::Pin(serial), "PIN", facts.pin_tries),
        };
        match tries {
            Some(0) => return Err(self.blocked(what).into()),
            Some(1) if !presence.use_last_try() => {
                return Err(CardFault::LastTry(self.name_of()).into());
            }
            _ => {}
        }
        let old = self.ask(known, false, String::new(), presence)?;
        pin::check(old.expose()).map_err(|why| CardFault::BadPin {
            card: self.name_of(),
            why,
        })?;
        let name = match reference {
            applet::PIN => SecretName::Pin(serial),
            _ => SecretName::Puk(serial),
        };
        let new = self.ask_new(name, presence)?;
        if with_puk && reference == applet::PIN && old.same_as(&new) {
            return Err(CardFault::BadPin {
                card: self.name_of(),
                why: BadPin::Same,
            }
            .into());
        }
        self.ready()?;
        let mut status = apdu::OK;
        let done = self.on_card(&mut |card| {
            status = match (reference, with_puk) {
                (applet::PIN, true) => provision::unblock(card, old.expose(), new.expose())?,
                _ => provision::change(card, reference, old.expose(), new.expose())?,
            };
            match status {
                apdu::OK => Ok(()),
                status => Err(CardError::Status(status)),
            }
        });
        self.held.drop_all();
        let step = if with_puk { Step::Puk } else { Step::Pin };
        done.map_err(|error| self.refusal(step, status, error))?;
        self.refresh()?;
        Ok(())
    }

    /// Puts the application back to factory: every key on it is lost.
    ///
    /// # Errors
    ///
    /// [`CardFault`].
    pub fn reset_card(&mut self) -> Result<(), CardFault> {
        self.ready()?;
        self.held.drop_all();
        self.on_card(&mut |card| provision::reset(card))
            .map_err(|error| self.failed("be reset", error))?;
        self.arrive().map(drop)
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

fn applet_select(card: &mut dyn Exchange) -> Result<(), CardError> {
    applet::select(card)
}

fn hex_of(key: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(key))
}

/// Whether the key in use is the one stored under the PIN.
fn used_is_stored(card: &mut dyn Exchange, used: &ManagementKey) -> Result<bool, CardError> {
    Ok(provision::stored_key(card)?.is_some_and(|stored| stored[..] == used.key[..]))
}

/// Authenticates by the key given, the one stored under the PIN, or the factory's; which it was.
fn current_management(
    card: &mut dyn Exchange,
    facts: &CardFacts,
    given: Option<&ManagementKey>,
) -> Result<ManagementKey, CardError> {
    let cipher = Cipher::from_name(facts.management);
    let mut known = Vec::new();
    if let Some(given) = given {
        known.push(ManagementKey {
            cipher: given.cipher,
            key: given.key.clone(),
        });
    } else {
        if let Some(key) = provision::stored_key(card)? {
            known.extend(
                cipher
                    .or(Some(Cipher::TripleDes))
                    .filter(|cipher| cipher.key_len() == key.len())
                    .map(|cipher| ManagementKey { cipher, key }),
            );
        }
        let factory = ManagementKey::factory(facts.version);
        known.push(ManagementKey {
            cipher: cipher
                .filter(|cipher| cipher.key_len() == factory.key.len())
                .unwrap_or(factory.cipher),
            key: factory.key,
        });
    }
    let mut refused = CardError::Status(apdu::NOT_SATISFIED);
    for key in known {
        match provision::authenticate(card, &key) {
            Ok(()) => return Ok(key),
            Err(error @ CardError::Status(_)) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
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

/// Eight random digits that are neither the factory's nor the PIN.
fn random_puk(pin: &[u8]) -> Result<Secret, CardFault> {
    loop {
        let mut digits = Zeroizing::new([0u8; 8]);
        for digit in digits.iter_mut() {
            *digit = loop {
                let mut byte = [0];
                getrandom::fill(&mut byte)
                    .map_err(|_| CardFault::System("the system has no randomness"))?;
                // Of 250 values each digit has 25.
                if byte[0] < 250 {
                    break b'0' + byte[0] % 10;
                }
            };
        }
        if digits[..] != *FACTORY_PUK && digits[..] != *pin {
            return Ok(Secret::copy_of(&digits[..]));
        }
    }
}
