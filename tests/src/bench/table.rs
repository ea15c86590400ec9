//! Figures in columns.

use std::time::Duration;

/// A titled table of text.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With its column heads.
    #[must_use]
    pub fn new(title: &str, heads: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            rows: vec![heads.iter().map(|&h| h.to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.to_vec());
    }

    /// The table, with columns aligned.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width: Vec<usize> = (0..columns)
            .map(|i| {
                self.rows
                    .iter()
                    .filter_map(|r| r.get(i))
                    .map(|c| c.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let pad = width[i] - cell.chars().count();
                if i == 0 {
                    line.push_str(&format!("  {cell}{}", " ".repeat(pad)));
                } else {
                    line.push_str(&format!("  {}{cell}", " ".repeat(pad)));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
            if number == 0 {
                text.push_str(&format!(
                    "  {}\n",
                    "-".repeat(line.trim_start().chars().count())
                ));
            }
        }
        text
    }
}

/// `12.3 ms`, `45 µs`.
#[must_use]
pub fn time(at: Duration) -> String {
    let micros = at.as_secs_f64() * 1e6;
    if micros < 1_000.0 {
        format!("{micros:.0} µs")
    } else if micros < 1_000_000.0 {
        format!("{:.1} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

/// `12.3 MiB`
#[must_use]
pub fn memory(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// `0.42`
#[must_use]
pub fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

/// The median.
#[must_use]
pub fn middle(times: Vec<Duration>) -> Duration {
    percentile(times, 50)
}

/// The time that so many percent of them stay below.
#[must_use]
pub fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times
        .get(times.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}
