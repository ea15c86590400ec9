//! Keys of a terminal in raw mode, from their bytes.

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A byte of a character.
    Byte(u8),
    Enter,
    /// Escape by itself, or Ctrl-D.
    Escape,
    Backspace,
    /// Ctrl-U: the line is begun anew.
    Clear,
    /// Ctrl-C.
    End,
    /// Ctrl-L.
    Redraw,
    Up,
    Down,
}

/// Bytes so far. An arrow key is Escape and two bytes more, which may come one by one.
#[derive(Debug, Default)]
pub(super) struct Keys(State);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// In a control sequence (ECMA-48, 5.4) or after a single shift.
    Sequence,
}

impl Keys {
    /// The key that this byte completes, if it does; keys that mean nothing here are none.
    pub(super) fn push(&mut self, byte: u8) -> Option<Key> {
        match self.0 {
            State::Ground => self.plain(byte),
            State::Escape => {
                self.0 = match byte {
                    b'[' | b'O' => State::Sequence,
                    0x1b => return Some(Key::Escape),
                    // A key with Alt: nothing here, least of all an answer.
                    _ => State::Ground,
                };
                None
            }
            State::Sequence => {
                // Parameters and intermediates go before the final byte.
                if (0x20..=0x3f).contains(&byte) {
                    return None;
                }
                self.0 = State::Ground;
                match byte {
                    b'A' => Some(Key::Up),
                    b'B' => Some(Key::Down),
                    _ => None,
                }
            }
        }
    }

    fn plain(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            b'\r' | b'\n' => Key::Enter,
            0x03 => Key::End,
            0x04 => Key::Escape,
            0x08 | 0x7f => Key::Backspace,
            0x0c => Key::Redraw,
            0x15 => Key::Clear,
            0x1b => {
                self.0 = State::Escape;
                return None;
            }
            0x00..=0x1f => return None,
            byte => Key::Byte(byte),
        })
    }

    /// Whether an Escape waits for what may follow it.
    pub(super) fn is_waiting(&self) -> bool {
        self.0 == State::Escape
    }

    /// Nothing followed for a while.
    pub(super) fn nothing_followed(&mut self) -> Option<Key> {
        let escape = self.is_waiting();
        self.0 = State::Ground;
        escape.then_some(Key::Escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut read: Vec<Key> = bytes.iter().filter_map(|byte| keys.push(*byte)).collect();
        read.extend(keys.nothing_followed());
        read
    }

    #[test]
    fn escape_is_one_only_where_nothing_follows() {
        assert_eq!(read(b"\x1b"), [Key::Escape]);
        assert_eq!(read(b"\x1b\x1b"), [Key::Escape, Key::Escape]);
        assert_eq!(read(b"\x1b[A\x1bOB"), [Key::Up, Key::Down]);
        assert_eq!(read(b"\x1b[1;5Cx\x1b[15~"), [Key::Byte(b'x')]);
        assert_eq!(read(b"\x1by"), []);
    }

    #[test]
    fn control_characters_are_no_text() {
        assert_eq!(
            read(b"a\r\x7f\x15\x03\x01\x1a\xc3"),
            [
                Key::Byte(b'a'),
                Key::Enter,
                Key::Backspace,
                Key::Clear,
                Key::End,
                Key::Byte(0xc3)
            ]
        );
    }
}
