//! Which collection a request belongs to, and whether its base is as new as what was seen.

use super::{Allowed, History, Mark, Question, Refusal, RoleState, Rule, Standing, State, marks};
use crate::{
    base::{Lineage, VerifiedBase},
    gun::Gun,
    payload::Item,
    role::RoleName,
};

/// The collection of a request.
pub(super) struct Found {
    pub(super) lineage: Lineage,
    pub(super) state: State,
    pub(super) is_new: bool,
    pub(super) superseded: Vec<Lineage>,
    /// What the superseded lineages had released.
    pub(super) supersedes: Vec<(RoleName, Mark)>,
}

/// Row 1 of the table: no base at all although a lineage is published.
pub(super) fn check_restart(
    history: &History,
    gun: &Gun,
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    if !history.collections.values().any(State::is_published) {
        return Ok(());
    }
    allowed.or_refuse(Refusal::RefetchOnce {
        rule: Rule::Restart,
        reason: format!(
            "trust data of {gun} was published before, but the server has none: to start again \
             means that everyone who pulled this repository before will be refused"
        ),
        next: 1,
    })
}

/// Rows 1 and 2: finds the collection, or founds one.
pub(super) fn find(
    history: &History,
    question: &Question<'_>,
    items: &[&Item],
    allowed: &mut Allowed<'_>,
) -> Result<Found, Refusal> {
    match question.base {
        None => first_publish(history, question, items, allowed),
        Some(base) => of_base(history, question, base, items, allowed),
    }
}

fn first_publish(
    history: &History,
    question: &Question<'_>,
    items: &[&Item],
    allowed: &mut Allowed<'_>,
) -> Result<Found, Refusal> {
    check_restart(history, question.gun, allowed)?;
    let Some(root) = items.iter().find(|item| item.role == RoleName::Root) else {
        return Err(Refusal::malformed(
            items.first().map(|item| &item.role),
            1,
            format!(
                "{} has no trust data yet, and the request has no first root",
                question.gun
            ),
        ));
    };
    let lineage = Lineage(root.payload.hash());
    let known = history.collections.get(&lineage);
    if let Some(state) = known.filter(|state| !state.is_published()) {
        // The same root once more: a first publish that never arrived.
        let superseded = Vec::new();
        let state = state.clone();
        return Ok(Found {
            lineage,
            state,
            is_new: false,
            superseded,
            supersedes: Vec::new(),
        });
    }
    let never_published = || {
        history
            .collections
            .iter()
            .filter(|(_, state)| !state.is_published())
    };
    Ok(Found {
        lineage,
        // A published lineage that starts again, as was consented to, has nothing on the server.
        state: State::default(),
        is_new: known.is_none(),
        superseded: never_published().map(|(lineage, _)| *lineage).collect(),
        supersedes: never_published()
            .flat_map(|(_, state)| &state.roles)
            .filter_map(|(role, known)| Some((role.clone(), known.signed?.0)))
            .filter(|(role, _)| items.iter().any(|item| item.role == *role))
            .collect(),
    })
}

fn of_base(
    history: &History,
    question: &Question<'_>,
    base: &VerifiedBase,
    items: &[&Item],
    allowed: &mut Allowed<'_>,
) -> Result<Found, Refusal> {
    let (superseded, supersedes) = (Vec::new(), Vec::new());
    let first = items.first().map_or(&RoleName::Root, |item| &item.role);
    let next = base
        .mark(first)
        .map_or(1, |(version, _)| version.saturating_add(1));
    let refusal = |why: &str| Refusal::Refused {
        rule: Rule::Lineage,
        reason: format!(
            "the root of {} {why}: it was made anew, this is another server, or it is an attack",
            question.gun
        ),
        role: Some(RoleName::Root),
        next,
        can_override: true,
    };
    let lineage = base
        .lineage()
        .filter(|lineage| history.collections.contains_key(lineage));
    if let Some(lineage) = lineage {
        let mut state = history.collections[&lineage].clone();
        if is_fork(&state, base) {
            allowed.or_refuse(refusal("is not the one seen before at the same version"))?;
            state = State::default();
        }
        return Ok(Found {
            lineage,
            state,
            is_new: false,
            superseded,
            supersedes,
        });
    }
    if !history.collections.is_empty() {
        allowed.or_refuse(refusal("does not follow from any root recorded here"))?;
    }
    let lineage = base.own_lineage();
    let state = history.collections.get(&lineage).cloned();
    let is_new = state.is_none();
    Ok(Found {
        lineage,
        state: state.unwrap_or_default(),
        is_new,
        superseded,
        supersedes,
    })
}

/// Whether the chain goes past the root that was seen, with other content at its version or without
/// it: two roots of one version never follow from each other, so one is not this collection's. (An
/// old root key, rotated away because it leaked, could sign such a chain.)
pub(super) fn is_fork(state: &State, base: &VerifiedBase) -> bool {
    let Some(seen) = state.roles.get(&RoleName::Root).and_then(|root| root.seen) else {
        return false;
    };
    let at_seen = base.path().find(|(version, _)| *version == seen.version);
    match at_seen {
        Some((_, hash)) => hash != seen.hash,
        None => {
            let below = base.path().any(|(version, _)| version < seen.version);
            let above = base.path().any(|(version, _)| version > seen.version);
            below && above
        }
    }
}

/// Row 3: the base is as new as what was seen and published, and its timestamp holds.
pub(super) fn check_freshness(
    found: &mut Found,
    question: &Question<'_>,
    items: &[&Item],
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    let Some(base) = question.base else {
        return Ok(());
    };
    let Some(reason) = staleness(&found.state, question, base, items) else {
        return Ok(());
    };
    let next = items
        .iter()
        .map(|item| next_after_refetch(&found.state, base, &item.role))
        .next();
    allowed.or_refuse(Refusal::StaleBase {
        reason,
        next: next.unwrap_or(1),
    })?;
    found.state = put_back_to(base);
    Ok(())
}

fn staleness(
    state: &State,
    question: &Question<'_>,
    base: &VerifiedBase,
    items: &[&Item],
) -> Option<String> {
    let gun = question.gun;
    for (role, mark) in marks(base) {
        let version = mark.version;
        if role == RoleName::Timestamp {
            if let Some(seen) = state.timestamp.filter(|seen| version < *seen) {
                return Some(format!(
                    "the server's timestamp of {gun} is version {version}, older than version \
                     {seen} seen before"
                ));
            }
            continue;
        }
        let Some(known) = state.roles.get(&role) else {
            continue;
        };
        if let Some(seen) = known.seen.filter(|seen| version < seen.version) {
            return Some(format!(
                "the server's {role} of {gun} is version {version}, older than version {} seen \
                 before",
                seen.version
            ));
        }
        if let Some(published) = highest_published(known).filter(|known| version < *known) {
            return Some(format!(
                "the server's {role} of {gun} is version {version}, but version {published} was \
                 published from here"
            ));
        }
    }
    let timestamp = base.timestamp()?;
    let only_root = items.iter().all(|item| item.role == RoleName::Root);
    let expires = &timestamp.doc().expires;
    (!only_root && expires.is_past(question.now))
        .then(|| format!("the server's timestamp of {gun} expired at {expires}"))
}

fn highest_published(known: &RoleState) -> Option<u32> {
    let signed = match known.signed {
        Some((mark, Standing::Published)) => Some(mark.version),
        _ => None,
    };
    known.published.max(signed)
}

/// What will pass once the client has fetched what was seen before.
fn next_after_refetch(state: &State, base: &VerifiedBase, role: &RoleName) -> u32 {
    let known = state.roles.get(role).copied().unwrap_or_default();
    let highest = base
        .mark(role)
        .map(|(version, _)| version)
        .max(known.seen.map(|seen| seen.version))
        .max(highest_published(&known));
    highest.unwrap_or(0).saturating_add(1)
}

/// The override for a server that really went back: everything known becomes what it has now.
fn put_back_to(base: &VerifiedBase) -> State {
    let mut state = State::default();
    for (role, mark) in marks(base) {
        if role == RoleName::Timestamp {
            state.timestamp = Some(mark.version);
            continue;
        }
        let known = RoleState {
            seen: Some(mark),
            signed: Some((mark, Standing::Published)),
            published: Some(mark.version),
        };
        state.roles.insert(role, known);
    }
    state
}
