//! The root chain of a base: where it hangs from what is recorded, and its links.

use sha2::{Digest as _, Sha256};

use super::{BaseError, Lineage, RecordedRoot, lacks, mark_of, parse};
use crate::{
    document::Root,
    gun::Gun,
    pin::Pin,
    role::RoleName,
    time::UnixTime,
    verify::{Raw, Signers, Verified, first_root, limit, next_root},
};

/// A root signed every day for three years; a longer chain is an attack on whoever verifies it.
pub(super) const MAX_ROOTS: usize = 1000;

/// Anchors the chain and verifies it link by link.
pub(super) fn root_chain(
    gun: &Gun,
    wires: Vec<Vec<u8>>,
    recorded: &[RecordedRoot],
    now: UnixTime,
) -> Result<Chain, BaseError> {
    if wires.is_empty() {
        return Err(lacks("root"));
    }
    if wires.len() > MAX_ROOTS {
        return Err(BaseError::TooManyRoots(wires.len()));
    }
    let mut chain = Vec::with_capacity(wires.len());
    for wire in wires {
        chain.push(parse::<Root>(&RoleName::Root, wire, limit::ROLE)?);
    }
    let Some(anchor) = anchor(&chain, recorded, gun, now) else {
        return Ok(Chain {
            roots: first_use(chain, gun, now)?,
            lineage: None,
            anchor: None,
        });
    };
    let rest = chain.into_iter().skip(anchor.next);
    let mut roots = Vec::new();
    let mark = mark_of(&anchor.root);
    let mut previous = anchor.root;
    for raw in rest {
        let root = next_root(raw, &previous, gun, now)?;
        roots.push(std::mem::replace(&mut previous, root));
    }
    roots.push(previous);
    // A recorded root that the client did not send is no part of its base, unless it is all of it.
    if !anchor.sent && roots.len() > 1 {
        roots.remove(0);
    }
    Ok(Chain {
        roots,
        lineage: Some(anchor.lineage),
        anchor: Some(mark),
    })
}

/// A root chain, verified.
pub(super) struct Chain {
    pub(super) roots: Vec<Verified<Root>>,
    pub(super) lineage: Option<Lineage>,
    pub(super) anchor: Option<(u32, [u8; 32])>,
}

/// Where a chain hangs from what is recorded.
struct Anchor {
    lineage: Lineage,
    root: Verified<Root>,
    /// Index of the first root of the chain after it.
    next: usize,
    /// Whether it is itself in the chain.
    sent: bool,
}

/// The newest recorded root that the chain contains, else one that its first root continues.
///
/// The newest, because keys of older ones may have been rotated away after they leaked.
fn anchor(
    chain: &[Raw<Root>],
    recorded: &[RecordedRoot],
    gun: &Gun,
    now: UnixTime,
) -> Option<Anchor> {
    let mut known: Vec<(Lineage, Verified<Root>)> = recorded
        .iter()
        .filter_map(|record| Some((record.lineage, by_itself(&record.wire)?)))
        .collect();
    known.sort_by_key(|(_, root)| std::cmp::Reverse(root.doc().version));
    for (lineage, root) in &known {
        let same = |raw: &Raw<Root>| raw.claimed() == root.doc();
        if let Some(at) = chain.iter().position(same) {
            // The bytes that were sent: the snapshot names them, and they may carry other
            // signatures than those recorded.
            let sent = raw_by_itself(chain[at].clone()).unwrap_or_else(|| root.clone());
            return Some(Anchor {
                lineage: *lineage,
                root: sent,
                next: at + 1,
                sent: true,
            });
        }
    }
    // The collection's first root, although later ones are recorded: a server that went back is
    // stale, not another collection.
    let digest = Lineage(Sha256::digest(chain[0].canonical()).into());
    if recorded.iter().any(|record| record.lineage == digest)
        && let Some(root) = raw_by_itself(chain[0].clone())
    {
        return Some(Anchor {
            lineage: digest,
            root,
            next: 1,
            sent: true,
        });
    }
    known.into_iter().find_map(|(lineage, root)| {
        next_root(chain[0].clone(), &root, gun, now).ok()?;
        Some(Anchor {
            lineage,
            root,
            next: 0,
            sent: false,
        })
    })
}

/// A root that was verified before: its own signatures again, whatever became of its certificates.
fn by_itself(wire: &[u8]) -> Option<Verified<Root>> {
    raw_by_itself(Raw::parse(wire.to_vec(), limit::ROLE).ok()?)
}

fn raw_by_itself(raw: Raw<Root>) -> Option<Verified<Root>> {
    let root = raw.claimed().clone();
    raw.verify(&RoleName::Root, &root_signers(&root)).ok()
}

/// The root keys of a root that was verified before, whatever became of their certificates since.
pub(crate) fn root_signers(root: &Root) -> Signers<'_> {
    let Some(role) = root.roles.get(&RoleName::Root) else {
        return Signers {
            keys: Vec::new(),
            threshold: u32::MAX,
        };
    };
    let keys = role
        .key_ids
        .iter()
        .filter_map(|id| Some((*id, root.keys.get(id)?)));
    Signers {
        keys: keys.filter(|(id, key)| key.id() == *id).collect(),
        threshold: role.threshold,
    }
}

/// No lineage is reached: the chain from its first root that can be one of this GUN now. Roots
/// before it may have certificates that ended.
fn first_use(
    chain: Vec<Raw<Root>>,
    gun: &Gun,
    now: UnixTime,
) -> Result<Vec<Verified<Root>>, BaseError> {
    let mut roots: Vec<Verified<Root>> = Vec::new();
    let mut refused = None;
    for raw in chain {
        match roots.last() {
            Some(previous) => {
                let root = next_root(raw, previous, gun, now)?;
                roots.push(root);
            }
            None => match first_root(raw, gun, &Pin::FirstUse, now) {
                Ok(root) => roots.push(root),
                Err(error) => refused = refused.or(Some(error)),
            },
        }
    }
    match (roots.is_empty(), refused) {
        (true, Some(error)) => Err(error.into()),
        _ => Ok(roots),
    }
}
