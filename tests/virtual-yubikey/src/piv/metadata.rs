//! GET METADATA: what the card says of its own secrets (Yubico, firmware 5.3).

use super::{Piv, slot};
use crate::apdu::{Answer, Command, Status};
use crate::credential::Credential;
use crate::tlv::encode;

impl Piv {
    pub(super) fn metadata(&self, command: &Command) -> Answer {
        if command.p1 != 0 {
            return Err(Status::PARAMETERS);
        }
        match command.p2 {
            slot::PIN => Ok(of_credential(&self.pin)),
            slot::PUK => Ok(of_credential(&self.puk)),
            slot::MANAGEMENT => {
                let touch = if self.management.touch { 2 } else { 1 };
                let elements = [
                    encode(1, &[self.management.algorithm().id()]),
                    encode(2, &[0, touch]),
                    encode(5, &[u8::from(self.management.is_default())]),
                ];
                Ok(elements.concat())
            }
            other => {
                let key = self.keys.get(&other).ok_or(Status::NO_REFERENCE)?;
                let elements = [
                    encode(1, &[key.key.algorithm().id()]),
                    encode(2, &[key.pin_policy, key.touch_policy]),
                    encode(3, &[key.origin as u8]),
                    encode(4, &key.key.public()),
                ];
                Ok(elements.concat())
            }
        }
    }
}

fn of_credential(credential: &Credential) -> Vec<u8> {
    [
        encode(1, &[0xff]),
        encode(5, &[u8::from(credential.is_default())]),
        encode(6, &[credential.total(), credential.left()]),
    ]
    .concat()
}
