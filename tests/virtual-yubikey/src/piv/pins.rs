//! PIN and PUK: verified, changed, unblocked, counted.

use super::{Piv, slot};
use crate::apdu::{Answer, Command, Status};
use crate::credential::{LENGTH, new_value};

impl Piv {
    /// VERIFY (SP 800-73-4 part 2, 3.2.1).
    pub(super) fn verify(&mut self, command: &Command) -> Answer {
        if command.p2 != slot::PIN {
            return Err(Status::NO_REFERENCE);
        }
        match (command.p1, command.data.len()) {
            (0, 0) if self.session.pin_verified => Ok(Vec::new()),
            (0, 0) => Err(self.pin.status()),
            (0, LENGTH) => {
                self.session.pin_verified = false;
                self.session.pin_fresh = false;
                self.pin.check(&command.data)?;
                self.session.pin_verified = true;
                self.session.pin_fresh = true;
                Ok(Vec::new())
            }
            (0, _) => Err(Status::DATA),
            (0xff, 0) if self.firmware.forgets_pin() => {
                self.session.pin_verified = false;
                self.session.pin_fresh = false;
                Ok(Vec::new())
            }
            _ => Err(Status::PARAMETERS),
        }
    }

    /// CHANGE REFERENCE DATA (3.2.2).
    pub(super) fn change_reference(&mut self, command: &Command) -> Answer {
        let (old, new) = halves(&command.data)?;
        if command.p1 != 0 {
            return Err(Status::PARAMETERS);
        }
        let credential = match command.p2 {
            slot::PIN => &mut self.pin,
            slot::PUK => &mut self.puk,
            _ => return Err(Status::NO_REFERENCE),
        };
        // The old one is counted first: ykman blocks a PUK by guesses with no new PIN.
        if let Err(status) = credential.check(old) {
            if command.p2 == slot::PIN {
                self.session.pin_verified = false;
                self.session.pin_fresh = false;
            }
            return Err(status);
        }
        credential.set(new_value(new)?);
        Ok(Vec::new())
    }

    /// RESET RETRY COUNTER (3.2.3): the PUK, and a new PIN.
    pub(super) fn reset_retry(&mut self, command: &Command) -> Answer {
        if (command.p1, command.p2) != (0, slot::PIN) {
            return Err(Status::PARAMETERS);
        }
        let (puk, new) = halves(&command.data)?;
        self.puk.check(puk)?;
        self.pin.set(new_value(new)?);
        Ok(Vec::new())
    }

    /// SET PIN RETRIES: both back to the factory's value.
    pub(super) fn set_retries(&mut self, command: &Command) -> Answer {
        if !self.session.managed || !self.session.pin_verified {
            return Err(Status::SECURITY);
        }
        if command.p1 == 0 || command.p2 == 0 {
            return Err(Status::DATA);
        }
        self.pin.set_tries(command.p1);
        self.puk.set_tries(command.p2);
        Ok(Vec::new())
    }
}

fn halves(data: &[u8]) -> Result<(&[u8], &[u8]), Status> {
    if data.len() != 2 * LENGTH {
        return Err(Status::DATA);
    }
    Ok(data.split_at(LENGTH))
}
