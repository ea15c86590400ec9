//! Credentials that `docker login` left: in `config.json` or with a credential helper.
//!
//! As docker looks for them: the registry's own helper, else the store for all registries, else
//! the file. Nothing is read, and no helper run, before a server asks.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::OnceCell,
    time::timeout,
};
use zeroize::Zeroizing;

use super::config::{Auth, DockerConfig};
use crate::net::auth::Credentials;

/// Where the credentials of one registry come from. Clones share what was found.
#[derive(Clone, Debug)]
pub(crate) struct CredentialSource {
    /// Docker's directory; `None`: anonymous.
    directory: Option<PathBuf>,
    /// Entry of the registry.
    key: String,
    found: Arc<OnceCell<Arc<Credentials>>>,
}

/// Long enough for a person to unlock a key chain.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// A user name and a token with their envelope.
const MAX_HELPER_OUTPUT: u64 = 64 << 10;

impl CredentialSource {
    /// The credentials of `key` (`host[:port]`, or Docker Hub's URL) in `directory`.
    pub(crate) fn new(directory: PathBuf, key: &str) -> Self {
        Self {
            directory: Some(directory),
            key: key.to_owned(),
            found: Arc::default(),
        }
    }

    /// Nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            directory: None,
            key: String::new(),
            found: Arc::default(),
        }
    }

    /// Looks once; after that says the same.
    ///
    /// # Errors
    ///
    /// In words that name the file or helper. Credentials that are not there are no error.
    pub(crate) async fn get(&self) -> Result<Arc<Credentials>, String> {
        self.found.get_or_try_init(|| self.look()).await.cloned()
    }

    async fn look(&self) -> Result<Arc<Credentials>, String> {
        let Some(directory) = &self.directory else {
            return Ok(Arc::new(Credentials::Anonymous));
        };
        let config = DockerConfig::read(directory)?;
        let helper = config
            .cred_helpers
            .get(&self.key)
            .or_else(|| config.cred_helpers.get(hostname(&self.key)))
            .unwrap_or(&config.creds_store);
        if !helper.is_empty()
            && let Some(found) = ask_helper(helper, &self.key).await?
        {
            return Ok(Arc::new(found));
        }
        from_file(&config, &self.key).map(Arc::new)
    }
}

/// `https://reg:5000/v1/` → `reg:5000`; old versions of docker wrote URLs.
fn hostname(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn from_file(config: &DockerConfig, key: &str) -> Result<Credentials, String> {
    let entry = config.auths.get(key).or_else(|| {
        config
            .auths
            .iter()
            .find(|(name, _)| hostname(name) == key)
            .map(|(_, entry)| entry)
    });
    match entry {
        None => Ok(Credentials::Anonymous),
        Some(entry) => read_entry(entry).ok_or_else(|| {
            format!("the entry of {key} in docker's config.json is damaged; run docker login again")
        }),
    }
}

fn read_entry(entry: &Auth) -> Option<Credentials> {
    use base64::{
        Engine, alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    if !entry.identitytoken.is_empty() {
        return Some(Credentials::IdentityToken(Zeroizing::new(
            entry.identitytoken.clone(),
        )));
    }
    if !entry.auth.is_empty() {
        let lenient = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let plain = Zeroizing::new(lenient.decode(&entry.auth).ok()?);
        let plain = std::str::from_utf8(&plain).ok()?;
        let (user, password) = plain.split_once(':')?;
        let password = password.trim_end_matches('\0');
        return Some(Credentials::Password {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        });
    }
    if entry.username.is_empty() {
        return Some(Credentials::Anonymous);
    }
    Some(Credentials::Password {
        user: entry.username.clone(),
        password: Zeroizing::new(entry.password.clone()),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Runs `docker-credential-<name> get`; `None` when it has nothing.
async fn ask_helper(name: &str, key: &str) -> Result<Option<Credentials>, String> {
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err(format!(
            "{name:?} in docker's config.json cannot be a credential helper"
        ));
    }
    let program = format!("docker-credential-{name}");
    let failed = |why: &str| format!("credential helper {program}: {why}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&format!("cannot be run: {error}")))?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let stdout = child.stdout.take().expect("stdout was asked for");
    let talk = async {
        // A helper that does not read its input may still answer.
        let _ = stdin.write_all(key.as_bytes()).await;
        drop(stdin);
        let mut output = Zeroizing::new(Vec::new());
        stdout
            .take(MAX_HELPER_OUTPUT + 1)
            .read_to_end(&mut output)
            .await?;
        let too_much = output.len() as u64 > MAX_HELPER_OUTPUT;
        let status = if too_much {
            None
        } else {
            Some(child.wait().await?)
        };
        Ok::<_, std::io::Error>((output, status))
    };
    let (output, status) = timeout(HELPER_TIMEOUT, talk)
        .await
        .map_err(|_| failed("no answer within a minute"))?
        .map_err(|error| failed(&error.to_string()))?;
    let Some(status) = status else {
        return Err(failed("the answer is larger than 64 KiB"));
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&output);
        // docker-credential-helpers `credentials.NewErrCredentialsNotFound`
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(&signet_trust::payload::escape(
            said.trim()
                .lines()
                .next()
                .unwrap_or("it failed and did not say why"),
        )));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| failed("the answer is not JSON as docker's"))?;
    let secret = Zeroizing::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken(secret),
        "" => Credentials::Anonymous,
        user => Credentials::Password {
            user: user.to_owned(),
            password: secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(config: &str, key: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let source = CredentialSource::new(directory.path().to_owned(), key);
        source.get().await.map(|found| match &*found {
            Credentials::Anonymous => "anonymous".to_owned(),
            Credentials::Password { user, password } => format!("{user}/{}", password.as_str()),
            Credentials::IdentityToken(token) => format!("token {}", token.as_str()),
        })
    }

    #[tokio::test]
    async fn every_form_of_entry_is_read() {
        let hub = "https://index.docker.io/v1/";
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"bWU6cGE6c3M="},
            "https://old:5000/v1/":{"username":"u","password":"p"},
            "reg":{"auth":"bWU6eA==","identitytoken":"ID"},
            "empty":{}, "bad":{"auth":"!!"}}}"#;
        assert_eq!(look(config, hub).await.unwrap(), "me/pa:ss");
        assert_eq!(look(config, "old:5000").await.unwrap(), "u/p");
        assert_eq!(look(config, "reg").await.unwrap(), "token ID");
        assert_eq!(look(config, "empty").await.unwrap(), "anonymous");
        assert_eq!(look(config, "other").await.unwrap(), "anonymous");
        assert!(
            look(config, "bad")
                .await
                .unwrap_err()
                .contains("docker login")
        );
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named() {
        let error = look(r#"{"credsStore":"no-such-helper"}"#, "reg")
            .await
            .unwrap_err();
        assert!(
            error.contains("docker-credential-no-such-helper"),
            "{error}"
        );
        let error = look(r#"{"credHelpers":{"reg":"../x"}}"#, "reg")
            .await
            .unwrap_err();
        assert!(error.contains("cannot be a credential helper"), "{error}");
    }
}
