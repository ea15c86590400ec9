//! What two `signet` say to each other through ssh: frames on the standard streams, in turns.
//!
//! The new host's end says a line of greeting, so that whatever a login shell prints before it is
//! passed over. Then each frame is a kind, a length (big-endian) and so many bytes, bounded by
//! kind. Questions of the new host's agent travel to the old one, where the person sits, and the
//! answers back.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use prost::Message as _;
use signet_proto::v1::{Answer, Prompt};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, exit, io_words},
    ui::blocking,
};

/// First line of the new host's end.
const GREETING: &[u8] = b"signet-migrate-1\n";
/// Bytes before the greeting that are passed over.
const MAX_BANNER: usize = 64 * 1024;
/// Largest package, as everywhere.
const MAX_PACKAGE: usize = 96 * 1024 * 1024;
/// Largest receipt or note.
const MAX_DOCUMENT: usize = signet_proto::migration::MAX_DOCUMENT;
/// Largest prompt, answer, failure or list of IDs.
const MAX_SMALL: usize = 256 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Old → new: its name, then migrations that are open there, one ID a line.
    Hello = b'H' as isize,
    /// New → old.
    Offer = b'O' as isize,
    /// Old → new.
    Package = b'P' as isize,
    /// New → old.
    Receipt = b'R' as isize,
    /// Old → new.
    Note = b'N' as isize,
    /// New → old: the note was taken.
    Closed = b'C' as isize,
    /// New → old: a question of its agent.
    Prompt = b'Q' as isize,
    /// Old → new: the answer.
    Answer = b'A' as isize,
    /// New → old: why it ended, as `--json` has it.
    Failed = b'E' as isize,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            b'H' => Self::Hello,
            b'O' => Self::Offer,
            b'P' => Self::Package,
            b'R' => Self::Receipt,
            b'N' => Self::Note,
            b'C' => Self::Closed,
            b'Q' => Self::Prompt,
            b'A' => Self::Answer,
            b'E' => Self::Failed,
            _ => return None,
        })
    }

    const fn limit(self) -> usize {
        match self {
            Self::Package => MAX_PACKAGE,
            Self::Receipt | Self::Note => MAX_DOCUMENT,
            _ => MAX_SMALL,
        }
    }
}

struct Ends {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
}

/// The other host's `signet`.
#[derive(Clone)]
pub(crate) struct Peer {
    ends: Arc<Mutex<Ends>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    pub(super) fn new(
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> Self {
        Self {
            ends: Arc::new(Mutex::new(Ends {
                input: Box::new(input),
                output: Box::new(output),
            })),
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ends) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let ends = Arc::clone(&self.ends);
        let done = blocking(move || {
            let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut ends)
        });
        done.await.map_err(|error| dropped(&error))
    }

    /// Says the greeting.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        self.with(|ends| {
            ends.output.write_all(GREETING)?;
            ends.output.flush()
        })
        .await
    }

    /// Reads up to the greeting.
    pub(super) async fn greeted(&self) -> Result<(), Failure> {
        self.with(|ends| {
            let mut line = Vec::new();
            for _ in 0..MAX_BANNER {
                let mut byte = [0];
                ends.input.read_exact(&mut byte)?;
                line.push(byte[0]);
                if line == GREETING {
                    return Ok(());
                }
                if byte[0] == b'\n' {
                    line.clear();
                }
            }
            Err(io::Error::other("what answers there is no `signet`"))
        })
        .await
    }

    /// Says a frame.
    pub(super) async fn say(&self, kind: Kind, bytes: Vec<u8>) -> Result<(), Failure> {
        let bytes = Zeroizing::new(bytes);
        self.with(move |ends| {
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            ends.output.write_all(&[kind as u8])?;
            ends.output.write_all(&length.to_be_bytes())?;
            ends.output.write_all(&bytes)?;
            ends.output.flush()
        })
        .await
    }

    /// Hears a frame; `None` where the other end closed between two.
    pub(super) async fn hear(&self) -> Result<Option<(Kind, Vec<u8>)>, Failure> {
        self.with(|ends| {
            let mut kind = [0];
            if ends.input.read(&mut kind)? == 0 {
                return Ok(None);
            }
            let odd = || io::Error::other("it says something that no `signet` says");
            let kind = Kind::from_byte(kind[0]).ok_or_else(odd)?;
            let mut length = [0; 4];
            ends.input.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > kind.limit() {
                return Err(odd());
            }
            let mut bytes = vec![0; length];
            ends.input.read_exact(&mut bytes)?;
            Ok(Some((kind, bytes)))
        })
        .await
    }

    /// Has the person at the other end answer a question of this host's agent.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or the answer is none.
    pub(crate) async fn ask(&self, prompt: Prompt) -> Result<Answer, Failure> {
        let id = prompt.id.clone();
        self.say(Kind::Prompt, prompt.encode_to_vec()).await?;
        match self.hear().await? {
            Some((Kind::Answer, bytes)) => {
                let bytes = Zeroizing::new(bytes);
                let answer = Answer::decode(&bytes[..]).map_err(|_| out_of_turn())?;
                Ok(Answer {
                    grant_seconds: 0,
                    prompt_id: id,
                    ..answer
                })
            }
            None => Err(dropped(&io::ErrorKind::UnexpectedEof.into())),
            Some(_) => Err(out_of_turn()),
        }
    }
}

fn dropped(error: &io::Error) -> Failure {
    Failure::new(
        exit::FAILED,
        "connection_lost",
        format!(
            "the connection to the other host ended: {}",
            io_words(error)
        ),
    )
    .fix(
        "the same command again goes on where this one stopped; `signet migrate status` says how \
         far either host is",
    )
}

/// A message that does not belong here.
pub(super) fn out_of_turn() -> Failure {
    Failure::new(
        exit::FAILED,
        "bad_message",
        "the other host said something out of turn",
    )
    .fix("both hosts need the same version of signet")
}
