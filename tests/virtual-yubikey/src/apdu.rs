//! Commands and status words: ISO/IEC 7816-4, short and extended.

/// How a command ended, as the last two bytes of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const OK: Self = Self(0x9000);
    /// No key, no touch, no PIN, or no management key, where one is needed.
    pub const SECURITY: Self = Self(0x6982);
    /// No tries left.
    pub const BLOCKED: Self = Self(0x6983);
    /// Not in this state: a reset before PIN and PUK are blocked.
    pub const CONDITIONS: Self = Self(0x6985);
    /// The data field is wrong.
    pub const DATA: Self = Self(0x6a80);
    /// No such object or application.
    pub const NOT_FOUND: Self = Self(0x6a82);
    /// No room.
    pub const FULL: Self = Self(0x6a84);
    /// P1 or P2 is wrong.
    pub const PARAMETERS: Self = Self(0x6a86);
    /// No such key or reference.
    pub const NO_REFERENCE: Self = Self(0x6a88);
    /// The command is no command at all.
    pub const LENGTH: Self = Self(0x6700);
    /// No such instruction.
    pub const INSTRUCTION: Self = Self(0x6d00);
    /// No such class: secure messaging, for one.
    pub const CLASS: Self = Self(0x6e00);

    /// Wrong, with this many tries left.
    #[must_use]
    pub fn tries(left: u8) -> Self {
        Self(0x63c0 | u16::from(left.min(15)))
    }
}

/// What a command answers: data, or the reason why not.
pub type Answer = Result<Vec<u8>, Status>;

/// A command, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// 00, or 10 for a piece with more to come.
    pub class: u8,
    /// The instruction.
    pub ins: u8,
    /// Its first parameter.
    pub p1: u8,
    /// Its second parameter.
    pub p2: u8,
    /// The data field.
    pub data: Vec<u8>,
    /// How many bytes the client takes at once.
    pub expected: usize,
}

/// Bytes of a short answer at most.
const SHORT: usize = 256;
/// Bytes of an extended answer at most.
const EXTENDED: usize = 65536;

impl Command {
    /// Takes a command apart.
    ///
    /// # Errors
    /// [`Status::LENGTH`] when the bytes are of none of the seven cases of ISO/IEC 7816-3, 12.1.3.
    pub fn parse(bytes: &[u8]) -> Result<Self, Status> {
        let Some((&[class, ins, p1, p2], body)) = bytes.split_first_chunk() else {
            return Err(Status::LENGTH);
        };
        let (data, expected): (&[u8], usize) = match *body {
            [] => (&[], SHORT),
            [le] => (&[], short(le)),
            [0, high, low] => (&[], extended(high, low)),
            [0, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let (data, le) = rest.split_at_checked(length).ok_or(Status::LENGTH)?;
                match *le {
                    [] => (data, EXTENDED),
                    [high, low] => (data, extended(high, low)),
                    _ => return Err(Status::LENGTH),
                }
            }
            [length, ref rest @ ..] => {
                let length = usize::from(length);
                let (data, le) = rest.split_at_checked(length).ok_or(Status::LENGTH)?;
                match *le {
                    [] => (data, SHORT),
                    [le] => (data, short(le)),
                    _ => return Err(Status::LENGTH),
                }
            }
        };
        Ok(Self {
            class,
            ins,
            p1,
            p2,
            data: data.to_vec(),
            expected,
        })
    }

    /// Whether more pieces of this command follow.
    #[must_use]
    pub fn chained(&self) -> bool {
        self.class & 0x10 != 0
    }
}

fn short(le: u8) -> usize {
    if le == 0 { SHORT } else { usize::from(le) }
}

fn extended(high: u8, low: u8) -> usize {
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => EXTENDED,
        le => le,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> (Vec<u8>, usize) {
        let command = Command::parse(bytes).expect("it is a command");
        (command.data, command.expected)
    }

    #[test]
    fn all_seven_cases_are_told_apart() {
        assert_eq!(parsed(&[0, 0xfd, 0, 0]), (vec![], 256));
        assert_eq!(parsed(&[0, 0xfd, 0, 0, 0]), (vec![], 256));
        assert_eq!(parsed(&[0, 0xfd, 0, 0, 3]), (vec![], 3));
        assert_eq!(parsed(&[0, 0xa4, 4, 0, 2, 7, 8]), (vec![7, 8], 256));
        assert_eq!(parsed(&[0, 0xa4, 4, 0, 2, 7, 8, 0]), (vec![7, 8], 256));
        assert_eq!(parsed(&[0, 0xfd, 0, 0, 0, 1, 0]), (vec![], 256));
        assert_eq!(parsed(&[0, 0xfd, 0, 0, 0, 0, 1, 9]), (vec![9], 65536));
        let command = [0, 0xfd, 0, 0, 0, 0, 1, 9, 0, 4];
        assert_eq!(parsed(&command), (vec![9], 4));
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        for bytes in [
            &[0, 1, 2][..],
            &[0, 0xa4, 4, 0, 2, 7],
            &[0, 0xa4, 4, 0, 1, 7, 8, 9],
            &[0, 0xa4, 4, 0, 0, 0, 5, 1],
        ] {
            assert_eq!(Command::parse(bytes), Err(Status::LENGTH));
        }
    }
}
