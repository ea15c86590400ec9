//! `signet status`: one screen.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use signet_proto::v1::{AttendantInfo, CollectionInfo, ListKeysReply, StatusReply, StatusRequest};

use super::{card, grant, key};
use crate::{
    Context,
    collection::server::configured_servers,
    failure::Failure,
    ui::text::{columns, escape, local_time, rfc3339, span},
};

/// Expiries nearer than this are shown.
const SOON: i64 = 90 * 86_400;

/// Shows agent, keys, expiries and warnings.
pub(crate) async fn run(ctx: &mut Context) -> Result<(), Failure> {
    // Whatever answers is worth showing, even when it serves another home.
    let agent = match ctx.running_agent().await? {
        Some(agent) => agent,
        None => ctx.agent().await?,
    };
    let status = agent.daemon().status(StatusRequest {}).await?.into_inner();
    let keys = agent.list_keys(ctx.docker_dir()).await?;
    if ctx.ui.is_json() {
        ctx.ui.json(&to_json(ctx, &status, &keys));
    } else {
        print(ctx, &status, &keys);
    }
    Ok(())
}

/// The trust server that applies, where one is set for every registry.
fn server(ctx: &Context) -> Option<String> {
    let variable = || std::env::var("DOCKER_CONTENT_TRUST_SERVER").ok();
    ctx.globals
        .server
        .clone()
        .or_else(variable)
        .filter(|server| !server.is_empty())
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn expires_soon(collection: &CollectionInfo, now: i64) -> bool {
    collection.expires != 0 && collection.expires < now.saturating_add(SOON)
}

/// Warnings of the agent, and those that only the command can see.
fn warnings(ctx: &Context, status: &StatusReply) -> Vec<String> {
    let mut all = status.warnings.clone();
    let home = status.agent.as_ref().map_or("", |agent| &agent.home);
    let own = ctx
        .places
        .home
        .canonicalize()
        .unwrap_or_else(|_| ctx.places.home.clone());
    if std::path::Path::new(home) != ctx.places.home && std::path::Path::new(home) != own {
        all.push(format!(
            "the agent that answers serves {home}, but this command's home is {}; other commands \
             will refuse",
            ctx.places.home.display()
        ));
    }
    all
}

fn print(ctx: &Context, status: &StatusReply, keys: &ListKeysReply) {
    let now = now();
    let agent = status.agent.clone().unwrap_or_default();
    let keyring = match (status.keyring_exists, status.unlocked) {
        (false, _) => "none yet; made with the first key".to_owned(),
        (true, false) => "locked".to_owned(),
        (true, true) => format!(
            "unlocked until {} ({})",
            local_time(status.unlocked_until),
            span(status.unlocked_until.saturating_sub(now))
        ),
    };
    let servers = match server(ctx) {
        Some(server) => server,
        None => configured_servers(ctx)
            .into_iter()
            .map(|(registry, url)| format!("{url} for {registry}"))
            .chain(["the one of each registry".to_owned()])
            .collect::<Vec<_>>()
            .join("; else "),
    };
    let mut rows = vec![
        vec![
            "agent".into(),
            format!(
                "signetd {}, pid {}, for {}",
                escape(&agent.version),
                agent.pid,
                span(now.saturating_sub(status.started_at))
            ),
        ],
        vec!["home".into(), escape(&agent.home)],
        vec!["docker keys".into(), escape(&agent.docker_dir)],
        vec!["keyring".into(), keyring],
        vec!["new keys go to".into(), escape(&status.default_store)],
        vec!["trust server".into(), escape(&servers)],
        vec![
            "log".into(),
            match status.log_entries {
                0 => "empty".into(),
                count => {
                    let head = hex::encode(&status.log_head);
                    let head = head.get(..16).unwrap_or(&head);
                    let entries = if count == 1 { "entry" } else { "entries" };
                    format!("{count} {entries}, head {head}")
                }
            },
        ],
    ];
    for collection in status
        .collections
        .iter()
        .filter(|one| expires_soon(one, now))
    {
        let left = collection.expires.saturating_sub(now);
        let when = if left < 0 {
            format!("expired {} ago", span(-left))
        } else {
            format!("in {}, {}", span(left), local_time(collection.expires))
        };
        let role = escape(&collection.expires_role);
        rows.push(vec![
            "expires".into(),
            format!("{} {role}: {when}", escape(&collection.gun)),
        ]);
    }
    for attendant in &status.attendants {
        rows.push(vec!["attends".into(), attends(attendant, now)]);
    }
    for line in columns(&rows) {
        ctx.ui.data(line);
    }
    if !keys.keys.is_empty() {
        ctx.ui.data("");
    }
    for line in key::table(&keys.keys) {
        ctx.ui.data(line);
    }
    if !status.cards.is_empty() {
        ctx.ui.data("");
    }
    for line in card::table(&status.cards) {
        ctx.ui.data(line);
    }
    if !status.grants.is_empty() {
        ctx.ui.data("");
    }
    for line in grant::table(&status.grants) {
        ctx.ui.data(line);
    }
    // Facts like the others here: on stdout, unlike warnings beside other work.
    let warnings = warnings(ctx, status);
    let mut problems = key::problems(&keys.keys, &keys.problems);
    problems.extend(card::warnings(&status.cards));
    problems.extend(status.card_problems.iter().cloned());
    if !warnings.is_empty() || !problems.is_empty() {
        ctx.ui.data("");
    }
    for warning in problems.into_iter().chain(warnings) {
        ctx.ui.data(format_args!("warning: {}", escape(&warning)));
    }
}

/// Who answers for requests, in one line.
fn attends(who: &AttendantInfo, now: i64) -> String {
    let terminal = match who.terminal.as_str() {
        "" => String::new(),
        terminal => format!(" on {}", escape(terminal)),
    };
    format!(
        "{}, pid {}{terminal}, for {}",
        escape(&who.exe),
        who.pid,
        span(now.saturating_sub(who.since).max(0))
    )
}

/// The same as scripts see it.
pub(crate) fn attendant(who: &AttendantInfo) -> Value {
    json!({
        "pid": who.pid,
        "exe": who.exe,
        "terminal": (!who.terminal.is_empty()).then_some(&who.terminal),
        "since": rfc3339(who.since),
    })
}

fn to_json(ctx: &Context, status: &StatusReply, keys: &ListKeysReply) -> Value {
    let agent = status.agent.clone().unwrap_or_default();
    json!({
        "v": 1,
        "agent": {
            "version": agent.version,
            "pid": agent.pid,
            "home": agent.home,
            "docker_dir": agent.docker_dir,
            "socket": ctx.places.socket.display().to_string(),
            "started": rfc3339(status.started_at),
        },
        "keyring": {
            "exists": status.keyring_exists,
            "unlocked": status.unlocked,
            "until": rfc3339(status.unlocked_until),
            "same_passphrase": status.same_passphrase,
        },
        "default_store": status.default_store,
        "server": server(ctx),
        "servers": configured_servers(ctx).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "keys": keys.keys.iter().map(key::to_json).collect::<Vec<_>>(),
        "cards": status.cards.iter().map(card::to_json).collect::<Vec<_>>(),
        "card_problems": status.card_problems,
        "problems": keys.problems,
        "collections": status.collections.iter().map(|one| json!({
            "gun": one.gun,
            "lineage": hex::encode(&one.lineage),
            "published": one.published,
            "expires": rfc3339(one.expires),
            "expires_role": (!one.expires_role.is_empty()).then_some(&one.expires_role),
        })).collect::<Vec<_>>(),
        "log": { "entries": status.log_entries, "head": hex::encode(&status.log_head) },
        "attendants": status.attendants.iter().map(attendant).collect::<Vec<_>>(),
        "grants": status.grants.iter().map(grant::to_json).collect::<Vec<_>>(),
        "warnings": warnings(ctx, status),
    })
}
