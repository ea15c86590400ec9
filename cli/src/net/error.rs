//! What went wrong between us and a server, in words that name the URL.

use serde::Deserialize;

use crate::failure::Failure;

/// Why a request did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NetError {
    /// The connection ended before the answer did.
    #[error("{url}: the connection was cut before the whole answer had arrived")]
    Cut {
        /// What was asked for.
        url: String,
    },
    /// Credentials could not be had.
    #[error("{0}")]
    Credentials(String),
    /// 403.
    #[error("{url}: access denied{}", said(.message))]
    Forbidden {
        /// What was asked for.
        url: String,
        /// The server's words.
        message: String,
    },
    /// 404.
    #[error("{url}: not there (404){}", said(.message))]
    Missing {
        /// What was asked for.
        url: String,
        /// The server's words.
        message: String,
    },
    /// Something answered that does not speak the protocol: a login page, a proxy.
    #[error("{url}: the answer is {what}, not what a {wanted} says")]
    NotTheService {
        /// What was asked for.
        url: String,
        /// HTML, empty, text.
        what: &'static str,
        /// `trust server`, `registry`, `token server`.
        wanted: &'static str,
    },
    /// The server understood and said no, with a reason of its protocol.
    #[error("{url}: {message} ({code})")]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// Code of the error body, `VERSION`.
        code: String,
        /// In words.
        message: String,
    },
    /// Any other status.
    #[error("{url}: the server answered {status}{}", said(.message))]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The certificate is not trusted, or TLS could not be spoken.
    #[error("{url}: no secure connection: {why}")]
    Tls {
        /// What was asked for.
        url: String,
        /// In words.
        why: String,
    },
    /// More bytes than there may be.
    #[error("{url}: the answer is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Bytes.
        limit: usize,
    },
    /// 401, with what we had to offer.
    #[error("{url}: not authorized as {who}{}", said(.message))]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// User name, or `anonymous`.
        who: String,
        /// The server's words.
        message: String,
    },
    /// No connection at all, or no answer in time.
    #[error("{url}: cannot be reached: {why}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// In words.
        why: String,
    },
    /// The URL or the TLS files of the user's configuration are not usable.
    #[error("{0}")]
    Setup(String),
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl NetError {
    /// The lost race of two publishers: another version is there already (§3.5, 5).
    pub(crate) fn is_version_race(&self) -> bool {
        matches!(self, Self::Refused { status: 400, code, .. } if code == "VERSION")
    }

    /// No answer, a broken one, or a 5xx: what the cache may stand in for when reading.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Cut { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether the server may have acted on the request all the same.
    pub(crate) fn is_unsure(&self) -> bool {
        self.is_outage() || matches!(self, Self::TooLarge { .. } | Self::NotTheService { .. })
    }

    /// HTTP status, 0 if none came.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Forbidden { .. } => 403,
            Self::Missing { .. } => 404,
            Self::Refused { status, .. } | Self::Status { status, .. } => *status,
            Self::Unauthorized { .. } => 401,
            Self::NotTheService { .. } | Self::TooLarge { .. } => 200,
            _ => 0,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "net.cut",
            Self::Credentials(_) => "net.credentials",
            Self::Forbidden { .. } => "net.forbidden",
            Self::Missing { .. } => "net.missing",
            Self::NotTheService { .. } => "net.not_the_service",
            Self::Refused { .. } => "net.refused",
            Self::Status { .. } => "net.status",
            Self::Tls { .. } => "net.tls",
            Self::TooLarge { .. } => "net.too_large",
            Self::Unauthorized { .. } => "net.unauthorized",
            Self::Unreachable { .. } => "net.unreachable",
            Self::Setup(_) => "net.setup",
        }
    }

    fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotTheService {
                wanted: "trust server",
                ..
            } => {
                "give the address of the notary server with --server or DOCKER_CONTENT_TRUST_SERVER"
            }
            Self::Unauthorized { .. } | Self::Forbidden { .. } => {
                "run `docker login` for this registry, with a user who may push"
            }
            Self::Tls { .. } => {
                "put the server's CA certificate into ~/.docker/tls/<host:port>/ca.crt \
                 (trust server) or /etc/docker/certs.d/<host:port>/ca.crt (registry)"
            }
            _ => return None,
        })
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        let exit = if matches!(error, NetError::Setup(_)) {
            2
        } else {
            1
        };
        let failure = Self::new(exit, error.code(), error.to_string());
        match error.fix() {
            Some(fix) => failure.fix(fix),
            None => failure,
        }
    }
}

/// An answer that is no success, as an error.
///
/// `body` is at most what the client read of it; `wanted` names the service for the person.
pub(crate) fn from_answer(
    url: &str,
    status: u16,
    body: &[u8],
    who: Option<&str>,
    wanted: &'static str,
) -> NetError {
    let url = url.to_owned();
    let (code, message) = match parse_body(body) {
        Some(first) => (
            signet_trust::payload::escape(cut(&first.code)),
            words(&first),
        ),
        None => (String::new(), plain(body)),
    };
    match status {
        401 => NetError::Unauthorized {
            url,
            who: who.unwrap_or("anonymous").to_owned(),
            message,
        },
        403 => NetError::Forbidden { url, message },
        404 if code.is_empty() && looks_like_html(body) => NetError::NotTheService {
            url,
            what: "HTML",
            wanted,
        },
        404 => NetError::Missing { url, message },
        _ if !code.is_empty() => NetError::Refused {
            url,
            status,
            code,
            message,
        },
        _ => NetError::Status {
            url,
            status,
            message,
        },
    }
}

/// What a body is that should have been JSON, in a word.
pub(crate) fn what_it_is(body: &[u8]) -> &'static str {
    if looks_like_html(body) {
        "HTML"
    } else if body.trim_ascii().is_empty() {
        "empty"
    } else {
        "something else"
    }
}

/// Whether a body is a web page: what a captive portal or a wrong address answers.
pub(crate) fn looks_like_html(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    start.first() == Some(&b'<')
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct ErrorBody {
    errors: Vec<OneError>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct OneError {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

fn parse_body(body: &[u8]) -> Option<OneError> {
    serde_json::from_slice::<ErrorBody>(body)
        .ok()?
        .errors
        .into_iter()
        .next()
}

/// Notary's words (§3.7): of a validation error the reason, with the client's usual prefix.
fn words(error: &OneError) -> String {
    let detail = error
        .detail
        .pointer("/Error/Msg")
        .and_then(serde_json::Value::as_str);
    let prefix = match error.detail.get("Name").and_then(serde_json::Value::as_str) {
        Some("ErrBadRoot") => "the root metadata is invalid: ",
        Some("ErrBadTargets") => "the targets metadata is invalid: ",
        Some("ErrBadSnapshot") => "the snapshot metadata is invalid: ",
        Some("ErrBadHierarchy") => "the metadata hierarchy is incomplete: ",
        Some("ErrValidation") => "an error occurred during validation: ",
        _ => "",
    };
    match detail {
        Some(detail) => signet_trust::payload::escape(&format!("{prefix}{}", cut(detail))),
        None if error.message.is_empty() => {
            signet_trust::payload::escape(&cut(&error.code).to_lowercase().replace('_', " "))
        }
        None => signet_trust::payload::escape(cut(&error.message)),
    }
}

/// A text body in one line; nothing of a web page.
fn plain(body: &[u8]) -> String {
    if looks_like_html(body) {
        return String::new();
    }
    let text = String::from_utf8_lossy(body);
    signet_trust::payload::escape(cut(text.lines().next().unwrap_or("").trim()))
}

/// The first part of a text that somebody else wrote.
fn cut(text: &str) -> &str {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// Reads an error body as `from_answer` does; for fuzzing.
pub fn read_error_body(body: &[u8]) -> String {
    from_answer("https://example.com", 400, body, None, "trust server").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> NetError {
        from_answer("https://n/x", status, body.as_bytes(), None, "trust server")
    }

    #[test]
    fn a_lost_race_is_recognised() {
        let body = r#"{"errors":[{"code":"VERSION","message":"A newer version of metadata is already available."}]}"#;
        assert!(answer(400, body).is_version_race());
        assert!(!answer(500, body).is_version_race());
        assert!(!answer(400, "VERSION").is_version_race());
    }

    #[test]
    fn the_reason_of_a_validation_error_reaches_the_person() {
        let error = answer(
            400,
            r#"{"errors":[{"code":"INVALID_UPDATE","message":"Update sent by the client is invalid.","detail":{"Name":"ErrBadTargets","Error":{"Msg":"targets expired at noon"}}}]}"#,
        );
        assert_eq!(
            error.to_string(),
            "https://n/x: the targets metadata is invalid: targets expired at noon (INVALID_UPDATE)"
        );
    }

    #[test]
    fn web_pages_and_plain_text_are_told_apart() {
        assert!(matches!(
            answer(404, "<html>login</html>"),
            NetError::NotTheService { .. }
        ));
        assert_eq!(
            answer(502, "<html>bad gateway</html>").to_string(),
            "https://n/x: the server answered 502"
        );
        assert_eq!(
            answer(500, "out of disk\nmore").to_string(),
            "https://n/x: the server answered 500: out of disk"
        );
        assert!(answer(503, "").is_outage());
        assert!(!answer(401, "").is_outage());
    }

    #[test]
    fn an_error_body_of_any_bytes_gives_words() {
        for body in [
            &b"\xff\xfe"[..],
            b"{",
            b"{\"errors\":[]}",
            b"[]",
            b"null",
            &[b'a'; 5000],
        ] {
            assert!(read_error_body(body).len() < 400);
        }
    }
}
