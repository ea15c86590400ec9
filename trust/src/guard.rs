//! Rollback and double-sign rules, pure.
//!
//! State is kept per (collection, role), a collection being a GUN plus its lineage. `check` is
//! total: every request gets a pass with the state that must be written before any signature is
//! released, or a refusal that names its rule, its override and the version that would pass.
//!
//! ```text
//! collection (restart, lineage) → freshness (STALE_BASE) → per item, from the root down:
//!     form → keys → version (rollback, gap, supersede) → threshold → expiry
//! ```
//!
//! A second step (the snapshot, where we hold its key) is asked with the items of the first in
//! front of it: they pass once more, because the state says that they were released, and the
//! snapshot's key may be listed by the root among them.

mod collection;
mod cover;
mod documents;
mod version;

use std::{collections::BTreeMap, fmt, str::FromStr};

pub use self::cover::snapshot_is_covered;
use crate::{
    base::{Lineage, VerifiedBase},
    gun::Gun,
    payload::Item,
    role::RoleName,
    time::UnixTime,
};

/// An override that a person can allow, `--allow RULE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A pre-sign check refused.
    Check,
    /// Expiry past or beyond policy.
    Expiry,
    /// A version beyond the next.
    Gap,
    /// A key that nothing verified lists for the role.
    Key,
    /// A root chain that reaches no recorded lineage.
    Lineage,
    /// Bytes that do not parse.
    Opaque,
    /// Other content at a version that exists.
    Rollback,
    /// A new first root for a published collection.
    Restart,
    /// A threshold of a base role lowered, or its key set emptied.
    Threshold,
}

/// A word that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rule; rules are rollback, restart, lineage, gap, key, threshold, expiry, opaque, check"
)]
pub struct BadRule(pub String);

impl Rule {
    /// The word on the command line and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Expiry => "expiry",
            Self::Gap => "gap",
            Self::Key => "key",
            Self::Lineage => "lineage",
            Self::Opaque => "opaque",
            Self::Restart => "restart",
            Self::Rollback => "rollback",
            Self::Threshold => "threshold",
        }
    }
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(word: &str) -> Result<Self, BadRule> {
        Ok(match word {
            "check" => Self::Check,
            "expiry" => Self::Expiry,
            "gap" => Self::Gap,
            "key" => Self::Key,
            "lineage" => Self::Lineage,
            "opaque" => Self::Opaque,
            "restart" => Self::Restart,
            "rollback" => Self::Rollback,
            "threshold" => Self::Threshold,
            _ => return Err(BadRule(word.to_owned())),
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A version and the SHA-256 of the `signed` bytes at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Version.
    pub version: u32,
    /// Content.
    pub hash: [u8; 32],
}

/// Whether the server is known to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Handed out; nothing more is known.
    Released,
    /// The client reported 200, or a verified base shows it.
    Published,
}

/// What is remembered of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleState {
    /// Highest in a verified base.
    pub seen: Option<Mark>,
    /// Highest released by us.
    pub signed: Option<(Mark, Standing)>,
    /// Highest released by us that is published: a delegation that the snapshot no longer lists goes
    /// on above it.
    pub published: Option<u32>,
}

/// What is remembered of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Highest timestamp version in a verified base.
    pub timestamp: Option<u32>,
    /// Per role.
    pub roles: BTreeMap<RoleName, RoleState>,
}

/// Everything recorded for a GUN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Collections by lineage, with their state.
    pub collections: BTreeMap<Lineage, State>,
}

impl State {
    /// Whether any document of it is known to be published.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.roles.values().any(|role| {
            role.seen.is_some() || matches!(role.signed, Some((_, Standing::Published)))
        })
    }
}

/// A request, as the guard sees it.
#[derive(Debug)]
pub struct Question<'a> {
    /// Of which collection.
    pub gun: &'a Gun,
    /// Verified, or absent on a first publish.
    pub base: Option<&'a VerifiedBase>,
    /// What is to be signed.
    pub items: &'a [Item],
    /// Overrides in force.
    pub allow: &'a [Rule],
    /// When it is.
    pub now: UnixTime,
    /// A first root made in this request's creation is not listed by anything before it.
    pub creating: bool,
}

/// A request that may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The collection it belongs to.
    pub lineage: Lineage,
    /// State to be written with the log entry, before release.
    pub state: State,
    /// A lineage not recorded before (first use, `--allow lineage`, a first root).
    pub new_lineage: bool,
    /// Lineages never published that a new first root supersedes; their state is dropped.
    pub superseded_lineages: Vec<Lineage>,
    /// Per role: hash and version that were released, never arrived, and are replaced.
    pub supersedes: Vec<(RoleName, Mark)>,
    /// Overrides that were needed: each to be confirmed and logged.
    pub overrides: Vec<Rule>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a refusal of policy: the client should fetch the base again.
    StaleBase {
        /// In words.
        reason: String,
        /// The version that would pass for the first role concerned.
        next: u32,
    },
    /// Fetch once more without the cache, then refuse with the rule.
    RefetchOnce {
        /// The rule that refuses if the base is still absent.
        rule: Rule,
        /// In words.
        reason: String,
        /// The version that would pass.
        next: u32,
    },
    /// Refused.
    Refused {
        /// By this rule; its word is the override, too.
        rule: Rule,
        /// In words, for the person.
        reason: String,
        /// The role concerned.
        role: Option<RoleName>,
        /// The version that would pass.
        next: u32,
        /// False where no override exists (malformed requests).
        can_override: bool,
    },
}

impl Refusal {
    /// What happened, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::StaleBase { reason, .. }
            | Self::RefetchOnce { reason, .. }
            | Self::Refused { reason, .. } => reason,
        }
    }

    /// The version that would pass.
    #[must_use]
    pub fn next(&self) -> u32 {
        match self {
            Self::StaleBase { next, .. }
            | Self::RefetchOnce { next, .. }
            | Self::Refused { next, .. } => *next,
        }
    }

    /// The rule that refuses. For a stale base: the one for a server that really went back.
    #[must_use]
    pub fn rule(&self) -> Rule {
        match self {
            Self::StaleBase { .. } => Rule::Rollback,
            Self::RefetchOnce { rule, .. } | Self::Refused { rule, .. } => *rule,
        }
    }

    /// What was found, with the override if there is one.
    fn new(rule: Rule, role: &RoleName, next: u32, reason: String) -> Self {
        Self::Refused {
            rule,
            reason,
            role: Some(role.clone()),
            next,
            can_override: true,
        }
    }

    /// A request that no override makes right.
    fn malformed(role: Option<&RoleName>, next: u32, reason: String) -> Self {
        Self::Refused {
            rule: Rule::Check,
            reason,
            role: role.cloned(),
            next,
            can_override: false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::Refused {
                can_override: false,
                ..
            } => Ok(()),
            _ => write!(
                f,
                " (rule {rule}, override --allow {rule})",
                rule = self.rule()
            ),
        }
    }
}

/// Overrides given, and those that were needed.
struct Allowed<'a> {
    given: &'a [Rule],
    used: Vec<Rule>,
}

impl Allowed<'_> {
    /// Whether `rule` was overridden; if so, that is remembered.
    fn overrides(&mut self, rule: Rule) -> bool {
        let given = self.given.contains(&rule);
        if given && !self.used.contains(&rule) {
            self.used.push(rule);
        }
        given
    }

    /// Passes over a refusal that is overridden.
    fn or_refuse(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let can_override = !matches!(
            refusal,
            Refusal::Refused {
                can_override: false,
                ..
            }
        );
        if can_override && self.overrides(refusal.rule()) {
            Ok(())
        } else {
            Err(refusal)
        }
    }
}

/// Decides by the table: the first row that fits.
///
/// # Errors
///
/// [`Refusal`].
pub fn check(history: &History, question: &Question<'_>) -> Result<Pass, Refusal> {
    let mut allowed = Allowed {
        given: question.allow,
        used: Vec::new(),
    };
    let items = documents::in_order(question.items)?;
    let mut found = collection::find(history, question, &items, &mut allowed)?;
    collection::check_freshness(&mut found, question, &items, &mut allowed)?;
    let mut supersedes = found.supersedes;
    let mut state = match question.base {
        Some(base) => observe(&found.state, base),
        None => found.state.clone(),
    };
    for item in &items {
        documents::check_keys(question, item, &items, &found.state, &mut allowed)?;
        let decision = version::decide(question, item, &found.state, &mut allowed)?;
        documents::check_content(question, item, &found.state, &mut allowed)?;
        if let Some(lost) = decision.supersedes
            && !supersedes.iter().any(|(role, _)| *role == item.role)
        {
            supersedes.push((item.role.clone(), lost));
        }
        if let Some((mark, standing)) = decision.signs {
            let role = state.roles.entry(item.role.clone()).or_default();
            let higher = role
                .signed
                .is_some_and(|(signed, _)| signed.version > mark.version);
            if !higher || decision.supersedes.is_some() {
                role.signed = Some((mark, standing));
            }
            if standing == Standing::Published {
                role.published = role.published.max(Some(mark.version));
            }
        }
    }
    Ok(Pass {
        lineage: found.lineage,
        state,
        new_lineage: found.is_new,
        superseded_lineages: found.superseded,
        supersedes,
        overrides: allowed.used,
    })
}

/// Asked before any key of a new collection is made: may a first root for this GUN be signed?
///
/// # Errors
///
/// `restart` where a published lineage is recorded.
pub fn check_creation(history: &History, gun: &Gun, allow: &[Rule]) -> Result<Vec<Rule>, Refusal> {
    let mut allowed = Allowed {
        given: allow,
        used: Vec::new(),
    };
    collection::check_restart(history, gun, &mut allowed)?;
    Ok(allowed.used)
}

/// The state after a verified base was seen, whatever becomes of the request. A base whose roots
/// are not those seen before changes nothing: until a person allows it, it is another's. Nor does a
/// first root of ours that never arrived: it was not seen on any server.
#[must_use]
pub fn observe(state: &State, base: &VerifiedBase) -> State {
    let mut state = state.clone();
    if collection::is_fork(&state, base) || is_first_root(&state, base) {
        return state;
    }
    for (role, mark) in marks(base) {
        if role == RoleName::Timestamp {
            state.timestamp = state.timestamp.max(Some(mark.version));
            continue;
        }
        let known = state.roles.entry(role).or_default();
        if known.seen.is_none_or(|seen| seen.version < mark.version) {
            known.seen = Some(mark);
        }
        if let Some((signed, standing)) = &mut known.signed
            && *signed == mark
        {
            *standing = Standing::Published;
            known.published = known.published.max(Some(mark.version));
        }
    }
    state
}

/// Whether the base is nothing but a first root that was released here and never arrived: what a
/// client shows that publishes it again, unchanged, with new targets. It says nothing of what is
/// published.
fn is_first_root(state: &State, base: &VerifiedBase) -> bool {
    let released = state
        .roles
        .get(&RoleName::Root)
        .and_then(|root| root.signed);
    base.timestamp().is_none()
        && base.snapshot().is_none()
        && !state.is_published()
        && released.map(|(mark, _)| (mark.version, mark.hash)) == base.mark(&RoleName::Root)
}

/// Whether the newest root of a base is the newest that was seen, by the state that [`observe`] gave
/// for it. Only then may it take the place of the root that is recorded: not one of a server that
/// went back, nor one of another lineage.
#[must_use]
pub fn shows_newest_root(state: &State, base: &VerifiedBase) -> bool {
    let seen = state.roles.get(&RoleName::Root).and_then(|root| root.seen);
    let shown = base.mark(&RoleName::Root);
    seen.map(|seen| (seen.version, seen.hash)) == shown
}

/// The state after the client reported the server's 200 for these released marks.
#[must_use]
pub fn published(state: &State, released: &[(RoleName, Mark)]) -> State {
    let mut state = state.clone();
    for (role, mark) in released {
        let known = state.roles.entry(role.clone()).or_default();
        known.published = known.published.max(Some(mark.version));
        if let Some((signed, standing)) = &mut known.signed
            && signed == mark
        {
            *standing = Standing::Published;
        }
    }
    state
}

/// The current document of every role that the base has.
fn marks(base: &VerifiedBase) -> impl Iterator<Item = (RoleName, Mark)> + '_ {
    base.marks()
        .map(|(role, (version, hash))| (role.clone(), Mark { version, hash }))
}
