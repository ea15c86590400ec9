//! The policy's part in a request: every document and key is put to it, and the strictest answer
//! counts for all of them, because a request is signed as a whole or not at all.

use std::sync::Arc;

use signet_proto::v1::{ExplainReply, ExplainRequest};
use signet_trust::{
    Gun, KeyId, RoleName,
    base::VerifiedBase,
    document::Document,
    payload::{Item, Payload},
};

use super::{Fault, Keyring, sign::listed_key};
use crate::{
    daemon::caller::Caller,
    ledger::IndexEntry,
    policy::{Asked, Decision, Kind, Policy, Verdict, decide},
    service::now,
};

/// Signatures are counted over this long, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// Repository, verified base, all items of a request, and where the step that is asked about begins
/// among them.
pub(super) type Step<'a> = (&'a Gun, Option<&'a VerifiedBase>, &'a [Item], usize);

/// What the policy asks of a whole request.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// What the person's answer has to be worth.
    pub(super) grade: u32,
    /// The rules that want a yes on top of it.
    pub(super) confirm: Vec<String>,
    /// The rules that decided.
    pub(super) rules: Vec<String>,
    /// What has to agree.
    pub(super) checks: Vec<Check>,
}

/// A command that has to agree before tags of these roles are signed.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Program and arguments.
    pub(super) command: Vec<String>,
    pub(super) roles: Vec<RoleName>,
}

impl Keyring {
    /// The rules that are in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read();
        Arc::clone(&policy.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Puts other rules in force, for requests that come from now on.
    pub(crate) fn set_policy(&self, policy: Policy) {
        let mut current = self
            .policy
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *current = Arc::new(policy);
    }

    /// Asks the policy about every document and key of the step that begins with item `from`. A key
    /// is what would sign, whatever a document calls it.
    ///
    /// # Errors
    ///
    /// [`Fault::Policy`] when a rule refuses one of them.
    pub(super) async fn allowed(
        &self,
        (gun, base, items, from): Step<'_>,
        caller: &Caller,
        overrides: bool,
    ) -> Result<Allowed, Fault> {
        let policy = self.policy();
        let mut allowed = Allowed::default();
        let forwarded = caller.is_forwarded();
        if policy.is_empty() && !forwarded {
            return Ok(allowed);
        }
        let index = self.index();
        let cgroup = caller.facts().cgroup();
        for item in items.iter().skip(from) {
            for listed in &item.key_ids {
                // One that nothing lists signs nothing: the guard says so.
                let public = listed_key(items, base, &item.role, listed);
                let id = public.and_then(|key| key.canonical_id().ok());
                let id = id.unwrap_or(*listed);
                let entry = index.get(&id);
                let label = entry.map_or("", |entry| &entry.label);
                if forwarded && !self.is_forwarded(&id.to_string(), label) {
                    return Err(Fault::Policy {
                        rule: "forward".to_owned(),
                        why: format!("key {id} is not among those that other machines may use"),
                    });
                }
                let (payload, expires) = kind(&item.payload);
                let asked = Asked {
                    gun: gun.as_str(),
                    role: item.role.as_str(),
                    key: &id.to_string(),
                    label,
                    payload,
                    expires,
                    exe: caller.exe.as_deref(),
                    cgroup,
                    confirmed: caller.confirmed,
                    overrides,
                    signed_today: self.signed_today(&policy, id).await?,
                    now: now(),
                };
                allowed.take(decide(&policy, &asked), &item.role)?;
            }
        }
        Ok(allowed)
    }

    /// Whether a rule refuses to sign documents of this role for a collection that is to be
    /// created: asked before its keys are made. Counts and expiries are asked about later.
    ///
    /// # Errors
    ///
    /// [`Fault::Policy`].
    pub(super) fn may_create(
        &self,
        gun: &Gun,
        role: &RoleName,
        key: Option<&IndexEntry>,
        caller: &Caller,
    ) -> Result<(), Fault> {
        let policy = self.policy();
        if policy.is_empty() {
            return Ok(());
        }
        let asked = Asked {
            gun: gun.as_str(),
            role: role.as_str(),
            key: &key.map(|key| key.id.to_string()).unwrap_or_default(),
            label: key.map_or("", |key| &key.label),
            payload: Kind::from_name(role.as_str()).unwrap_or(Kind::Targets),
            expires: None,
            exe: caller.exe.as_deref(),
            cgroup: caller.facts().cgroup(),
            confirmed: caller.confirmed,
            overrides: false,
            signed_today: 0,
            now: now(),
        };
        Allowed::default().take(decide(&policy, &asked), role)
    }

    /// Which rule would decide, for `signet policy explain`.
    pub(crate) async fn explain(
        &self,
        request: &ExplainRequest,
        caller: &Caller,
    ) -> Result<ExplainReply, Fault> {
        let policy = self.policy();
        let usage = |text: &str| Fault::Usage(text.to_owned());
        let payload = match request.payload.as_str() {
            "" => Kind::from_name(&request.role).unwrap_or(Kind::Targets),
            name => Kind::from_name(name).ok_or_else(|| {
                usage("a payload is root, targets, snapshot, timestamp or opaque")
            })?,
        };
        let index = self.index();
        let named = |id: &KeyId, label: &str| {
            !request.key.is_empty() && (label == request.key || id.to_string() == request.key)
        };
        let entry = index.values().find(|key| named(&key.id, &key.label));
        let signed_today = match entry {
            Some(entry) => self.signed_today(&policy, entry.id).await?,
            None => 0,
        };
        let exe = (!request.exe.is_empty()).then(|| std::path::Path::new(&request.exe));
        let unit = (!request.unit.is_empty()).then_some(request.unit.as_str());
        let decision = decide(
            &policy,
            &Asked {
                gun: &request.gun,
                role: &request.role,
                key: &entry.map_or_else(|| request.key.clone(), |entry| entry.id.to_string()),
                label: entry.map_or("", |entry| &entry.label),
                payload,
                expires: None,
                exe: exe.or(caller.exe.as_deref()),
                cgroup: unit.or(caller.facts().cgroup()),
                confirmed: exe.is_some() || unit.is_some() || caller.confirmed,
                overrides: request.overrides,
                signed_today,
                now: now(),
            },
        );
        Ok(ExplainReply {
            rule: decision.rule.unwrap_or_default(),
            verdict: match decision.verdict {
                Verdict::Allow => "allow",
                Verdict::Ask => "ask",
                Verdict::Deny => "deny",
            }
            .to_owned(),
            grade: decision.grade,
            confirm: decision.confirm,
            why: decision.why,
        })
    }

    /// Signatures of a key within a day, if any rule counts them.
    async fn signed_today(&self, policy: &Policy, key: KeyId) -> Result<u64, Fault> {
        if !policy.counts() {
            return Ok(0);
        }
        let since = now().saturating_sub(DAY);
        self.recorder
            .run(move |ledger| ledger.signed_since(&key, since))
            .await
    }
}

impl Allowed {
    fn take(&mut self, decision: Decision, role: &RoleName) -> Result<(), Fault> {
        if decision.verdict == Verdict::Deny {
            return Err(Fault::Policy {
                rule: decision.rule.unwrap_or_default(),
                why: decision.why,
            });
        }
        self.grade = self.grade.max(decision.grade);
        if !decision.check.is_empty() {
            let known = self
                .checks
                .iter_mut()
                .find(|check| check.command == decision.check);
            match known {
                Some(check) => check.roles.push(role.clone()),
                None => self.checks.push(Check {
                    command: decision.check.clone(),
                    roles: vec![role.clone()],
                }),
            }
        }
        if let Some(rule) = decision.rule {
            if decision.confirm && !self.confirm.contains(&rule) {
                self.confirm.push(rule.clone());
            }
            if !self.rules.contains(&rule) {
                self.rules.push(rule);
            }
        }
        Ok(())
    }
}

/// What it is, and when it expires.
fn kind(payload: &Payload) -> (Kind, Option<i64>) {
    match payload.document() {
        Err(_) => (Kind::Opaque, None),
        Ok(document) => {
            let (kind, expires) = match document {
                Document::Root(root) => (Kind::Root, &root.expires),
                Document::Targets(targets) => (Kind::Targets, &targets.expires),
                Document::Snapshot(snapshot) => (Kind::Snapshot, &snapshot.expires),
                Document::Timestamp(timestamp) => (Kind::Timestamp, &timestamp.expires),
            };
            (kind, Some(expires.unix()))
        }
    }
}
