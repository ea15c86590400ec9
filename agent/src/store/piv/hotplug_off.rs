//! In place of `hotplug.rs` where the agent is built without PC/SC: there are no cards, and it says
//! why.

use std::sync::Arc;

use super::{CardFault, card::Reader};

/// Who is told.
pub trait Arrivals: Send + Sync + 'static {
    /// A card came into a reader.
    fn arrived(&self, name: &str, reader: Box<dyn Reader>);
    /// It left.
    fn left(&self, name: &str);
    /// Why no card can be seen; `None`: they can.
    fn problem(&self, why: Option<CardFault>);
    /// Whether a card is known to be in a reader, or a key to lie on one.
    fn matters(&self) -> bool;
}

/// Nothing that watches.
pub struct Watcher {
    arrivals: Arc<dyn Arrivals>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

impl Watcher {
    /// Nothing is started.
    #[must_use]
    pub fn new(arrivals: Arc<dyn Arrivals>) -> Self {
        Self { arrivals }
    }

    /// Says that there are no cards.
    pub async fn look(&self) {
        self.arrivals.problem(Some(CardFault::NotBuilt));
    }
}
