//! The signature log, as it was written.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{
    CheckedCheckpoint, CheckpointsRequest, LogCheckpoint, LogEntry, LogRequest, LogVerifyReply,
    LogVerifyRequest, log_server::Log,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Shared, status::status};
use crate::{
    keyring::Fault,
    ledger::{Entry, checkpoint::Checkpoint},
};

/// Entries read from the ledger at a time.
const PAGE: u64 = 256;
/// Checkpoints that a verification takes, of the request and of the witness file each.
const MAX_AGAINST: usize = 4096;

#[derive(Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }
}

#[tonic::async_trait]
impl Log for Service {
    type ShowStream = Pin<Box<dyn Stream<Item = Result<LogEntry, Status>> + Send>>;

    async fn show(
        &self,
        request: Request<LogRequest>,
    ) -> Result<Response<Self::ShowStream>, Status> {
        let LogRequest {
            from,
            count,
            newest,
        } = request.into_inner();
        let shared = Arc::clone(&self.shared);
        let (head, _) = shared
            .keyring
            .log_head()
            .await
            .map_err(|fault| status(&fault))?;
        let count = if count == 0 { u64::MAX } else { count };
        let from = if newest {
            head.saturating_sub(count.saturating_sub(1)).max(1)
        } else {
            from.max(1)
        };
        let (sender, entries) = mpsc::channel(16);
        tokio::spawn(async move {
            let end = from.saturating_add(count).min(head.saturating_add(1));
            let mut next = from;
            while next < end {
                let page = shared.keyring.log_entries(next, PAGE.min(end - next)).await;
                let page = match page {
                    Ok(page) if page.is_empty() => return,
                    Ok(page) => page,
                    Err(fault) => {
                        // A reader that is gone needs no reason.
                        let _ = sender.send(Err(status(&fault))).await;
                        return;
                    }
                };
                for entry in page {
                    next = entry.number + 1;
                    if sender.send(Ok(encode(entry))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(entries))))
    }

    type CheckpointsStream = Pin<Box<dyn Stream<Item = Result<LogCheckpoint, Status>> + Send>>;

    async fn checkpoints(
        &self,
        _: Request<CheckpointsRequest>,
    ) -> Result<Response<Self::CheckpointsStream>, Status> {
        let shared = Arc::clone(&self.shared);
        let (sender, checkpoints) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut next = 0;
            loop {
                let page = match shared.keyring.checkpoints(next, PAGE).await {
                    Ok(page) => page,
                    Err(fault) => {
                        // A reader that is gone needs no reason.
                        let _ = sender.send(Err(status(&fault))).await;
                        return;
                    }
                };
                // Of one entry there may be several, by several keys: never cut between them.
                let full = page.len() as u64 == PAGE;
                let last = page.last().map_or(0, |checkpoint| checkpoint.entry);
                let cut = page.first().is_some_and(|first| full && first.entry < last);
                for checkpoint in page {
                    if cut && checkpoint.entry == last {
                        break;
                    }
                    let line = checkpoint.to_line();
                    if sender.send(Ok(LogCheckpoint { line })).await.is_err() {
                        return;
                    }
                }
                if !full {
                    return;
                }
                next = if cut { last } else { last + 1 };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(checkpoints))))
    }

    async fn verify(
        &self,
        request: Request<LogVerifyRequest>,
    ) -> Result<Response<LogVerifyReply>, Status> {
        let LogVerifyRequest { against } = request.into_inner();
        if against.len() > MAX_AGAINST {
            let many = format!("more than {MAX_AGAINST} checkpoints to verify against");
            return Err(status(&Fault::Malformed(many)));
        }
        let witnesses = self.shared.keyring.witnesses().clone();
        let read = tokio::task::spawn_blocking(move || witnesses.lines()).await;
        let (lines, witness_problem) = match read {
            Ok(Ok(lines)) => (lines, String::new()),
            Ok(Err(error)) => (Vec::new(), error.to_string()),
            Err(_) => (Vec::new(), "reading it panicked".to_owned()),
        };
        let witness: Vec<String> = lines
            .into_iter()
            .filter(|line| line.starts_with(CHECKPOINT))
            .collect();
        let older = witness.len().saturating_sub(MAX_AGAINST);
        let witness = witness.into_iter().skip(older);
        let given = against.len();
        let mut checked: Vec<(String, Result<Checkpoint, String>)> = against
            .into_iter()
            .chain(witness)
            .map(|line| {
                let parsed = Checkpoint::parse(&line).map_err(|error| error.to_string());
                (line, parsed)
            })
            .collect();
        let sound = checked.iter().filter_map(|(_, read)| read.clone().ok());
        let verified = self
            .shared
            .keyring
            .verify_log(&self.shared.home, sound.collect())
            .await
            .map_err(|fault| status(&fault))?;
        let mut judged = verified.against.into_iter();
        let mut answers: Vec<CheckedCheckpoint> = checked
            .drain(..)
            .map(|(line, read)| CheckedCheckpoint {
                line,
                problem: match read {
                    Err(why) => why,
                    Ok(_) => judged.next().flatten().unwrap_or_default(),
                },
            })
            .collect();
        let witness = answers.split_off(given);
        Ok(Response::new(LogVerifyReply {
            entries: verified.entries,
            head: verified.head.to_vec(),
            problem: verified.problem.unwrap_or_default(),
            own: verified.own,
            own_problem: verified.own_problem.unwrap_or_default(),
            newest_own: verified
                .newest_own
                .map(|checkpoint| checkpoint.to_line())
                .unwrap_or_default(),
            against: answers,
            witness,
            witness_problem,
        }))
    }
}

/// How the line of a checkpoint begins.
const CHECKPOINT: &str = "{\"checkpoint\":";

pub(super) fn encode(entry: Entry) -> LogEntry {
    let Entry {
        number,
        entry,
        hash,
        ..
    } = entry;
    LogEntry {
        number,
        time: entry.time,
        kind: entry.kind.to_owned(),
        gun: entry.gun,
        role: entry.role,
        version: entry.version,
        key_id: entry.key.map(|id| id.to_string()).unwrap_or_default(),
        payload_sha256: entry.payload.map(Vec::from).unwrap_or_default(),
        summary: entry.summary,
        caller: entry.caller,
        grade: entry.grade,
        outcome: entry.outcome,
        hash: hash.to_vec(),
        rule: entry.rule,
        facts: entry.facts,
    }
}
