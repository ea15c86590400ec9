//! The person's finger, as the application sees it.

use std::time::Duration;

/// How long one touch opens a slot whose policy is *cached* (Yubico, "PIN and touch policies").
pub(crate) const CACHED: Duration = Duration::from_secs(15);

/// Who touches the key.
pub trait Touch: Send {
    /// Waits for a touch; false when none came in time, or the key was pulled out.
    ///
    /// `pin_verified` is for whoever looks at the key in the meantime.
    fn wait(&mut self, pin_verified: bool) -> bool;

    /// How long a touch counts where the policy is *cached*.
    fn cached(&self) -> Duration {
        CACHED
    }
}

/// A finger for unit tests: always there, or never, and never a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finger {
    /// Touches at once.
    Present,
    /// Does not touch.
    Absent,
}

impl Touch for Finger {
    fn wait(&mut self, _pin_verified: bool) -> bool {
        *self == Self::Present
    }
}
