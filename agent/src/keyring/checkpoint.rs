//! When checkpoints of the log are made, and who is told of them.
//!
//! One is made after an unlock, before a lock, with every backup, and every 1,000 entries; signed
//! by the log key while the keyring is held, unsigned otherwise. It is kept in the ledger, and told
//! to the witnesses: the system's journal and `log.witness`. Nothing that fails here fails a
//! request: what was signed is recorded already.

use std::sync::atomic::Ordering;

use super::{Fault, Keyring};
use crate::{
    ledger::checkpoint::{self, Checkpoint, Seal, Verified},
    service::now,
};

pub(crate) mod witness;

/// Entries between two checkpoints, at most.
const EVERY: u64 = 1000;

impl Keyring {
    /// Makes a checkpoint and tells the witnesses; `None` while the log is empty.
    pub(crate) async fn checkpoint(&self) -> Result<Option<Checkpoint>, Fault> {
        let (entry, head) = self.log_head().await?;
        if entry == 0 {
            return Ok(None);
        }
        let time = now();
        let message = Checkpoint::message(entry, &head, time);
        let signed = self
            .file
            .run(move |store| store.sign_checkpoint(&message))
            .await?;
        let checkpoint = Checkpoint {
            entry,
            head,
            time,
            seal: signed.map(|signed| Seal {
                public: signed.public,
                signature: signed.signature,
            }),
        };
        let kept = checkpoint.clone();
        self.recorder.run(move |ledger| ledger.keep(&kept)).await?;
        self.checkpointed.fetch_max(entry, Ordering::Relaxed);
        let (witnesses, line) = (self.witnesses.clone(), checkpoint.to_line());
        tokio::task::spawn_blocking(move || witnesses.tell(&line));
        Ok(Some(checkpoint))
    }

    /// As [`Keyring::checkpoint`], for those who have nobody to tell that it failed.
    pub(super) async fn checkpoint_anyway(&self) {
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(%error, "no checkpoint of the log was made");
        }
    }

    /// Makes one if entry `last` is far enough behind the newest.
    pub(super) async fn checkpoint_if_due(&self, last: u64) {
        if last / EVERY > self.checkpointed.load(Ordering::Relaxed) / EVERY {
            // Others that come meanwhile need not make it too.
            self.checkpointed.fetch_max(last, Ordering::Relaxed);
            self.checkpoint_anyway().await;
        }
    }

    /// Checkpoints kept in the ledger, from entry `from` on, at most `count`.
    pub(crate) async fn checkpoints(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Vec<Checkpoint>, Fault> {
        self.recorder
            .run(move |ledger| ledger.checkpoints(from, count))
            .await
    }

    /// Computes the whole chain anew and compares it with these checkpoints.
    pub(crate) async fn verify_log(
        &self,
        home: &std::path::Path,
        against: Vec<Checkpoint>,
    ) -> Result<Verified, Fault> {
        let home = home.to_owned();
        tokio::task::spawn_blocking(move || checkpoint::verify(&home, &against))
            .await
            .map_err(|_| Fault::Internal("the verification of the log panicked"))?
            .map_err(Fault::from)
    }
}
