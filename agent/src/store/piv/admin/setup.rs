//! A card set up: no factory PIN, PUK or management key, in ykman's layout. Its PIN and PUK changed,
//! and the way back to the factory.

use zeroize::Zeroizing;

use super::{Recovery, SetUp, Step};
use crate::{
    key::Secret,
    presence::{Presence, SecretName, Wait},
    store::{
        StoreError,
        piv::{
            CardFacts, CardFault, CardStore, Version, apdu, applet,
            card::{CardError, Exchange},
            pin::{self, BadPin, FACTORY_PIN, FACTORY_PUK},
            provision::{self, Cipher, ManagementKey},
        },
    },
};

impl CardStore {
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
        self.ready_for_pin()?;
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
        self.ready_for_pin()?;
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
        self.ready_for_pin()?;
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
        self.ready_for_pin()?;
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
        self.ready_for_pin()?;
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
