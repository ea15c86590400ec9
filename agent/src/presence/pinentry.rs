//! A window or a screen of its own to ask in: a `pinentry`, which the agent starts when neither the
//! caller's stream nor anybody who attends can answer.
//!
//! The protocol is Assuan as pinentries speak it (Libassuan manual, "Server responses";
//! pinentry.texi, "Protocol"): lines of at most 1,000 bytes, percent-escaped. A graphical one needs
//! a display of the agent's own session. One that writes on a terminal is used only on the caller's
//! own, when the caller's environment names it (`GPG_TTY`) and the kernel says the same; the agent
//! opens no path that a request names, the pinentry does. What is typed comes back in one line,
//! which is wiped.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use signet_proto::v1::{self, CardName, need_passphrase, need_pin, prompt};
use signet_trust::payload::escape;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::Mutex,
    time::{Instant, timeout_at},
};
use zeroize::Zeroizing;

use super::{
    PATIENCE, Typed,
    question::{Answered, Reply},
};
use crate::{daemon::helper, key::Secret, keyring::Fault};

/// Longest line of the protocol, without its end (Libassuan, `ASSUAN_LINELENGTH` 1002).
const LINE: usize = 1000;
/// Bytes of a description, escaped: `SETDESC` and a margin off a line.
const DESCRIPTION: usize = 900;
/// Lines of a summary that are shown.
const SUMMARY: usize = 12;
/// How long a window is there before a yes in it counts: nobody reads faster.
const QUIET: Duration = Duration::from_millis(700);
/// Lines that one command may be answered with.
const MAX_LINES: usize = 64;

/// libgpg-error: what the person, or the clock, has said. The lower 16 bits of the number after
/// `ERR`.
mod code {
    pub(super) const TIMEOUT: u32 = 62;
    pub(super) const CANCELED: u32 = 99;
    pub(super) const NOT_CONFIRMED: u32 = 114;
    pub(super) const FULLY_CANCELED: u32 = 198;
}

/// Pinentries that open a window, as Debian names them.
const GRAPHICAL: [&str; 7] = [
    "/usr/bin/pinentry-gnome3",
    "/usr/bin/pinentry-qt",
    "/usr/bin/pinentry-qt5",
    "/usr/bin/pinentry-qt6",
    "/usr/bin/pinentry-gtk-2",
    "/usr/bin/pinentry-fltk",
    "/usr/bin/pinentry-x11",
];
/// Pinentries that write on a terminal.
const TEXT: [&str; 2] = ["/usr/bin/pinentry-curses", "/usr/bin/pinentry-tty"];
/// What a graphical one needs of the agent's environment.
pub(crate) const ENVIRONMENT: [&str; 9] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "LANG",
    "LC_ALL",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CURRENT_DESKTOP",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
];

/// Whether it is one of those that are used without being named in the settings.
pub(crate) fn is_known(program: &Path) -> bool {
    let mut known = GRAPHICAL.iter().chain(&TEXT);
    known.any(|known| program == Path::new(known))
}

/// Which pinentry is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that is installed and can show itself.
    #[default]
    Installed,
    /// This one, whatever it is.
    Program(PathBuf),
    /// None.
    Off,
}

/// The terminal of a caller whose environment names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// `/dev/pts/3`, by the kernel.
    pub path: String,
    /// `xterm`; the caller's word.
    pub kind: String,
}

/// Asks one question at a time.
#[derive(Debug)]
pub struct Pinentry {
    choice: Choice,
    environment: Vec<(OsString, OsString)>,
    one: Mutex<()>,
}

/// What a question looks like.
#[derive(Debug, PartialEq, Eq)]
struct Words {
    description: String,
    /// Before the field; empty for a yes/no question.
    prompt: &'static str,
    refused: String,
    new: bool,
}

impl Pinentry {
    /// By the agent's settings and environment.
    #[must_use]
    pub fn new(choice: Choice, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let environment = ENVIRONMENT
            .iter()
            .filter_map(|name| Some((OsString::from(name), variable(name)?)))
            .collect();
        Self {
            choice,
            environment,
            one: Mutex::new(()),
        }
    }

    /// Which program to start; `None` when none could show itself.
    fn program(&self, terminal: Option<&Terminal>) -> Option<PathBuf> {
        let display = self.environment.iter().any(|(name, value)| {
            (name == "DISPLAY" || name == "WAYLAND_DISPLAY") && !value.is_empty()
        });
        if !display && terminal.is_none() {
            return None;
        }
        let first = |list: &[&str]| {
            let found = list.iter().map(Path::new).find(|path| path.exists());
            found.map(Path::to_owned)
        };
        match &self.choice {
            Choice::Off => None,
            Choice::Program(path) => Some(path.clone()),
            Choice::Installed => {
                let graphical = display.then(|| first(&GRAPHICAL)).flatten();
                graphical.or_else(|| terminal.and_then(|_| first(&TEXT)))
            }
        }
    }

    /// Asks; `None` when there is no pinentry that could.
    ///
    /// # Errors
    ///
    /// [`Fault::NobodyAnswered`] in time.
    pub async fn ask(
        &self,
        ask: &prompt::Ask,
        caller: &str,
        terminal: Option<&Terminal>,
    ) -> Result<Option<Answered>, Fault> {
        let Some(program) = self.program(terminal) else {
            return Ok(None);
        };
        let deadline = Instant::now() + PATIENCE;
        let Ok(_one) = timeout_at(deadline, self.one.lock()).await else {
            return Err(Fault::NobodyAnswered);
        };
        let words = words(ask, caller);
        let talk = async {
            let mut talk = self.start(program.clone()).await?;
            talk.ask(&words, terminal, deadline).await
        };
        match timeout_at(deadline, talk).await {
            Err(_) => Err(Fault::NobodyAnswered),
            Ok(Err(error)) => {
                tracing::warn!(program = %program.display(), %error, "the pinentry does not work");
                Ok(None)
            }
            Ok(Ok(Said::Late)) => Err(Fault::NobodyAnswered),
            Ok(Ok(Said::Answer(reply))) => Ok(Some(Answered {
                reply,
                grant_seconds: 0,
            })),
        }
    }

    async fn start(&self, program: PathBuf) -> io::Result<Talk> {
        let environment = self.environment.clone();
        let start = move || {
            let child = helper::spawn(&program, &[], &environment)?;
            child.stream.set_nonblocking(true)?;
            let stream = child.stream.try_clone()?;
            io::Result::Ok((child, stream))
        };
        let started = tokio::task::spawn_blocking(start).await;
        let (child, stream) = started.map_err(io::Error::other)??;
        Ok(Talk {
            _child: child,
            stream: UnixStream::from_std(stream)?,
            read: Zeroizing::new(Vec::with_capacity(4 * LINE)),
        })
    }
}

/// What came back.
#[derive(Debug)]
enum Said {
    Answer(Reply),
    Late,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Ok(Option<Zeroizing<Vec<u8>>>),
    Error(u32),
}

/// One pinentry that runs; dropped, it is killed.
struct Talk {
    _child: helper::Child,
    stream: UnixStream,
    read: Zeroizing<Vec<u8>>,
}

impl Talk {
    async fn ask(
        &mut self,
        words: &Words,
        terminal: Option<&Terminal>,
        deadline: Instant,
    ) -> io::Result<Said> {
        self.answer().await?;
        if let Some(terminal) = terminal {
            self.option(&format!("ttyname={}", terminal.path)).await?;
            self.option(&format!("ttytype={}", terminal.kind)).await?;
        }
        self.option("lc-ctype=C.UTF-8").await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = left.saturating_sub(Duration::from_secs(1)).as_secs();
        self.option_command(&format!("SETTIMEOUT {seconds}"))
            .await?;
        self.option_command("SETTITLE Signet").await?;
        self.must(&format!("SETDESC {}", words.description)).await?;
        if words.prompt.is_empty() {
            self.option_command("SETOK Yes").await?;
            self.option_command("SETCANCEL No").await?;
            let shown = Instant::now();
            let ended = loop {
                let ended = self.command("CONFIRM").await?;
                // A key that was meant for another window is no yes.
                if !matches!(ended, Ended::Ok(_)) || shown.elapsed() >= QUIET {
                    break ended;
                }
            };
            return Ok(match ended {
                Ended::Ok(_) => Said::Answer(Reply::Yes(true)),
                Ended::Error(code::TIMEOUT) => Said::Late,
                // The button reads No, whichever of these a pinentry makes of it.
                Ended::Error(code::CANCELED | code::NOT_CONFIRMED | code::FULLY_CANCELED) => {
                    Said::Answer(Reply::Yes(false))
                }
                Ended::Error(code) => return Err(odd(code)),
            });
        }
        self.must(&format!("SETPROMPT {}", words.prompt)).await?;
        if !words.refused.is_empty() {
            self.option_command(&format!("SETERROR {}", words.refused))
                .await?;
        }
        if words.new {
            self.must("SETREPEAT The same once more:").await?;
            self.option_command("SETREPEATERROR They differ").await?;
        }
        Ok(match self.command("GETPIN").await? {
            Ended::Ok(secret) => {
                let secret = secret.as_deref().map_or(&[][..], Vec::as_slice);
                Said::Answer(Reply::Secret(Secret::copy_of(secret), Typed::Yes))
            }
            Ended::Error(code::TIMEOUT) => Said::Late,
            Ended::Error(code::CANCELED | code::NOT_CONFIRMED | code::FULLY_CANCELED) => {
                Said::Answer(Reply::Cancelled)
            }
            Ended::Error(code) => return Err(odd(code)),
        })
    }

    async fn option(&mut self, option: &str) -> io::Result<()> {
        self.option_command(&format!("OPTION {option}")).await
    }

    /// What older pinentries may not know.
    async fn option_command(&mut self, command: &str) -> io::Result<()> {
        self.command(command).await.map(|_| ())
    }

    async fn must(&mut self, command: &str) -> io::Result<()> {
        match self.command(command).await? {
            Ended::Ok(_) => Ok(()),
            Ended::Error(code) => Err(odd(code)),
        }
    }

    async fn command(&mut self, command: &str) -> io::Result<Ended> {
        let mut line = command.as_bytes().to_vec();
        line.truncate(LINE);
        line.push(b'\n');
        self.stream.write_all(&line).await?;
        self.answer().await
    }

    /// Lines until `OK` or `ERR`, with the data among them.
    async fn answer(&mut self) -> io::Result<Ended> {
        let mut data: Option<Zeroizing<Vec<u8>>> = None;
        for _ in 0..MAX_LINES {
            let line = self.line().await?;
            let (word, rest) = split(&line);
            match word {
                b"OK" => return Ok(Ended::Ok(data)),
                b"ERR" => {
                    let (number, _) = split(rest);
                    let number = std::str::from_utf8(number).ok();
                    let code: u32 = number.and_then(|text| text.parse().ok()).unwrap_or(0);
                    return Ok(Ended::Error(code & 0xffff));
                }
                b"D" => {
                    let plain = unescape(rest)?;
                    data.get_or_insert_with(|| Zeroizing::new(Vec::with_capacity(4 * LINE)))
                        .extend_from_slice(&plain);
                }
                // Status and comments (Libassuan: "S", "#").
                b"S" => {}
                word if word.starts_with(b"#") => {}
                _ => return Err(io::Error::other("it says what no pinentry says")),
            }
        }
        Err(io::Error::other("it says more than a pinentry says"))
    }

    async fn line(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = Zeroizing::new(self.read.get(..end).unwrap_or_default().to_vec());
                self.read.drain(..=end);
                return Ok(line);
            }
            if self.read.len() > LINE {
                return Err(io::Error::other("its line does not end"));
            }
            // Within the capacity, so that nothing is left behind by a move.
            let mut piece = Zeroizing::new([0; LINE]);
            match self.stream.read(piece.as_mut_slice()).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self
                    .read
                    .extend_from_slice(piece.get(..len).unwrap_or_default()),
            }
        }
    }
}

fn odd(code: u32) -> io::Error {
    io::Error::other(format!("it refuses (libgpg-error code {code})"))
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (
            line.get(..at).unwrap_or_default(),
            line.get(at + 1..).unwrap_or_default(),
        ),
        None => (line, &[]),
    }
}

/// `%25` → `%`.
fn unescape(text: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(*byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => plain.push((high * 16 + low) as u8),
            _ => return Err(io::Error::other("a percent sign without its digits")),
        }
    }
    Ok(plain)
}

/// Percent, carriage return and line feed are escaped (Libassuan manual, "Client requests").
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '%' => line.push_str("%25"),
            '\r' => line.push_str("%0D"),
            '\n' => line.push_str("%0A"),
            other => line.push(other),
        }
    }
    line
}

/// A question in the words of a pinentry.
fn words(ask: &prompt::Ask, caller: &str) -> Words {
    let (what, prompt, refused, new, summary) = match ask {
        prompt::Ask::Confirm(need) => (need.question.clone(), "", "", false, &need.summary),
        prompt::Ask::Passphrase(need) => (
            passphrase(need),
            "Passphrase:",
            need.refused.as_str(),
            need.new_secret,
            &need.summary,
        ),
        prompt::Ask::Pin(need) => {
            let (what, prompt, new) = pin(need);
            (what, prompt, need.refused.as_str(), new, &need.summary)
        }
    };
    let mut lines = vec![caller.to_owned()];
    lines.extend(summary.iter().take(SUMMARY).cloned());
    if summary.len() > SUMMARY {
        lines.push(format!("… and {} lines more", summary.len() - SUMMARY));
    }
    let last = [
        what,
        format!("To be answered within {} minutes.", PATIENCE.as_secs() / 60),
    ];
    // What is asked stays, whatever has to be cut.
    let end = format!("%0A{}", escaped(&last.join("\n")));
    let mut description = String::new();
    for line in lines {
        let line = format!("{}%0A", escaped(&line));
        if description.len() + line.len() + end.len() > DESCRIPTION {
            description.push_str("…%0A");
            break;
        }
        description.push_str(&line);
    }
    description.push_str(&end);
    Words {
        description,
        prompt,
        refused: escaped(refused),
        new,
    }
}

fn passphrase(need: &v1::NeedPassphrase) -> String {
    use need_passphrase::What;

    let what = match need.what() {
        What::Keyring => "the keyring".to_owned(),
        What::Root => "the root keyring".to_owned(),
        What::Export => "the exported copy".to_owned(),
        What::Key | What::Unspecified => key(&need.label, &need.role, &need.gun, &need.key_id),
    };
    let mut words = match need.new_secret {
        true => format!("New passphrase for {what}."),
        false => format!("Passphrase of {what}."),
    };
    if !need.new_secret && need.attempts_left == 1 {
        words.push_str(" Last attempt.");
    }
    words
}

fn pin(need: &v1::NeedPin) -> (String, &'static str, bool) {
    use need_pin::What;

    let card = card(need.card.as_ref());
    let (mut words, prompt, new) = match need.what() {
        What::Puk => (format!("PUK of {card}."), "PUK:", false),
        What::NewPin => (format!("New PIN for {card}."), "PIN:", true),
        What::NewPuk => (format!("New PUK for {card}."), "PUK:", true),
        What::ManagementKey => (format!("Management key of {card}."), "Key:", false),
        What::Pin | What::Unspecified => (format!("PIN of {card}."), "PIN:", false),
    };
    if !need.key_id.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(
            words,
            "\nKey: {}.",
            key(&need.label, &need.role, &need.gun, &need.key_id)
        );
    }
    match need.tries_left {
        0 => {}
        1 => words.push_str("\nThe last try: a wrong one blocks it."),
        tries => {
            let _ = write!(words, "\n{tries} tries left.");
        }
    }
    (words, prompt, new)
}

fn card(card: Option<&CardName>) -> String {
    let Some(card) = card else {
        return "the card".to_owned();
    };
    let mut words = format!("YubiKey {}", card.serial);
    if !card.label.is_empty() {
        let _ = write!(words, " ({})", escape(&card.label));
    }
    if !card.slot.is_empty() {
        let _ = write!(words, ", slot {}", card.slot);
    }
    words
}

fn key(label: &str, role: &str, gun: &str, id: &str) -> String {
    let mut words = match label {
        "" => format!("the {} key", escape(role)),
        label => format!("the {} key {:?}", escape(role), escape(label)),
    };
    if !gun.is_empty() {
        let _ = write!(words, " of {}", escape(gun));
    }
    if let Some(short) = id.get(..7) {
        let _ = write!(words, " ({short})");
    }
    words
}

#[cfg(test)]
mod tests;
