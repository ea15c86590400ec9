//! File names of notary before 0.4: `root_keys/…` and `tuf_keys/<gun>/…`.

use crate::key::KeyId;

/// What an old file name says of its key.
///
/// In Go's migration both role and GUN of the name take precedence over the headers in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyName {
    /// The ID, when the name holds one.
    pub id: Option<KeyId>,
    /// The word after the first `_` of the file name.
    pub role: Option<String>,
    /// The directories below `root_keys` or `tuf_keys`.
    pub gun: Option<String>,
}

/// Reads a path relative to the `private` directory; `None` when it is not of the old layout.
///
/// ```
/// use signet_trust::keyfile::legacy_name;
///
/// let id = "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db";
/// let name = legacy_name(&format!("tuf_keys/docker.io/me/app/{id}_targets.key")).unwrap();
/// assert_eq!(name.gun.as_deref(), Some("docker.io/me/app"));
/// assert_eq!(name.role.as_deref(), Some("targets"));
/// assert_eq!(name.id.unwrap().to_string(), id);
/// assert_eq!(legacy_name(&format!("{id}.key")), None);
/// ```
#[must_use]
pub fn legacy_name(relative_path: &str) -> Option<LegacyName> {
    let stem = relative_path.strip_suffix(".key")?;
    let below = stem
        .strip_prefix("root_keys/")
        .or_else(|| stem.strip_prefix("tuf_keys/"))?;
    let (gun, file) = match below.rsplit_once('/') {
        Some((gun, file)) => (Some(gun.to_owned()), file),
        None => (None, below),
    };
    let (id, role) = match file.split_once('_') {
        Some((id, role)) => (id, Some(role.to_owned())),
        None => (file, None),
    };
    Some(LegacyName {
        id: id.parse().ok(),
        role,
        gun,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db";

    #[test]
    fn old_names_give_up_their_role_and_gun() {
        for (path, role, gun) in [
            ("root_keys/ID.key", None, None),
            ("root_keys/ID_root.key", Some("root"), None),
            ("tuf_keys/ID.key", None, None),
            ("tuf_keys/ID_delegation.key", Some("delegation"), None),
            (
                "tuf_keys/docker.io/library/a/ID_snapshot.key",
                Some("snapshot"),
                Some("docker.io/library/a"),
            ),
            ("tuf_keys/reg:5000/a/ID.key", None, Some("reg:5000/a")),
        ] {
            let name = legacy_name(&path.replace("ID", ID)).expect(path);
            assert_eq!(name.id, ID.parse().ok());
            assert_eq!(
                (name.role.as_deref(), name.gun.as_deref()),
                (role, gun),
                "{path}"
            );
        }
    }

    #[test]
    fn other_names_are_not_of_the_old_layout() {
        for path in [
            "ID.key",
            "sub/ID.key",
            "root_keys/ID",
            "root_keys",
            "tuf_keys/",
            "",
        ] {
            assert_eq!(legacy_name(&path.replace("ID", ID)), None, "{path}");
        }
        assert_eq!(legacy_name("root_keys/other.key").unwrap().id, None);
    }
}
