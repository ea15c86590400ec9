//! One change to a card: the request, the agent's questions, what is waited for, the result.

use signet_proto::v1::{
    CardChange, CardDone, CardRequest, card_change::Change, card_event::Event,
    card_request::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::prompt;
use crate::{
    Context,
    failure::{Failure, exit},
    ui::{text::escape, waiting::WaitLine},
};

/// Has the agent change a card; serial 0 is the only one that is plugged in.
///
/// # Errors
///
/// As the agent says; exit 6 when it goes away in the middle.
pub(crate) async fn change_card(
    ctx: &mut Context,
    serial: u32,
    change: Change,
    assume_yes: bool,
) -> Result<CardDone, Failure> {
    let agent = ctx.agent().await?;
    let head = CardChange {
        serial,
        change: Some(change),
        claimed_context: Some(ctx.claimed("", "")),
        prompt_mode: ctx.prompt_mode().into(),
        assume_yes: assume_yes || ctx.globals.yes,
        use_last_try: ctx.globals.use_last_try,
    };
    let (send, requests) = mpsc::channel(2);
    let request = |message| CardRequest {
        message: Some(message),
    };
    // The receiver is alive: it is moved into the call below.
    let _ = send.send(request(Message::Change(head))).await;
    let mut events = agent
        .cards()
        .change(ReceiverStream::new(requests))
        .await?
        .into_inner();
    let mut line = WaitLine::default();
    while let Some(event) = line.next(&mut events).await? {
        match event.event {
            Some(Event::Prompt(prompt)) => {
                let answer = prompt::answer_with(ctx, prompt, assume_yes).await?;
                // When the agent has ended the call meanwhile, its status says why.
                let _ = send.send(request(Message::Answer(answer))).await;
            }
            Some(Event::Notice(notice)) => ctx.ui.say(escape(&notice.text)),
            Some(Event::Waiting(waiting)) => line.say(ctx, &waiting),
            Some(Event::Done(done)) => return Ok(done),
            None => {}
        }
    }
    Err(Failure::new(
        exit::NO_AGENT,
        "agent_gone",
        "the agent ended the call without a result",
    )
    .fix("`signet card list` says how the card is now; the same command can be run again"))
}
