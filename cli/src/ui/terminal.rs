//! Questions on the controlling terminal.
//!
//! Lists and yes/no questions are dialoguer's. Secrets are read here, straight into memory that is
//! wiped: a line reader would leave pieces of them in buffers of its own. While a question is open
//! the terminal's settings are remembered, and [`restore`] puts them back when a signal ends the
//! process in the middle of it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    sync::{Mutex, PoisonError},
};

use console::Term;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// A secret as it was typed.
pub(crate) type Typed = Zeroizing<Vec<u8>>;

/// Longest line that a terminal hands over, 4096 bytes with its end (`N_TTY_BUF_SIZE`).
const MAX_LINE: usize = 4096;

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// An answer.
    Answer(T),
    /// Ctrl-C, Ctrl-D or Escape.
    Cancelled,
    /// This process has no terminal.
    NoTerminal,
}

/// How the terminal was set before the open question.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// Puts the terminal back as it was before the open question, if there is one.
pub(crate) fn restore() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((mut terminal, settings)) = before.take() {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
        // Show the cursor, which a menu hides.
        let _ = terminal.write_all(b"\x1b[?25h\r\n");
    }
}

/// Remembers the settings for as long as it lives.
struct Open;

impl Open {
    fn new(terminal: &File) -> io::Result<Self> {
        let settings = tcgetattr(terminal)?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((terminal.try_clone()?, settings));
        Ok(Self)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((terminal, settings)) = before.take() {
            let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
        }
    }
}

/// Prints lines on the terminal; whether there is one.
pub(crate) fn show(lines: &[String]) -> bool {
    let Ok(mut terminal) = open() else {
        return false;
    };
    lines
        .iter()
        .all(|line| writeln!(terminal, "{line}").is_ok())
}

/// Whether this process has a terminal.
pub(crate) fn is_there() -> bool {
    open().is_ok()
}

/// Prints bytes on the terminal as they are; whether there is one.
pub(crate) fn show_bytes(bytes: &[u8]) -> bool {
    open().is_ok_and(|mut terminal| terminal.write_all(bytes).is_ok())
}

/// Reads one line without echo.
pub(crate) fn secret(prompt: &str) -> Asked<Typed> {
    let Ok(mut terminal) = open() else {
        return Asked::NoTerminal;
    };
    let Ok(open) = Open::new(&terminal) else {
        return Asked::NoTerminal;
    };
    let read = read_hidden(&mut terminal, prompt);
    drop(open);
    if matches!(read, Ok(None)) {
        // Ctrl-D is not echoed; what comes next begins a line.
        let _ = terminal.write_all(b"\n");
    }
    match read {
        Ok(Some(line)) => Asked::Answer(line),
        Ok(None) => Asked::Cancelled,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Asked::Cancelled,
        Err(_) => Asked::NoTerminal,
    }
}

fn read_hidden(terminal: &mut File, prompt: &str) -> io::Result<Option<Typed>> {
    let mut settings = tcgetattr(&*terminal)?;
    settings.local_modes.remove(LocalModes::ECHO);
    settings
        .local_modes
        .insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
    // Flush: what was typed before the question was not meant as its answer.
    tcsetattr(&*terminal, OptionalActions::Flush, &settings)?;
    terminal.write_all(prompt.as_bytes())?;

    let mut line = Zeroizing::new(vec![0; MAX_LINE]);
    let mut length = 0;
    while length < line.len() {
        match terminal.read(&mut line[length..]) {
            Ok(0) => return Ok((length > 0).then(|| take(&line[..length]))),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if line[length - 1] == b'\n' {
            length -= 1;
            break;
        }
    }
    Ok(Some(take(&line[..length])))
}

fn take(line: &[u8]) -> Typed {
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// A yes/no question; no by default.
pub(crate) fn confirm(question: &str) -> Asked<bool> {
    on_terminal(|terminal| {
        dialoguer::Confirm::new()
            .with_prompt(question)
            .default(false)
            .wait_for_newline(true)
            .interact_on_opt(terminal)
    })
}

/// One line that may be seen.
pub(crate) fn line(question: &str) -> Asked<String> {
    on_terminal(|terminal| {
        dialoguer::Input::<String>::new()
            .with_prompt(question)
            .allow_empty(true)
            .interact_on(terminal)
            .map(Some)
    })
}

/// One of several, by arrow keys.
pub(crate) fn select(question: &str, items: &[String]) -> Asked<usize> {
    on_terminal(|terminal| {
        dialoguer::Select::new()
            .with_prompt(question)
            .items(items)
            .default(0)
            .interact_on_opt(terminal)
    })
}

fn on_terminal<T>(ask: impl FnOnce(&Term) -> dialoguer::Result<Option<T>>) -> Asked<T> {
    let (Ok(input), Ok(output)) = (open(), open()) else {
        return Asked::NoTerminal;
    };
    let Ok(open) = Open::new(&output) else {
        return Asked::NoTerminal;
    };
    let terminal = Term::read_write_pair(input, output);
    let asked = ask(&terminal);
    let _ = terminal.show_cursor();
    drop(open);
    match asked {
        Ok(Some(answer)) => Asked::Answer(answer),
        Ok(None) => Asked::Cancelled,
        Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => {
            let _ = terminal.write_line("");
            Asked::Cancelled
        }
        Err(dialoguer::Error::IO(_)) => Asked::NoTerminal,
    }
}
