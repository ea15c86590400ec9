//! What a restored archive claims was signed, beside what the server shows.
//!
//! The guard holds such floors like its own. A base that is older is refused as any stale base is,
//! but with the word that nothing but the archive tells of the newer version; `--allow rollback`,
//! confirmed, sets the floors to the base.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use signet_trust::{
    Gun, RoleName,
    base::VerifiedBase,
    guard::{History, State},
    payload::escape,
};

use super::{Fault, Keyring};
use crate::{backup::state::highest, ledger::Claim};

/// GUNs with claims, once they were read: hardly ever any, and asked at each signature.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Option<HashSet<String>>>);

impl Claims {
    /// Has them read anew: a restore has brought some.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn about(&self, gun: &Gun) -> Option<bool> {
        let guns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guns.as_ref().map(|guns| guns.contains(gun.as_str()))
    }

    fn set(&self, guns: HashSet<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(guns);
    }
}

impl Keyring {
    async fn claims_of(&self, gun: &Gun) -> Result<Vec<Claim>, Fault> {
        if self.claims.about(gun).is_none() {
            let guns = self.recorder.run(|ledger| ledger.claimed_guns()).await?;
            self.claims.set(guns.into_iter().collect());
        }
        if self.claims.about(gun) == Some(false) {
            return Ok(Vec::new());
        }
        let gun = gun.clone();
        self.recorder.run(move |ledger| ledger.claims(&gun)).await
    }

    /// Forgets the claims that a verified base has reached.
    pub(super) async fn bear_out(&self, gun: &Gun, base: &VerifiedBase) -> Result<(), Fault> {
        let mut claims = self.claims_of(gun).await?;
        claims.retain(|claim| {
            base.lineage() == Some(claim.lineage)
                && version(base, &claim.role).is_some_and(|at| at >= claim.version)
        });
        if claims.is_empty() {
            return Ok(());
        }
        let of = gun.clone();
        self.recorder
            .run(move |ledger| ledger.bear_out(&of, &claims))
            .await?;
        self.claims.forget();
        Ok(())
    }

    /// Why a base is stale, and whether only an archive says so.
    pub(super) async fn why_stale(
        &self,
        gun: &Gun,
        base: Option<&VerifiedBase>,
        history: &History,
        reason: String,
    ) -> Result<String, Fault> {
        let Some(base) = base else { return Ok(reason) };
        let claims = self.claims_of(gun).await?;
        let claim = claims.iter().find(|claim| {
            let state = history.collections.get(&claim.lineage);
            base.lineage() == Some(claim.lineage)
                && version(base, &claim.role).is_some_and(|at| at < claim.version)
                && state.and_then(|state| floor(state, &claim.role)) == Some(claim.version)
        });
        Ok(match claim {
            Some(claim) => format!(
                "{reason}; {} version {} is known from the backup {} alone, which was restored \
                 here: no server has shown it",
                escape(&claim.role),
                claim.version,
                escape(&claim.source)
            ),
            None => reason,
        })
    }
}

fn version(base: &VerifiedBase, role: &str) -> Option<u32> {
    let role: RoleName = role.parse().ok()?;
    if role == RoleName::Timestamp {
        return Some(base.timestamp()?.doc().version);
    }
    base.mark(&role).map(|(version, _)| version)
}

/// The highest version that is recorded of a role.
fn floor(state: &State, role: &str) -> Option<u32> {
    let role: RoleName = role.parse().ok()?;
    match role {
        RoleName::Timestamp => state.timestamp,
        role => state.roles.get(&role).and_then(highest),
    }
}
