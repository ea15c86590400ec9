//! Credentials: basic ones (RFC 7617), and the registry's tokens ("Docker Registry v2
//! authentication via central service" and its OAuth2 form).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{self, HeaderValue};
use serde_json::json;

use super::{Answer, Seen};

/// What the proxy asks for.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Nothing: everybody is let in.
    #[default]
    Nothing,
    /// A user and a password, with every request.
    Basic {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
    /// A token of the proxy's own token endpoint, good for the repository and the action that
    /// the request needs.
    Bearer {
        /// The user's name.
        user: String,
        /// The user's password, for `GET` with basic authentication.
        password: String,
        /// An identity token, for `POST` with `grant_type=refresh_token`.
        refresh_token: Option<String>,
        /// Whether those without credentials get tokens that let them pull.
        anonymous_pull: bool,
    },
}

/// Where the token endpoint is. It answers before any rule is looked at.
const TOKEN_PATH: &str = "/lab/token";

/// The `service` of the challenge.
const SERVICE: &str = "signet-lab";

/// What the proxy asks for, and the tokens that it has given out.
#[derive(Debug, Default)]
pub(super) struct Door {
    auth: Auth,
    /// Token → scopes granted, as `repository:NAME:ACTIONS`.
    tokens: HashMap<String, Vec<String>>,
    count: u32,
}

impl Door {
    pub(super) fn new(auth: Auth) -> Self {
        Self {
            auth,
            ..Self::default()
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        !matches!(self.auth, Auth::Nothing)
    }

    pub(super) fn forget(&mut self) {
        self.tokens.clear();
    }

    /// The answer to a request that may not pass, or that is for the token endpoint.
    pub(super) fn refuse(&mut self, host: &str, seen: &Seen) -> Option<Answer> {
        match self.auth.clone() {
            Auth::Nothing => None,
            Auth::Basic { user, password } => {
                let good = seen.header("authorization") == Some(&basic(&user, &password));
                (!good).then(|| challenge("Basic realm=\"signet-lab\"".to_owned()))
            }
            Auth::Bearer { .. } if seen.path == TOKEN_PATH => Some(self.token(seen)),
            Auth::Bearer { .. } => {
                let need = Need::of(seen);
                if self.admits(seen, need.as_ref()) {
                    return None;
                }
                let scope = need.map_or_else(String::new, |need| {
                    format!(
                        ",scope=\"repository:{}:{}\"",
                        need.name,
                        need.actions.join(",")
                    )
                });
                Some(challenge(format!(
                    "Bearer realm=\"https://{host}{TOKEN_PATH}\",service=\"{SERVICE}\"{scope}"
                )))
            }
        }
    }

    fn admits(&self, seen: &Seen, need: Option<&Need>) -> bool {
        let token = seen
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let Some(scopes) = token.and_then(|token| self.tokens.get(token)) else {
            return false;
        };
        let Some(need) = need else { return true };
        scopes.iter().any(|scope| {
            let actions = scope
                .strip_prefix("repository:")
                .and_then(|rest| rest.strip_prefix(need.name.as_str()))
                .and_then(|rest| rest.strip_prefix(':'))
                .map(|actions| actions.split(',').collect::<Vec<_>>());
            actions.is_some_and(|actions| {
                need.actions
                    .iter()
                    .all(|action| actions.contains(action) || actions == ["*"])
            })
        })
    }

    /// The token endpoint.
    fn token(&mut self, seen: &Seen) -> Answer {
        let Auth::Bearer {
            user,
            password,
            refresh_token,
            anonymous_pull,
        } = &self.auth
        else {
            return json_answer(404, &json!({}));
        };
        let form = match seen.method.as_str() {
            "POST" => String::from_utf8_lossy(&seen.body).into_owned(),
            _ => seen.query.clone(),
        };
        let fields = fields(&form);
        let field = |name: &str| {
            fields
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let mut scopes: Vec<String> = fields
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, scope)| scope.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let granted = field("service") == Some(SERVICE)
            && if seen.method == "POST" {
                field("grant_type") == Some("refresh_token")
                    && refresh_token.is_some()
                    && field("refresh_token") == refresh_token.as_deref()
            } else {
                match seen.header("authorization") {
                    Some(given) => given == basic(user, password),
                    None => {
                        // Granted in part, as real token servers do, rather than refused.
                        scopes.retain(|scope| scope.ends_with(":pull"));
                        *anonymous_pull
                    }
                }
            };
        if !granted {
            return json_answer(401, &json!({"details": "incorrect username or password"}));
        }
        self.count += 1;
        let token = format!("lab-token-{}", self.count);
        self.tokens.insert(token.clone(), scopes);
        let name = if seen.method == "POST" {
            "access_token"
        } else {
            "token"
        };
        json_answer(200, &json!({name: token, "expires_in": 300}))
    }
}

/// What a request needs: notary-server's table of routes, and the registry's habits.
struct Need {
    name: String,
    actions: &'static [&'static str],
}

impl Need {
    /// `None` for the ping, which any token opens.
    fn of(seen: &Seen) -> Option<Self> {
        let rest = seen.path.strip_prefix("/v2/")?;
        let method = seen.method.as_str();
        if let Some((name, file)) = rest.split_once("/_trust/") {
            let actions: &[&str] = match method {
                "GET" if file.ends_with(".key") => &["push", "pull"],
                "GET" | "HEAD" => &["pull"],
                "POST" if file == "tuf/" => &["push", "pull"],
                _ => &["*"],
            };
            return Some(Self {
                name: name.to_owned(),
                actions,
            });
        }
        let end = ["/manifests/", "/blobs/", "/tags/"]
            .iter()
            .find_map(|part| rest.find(part))?;
        let actions: &[&str] = match method {
            "GET" | "HEAD" => &["pull"],
            "DELETE" => &["delete"],
            _ => &["push", "pull"],
        };
        Some(Self {
            name: rest[..end].to_owned(),
            actions,
        })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

fn challenge(text: String) -> Answer {
    let body = json!({"errors": [{
        "code": "UNAUTHORIZED", "message": "authentication required", "detail": null,
    }]});
    let mut answer = json_answer(401, &body);
    let value = HeaderValue::from_str(&text).expect("names of repositories are plain text");
    answer.headers.insert(header::WWW_AUTHENTICATE, value);
    answer
}

fn json_answer(status: u16, body: &serde_json::Value) -> Answer {
    let mut answer = Answer::new(status, "application/json; charset=utf-8", "");
    answer.body = body.to_string().into();
    answer
}

/// The fields of a query or a form, decoded (WHATWG URL, application/x-www-form-urlencoded).
fn fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let text = "scope=repository%3Aa%2Fb%3Apull%2Cpush&service=signet-lab&account=a+b";
        assert_eq!(
            fields(text),
            [
                ("scope".into(), "repository:a/b:pull,push".into()),
                ("service".into(), "signet-lab".into()),
                ("account".into(), "a b".into()),
            ] as [(String, String); 3]
        );
    }
}
