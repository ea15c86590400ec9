//! PINs and PUKs: what is looked at before a card sees one, and how long one is held.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use crate::{
    key::Secret,
    presence::SessionId,
    store::hold::{Clock, Grants, Scope},
};

/// Bytes of a PIN or PUK on the wire, padded with FF (SP 800-73-4, part 2, §2.4.3).
const PADDED: usize = 8;
/// Shortest PIN and PUK.
const SHORTEST: usize = 6;
/// Factory PIN and PUK (Yubico, "PIV PIN, PUK and management key").
pub(super) const FACTORY_PIN: &[u8] = b"123456";
/// See [`FACTORY_PIN`].
pub(super) const FACTORY_PUK: &[u8] = b"12345678";
/// What a YubiKey types when it is touched by accident has 32 to 48 letters of these
/// (Yubico, "modified hexadecimal").
const MODHEX: &[u8] = b"cbdefghijklnrtuv";

/// Why something is no PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPin {
    /// A YubiKey typed it.
    #[error(
        "that was typed by a touch of the YubiKey itself, not a PIN; nothing was sent to the card"
    )]
    Touched,
    /// Six to eight bytes.
    #[error("a PIN or PUK has 6 to 8 characters; nothing was sent to the card")]
    Length,
    /// Printable ASCII.
    #[error("a PIN or PUK has only ASCII letters, digits and signs; nothing was sent to the card")]
    Characters,
    /// The factory's, where another is to be chosen.
    #[error("that is the factory's, which everybody knows")]
    Factory,
    /// PIN and PUK are to differ.
    #[error("PIN and PUK must differ")]
    Same,
}

/// Looks at what was typed for a PIN.
///
/// # Errors
///
/// [`BadPin`].
pub fn check(typed: &[u8]) -> Result<(), BadPin> {
    let line = typed.strip_suffix(b"\n").unwrap_or(typed);
    if line.len() > PADDED && line.iter().all(|byte| MODHEX.contains(byte)) {
        return Err(BadPin::Touched);
    }
    if !(SHORTEST..=PADDED).contains(&typed.len()) {
        return Err(BadPin::Length);
    }
    if !typed.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Err(BadPin::Characters);
    }
    Ok(())
}

/// Looks at a PIN or PUK that is to be set.
///
/// # Errors
///
/// [`BadPin`].
pub fn check_new(typed: &[u8]) -> Result<(), BadPin> {
    check(typed)?;
    if typed == FACTORY_PIN || typed == FACTORY_PUK {
        return Err(BadPin::Factory);
    }
    Ok(())
}

/// As the card takes it.
pub(super) fn padded(pin: &[u8]) -> Zeroizing<[u8; PADDED]> {
    let mut out = Zeroizing::new([0xff; PADDED]);
    for (place, byte) in out.iter_mut().zip(pin) {
        *place = *byte;
    }
    out
}

/// A PIN that the card took, held for a fixed time: for callers of one terminal session, and not
/// beyond a suspension of the machine.
#[derive(Debug, Default)]
pub(super) struct Held {
    pin: Option<Secret>,
    grants: Grants,
    asleep: Duration,
}

impl Held {
    pub(super) fn keep(
        &mut self,
        pin: Secret,
        session: Option<SessionId>,
        time: Duration,
        clock: &Clock,
    ) {
        let Some(session) = session else { return };
        if self.pin.as_ref().is_none_or(|held| !held.same_as(&pin)) {
            self.grants = Grants::default();
        }
        self.pin = Some(pin);
        self.asleep = asleep();
        self.grants.extend(clock(), Scope::Session(session), time);
    }

    /// The PIN, for a caller of this session.
    pub(super) fn get(&mut self, session: Option<SessionId>, clock: &Clock) -> Option<&Secret> {
        self.expire(clock);
        let allowed = self.grants.allows(clock(), session);
        self.pin.as_ref().filter(|_| allowed)
    }

    /// Drops what has been held long enough; how long until there is something to drop again.
    pub(super) fn expire(&mut self, clock: &Clock) -> Option<Duration> {
        self.pin.as_ref()?;
        let slept = asleep().saturating_sub(self.asleep) > NAP;
        if slept || !self.grants.expire(clock()) {
            self.drop_all();
            return None;
        }
        self.grants.next(clock())
    }

    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }

    /// Until when, for whom.
    pub(super) fn is_some(&self) -> bool {
        self.pin.is_some()
    }
}

/// The two clocks are read one after the other.
const NAP: Duration = Duration::from_millis(500);

/// How long the machine has been suspended since it started.
fn asleep() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    };
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_touch_types_is_told_from_a_pin_and_from_what_is_merely_too_long() {
        let table: [(&[u8], Result<(), BadPin>); 9] = [
            (b"123456", Ok(())),
            (b"a b-c!", Ok(())),
            (b"12345678", Ok(())),
            (b"cccccc", Ok(())),
            (b"12345", Err(BadPin::Length)),
            (b"123456789", Err(BadPin::Length)),
            (
                b"cccccckbhvdgtjrdffndkhvcgkgvvhnrlkjubllrldcl",
                Err(BadPin::Touched),
            ),
            (
                b"cccccckbhvdgtjrdffndkhvcgkgvvhnrlkjubllrldcl\n",
                Err(BadPin::Touched),
            ),
            ("pässe".as_bytes(), Err(BadPin::Characters)),
        ];
        for (typed, result) in table {
            assert_eq!(check(typed), result, "{typed:?}");
        }
        assert_eq!(check_new(FACTORY_PIN), Err(BadPin::Factory));
        assert_eq!(check_new(b"12345678"), Err(BadPin::Factory));
        assert_eq!(check_new(b"872634"), Ok(()));
    }

    #[test]
    fn a_short_pin_is_filled_up() {
        assert_eq!(*padded(b"123456"), *b"123456\xff\xff");
    }
}
