//! From signed documents to the server's answer, and the report to the agent.

use std::collections::BTreeMap;

use signet_proto::v1::report::Outcome as Reported;
use signet_trust::{KeyId, RoleName, edit::Edit, pin::Pin};

use super::{Again, Done, Outcome, Run, unexpected};
use crate::{
    Context,
    collection::{
        session::Said,
        update::{self, Current, Wanted},
    },
    failure::{Failure, exit},
    net::NetError,
};

impl Run<'_> {
    /// Signs the snapshot where its key is ours, uploads, reports.
    pub(super) async fn finish(
        &mut self,
        ctx: &mut Context,
        mut edit: Edit,
        mut done: Done,
    ) -> Result<Outcome, Failure> {
        let held = |id: &KeyId| self.held.contains(id);
        let snapshot = edit
            .snapshot_request(&held, None)
            .map_err(|error| self.explain(&error))?;
        if let Some(request) = snapshot {
            let requests = [request];
            let mut session = self.session.take().ok_or_else(closed)?;
            session.step(&requests);
            let said = session.next(ctx).await?;
            self.session = Some(session);
            match said {
                Said::Signed(signatures) => {
                    self.take(&mut edit, &requests, &signatures, &mut done)?;
                }
                Said::Stale(reason) => return Ok(Outcome::Again(Again::Stale(reason))),
                other => return Err(unexpected(&other)),
            }
        }
        let documents = edit.finish();
        if done.created.is_some()
            && let Some(root) = documents.get(&RoleName::Root)
        {
            // What an earlier collection of this name left would contradict the new root; and a
            // root that is signed must not be lost: the next run publishes it again, unchanged.
            self.cache.forget_all_but_root()?;
            self.cache.save([(&RoleName::Root, root.as_slice())])?;
        }
        self.upload(ctx, documents, done).await
    }

    async fn upload(
        &mut self,
        ctx: &mut Context,
        documents: BTreeMap<RoleName, Vec<u8>>,
        done: Done,
    ) -> Result<Outcome, Failure> {
        match self.server.upload(&documents).await {
            Ok(()) => {
                self.report(ctx, Reported::Published, 200, String::new())
                    .await;
                self.remember(ctx, &documents);
                Ok(Outcome::Done(done))
            }
            Err(error) if error.is_version_race() => {
                let message = error.to_string();
                self.report(ctx, Reported::Rejected, error.status(), message.clone())
                    .await;
                Ok(Outcome::Again(Again::Race(message)))
            }
            Err(error) if error.is_unsure() => {
                if self.has_arrived(&documents).await {
                    ctx.ui
                        .warn(format_args!("{error}; but the change is published"));
                    self.report(ctx, Reported::Published, error.status(), error.to_string())
                        .await;
                    return Ok(Outcome::Done(done));
                }
                self.report(ctx, Reported::Unknown, error.status(), error.to_string())
                    .await;
                Err(Failure::from(error)
                    .fix("run the command again: what did not arrive is then signed anew"))
            }
            Err(error) => {
                self.report(ctx, Reported::Rejected, error.status(), error.to_string())
                    .await;
                Err(explain(error, documents.contains_key(&RoleName::Snapshot)))
            }
        }
    }

    /// Whether the server has exactly these documents after an answer that says nothing.
    async fn has_arrived(&self, documents: &BTreeMap<RoleName, Vec<u8>>) -> bool {
        self.server.bypass_caches();
        let wanted = Wanted {
            pin: Pin::FirstUse,
            for_write: true,
            chain_from: None,
        };
        let current = update::fetch(self.server, &self.cache, self.image, wanted).await;
        let Ok(Current::Published(trusted)) = current else {
            return false;
        };
        documents.iter().all(|(role, wire)| match role {
            RoleName::Root => trusted.root().wire() == wire,
            RoleName::Snapshot => trusted.snapshot.wire() == wire,
            RoleName::Timestamp => false,
            role => trusted
                .targets
                .get(role)
                .is_some_and(|document| document.wire() == wire),
        })
    }

    /// Tells the agent. What the server did stays done, so a lost agent is a warning.
    async fn report(
        &mut self,
        ctx: &mut Context,
        outcome: Reported,
        http_status: u16,
        message: String,
    ) {
        let result = match &mut self.session {
            Some(session) => session.report(ctx, outcome, http_status, message).await,
            None => Err(closed()),
        };
        if let Err(failure) = result {
            self.session = None;
            ctx.ui.warn(format_args!(
                "the agent did not take down the server's answer: {failure}"
            ));
        }
    }

    /// What the server took need not be fetched again by the next run.
    fn remember(&self, ctx: &Context, documents: &BTreeMap<RoleName, Vec<u8>>) {
        let targets = documents
            .iter()
            .filter(|(role, _)| role.is_targets_like())
            .map(|(role, wire)| (role, wire.as_slice()));
        if let Err(failure) = self.cache.save(targets) {
            ctx.ui.warn(failure);
        }
    }
}

fn closed() -> Failure {
    Failure::new(
        exit::NO_AGENT,
        "agent_gone",
        "the connection to the agent is closed",
    )
}

/// The server's refusal; a missing snapshot is told from the rest, because it has a way out.
fn explain(error: NetError, had_snapshot: bool) -> Failure {
    let text = error.to_string();
    let lacks_snapshot = !had_snapshot
        && ["no snapshot was included", "key not found", "NotFound"]
            .iter()
            .any(|words| text.contains(words));
    let failure = Failure::from(error);
    if lacks_snapshot {
        failure.fix(
            "the snapshot key of this repository is neither here nor at the server: \
             bring it here with `signet key import`, or let its holder hand it to the server \
             (`notary key rotate GUN snapshot -r`)",
        )
    } else {
        failure
    }
}
