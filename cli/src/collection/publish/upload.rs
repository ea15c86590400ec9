//! From signed documents to the server's answer, and the report to the agent.

use signet_proto::v1::report::Outcome as Reported;
use signet_trust::{KeyId, RoleName, edit::Edit, update::Trusted};

use super::{Again, Done, Outcome, Run, unexpected};
use crate::{
    Context,
    collection::{
        session::Said,
        update::{self, Before},
    },
    failure::{Failure, exit},
    net::{NetError, multipart::Upload},
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
        self.upload(ctx, Upload::of(documents)?, done).await
    }

    async fn upload(
        &mut self,
        ctx: &mut Context,
        upload: Upload,
        mut done: Done,
    ) -> Result<Outcome, Failure> {
        let error = match self.server.upload(&upload).await {
            Ok(()) => {
                self.report(ctx, Reported::Published, 200, String::new())
                    .await;
                done.documents = upload.documents;
                return Ok(Outcome::Done(done));
            }
            Err(error) => error,
        };
        let outcome = if error.is_unsure() {
            Reported::Unknown
        } else {
            Reported::Rejected
        };
        self.report(ctx, outcome, error.status(), error.to_string())
            .await;
        if error.is_version_race() {
            return Ok(Outcome::Again(Again::Race(error.to_string())));
        }
        // Its own reason against a root of an earlier run: it does not hold the keys named there.
        let is_its_own = matches!(error, NetError::Refused { status: 400, .. });
        if std::mem::take(&mut self.resuming) && is_its_own {
            ctx.ui.warn(&error);
            self.resume_failed = true;
            return Ok(Outcome::Again(Again::Anew));
        }
        if error.is_unsure() {
            return Err(Failure::from(error).fix(
                "whether the change has arrived is not known: run the command again, \
                 what did not arrive is then signed anew",
            ));
        }
        Err(explain(
            error,
            upload.documents.contains_key(&RoleName::Snapshot),
        ))
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

    /// Saves what was fetched, and what the server took, for the next run.
    pub(super) fn remember(
        &self,
        ctx: &Context,
        outcome: &Outcome,
        before: &Before,
        trusted: &Trusted,
    ) {
        let Outcome::Done(done) = outcome else { return };
        if let Err(failure) = update::save(&self.cache, before, trusted, &done.documents) {
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
