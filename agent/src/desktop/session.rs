//! logind: the machine is about to sleep, a session was locked (`org.freedesktop.login1(5)`).
//!
//! While it waits for a suspend the agent holds a delay inhibitor, so that secrets are wiped before
//! memory is frozen, and gives it back as soon as they are. Screens are locked by
//! `loginctl lock-session`, which sends `Lock`, or by the desktop itself, which sets `LockedHint`;
//! any session of this user counts. Only what logind itself sent is heeded.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use zbus::{
    Connection, MatchRule, Message, MessageStream,
    message::Type,
    zvariant::{OwnedFd, OwnedObjectPath, OwnedValue},
};

use super::{
    FIRST_PAUSE, LockOn,
    bus::{Bus, BusError},
    lock, longer,
};
use crate::keyring::Keyring;

const DBUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";
const SESSIONS: &str = "/org/freedesktop/login1/session";

/// How long locking may keep the machine awake; logind waits 5 s (`InhibitDelayMaxSec=`).
const BEFORE_SLEEP: Duration = Duration::from_secs(4);
/// Bytes of a signal that is read; those of logind have a few hundred.
const MAX_BODY: usize = 16 * 1024;

/// What a signal asks for.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// logind came, went, or was replaced: its name on the bus now.
    Owner(Option<String>),
    /// The machine is about to sleep, or awake again.
    Sleep(bool),
    /// The session of this path was locked.
    Locked(OwnedObjectPath),
}

/// Locks when logind says so, for as long as it is polled.
pub(super) async fn follow(keyring: &Keyring, on: LockOn, bus: &Bus) {
    let mut pause = FIRST_PAUSE;
    loop {
        match Logind::connect(on, bus).await {
            Ok(mut logind) => {
                tracing::debug!("following logind");
                pause = FIRST_PAUSE;
                logind.run(keyring).await;
                tracing::debug!("the system's bus is gone");
            }
            Err(error) => tracing::debug!(%error, "no signals of logind"),
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

/// logind, as it is followed.
struct Logind {
    on: LockOn,
    connection: Connection,
    signals: MessageStream,
    /// Its unique name, if it runs.
    owner: Option<String>,
    /// Keeps the machine awake until it is closed.
    inhibitor: Option<OwnedFd>,
}

impl Logind {
    async fn connect(on: LockOn, bus: &Bus) -> Result<Self, BusError> {
        let connection = bus.connect().await?;
        let signals = MessageStream::from(&connection);
        for rule in rules(on)? {
            let body = rule.to_string();
            let path = "/org/freedesktop/DBus";
            connection
                .call_method(Some(DBUS), path, Some(DBUS), "AddMatch", &body)
                .await?;
        }
        let mut logind = Self {
            on,
            connection,
            signals,
            owner: None,
            inhibitor: None,
        };
        // Asking for it also starts a logind that runs on demand.
        logind.inhibit().await;
        logind.owner = logind.ask_owner().await;
        Ok(logind)
    }

    async fn ask_owner(&self) -> Option<String> {
        let path = "/org/freedesktop/DBus";
        let asked = self
            .connection
            .call_method(Some(DBUS), path, Some(DBUS), "GetNameOwner", &LOGIND)
            .await;
        asked.ok()?.body().deserialize().ok()
    }

    /// Has logind wait for us before the machine sleeps.
    async fn inhibit(&mut self) {
        if !self.on.suspend {
            return;
        }
        let body = (
            "sleep",
            "Signet",
            "keys are locked before the machine sleeps",
            "delay",
        );
        let asked = self
            .connection
            .call_method(Some(LOGIND), PATH, Some(MANAGER), "Inhibit", &body)
            .await;
        self.inhibitor = match asked.and_then(|reply| reply.body().deserialize()) {
            Ok(inhibitor) => Some(inhibitor),
            Err(error) => {
                tracing::debug!(%error, "logind does not wait before the machine sleeps");
                None
            }
        };
    }

    /// Until the bus is lost.
    async fn run(&mut self, keyring: &Keyring) {
        while let Some(Ok(message)) = self.signals.next().await {
            match told(&message, self.owner.as_deref()) {
                None => {}
                Some(Told::Owner(owner)) => {
                    let came = owner.is_some();
                    self.owner = owner;
                    if came {
                        self.inhibit().await;
                    }
                }
                Some(Told::Sleep(true)) if self.on.suspend => {
                    let why = "the machine goes to sleep";
                    if timeout(BEFORE_SLEEP, lock(keyring, why)).await.is_err() {
                        tracing::error!("not everything was locked before the machine sleeps");
                    }
                    self.inhibitor = None;
                }
                Some(Told::Sleep(false)) if self.inhibitor.is_none() => self.inhibit().await,
                Some(Told::Sleep(_)) => {}
                Some(Told::Locked(session)) => self.locked(keyring, &session).await,
            }
        }
    }

    async fn locked(&self, keyring: &Keyring, session: &OwnedObjectPath) {
        if self.on.screen && self.is_ours(session).await {
            lock(keyring, "the screen was locked").await;
        }
    }

    /// Whether a session is this user's; one of which nobody knows whose it is counts as such.
    async fn is_ours(&self, session: &OwnedObjectPath) -> bool {
        let body = (SESSION, "User");
        let asked = self
            .connection
            .call_method(Some(LOGIND), session, Some(PROPERTIES), "Get", &body)
            .await;
        let user = asked.and_then(|reply| {
            let value: OwnedValue = reply.body().deserialize()?;
            let (uid, _): (u32, OwnedObjectPath) = value.try_into()?;
            Ok(uid)
        });
        match user {
            Ok(uid) => {
                let ours = uid == rustix::process::getuid().as_raw();
                if !ours {
                    tracing::debug!(uid, "a session of another user was locked");
                }
                ours
            }
            Err(error) => {
                tracing::debug!(%error, %session, "whose session it is cannot be told");
                true
            }
        }
    }
}

/// What the bus is asked to pass on.
fn rules(on: LockOn) -> Result<Vec<MatchRule<'static>>, zbus::Error> {
    let signal = || MatchRule::builder().msg_type(Type::Signal);
    let mut rules = vec![
        signal()
            .sender(DBUS)?
            .interface(DBUS)?
            .member("NameOwnerChanged")?
            .arg(0, LOGIND)?
            .build(),
    ];
    if on.suspend {
        let rule = signal().sender(LOGIND)?.interface(MANAGER)?;
        rules.push(rule.member("PrepareForSleep")?.build());
    }
    if on.screen {
        let rule = signal().sender(LOGIND)?.interface(SESSION)?;
        rules.push(rule.member("Lock")?.build());
        let rule = signal().sender(LOGIND)?.interface(PROPERTIES)?;
        let rule = rule.member("PropertiesChanged")?.path_namespace(SESSIONS)?;
        rules.push(rule.arg(0, SESSION)?.build());
    }
    Ok(rules)
}

/// Reads a message; `None` where it is nothing that logind or the bus would tell us.
fn told(message: &Message, logind: Option<&str>) -> Option<Told> {
    let header = message.header();
    if header.message_type() != Type::Signal {
        return None;
    }
    let body = message.body();
    if body.len() > MAX_BODY {
        return None;
    }
    let sender = header.sender()?.as_str();
    let interface = header.interface()?.as_str();
    let member = header.member()?.as_str();
    let path = header.path()?;
    if (sender, interface, member) == (DBUS, DBUS, "NameOwnerChanged") {
        let (name, _, owner): (&str, &str, &str) = body.deserialize().ok()?;
        let owner = Some(owner).filter(|owner| !owner.is_empty());
        return (name == LOGIND).then(|| Told::Owner(owner.map(str::to_owned)));
    }
    // Anybody on the bus can send a signal to anybody.
    if Some(sender) != logind {
        return None;
    }
    let of_session = path
        .as_str()
        .strip_prefix(SESSIONS)
        .is_some_and(|rest| rest.starts_with('/'));
    match (interface, member) {
        (MANAGER, "PrepareForSleep") => body.deserialize().ok().map(Told::Sleep),
        (SESSION, "Lock") if of_session => Some(Told::Locked(path.to_owned().into())),
        (PROPERTIES, "PropertiesChanged") if of_session => {
            let (of, changed, _): (&str, HashMap<&str, OwnedValue>, Vec<&str>) =
                body.deserialize().ok()?;
            let hint = changed.get("LockedHint")?;
            let locked = bool::try_from(hint).ok()?;
            (of == SESSION && locked).then(|| Told::Locked(path.to_owned().into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = ":1.7";

    fn signal<B: serde::Serialize + zbus::zvariant::DynamicType>(
        sender: &str,
        path: &str,
        (interface, member): (&str, &str),
        body: &B,
    ) -> Message {
        Message::signal(path, interface, member)
            .unwrap()
            .sender(sender)
            .unwrap()
            .build(body)
            .unwrap()
    }

    fn session() -> OwnedObjectPath {
        format!("{SESSIONS}/_32").try_into().unwrap()
    }

    #[test]
    fn what_logind_tells_is_read() {
        let sleep = (MANAGER, "PrepareForSleep");
        let message = signal(OWNER, PATH, sleep, &true);
        assert_eq!(told(&message, Some(OWNER)), Some(Told::Sleep(true)));
        let message = signal(OWNER, PATH, sleep, &false);
        assert_eq!(told(&message, Some(OWNER)), Some(Told::Sleep(false)));

        let message = signal(OWNER, session().as_str(), (SESSION, "Lock"), &());
        assert_eq!(told(&message, Some(OWNER)), Some(Told::Locked(session())));

        let changed = (PROPERTIES, "PropertiesChanged");
        for (locked, expected) in [(true, Some(Told::Locked(session()))), (false, None)] {
            let hints = HashMap::from([("LockedHint", zbus::zvariant::Value::from(locked))]);
            let body = (SESSION, hints, Vec::<&str>::new());
            let message = signal(OWNER, session().as_str(), changed, &body);
            assert_eq!(told(&message, Some(OWNER)), expected);
        }

        let changed = (DBUS, "NameOwnerChanged");
        let message = signal(DBUS, "/org/freedesktop/DBus", changed, &(LOGIND, "", OWNER));
        assert_eq!(
            told(&message, None),
            Some(Told::Owner(Some(OWNER.to_owned())))
        );
        let message = signal(DBUS, "/org/freedesktop/DBus", changed, &(LOGIND, OWNER, ""));
        assert_eq!(told(&message, None), Some(Told::Owner(None)));
    }

    #[test]
    fn signals_of_others_and_odd_ones_are_not_heeded() {
        let sleep = (MANAGER, "PrepareForSleep");
        for (message, logind) in [
            (signal(":1.8", PATH, sleep, &true), Some(OWNER)),
            (signal(OWNER, PATH, sleep, &true), None),
            (signal(OWNER, PATH, sleep, &"true"), Some(OWNER)),
            (signal(OWNER, PATH, (SESSION, "Lock"), &()), Some(OWNER)),
            (
                signal(
                    OWNER,
                    PATH,
                    (DBUS, "NameOwnerChanged"),
                    &(LOGIND, "", ":1.8"),
                ),
                Some(OWNER),
            ),
            (
                signal(
                    DBUS,
                    PATH,
                    (DBUS, "NameOwnerChanged"),
                    &("org.other", "", ":1.8"),
                ),
                Some(OWNER),
            ),
            (
                signal(OWNER, PATH, sleep, &"x".repeat(MAX_BODY + 1)),
                Some(OWNER),
            ),
        ] {
            assert_eq!(told(&message, logind), None, "{message:?}");
        }
    }
}
