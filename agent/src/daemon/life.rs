//! How long the agent lives: what tells its supervisor that it works, and when nobody needs it.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{sync::watch, time::timeout};

use crate::service::Shared;

/// Tells systemd's watchdog (sd_watchdog_enabled(3)) that the agent works, for as long as it does:
/// each time the newest entry of the log was read, which takes the runtime, the ledger's thread and
/// the ledger.
pub(super) async fn feed_watchdog(shared: Arc<Shared>) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    // It wants to hear within this time; twice in it is its own advice, and one more may be late.
    let pause = patience / 3;
    loop {
        match timeout(patience, shared.keyring.log_head()).await {
            Ok(Ok(_)) => {
                if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
                    tracing::warn!(%error, "the watchdog cannot be told that the agent works");
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger does not answer: the watchdog is not told");
            }
            Err(_) => tracing::error!("the ledger does not answer: the watchdog is not told"),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Returns when nobody has been connected for `time`, and nothing that would be lost is held: an
/// unlocked key, a card's PIN, a grant. That it stays for one of these is said once.
pub(super) async fn unneeded(
    shared: Arc<Shared>,
    mut connected: watch::Receiver<usize>,
    time: Duration,
) {
    let mut said = false;
    loop {
        // Its sender is the listener's, which ends with the agent.
        if connected
            .wait_for(|connected| *connected == 0)
            .await
            .is_err()
        {
            return;
        }
        tokio::select! {
            _ = connected.changed() => continue,
            () = tokio::time::sleep(time) => {}
        }
        match shared.keyring.would_lose().await {
            Ok(None) => {
                tracing::info!("nobody needs the agent: it ends (idle_exit)");
                return;
            }
            Ok(Some(what)) => {
                if !said {
                    tracing::info!("nobody is connected; the agent stays, as it holds {what}");
                    said = true;
                }
            }
            // It is ending already.
            Err(_) => return,
        }
    }
}
