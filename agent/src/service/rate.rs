//! How fast something may happen: so often at once, and once more each so long.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct Rate {
    burst: u32,
    refill: Duration,
    bucket: Mutex<(u32, Instant)>,
}

impl Rate {
    /// Full.
    pub(crate) fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            bucket: Mutex::new((burst, Instant::now())),
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *bucket;
        let passed = now.saturating_duration_since(*since).as_nanos();
        let more = passed / self.refill.as_nanos().max(1);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            *left = left.saturating_add(more).min(self.burst);
            *since = match *left == self.burst {
                true => now,
                false => *since + self.refill * more,
            };
        }
        match left.checked_sub(1) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_each_so_long() {
        let second = Duration::from_secs(1);
        let rate = Rate::new(3, second);
        let start = Instant::now();
        let at = |tenths: u32| rate.take_at(start + second * tenths / 10);
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(9), at(12), at(13), at(25)], [false, true, false, true]);
        // However long it was quiet, no more than a burst.
        let late = [at(9000), at(9000), at(9000), at(9000)];
        assert_eq!(late, [true, true, true, false]);
    }
}
