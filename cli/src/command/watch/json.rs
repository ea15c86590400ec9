//! Events as lines of JSON, for scripts: whoever reads them answers nothing.

use std::io::{self, Write as _};

use serde_json::{Value, json};
use signet_proto::v1::{AttendEvent, WaitingRequest, attend_event::Event};
use tonic::Streaming;

use crate::{
    command::{log, status},
    failure::{Failure, exit},
    ui::text::rfc3339,
};

/// Prints every event until the agent ends, or nobody reads any more.
///
/// # Errors
///
/// Exit 6 when the agent ends.
pub(super) async fn run(mut events: Streaming<AttendEvent>) -> Result<(), Failure> {
    while let Some(event) = events.message().await.map_err(super::ended)? {
        let Some(line) = event.event.as_ref().and_then(line) else {
            continue;
        };
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                let what = format!("cannot write to stdout: {error}");
                return Err(Failure::new(exit::FAILED, "stdout", what));
            }
        }
    }
    Err(super::gone())
}

fn line(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Attending(attending) => {
            let others: Vec<Value> = attending.others.iter().map(status::attendant).collect();
            json!({ "v": 1, "event": "attending", "others": others })
        }
        Event::Request(asks) => json!({ "v": 1, "event": "request", "request": request(asks) }),
        Event::RequestOver(over) => json!({ "v": 1, "event": "request_over", "id": over.id }),
        Event::Entry(entry) => json!({ "v": 1, "event": "entry", "entry": log::to_json(entry) }),
        // Nobody is asked here.
        Event::Prompt(_) | Event::PromptOver(_) => return None,
    })
}

fn request(asks: &WaitingRequest) -> Value {
    let claimed = asks.claimed_context.clone().unwrap_or_default();
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": asks.id,
        "caller": asks.caller,
        "forwarded": asks.forwarded,
        "command": text(&claimed.command),
        "image": text(&claimed.image),
        "server": text(&claimed.server),
        "summary": asks.summary,
        "waits_for": text(&asks.waits_for),
        "since": rfc3339(asks.since),
    })
}

#[cfg(test)]
mod tests {
    use signet_proto::v1::{AttendantInfo, Attending, LogEntry, RequestOver};

    use super::*;

    #[test]
    fn every_event_is_one_line_as_documented() {
        let who = AttendantInfo {
            pid: 7,
            exe: "/usr/bin/signet".into(),
            terminal: "pts/3".into(),
            since: 1_800_000_000,
        };
        let asks = WaitingRequest {
            id: 3,
            caller: "signet (pid 8)".into(),
            summary: vec!["reg/app: targets v2".into()],
            since: 1_800_000_000,
            ..WaitingRequest::default()
        };
        let events = [
            Event::Attending(Attending { others: vec![who] }),
            Event::Request(asks),
            Event::RequestOver(RequestOver { id: 3 }),
            Event::Entry(LogEntry::default()),
        ];
        for event in &events {
            let line = line(event).unwrap();
            crate::schema::assert_fits("signet watch", &line);
            assert!(!line.to_string().contains('\n'));
        }
    }
}
