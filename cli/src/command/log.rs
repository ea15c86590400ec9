//! `signet log`: the signature log, shown, verified and taken out.

mod export;
mod verify;

use serde_json::{Value, json};
use signet_proto::v1::{LogEntry, LogRequest};

use crate::{
    Context,
    args::{LogArgs, LogCommand, LogShowArgs},
    failure::Failure,
    ui::text::{escape, local_time, rfc3339, short_id},
};

/// Runs one of the verbs.
pub(crate) async fn run(args: LogArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        LogCommand::Show(args) => show(&args, ctx).await,
        LogCommand::Verify(args) => verify::run(&args, ctx).await,
        LogCommand::Export(args) => export::run(&args, ctx).await,
    }
}

async fn show(args: &LogShowArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let request = LogRequest {
        from: args.from.unwrap_or(0),
        count: args.last.unwrap_or(0),
        newest: args.last.is_some(),
    };
    if args.last == Some(0) {
        return finish(ctx, Vec::new());
    }
    let mut entries = agent.log().show(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(entry) = entries.message().await? {
        if ctx.ui.is_json() {
            all.push(to_json(&entry));
        } else {
            for line in lines(&entry) {
                ctx.ui.data(line);
            }
        }
    }
    finish(ctx, all)
}

fn finish(ctx: &Context, entries: Vec<Value>) -> Result<(), Failure> {
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({ "v": 1, "entries": entries }));
    }
    Ok(())
}

/// One line of facts, then the summary, indented.
fn lines(entry: &LogEntry) -> Vec<String> {
    let mut line = format!(
        "{:>6}  {}  {}",
        entry.number,
        local_time(entry.time),
        entry.kind
    );
    let mut add = |text: String| {
        line.push(' ');
        line.push_str(&text);
    };
    if !entry.gun.is_empty() {
        add(escape(&entry.gun));
    }
    if !entry.role.is_empty() {
        add(escape(&entry.role));
    }
    if entry.version != 0 {
        add(format!("v{}", entry.version));
    }
    if !entry.key_id.is_empty() {
        add(format!("key {}", short_id(&entry.key_id)));
    }
    if !entry.rule.is_empty() {
        add(format!("rule {}", escape(&entry.rule)));
    }
    if !entry.outcome.is_empty() {
        add(format!("[{}]", escape(&entry.outcome)));
    }
    let mut all = vec![line];
    all.extend(
        entry
            .summary
            .lines()
            .map(|line| format!("        {}", escape(line))),
    );
    if !entry.caller.is_empty() {
        all.push(format!("        by {}", escape(&entry.caller)));
    }
    all
}

/// An entry as scripts see it.
pub(crate) fn to_json(entry: &LogEntry) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "number": entry.number,
        "time": rfc3339(entry.time),
        "kind": entry.kind,
        "gun": text(&entry.gun),
        "role": text(&entry.role),
        "version": (entry.version != 0).then_some(entry.version),
        "key": text(&entry.key_id),
        "payload": (!entry.payload_sha256.is_empty())
            .then(|| format!("sha256:{}", hex::encode(&entry.payload_sha256))),
        "summary": entry.summary.lines().collect::<Vec<_>>(),
        "caller": text(&entry.caller),
        "grade": (entry.grade != 0).then_some(entry.grade),
        "outcome": text(&entry.outcome),
        "rule": text(&entry.rule),
        "facts": serde_json::from_str::<Value>(&entry.facts).unwrap_or_default(),
        "hash": hex::encode(&entry.hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_a_line_and_its_summary() {
        let entry = LogEntry {
            number: 7,
            kind: "sign".into(),
            gun: "reg/app".into(),
            role: "targets".into(),
            version: 9,
            key_id: "ab".repeat(32),
            summary: "reg/app: targets v8 → v9\n  + 1.2".into(),
            ..LogEntry::default()
        };
        let lines = lines(&entry);
        assert!(
            lines[0].ends_with("sign reg/app targets v9 key ababababab"),
            "{lines:?}"
        );
        assert_eq!(lines[2], "          + 1.2");
        let json = to_json(&entry);
        let shown = json!({ "v": 1, "entries": [json.clone()] });
        crate::schema::assert_fits("signet log show", &shown);
        assert_eq!(json["summary"][1], "  + 1.2");
        assert_eq!(json["rule"], Value::Null);
    }
}
