//! Grants given and revoked: approvals beforehand, each with its log entry.

use std::{sync::Arc, time::Duration};

use signet_proto::v1::{GrantInfo, GrantRequest};
use signet_trust::payload::escape;

use super::{Fault, Keyring, Person, person::Work};
use crate::{
    daemon::caller::Caller,
    ledger::NewEntry,
    presence::{approvals::Scope, stream::Stream},
    service::now,
    store::file::{FileStore, Ring},
};

impl Keyring {
    /// Gives a grant. It stands for the yes of somebody who attends, so it takes one: theirs, or,
    /// where nobody attends, the passphrase of the keyring.
    pub(crate) async fn give_grant(
        &self,
        scope: Scope,
        gun: &str,
        time: Duration,
        person: &mut Person<'_>,
        stream: &mut Stream<GrantRequest>,
    ) -> Result<GrantInfo, Fault> {
        let words = words(&scope, gun, time);
        person.about(vec![words.clone()]);
        if !person.approve(stream, "Give this grant?", false).await? {
            let there = self.file.run(|store| store.status()).await?;
            if !there.repository {
                return Err(Fault::NeedsYes(
                    "there is no keyring whose passphrase could confirm it".to_owned(),
                ));
            }
            let work: Work<FileStore, _> =
                Arc::new(|store, presence| store.confirm(Ring::Repository, presence));
            person.with(&self.file, stream, true, work).await?;
        }
        let given = self.approvals.give(scope, gun, time)?;
        self.log(NewEntry {
            kind: "grant",
            time: now(),
            summary: format!("{words} (grant {})", given.id),
            caller: person.caller.describe(),
            grade: person.grade(),
            outcome: "given".to_owned(),
            facts: person.facts(""),
            ..NewEntry::default()
        })
        .await?;
        Ok(given)
    }

    /// Ends grants; how many.
    pub(crate) async fn revoke_grants(&self, id: &str, caller: &Caller) -> Result<u32, Fault> {
        let revoked = self.approvals.revoke(id);
        if revoked > 0 {
            let which = if id.is_empty() { "all" } else { id };
            self.log(NewEntry {
                kind: "grant",
                time: now(),
                summary: format!("{revoked} grants end ({})", escape(which)),
                caller: caller.describe(),
                outcome: "revoked".to_owned(),
                ..NewEntry::default()
            })
            .await?;
        }
        Ok(revoked)
    }
}

/// What a grant is for, in the words of prompt and log.
pub(super) fn words(scope: &Scope, gun: &str, time: Duration) -> String {
    let whom = match scope {
        Scope::Session(_, terminal) if terminal.is_empty() => "callers of this session".to_owned(),
        Scope::Session(_, terminal) => format!("callers of {terminal}"),
        Scope::Digests(digests) => {
            let first = digests.iter().take(3).map(hex::encode);
            let mut words = first.map(|one| format!("sha256:{one}")).collect::<Vec<_>>();
            if digests.len() > words.len() {
                words.push(format!("{} more", digests.len() - words.len()));
            }
            format!("whoever asks, once for each of {}", words.join(", "))
        }
    };
    let of = match gun {
        "" => "every repository".to_owned(),
        gun => format!("repositories {}", escape(gun)),
    };
    let minutes = time.as_secs().div_ceil(60);
    format!("approves signatures of {of} for {whom}, for {minutes} minutes")
}
