//! The person at the key, as a test directs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Device, Shared, now};
use crate::touch::Touch;

/// When the person touches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Touching {
    /// So long after the key began to wait.
    After(Duration),
    /// Only when told to.
    Never,
}

#[derive(Debug)]
pub(super) struct Person(pub(super) Arc<Shared>);

impl Touch for Person {
    fn wait(&mut self, pin_verified: bool) -> bool {
        let begin = now();
        let started = Instant::now();
        let mut state = self.0.lock();
        state.pin_verified = pin_verified;
        state.finger = false;
        state.waiting = Some(begin);
        state.stats.touch_begins(begin);
        self.0.changed.notify_all();
        let touched = loop {
            if state.finger || !state.present {
                break state.present;
            }
            let passed = started.elapsed();
            let left = match state.touching {
                Touching::After(after) if passed >= after => break true,
                Touching::After(after) => (after - passed).min(state.touch_timeout),
                Touching::Never => state.touch_timeout,
            };
            if passed >= state.touch_timeout {
                break false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.expect("nobody panics while the state is held").0;
        };
        state.waiting = None;
        state.waited += started.elapsed();
        state.stats.touch_ends(now(), touched);
        self.0.changed.notify_all();
        touched
    }

    fn cached(&self) -> Duration {
        self.0.lock().touch_window
    }
}

impl Device {
    /// Touches the key; false when it is not waiting for that.
    #[must_use]
    pub fn touch(&self) -> bool {
        let mut state = self.shared.lock();
        state.finger = state.waiting.is_some();
        self.shared.changed.notify_all();
        state.finger
    }

    /// Says when the person touches from now on.
    pub fn set_touching(&self, touching: Touching) {
        self.shared.lock().touching = touching;
        self.shared.changed.notify_all();
    }

    /// Says how long the key waits for a touch.
    pub fn set_touch_timeout(&self, timeout: Duration) {
        self.shared.lock().touch_timeout = timeout;
        self.shared.changed.notify_all();
    }

    /// Says how long a touch counts where the policy is *cached*.
    pub fn set_touch_window(&self, window: Duration) {
        self.shared.lock().touch_window = window;
    }

    /// Waits until the key waits for a touch, and says since when ([`now`]); `None` when it does
    /// not within `limit`.
    #[must_use]
    pub fn await_touch(&self, limit: Duration) -> Option<u64> {
        let state = self.shared.lock();
        let changed = &self.shared.changed;
        let waited = changed.wait_timeout_while(state, limit, |state| state.waiting.is_none());
        waited
            .expect("nobody panics while the state is held")
            .0
            .waiting
    }
}
