//! Asking: the caller's own stream first, then whoever attends, then a pinentry; and the yes that was
//! given beforehand.

use std::{sync::Arc, time::Duration};

use signet_proto::v1::{PromptMode, prompt};

use super::{Person, YES_ATTENDED, own_session};
use crate::{
    keyring::{Fault, grants},
    ledger::NewEntry,
    presence::{
        Given, NoSecret, SecretName, SecretRequest, SessionId, Typed,
        approvals::{Scope, Wanted},
        pinentry::Terminal,
        question::{self, Answered},
        stream::{Carries, Stream},
    },
    service::now,
};

/// Yes on the caller's own stream.
const YES_ON_STREAM: u32 = 1;
/// The longest that a yes in a prompt may be given for.
const LONGEST_YES: Duration = Duration::from_secs(60 * 60);

/// What came of asking for a secret.
pub(super) enum Asked {
    Given((Given, Typed)),
    /// It may be held by now: somebody gave it elsewhere.
    Elsewhere,
    Nobody,
}

impl Person<'_> {
    /// Asks for a secret; `None` when nobody has it.
    pub(in crate::keyring) async fn ask<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        ask: &SecretRequest,
    ) -> Result<Option<(Given, Typed)>, Fault> {
        match self.ask_all(stream, ask, false).await? {
            Asked::Given(given) => Ok(Some(given)),
            Asked::Elsewhere | Asked::Nobody => Ok(None),
        }
    }

    /// Asks for a secret, on the caller's stream first, then whoever attends. `may_be_held`: a
    /// secret that comes to be held meanwhile will do.
    pub(super) async fn ask_all<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        ask: &SecretRequest,
        may_be_held: bool,
    ) -> Result<Asked, Fault> {
        self.asked = true;
        let asked;
        let ask = match &ask.card {
            None => ask,
            Some(of) => {
                let mut of = of.clone();
                of.cards = self.cards;
                asked = SecretRequest {
                    card: Some(of),
                    ..ask.clone()
                };
                &asked
            }
        };
        // Before anything is asked: what is opened from here on is not missed.
        let opening = self.keyring.broker.news.opening(self.session());
        if !self.caller.is_forwarded() {
            match stream.secret(ask, &self.summary).await {
                Ok(given) => return Ok(Asked::Given(given)),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => {}
                Err(fault) => return Err(fault),
            }
        }
        let question = question::for_secret(ask, &self.summary)?;
        let waits_for = waits_for(ask);
        let answer = tokio::select! {
            answer = self.ask_others(stream, &question, &waits_for, 0) => answer?,
            () = opening.happens(), if may_be_held && !ask.new_secret => return Ok(Asked::Elsewhere),
        };
        match answer {
            None if self.caller.is_forwarded() => Err(Fault::Forwarded),
            None => Ok(Asked::Nobody),
            Some(answered) => match question::secret(answered.reply) {
                Ok(given) => Ok(Asked::Given(given)),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => Ok(Asked::Nobody),
                Err(fault) => Err(fault),
            },
        }
    }

    /// Asks those who attend, then a pinentry; `None` when there is neither, or nobody may be asked.
    async fn ask_others<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &prompt::Ask,
        waits_for: &str,
        grant_seconds: u32,
    ) -> Result<Option<Answered>, Fault> {
        if self.mode == PromptMode::None {
            return Ok(None);
        }
        let shown = Arc::clone(self.shown()?);
        shown.says(waits_for);
        let keyring = self.keyring;
        let notifier = keyring.notifier();
        let mut lines = vec![self.caller.describe()];
        lines.extend(self.summary.iter().cloned());
        let title = format!("A request waits for {waits_for}: `signet watch` shows it");
        let asking = keyring.broker.ask(&shown, question, grant_seconds);
        let asking = notifier.while_waiting(&title, &lines, asking);
        let answer = stream.while_there(asking).await??;
        if answer.is_some() {
            self.answered_by = Some("attendant");
            shown.says("");
            return Ok(answer);
        }
        let (caller, terminal) = (self.caller.describe(), self.own_terminal());
        let asking = keyring.pinentry.ask(question, &caller, terminal.as_ref());
        let answer = stream.while_there(asking).await??;
        if answer.is_some() {
            self.answered_by = Some("pinentry");
        } else if self.caller.is_forwarded() {
            let title = "Another machine wanted to sign, and nobody attends: run `signet watch`";
            notifier.missed(title, &lines);
        }
        shown.says("");
        Ok(answer)
    }

    /// The caller's terminal, where its environment names the one that the kernel knows it by.
    fn own_terminal(&self) -> Option<Terminal> {
        /// Longest name of a kind of terminal (term(7)).
        const MAX_KIND: usize = 32;
        own_session(&self.caller)?;
        let claimed = self.claimed.as_ref()?;
        let path = format!("/dev/{}", self.caller.facts().terminal()?);
        let kind = claimed.terminal_type.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
        let fits = (1..=MAX_KIND).contains(&kind.len()) && kind.bytes().all(plain);
        (fits && claimed.terminal == path).then(|| Terminal {
            path,
            kind: kind.to_owned(),
        })
    }

    /// Asks a yes/no question; the grade of the yes.
    pub(in crate::keyring) async fn confirm<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
    ) -> Result<u32, Fault> {
        if !self.caller.is_forwarded() {
            if self.assume_yes {
                return Ok(YES_ON_STREAM);
            }
            if self.mode == PromptMode::None {
                return Err(Fault::NeedsYes(question.to_owned()));
            }
            match stream.confirm(question, &self.summary).await {
                Ok(true) => return Ok(YES_ON_STREAM),
                Ok(false) => return Err(Fault::Declined),
                Err(Fault::NoSecret(NoSecret::Unavailable)) => {}
                Err(fault) => return Err(fault),
            }
        }
        match self.attendants_yes(stream, question, 0).await? {
            true => Ok(YES_ATTENDED),
            false if self.caller.is_forwarded() => Err(Fault::Forwarded),
            false => Err(Fault::NeedsYes(question.to_owned())),
        }
    }

    /// Whether somebody who attends says yes to the change; false when nobody does attend. Counts
    /// for the rest of the request.
    ///
    /// # Errors
    ///
    /// [`Fault::Declined`].
    pub(in crate::keyring) async fn approve<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
        may_grant: bool,
    ) -> Result<bool, Fault> {
        if self.approved >= YES_ATTENDED {
            return Ok(true);
        }
        let longest = match may_grant && self.session().is_some() {
            true => u32::try_from(LONGEST_YES.as_secs()).unwrap_or(0),
            false => 0,
        };
        let yes = self.attendants_yes(stream, question, longest).await?;
        if yes {
            self.approved = YES_ATTENDED;
        }
        Ok(yes)
    }

    /// What the yes to this change was worth so far.
    pub(in crate::keyring) fn approved(&self) -> u32 {
        self.approved
    }

    /// Takes a grant that was given beforehand as the yes to this change, if one fits.
    pub(in crate::keyring) fn take_grant(
        &mut self,
        gun: &str,
        digests: Option<&[[u8; 32]]>,
    ) -> bool {
        if self.approved >= YES_ATTENDED {
            return true;
        }
        let session = self.session();
        let wanted = Wanted {
            gun,
            session,
            digests,
        };
        self.grant = self.keyring.approvals.answer(&wanted);
        if self.grant.is_some() {
            self.approved = YES_ATTENDED;
        }
        self.grant.is_some()
    }

    /// The terminal session for which a yes may be given.
    pub(crate) fn session(&self) -> Option<SessionId> {
        own_session(&self.caller)
    }

    /// The caller's terminal, empty if it has none.
    pub(crate) fn terminal(&self) -> String {
        let terminal = self.caller.facts().terminal();
        terminal.unwrap_or_default().to_owned()
    }

    async fn attendants_yes<M: Carries>(
        &mut self,
        stream: &mut Stream<M>,
        question: &str,
        grant_seconds: u32,
    ) -> Result<bool, Fault> {
        let ask = question::for_yes(question, &self.summary, YES_ATTENDED);
        let asked = self.ask_others(stream, &ask, "a yes", grant_seconds);
        let Some(answer) = asked.await? else {
            return Ok(false);
        };
        let longer = answer.grant_seconds.min(grant_seconds);
        match question::yes(answer.reply) {
            Ok(true) => {}
            Ok(false) => return Err(Fault::Declined),
            Err(Fault::NoSecret(NoSecret::Unavailable)) => return Ok(false),
            Err(fault) => return Err(fault),
        }
        if longer > 0
            && let Some(session) = self.session()
        {
            let scope = Scope::Session(session, self.terminal());
            let time = Duration::from_secs(longer.into());
            let words = grants::words(&scope, "", time);
            self.approved = YES_ATTENDED;
            let given = self.keyring.approvals.give(scope, "", time)?;
            let entry = NewEntry {
                kind: "grant",
                time: now(),
                summary: format!("{words} (grant {})", given.id),
                caller: self.caller.describe(),
                grade: YES_ATTENDED,
                outcome: "given".to_owned(),
                facts: self.facts(""),
                ..NewEntry::default()
            };
            self.keyring.log(entry).await?;
        }
        Ok(true)
    }
}

/// What a request waits for while a secret is asked for.
fn waits_for(ask: &SecretRequest) -> String {
    let of = ask.card.as_ref().map(|of| of.card.to_string());
    match (&ask.name, of) {
        (SecretName::Keyring, _) => "the passphrase of the keyring".to_owned(),
        (SecretName::Root, _) => "the passphrase of the root keyring".to_owned(),
        (SecretName::Key(_) | SecretName::Export, _) => "a passphrase".to_owned(),
        (SecretName::Pin(_), Some(card)) => format!("the PIN of {card}"),
        (_, Some(card)) => format!("a secret of {card}"),
        (_, None) => "a secret of a card".to_owned(),
    }
}
