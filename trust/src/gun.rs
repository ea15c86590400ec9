//! The globally unique name of a trust collection.

use std::{fmt, str::FromStr};

/// What a trust collection is called: `docker.io/library/alpine`, `reg:5000/a/b`.
///
/// Always fully normalised and without a tag. Usable as a relative path: no empty, `.` or `..`
/// component, no leading or trailing slash, no control character, no `*`, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gun(String);

/// A name that cannot be a GUN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository name: {1}")]
pub struct BadGun(pub String, pub &'static str);

impl Gun {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Gun {
    type Err = BadGun;

    fn from_str(name: &str) -> Result<Self, BadGun> {
        let bad = |why| Err(BadGun(name.chars().take(MAX_LEN).collect(), why));
        if name.is_empty() {
            return bad("it is empty");
        }
        if name.len() > MAX_LEN {
            return bad("it is longer than 255 bytes");
        }
        if name.contains('*') {
            return bad("it contains '*'");
        }
        if name
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return bad("it contains white space, a backslash or a control character");
        }
        if name
            .split('/')
            .any(|part| matches!(part, "" | "." | ".." | "_trust"))
        {
            return bad("a part between slashes is empty, '.', '..' or '_trust'");
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Gun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The distribution reference grammar allows 255 characters for a repository name.
const MAX_LEN: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_docker_normalised_are_guns() {
        for name in [
            "docker.io/library/alpine",
            "127.0.0.1:5000/acme/app",
            "[::1]:5000/a",
        ] {
            assert_eq!(
                name.parse::<Gun>().map(|gun| gun.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn names_that_could_leave_the_cache_or_match_others_are_refused() {
        for name in [
            "", "/a", "a/", "a//b", "a/../b", "../a", "a/./b", "a*", "a\nb", "a b", "a\\b",
        ] {
            assert!(name.parse::<Gun>().is_err(), "{name:?}");
        }
        assert!("a".repeat(256).parse::<Gun>().is_err());
    }
}
