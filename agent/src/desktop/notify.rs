//! Notices as notifications of the desktop (Desktop Notifications Specification 1.2).
//!
//! The set of notices is compared with what is shown: what is new is shown, what is over is closed.
//! A connection is made when there is first something to show. Not more than [`BURST`] are shown at
//! once, then one each [`EACH`]; what is over by then is never shown.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use zbus::{Connection, zvariant::Value};

use super::{
    FIRST_PAUSE,
    bus::{Bus, BusError},
    longer,
};
use crate::presence::notice::{Current, Kind, Notice, Notifier};

const SERVER: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";

/// Notifications shown without a pause.
const BURST: u32 = 4;
/// Then one in this time.
const EACH: Duration = Duration::from_secs(3);
/// A touch is waited for 15 s (Yubico, "touch policy"); a notification of one goes by itself where
/// nobody is left to close it.
const TOUCH_SHOWN: i32 = 20_000;
/// Until it is closed (Desktop Notifications Specification, "expire_timeout").
const UNTIL_CLOSED: i32 = 0;
/// Urgency of what has to be seen at once, of other things (ibidem, "Urgency Levels").
const CRITICAL: u8 = 2;
const NORMAL: u8 = 1;

/// Shows notices, for as long as it is polled.
pub(super) async fn show(notifier: &Notifier, bus: &Bus) {
    let mut current = notifier.subscribe();
    let mut pause = FIRST_PAUSE;
    loop {
        if current
            .wait_for(|current| current.iter().next().is_some())
            .await
            .is_err()
        {
            return;
        }
        match Screen::connect(bus).await {
            Ok(mut screen) => {
                pause = FIRST_PAUSE;
                match screen.follow(&mut current).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "the bus of the session is gone"),
                }
            }
            Err(error) => tracing::debug!(%error, "nobody shows notifications"),
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

/// Who shows notifications, and what is shown there.
struct Screen {
    connection: Connection,
    /// Notices by number, and what they are called there; `None`: it would not show them.
    shown: HashMap<u64, Option<u32>>,
    rate: Rate,
}

impl Screen {
    async fn connect(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            connection: bus.connect().await?,
            shown: HashMap::new(),
            rate: Rate::new(Instant::now()),
        })
    }

    /// Until nobody has anything to tell any more.
    ///
    /// # Errors
    ///
    /// When the bus is lost.
    async fn follow(&mut self, current: &mut watch::Receiver<Current>) -> Result<(), zbus::Error> {
        loop {
            let now: Vec<(u64, Notice)> = current
                .borrow_and_update()
                .iter()
                .map(|(id, notice)| (id, notice.clone()))
                .collect();
            self.close_others(&now).await?;
            let new = now
                .iter()
                .filter(|(id, _)| !self.shown.contains_key(id))
                // A finger is waited for not long.
                .min_by_key(|(id, notice)| (notice.kind != Kind::Touch, *id));
            let next = match new {
                None => None,
                Some((id, notice)) => match self.rate.take(Instant::now()) {
                    Ok(()) => {
                        let shown = self.notify(notice).await?;
                        self.shown.insert(*id, shown);
                        continue;
                    }
                    Err(later) => Some(later),
                },
            };
            let changed = match next {
                None => current.changed().await,
                Some(later) => match timeout_at(later, current.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => continue,
                },
            };
            if changed.is_err() {
                return Ok(());
            }
        }
    }

    /// Closes what is over.
    async fn close_others(&mut self, now: &[(u64, Notice)]) -> Result<(), zbus::Error> {
        let wanted: HashSet<u64> = now.iter().map(|(id, _)| *id).collect();
        let over: Vec<u64> = self
            .shown
            .keys()
            .filter(|id| !wanted.contains(id))
            .copied()
            .collect();
        for id in over {
            if let Some(Some(shown)) = self.shown.remove(&id) {
                self.call::<_, ()>("CloseNotification", &shown).await?;
            }
        }
        Ok(())
    }

    /// Shows a notice; what it is called there.
    async fn notify(&self, notice: &Notice) -> Result<Option<u32>, zbus::Error> {
        let (urgency, time) = match notice.kind {
            Kind::Touch => (CRITICAL, TOUCH_SHOWN),
            Kind::Waiting => (NORMAL, UNTIL_CLOSED),
        };
        let lines: Vec<String> = notice.lines.iter().map(|line| plain(line)).collect();
        let body = (
            "Signet",
            0_u32,
            "dialog-password",
            &notice.summary[..],
            lines.join("\n"),
            Vec::<&str>::new(),
            HashMap::from([("urgency", Value::from(urgency))]),
            time,
        );
        self.call("Notify", &body).await
    }

    /// Calls the server; `None` where there is none, or it will not.
    async fn call<B, T>(&self, method: &str, body: &B) -> Result<Option<T>, zbus::Error>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        T: serde::de::DeserializeOwned + zbus::zvariant::Type,
    {
        let asked = self
            .connection
            .call_method(Some(SERVER), PATH, Some(SERVER), method, body)
            .await;
        let refused = match asked {
            Ok(reply) => match reply.body().deserialize() {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            },
            Err(error) if self.connection.is_closed() => return Err(error),
            Err(error) => error,
        };
        tracing::debug!(error = %refused, method, "no notification");
        Ok(None)
    }
}

/// A body is read as markup.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// How many may be shown now.
#[derive(Debug)]
struct Rate {
    left: u32,
    /// When `left` was counted last.
    since: Instant,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// Takes one, or says when there is one again.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.left < BURST && self.since + EACH <= now {
            self.left += 1;
            self.since += EACH;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left = self.left.checked_sub(1).ok_or(self.since + EACH)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_shown_at_once_then_one_at_a_time() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for _ in 0..BURST {
            assert_eq!(rate.take(start), Ok(()));
        }
        assert_eq!(rate.take(start), Err(start + EACH));
        assert_eq!(rate.take(start + EACH), Ok(()));
        assert_eq!(rate.take(start + EACH), Err(start + EACH * 2));
        let rested = start + EACH * 100;
        for _ in 0..BURST {
            assert_eq!(rate.take(rested), Ok(()));
        }
        assert_eq!(rate.take(rested), Err(rested + EACH));
    }

    #[test]
    fn no_name_becomes_markup() {
        assert_eq!(plain("<b>a&b</b>"), "&lt;b&gt;a&amp;b&lt;/b&gt;");
    }
}
