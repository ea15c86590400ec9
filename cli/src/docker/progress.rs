//! How far a push or pull is: bars on a terminal, one line per event elsewhere.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::stream::Message;
use crate::ui::Ui;

/// Shows the messages of one push or pull on stderr.
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    bars: Option<MultiProgress>,
    layers: HashMap<String, Layer>,
}

struct Layer {
    bar: Option<ProgressBar>,
    status: String,
}

/// More layers than any image has; later ones are not shown.
const MAX_LAYERS: usize = 512;

impl std::fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress")
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Progress<'a> {
    /// Nothing is shown yet.
    pub(crate) fn new(ui: &'a Ui) -> Self {
        let bars = ui.talk_is_terminal().then(MultiProgress::new);
        Self {
            ui,
            bars,
            layers: HashMap::new(),
        }
    }

    /// Takes the next message.
    pub(crate) fn show(&mut self, message: &Message) {
        let status = signet_trust::payload::escape(&message.status);
        if message.id.is_empty() {
            if !status.is_empty() {
                self.line(&status);
            }
            return;
        }
        let id = signet_trust::payload::escape(&message.id);
        if !self.layers.contains_key(&id) {
            if self.layers.len() >= MAX_LAYERS {
                return;
            }
            let bar = self.bars.as_ref().map(|bars| bars.add(new_bar(&id)));
            self.layers.insert(
                id.clone(),
                Layer {
                    bar,
                    status: String::new(),
                },
            );
        }
        let layer = self.layers.get_mut(&id).expect("it was put there above");
        let changed = layer.status != status;
        match &layer.bar {
            Some(bar) => {
                if let Some(detail) = message.progress_detail {
                    bar.set_length(u64::try_from(detail.total).unwrap_or(0));
                    bar.set_position(u64::try_from(detail.current).unwrap_or(0));
                }
                if changed {
                    bar.set_message(status.clone());
                }
            }
            None if changed => self.ui.say(format_args!("{id}: {status}")),
            None => {}
        }
        layer.status = status;
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => self.ui.say(text),
        }
    }

    /// Leaves the bars as they are and gives the terminal back.
    pub(crate) fn finish(self) {
        for layer in self.layers.into_values() {
            if let Some(bar) = layer.bar {
                bar.abandon();
            }
        }
    }
}

fn new_bar(id: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:.bold} {msg:24} {bar:30} {bytes}/{total_bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0)
        .with_style(style)
        .with_prefix(id.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
