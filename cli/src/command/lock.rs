//! `signet lock`.

use serde_json::json;
use signet_proto::v1::LockRequest;

use crate::{Context, failure::Failure};

/// Has the agent forget every held secret; without an agent there is none.
pub(crate) async fn run(ctx: &mut Context) -> Result<(), Failure> {
    let was_unlocked = match ctx.running_agent().await? {
        Some(agent) => {
            agent
                .daemon()
                .lock(LockRequest {})
                .await?
                .into_inner()
                .was_unlocked
        }
        None => false,
    };
    if ctx.ui.is_json() {
        ctx.ui
            .json(&json!({ "v": 1, "was_unlocked": was_unlocked }));
    } else {
        ctx.ui.say(if was_unlocked {
            "locked"
        } else {
            "locked (nothing was held)"
        });
    }
    Ok(())
}
