//! `signet watch`: attends from a terminal.
//!
//! It shows what waits, cards and the newest log entries, and answers for requests whose own stream
//! cannot. It never asks the agent for anything that prompts. With `--json` it only looks, and
//! prints a line for each event.

mod json;
mod keys;
mod model;
mod question;
mod screen;
mod tty;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use signet_proto::v1::{
    AttendEvent, AttendRequest, AttendStart, LockRequest, StatusReply, StatusRequest,
    attend_request::Message,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    time::{sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use zeroize::Zeroizing;

use self::{
    keys::{Key, Keys},
    model::{Action, ENTRIES, Effect, Model},
    screen::{At, Line, Look},
    tty::Tty,
};
use crate::{
    Context,
    agent::AgentClient,
    failure::{Failure, exit, io_words},
};

/// How often the agent is asked how it is; it asks nobody for that.
const POLL: Duration = Duration::from_secs(2);
/// How long the rest of an arrow key may take after its Escape.
const REST: Duration = Duration::from_millis(60);
/// How often what counts down is drawn again.
const TICK: Duration = Duration::from_secs(1);
/// Answers on their way.
const ANSWERS: usize = 16;
/// Bytes that are read at once.
const READ: usize = 256;

/// Attends until told to end, or until the agent does.
pub(crate) async fn run(ctx: &mut Context) -> Result<(), Failure> {
    let silent = ctx.ui.is_json();
    if !silent {
        if !ctx.ui.may_ask() {
            return Err(Failure::usage(
                "`signet watch` asks on this terminal, which --no-input forbids",
            )
            .fix("`signet watch --json` only looks"));
        }
        if !io::stdout().is_terminal() || !crate::ui::terminal::is_there() {
            return Err(
                Failure::usage("`signet watch` needs a terminal to show and ask on")
                    .fix("run it on a terminal, or, to look only, `signet watch --json`"),
            );
        }
    }
    let agent = ctx.agent().await?;
    let (answers, requests) = mpsc::channel(ANSWERS);
    let start = AttendStart {
        silent,
        entries: u32::try_from(ENTRIES).unwrap_or(0),
    };
    // The receiver is alive: it is moved into the call below.
    let _ = answers.send(request(Message::Start(start))).await;
    let events = agent
        .presence()
        .attend(ReceiverStream::new(requests))
        .await?
        .into_inner();
    if silent {
        // Held until the end: the agent lets go of whoever closes his side.
        let ended = json::run(events).await;
        drop(answers);
        return ended;
    }
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let terminal = |error: io::Error| {
        let what = format!("the terminal cannot be used: {}", io_words(&error));
        Failure::new(exit::FAILED, "terminal", what)
    };
    let tty = Tty::open().map_err(terminal)?;
    tty.enter().await.map_err(terminal)?;
    let mut watch = Watch {
        tty,
        model: Model::default(),
        keys: Keys::default(),
        answers,
        told: Told::start(&agent),
        drawn: Vec::new(),
        colour,
    };
    watch.attend(events).await.map_err(|ended| match ended {
        Ended::Terminal(error) => terminal(error),
        Ended::Agent(failure) => failure,
    })
}

fn request(message: Message) -> AttendRequest {
    AttendRequest {
        message: Some(message),
    }
}

/// Why the events ended: an agent that ends says so in words for those who asked it for something.
fn ended(status: tonic::Status) -> Failure {
    let failure = Failure::from(status);
    match failure.code.as_str() {
        "stopping" | "agent_gone" => gone(),
        _ => failure,
    }
}

/// The agent ended the call, which it does only when it ends itself.
fn gone() -> Failure {
    Failure::new(exit::NO_AGENT, "agent_gone", "the agent has ended")
        .fix("`signet watch` starts it again")
}

/// Why attending ended.
enum Ended {
    Terminal(io::Error),
    Agent(Failure),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// What the agent is asked beside the events.
struct Told {
    agent: AgentClient,
    poke: Arc<Notify>,
    status: mpsc::Receiver<StatusReply>,
}

impl Told {
    fn start(agent: &AgentClient) -> Self {
        let (sender, status) = mpsc::channel(1);
        let poke = Arc::new(Notify::new());
        let (own, poked) = (agent.clone(), Arc::clone(&poke));
        tokio::spawn(async move {
            // An agent that is gone ends the events as well, and they say so.
            while let Ok(reply) = own.daemon().status(StatusRequest {}).await {
                if sender.send(reply.into_inner()).await.is_err() {
                    return;
                }
                let _ = timeout(POLL, poked.notified()).await;
            }
        });
        Self {
            agent: agent.clone(),
            poke,
            status,
        }
    }

    fn lock(&self) {
        let (agent, poke) = (self.agent.clone(), Arc::clone(&self.poke));
        tokio::spawn(async move {
            // What came of it is in the next status.
            let _ = agent.daemon().lock(LockRequest {}).await;
            poke.notify_one();
        });
    }
}

struct Watch {
    tty: Tty,
    model: Model,
    keys: Keys,
    answers: mpsc::Sender<AttendRequest>,
    told: Told,
    /// What is on the screen.
    drawn: Vec<Line>,
    colour: bool,
}

impl Watch {
    async fn attend(&mut self, mut events: Streaming<AttendEvent>) -> Result<(), Ended> {
        let mut resized = signal(SignalKind::window_change())?;
        let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
        let mut hung_up = signal(SignalKind::hangup())?;
        let mut typed = Zeroizing::new([0; READ]);
        loop {
            self.draw().await?;
            let wake = self.wake();
            let escape = self.keys.is_waiting();
            tokio::select! {
                event = events.message() => {
                    let event = event.map_err(|status| Ended::Agent(ended(status)))?;
                    let event = event.ok_or_else(|| Ended::Agent(gone()))?;
                    self.take(event).await?;
                }
                read = self.tty.read(&mut *typed) => {
                    let Some(bytes) = typed.get(..read?).filter(|bytes| !bytes.is_empty()) else {
                        return Ok(());
                    };
                    for byte in bytes {
                        if let Some(key) = self.keys.push(*byte)
                            && self.key(key).await?
                        {
                            return Ok(());
                        }
                    }
                }
                () = sleep(REST), if escape => {
                    if let Some(key) = self.keys.nothing_followed()
                        && self.key(key).await?
                    {
                        return Ok(());
                    }
                }
                status = self.told.status.recv() => match status {
                    Some(status) => self.model.status = Some(status),
                    // The events say why.
                    None => sleep(TICK).await,
                },
                _ = resized.recv() => self.drawn.clear(),
                _ = continued.recv() => {
                    self.tty.enter().await?;
                    self.drawn.clear();
                }
                _ = hung_up.recv() => return Ok(()),
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// When something on the screen changes by itself.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let takes_keys = self.model.takes_keys_at(now);
        takes_keys.unwrap_or(now + TICK).min(now + TICK)
    }

    async fn take(&mut self, event: AttendEvent) -> io::Result<()> {
        let Some(event) = event.event else {
            return Ok(());
        };
        match self.model.apply(event, Instant::now()) {
            Effect::Nothing => {}
            Effect::Changed => self.told.poke.notify_one(),
            Effect::Asked => {
                self.tty.flush();
                self.keys = Keys::default();
                // Whoever looks elsewhere hears it.
                self.tty.write(b"\x07").await?;
            }
        }
        Ok(())
    }

    /// Takes a key; whether it ends the watch.
    async fn key(&mut self, key: Key) -> io::Result<bool> {
        match self.model.key(key, Instant::now()) {
            Action::Nothing => {}
            Action::End => return Ok(true),
            Action::Redraw => self.drawn.clear(),
            Action::Lock => {
                self.told.lock();
                self.model.notice =
                    "Locked: every held secret and every grant is forgotten.".into();
            }
            Action::Answer(answer) => {
                // When the agent has ended the call meanwhile, the events say why.
                let _ = self.answers.send(request(Message::Answer(answer))).await;
            }
        }
        Ok(false)
    }

    /// Draws what has changed.
    async fn draw(&mut self) -> io::Result<()> {
        let size = self.tty.size();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = At {
            size,
            now: Instant::now(),
            wall: i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX),
        };
        let lines = screen::lines(&mut self.model, at);
        if lines == self.drawn {
            return Ok(());
        }
        let mut frame = String::new();
        if self.drawn.len() != lines.len() {
            self.drawn.clear();
            frame.push_str("\x1b[2J");
        }
        for (number, line) in lines.iter().enumerate() {
            if self.drawn.get(number) == Some(line) {
                continue;
            }
            let (on, off) = match (self.colour, line.look) {
                (false, _) | (true, Look::Plain) => ("", ""),
                (true, Look::Head) => ("\x1b[7m", "\x1b[0m"),
                (true, Look::Strong) => ("\x1b[1m", "\x1b[0m"),
                (true, Look::Dim) => ("\x1b[2m", "\x1b[0m"),
                (true, Look::Alarm) => ("\x1b[1;31m", "\x1b[0m"),
            };
            // Erased first: the last column may hold a letter, and the cursor stays on it then.
            let row = number + 1;
            let _ = write!(frame, "\x1b[{row};1H\x1b[2K{on}{}{off}", line.text);
        }
        self.drawn = lines;
        self.tty.write(frame.as_bytes()).await
    }
}
