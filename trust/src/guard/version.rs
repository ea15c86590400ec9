//! The rows of the table that compare versions.

use super::{Allowed, Mark, Question, Refusal, Rule, Standing, State};
use crate::{base::VerifiedBase, payload::Item, role::RoleName};

/// What to write down for an item that passes.
pub(super) struct Decision {
    /// Released before, never arrived, replaced now.
    pub(super) supersedes: Option<Mark>,
    /// The new mark, with what is known of it; `None` for opaque bytes.
    pub(super) signs: Option<(Mark, Standing)>,
}

/// The versions that pass for a role.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Named in every answer.
    pub(super) named: u32,
    /// Passes too: Go's first publish makes targets and snapshot version 2, and a server takes a
    /// first root of either.
    also: Option<u32>,
}

impl Next {
    fn admits(self, version: u32) -> bool {
        version == self.named || self.also == Some(version)
    }
}

/// `next` of a role, by the base and, for a delegation that its snapshot does not list, by all that
/// is known of what the role had before.
pub(super) fn next(base: Option<&VerifiedBase>, role: &RoleName, state: &State) -> Next {
    let Some(base) = base else {
        return Next {
            named: 1,
            also: Some(2),
        };
    };
    if let Some((version, _)) = base.mark(role) {
        return Next {
            named: version.saturating_add(1),
            also: None,
        };
    }
    let RoleName::Delegation(_) = role else {
        return Next {
            named: 1,
            also: Some(2),
        };
    };
    let known = state.roles.get(role).copied().unwrap_or_default();
    let signed = match known.signed {
        Some((mark, Standing::Published)) => Some(mark.version),
        _ => None,
    };
    let highest = known
        .seen
        .map(|seen| seen.version)
        .max(known.published)
        .max(signed)
        .max(base.unlisted(role));
    Next {
        named: highest.unwrap_or(0).saturating_add(1),
        also: None,
    }
}

/// Rows 4 to 8 for one item.
pub(super) fn decide(
    question: &Question<'_>,
    item: &Item,
    state: &State,
    allowed: &mut Allowed<'_>,
) -> Result<Decision, Refusal> {
    let role = &item.role;
    let next = next(question.base, role, state);
    let Ok(document) = item.payload.document() else {
        // Allowed as opaque, or it would not have come here: it has no version to compare.
        return Ok(Decision {
            supersedes: None,
            signs: None,
        });
    };
    let mark = Mark {
        version: document.version(),
        hash: item.payload.hash(),
    };
    let known = state.roles.get(role).copied().unwrap_or_default();
    let base = question.base.and_then(|base| base.mark(role));
    let base = base.map(|(version, hash)| Mark { version, hash });

    if let Some(base) = base {
        if mark == base {
            return Ok(signs(mark, Standing::Published));
        }
        if mark.version <= base.version {
            behind_base(
                question,
                role,
                mark.version,
                base.version,
                next.named,
                allowed,
            )?;
            return Ok(signs(mark, Standing::Released));
        }
    }
    if let Some((signed, standing)) = known.signed
        && signed == mark
    {
        return Ok(signs(mark, standing));
    }
    if next.admits(mark.version) {
        return match known.signed {
            Some((signed, Standing::Released)) if signed.version >= mark.version => Ok(Decision {
                supersedes: Some(signed),
                signs: Some((mark, Standing::Released)),
            }),
            Some((signed, Standing::Published)) if signed.version >= mark.version => {
                let reason = format!(
                    "{role} v{} of {} was published from here, but the base does not show it",
                    signed.version, question.gun
                );
                let next = signed.version.saturating_add(1);
                allowed.or_refuse(Refusal::StaleBase { reason, next })?;
                Ok(signs(mark, Standing::Released))
            }
            _ => Ok(signs(mark, Standing::Released)),
        };
    }
    let (rule, why) = if mark.version < next.named {
        (Rule::Rollback, "below what was published before")
    } else {
        (
            Rule::Gap,
            "beyond the next one: it could erase what others publish meanwhile",
        )
    };
    let reason = format!(
        "{role} v{} of {} is {why}; version {} is next",
        mark.version, question.gun, next.named
    );
    allowed.or_refuse(Refusal::new(rule, role, next.named, reason))?;
    Ok(signs(mark, Standing::Released))
}

fn signs(mark: Mark, standing: Standing) -> Decision {
    Decision {
        supersedes: None,
        signs: Some((mark, standing)),
    }
}

/// Row 4: other content at a version that the server has, or had.
fn behind_base(
    question: &Question<'_>,
    role: &RoleName,
    asked: u32,
    published: u32,
    next: u32,
    allowed: &mut Allowed<'_>,
) -> Result<(), Refusal> {
    let gun = question.gun;
    let refusal = if asked == published {
        // A lost race: the client fetches, applies its change again, and signs the next version.
        Refusal::StaleBase {
            reason: format!(
                "{role} v{asked} of {gun} was published by somebody else meanwhile; version {next} \
                 is next"
            ),
            next,
        }
    } else {
        let reason = format!(
            "{role} v{asked} of {gun} would roll back v{published}, which is published; version \
             {next} is next"
        );
        Refusal::new(Rule::Rollback, role, next, reason)
    };
    allowed.or_refuse(refusal)
}
