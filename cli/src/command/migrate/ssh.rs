//! All of it in one command, over ssh's standard streams.
//!
//! `send` runs `signet migrate receive --stdio` on the new host. Each message is durable on the side
//! that sends it before it is sent, so a connection that drops at any moment leaves two sides that
//! the same command joins again.

use std::{
    io,
    process::{Child, Command, Stdio},
};

use prost::Message as _;
use signet_proto::{
    migration::Offer,
    v1::{
        Answer, MigrateOffer, MigrateReceipt, Migration, Prompt, Unavailable, answer,
        migrate::Step, prompt::Ask,
    },
};

use super::{
    about, list,
    new::{close, receive},
    old::{bad_offer, pack, retire, say_retired, unproved},
    step,
    wire::{Kind, Peer, out_of_turn},
};
use crate::{
    Context,
    agent::prompt,
    failure::{Failure, exit},
    ui::text::escape,
};

/// Retired migrations whose closing note may not have arrived: the newest.
const MAX_RETIRED: usize = 8;

/// The old host: sends keys, reads the receipt, retires them, hands over the note.
pub(super) async fn send(
    target: &str,
    keys: Vec<String>,
    ctx: &mut Context,
) -> Result<(), Failure> {
    if target.is_empty() || target.starts_with('-') {
        return Err(Failure::usage(format!("{:?} is no host", escape(target))));
    }
    let mut ssh = start(target)?;
    let (Some(output), Some(input)) = (ssh.stdin.take(), ssh.stdout.take()) else {
        return Err(Failure::new(exit::FAILED, "ssh", "ssh has no streams"));
    };
    let peer = Peer::new(io::BufReader::new(input), output);
    let sent = converse(&peer, keys, ctx).await;
    // Its end is the end of the other side, too: it reads to the end of its input.
    drop(peer);
    let ended = ssh.wait();
    match (sent, ended) {
        (Err(failure), Ok(status)) if status.code() == Some(255) => Err(failure.fix(format!(
            "ssh could not reach {}, or lost it; the same command again goes on where this one \
                 stopped",
            escape(target)
        ))),
        (Err(failure), Ok(status)) if status.code() == Some(127) => Err(failure.fix(format!(
            "there is no `signet` on the PATH of {}: install it there",
            escape(target)
        ))),
        (sent, _) => sent,
    }
}

fn start(target: &str) -> Result<Child, Failure> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-T");
    // What is after the host is the command; what is before it cannot be an option.
    ssh.args(["--", target, "signet", "migrate", "receive", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    ssh.spawn().map_err(|error| {
        let failure = Failure::new(exit::FAILED, "ssh", format!("cannot run ssh: {error}"));
        failure.fix("install the OpenSSH client, or move by files: signet migrate send OFFER")
    })
}

async fn converse(peer: &Peer, keys: Vec<String>, ctx: &mut Context) -> Result<(), Failure> {
    peer.greeted().await?;
    let all = list(ctx).await?;
    let mut open: Vec<String> = ids(&all, "sent").collect();
    let mut retired: Vec<String> = ids(&all, "retired").take(MAX_RETIRED).collect();
    loop {
        let mut hello = super::host();
        for id in open.iter().chain(&retired) {
            hello.push('\n');
            hello.push_str(id);
        }
        peer.say(Kind::Hello, hello.into_bytes()).await?;
        let receipt = match hear(peer, ctx).await? {
            (Kind::Offer, line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                let offer = Offer::parse(&line).map_err(|error| bad_offer(&error))?;
                ctx.ui.say(format_args!(
                    "{} offers to receive keys, encrypted to {}",
                    escape(&offer.host),
                    offer.recipient
                ));
                let (_, package) = pack(line, keys.clone(), true, ctx).await?;
                peer.say(Kind::Package, package).await?;
                match hear(peer, ctx).await? {
                    (Kind::Receipt, receipt) => receipt,
                    _ => return Err(out_of_turn()),
                }
            }
            (Kind::Receipt, receipt) => receipt,
            _ => return Err(out_of_turn()),
        };
        let (migration, note) = retire(receipt, ctx).await?;
        if !note.is_empty() {
            peer.say(Kind::Note, note).await?;
            match hear(peer, ctx).await? {
                (Kind::Closed, _) => {}
                _ => return Err(out_of_turn()),
            }
        }
        if let Some(at) = retired.iter().position(|id| *id == migration.id) {
            // Only the note of an earlier one was missing: now for what was asked.
            retired.remove(at);
            ctx.ui.say(format_args!(
                "migration {}: {} has the closing note now",
                migration.id,
                escape(&migration.peer)
            ));
            open.retain(|id| *id != migration.id);
            if nothing_to_send(&keys, ctx).await? {
                say_retired(&migration, None, ctx);
                return Ok(());
            }
            continue;
        }
        say_retired(&migration, None, ctx);
        return unproved(&migration);
    }
}

/// Whether an interrupted move was all that the command was for.
async fn nothing_to_send(keys: &[String], ctx: &mut Context) -> Result<bool, Failure> {
    if !keys.is_empty() {
        return Ok(false);
    }
    let agent = ctx.agent().await?;
    let listed = agent.list_keys(ctx.docker_dir()).await?;
    Ok(!listed
        .keys
        .iter()
        .any(|key| matches!(key.state.as_str(), "enrolled" | "new") && key.store != "piv"))
}

fn ids<'a>(all: &'a [Migration], state: &'a str) -> impl Iterator<Item = String> + 'a {
    let open = all
        .iter()
        .filter(move |m| m.side == "old" && m.state == state);
    open.map(|migration| migration.id.clone())
}

/// The next frame that is no question; questions are answered here, where the person is.
async fn hear(peer: &Peer, ctx: &mut Context) -> Result<(Kind, Vec<u8>), Failure> {
    loop {
        match peer.hear().await? {
            Some((Kind::Prompt, bytes)) => {
                let prompt = Prompt::decode(&bytes[..]).map_err(|_| out_of_turn())?;
                let answer = answered(prompt, ctx).await?;
                peer.say(Kind::Answer, answer.encode_to_vec()).await?;
            }
            Some((Kind::Failed, bytes)) => return Err(theirs(&bytes)),
            Some(frame) => return Ok(frame),
            None => {
                return Err(Failure::new(
                    exit::FAILED,
                    "connection_lost",
                    "the other host closed the connection before all was done",
                )
                .fix("the same command again goes on where this one stopped"));
            }
        }
    }
}

/// Passphrases of the keys that move and yes or no; a PIN is never sent to another host.
async fn answered(prompt: Prompt, ctx: &mut Context) -> Result<Answer, Failure> {
    match &prompt.ask {
        Some(Ask::Passphrase(_) | Ask::Confirm(_)) => {
            ctx.ui.say("the new host asks:");
            prompt::answer(ctx, prompt).await
        }
        _ => Ok(Answer {
            grant_seconds: 0,
            prompt_id: prompt.id,
            answer: Some(answer::Answer::Unavailable(Unavailable {})),
        }),
    }
}

fn theirs(bytes: &[u8]) -> Failure {
    let said: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |member: &str| escape(said["error"][member].as_str().unwrap_or_default());
    let exit = said["error"]["exit"]
        .as_u64()
        .and_then(|exit| u8::try_from(exit).ok());
    Failure::new(
        exit.filter(|exit| *exit != 0).unwrap_or(exit::FAILED),
        text("code"),
        format!("on the new host: {}", text("message")),
    )
    .fix(match text("fix") {
        fix if fix.is_empty() => "`signet migrate status` there says how far it is".to_owned(),
        fix => fix,
    })
}

/// The new host's end.
pub(super) async fn serve(ctx: &mut Context) -> Result<(), Failure> {
    let peer = Peer::new(io::BufReader::new(io::stdin()), io::stdout());
    peer.greet().await?;
    ctx.relay = Some(peer.clone());
    let served = answer_old(&peer, ctx).await;
    if let Err(failure) = &served {
        let said = serde_json::json!({ "v": 1, "error": failure.to_json() });
        // Whoever is gone learns nothing.
        let _ = peer.say(Kind::Failed, said.to_string().into_bytes()).await;
    }
    served
}

async fn answer_old(peer: &Peer, ctx: &mut Context) -> Result<(), Failure> {
    while let Some((kind, bytes)) = peer.hear().await? {
        if kind != Kind::Hello {
            return Err(out_of_turn());
        }
        let hello = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = hello.lines().map(str::to_owned);
        let from = lines.next().unwrap_or_default();
        let resume: Vec<String> = lines.collect();
        let all = list(ctx).await?;
        let whole = all.iter().find(|migration| {
            let keys = &migration.keys;
            migration.side == "new"
                && migration.state == "proved"
                && resume.contains(&migration.id)
                && keys.iter().all(|key| key.state != "missing")
        });
        let receipt = match whole {
            Some(migration) => {
                let id = migration.id.clone();
                let again = step(ctx, Step::Receipt(MigrateReceipt { id }), None).await?;
                about(again.done)?.1
            }
            None => {
                let offer = step(ctx, Step::Offer(MigrateOffer { resume, from }), None).await?;
                let (_, line) = about(offer.done)?;
                peer.say(Kind::Offer, line).await?;
                let package = match peer.hear().await? {
                    Some((Kind::Package, package)) => package,
                    // It gave up: the offer stays open, and is taken up by the next one.
                    None => return Ok(()),
                    Some(_) => return Err(out_of_turn()),
                };
                let done = receive(package, "the package", ctx).await?;
                about(done)?.1
            }
        };
        peer.say(Kind::Receipt, receipt).await?;
        match peer.hear().await? {
            Some((Kind::Note, note)) => {
                close(note, ctx).await?;
                peer.say(Kind::Closed, Vec::new()).await?;
            }
            Some(_) => return Err(out_of_turn()),
            None => return Ok(()),
        }
    }
    Ok(())
}
