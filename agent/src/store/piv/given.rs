//! The PIN that a piece of work needs: the one held, or one given for this request; what becomes of
//! it once the card took it, or refused it.

use super::{
    CardFault, CardStore, Good, StoreError, applet,
    fault::left,
    pin,
    sign::{ATTEMPTS, Need},
};
use crate::{
    key::Secret,
    presence::{NoSecret, OfCard, Presence, SecretName, SecretRequest},
};

impl CardStore {
    pub(super) fn read_tries(&mut self) -> Result<Option<u8>, CardFault> {
        let Some(version) = self.facts.as_ref().map(|facts| facts.version) else {
            return Ok(None);
        };
        let mut tries = None;
        self.read(&mut |card| {
            tries = applet::pin_tries(card, version)?;
            Ok(())
        })?
        .map_err(|error| self.failed("tell its tries", error))?;
        if let Some(tries) = tries {
            self.set_tries(tries);
        }
        Ok(tries)
    }

    /// The PIN for `need`: the one held, or one given for this request, with its grade.
    pub(super) fn pin(
        &mut self,
        need: &Need,
        presence: &mut dyn Presence,
        refusal: &mut Option<CardFault>,
    ) -> Result<(Secret, u32), StoreError> {
        let may = presence.may_use_held() || need.by_touch;
        if may
            && refusal.is_none()
            && let Some(pin) = self.held.get(presence.session(), &self.clock)
        {
            return Ok((Secret::copy_of(pin.expose()), 0));
        }
        if refusal.is_none()
            && let Some(good) = &self.good
            && good.request == presence.request()
        {
            return Ok((Secret::copy_of(good.pin.expose()), good.grade));
        }
        let card = match need.slot {
            Some(slot) => self.name_in(slot),
            None => self.name_of(),
        };
        self.read_tries()?;
        let tries = self.facts.as_ref().and_then(|facts| facts.pin_tries);
        if tries == Some(0) {
            return Err(CardFault::Blocked { card, what: "PIN" }.into());
        }
        if tries == Some(1) && !presence.use_last_try() {
            return Err(CardFault::LastTry(card).into());
        }
        let hint = need.key.as_ref().and_then(|id| self.hints.get(id));
        let hint = hint.cloned().unwrap_or_default();
        for attempts_left in (1..=ATTEMPTS).rev() {
            let ask = SecretRequest {
                name: SecretName::Pin(card.serial),
                role: hint.role.clone(),
                gun: hint.gun.clone(),
                label: hint.label.clone(),
                new_secret: false,
                refused: refusal.as_ref().map(words).unwrap_or_default(),
                attempts_left,
                card: Some(OfCard {
                    card: card.clone(),
                    tries_left: tries.unwrap_or(0),
                    key: need.key,
                    cards: 0,
                }),
            };
            let given = match presence.secret(ask) {
                Ok(given) => given,
                Err(NoSecret::Unavailable) => {
                    let wanted = CardFault::Wanted { card, what: "PIN" };
                    return Err(refusal.take().unwrap_or(wanted).into());
                }
                Err(stopped) => return Err(stopped.into()),
            };
            if let Err(why) = pin::check(given.secret.expose()) {
                *refusal = Some(CardFault::BadPin {
                    card: card.clone(),
                    why,
                });
                continue;
            }
            let known = self
                .refused
                .iter()
                .any(|(of, pin)| *of == presence.request() && pin.same_as(&given.secret));
            if known {
                *refusal = Some(CardFault::Wrong {
                    card: card.clone(),
                    what: "PIN",
                    tries: tries.unwrap_or(0),
                });
                continue;
            }
            return Ok((given.secret, given.grade));
        }
        let wanted = CardFault::Wanted { card, what: "PIN" };
        Err(refusal.take().unwrap_or(wanted).into())
    }

    /// The card refused a PIN: it is not sent again for this request, nor held.
    pub(super) fn refused(
        &mut self,
        tries: u8,
        pin: Option<(Secret, u32)>,
        presence: &mut dyn Presence,
    ) -> Result<CardFault, CardFault> {
        self.held.drop_all();
        self.good = None;
        self.set_tries(tries);
        if let Some((pin, _)) = pin {
            self.refused.push((presence.request(), pin));
        }
        let card = self.name_of();
        match tries {
            0 => Err(CardFault::Blocked { card, what: "PIN" }),
            1 if !presence.use_last_try() => Err(CardFault::LastTry(card)),
            tries => Ok(CardFault::Wrong {
                card,
                what: "PIN",
                tries,
            }),
        }
    }

    /// The card took a PIN: held for the terminal session that it was typed in.
    pub(super) fn accept(&mut self, pin: Secret, grade: u32, presence: &mut dyn Presence) {
        let serial = self.name_of().serial;
        if grade == 0 {
            presence.accepted(&SecretName::Pin(serial), 0);
            return;
        }
        let request = presence.request();
        let known = self.good.as_ref().filter(|good| good.request == request);
        // What was given in an earlier call of this request was typed where it was typed then.
        let session = known.map_or_else(|| presence.session(), |good| good.session);
        if known.is_none() {
            // All tries are there again; how many they are is read when it matters.
            self.change_facts(|facts| facts.pin_tries = None);
            self.good = Some(Good {
                request,
                pin: Secret::copy_of(pin.expose()),
                grade,
                session,
            });
        }
        presence.accepted(&SecretName::Pin(serial), grade);
        // What was given where held secrets do not count is held for nobody.
        if presence.may_use_held() {
            self.held
                .keep(pin, session, self.settings.hold, &self.clock);
        }
    }
}

/// A refusal in the words of the next question.
fn words(fault: &CardFault) -> String {
    match fault {
        CardFault::Wrong { tries, what, .. } => format!("wrong {what}; {}", left(*tries)),
        CardFault::BadPin { why, .. } => why.to_string(),
        other => other.to_string(),
    }
}
