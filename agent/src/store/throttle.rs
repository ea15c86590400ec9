//! Wrong passphrases slow down whoever goes on guessing, from whatever processes.
//!
//! [`FREE`] wrong answers for one secret cost nothing but themselves: two requests of a person who
//! mistypes. From then on the next answer is looked at only after a pause that doubles with each
//! wrong one, up to [`LONGEST`]; who comes earlier is told how long, and nobody waits on a store's
//! thread. A right answer, or [`FORGOTTEN`] without a wrong one, begins anew. What is held needs no
//! answer and goes on. PINs are not counted here: the card does that.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::hold::{Clock, system_clock};
use crate::presence::SecretName;

/// Wrong answers that cost nothing.
const FREE: u32 = 6;
/// The pause after the first one beyond them.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause: a person who knows the passphrase gets in while another process guesses.
const LONGEST: Duration = Duration::from_secs(30);
/// After this time without a wrong answer the earlier ones no longer count.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Secrets that are counted for; far more than there are keys.
const MAX_NAMES: usize = 1024;

/// Wrong answers of late, by what they were for.
pub(crate) struct Throttle {
    clock: Clock,
    wrong: Mutex<HashMap<SecretName, Wrong>>,
}

#[derive(Clone, Copy)]
struct Wrong {
    count: u32,
    /// Since boot, of the last one.
    last: Duration,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            clock: system_clock(),
            wrong: Mutex::default(),
        }
    }
}

impl Throttle {
    fn wrong(&self) -> MutexGuard<'_, HashMap<SecretName, Wrong>> {
        // Nothing panics while it is held.
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer for this secret is looked at now.
    ///
    /// # Errors
    ///
    /// How long until one is.
    pub(crate) fn check(&self, name: &SecretName) -> Result<(), Duration> {
        let now = (self.clock)().boot;
        let left = self.wrong().get(name).map_or(Duration::ZERO, |wrong| {
            (wrong.last + pause(wrong.count)).saturating_sub(now)
        });
        match left.is_zero() {
            true => Ok(()),
            false => Err(left),
        }
    }

    /// An answer was wrong.
    pub(crate) fn was_wrong(&self, name: &SecretName) {
        let now = (self.clock)().boot;
        let mut all = self.wrong();
        all.retain(|_, wrong| now.saturating_sub(wrong.last) < FORGOTTEN);
        if all.len() >= MAX_NAMES && !all.contains_key(name) {
            return;
        }
        let wrong = all.entry(name.clone()).or_insert(Wrong {
            count: 0,
            last: now,
        });
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
    }

    /// An answer was right.
    pub(crate) fn was_right(&self, name: &SecretName) {
        self.wrong().remove(name);
    }
}

/// How long nobody is listened to after so many wrong answers.
fn pause(count: u32) -> Duration {
    match count.checked_sub(FREE) {
        None | Some(0) => Duration::ZERO,
        Some(beyond) => SHORTEST
            .saturating_mul(1_u32.checked_shl(beyond - 1).unwrap_or(u32::MAX))
            .min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::SystemTime,
    };

    use super::*;
    use crate::store::hold::Now;

    fn throttle() -> (Throttle, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&seconds);
        let throttle = Throttle {
            clock: Box::new(move || Now {
                boot: Duration::from_secs(clock.load(Ordering::Relaxed)),
                wall: SystemTime::UNIX_EPOCH,
            }),
            wrong: Mutex::default(),
        };
        (throttle, seconds)
    }

    fn seconds(of: u64) -> Result<(), Duration> {
        Err(Duration::from_secs(of))
    }

    #[test]
    fn the_pause_grows_with_each_wrong_answer_up_to_half_a_minute() {
        let (throttle, clock) = throttle();
        let name = SecretName::Keyring;
        for _ in 0..FREE {
            assert_eq!(throttle.check(&name), Ok(()));
            throttle.was_wrong(&name);
        }
        assert_eq!(throttle.check(&name), Ok(()));
        for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
            throttle.was_wrong(&name);
            assert_eq!(throttle.check(&name), seconds(pause));
            clock.fetch_add(pause - 1, Ordering::Relaxed);
            assert_eq!(throttle.check(&name), seconds(1));
            clock.fetch_add(1, Ordering::Relaxed);
            assert_eq!(throttle.check(&name), Ok(()));
        }
    }

    #[test]
    fn a_right_answer_or_a_quiet_while_begins_anew_and_other_secrets_are_not_concerned() {
        let (throttle, clock) = throttle();
        let name = SecretName::Root;
        for _ in 0..100 {
            throttle.was_wrong(&name);
        }
        assert_eq!(throttle.check(&name), seconds(30));
        assert_eq!(throttle.check(&SecretName::Keyring), Ok(()));
        throttle.was_right(&name);
        assert_eq!(throttle.check(&name), Ok(()));
        for _ in 0..100 {
            throttle.was_wrong(&name);
        }
        clock.store(FORGOTTEN.as_secs(), Ordering::Relaxed);
        throttle.was_wrong(&name);
        assert_eq!(throttle.check(&name), Ok(()));
    }
}
