//! Readers and cards by PC/SC. The only file that knows the library, with `hotplug.rs`.
//!
//! Cards are shared with other programs; a connection ends with *leave card*, which neither resets
//! the card nor ends the sessions of others (the library's own default is a reset).

use std::ffi::{CStr, CString};

use pcsc::{Context, Disposition, Error, MAX_BUFFER_SIZE, Protocols, Scope, ShareMode};
use zeroize::Zeroizing;

use super::card::{Card, CardError, Exchange, Reader, Work};

/// A reader by its name, with a context of its own: a call that blocks in one holds up no other.
pub(super) struct PcscReader {
    name: String,
    raw: CString,
    context: Option<Context>,
}

impl PcscReader {
    /// Nothing is opened yet.
    pub(super) fn new(name: &CStr) -> Self {
        Self {
            name: name.to_string_lossy().into_owned(),
            raw: name.to_owned(),
            context: None,
        }
    }
}

impl Reader for PcscReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&mut self) -> Result<Box<dyn Card>, CardError> {
        // After a restart of pcscd the old context is of no use.
        let context = match self.context.take().filter(|old| old.is_valid().is_ok()) {
            Some(context) => context,
            None => Context::establish(Scope::User).map_err(error)?,
        };
        let context = self.context.insert(context);
        let card = context
            .connect(&self.raw, ShareMode::Shared, Protocols::ANY)
            .map_err(error)?;
        Ok(Box::new(PcscCard { card: Some(card) }))
    }
}

struct PcscCard {
    /// `None` only while it is dropped.
    card: Option<pcsc::Card>,
}

impl Drop for PcscCard {
    fn drop(&mut self) {
        if let Some(card) = self.card.take() {
            // A card that is gone cannot be left; the library would reset it otherwise.
            if let Err((card, _)) = card.disconnect(Disposition::LeaveCard) {
                std::mem::forget(card);
            }
        }
    }
}

impl Card for PcscCard {
    fn transaction(&mut self, work: Work<'_>) -> Result<(), CardError> {
        let card = self.card.as_mut().expect("there until it is dropped");
        let transaction = card.transaction().map_err(error)?;
        let mut exchange = InTransaction {
            card: &transaction,
            buffer: Zeroizing::new(vec![0; MAX_BUFFER_SIZE]),
        };
        let done = work(&mut exchange);
        let ended = transaction
            .end(Disposition::LeaveCard)
            .map_err(|(_, why)| error(why));
        done.and(ended)
    }
}

struct InTransaction<'a> {
    card: &'a pcsc::Card,
    buffer: Zeroizing<Vec<u8>>,
}

impl Exchange for InTransaction<'_> {
    fn transmit(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        let answer = self.card.transmit(apdu, &mut self.buffer).map_err(error)?;
        Ok(Zeroizing::new(answer.to_vec()))
    }
}

/// What an error of PC/SC means here.
pub(super) fn error(error: Error) -> CardError {
    match error {
        Error::SharingViolation => CardError::Busy,
        Error::SecurityViolation | Error::NoAccess => CardError::Denied,
        Error::RemovedCard
        | Error::NoSmartcard
        | Error::UnknownReader
        | Error::ReaderUnavailable
        | Error::NoReadersAvailable => CardError::Gone,
        Error::ResetCard
        | Error::UnpoweredCard
        | Error::UnresponsiveCard
        | Error::ProtoMismatch
        | Error::InvalidHandle
        | Error::NotTransacted
        | Error::CommError => CardError::Reset,
        Error::NoService | Error::ServiceStopped => CardError::NoService,
        other => CardError::Other(other.to_string()),
    }
}
