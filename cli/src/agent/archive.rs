//! One archive made, rehearsed or restored: the request, the agent's questions, the result.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use signet_proto::{
    MAX_CHUNK,
    archive::{MAX_MEMBERS, MAX_TOTAL, Member},
    v1::{
        ArchiveEnd, ArchiveMember, BackupDone, BackupRequest, BackupStart,
        backup_client::BackupClient, backup_event::Event, backup_request::Message,
        backup_start::What,
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

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Archived {
    /// What the agent handed out, in order.
    pub(crate) members: Vec<Member>,
    /// What it says of each key.
    pub(crate) done: BackupDone,
}

/// Has the agent do something with an archive; `members` are what it is sent, if anything.
///
/// # Errors
///
/// As the agent says; exit 6 when it goes away in the middle.
pub(crate) async fn archive(
    ctx: &mut Context,
    what: What,
    members: Option<Vec<Member>>,
) -> Result<Archived, Failure> {
    let agent = ctx.agent().await?;
    let start = BackupStart {
        what: Some(what),
        docker_dir: ctx.docker_dir(),
        claimed_context: Some(ctx.claimed("", "")),
        prompt_mode: ctx.prompt_mode().into(),
        assume_yes: ctx.globals.yes,
    };
    let (send, requests) = mpsc::channel(4);
    let mut client = BackupClient::new(agent.channel());
    // The receiver is alive: it is moved into the call below.
    let _ = send.send(request(Message::Start(start))).await;
    if let Some(members) = members {
        let send = send.clone();
        tokio::spawn(async move {
            for piece in members.into_iter().flat_map(pieces) {
                // When the agent has ended the call, its status says why.
                if send.send(request(Message::Member(piece))).await.is_err() {
                    return;
                }
            }
            let _ = send.send(request(Message::End(ArchiveEnd {}))).await;
        });
    }
    let mut events = client
        .run(ReceiverStream::new(requests))
        .await?
        .into_inner();
    let bar = bar(ctx);
    let mut line = WaitLine::default();
    let mut archived = Archived::default();
    let mut open: Option<Member> = None;
    let mut total = 0_u64;
    while let Some(event) = line.next(&mut events).await? {
        match event.event {
            Some(Event::Prompt(prompt)) => {
                bar.finish_and_clear();
                let answer = prompt::answer(ctx, prompt).await?;
                let _ = send.send(request(Message::Answer(answer))).await;
            }
            Some(Event::Notice(notice)) => {
                let text = escape(&notice.text);
                bar.suspend(|| ctx.ui.say(text));
            }
            Some(Event::Waiting(waiting)) => line.say(ctx, &waiting),
            Some(Event::Progress(progress)) => {
                if bar.length() == Some(0) {
                    bar.enable_steady_tick(Duration::from_millis(200));
                }
                bar.set_length(progress.total.into());
                bar.set_position(progress.done.into());
            }
            Some(Event::Member(piece)) => {
                total += piece.data.len() as u64;
                if total > MAX_TOTAL || archived.members.len() > MAX_MEMBERS {
                    return Err(odd("it hands out more than an archive holds"));
                }
                let member = open.get_or_insert_with(|| Member {
                    path: piece.path,
                    data: Vec::new(),
                });
                member.data.extend_from_slice(&piece.data);
                if !piece.more {
                    archived.members.extend(open.take());
                }
            }
            Some(Event::Done(done)) => {
                bar.finish_and_clear();
                archived.done = done;
                return Ok(archived);
            }
            None => {}
        }
    }
    Err(odd("it ended the call without a result"))
}

fn request(message: Message) -> BackupRequest {
    BackupRequest {
        message: Some(message),
    }
}

fn pieces(member: Member) -> Vec<ArchiveMember> {
    let piece = |data: &[u8], more| ArchiveMember {
        path: member.path.clone(),
        data: data.to_vec(),
        more,
    };
    if member.data.is_empty() {
        return vec![piece(&[], false)];
    }
    let count = member.data.len().div_ceil(MAX_CHUNK);
    let chunks = member.data.chunks(MAX_CHUNK).enumerate();
    chunks
        .map(|(at, chunk)| piece(chunk, at + 1 < count))
        .collect()
}

fn bar(ctx: &Context) -> ProgressBar {
    if !ctx.ui.talk_is_terminal() || ctx.ui.is_json() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} keys");
    ProgressBar::new(0).with_style(style.expect("a fixed template"))
}

fn odd(what: &str) -> Failure {
    Failure::new(exit::NO_AGENT, "agent_gone", format!("the agent: {what}"))
        .fix("`signet log show` says whether it was done")
}
