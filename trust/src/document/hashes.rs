//! Digests by algorithm, packed: collections hold them by the ten thousand.

use std::{collections::BTreeMap, fmt};

/// Algorithm to raw digest, such as `sha256` to 32 bytes.
///
/// One allocation of a few dozen bytes; a map of vectors would take ten times as much, for each of
/// the tags of a collection.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Hashes {
    /// For each algorithm, in rising order: length of the name, length of the digest (two bytes
    /// each), name, digest.
    packed: Box<[u8]>,
}

/// [`Hashes`], borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashesRef<'a> {
    packed: &'a [u8],
}

impl Hashes {
    /// The digest of an algorithm.
    #[must_use]
    pub fn get(&self, algorithm: &str) -> Option<&[u8]> {
        self.as_ref().get(algorithm)
    }

    /// The SHA-256, when it is one: 32 bytes.
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.as_ref().sha256()
    }

    /// Borrowed.
    #[must_use]
    pub fn as_ref(&self) -> HashesRef<'_> {
        HashesRef {
            packed: &self.packed,
        }
    }

    /// Only SHA-256, as docker writes it.
    #[must_use]
    pub fn of_sha256(digest: [u8; 32]) -> Self {
        Self::pack([("sha256", &digest[..])].into_iter())
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Algorithms in rising order, with their digests.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.as_ref().iter()
    }

    /// Names must rise. Entries longer than 65,535 bytes, which are no digests, are left out (the
    /// reader refuses them before).
    pub(super) fn pack<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut packed = Vec::new();
        for (name, digest) in entries {
            let (Ok(name_len), Ok(digest_len)) =
                (u16::try_from(name.len()), u16::try_from(digest.len()))
            else {
                continue;
            };
            packed.reserve_exact(4 + name.len() + digest.len());
            packed.extend_from_slice(&name_len.to_be_bytes());
            packed.extend_from_slice(&digest_len.to_be_bytes());
            packed.extend_from_slice(name.as_bytes());
            packed.extend_from_slice(digest);
        }
        Self {
            packed: packed.into_boxed_slice(),
        }
    }
}

impl<'a> HashesRef<'a> {
    /// As [`Hashes::get`].
    #[must_use]
    pub fn get(self, algorithm: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|(name, _)| *name == algorithm)
            .map(|(_, digest)| digest)
    }

    /// As [`Hashes::sha256`].
    #[must_use]
    pub fn sha256(self) -> Option<[u8; 32]> {
        self.get("sha256")?.try_into().ok()
    }

    /// As [`Hashes::iter`].
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.packed;
        std::iter::from_fn(move || {
            let (&[n1, n2, d1, d2], after) = rest.split_first_chunk()?;
            let (name, after) = after.split_at(usize::from(u16::from_be_bytes([n1, n2])));
            let (digest, after) = after.split_at(usize::from(u16::from_be_bytes([d1, d2])));
            rest = after;
            Some((
                std::str::from_utf8(name).expect("a name was packed as text"),
                digest,
            ))
        })
    }

    /// Owned.
    #[must_use]
    pub fn to_hashes(self) -> Hashes {
        Hashes {
            packed: self.packed.into(),
        }
    }

    /// The form in which [`Hashes`] holds them.
    pub(super) fn packed(self) -> &'a [u8] {
        self.packed
    }

    /// What [`HashesRef::packed`] gave.
    pub(super) fn of_packed(packed: &'a [u8]) -> Self {
        Self { packed }
    }
}

impl From<BTreeMap<String, Vec<u8>>> for Hashes {
    fn from(map: BTreeMap<String, Vec<u8>>) -> Self {
        Self::pack(
            map.iter()
                .map(|(name, digest)| (name.as_str(), digest.as_slice())),
        )
    }
}

impl<const N: usize> From<[(String, Vec<u8>); N]> for Hashes {
    fn from(entries: [(String, Vec<u8>); N]) -> Self {
        BTreeMap::from(entries).into()
    }
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for HashesRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, digest)| (name, hex::encode(digest))),
            )
            .finish()
    }
}
