//! The terminal in raw mode, on its other screen, until it is dropped.
//!
//! Keys are read here, straight into memory that is wiped: a terminal library would keep what is
//! typed, a passphrase too, in buffers of its own. However the process ends short of SIGKILL, the
//! terminal is as it was: by [`Drop`], which a signal and a panic reach as well.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::{
    fs::OFlags,
    termios::{
        OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// Other screen, no cursor, cleared.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
/// Cursor, and the screen that was there before.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";
/// Columns and lines of a terminal that does not say.
const SIZE: (usize, usize) = (80, 24);

/// The controlling terminal.
#[derive(Debug)]
pub(super) struct Tty {
    file: AsyncFd<File>,
    before: Termios,
}

impl Tty {
    /// Takes the terminal; what was typed before is dropped.
    ///
    /// # Errors
    ///
    /// As the system says: there is none.
    pub(super) fn open() -> io::Result<Self> {
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open("/dev/tty")?;
        let before = tcgetattr(&file)?;
        // Deprecated for types that may change their descriptor below it, which a file does not.
        #[allow(deprecated, reason = "the other constructor is unsafe")]
        let file = AsyncFd::new(file)?;
        Ok(Self { file, before })
    }

    /// Raw mode, on the other screen; also after the process was stopped and goes on.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub(super) async fn enter(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(self.file.get_ref(), OptionalActions::Flush, &raw)?;
        self.write(ENTER).await
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(self.file.get_ref()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => SIZE,
        }
    }

    /// Drops what was typed and not read.
    pub(super) fn flush(&self) {
        // A terminal that is gone has nothing typed.
        let _ = tcflush(self.file.get_ref(), QueueSelector::IFlush);
    }

    /// Reads what was typed; 0 when the terminal is gone. Loses nothing when it is cancelled.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub(super) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = |mut file: &File| file.read(into);
        self.file.async_io(Interest::READABLE, read).await
    }

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |mut file: &File| file.write(bytes);
            let written = self.file.async_io(Interest::WRITABLE, write).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // Half a passphrase must not end in the shell: what was typed is dropped, too.
        let _ = tcsetattr(self.file.get_ref(), OptionalActions::Flush, &self.before);
        // Once more, so that the write waits for the terminal; one that is gone needs no words.
        if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
            let _ = terminal.write_all(LEAVE);
        }
    }
}
