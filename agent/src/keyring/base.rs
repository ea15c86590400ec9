//! The base of a request: parts that came inline or are held here, put together and verified.

use std::sync::Arc;

use signet_proto::v1::part::Kind;
use signet_trust::{
    Gun, RoleName,
    base::{BaseDocuments, VerifiedBase},
};

use super::{
    Fault,
    collection::{Collection, Held},
    recorder::Recorder,
};

/// The base as a request names it.
#[derive(Debug)]
pub(super) enum Named {
    /// A first publish.
    Absent,
    /// What is held since the document with this payload hash was published.
    Released([u8; 32]),
    /// Document by document.
    Parts(Vec<Part>),
}

/// One document of a base.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) role: RoleName,
    pub(super) sha256: [u8; 32],
    /// Wire bytes; `None` when they are held here.
    pub(super) wire: Option<Vec<u8>>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Found {
    /// Verified; `None` on a first publish.
    Base(Option<VerifiedBase>),
    /// Parts that are not held: indices, none when the whole base is not.
    Missing(Vec<u32>),
}

/// Bytes of JSON beyond which parsing is announced to the runtime as blocking.
const LONG_WORK: usize = 64 * 1024;

/// Runs work that takes milliseconds when there are `bytes` to read.
pub(super) fn compute<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes > LONG_WORK {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Finds and verifies the base that a request names.
pub(super) async fn find(
    gun: &Gun,
    named: Named,
    collection: &mut Collection,
    recorder: &Recorder,
    now: i64,
) -> Result<Found, Fault> {
    let held = collection.held.as_ref();
    let parts = match named {
        Named::Absent => return Ok(Found::Base(None)),
        Named::Released(hash) => {
            return Ok(match held.filter(|held| held.tip == Some(hash)) {
                Some(held) => Found::Base(Some(held.base.clone())),
                None => Found::Missing(Vec::new()),
            });
        }
        Named::Parts(parts) => parts,
    };
    let missing: Vec<u32> = parts
        .iter()
        .enumerate()
        .filter(|(_, part)| part.wire.is_none() && !holds(held, part))
        .filter_map(|(index, _)| u32::try_from(index).ok())
        .collect();
    if !missing.is_empty() {
        return Ok(Found::Missing(missing));
    }
    if let Some(held) = held
        && same(held, &parts)
    {
        return Ok(Found::Base(Some(held.base.clone())));
    }
    let documents = assemble(parts, held)?;
    // Another base takes its place: a large collection is not held twice meanwhile.
    collection.held = None;
    let recorded = {
        let gun = gun.clone();
        recorder.run(move |ledger| ledger.roots(&gun)).await?
    };
    let size = size(&documents);
    let base = compute(size, || {
        VerifiedBase::verify(gun, documents, &recorded, now)
    })?;
    Ok(Found::Base(Some(base)))
}

fn holds(held: Option<&Held>, part: &Part) -> bool {
    held.and_then(|held| held.find(&part.sha256))
        .is_some_and(|(kind, role)| *kind == part.kind && *role == part.role)
}

/// Whether the parts are the held base: nothing in them that is not in it, and as new.
fn same(held: &Held, parts: &[Part]) -> bool {
    let has = |kind: Kind| parts.iter().any(|part| part.kind == kind);
    parts.iter().all(|part| holds(Some(held), part))
        && has(Kind::Root)
        && has(Kind::Timestamp) == held.base.timestamp().is_some()
        && has(Kind::Snapshot) == held.base.snapshot().is_some()
        && parts
            .iter()
            .filter(|part| part.kind == Kind::Root)
            .any(|part| held.wire(&part.sha256) == Some(held.base.root().wire()))
}

fn assemble(parts: Vec<Part>, held: Option<&Held>) -> Result<BaseDocuments, Fault> {
    let twice = |what: &RoleName| Fault::Malformed(format!("the base has {what} twice"));
    let mut documents = BaseDocuments::default();
    for part in parts {
        let wire = match part.wire {
            Some(wire) => wire,
            None => held
                .and_then(|held| held.wire(&part.sha256))
                .ok_or(Fault::Internal("a held document is gone"))?
                .to_vec(),
        };
        let before = match part.kind {
            Kind::Root => {
                documents.roots.push(wire);
                None
            }
            Kind::Timestamp => documents.timestamp.replace(wire),
            Kind::Snapshot => documents.snapshot.replace(wire),
            Kind::Targets => documents.targets.insert(part.role.clone(), wire),
            Kind::Unlisted => documents.unlisted.insert(part.role.clone(), wire),
            Kind::Unspecified => {
                return Err(Fault::Malformed(
                    "a part of the base without a kind".to_owned(),
                ));
            }
        };
        if before.is_some() {
            return Err(twice(&part.role));
        }
    }
    Ok(documents)
}

fn size(documents: &BaseDocuments) -> usize {
    let single = [&documents.timestamp, &documents.snapshot];
    documents.roots.iter().map(Vec::len).sum::<usize>()
        + single.into_iter().flatten().map(Vec::len).sum::<usize>()
        + documents.targets.values().map(Vec::len).sum::<usize>()
}

/// Remembers the newest root and the state of a verified base, whatever becomes of the request.
pub(super) async fn observe(
    gun: &Gun,
    base: &VerifiedBase,
    collection: &mut Collection,
    recorder: &Recorder,
) -> Result<(), Fault> {
    let Some(lineage) = base.lineage() else {
        return Ok(());
    };
    let history = collection.history(gun, recorder).await?;
    let Some(state) = history.collections.get(&lineage) else {
        return Ok(());
    };
    let seen = signet_trust::guard::observe(state, base);
    // Not the root of a server that went back, nor one of another lineage.
    let grown = base.roots().len() > 1 && signet_trust::guard::shows_newest_root(&seen, base);
    if seen == *state && !grown {
        return Ok(());
    }
    let root = grown.then(|| base.root().wire().to_vec());
    let (of, to_write) = (gun.clone(), seen.clone());
    recorder
        .run(move |ledger| ledger.observe(&of, lineage, root.as_deref(), &to_write))
        .await?;
    let mut history = Arc::unwrap_or_clone(history);
    history.collections.insert(lineage, seen);
    collection.set_history(history);
    Ok(())
}
