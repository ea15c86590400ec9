//! Image names as Docker reads them.
//!
//! The grammar is that of the distribution project's `reference` package, the normalisation that
//! of `ParseNormalizedNamed`: `nginx` is `docker.io/library/nginx`. What comes out names both the
//! trust collection (the GUN is the whole normalised name) and the repository at the registry.

use std::{fmt, net::IpAddr, str::FromStr};

use signet_trust::Gun;

/// A normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// What its trust collection is called.
    pub(crate) gun: Gun,
    /// Host and port of the registry, `docker.io` for the default one.
    pub(crate) domain: String,
    /// Repository at the registry, `library/nginx`.
    pub(crate) path: String,
    /// What follows `:`.
    pub(crate) tag: Option<String>,
    /// What follows `@`.
    pub(crate) digest: Option<Digest>,
}

/// SHA-256 of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

/// Text that is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image name: {why}")]
pub(crate) struct BadImage {
    text: String,
    why: &'static str,
}

/// Text that is no `sha256:…` digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: it must be sha256: and 64 lower-case hexadecimal digits")]
pub(crate) struct BadDigest(String);

/// The domain of images that name none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Its other name, which normalises to it.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// Longest repository name (distribution `reference.NameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// Longest tag (distribution `reference`).
const MAX_TAG: usize = 128;

impl Image {
    /// The tag, or `latest`.
    pub(crate) fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The name as people type it: without `docker.io/` and `library/`.
    pub(crate) fn familiar(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            self.path
                .strip_prefix("library/")
                .unwrap_or(&self.path)
                .to_owned()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// [`Self::familiar`] with a tag.
    pub(crate) fn with_tag(&self, tag: &str) -> String {
        format!("{}:{tag}", self.familiar())
    }

    /// Whether this is Docker Hub.
    pub(crate) fn is_hub(&self) -> bool {
        self.domain == DEFAULT_DOMAIN
    }

    /// Host and port that the registry API is spoken to at.
    pub(crate) fn registry_host(&self) -> &str {
        if self.is_hub() {
            "registry-1.docker.io"
        } else {
            &self.domain
        }
    }

    /// The entry of the registry in Docker's `config.json`.
    pub(crate) fn credentials_key(&self) -> &str {
        if self.is_hub() {
            "https://index.docker.io/v1/"
        } else {
            &self.domain
        }
    }
}

impl FromStr for Image {
    type Err = BadImage;

    fn from_str(text: &str) -> Result<Self, BadImage> {
        let bad = |why| BadImage {
            text: text.chars().take(300).collect(),
            why,
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.contains("://") {
            return Err(bad("leave out the scheme (https://)"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    bad("what follows '@' must be sha256: and 64 lower-case hexadecimal digits")
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        if rest.len() == 64 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("64 hexadecimal digits are an image ID, not a name"));
        }
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("the repository name must be lower case"));
        }
        if !is_domain(domain) {
            return Err(bad("the registry's host name is not well formed"));
        }
        if path.ends_with('/') || !path.split('/').all(is_component) {
            return Err(bad("parts of the name are lower-case letters and digits, \
                 separated by '.', '_', '__' or '-'"));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(bad("the name is longer than 255 characters"));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "a tag is at most 128 letters, digits, '_', '.' and '-', \
                 and does not begin with '.' or '-'",
            ));
        }
        let gun = format!("{domain}/{path}")
            .parse()
            .map_err(|_| bad("it cannot name a trust collection"))?;
        let tag = tag.map(str::to_owned);
        Ok(Self {
            gun,
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        })
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || hex.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(hex, &mut digest).map_err(|_| bad())?;
        Ok(Self(digest))
    }
}

impl Digest {
    /// Without the algorithm.
    pub(crate) fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// Whether a registry is on this machine: 127.0.0.0/8, `::1` or `localhost`, whatever the port.
pub(crate) fn is_loopback(host_and_port: &str) -> bool {
    let host = host_of(host_and_port);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| match address {
            IpAddr::V4(v4) => v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_loopback(),
        })
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
pub(crate) fn host_of(host_and_port: &str) -> &str {
    if let Some(rest) = host_and_port.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host_and_port
        .rsplit_once(':')
        .map_or(host_and_port, |(host, _)| host)
}

/// Docker takes the first part for a host when it could not be anything else.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (
                if first == LEGACY_DEFAULT_DOMAIN {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            let fits = address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if address.is_empty() || !fits {
                return false;
            }
            match port {
                "" => return true,
                _ => match port.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None => return false,
                },
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_fits = host.is_none_or(|host| {
        host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
    });
    port_fits && host_fits
}

/// `[a-z0-9]+((?:[._]|__|[-]+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let mut rest = component.as_bytes();
    loop {
        let run = rest.iter().take_while(|b| alphanumeric(b)).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|b| !alphanumeric(b)).count();
        match &rest[..separator] {
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|b| *b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Image {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, gun, familiar) in [
            ("nginx", "docker.io/library/nginx", "nginx"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("docker.io/nginx", "docker.io/library/nginx", "nginx"),
            ("index.docker.io/me/app", "docker.io/me/app", "me/app"),
            ("reg:5000/a/b", "reg:5000/a/b", "reg:5000/a/b"),
            ("localhost/a", "localhost/a", "localhost/a"),
            ("Host/a", "Host/a", "Host/a"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("a.b/c/d__e", "a.b/c/d__e", "a.b/c/d__e"),
            ("foo---bar/x.y", "docker.io/foo---bar/x.y", "foo---bar/x.y"),
        ] {
            let image = image(text);
            assert_eq!(
                (image.gun.as_str(), image.familiar().as_str()),
                (gun, familiar),
                "{text}"
            );
        }
    }

    #[test]
    fn tag_and_digest_are_told_from_the_port() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let full = image(&format!("127.0.0.1:5000/acme/app:1.2@{digest}"));
        assert_eq!(full.domain, "127.0.0.1:5000");
        assert_eq!(full.path, "acme/app");
        assert_eq!(full.tag.as_deref(), Some("1.2"));
        assert_eq!(full.digest.unwrap().to_string(), digest);
        assert_eq!(image("127.0.0.1:5000/a").tag, None);
        assert_eq!(image("a").tag_or_latest(), "latest");
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for text in [
            "",
            "/a",
            "a/",
            "a//b",
            "A",
            "me/App",
            "a:",
            "a:-x",
            "a:.x",
            "a: x",
            "a@sha256:12",
            "a@md5:00",
            "-a/b.c/d",
            "a_.b",
            "a..b",
            "a___b",
            "https://reg/a",
            "reg:0/a",
            "reg:99999/a",
            "reg:x/a",
            "../a",
            "a/../b",
            "a\nb",
            "é",
            "*",
        ] {
            assert!(text.parse::<Image>().is_err(), "{text:?}");
        }
        assert!("0123456789abcdef".repeat(4).parse::<Image>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Image>().is_err());
        assert!(format!("a.b/{}", "n".repeat(300)).parse::<Image>().is_err());
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "docker.io",
            "10.0.0.1:5000",
            "localhost.example",
            "[fe80::1]:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
