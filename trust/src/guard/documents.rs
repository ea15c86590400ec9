//! What is refused whatever the version: form, keys, thresholds, expiry.

use super::{Allowed, Question, Refusal, Rule, State, version};
use crate::{
    base::{VerifiedBase, root_signers},
    document::{Document, Root},
    key::{KeyId, PublicKey},
    payload::Item,
    role::RoleName,
    time::{Expiry, UnixTime, lifetime},
    verify::{base_signers, delegation_signers},
};

/// Clocks of two hosts differ, and a request may be asked again some hours later.
const SLACK: UnixTime = 24 * 60 * 60;

/// The items from the root down, snapshot last; malformed requests are refused.
pub(super) fn in_order(items: &[Item]) -> Result<Vec<&Item>, Refusal> {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by_key(|item| {
        let rank = match item.role {
            RoleName::Root => 0,
            RoleName::Targets | RoleName::Delegation(_) => 1,
            RoleName::Snapshot | RoleName::Timestamp => 2,
        };
        // Targets come before delegations, and these by name: parents first.
        (rank, &item.role)
    });
    let Some(first) = sorted.first() else {
        return Err(Refusal::malformed(
            None,
            1,
            "the request asks for nothing".to_owned(),
        ));
    };
    let malformed = |item: &Item, why: &str| {
        let version = item.payload.document().map_or(1, Document::version);
        Err(Refusal::malformed(
            Some(&item.role),
            version,
            format!("{} {why}", item.role),
        ))
    };
    if sorted.windows(2).any(|pair| pair[0].role == pair[1].role) {
        return malformed(first, "and another role are asked for twice in one request");
    }
    for item in &sorted {
        if item.role == RoleName::Timestamp {
            return malformed(item, "is always signed by the server");
        }
        if item.key_ids.is_empty() {
            return malformed(item, "is to be signed, but no key is named");
        }
        if item.payload.document().is_ok() && !item.payload.fits(&item.role) {
            return malformed(item, "cannot sign a document of this type");
        }
    }
    Ok(sorted)
}

/// Whether the item can be read, the base has what is needed to judge it, and every key is listed
/// for the role.
pub(super) fn check_keys(
    question: &Question<'_>,
    item: &Item,
    items: &[&Item],
    state: &State,
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    let role = &item.role;
    let next = version::next(question.base, role, state).named;
    if let Err(error) = item.payload.document() {
        let reason = format!("what {role} is to sign cannot be read: {error}");
        allowed.or_refuse(Refusal::new(Rule::Opaque, role, next, reason))?;
    }
    let judged = question
        .base
        .filter(|base| !super::is_first_root(state, base));
    if let Some(lacking) = judged.and_then(|base| lacking(base, role)) {
        let reason = format!("the base lacks its {lacking}, without which {role} cannot be judged");
        return Err(Refusal::malformed(Some(role), next, reason));
    }
    let listed = listed(question, role, items);
    match item.key_ids.iter().find(|id| !listed.contains(id)) {
        None => Ok(()),
        Some(unlisted) => {
            let reason = format!(
                "key {unlisted} is not listed for {role} of {} by anything verified",
                question.gun
            );
            allowed.or_refuse(Refusal::new(Rule::Key, role, next, reason))
        }
    }
}

/// The part of the base that an item of this role needs and that is not there.
fn lacking(base: &VerifiedBase, role: &RoleName) -> Option<String> {
    if *role == RoleName::Root {
        return None;
    }
    if base.timestamp().is_none() {
        return Some(RoleName::Timestamp.to_string());
    }
    if base.snapshot().is_none() {
        return Some(RoleName::Snapshot.to_string());
    }
    let mut wanted = Some(role.clone());
    while let Some(role) = wanted {
        if role.is_targets_like()
            && base.mark(&role).is_none()
            && base.is_published(&role) == Some(true)
        {
            return Some(role.to_string());
        }
        wanted = role.parent();
    }
    None
}

/// The keys that may sign a role: by the base, and by a document above it in the same request.
/// (That document passes, or the whole request is refused.)
fn listed(question: &Question<'_>, role: &RoleName, items: &[&Item]) -> Vec<KeyId> {
    let mut ids = Vec::new();
    if let Some(base) = question.base {
        if *role == RoleName::Root {
            ids.extend(
                root_signers(base.root().doc())
                    .keys
                    .iter()
                    .map(|(id, _)| *id),
            );
        }
        ids.extend(
            base.signers(role)
                .iter()
                .flat_map(|signers| &signers.keys)
                .map(|(id, _)| *id),
        );
    }
    let above = role.parent().unwrap_or(RoleName::Root);
    let document = items.iter().find(|item| item.role == above);
    let signers = match document.map(|item| item.payload.document()) {
        Some(Ok(Document::Root(root))) => {
            Some(base_signers(root, role, question.gun, question.now))
        }
        Some(Ok(Document::Targets(targets))) => delegation_signers(targets, role),
        _ => None,
    };
    ids.extend(
        signers
            .iter()
            .flat_map(|signers| &signers.keys)
            .map(|(id, _)| *id),
    );
    ids
}

/// Thresholds of a root, and the expiry of any document.
pub(super) fn check_content(
    question: &Question<'_>,
    item: &Item,
    state: &State,
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    let role = &item.role;
    let next = version::next(question.base, role, state).named;
    let Ok(document) = item.payload.document() else {
        return Ok(());
    };
    if let Document::Root(root) = document {
        check_thresholds(question, item, root, next, allowed)?;
    }
    let lifetime = match role {
        RoleName::Root => lifetime::ROOT,
        RoleName::Snapshot => lifetime::SNAPSHOT,
        _ => lifetime::TARGETS,
    };
    match expiry_fault(document.expires(), question.now, lifetime) {
        None => Ok(()),
        Some(why) => {
            let reason = format!(
                "{role} of {} would expire at {}, {why}",
                question.gun,
                document.expires()
            );
            allowed.or_refuse(Refusal::new(Rule::Expiry, role, next, reason))
        }
    }
}

fn expiry_fault(expires: &Expiry, now: UnixTime, lifetime: UnixTime) -> Option<String> {
    if expires.is_past(now) {
        return Some("which is past".to_owned());
    }
    let latest = now.saturating_add(lifetime).saturating_add(SLACK);
    let years = lifetime / (365 * 24 * 60 * 60);
    (expires.unix() > latest).then(|| format!("more than {years} years from now"))
}

fn check_thresholds(
    question: &Question<'_>,
    item: &Item,
    root: &Root,
    next: u32,
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    let gun = question.gun;
    let mut require = |holds: bool, reason: &dyn Fn() -> String| {
        if holds {
            return Ok(());
        }
        allowed.or_refuse(Refusal::new(Rule::Threshold, &item.role, next, reason()))
    };
    let current = question.base.map(|base| base.root().doc());
    for (role, keys) in &root.roles {
        let usable = count(&base_signers(root, role, gun, question.now).keys, None);
        require(keys.threshold > 0 && usable >= keys.threshold, &|| {
            format!(
                "the new root of {gun} leaves {role} with {usable} usable keys of the {} it needs",
                keys.threshold
            )
        })?;
        let before = current
            .and_then(|root| root.roles.get(role))
            .map_or(0, |keys| keys.threshold);
        require(keys.threshold >= before, &|| {
            format!(
                "the new root of {gun} lowers the threshold of {role} from {before} to {}",
                keys.threshold
            )
        })?;
    }
    let is_published = question.base.and_then(|base| base.mark(&RoleName::Root))
        == Some((root.version, item.payload.hash()));
    if is_published {
        return Ok(());
    }
    let own = base_signers(root, &RoleName::Root, gun, question.now);
    let by_own = count(&own.keys, Some(&item.key_ids));
    require(by_own >= own.threshold, &|| {
        format!(
            "the new root of {gun} is to be signed by {by_own} of its own keys, and needs {}",
            own.threshold
        )
    })?;
    if let Some(current) = current {
        let before = root_signers(current);
        let by_before = count(&before.keys, Some(&item.key_ids));
        require(by_before >= before.threshold, &|| {
            format!(
                "the new root of {gun} is to be signed by {by_before} keys of the current root, \
                 and needs {}",
                before.threshold
            )
        })?;
    }
    Ok(())
}

/// Distinct keys; with `among`, those of them that are named there.
fn count(keys: &[(KeyId, &PublicKey)], among: Option<&[KeyId]>) -> u32 {
    let mut ids: Vec<&KeyId> = keys.iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| among.is_none_or(|among| among.contains(id)));
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}
