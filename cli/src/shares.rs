//! Shares of a backup's key: any K of N open it, fewer say nothing of it.
//!
//! The key is an age identity that was made for one backup. Its 32 bytes are split by Shamir's
//! scheme over GF(256), byte by byte. Every share carries what is known of the whole set: its ID,
//! how many are needed, the recipient, and the SHA-256 of every share, each with a salt of its own
//! that only this share holds. So a share that is damaged or of another set is told before anything
//! is combined, by name; and what comes out is taken only if it is the identity of the recipient.
//!
//! A share is a text file to be printed ([`file`]): its secret stands there as words, and once more,
//! with everything else, as a QR code.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
};

use age::x25519;
use bech32::{Bech32, Hrp};
use blahaj::Sharks;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub mod file;
#[cfg(test)]
mod tests;

/// Most shares of one set: more make a QR code that no page holds.
pub const MAX_SHARES: u8 = 16;
/// Bytes of an X25519 identity (age-encryption.org/v1, X25519).
const IDENTITY: usize = 32;
/// Bytes that keep a share's digest from being compared with guesses.
const SALT: usize = 16;
/// Bytes of a share that are secret: salt and Shamir's y.
pub(crate) const SECRET: usize = SALT + IDENTITY;
/// Bytes of a set's ID.
pub(crate) const ID: usize = 16;
/// Human-readable part of an identity in Bech32 (age-encryption.org/v1).
const HRP: &str = "age-secret-key-";
/// What a share's digest begins with.
const DOMAIN: &[u8] = b"signet share v1\n";

/// How many shares there are, and how many of them open the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    needed: u8,
    total: u8,
}

impl Threshold {
    /// `needed` of `total`.
    ///
    /// # Errors
    ///
    /// [`ShareError::Threshold`].
    pub fn new(needed: u8, total: u8) -> Result<Self, ShareError> {
        if needed < 2 || needed > total || total > MAX_SHARES {
            return Err(ShareError::Threshold);
        }
        Ok(Self { needed, total })
    }

    /// Reads `3/5`.
    ///
    /// # Errors
    ///
    /// [`ShareError::Threshold`].
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let (needed, total) = text.split_once('/').ok_or(ShareError::Threshold)?;
        let number = |text: &str| text.parse().map_err(|_| ShareError::Threshold);
        Self::new(number(needed)?, number(total)?)
    }

    /// Shares that open the backup.
    #[must_use]
    pub const fn needed(self) -> u8 {
        self.needed
    }

    /// Shares there are.
    #[must_use]
    pub const fn total(self) -> u8 {
        self.total
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.needed, self.total)
    }
}

/// What is wrong with a share, or with all of them together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// Its content is not what its set says of it.
    #[error("it is damaged: its words are not those of share {0} of its set")]
    Damaged(u8),
    /// It was given twice.
    #[error("it is share {0} once more")]
    Duplicate(u8),
    /// It is of another set than the others.
    #[error("it is of another set ({found}) than the others ({wanted})")]
    Foreign {
        /// Its own.
        found: String,
        /// That of the others.
        wanted: String,
    },
    /// Together they give something else than the recipient's identity.
    #[error("the shares give a key that does not open what was encrypted to {0}")]
    Mismatch(String),
    /// No randomness, or no memory.
    #[error("the key could not be split")]
    Split,
    /// Not a share.
    #[error("it is no share: {0}")]
    Syntax(&'static str),
    /// Impossible numbers.
    #[error("K/N means that any K of N shares open the backup: 2 to 16, such as 3/5")]
    Threshold,
    /// Not enough good ones.
    #[error("{needed} shares are needed, and {good} of those given can be used")]
    TooFew {
        /// The set's.
        needed: u8,
        /// Given, of one set, and undamaged.
        good: usize,
    },
    /// Only words, without a share that says what they belong to.
    #[error("it holds words alone, and no whole share says what they belong to")]
    WordsAlone,
}

/// What is known of all shares together; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub(crate) id: [u8; ID],
    pub(crate) threshold: Threshold,
    /// age1…
    pub(crate) recipient: String,
    /// Of share 1, share 2 …
    pub(crate) digests: Vec<[u8; 32]>,
}

impl Set {
    /// A set that can be.
    pub(crate) fn new(
        id: [u8; ID],
        threshold: Threshold,
        recipient: &str,
        digests: Vec<[u8; 32]>,
    ) -> Result<Self, ShareError> {
        if digests.len() != usize::from(threshold.total) {
            return Err(ShareError::Syntax("it has not one digest for each share"));
        }
        let parsed: x25519::Recipient = recipient
            .parse()
            .map_err(|_| ShareError::Syntax("its recipient is none of age's"))?;
        Ok(Self {
            id,
            threshold,
            recipient: parsed.to_string(),
            digests,
        })
    }

    fn name(&self) -> String {
        hex::encode(self.id)
    }

    fn holds(&self, index: u8, secret: &[u8; SECRET]) -> bool {
        let wanted = self.digests.get(usize::from(index).wrapping_sub(1));
        wanted == Some(&digest(&self.id, index, secret))
    }
}

/// One share.
pub struct Share {
    pub(crate) set: Arc<Set>,
    /// From 1.
    pub(crate) index: u8,
    pub(crate) secret: Zeroizing<[u8; SECRET]>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {})", self.index, self.set.name())
    }
}

/// What a file turned out to hold.
#[derive(Debug)]
pub enum Given {
    /// Words alone, and which share they are.
    Words {
        /// From 1.
        index: u8,
        /// Salt and y.
        secret: Zeroizing<[u8; SECRET]>,
    },
    /// A whole share.
    Whole(Share),
}

/// What came of combining.
pub struct Combined {
    /// Opens the backup.
    pub identity: x25519::Identity,
    /// Shares that were left out, by name, and why.
    pub left_out: Vec<(String, ShareError)>,
}

impl fmt::Debug for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combined")
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

fn digest(id: &[u8; ID], index: u8, secret: &[u8; SECRET]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(id);
    hash.update([index]);
    hash.update(secret);
    hash.finalize().into()
}

/// Makes an identity for one backup, and its shares.
///
/// # Errors
///
/// [`ShareError::Split`] when the system gives no randomness.
pub fn split(threshold: Threshold) -> Result<(x25519::Identity, Vec<Share>), ShareError> {
    let failed = |_| ShareError::Split;
    let identity = x25519::Identity::generate();
    let raw = raw(&identity)?;
    let mut id = [0; ID];
    getrandom::fill(&mut id).map_err(failed)?;
    let mut secrets: Vec<(u8, Zeroizing<[u8; SECRET]>)> = Vec::new();
    let dealer = Sharks(threshold.needed).dealer(&raw[..]);
    for dealt in dealer.take(usize::from(threshold.total)) {
        let dealt = Zeroizing::new(Vec::from(&dealt));
        let (index, y) = dealt.split_first().ok_or(ShareError::Split)?;
        let mut secret = Zeroizing::new([0; SECRET]);
        let (salt, rest) = secret.split_at_mut(SALT);
        getrandom::fill(salt).map_err(failed)?;
        if y.len() != rest.len() {
            return Err(ShareError::Split);
        }
        rest.copy_from_slice(y);
        secrets.push((*index, secret));
    }
    let digests = secrets.iter().map(|(index, s)| digest(&id, *index, s));
    let recipient = identity.to_public().to_string();
    let set = Arc::new(Set::new(id, threshold, &recipient, digests.collect())?);
    let shares = secrets.into_iter().map(|(index, secret)| Share {
        set: Arc::clone(&set),
        index,
        secret,
    });
    Ok((identity, shares.collect()))
}

/// The 32 bytes of an identity.
fn raw(identity: &x25519::Identity) -> Result<Zeroizing<Vec<u8>>, ShareError> {
    let text = identity.to_string();
    let (_, raw) = bech32::decode(text.expose_secret()).map_err(|_| ShareError::Split)?;
    let raw = Zeroizing::new(raw);
    match raw.len() {
        IDENTITY => Ok(raw),
        _ => Err(ShareError::Split),
    }
}

/// The identity with these 32 bytes.
fn identity(raw: &[u8]) -> Option<x25519::Identity> {
    let hrp = Hrp::parse(HRP).ok()?;
    let text = SecretString::from(bech32::encode_upper::<Bech32>(hrp, raw).ok()?);
    text.expose_secret().parse().ok()
}

/// Combines what is given, each by the name of its file. What cannot be used is left out by name,
/// and said so; it is never mixed with the others.
///
/// # Errors
///
/// Why there is no identity, with the shares that could not be used.
pub fn combine(
    given: Vec<(String, Result<Given, ShareError>)>,
) -> Result<Combined, (ShareError, Vec<(String, ShareError)>)> {
    let mut left_out: Vec<(String, ShareError)> = Vec::new();
    let mut whole: Vec<(String, Share)> = Vec::new();
    let mut words: Vec<(String, u8, Zeroizing<[u8; SECRET]>)> = Vec::new();
    for (name, given) in given {
        match given {
            Ok(Given::Whole(share)) if share.set.holds(share.index, &share.secret) => {
                whole.push((name, share));
            }
            Ok(Given::Whole(share)) => left_out.push((name, ShareError::Damaged(share.index))),
            Ok(Given::Words { index, secret }) => words.push((name, index, secret)),
            Err(error) => left_out.push((name, error)),
        }
    }
    let Some(set) = most(&whole) else {
        left_out.extend(
            words
                .into_iter()
                .map(|(name, ..)| (name, ShareError::WordsAlone)),
        );
        let needed = 2;
        return Err((ShareError::TooFew { needed, good: 0 }, left_out));
    };
    let mut good: BTreeMap<u8, Zeroizing<[u8; SECRET]>> = BTreeMap::new();
    let mut add = |name: String, index: u8, secret, left_out: &mut Vec<_>| {
        if let Entry::Vacant(place) = good.entry(index) {
            place.insert(secret);
        } else {
            left_out.push((name, ShareError::Duplicate(index)));
        }
    };
    for (name, share) in whole {
        if share.set == set {
            add(name, share.index, share.secret, &mut left_out);
        } else {
            let (found, wanted) = (share.set.name(), set.name());
            left_out.push((name, ShareError::Foreign { found, wanted }));
        }
    }
    for (name, index, secret) in words {
        if set.holds(index, &secret) {
            add(name, index, secret, &mut left_out);
        } else {
            left_out.push((name, ShareError::Damaged(index)));
        }
    }
    let needed = set.threshold.needed;
    if good.len() < usize::from(needed) {
        let good = good.len();
        return Err((ShareError::TooFew { needed, good }, left_out));
    }
    let shares: Vec<blahaj::Share> = good
        .iter()
        .take(usize::from(needed))
        .filter_map(|(index, secret)| {
            let bytes = Zeroizing::new([&[*index][..], &secret[SALT..]].concat());
            blahaj::Share::try_from(&bytes[..]).ok()
        })
        .collect();
    let sharks = Sharks(needed);
    let raw = sharks.recover(&shares).map(Zeroizing::new);
    let identity = raw.ok().and_then(|raw| identity(&raw));
    match identity.filter(|identity| identity.to_public().to_string() == set.recipient) {
        Some(identity) => Ok(Combined { identity, left_out }),
        None => Err((ShareError::Mismatch(set.recipient.clone()), left_out)),
    }
}

/// The set that most of the shares belong to, the first one of several.
fn most(shares: &[(String, Share)]) -> Option<Arc<Set>> {
    let count = |set: &Arc<Set>| shares.iter().filter(|(_, share)| share.set == *set).count();
    let mut best: Option<(usize, &Arc<Set>)> = None;
    for (_, share) in shares {
        let found = count(&share.set);
        if best.is_none_or(|(count, _)| found > count) {
            best = Some((found, &share.set));
        }
    }
    best.map(|(_, set)| Arc::clone(set))
}
