//! `signet grant`: approvals beforehand, given, listed and revoked.

use serde_json::{Value, json};
use signet_proto::v1::{
    GrantInfo, GrantRequest, GrantStart, GrantsRequest, RevokeRequest, grant_event::Event,
    grant_request::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Context,
    agent::prompt,
    args::{GrantArgs, GrantCommand, GrantRevokeArgs},
    failure::{Failure, exit},
    ui::text::{columns, escape, local_time, rfc3339},
};

/// Gives a grant, or runs one of the verbs.
pub(crate) async fn run(args: GrantArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        None => give(args, ctx).await,
        Some(GrantCommand::List) => list(ctx).await,
        Some(GrantCommand::Revoke(args)) => revoke(args, ctx).await,
    }
}

async fn give(args: GrantArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let (send, requests) = mpsc::channel(2);
    let request = |message| GrantRequest {
        message: Some(message),
    };
    let start = GrantStart {
        here: args.digest.is_empty(),
        digests: args.digest.iter().map(|one| one.0.to_vec()).collect(),
        seconds: args.duration.unwrap_or(0),
        gun: args.gun.unwrap_or_default(),
        prompt_mode: ctx.prompt_mode().into(),
    };
    // The receiver is alive: it is moved into the call below.
    let _ = send.send(request(Message::Start(start))).await;
    let mut events = agent
        .presence()
        .grant(ReceiverStream::new(requests))
        .await?
        .into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Prompt(prompt)) => {
                let answer = prompt::answer(ctx, prompt).await?;
                // When the agent has ended the call meanwhile, its status says why.
                let _ = send.send(request(Message::Answer(answer))).await;
            }
            Some(Event::Done(grant)) => {
                if ctx.ui.is_json() {
                    let mut object = to_json(&grant);
                    object["v"] = 1.into();
                    ctx.ui.json(&object);
                } else {
                    ctx.ui.say(words(&grant));
                }
                return Ok(());
            }
            None => {}
        }
    }
    Err(Failure::new(
        exit::NO_AGENT,
        "agent_gone",
        "the agent ended the call without a result",
    )
    .fix("`signet grant list` says whether it stands"))
}

async fn list(ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let reply = agent.presence().grants(GrantsRequest {}).await?;
    let grants = reply.into_inner().grants;
    if ctx.ui.is_json() {
        let grants: Vec<Value> = grants.iter().map(to_json).collect();
        ctx.ui.json(&json!({ "v": 1, "grants": grants }));
        return Ok(());
    }
    if grants.is_empty() {
        ctx.ui.say("no grant stands");
    }
    for line in table(&grants) {
        ctx.ui.data(line);
    }
    Ok(())
}

async fn revoke(args: GrantRevokeArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let id = args.id.unwrap_or_default();
    let request = RevokeRequest { id: id.clone() };
    let reply = agent.presence().revoke(request).await?;
    let revoked = reply.into_inner().revoked;
    if revoked == 0 && !args.all {
        return Err(Failure::new(
            exit::USAGE,
            "unknown_grant",
            format!("no grant {id} stands"),
        )
        .fix("`signet grant list` shows those that do"));
    }
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({ "v": 1, "revoked": revoked }));
        return Ok(());
    }
    ctx.ui.say(match revoked {
        0 => "no grant stood".to_owned(),
        1 => "1 grant ended".to_owned(),
        count => format!("{count} grants ended"),
    });
    Ok(())
}

/// A grant in one line.
fn words(grant: &GrantInfo) -> String {
    let of = match grant.gun.as_str() {
        "" => "every repository".to_owned(),
        gun => escape(gun),
    };
    format!(
        "grant {}: {}, {of}, until {}",
        escape(&grant.id),
        escape(&grant.what),
        local_time(grant.until)
    )
}

/// Grants, one a line below a head; nothing for none.
pub(crate) fn table(grants: &[GrantInfo]) -> Vec<String> {
    if grants.is_empty() {
        return Vec::new();
    }
    let head = ["GRANT", "FOR", "REPOSITORIES", "UNTIL", "USED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(grants.iter().map(|grant| {
        vec![
            escape(&grant.id),
            escape(&grant.what),
            match grant.gun.as_str() {
                "" => "all".to_owned(),
                gun => escape(gun),
            },
            local_time(grant.until),
            grant.used.to_string(),
        ]
    }));
    columns(&rows)
}

/// A grant as scripts see it.
pub(crate) fn to_json(grant: &GrantInfo) -> Value {
    let digests = grant.digests.iter().map(|one| format!("sha256:{one}"));
    json!({
        "id": grant.id,
        "what": grant.what,
        "gun": (!grant.gun.is_empty()).then_some(&grant.gun),
        "given": rfc3339(grant.given_at),
        "until": rfc3339(grant.until),
        "used": grant.used,
        "digests": digests.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_for_whom_for_what_and_until_when() {
        let grant = GrantInfo {
            id: "1f2e3d4c".into(),
            what: "callers of pts/3\x1b[2J".into(),
            until: 1_800_000_900,
            given_at: 1_800_000_000,
            ..GrantInfo::default()
        };
        let line = words(&grant);
        assert!(
            line.starts_with("grant 1f2e3d4c: callers of pts/3"),
            "{line}"
        );
        assert!(line.contains("every repository") && !line.contains('\x1b'));
        assert_eq!(table(std::slice::from_ref(&grant)).len(), 2);
        assert!(table(&[]).is_empty());
        let mut json = to_json(&grant);
        json["v"] = 1.into();
        crate::schema::assert_fits("signet grant", &json);
        crate::schema::assert_fits("signet grant list", &json!({ "v": 1, "grants": [json] }));
    }
}
