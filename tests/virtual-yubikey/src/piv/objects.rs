//! Data objects: certificates, and what tools keep beside them.

use super::Piv;
use crate::apdu::{Answer, Command, Status};
use crate::tlv::{encode, find, split};

/// The discovery object (SP 800-73-4 part 1, 3.3.2): read as it is, never written.
const DISCOVERY: [u8; 20] = [
    0x7e, 0x12, 0x4f, 0x0b, 0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0, 0x5f, 0x2f, 2, 0x40, 0,
];
/// The object of slot F9's certificate.
pub(super) const ATTESTATION: u32 = 0x5f_ff01;
/// Bytes of one object at most (Yubico, PUT DATA).
const LARGEST: usize = 3063;

impl Piv {
    pub(super) fn get_data(&mut self, command: &Command) -> Answer {
        let (name, _) = named(command)?;
        if name == [0x7e] {
            return Ok(DISCOVERY.to_vec());
        }
        let id = number(name)?;
        // Printed information, fingerprints, facial image, iris: part 1, table 2.
        let guarded = matches!(id, 0x5f_c109 | 0x5f_c103 | 0x5f_c108 | 0x5f_c121);
        if guarded && !self.session.pin_verified {
            return Err(Status::SECURITY);
        }
        let content = self.objects.get(&id).ok_or(Status::NOT_FOUND)?;
        Ok(encode(0x53, content))
    }

    pub(super) fn put_data(&mut self, command: &Command) -> Answer {
        if !self.session.managed {
            return Err(Status::SECURITY);
        }
        let (name, rest) = named(command)?;
        let id = number(name)?;
        let (0x53, content, []) = split(rest).ok_or(Status::DATA)? else {
            return Err(Status::DATA);
        };
        if content.is_empty() {
            self.objects.remove(&id);
            return Ok(Vec::new());
        }
        let others = self.objects.iter().filter(|(other, _)| **other != id);
        let taken: usize = others.map(|(_, content)| content.len()).sum();
        if content.len() > LARGEST || taken + content.len() > self.capacity {
            return Err(Status::FULL);
        }
        self.objects.insert(id, content.to_vec());
        Ok(Vec::new())
    }
}

fn named(command: &Command) -> Result<(&[u8], &[u8]), Status> {
    if (command.p1, command.p2) != (0x3f, 0xff) {
        return Err(Status::PARAMETERS);
    }
    match split(&command.data) {
        Some((0x5c, name, rest)) => Ok((name, rest)),
        _ => Err(Status::DATA),
    }
}

/// Names of three bytes are objects; others there are none.
fn number(name: &[u8]) -> Result<u32, Status> {
    match *name {
        [0x5f, high, low] => Ok(u32::from_be_bytes([0, 0x5f, high, low])),
        _ => Err(Status::NOT_FOUND),
    }
}

/// A certificate as objects hold it: not compressed (part 1, appendix A).
pub(super) fn certificate(der: &[u8]) -> Vec<u8> {
    [encode(0x70, der), encode(0x71, &[0]), encode(0xfe, &[])].concat()
}

/// The value of an element that must be there.
pub(super) fn required<'a>(elements: &[(u16, &'a [u8])], tag: u16) -> Result<&'a [u8], Status> {
    find(elements, tag).ok_or(Status::DATA)
}
