//! The signature log, as it was written.

use std::{pin::Pin, sync::Arc};

use signet_proto::v1::{LogEntry, LogRequest, log_server::Log};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Shared, status::status};
use crate::ledger::Entry;

/// Entries read from the ledger at a time.
const PAGE: u64 = 256;

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
}

fn encode(entry: Entry) -> LogEntry {
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
    }
}
