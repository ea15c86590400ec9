//! `signet policy explain`: which rule would decide, and why.

use serde_json::json;
use signet_proto::v1::ExplainRequest;

use crate::{
    Context,
    args::{PolicyArgs, PolicyCommand, PolicyExplainArgs},
    failure::Failure,
    ui::text::escape,
};

/// Runs one of the verbs.
pub(crate) async fn run(args: PolicyArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        PolicyCommand::Explain(args) => explain(args, ctx).await,
    }
}

async fn explain(args: PolicyExplainArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let request = ExplainRequest {
        gun: args.gun,
        role: args.role,
        key: args.key.unwrap_or_default(),
        payload: args.payload.unwrap_or_default(),
        exe: args.exe.unwrap_or_default(),
        unit: args.unit.unwrap_or_default(),
        overrides: args.overrides,
    };
    let reply = agent.daemon().explain(request).await?.into_inner();
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({
            "v": 1,
            "rule": (!reply.rule.is_empty()).then_some(&reply.rule),
            "verdict": reply.verdict,
            "grade": reply.grade,
            "confirm": reply.confirm,
            "why": reply.why,
        }));
        return Ok(());
    }
    let confirm = match reply.confirm {
        true => ", and a yes on top of it",
        false => "",
    };
    ctx.ui.data(format_args!(
        "{}: {}{confirm}",
        escape(&reply.verdict),
        escape(&reply.why)
    ));
    Ok(())
}
