//! The line that says what a request waits for: a touch, a card, another program.
//!
//! On a terminal it counts down in place, and the next thing that happens erases it. Where stderr
//! is no terminal each is one plain line. It is talk: nothing of it goes to stdout.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use console::Term;
use signet_proto::v1::{CardName, Waiting, waiting::What};
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use super::{
    card::{key, named},
    text::escape,
};
use crate::{Context, failure::Failure};

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Erases the line that the cursor is on.
const ERASE: &str = "\r\x1b[2K";

/// One line about what is waited for, or none.
#[derive(Debug, Default)]
pub(crate) struct WaitLine {
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    text: String,
    until: Instant,
    next: Instant,
}

impl WaitLine {
    /// Says what is waited for from now on.
    pub(crate) fn say(&mut self, ctx: &mut Context, waiting: &Waiting) {
        self.erase();
        let Some((text, seconds)) = words(waiting) else {
            return;
        };
        if let Some(What::Touch(touch)) = &waiting.what {
            ctx.tell(&touch.summary);
        }
        if !ctx.ui.talk_is_terminal() {
            return ctx.ui.say(text);
        }
        let now = Instant::now();
        self.shown = Some(Shown {
            text,
            until: now + Duration::from_secs(seconds.into()),
            next: now,
        });
        self.draw();
    }

    /// Erases it, if it is there.
    fn erase(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "{ERASE}");
        }
    }

    /// Draws it again, a second later.
    fn draw(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        let now = Instant::now();
        let left = shown.until.saturating_duration_since(now).as_secs_f64();
        // No terminal has a narrower line than the countdown needs.
        let columns = Term::stderr()
            .size_checked()
            .map_or(COLUMNS, |(_, columns)| usize::from(columns));
        let line = fitted(&shown.text, left.ceil() as u64, columns);
        shown.next = now + Duration::from_secs(1);
        let mut out = io::stderr().lock();
        let _ = write!(out, "{ERASE}{line}").and_then(|()| out.flush());
    }

    /// Returns when it is to be drawn again; never, where nothing is shown.
    async fn tick(&self) {
        match &self.shown {
            Some(shown) => sleep_until(shown.next).await,
            None => std::future::pending().await,
        }
    }

    /// The next event of a stream. Meanwhile the line counts down; the event erases it.
    ///
    /// # Errors
    ///
    /// As the agent says.
    pub(crate) async fn next<T>(
        &mut self,
        events: &mut Streaming<T>,
    ) -> Result<Option<T>, Failure> {
        loop {
            tokio::select! {
                biased;
                event = events.message() => {
                    self.erase();
                    return Ok(event?);
                }
                () = self.tick() => self.draw(),
            }
        }
    }
}

impl Drop for WaitLine {
    fn drop(&mut self) {
        self.erase();
    }
}

/// What is waited for, and for how many seconds; nothing when it is over.
fn words(waiting: &Waiting) -> Option<(String, u32)> {
    match waiting.what.as_ref()? {
        What::Touch(touch) => {
            let key = key(&touch.role, &touch.label, &touch.gun);
            let mut text = format!("Touch the {}", named(touch.card.as_ref()));
            if !key.is_empty() {
                text = format!("{text}: {key}");
            }
            Some((text, touch.seconds))
        }
        What::Missing(missing) => Some((
            format!("Insert {}", any_of(&missing.cards)),
            missing.seconds,
        )),
        What::Busy(busy) => {
            let holder = match busy.holder.as_str() {
                "" => "another program".to_owned(),
                holder => escape(holder),
            };
            let card = named(busy.card.as_ref());
            Some((
                format!("The {card} is used by {holder}; waiting"),
                busy.seconds,
            ))
        }
        What::Over(_) => None,
    }
}

fn any_of(cards: &[CardName]) -> String {
    match cards {
        [] => "a YubiKey".into(),
        cards => {
            let names: Vec<String> = cards.iter().map(|card| named(Some(card))).collect();
            format!("the {}", names.join(" or the "))
        }
    }
}

/// The line with its countdown, cut so that it stays one line.
fn fitted(text: &str, left: u64, columns: usize) -> String {
    let countdown = format!(" [{left} s]");
    // The last column stays free: some terminals wrap when it is written to.
    let room = columns.saturating_sub(countdown.len() + 1);
    format!(
        "{}{countdown}",
        console::truncate_str(text, room.max(1), "…")
    )
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::{Busy, CardMissing, TouchNow, WaitOver};

    use super::*;

    fn card(serial: u32, label: &str) -> CardName {
        CardName {
            serial,
            label: label.into(),
            slot: "9c".into(),
        }
    }

    fn text(what: What) -> Option<String> {
        words(&Waiting { what: Some(what) }).map(|(text, _)| text)
    }

    #[test]
    fn each_says_what_to_do() {
        let touch = TouchNow {
            card: Some(card(7, "work")),
            seconds: 15,
            role: "root".into(),
            gun: "docker.io/me/app".into(),
            ..TouchNow::default()
        };
        assert_eq!(
            text(What::Touch(touch)).unwrap(),
            "Touch the YubiKey 'work' (serial 7): root key for docker.io/me/app"
        );
        let missing = CardMissing {
            cards: vec![card(7, "work"), card(8, "")],
            seconds: 60,
        };
        assert_eq!(
            text(What::Missing(missing)).unwrap(),
            "Insert the YubiKey 'work' (serial 7) or the YubiKey (serial 8)"
        );
        let busy = Busy {
            card: Some(card(7, "")),
            holder: "scdaemon (pid 4211)".into(),
            seconds: 10,
        };
        assert_eq!(
            text(What::Busy(busy)).unwrap(),
            "The YubiKey (serial 7) is used by scdaemon (pid 4211); waiting"
        );
        assert_eq!(text(What::Over(WaitOver {})), None);
    }

    #[test]
    fn a_long_line_keeps_its_countdown_on_one_line() {
        let line = fitted(&"x".repeat(200), 12, 40);
        assert_eq!(console::measure_text_width(&line), 39);
        assert!(line.ends_with("… [12 s]"), "{line}");
        assert_eq!(fitted("short", 1, 80), "short [1 s]");
        assert!(fitted("short", 1, 0).ends_with(" [1 s]"));
    }
}
