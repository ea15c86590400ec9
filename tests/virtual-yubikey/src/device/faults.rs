//! Answers that no card would give.

use std::collections::VecDeque;

/// What happens instead of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// These bytes come back, status word included; the card does nothing.
    Answer(Vec<u8>),
    /// The card is pulled out in the middle of the command.
    Vanish,
}

/// Faults to come, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<(u8, Fault, u32)>);

impl Faults {
    pub(super) fn add(&mut self, ins: u8, fault: Fault, times: u32) {
        if times > 0 {
            self.0.push_back((ins, fault, times));
        }
    }

    pub(super) fn next(&mut self, ins: u8) -> Option<Fault> {
        let at = self.0.iter().position(|fault| fault.0 == ins)?;
        let (_, fault, times) = self.0.get_mut(at)?;
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.0.remove(at);
        }
        Some(fault)
    }
}
