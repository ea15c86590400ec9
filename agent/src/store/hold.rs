//! How long a secret is held, and for whom.
//!
//! A secret is held for a fixed time from the moment it was given; using it does not prolong it.
//! The time is measured by `CLOCK_BOOTTIME`, which counts suspension, and by the wall clock, which
//! counts what a paused virtual machine slept through; whichever ends first ends it.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::presence::SessionId;

/// For whom a secret is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All processes of the user.
    All,
    /// Callers of one terminal session.
    Session(SessionId),
}

/// How long a secret typed for a request is held, unless configured otherwise.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(15 * 60);
/// The longest that a secret is held.
pub const MAX_HOLD: Duration = Duration::from_secs(60 * 60);
/// Sessions beyond this many (far more than a person has terminals) push out the oldest.
const MAX_GRANTS: usize = 64;

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) boot: Duration,
    pub(crate) wall: SystemTime,
}

/// Where the time comes from; tests bring their own.
pub(crate) type Clock = Box<dyn Fn() -> Now + Send>;

/// The system's clocks.
pub(crate) fn system_clock() -> Clock {
    Box::new(|| {
        let time = clock_gettime(ClockId::Boottime);
        Now {
            boot: Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32),
            wall: SystemTime::now(),
        }
    })
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    scope: Scope,
    boot: Duration,
    wall: SystemTime,
}

impl Grant {
    fn left(&self, now: Now) -> Option<Duration> {
        let wall = self.wall.duration_since(now.wall).ok()?;
        let boot = self.boot.checked_sub(now.boot)?;
        Some(wall.min(boot)).filter(|left| !left.is_zero())
    }
}

/// Who may use a held secret, and until when.
#[derive(Debug, Default)]
pub(crate) struct Grants(Vec<Grant>);

impl Grants {
    /// Holds for `scope` from now, instead of what was granted to it before; at most [`MAX_HOLD`].
    pub(crate) fn set(&mut self, now: Now, scope: Scope, time: Duration) -> SystemTime {
        let time = time.min(MAX_HOLD);
        self.0.retain(|grant| grant.scope != scope);
        if self.0.len() == MAX_GRANTS {
            self.0.remove(0);
        }
        let grant = Grant {
            scope,
            boot: now.boot + time,
            wall: now.wall + time,
        };
        self.0.push(grant);
        grant.wall
    }

    /// As [`Grants::set`], but never shortens.
    pub(crate) fn extend(&mut self, now: Now, scope: Scope, time: Duration) {
        let longer = self
            .0
            .iter()
            .filter(|grant| grant.scope == scope)
            .any(|grant| grant.left(now).is_some_and(|left| left >= time));
        if !longer {
            self.set(now, scope, time);
        }
    }

    /// Whether a caller of this session may use it now.
    pub(crate) fn allows(&self, now: Now, session: Option<SessionId>) -> bool {
        self.0.iter().any(|grant| {
            let fits = match grant.scope {
                Scope::All => true,
                Scope::Session(held_for) => session == Some(held_for),
            };
            fits && grant.left(now).is_some()
        })
    }

    /// Drops what is over; whether anything is left.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        self.0.retain(|grant| grant.left(now).is_some());
        !self.0.is_empty()
    }

    /// Time until the next one is over.
    pub(crate) fn next(&self, now: Now) -> Option<Duration> {
        self.0.iter().filter_map(|grant| grant.left(now)).min()
    }

    /// Who may use it, until when.
    pub(crate) fn list(&self, now: Now) -> Vec<(Scope, SystemTime)> {
        let live = self.0.iter().filter(|grant| grant.left(now).is_some());
        live.map(|grant| (grant.scope, grant.wall)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u32) -> Now {
        Now {
            boot: MINUTE * minutes,
            wall: SystemTime::UNIX_EPOCH + MINUTE * minutes,
        }
    }

    #[test]
    fn a_secret_is_held_for_its_session_and_its_time_only() {
        let mut grants = Grants::default();
        let mine = SessionId(7);
        grants.set(at(0), Scope::Session(mine), 15 * MINUTE);
        assert!(grants.allows(at(14), Some(mine)));
        assert!(!grants.allows(at(14), Some(SessionId(8))));
        assert!(!grants.allows(at(14), None));
        assert!(!grants.allows(at(15), Some(mine)));
        assert_eq!(grants.next(at(14)), Some(MINUTE));
        assert!(grants.expire(at(14)));
        assert!(!grants.expire(at(15)));
    }

    #[test]
    fn either_clock_ends_it() {
        let mut grants = Grants::default();
        grants.set(at(0), Scope::All, 15 * MINUTE);
        assert!(grants.allows(at(1), None));
        assert!(!grants.allows(
            Now {
                boot: at(1).boot,
                wall: at(20).wall
            },
            None
        ));
        assert!(!grants.allows(
            Now {
                boot: at(20).boot,
                wall: at(1).wall
            },
            None
        ));
    }

    #[test]
    fn a_secret_typed_again_does_not_shorten_what_unlock_granted() {
        let mut grants = Grants::default();
        grants.set(at(0), Scope::All, 60 * MINUTE);
        grants.extend(at(1), Scope::All, 15 * MINUTE);
        assert!(grants.allows(at(59), None));
        grants.set(at(1), Scope::All, MINUTE);
        assert!(!grants.allows(at(2), None));
        grants.set(at(0), Scope::All, 600 * MINUTE);
        assert!(!grants.allows(at(60), None), "an hour at most");
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut grants = Grants::default();
        for session in 0..1000 {
            grants.set(at(0), Scope::Session(SessionId(session)), MINUTE);
        }
        assert_eq!(grants.0.len(), MAX_GRANTS);
        assert!(grants.allows(at(0), Some(SessionId(999))));
    }
}
