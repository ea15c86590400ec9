//! Who we are to a server: `WWW-Authenticate` challenges and tokens.
//!
//! RFC 7235 challenges, Basic (RFC 7617) and the distribution project's Bearer token flow as
//! Docker does it (§1.11).

use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

/// What a server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// What the token is for.
        service: String,
    },
}

/// What the user has for a server.
pub(crate) enum Credentials {
    /// Nothing.
    Anonymous,
    /// From `docker login`.
    Password {
        /// Name.
        user: String,
        /// Wiped when dropped.
        password: Zeroizing<String>,
    },
    /// A refresh token in place of a password.
    IdentityToken(Zeroizing<String>),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => write!(f, "Password({user:?}, ..)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
        }
    }
}

impl Credentials {
    /// Who an error says that we are.
    pub(crate) fn who(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Password { user, .. } => user,
            Self::IdentityToken(_) => "the holder of the identity token",
        }
    }

    /// The value of an `Authorization: Basic` header.
    pub(crate) fn basic(&self) -> Option<Zeroizing<String>> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let Self::Password { user, password } = self else {
            return None;
        };
        let mut plain = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(plain.as_bytes())));
        plain.zeroize();
        Some(value)
    }
}

/// Longest header that is looked at.
const MAX_HEADER: usize = 8 << 10;

/// Reads all challenges of a `WWW-Authenticate` header; what is not understood is left out.
pub(crate) fn parse_challenges(header: &str) -> Vec<Challenge> {
    if header.len() > MAX_HEADER {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut scheme: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let word_end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
        let (word, after) = rest.split_at(word_end.unwrap_or(rest.len()));
        if word.is_empty() {
            break;
        }
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=') {
            let (value, after) = parse_value(value.trim_start());
            if let Some((_, parameters)) = &mut scheme {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            found.extend(scheme.take().and_then(challenge));
            scheme = Some((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found.extend(scheme.take().and_then(challenge));
    found
}

/// A token, or a quoted string with backslash escapes.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(found, _)| found == name)
                    .map(|(_, value)| value.clone())
            };
            Some(Challenge::Bearer {
                realm: get("realm")?,
                service: get("service").unwrap_or_default(),
            })
        }
        _ => None,
    }
}

/// One request to a token server.
#[derive(PartialEq, Eq)]
pub(crate) struct TokenRequest {
    /// With its query.
    pub(crate) url: String,
    /// `Authorization` header.
    pub(crate) authorization: Option<Zeroizing<String>>,
    /// Form of a POST; absent: GET.
    pub(crate) form: Option<Zeroizing<String>>,
}

/// The request that Docker makes for a token of `scope` (`repository:NAME:ACTIONS`).
pub(crate) fn token_request(
    realm: &str,
    service: &str,
    scope: &str,
    credentials: &Credentials,
) -> TokenRequest {
    if let Credentials::IdentityToken(token) = credentials {
        let form = Zeroizing::new(format!(
            "client_id=docker&grant_type=refresh_token&refresh_token={}&scope={}&service={}",
            encode(token),
            encode(scope),
            encode(service),
        ));
        return TokenRequest {
            url: realm.to_owned(),
            authorization: None,
            form: Some(form),
        };
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let account = match credentials {
        Credentials::Password { user, .. } => format!("account={}&", encode(user)),
        _ => String::new(),
    };
    let service = if service.is_empty() {
        String::new()
    } else {
        format!("&service={}", encode(service))
    };
    TokenRequest {
        url: format!(
            "{realm}{separator}{account}scope={}{service}",
            encode(scope)
        ),
        authorization: credentials.basic(),
        form: None,
    }
}

/// `application/x-www-form-urlencoded`, as Go's `url.QueryEscape` writes it.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => write!(out, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
    out
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The token of a token server's answer; `None` when there is none, or one that no header can
/// carry.
pub(crate) fn read_token(body: &[u8]) -> Option<Zeroizing<String>> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let token = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token.filter(|token| !token.is_empty()))?;
    token
        .bytes()
        .all(|b| b.is_ascii_graphic())
        .then(|| Zeroizing::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
        }
    }

    #[test]
    fn challenges_are_read_in_every_usual_spelling() {
        for (header, wanted) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#,
                vec![bearer("https://auth.docker.io/token", "registry.docker.io")],
            ),
            (
                "bearer realm=\"https://a/t\" , service=x",
                vec![bearer("https://a/t", "x")],
            ),
            (r#"Basic realm="Registry, Realm""#, vec![Challenge::Basic]),
            (
                r#"Basic realm="x", Bearer realm="https://a/\"q\"",error="invalid_token""#,
                vec![Challenge::Basic, bearer("https://a/\"q\"", "")],
            ),
            ("Negotiate", vec![]),
            ("Bearer", vec![]),
            ("Bearer realm=\"https://a", vec![bearer("https://a", "")]),
            ("", vec![]),
            (",,=\"", vec![]),
        ] {
            assert_eq!(parse_challenges(header), wanted, "{header}");
        }
        assert!(parse_challenges(&"Basic ".repeat(5000)).is_empty());
    }

    #[test]
    fn token_requests_are_those_of_docker() {
        let scope = "repository:docker.io/library/nginx:pull";
        let anonymous = token_request(
            "https://h/token",
            "notary.test",
            scope,
            &Credentials::Anonymous,
        );
        assert_eq!(
            anonymous.url,
            "https://h/token?scope=repository%3Adocker.io%2Flibrary%2Fnginx%3Apull&service=notary.test"
        );
        let password = Credentials::Password {
            user: "user".to_owned(),
            password: Zeroizing::new("pass".to_owned()),
        };
        let basic = token_request("https://h/token", "notary.test", scope, &password);
        assert_eq!(
            basic.url,
            "https://h/token?account=user&scope=repository%3Adocker.io%2Flibrary%2Fnginx%3Apull&service=notary.test"
        );
        assert_eq!(basic.authorization.unwrap().as_str(), "Basic dXNlcjpwYXNz");
        let identity = token_request(
            "https://h/token",
            "notary.test",
            scope,
            &Credentials::IdentityToken(Zeroizing::new("IDTOK".to_owned())),
        );
        assert_eq!(identity.url, "https://h/token");
        assert_eq!(
            identity.form.unwrap().as_str(),
            "client_id=docker&grant_type=refresh_token&refresh_token=IDTOK\
             &scope=repository%3Adocker.io%2Flibrary%2Fnginx%3Apull&service=notary.test"
        );
    }

    #[test]
    fn a_token_goes_by_either_name_and_must_fit_a_header() {
        assert_eq!(read_token(br#"{"token":"a"}"#).unwrap().as_str(), "a");
        assert_eq!(
            read_token(br#"{"token":"","access_token":"b"}"#)
                .unwrap()
                .as_str(),
            "b"
        );
        for body in [
            &b"{}"[..],
            b"<html>",
            br#"{"token":"a\r\nX: y"}"#,
            br#"{"token":""}"#,
        ] {
            assert!(read_token(body).is_none());
        }
    }

    #[test]
    fn credentials_do_not_print() {
        let password = Credentials::Password {
            user: "user".to_owned(),
            password: Zeroizing::new("pass".to_owned()),
        };
        assert!(!format!("{password:?}").contains("pass\""));
    }
}
