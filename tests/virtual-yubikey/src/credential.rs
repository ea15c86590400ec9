//! PIN and PUK: eight bytes padded with FF, and a counter of tries.

use crate::apdu::Status;

/// The length of a PIN or PUK in a command (SP 800-73-4 part 2, 3.2.1).
pub(crate) const LENGTH: usize = 8;
const TRIES: u8 = 3;

#[derive(Debug)]
pub(crate) struct Credential {
    factory: [u8; LENGTH],
    value: [u8; LENGTH],
    total: u8,
    left: u8,
}

impl Credential {
    /// 123456.
    pub(crate) fn pin() -> Self {
        Self::factory(*b"123456\xff\xff")
    }

    /// 12345678.
    pub(crate) fn puk() -> Self {
        Self::factory(*b"12345678")
    }

    fn factory(value: [u8; LENGTH]) -> Self {
        Self {
            factory: value,
            value,
            total: TRIES,
            left: TRIES,
        }
    }

    pub(crate) fn left(&self) -> u8 {
        self.left
    }

    pub(crate) fn total(&self) -> u8 {
        self.total
    }

    pub(crate) fn is_default(&self) -> bool {
        self.value == self.factory
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.left == 0
    }

    /// What an empty VERIFY answers while nothing is verified.
    pub(crate) fn status(&self) -> Status {
        if self.is_blocked() {
            Status::BLOCKED
        } else {
            Status::tries(self.left)
        }
    }

    /// Compares, and counts. The last wrong one answers 63C0, and whatever comes after it 6983
    /// (SP 800-73-4 part 2, 3.2.1).
    pub(crate) fn check(&mut self, given: &[u8]) -> Result<(), Status> {
        if self.is_blocked() {
            return Err(Status::BLOCKED);
        }
        if given == self.value {
            self.left = self.total;
            return Ok(());
        }
        self.left -= 1;
        Err(Status::tries(self.left))
    }

    pub(crate) fn set(&mut self, value: [u8; LENGTH]) {
        self.value = value;
        self.left = self.total;
    }

    /// Back to the factory's value, with other tries.
    pub(crate) fn set_tries(&mut self, total: u8) {
        self.value = self.factory;
        self.total = total;
        self.left = total;
    }
}

/// A new PIN or PUK: six to eight bytes, the rest FF.
pub(crate) fn new_value(bytes: &[u8]) -> Result<[u8; LENGTH], Status> {
    let value: [u8; LENGTH] = bytes.try_into().map_err(|_| Status::DATA)?;
    let length = value.iter().position(|byte| *byte == 0xff);
    let length = length.unwrap_or(LENGTH);
    let padded = value.iter().skip(length).all(|byte| *byte == 0xff);
    if length < 6 || !padded {
        return Err(Status::DATA);
    }
    Ok(value)
}
