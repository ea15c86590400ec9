//! `signet agent start`, `stop`, `run`.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::json;
use signet_proto::v1::StopRequest;

use crate::{
    Context,
    agent::in_foreground,
    args::{AgentArgs, AgentCommand},
    failure::{Failure, exit},
    ui::blocking,
};

/// Runs one of the verbs.
pub(crate) async fn run(args: AgentArgs, ctx: &mut Context) -> Result<(), Failure> {
    match args.command {
        AgentCommand::Start => start(ctx).await,
        AgentCommand::Stop => stop(ctx).await,
        AgentCommand::Run => Err(in_foreground()),
    }
}

async fn start(ctx: &mut Context) -> Result<(), Failure> {
    ctx.globals.no_autostart = false;
    let agent = ctx.agent().await?;
    let hello = agent.hello();
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({
            "v": 1,
            "agent": {
                "version": hello.version,
                "pid": hello.pid,
                "home": hello.home,
                "socket": ctx.places.socket.display().to_string(),
            },
        }));
    } else {
        ctx.ui.data(format_args!(
            "signetd {} runs with pid {} for {}",
            hello.version, hello.pid, hello.home
        ));
    }
    Ok(())
}

async fn stop(ctx: &mut Context) -> Result<(), Failure> {
    let Some(agent) = ctx.running_agent().await? else {
        if ctx.ui.is_json() {
            ctx.ui
                .json(&json!({ "v": 1, "stopped": false, "pid": null }));
        } else {
            ctx.ui.say("no agent is running");
        }
        return Ok(());
    };
    let pid = agent.hello().pid;
    // Opened before the agent ends, so that the number cannot mean another process.
    let process = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    agent.daemon().stop(StopRequest {}).await?;
    let process = match process {
        Some(Ok(process)) => process,
        Some(Err(Errno::SRCH)) => return said(ctx, pid),
        _ => return Err(not_watched(pid)),
    };
    // A connection that stays open would be waited for.
    drop(agent);
    blocking(move || {
        loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
                Err(Errno::INTR) => {}
                other => return other.map(|_| ()),
            }
        }
    })
    .await
    .map_err(|_| not_watched(pid))?;
    said(ctx, pid)
}

fn said(ctx: &Context, pid: i32) -> Result<(), Failure> {
    if ctx.ui.is_json() {
        ctx.ui.json(&json!({ "v": 1, "stopped": true, "pid": pid }));
    } else {
        ctx.ui
            .say(format_args!("the agent (pid {pid}) has stopped"));
    }
    Ok(())
}

fn not_watched(pid: i32) -> Failure {
    Failure::new(
        exit::FAILED,
        "stop",
        format!("the agent was told to stop, but whether pid {pid} has ended cannot be watched"),
    )
    .fix(format!("`ps -p {pid}` says whether it is still there"))
}
