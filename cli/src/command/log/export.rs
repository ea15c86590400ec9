//! `signet log export`: every entry and checkpoint as lines of JSON.
//!
//! What is written suffices to verify the chain without Signet: `docs/log-format.md`. A file is
//! written whole or not at all; the last line says how many entries there are, so that a cut one is
//! noticed.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::{Value, json};
use signet_proto::v1::{CheckpointsRequest, LogEntry, LogRequest};

use super::to_json;
use crate::{Context, args::LogExportArgs, failure::Failure, new_file::NewFile};

/// Writes the log.
pub(super) async fn run(args: &LogExportArgs, ctx: &mut Context) -> Result<(), Failure> {
    let Some(path) = &args.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        let failed = |error| Failure::file("write", Path::new("standard output"), error);
        write_all(ctx, &mut out, &failed).await?;
        return out.flush().map_err(failed);
    };
    let failed = |error| Failure::file("write", path, error);
    let mut new = NewFile::begin(path)?;
    let mut out = BufWriter::new(new.file());
    let entries = write_all(ctx, &mut out, &failed).await?;
    out.flush().map_err(failed)?;
    drop(out);
    new.keep()?;
    if ctx.ui.is_json() {
        ctx.ui
            .json(&json!({ "v": 1, "entries": entries, "file": path }));
    } else {
        ctx.ui.say(format_args!(
            "{entries} entries written to {}",
            path.display()
        ));
    }
    Ok(())
}

/// Entries, checkpoints, and the last line; how many entries.
async fn write_all(
    ctx: &mut Context,
    out: &mut impl Write,
    failed: &impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let agent = ctx.agent().await?;
    // Checkpoints first: each is of an entry that the log has by then.
    let mut checkpoints = Vec::new();
    let mut lines = agent
        .log()
        .checkpoints(CheckpointsRequest {})
        .await?
        .into_inner();
    while let Some(checkpoint) = lines.message().await? {
        checkpoints.push(checkpoint.line);
    }
    let mut entries = agent.log().show(LogRequest::default()).await?.into_inner();
    let (mut last, mut head) = (0, vec![0; 32]);
    while let Some(entry) = entries.message().await? {
        writeln!(out, "{}", line(&entry)).map_err(failed)?;
        (last, head) = (entry.number, entry.hash);
    }
    for checkpoint in checkpoints {
        writeln!(out, "{checkpoint}").map_err(failed)?;
    }
    let end = json!({ "v": 1, "end": { "entries": last, "head": hex::encode(head) } });
    writeln!(out, "{end}").map_err(failed)?;
    Ok(last)
}

/// As `log show --json` has it, but for the summary, which is the text that was hashed.
fn line(entry: &LogEntry) -> Value {
    let mut line = to_json(entry);
    line["v"] = json!(1);
    line["summary"] = json!(entry.summary);
    line
}
