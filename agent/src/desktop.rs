//! The desktop around the agent: it tells when to lock, and is told what the person should hear of.
//!
//! ```text
//! daemon ──► desktop ──► keyring          logind, cards: lock      touch, waiting: notification
//! ```
//!
//! Nothing here is needed to sign: where there is no bus, no logind, nobody who shows notifications,
//! the agent works as it does without. What the desktop says can only lock, never open; what it is
//! told holds no secret. Buses are reached by unix sockets only.

mod bus;
mod notify;
mod session;

use std::time::Duration;

use crate::keyring::Keyring;

pub use self::bus::Buses;

/// After a bus was lost or found absent it is tried again after this time, then after twice that…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … and so on up to this.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is seen to that cards are watched while one that leaves is to lock.
const WATCHING: Duration = Duration::from_secs(30);

/// What locks, as `signet lock` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockOn {
    /// The machine is about to sleep.
    pub suspend: bool,
    /// A session of this user was locked.
    pub screen: bool,
    /// A card that holds an enrolled key was taken out.
    pub card_removed: bool,
}

impl Default for LockOn {
    fn default() -> Self {
        Self {
            suspend: true,
            screen: true,
            card_removed: false,
        }
    }
}

/// What the desktop has to do with the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What locks.
    pub lock: LockOn,
    /// Whether touches and waiting requests are shown as notifications.
    pub notify: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock: LockOn::default(),
            notify: true,
        }
    }
}

/// Follows the desktop for as long as it is polled.
pub async fn follow(keyring: &Keyring, settings: Settings, buses: &Buses) {
    let sessions = async {
        if settings.lock.suspend || settings.lock.screen {
            session::follow(keyring, settings.lock, &buses.system).await;
        }
    };
    let cards = async {
        if settings.lock.card_removed {
            cards(keyring).await;
        }
    };
    let notices = async {
        if let Some(session) = buses.session.as_ref().filter(|_| settings.notify) {
            notify::show(keyring.notifier(), session).await;
        }
    };
    tokio::join!(sessions, cards, notices);
}

/// Locks when a card with enrolled keys goes.
async fn cards(keyring: &Keyring) {
    let mut removed = keyring.removed_cards();
    loop {
        keyring.watch_cards().await;
        let Ok(changed) = tokio::time::timeout(WATCHING, removed.changed()).await else {
            continue;
        };
        if changed.is_err() {
            return;
        }
        let card = removed.borrow_and_update().clone();
        lock(keyring, &format!("{card} was taken out")).await;
    }
}

async fn lock(keyring: &Keyring, why: &str) {
    match keyring.lock_because(why).await {
        Ok(held) => tracing::info!(why, held, "locked"),
        Err(error) => tracing::error!(why, %error, "locked, and no entry of it was written"),
    }
}

/// Twice as long each time.
fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LAST_PAUSE)
}
