//! GENERAL AUTHENTICATE: signatures, shared secrets, and proving the management key.

use std::time::Instant;

use super::objects::required;
use super::{Piv, policy, slot};
use crate::apdu::{Answer, Command, Status};
use crate::keys::{Algorithm, random};
use crate::management;
use crate::tlv::{all, encode, find, split};

impl Piv {
    pub(super) fn authenticate(&mut self, command: &Command) -> Answer {
        let Some((0x7c, template, _)) = split(&command.data) else {
            return Err(Status::DATA);
        };
        let elements = all(template).ok_or(Status::DATA)?;
        if command.p2 == slot::MANAGEMENT {
            return self.prove_management(command.p1, &elements);
        }
        let key = self.keys.get(&command.p2).ok_or(Status::DATA)?;
        let algorithm = Algorithm::from_id(command.p1);
        // Attestations are all that the key in F9 signs.
        if command.p2 == slot::ATTESTATION || algorithm != Some(key.key.algorithm()) {
            return Err(Status::DATA);
        }
        let (pin_policy, touch_policy) = (key.pin_policy, key.touch_policy);
        let verified = match pin_policy {
            policy::PIN_NEVER => true,
            policy::PIN_ALWAYS => self.session.pin_fresh,
            _ => self.session.pin_verified,
        };
        if !verified {
            return Err(Status::SECURITY);
        }
        self.session.pin_fresh = false;
        self.touched(touch_policy)?;
        let key = self.keys.get(&command.p2).ok_or(Status::DATA)?;
        let result = match (find(&elements, 0x81), find(&elements, 0x85)) {
            (Some(input), _) => key.key.sign(input)?,
            (None, Some(point)) => key.key.agree(point)?,
            (None, None) => return Err(Status::DATA),
        };
        Ok(encode(0x7c, &encode(0x82, &result)))
    }

    fn touched(&mut self, touch_policy: u8) -> Result<(), Status> {
        let window = self.touch.cached();
        let open = self.touched.is_some_and(|at| at.elapsed() < window);
        let cached = touch_policy == policy::TOUCH_CACHED;
        if touch_policy == policy::TOUCH_NEVER || (cached && open) {
            return Ok(());
        }
        if !self.touch.wait(self.session.pin_verified) {
            return Err(Status::SECURITY);
        }
        if cached {
            self.touched = Some(Instant::now());
        }
        Ok(())
    }

    /// Both ways of SP 800-73-4 part 2, 3.2.4: the mutual one, begun by an empty witness, and the
    /// single one, begun by an empty challenge.
    fn prove_management(&mut self, algorithm: u8, elements: &[(u16, &[u8])]) -> Answer {
        let known = management::Algorithm::from_id(algorithm);
        if known != Some(self.management.algorithm()) {
            return Err(Status::DATA);
        }
        let block = self.management.algorithm().block();
        let fresh = || random::<16>().get(..block).unwrap_or_default().to_vec();
        let witness = self.session.witness.take();
        let challenge = self.session.challenge.take();
        if find(elements, 0x80).is_some_and(<[u8]>::is_empty) {
            let fresh = fresh();
            let hidden = self.management.encrypt(&fresh).ok_or(Status::DATA)?;
            self.session.witness = Some(fresh);
            return Ok(encode(0x7c, &encode(0x80, &hidden)));
        }
        if find(elements, 0x81).is_some_and(<[u8]>::is_empty) {
            let fresh = fresh();
            let answer = encode(0x7c, &encode(0x81, &fresh));
            self.session.challenge = Some(fresh);
            return Ok(answer);
        }
        self.session.managed = false;
        if let Some(shown) = find(elements, 0x80) {
            if witness.as_deref() != Some(shown) {
                return Err(Status::SECURITY);
            }
            let theirs = required(elements, 0x81)?;
            let answer = self.management.encrypt(theirs).ok_or(Status::DATA)?;
            self.touch_for_management()?;
            self.session.managed = true;
            return Ok(encode(0x7c, &encode(0x82, &answer)));
        }
        let response = required(elements, 0x82)?;
        let wanted = challenge.and_then(|challenge| self.management.encrypt(&challenge));
        if wanted.as_deref() != Some(response) {
            return Err(Status::SECURITY);
        }
        self.touch_for_management()?;
        self.session.managed = true;
        Ok(Vec::new())
    }

    fn touch_for_management(&mut self) -> Result<(), Status> {
        if self.management.touch {
            self.touched(policy::TOUCH_ALWAYS)?;
        }
        Ok(())
    }
}
