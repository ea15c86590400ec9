//! What happened to a card since somebody last asked to count afresh.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Commands remembered in order; more are counted only.
const REMEMBERED: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) exchanges: u64,
    pub(crate) resets: u64,
    pub(crate) powers: u64,
    instructions: BTreeMap<u8, u64>,
    sequence: Vec<String>,
    touches: Vec<Wait>,
}

/// One time that the card waited for a touch; times of `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Debug)]
struct Wait {
    begin: u64,
    end: Option<u64>,
    touched: bool,
}

impl Stats {
    /// A command in full, and how it ended: header and status word, never the data.
    pub(crate) fn command(&mut self, header: [u8; 4], status: Option<[u8; 2]>) {
        *self.instructions.entry(header[1]).or_default() += 1;
        if self.sequence.len() < REMEMBERED {
            let status = status.map_or("gone".to_owned(), hex::encode);
            let line = format!("{} {status}", hex::encode(header));
            self.sequence.push(line);
        }
    }

    pub(crate) fn touch_begins(&mut self, begin: u64) {
        self.touches.push(Wait {
            begin,
            end: None,
            touched: false,
        });
    }

    pub(crate) fn touch_ends(&mut self, end: u64, touched: bool) {
        if let Some(wait) = self.touches.last_mut() {
            wait.end = Some(end);
            wait.touched = touched;
        }
    }

    pub(crate) fn json(&self) -> Value {
        let instructions = self.instructions.iter();
        let instructions = instructions.map(|(ins, count)| (format!("{ins:02X}"), json!(count)));
        let touches = self
            .touches
            .iter()
            .map(|wait| json!({"begin": wait.begin, "end": wait.end, "touched": wait.touched}));
        json!({
            "exchanges": self.exchanges,
            "resets": self.resets,
            "powers": self.powers,
            "ins": instructions.collect::<serde_json::Map<_, _>>(),
            "sequence": self.sequence,
            "touches": touches.collect::<Vec<_>>(),
        })
    }
}
