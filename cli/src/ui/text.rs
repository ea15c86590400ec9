//! How facts look as text: escaped names, short IDs, times, columns.

use jiff::{Timestamp, tz::TimeZone};

pub(crate) use signet_trust::payload::escape;

/// The first ten digits of a key ID: enough for a person, and for any KEY argument.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// RFC 3339 in UTC; `None` for 0, which means never.
pub(crate) fn rfc3339(seconds: i64) -> Option<String> {
    if seconds == 0 {
        return None;
    }
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

/// A time as a person here reads it.
pub(crate) fn local_time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => "?".into(),
    }
}

/// A span in its largest sensible unit: `14 min`, `3 days`.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Rows in columns as wide as their widest cell; the last one is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = console::measure_text_width(cell);
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    let gap = widths[at] - console::measure_text_width(cell) + 2;
                    line.extend(std::iter::repeat_n(' ', gap));
                }
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(
            rfc3339(1_800_000_000).as_deref(),
            Some("2027-01-15T08:00:00Z")
        );
        assert_eq!(rfc3339(0), None);
    }

    #[test]
    fn columns_line_up_without_trailing_space() {
        let rows = vec![
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), String::new()],
        ];
        assert_eq!(columns(&rows), ["a    bb", "ccc"]);
    }

    #[test]
    fn spans_use_one_unit() {
        assert_eq!(
            [span(5), span(900), span(7_200), span(864_000)],
            ["5 s", "15 min", "2 h", "10 days"]
        );
    }
}
