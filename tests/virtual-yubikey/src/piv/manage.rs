//! What the management key allows: keys made, brought, moved, deleted, attested; and the way back
//! to the factory.

use super::objects::required;
use super::select::FORM;
use super::{Origin, Piv, SlotKey, objects, policy, slot};
use crate::apdu::{Answer, Command, Status};
use crate::attest::{self, Statement};
use crate::credential::Credential;
use crate::keys::{Algorithm, PrivateKey};
use crate::management::{self, ManagementKey};
use crate::tlv::{all, encode, find, split};

impl Piv {
    /// GENERATE ASYMMETRIC KEY PAIR (SP 800-73-4 part 2, 3.3.2).
    pub(super) fn generate(&mut self, command: &Command) -> Answer {
        self.writable(command.p2)?;
        let Some((0xac, template, [])) = split(&command.data) else {
            return Err(Status::DATA);
        };
        let elements = all(template).ok_or(Status::DATA)?;
        let [id] = *required(&elements, 0x80)? else {
            return Err(Status::DATA);
        };
        let algorithm = self.algorithm(id)?;
        let (pin_policy, touch_policy) = self.policies(command.p2, &elements)?;
        let key = PrivateKey::generate(algorithm)?;
        let answer = encode(0x7f49, &key.public());
        let made = SlotKey {
            key,
            pin_policy,
            touch_policy,
            origin: Origin::Generated,
        };
        self.keys.insert(command.p2, made);
        Ok(answer)
    }

    /// IMPORT ASYMMETRIC KEY (Yubico, INS FE).
    pub(super) fn import(&mut self, command: &Command) -> Answer {
        self.writable(command.p2)?;
        let algorithm = self.algorithm(command.p1)?;
        let elements = all(&command.data).ok_or(Status::DATA)?;
        let (pin_policy, touch_policy) = self.policies(command.p2, &elements)?;
        let brought = SlotKey {
            key: PrivateKey::import(algorithm, &elements)?,
            pin_policy,
            touch_policy,
            origin: Origin::Imported,
        };
        self.keys.insert(command.p2, brought);
        Ok(Vec::new())
    }

    fn writable(&self, place: u8) -> Result<(), Status> {
        if !self.session.managed {
            return Err(Status::SECURITY);
        }
        if !slot::holds_keys(place) {
            return Err(Status::PARAMETERS);
        }
        Ok(())
    }

    fn algorithm(&self, id: u8) -> Result<Algorithm, Status> {
        Algorithm::from_id(id)
            .filter(|algorithm| algorithm.known_to(self.firmware))
            .ok_or(Status::DATA)
    }

    /// The policies asked for, else those of the slot.
    fn policies(&self, place: u8, elements: &[(u16, &[u8])]) -> Result<(u8, u8), Status> {
        let asked = |tag| match find(elements, tag) {
            None | Some([0]) => Ok(None),
            Some([asked @ 1..=3]) => Ok(Some(*asked)),
            Some(_) => Err(Status::DATA),
        };
        let pin_policy = match place {
            slot::SIGNATURE => policy::PIN_ALWAYS,
            slot::CARD_AUTHENTICATION | slot::ATTESTATION => policy::PIN_NEVER,
            _ => policy::PIN_ONCE,
        };
        Ok((
            asked(0xaa)?.unwrap_or(pin_policy),
            asked(0xab)?.unwrap_or(policy::TOUCH_NEVER),
        ))
    }

    /// ATTEST (Yubico, INS F9): needs neither PIN nor management key.
    pub(super) fn attest(&mut self, command: &Command) -> Answer {
        let missing = if self.firmware.is_5_7() {
            Status::NO_REFERENCE
        } else {
            Status::DATA
        };
        let key = self.keys.get(&command.p1).ok_or(missing)?;
        let signer = self.keys.get(&slot::ATTESTATION).ok_or(missing)?;
        if command.p1 == slot::ATTESTATION || key.origin == Origin::Imported {
            return Err(Status::DATA);
        }
        let statement = Statement {
            firmware: self.firmware,
            serial: self.serial,
            slot: command.p1,
            pin_policy: key.pin_policy,
            touch_policy: key.touch_policy,
            form: FORM,
        };
        Ok(attest::attest(statement, &key.key, &signer.key))
    }

    /// SET MANAGEMENT KEY (Yubico, INS FF).
    pub(super) fn set_management(&mut self, command: &Command) -> Answer {
        if !self.session.managed {
            return Err(Status::SECURITY);
        }
        let touch = match (command.p1, command.p2) {
            (0xff, 0xff) => false,
            (0xff, 0xfe) => true,
            _ => return Err(Status::PARAMETERS),
        };
        let [id, slot::MANAGEMENT, length, ref key @ ..] = *command.data else {
            return Err(Status::DATA);
        };
        let algorithm = management::Algorithm::from_id(id).ok_or(Status::DATA)?;
        let old = algorithm == management::Algorithm::TripleDes;
        if usize::from(length) != key.len() || (!old && !self.firmware.has_aes()) {
            return Err(Status::DATA);
        }
        self.management = ManagementKey::new(algorithm, key, touch).ok_or(Status::DATA)?;
        Ok(Vec::new())
    }

    /// MOVE KEY (Yubico, INS F6): to another slot, or to nowhere.
    pub(super) fn relocate(&mut self, command: &Command) -> Answer {
        const NOWHERE: u8 = 0xff;
        let (to, from) = (command.p1, command.p2);
        self.writable(from)?;
        if to != NOWHERE && (!slot::holds_keys(to) || to == from) {
            return Err(Status::PARAMETERS);
        }
        if from == slot::ATTESTATION && to != NOWHERE || to == slot::ATTESTATION {
            return Err(Status::PARAMETERS);
        }
        if !self.keys.contains_key(&from) {
            return Err(Status::NO_REFERENCE);
        }
        // The place must be free: nothing is overwritten by a move.
        if self.keys.contains_key(&to) {
            return Err(Status::CONDITIONS);
        }
        let key = self.keys.remove(&from).ok_or(Status::NO_REFERENCE)?;
        if to != NOWHERE {
            self.keys.insert(to, key);
        }
        Ok(Vec::new())
    }

    /// RESET (Yubico, INS FB): once PIN and PUK are blocked. The attestation key stays.
    pub(super) fn factory(&mut self, _command: &Command) -> Answer {
        if !self.pin.is_blocked() || !self.puk.is_blocked() {
            return Err(Status::CONDITIONS);
        }
        self.pin = Credential::pin();
        self.puk = Credential::puk();
        self.management = ManagementKey::factory(self.firmware);
        self.keys.retain(|place, _| *place == slot::ATTESTATION);
        self.objects.retain(|id, _| *id == objects::ATTESTATION);
        self.forget();
        Ok(Vec::new())
    }
}
