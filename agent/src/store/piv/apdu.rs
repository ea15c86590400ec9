//! Commands and answers (ISO 7816-4): chaining, GET RESPONSE, status words as facts.

use zeroize::Zeroizing;

use super::card::{CardError, Exchange};

/// Bytes of data in one command; longer ones are chained.
const PIECE: usize = 255;
/// Class of a command that is continued by the next.
const CHAINED: u8 = 0x10;
/// Longest answer taken: a certificate has three kilobytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Done.
pub(super) const OK: u16 = 0x9000;
/// No PIN, no management key, or nobody touched it.
pub(super) const NOT_SATISFIED: u16 = 0x6982;
/// PIN or PUK blocked.
pub(super) const BLOCKED: u16 = 0x6983;
/// Wrong data: on signing no such key, or one of another algorithm.
pub(super) const WRONG_DATA: u16 = 0x6a80;
/// No such object or application.
pub(super) const NOT_FOUND: u16 = 0x6a82;
/// No room.
pub(super) const FULL: u16 = 0x6a84;
/// No such key.
pub(super) const NO_KEY: u16 = 0x6a88;

/// What a command asks for.
#[derive(Clone, Copy)]
pub(super) struct Command<'a> {
    /// Instruction and parameters.
    pub(super) head: [u8; 3],
    /// Data; may hold a PIN or a key, so it is never printed.
    pub(super) data: &'a [u8],
}

impl std::fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({}, ..)", hex::encode(self.head))
    }
}

/// A command.
#[must_use]
pub(super) fn command<'a>(ins: u8, p1: u8, p2: u8, data: &'a [u8]) -> Command<'a> {
    Command {
        head: [ins, p1, p2],
        data,
    }
}

/// An answer with its status word.
#[derive(Debug)]
pub(super) struct Answer {
    /// What came, in one piece; wiped, because a protected management key comes this way.
    pub(super) data: Zeroizing<Vec<u8>>,
    /// Status word of the last piece.
    pub(super) status: u16,
}

impl Answer {
    /// The data of a command that was done.
    ///
    /// # Errors
    ///
    /// [`CardError::Status`].
    pub(super) fn ok(self) -> Result<Zeroizing<Vec<u8>>, CardError> {
        match self.status {
            OK => Ok(self.data),
            status => Err(CardError::Status(status)),
        }
    }
}

/// Sends a command, chained where it is long, and collects the answer. Every buffer that held it is
/// wiped.
///
/// # Errors
///
/// Those of the exchange; an answer without a status word or without an end.
pub(super) fn send(card: &mut dyn Exchange, command: Command<'_>) -> Result<Answer, CardError> {
    let [ins, p1, p2] = command.head;
    let mut apdu = Zeroizing::new(Vec::with_capacity(5 + PIECE));
    let mut rest = command.data;
    let mut last = loop {
        let (piece, after) = rest.split_at(rest.len().min(PIECE));
        rest = after;
        let class = if rest.is_empty() { 0 } else { CHAINED };
        apdu.clear();
        let len = u8::try_from(piece.len()).expect("a piece has at most 255 bytes");
        apdu.extend_from_slice(&[class, ins, p1, p2, len]);
        apdu.extend_from_slice(piece);
        let answer = split(card.transmit(&apdu)?)?;
        if rest.is_empty() || answer.status != OK {
            break answer;
        }
    };
    let mut data = Zeroizing::new(Vec::with_capacity(MAX_ANSWER.min(4096)));
    data.extend_from_slice(&last.data);
    while let [0x61, more] = last.status.to_be_bytes() {
        last = split(card.transmit(&[0, 0xc0, 0, 0, more])?)?;
        if last.data.is_empty() || data.len() + last.data.len() > MAX_ANSWER {
            return Err(CardError::Malformed("an answer without an end"));
        }
        data.extend_from_slice(&last.data);
    }
    Ok(Answer {
        data,
        status: last.status,
    })
}

fn split(mut bytes: Zeroizing<Vec<u8>>) -> Result<Answer, CardError> {
    let Some((_, word)) = bytes.split_last_chunk::<2>() else {
        // vpcd, and some drivers, answer nothing at all when the card goes away meanwhile.
        return Err(CardError::Gone);
    };
    let status = u16::from_be_bytes(*word);
    let len = bytes.len() - 2;
    bytes.truncate(len);
    Ok(Answer {
        data: bytes,
        status,
    })
}

/// Tries left, as a status word tells them (`63Cx`; `6983`: none).
#[must_use]
pub(super) fn tries(status: u16) -> Option<u8> {
    match status {
        BLOCKED => Some(0),
        0x63c0..=0x63cf => Some((status & 0x0f) as u8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Script {
        sent: Vec<Vec<u8>>,
        answers: Vec<Vec<u8>>,
    }

    impl Exchange for Script {
        fn transmit(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
            self.sent.push(apdu.to_vec());
            Ok(Zeroizing::new(self.answers.remove(0)))
        }
    }

    #[test]
    fn long_data_is_chained_and_a_long_answer_collected() {
        let mut card = Script {
            answers: vec![
                vec![0x90, 0],
                vec![1, 2, 0x61, 2],
                vec![3, 4, 0x61, 1],
                vec![5, 0x90, 0],
            ],
            ..Script::default()
        };
        let answer = send(&mut card, command(0x87, 0x07, 0x9c, &[9; 300])).unwrap();
        assert_eq!(answer.ok().unwrap()[..], [1, 2, 3, 4, 5]);
        assert_eq!(card.sent[0][..5], [0x10, 0x87, 0x07, 0x9c, 255]);
        assert_eq!(card.sent[1][..5], [0x00, 0x87, 0x07, 0x9c, 45]);
        assert_eq!(card.sent[2], [0, 0xc0, 0, 0, 2]);
    }

    #[test]
    fn an_answer_without_an_end_or_a_status_is_refused() {
        let mut card = Script {
            answers: [vec![0x61, 0]]
                .into_iter()
                .chain(std::iter::repeat_n(
                    [&[7; 256][..], &[0x61, 0]].concat(),
                    100,
                ))
                .collect(),
            ..Script::default()
        };
        let error = send(&mut card, command(0xcb, 0x3f, 0xff, &[])).unwrap_err();
        assert!(matches!(error, CardError::Malformed(_)), "{error:?}");
        card.answers = vec![vec![0x90]];
        assert!(send(&mut card, command(0xcb, 0x3f, 0xff, &[])).is_err());
    }

    #[test]
    fn nothing_of_a_command_s_data_is_printed() {
        let text = format!("{:?}", command(0x20, 0, 0x80, b"canary"));
        assert_eq!(text, "Command(200080, ..)");
    }
}
