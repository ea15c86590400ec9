//! `signet unlock`.

use serde_json::json;
use signet_proto::v1::{UnlockRequest, UnlockStart, unlock_event::Event, unlock_request::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Context,
    agent::prompt,
    args::UnlockArgs,
    failure::{Failure, exit},
    ui::text::{local_time, rfc3339},
};

/// Opens the keyring for a fixed time.
pub(crate) async fn run(args: UnlockArgs, ctx: &mut Context) -> Result<(), Failure> {
    let agent = ctx.agent().await?;
    let (send, requests) = mpsc::channel(2);
    let request = |message| UnlockRequest {
        message: Some(message),
    };
    let start = UnlockStart {
        seconds: args.duration.unwrap_or(0),
        here: args.here,
        prompt_mode: ctx.prompt_mode().into(),
    };
    // The receiver is alive: it is moved into the call below.
    let _ = send.send(request(Message::Start(start))).await;
    let mut events = agent
        .daemon()
        .unlock(ReceiverStream::new(requests))
        .await?
        .into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Prompt(prompt)) => {
                let answer = prompt::answer(ctx, prompt).await?;
                // When the agent has ended the call meanwhile, its status says why.
                let _ = send.send(request(Message::Answer(answer))).await;
            }
            Some(Event::Done(done)) => {
                if ctx.ui.is_json() {
                    ctx.ui
                        .json(&json!({ "v": 1, "until": rfc3339(done.until) }));
                } else {
                    let whom = if args.here {
                        " for this terminal session"
                    } else {
                        ""
                    };
                    ctx.ui.say(format_args!(
                        "unlocked{whom} until {}",
                        local_time(done.until)
                    ));
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
    ))
}
