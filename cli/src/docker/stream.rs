//! The engine's answer to a push or pull: one JSON object per line, for as long as it takes.
//!
//! Read by ourselves: the typed streams of client libraries drop `aux`, which alone says what the
//! push really sent.

use serde::Deserialize;

use crate::image::Digest;

/// One line, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Message {
    /// Layer.
    pub(crate) id: String,
    /// In words.
    pub(crate) status: String,
    pub(crate) progress_detail: Option<ProgressDetail>,
    pub(crate) error: String,
    pub(crate) error_detail: Option<ErrorDetail>,
    /// Anything: push tells what was pushed in one, newer engines tell other things in others.
    pub(crate) aux: Option<serde_json::Value>,
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ProgressDetail {
    pub(crate) current: i64,
    pub(crate) total: i64,
}

/// Why it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorDetail {
    pub(crate) message: String,
}

/// What a push sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) tag: String,
    pub(crate) digest: Digest,
    /// Bytes of the manifest.
    pub(crate) size: u64,
}

impl Message {
    /// The error of this line, if it is one.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.error_detail {
            Some(detail) if !detail.message.is_empty() => Some(&detail.message),
            _ => Some(self.error.as_str()).filter(|error| !error.is_empty()),
        }
    }

    /// What was pushed, if this line tells.
    pub(crate) fn pushed(&self) -> Option<Pushed> {
        let aux = self.aux.as_ref()?;
        Some(Pushed {
            tag: aux.get("Tag")?.as_str()?.to_owned(),
            digest: aux.get("Digest")?.as_str()?.parse().ok()?,
            size: aux.get("Size")?.as_u64()?,
        })
    }
}

/// Longest line; the engine's are below a kilobyte.
const MAX_LINE: usize = 1 << 20;

/// A line that is too long or no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    #[error("the engine sent a line of more than 1 MiB")]
    TooLong,
    #[error("the engine sent a line that is not JSON")]
    NotJson,
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they came, gives the messages that are whole now.
    ///
    /// # Errors
    ///
    /// [`BadLine`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, BadLine> {
        let mut messages = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.pending.len() + piece.len() > MAX_LINE {
                return Err(BadLine::TooLong);
            }
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                messages.extend(self.take()?);
            }
        }
        Ok(messages)
    }

    /// The last line, where it has no end.
    ///
    /// # Errors
    ///
    /// [`BadLine`].
    pub(crate) fn finish(mut self) -> Result<Option<Message>, BadLine> {
        self.take()
    }

    fn take(&mut self) -> Result<Option<Message>, BadLine> {
        let line = std::mem::take(&mut self.pending);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|_| BadLine::NotJson)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = concat!(
        "{\"status\":\"The push refers to repository [127.0.0.1:5000/a]\"}\r\n",
        "{\"status\":\"Pushing\",\"progressDetail\":{\"current\":512,\"total\":2048},\"progress\":\"[=>]\",\"id\":\"1a2b\"}\r\n",
        "{\"status\":\"Pushed\",\"progressDetail\":{},\"id\":\"1a2b\"}\r\n",
        "{\"status\":\"1: digest: sha256:00 size: 528\"}\r\n",
        "{\"progressDetail\":{},\"aux\":{\"Tag\":\"1\",\"Digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\",\"Size\":528}}\r\n",
    );

    #[test]
    fn a_push_is_read_however_its_bytes_are_cut() {
        for cut in [1, 7, 100, 10_000] {
            let mut lines = Lines::default();
            let mut messages = Vec::new();
            for bytes in PUSH.as_bytes().chunks(cut) {
                messages.extend(lines.feed(bytes).unwrap());
            }
            assert_eq!(lines.finish().unwrap(), None);
            assert_eq!(messages.len(), 5);
            assert_eq!(
                messages[1].progress_detail,
                Some(ProgressDetail {
                    current: 512,
                    total: 2048
                })
            );
            let pushed = messages[4].pushed().unwrap();
            assert_eq!((pushed.tag.as_str(), pushed.size), ("1", 528));
            assert!(
                messages[..4]
                    .iter()
                    .all(|message| message.pushed().is_none())
            );
        }
    }

    #[test]
    fn errors_and_other_aux_messages_are_told_apart() {
        let mut lines = Lines::default();
        let messages = lines
            .feed(b"{\"errorDetail\":{\"message\":\"denied\"},\"error\":\"denied\"}\n{\"aux\":{\"manifestPushedInsteadOfIndex\":true}}\n{\"aux\":[1]}\n")
            .unwrap();
        assert_eq!(messages[0].failure(), Some("denied"));
        assert_eq!(messages[1].failure(), None);
        assert!(messages[1].pushed().is_none() && messages[2].pushed().is_none());
    }

    #[test]
    fn endless_lines_and_other_text_are_refused() {
        let mut lines = Lines::default();
        let mut result = Ok(Vec::new());
        for _ in 0..3 {
            result = lines.feed(&[b'a'; MAX_LINE / 2]);
        }
        assert_eq!(result, Err(BadLine::TooLong));
        assert_eq!(Lines::default().feed(b"<html>\n"), Err(BadLine::NotJson));
    }
}
