//! What a card is to the rest: something in a reader that exchanges bytes within a transaction.
//!
//! Everything above speaks to these traits, so that the logic is tested without a reader, and the
//! one file that knows PC/SC stays small.

use zeroize::Zeroizing;

/// Why bytes could not be exchanged, or what the card said of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// Another program holds it.
    #[error("another program holds the card")]
    Busy,
    /// The system does not let this user at cards.
    #[error("access to cards is denied")]
    Denied,
    /// No card in the reader, or no reader any more.
    #[error("the card is gone")]
    Gone,
    /// What it answered is none of the things that it may answer.
    #[error("the card answered {0}")]
    Malformed(&'static str),
    /// pcscd is not there.
    #[error("no PC/SC service is running")]
    NoService,
    /// Anything else of PC/SC.
    #[error("PC/SC failed: {0}")]
    Other(String),
    /// It lost its session: reset by another program, or powered off meanwhile.
    #[error("the card was reset")]
    Reset,
    /// A status word.
    #[error("the card answered {0:04x}")]
    Status(u16),
}

impl CardError {
    /// Whether a new connection may do better.
    #[must_use]
    pub fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Gone | Self::Reset | Self::Other(_))
    }
}

/// One transaction: nobody else speaks to the card meanwhile.
pub trait Exchange {
    /// Sends one command and takes its answer, status word included.
    ///
    /// # Errors
    ///
    /// [`CardError`], but for [`CardError::Status`].
    fn transmit(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError>;
}

/// What is done in a transaction.
pub type Work<'a> = &'a mut dyn FnMut(&mut dyn Exchange) -> Result<(), CardError>;

/// A connection to a card, shared with other programs. Dropping it leaves the card as it is.
pub trait Card: Send {
    /// Runs `work` in one transaction. It never waits for a person but by a touch of the card.
    ///
    /// # Errors
    ///
    /// What `work` fails with, or that there is no transaction.
    fn transaction(&mut self, work: Work<'_>) -> Result<(), CardError>;
}

/// A reader, which may hold a card.
pub trait Reader: Send {
    /// Its name, as PC/SC has it.
    fn name(&self) -> &str;

    /// Connects to the card in it.
    ///
    /// # Errors
    ///
    /// [`CardError`].
    fn connect(&mut self) -> Result<Box<dyn Card>, CardError>;
}
