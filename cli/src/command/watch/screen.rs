//! The screen, from what is known: lines of text, at most as many as the terminal has. Pure.
//!
//! A question and the keys that answer it are always on it; what it is about is wrapped, never cut
//! in its width, and scrolled where it is longer than the terminal is high. What comes from outside
//! is escaped.

use std::time::Instant;

use signet_proto::v1::{LogEntry, WaitingRequest};

use super::{model::Model, question::Question};
use crate::{
    command::card::state,
    ui::{
        card::named,
        text::{escape, local_time, span},
    },
};

/// How a line looks, where colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Head,
    Strong,
    Dim,
    Alarm,
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) look: Look,
}

fn line(look: Look, text: impl Into<String>) -> Line {
    Line {
        text: text.into(),
        look,
    }
}

/// Where and when a screen is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// Columns and lines.
    pub(super) size: (usize, usize),
    pub(super) now: Instant,
    /// Unix seconds.
    pub(super) wall: i64,
}

/// The lines; `scrolled` of the model is brought back to what there is to scroll.
pub(super) fn lines(model: &mut Model, at: At) -> Vec<Line> {
    let (columns, height) = (at.size.0.max(1), at.size.1.max(1));
    let head = wrapped(&head(model, at.wall), columns, 0);
    let foot = foot(model, at, columns);
    let body = match &model.question {
        Some(question) => about(model, question, at.wall, columns),
        None => overview(model, at.wall, columns),
    };
    // The foot is what must be there: the question, and how to answer it.
    let mut all: Vec<Line> = Vec::new();
    let room = height.saturating_sub(foot.len());
    if room > head.len() + 2 {
        all.extend(head);
        all.push(line(Look::Dim, "─".repeat(columns)));
    }
    let room = room.saturating_sub(all.len());
    all.extend(scrolled(body, room, &mut model.scrolled));
    let gap = height.saturating_sub(all.len() + foot.len());
    all.extend((0..gap).map(|_| line(Look::Plain, "")));
    all.extend(foot);
    all.truncate(height);
    for one in &mut all {
        one.text = console::truncate_str(&one.text, columns, "…").into_owned();
    }
    all
}

/// What fits of a text, with a word on what does not.
fn scrolled(body: Vec<Line>, room: usize, by: &mut usize) -> Vec<Line> {
    if body.len() <= room {
        *by = 0;
        return body;
    }
    let shown = room.saturating_sub(1);
    *by = (*by).min(body.len() - shown);
    let (above, below) = (*by, body.len() - shown - *by);
    let mut lines: Vec<Line> = body.into_iter().skip(*by).take(shown).collect();
    if room > 0 {
        let more = match (above, below) {
            (0, below) => format!("… {below} more lines (arrow down)"),
            (above, 0) => format!("… {above} lines above (arrow up)"),
            (above, below) => format!("… {above} lines above, {below} below (arrow keys)"),
        };
        lines.push(line(Look::Alarm, more));
    }
    lines
}

fn head(model: &Model, wall: i64) -> Line {
    let Some(status) = &model.status else {
        return line(Look::Head, "signet watch");
    };
    let keyring = match (status.keyring_exists, status.unlocked) {
        (false, _) => "no keyring yet".to_owned(),
        (true, false) => "keyring locked".to_owned(),
        (true, true) => format!(
            "keyring unlocked for {}",
            span(status.unlocked_until.saturating_sub(wall).max(0))
        ),
    };
    let mut facts = vec!["signet watch".to_owned(), keyring];
    facts.extend(
        status
            .cards
            .iter()
            .map(|card| format!("{} {}", named(card.card.as_ref()), state(card))),
    );
    match status.grants.len() {
        0 => {}
        1 => facts.push("1 grant".into()),
        count => facts.push(format!("{count} grants")),
    }
    // Silent ones are not counted, and this one attends, too.
    match status.attendants.len().saturating_sub(1) {
        0 => {}
        others => facts.push(format!("{others} more attend")),
    }
    line(Look::Head, facts.join(" · "))
}

/// The question and its keys, or the keys alone.
fn foot(model: &Model, at: At, columns: usize) -> Vec<Line> {
    let mut foot = Vec::new();
    let Some(question) = &model.question else {
        if !model.notice.is_empty() {
            foot.extend(wrapped(&line(Look::Dim, &*model.notice), columns, 0));
        }
        let keys = match model.takes_keys_at(at.now) {
            Some(_) => "",
            None => "l lock · q end",
        };
        foot.extend(wrapped(&line(Look::Dim, keys), columns, 0));
        return foot;
    };
    let (words, fault) = question.words(at.wall);
    foot.push(line(Look::Dim, "─".repeat(columns)));
    if !fault.is_empty() {
        foot.extend(wrapped(&line(Look::Alarm, fault), columns, 0));
    }
    foot.extend(wrapped(&line(Look::Strong, words), columns, 2));
    foot.extend(wrapped(
        &line(Look::Plain, question.hints(at.now)),
        columns,
        2,
    ));
    match model.queue.len() {
        0 => {}
        1 => foot.push(line(Look::Dim, "1 more question waits")),
        count => foot.push(line(Look::Dim, format!("{count} more questions wait"))),
    }
    foot
}

/// Who asks for what, for the question that is shown.
fn about(model: &Model, question: &Question, wall: i64, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let request = model.requests.get(&question.request());
    if let Some(request) = request {
        lines.extend(who(request, wall, columns));
    }
    let summary = match question.summary() {
        [] => request.map_or(&[][..], |request| &request.summary),
        summary => summary,
    };
    for one in summary {
        lines.extend(wrapped(&line(Look::Strong, escape(one)), columns, 4));
    }
    lines
}

/// Facts of the kernel, and what the caller says of itself.
fn who(request: &WaitingRequest, wall: i64, columns: usize) -> Vec<Line> {
    let since = span(wall.saturating_sub(request.since).max(0));
    let mut text = format!("asked by {}, {since} ago", escape(&request.caller));
    if request.forwarded {
        text.push_str(", forwarded from another machine");
    }
    let look = match request.forwarded {
        true => Look::Alarm,
        false => Look::Plain,
    };
    let mut lines = wrapped(&line(look, text), columns, 2);
    let claimed = request.claimed_context.iter();
    for (name, said) in claimed.flat_map(|claimed| {
        [
            ("command", &claimed.command),
            ("image", &claimed.image),
            ("server", &claimed.server),
        ]
    }) {
        if !said.is_empty() {
            let text = format!("it claims: {name} {}", escape(said));
            lines.extend(wrapped(&line(Look::Dim, text), columns, 2));
        }
    }
    lines
}

/// What waits, and what happened.
fn overview(model: &Model, wall: i64, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    if model.requests.is_empty() {
        lines.push(line(Look::Plain, "No request waits."));
    }
    for request in model.requests.values() {
        let waits = match request.waits_for.as_str() {
            "" => "is at work".to_owned(),
            what => format!("waits for {}", escape(what)),
        };
        let text = format!("request {}: {waits}", request.id);
        lines.extend(wrapped(&line(Look::Strong, text), columns, 2));
        lines.extend(who(request, wall, columns));
        for one in &request.summary {
            lines.extend(wrapped(&line(Look::Plain, escape(one)), columns, 4));
        }
    }
    if !model.entries.is_empty() {
        lines.push(line(Look::Plain, ""));
        lines.push(line(Look::Dim, "The newest entries of the log"));
    }
    // The newest on top: what is cut is the oldest.
    for entry in model.entries.iter().rev() {
        let look = match entry.kind.as_str() {
            "refuse" | "fail" => Look::Alarm,
            _ => Look::Plain,
        };
        let text = console::truncate_str(&happened(entry), columns, "…").into_owned();
        lines.push(line(look, text));
    }
    lines
}

fn happened(entry: &LogEntry) -> String {
    let version = match entry.version {
        0 => String::new(),
        version => format!("v{version}"),
    };
    let facts = [
        entry.number.to_string(),
        local_time(entry.time),
        entry.kind.clone(),
        entry.gun.clone(),
        entry.role.clone(),
        version,
        match entry.gun.is_empty() {
            true => entry.summary.lines().next().unwrap_or_default().to_owned(),
            false => String::new(),
        },
        match entry.outcome.as_str() {
            "" => String::new(),
            outcome => format!("[{outcome}]"),
        },
    ];
    let facts = facts.iter().filter(|fact| !fact.is_empty());
    facts.map(|fact| escape(fact)).collect::<Vec<_>>().join(" ")
}

/// The line in as many as it needs; all but the first are indented.
fn wrapped(whole: &Line, columns: usize, indent: usize) -> Vec<Line> {
    let indent = match indent < columns {
        true => " ".repeat(indent),
        false => String::new(),
    };
    let mut lines = Vec::new();
    let mut text = String::new();
    let mut used = 0;
    for letter in whole.text.chars() {
        let width = console::measure_text_width(letter.encode_utf8(&mut [0; 4]));
        if used + width > columns && used > indent.len() {
            lines.push(line(
                whole.look,
                std::mem::replace(&mut text, indent.clone()),
            ));
            used = indent.len();
        }
        text.push(letter);
        used += width;
    }
    lines.push(line(whole.look, text));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signet_proto::v1::{
        AttendPrompt, ClaimedContext, NeedConfirm, Prompt, attend_event::Event, prompt::Ask,
    };

    use super::*;

    fn model(summary: usize) -> Model {
        let mut model = Model::default();
        let now = Instant::now();
        let summary: Vec<String> = (0..summary)
            .map(|number| format!("line {number}\x1b[2J"))
            .collect();
        let request = WaitingRequest {
            id: 1,
            caller: "signet (pid 7), pts/3".into(),
            claimed_context: Some(ClaimedContext {
                command: "signet push \u{202e}x".into(),
                ..ClaimedContext::default()
            }),
            summary: summary.clone(),
            ..WaitingRequest::default()
        };
        model.apply(Event::Request(request), now);
        for (id, question) in [("a", "Sign?"), ("b", "And this?")] {
            let ask = Ask::Confirm(NeedConfirm {
                question: question.into(),
                summary: summary.clone(),
                ..NeedConfirm::default()
            });
            let prompt = AttendPrompt {
                prompt: Some(Prompt {
                    id: id.into(),
                    ask: Some(ask),
                }),
                request: 1,
                deadline: 90,
                grant_seconds: 0,
            };
            model.apply(Event::Prompt(prompt), now);
        }
        model
    }

    fn shown(model: &mut Model, size: (usize, usize)) -> String {
        let at = At {
            size,
            now: Instant::now() + Duration::from_secs(5),
            wall: 0,
        };
        let lines = lines(model, at);
        assert!(lines.len() <= size.1, "{size:?}");
        for line in &lines {
            let width = console::measure_text_width(&line.text);
            assert!(width <= size.0, "{size:?}: {}", line.text);
        }
        let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        lines.join("\n")
    }

    #[test]
    fn a_question_is_whole_on_whatever_terminal_and_alone() {
        let mut model = model(3);
        let text = shown(&mut model, (80, 24));
        for words in [
            "Sign? (1 min to answer)",
            "y yes · n no",
            "1 more question waits",
            "asked by signet (pid 7), pts/3",
            "it claims: command signet push \\u{202e}x",
            "line 2\\u{1b}[2J",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!text.contains("And this?"), "{text}");
        for size in [(40, 8), (20, 10), (12, 12), (1, 1), (5, 2)] {
            let text = shown(&mut model, size);
            if size.0 >= 20 {
                assert!(text.contains("y yes"), "{size:?}\n{text}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_scrolled_to() {
        let mut model = model(100);
        let text = shown(&mut model, (60, 20));
        assert!(
            text.contains("more lines (arrow down)") && text.contains("line 0"),
            "{text}"
        );
        model.scrolled = 1_000;
        let text = shown(&mut model, (60, 20));
        assert!(
            text.contains("line 99") && text.contains("lines above"),
            "{text}"
        );
        assert!(text.contains("y yes"), "{text}");
    }

    #[test]
    fn without_a_question_the_requests_and_entries_are_shown() {
        let mut model = Model::default();
        assert!(shown(&mut model, (80, 24)).contains("No request waits."));
        let request = WaitingRequest {
            id: 4,
            caller: "signet (pid 7)".into(),
            waits_for: "a touch of YubiKey 7".into(),
            forwarded: true,
            ..WaitingRequest::default()
        };
        model.apply(Event::Request(request), Instant::now());
        let entry = LogEntry {
            number: 12,
            kind: "sign".into(),
            gun: "reg/app".into(),
            role: "targets".into(),
            version: 3,
            outcome: "released".into(),
            ..LogEntry::default()
        };
        model.apply(Event::Entry(entry), Instant::now());
        let text = shown(&mut model, (80, 24));
        for words in [
            "request 4: waits for a touch of YubiKey 7",
            "forwarded from another machine",
            "sign reg/app targets v3 [released]",
            "l lock · q end",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }
}
