//! Guard state as it lies in an archive: `signet/state.json`.
//!
//! It is claimed, not proved: it only ever raises what is recorded here, and every number in it is
//! bounded (versions to 2^31 - 1, which is what Go reads).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use signet_trust::{
    Gun, RoleName,
    base::Lineage,
    document::Root,
    guard::{Mark, RoleState, Standing, State},
    verify::Raw,
};

mod stone;

pub(crate) use stone::Stone;

/// Most collections in one archive.
const MAX_COLLECTIONS: usize = 20_000;
/// Most roles of one collection.
const MAX_ROLES: usize = 1_000;
/// Most tombstones in one archive.
const MAX_STONES: usize = 20_000;
/// Largest root: hundreds of keys.
const MAX_ROOT: usize = 1 << 20;
/// Highest version of a document.
const MAX_VERSION: u32 = i32::MAX as u32;

/// Why guard state cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("signet/state.json of the archive is damaged: {0}")]
pub(crate) struct BadState(String);

/// Guard state of all collections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archived {
    pub(crate) collections: Vec<Collection>,
    /// What is left of keys that were removed or moved away where the archive was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tombstones: Vec<Stone>,
}

/// One collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Collection {
    pub(crate) gun: String,
    lineage: String,
    timestamp: Option<u32>,
    /// The newest root of the lineage, as the server sent it, in hex.
    root: Option<String>,
    roles: BTreeMap<String, Role>,
}

/// What is claimed of a collection, checked and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) gun: Gun,
    pub(crate) lineage: Lineage,
    /// The newest root of the lineage, wire bytes.
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    seen: Option<Version>,
    signed: Option<Version>,
    /// Of `signed`: the server is known to have it.
    arrived: bool,
    published: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: u32,
    hash: String,
}

impl Collection {
    /// As it is recorded.
    pub(crate) fn new(claimed: &Claimed) -> Self {
        let state = &claimed.state;
        let version = |mark: &Mark| Version {
            version: mark.version,
            hash: hex::encode(mark.hash),
        };
        let roles = state.roles.iter().map(|(name, role)| {
            let role = Role {
                seen: role.seen.as_ref().map(version),
                signed: role.signed.as_ref().map(|(mark, _)| version(mark)),
                arrived: matches!(role.signed, Some((_, Standing::Published))),
                published: role.published,
            };
            (name.as_str().to_owned(), role)
        });
        Self {
            gun: claimed.gun.to_string(),
            lineage: hex::encode(claimed.lineage.0),
            timestamp: state.timestamp,
            root: claimed.root.as_ref().map(hex::encode),
            roles: roles.collect(),
        }
    }

    /// Checked and bounded.
    pub(crate) fn read(&self) -> Result<Claimed, BadState> {
        let bad = |what: String| BadState(what);
        let gun: Gun = self
            .gun
            .parse()
            .map_err(|_| bad(format!("{:?} is no repository", self.gun)))?;
        let lineage = Lineage(hash(&self.lineage)?);
        if self.roles.len() > MAX_ROLES {
            return Err(bad(format!("{gun} has too many roles")));
        }
        let bounded = |version: u32| {
            if version == 0 || version > MAX_VERSION {
                Err(bad(format!("{version} is no version of a document")))
            } else {
                Ok(version)
            }
        };
        let mark = |version: &Option<Version>| match version {
            Some(version) => Ok(Some(Mark {
                version: bounded(version.version)?,
                hash: hash(&version.hash)?,
            })),
            None => Ok::<_, BadState>(None),
        };
        let mut roles = BTreeMap::new();
        for (name, role) in &self.roles {
            let name: RoleName = name
                .parse()
                .map_err(|_| bad(format!("{name:?} is no role")))?;
            let standing = match role.arrived {
                true => Standing::Published,
                false => Standing::Released,
            };
            let state = RoleState {
                seen: mark(&role.seen)?,
                signed: mark(&role.signed)?.map(|mark| (mark, standing)),
                published: role.published.map(bounded).transpose()?,
            };
            roles.insert(name, state);
        }
        let timestamp = self.timestamp.map(bounded).transpose()?;
        let root = self.root.as_ref().map(|root| {
            let no_root = || bad(format!("the root of {gun} is none"));
            let wire = hex::decode(root).map_err(|_| no_root())?;
            Raw::<Root>::parse(wire.clone(), MAX_ROOT).map_err(|_| no_root())?;
            Ok::<_, BadState>(wire)
        });
        Ok(Claimed {
            root: root.transpose()?,
            gun,
            lineage,
            state: State { timestamp, roles },
        })
    }
}

impl Archived {
    /// Reads and checks `signet/state.json`.
    ///
    /// # Errors
    ///
    /// [`BadState`].
    pub(crate) fn parse(json: &[u8]) -> Result<Self, BadState> {
        let archived: Self =
            serde_json::from_slice(json).map_err(|error| BadState(error.to_string()))?;
        if archived.collections.len() > MAX_COLLECTIONS {
            return Err(BadState("it names too many collections".to_owned()));
        }
        if archived.tombstones.len() > MAX_STONES {
            return Err(BadState("it names too many keys that are gone".to_owned()));
        }
        for collection in &archived.collections {
            collection.read()?;
        }
        for stone in &archived.tombstones {
            stone.read()?;
        }
        Ok(archived)
    }

    /// As it lies in an archive.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }
}

fn hash(text: &str) -> Result<[u8; 32], BadState> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| BadState("a hash is none".to_owned()))?;
    Ok(hash)
}

/// The higher of what is recorded and what an archive claims, role by role.
pub(crate) fn raised(here: &State, claimed: &State) -> State {
    let mut state = here.clone();
    state.timestamp = here.timestamp.max(claimed.timestamp);
    for (name, claimed) in &claimed.roles {
        let role = state.roles.entry(name.clone()).or_default();
        if let Some(mark) = claimed.seen
            && role.seen.is_none_or(|here| here.version < mark.version)
        {
            role.seen = Some(mark);
        }
        if let Some((mark, standing)) = claimed.signed
            && role
                .signed
                .is_none_or(|(here, _)| here.version < mark.version)
        {
            role.signed = Some((mark, standing));
        }
        role.published = role.published.max(claimed.published);
    }
    state
}

/// The highest version that is recorded of a role.
pub(crate) fn highest(state: &RoleState) -> Option<u32> {
    let seen = state.seen.map(|mark| mark.version);
    let signed = state.signed.map(|(mark, _)| mark.version);
    seen.max(signed).max(state.published)
}

/// Reads an archive's guard state; whether it is any. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn read_state(json: &[u8]) -> bool {
    Archived::parse(json).is_ok_and(|archived| {
        let again = Archived::parse(&archived.to_json());
        again.is_ok_and(|again| again == archived)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(version: u32) -> Mark {
        Mark {
            version,
            hash: [7; 32],
        }
    }

    fn state(seen: u32, signed: u32) -> State {
        let role = RoleState {
            seen: Some(mark(seen)),
            signed: Some((mark(signed), Standing::Published)),
            published: Some(signed),
        };
        State {
            timestamp: Some(seen),
            roles: [("targets".parse().unwrap(), role)].into(),
        }
    }

    #[test]
    fn state_only_rises() {
        assert_eq!(raised(&state(3, 5), &state(4, 4)), {
            let mut both = state(4, 5);
            both.timestamp = Some(4);
            both
        });
        assert_eq!(raised(&State::default(), &state(1, 2)), state(1, 2));
        assert_eq!(raised(&state(9, 9), &state(1, 1)), state(9, 9));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_go_s_versions() {
        let gun: Gun = "reg.corp/app".parse().unwrap();
        let of = |version| {
            let claimed = Claimed {
                gun: gun.clone(),
                lineage: Lineage([1; 32]),
                root: None,
                state: state(version, version),
            };
            Archived {
                collections: vec![Collection::new(&claimed)],
                tombstones: Vec::new(),
            }
        };
        let read = Archived::parse(&of(7).to_json()).unwrap();
        let claimed = read.collections[0].read().unwrap();
        assert_eq!(
            (claimed.gun, claimed.lineage),
            (gun.clone(), Lineage([1; 32]))
        );
        assert_eq!(claimed.state, state(7, 7));
        assert!(Archived::parse(&of(MAX_VERSION).to_json()).is_ok());
        assert!(Archived::parse(&of(MAX_VERSION + 1).to_json()).is_err());
        assert!(Archived::parse(br#"{"collections":[],"more":1}"#).is_err());
    }
}
