//! One change to keys or keyrings: the request, the agent's questions, the result.

use signet_proto::{
    MAX_CHUNK,
    v1::{
        Chunk, KeyChange, KeyDone, KeyRequest, key_change::Change, key_event::Event,
        key_request::Message,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::prompt;
use crate::{
    Context,
    failure::{Failure, exit},
    ui::{text::escape, waiting::WaitLine},
};

/// Has the agent change something; `file` is what an import sends after its request.
///
/// # Errors
///
/// As the agent says; exit 6 when it goes away in the middle.
pub(crate) async fn change(
    ctx: &mut Context,
    change: Change,
    file: &[u8],
) -> Result<KeyDone, Failure> {
    let agent = ctx.agent().await?;
    let head = KeyChange {
        change: Some(change),
        claimed_context: Some(ctx.claimed("", "")),
        prompt_mode: ctx.prompt_mode().into(),
        docker_dir: ctx.docker_dir(),
        assume_yes: ctx.globals.yes,
        use_last_try: ctx.globals.use_last_try,
    };
    // Room for the request, a bundle's largest file in chunks, and one answer.
    let (send, requests) = mpsc::channel(4 + file.len() / MAX_CHUNK);
    let request = |message| KeyRequest {
        message: Some(message),
    };
    // The receiver is alive: it is moved into the call below.
    let _ = send.send(request(Message::Change(head))).await;
    for chunk in file.chunks(MAX_CHUNK) {
        let _ = send
            .send(request(Message::Chunk(Chunk {
                data: chunk.to_vec(),
            })))
            .await;
    }
    let mut events = agent
        .keys()
        .change(ReceiverStream::new(requests))
        .await?
        .into_inner();
    let mut line = WaitLine::default();
    while let Some(event) = line.next(&mut events).await? {
        match event.event {
            Some(Event::Prompt(prompt)) => {
                let answer = prompt::answer(ctx, prompt).await?;
                // When the agent has ended the call meanwhile, its status says why.
                let _ = send.send(request(Message::Answer(answer))).await;
            }
            Some(Event::Notice(notice)) => ctx.ui.say(escape(&notice.text)),
            Some(Event::Done(done)) => return Ok(done),
            Some(Event::Waiting(waiting)) => line.say(ctx, &waiting),
            None => {}
        }
    }
    Err(Failure::new(
        exit::NO_AGENT,
        "agent_gone",
        "the agent ended the call without a result",
    )
    .fix("`signet log show` says whether it was done"))
}
