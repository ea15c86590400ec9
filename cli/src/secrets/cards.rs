//! PINs and management keys that nobody has to type: from descriptors, and from nowhere else.
//!
//! A card blocks after a few wrong PINs, so they are handed out more carefully than passphrases: to
//! the card that they were meant for only, never again once it has refused them, and never where
//! they cannot be right.

use std::collections::BTreeMap;

use signet_proto::v1::{NeedPin, need_pin::What, secret::Source};

use super::{Held, Secrets};
use crate::{
    args::{CardCommand, Command, Globals, PinFd},
    failure::{Failure, exit},
    ui::card::{named, tries},
};

/// Bytes of a PIN or PUK, 6 to 8 (SP 800-73-4 part 2, section 2.4.3; a YubiKey takes six to eight
/// characters of any kind).
pub(crate) const PIN_BYTES: std::ops::RangeInclusive<usize> = 6..=8;

/// The descriptors for cards that this command was given.
#[derive(Debug)]
pub(super) struct CardSecrets {
    pins: Vec<PinFd>,
    management_key: Option<i32>,
    new_pin: Option<i32>,
    sets_up: bool,
    /// The descriptor that answered last, by what was asked and the card's serial.
    given: BTreeMap<(i32, u32), i32>,
}

impl CardSecrets {
    pub(super) fn new(globals: &Globals, command: &Command) -> Self {
        let card = match command {
            Command::Card(args) => Some(&args.command),
            _ => None,
        };
        let sets_up = matches!(card, Some(CardCommand::Setup(_)));
        Self {
            pins: globals.pin_fd.clone(),
            management_key: globals.management_key_fd,
            // A card that is set up has no PIN of anybody's yet: what is given as its PIN becomes it.
            new_pin: globals.new_passphrase_fd.filter(|_| card.is_some()),
            sets_up,
            given: BTreeMap::new(),
        }
    }

    fn descriptor(&self, ask: &NeedPin, serial: u32) -> Result<Option<i32>, Failure> {
        match ask.what() {
            What::Pin => self.pin(ask, serial),
            What::NewPin => match self.new_pin {
                None if self.sets_up => self.pin(ask, serial),
                fd => Ok(fd),
            },
            What::ManagementKey => Ok(self.management_key),
            // A PUK is what helps when the rest went wrong: it is typed.
            What::Puk | What::NewPuk | What::Unspecified => Ok(None),
        }
    }

    fn pin(&self, ask: &NeedPin, serial: u32) -> Result<Option<i32>, Failure> {
        let own = self.pins.iter().find(|pin| pin.serial == Some(serial));
        if let Some(own) = own {
            return Ok(Some(own.fd));
        }
        match self.pins.iter().find(|pin| pin.serial.is_none()) {
            Some(any) if ask.cards != 1 => Err(says_not_which(any.fd, ask.cards, serial)),
            any => Ok(any.map(|any| any.fd)),
        }
    }
}

fn says_not_which(fd: i32, cards: u32, serial: u32) -> Failure {
    Failure::usage(format!(
        "--pin-fd {fd} does not say which card its PIN is for, and this command speaks to {}",
        match cards {
            0 => "cards that are not known yet".to_owned(),
            cards => format!("{cards} of them"),
        }
    ))
    .fix(format!("--pin-fd {serial}:{fd}, one for each card"))
}

impl Secrets {
    /// Whether this command sets up a card, whose PUK may be made for it.
    pub(crate) const fn sets_up_card(&self) -> bool {
        self.cards.sets_up
    }

    /// What a descriptor holds for `ask`, if one was given for it.
    ///
    /// # Errors
    ///
    /// Exit 2: a PIN that names no card, where the command speaks to several. Exit 5: the card has
    /// refused it, it cannot be a PIN, or the descriptor cannot be read.
    pub(crate) async fn next_pin(
        &mut self,
        ask: &NeedPin,
    ) -> Result<Option<(Held, Source)>, Failure> {
        let serial = ask.card.as_ref().map_or(0, |card| card.serial);
        let question = (ask.what, serial);
        if !ask.refused.is_empty()
            && let Some(fd) = self.cards.given.remove(&question)
        {
            return Err(refused(ask, fd));
        }
        let Some(fd) = self.cards.descriptor(ask, serial)? else {
            return Ok(None);
        };
        let secret = self.descriptor(fd).await?;
        if ask.what() != What::ManagementKey && !PIN_BYTES.contains(&secret.len()) {
            return Err(Failure::new(
                exit::LOCKED,
                "bad_pin",
                format!(
                    "the first line of descriptor {fd} is no PIN, and was not sent to the {}",
                    named(ask.card.as_ref())
                ),
            )
            .fix("a PIN has 6 to 8 characters"));
        }
        self.cards.given.insert(question, fd);
        Ok(Some((secret, Source::Descriptor)))
    }
}

fn refused(ask: &NeedPin, fd: i32) -> Failure {
    let what = match ask.what() {
        What::ManagementKey => "management key",
        _ => "PIN",
    };
    let mut message = format!(
        "the {} refused the {what} of descriptor {fd}: {}",
        named(ask.card.as_ref()),
        ask.refused
    );
    if let Some(left) = tries(ask.tries_left) {
        message = format!("{message} ({left})");
    }
    Failure::new(exit::LOCKED, "pin_refused", message)
        .fix("it was sent once and will not be sent again; run the command with the right one")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write as _},
        os::fd::AsRawFd as _,
    };

    use clap::Parser as _;
    use signet_proto::v1::CardName;

    use super::*;
    use crate::args::Cli;

    fn secrets(line: &str) -> Secrets {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        Secrets::new(&cli.globals, &cli.command, |_| None).unwrap()
    }

    fn ask(what: What, serial: u32, cards: u32) -> NeedPin {
        NeedPin {
            what: what.into(),
            card: Some(CardName {
                serial,
                ..CardName::default()
            }),
            tries_left: 3,
            cards,
            ..NeedPin::default()
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    fn next(secrets: &mut Secrets, ask: &NeedPin) -> Result<Option<String>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let found = runtime.block_on(secrets.next_pin(ask))?;
        Ok(found.map(|(secret, _)| String::from_utf8(secret.to_vec()).unwrap()))
    }

    #[test]
    fn a_pin_that_names_no_card_serves_the_only_one() {
        let pin = file("654321\n");
        let fd = pin.as_raw_fd();
        let mut secrets = secrets(&format!("signet push a --pin-fd {fd}"));
        assert_eq!(
            next(&mut secrets, &ask(What::Pin, 7, 1)).unwrap(),
            Some("654321".into())
        );
        for cards in [0, 2] {
            let failure = next(&mut secrets, &ask(What::Pin, 7, cards)).unwrap_err();
            assert_eq!(failure.exit, exit::USAGE);
            assert!(failure.fix.as_deref().unwrap().contains("--pin-fd 7:"));
        }
    }

    #[test]
    fn a_pin_answers_every_prompt_of_its_card_and_none_of_another() {
        let pin = file("654321");
        let fd = pin.as_raw_fd();
        let mut secrets = secrets(&format!("signet push a --pin-fd 7:{fd}"));
        for _ in 0..2 {
            assert!(next(&mut secrets, &ask(What::Pin, 7, 2)).unwrap().is_some());
        }
        assert!(next(&mut secrets, &ask(What::Pin, 8, 2)).unwrap().is_none());
        for what in [What::Puk, What::NewPuk, What::NewPin, What::ManagementKey] {
            assert!(next(&mut secrets, &ask(what, 7, 2)).unwrap().is_none());
        }
    }

    #[test]
    fn a_refused_pin_ends_the_command_and_is_not_offered_again() {
        let pin = file("654321");
        let fd = pin.as_raw_fd();
        let mut secrets = secrets(&format!("signet push a --pin-fd 7:{fd}"));
        let first = ask(What::Pin, 7, 1);
        assert!(next(&mut secrets, &first).unwrap().is_some());
        let again = NeedPin {
            refused: "wrong PIN".into(),
            tries_left: 2,
            ..first
        };
        let failure = next(&mut secrets, &again).unwrap_err();
        assert_eq!(failure.exit, exit::LOCKED);
        assert!(
            failure.message.contains("serial 7") && failure.message.contains("2 tries left"),
            "{failure}"
        );
        assert!(!failure.message.contains("654321"));
    }

    #[test]
    fn what_cannot_be_a_pin_is_not_sent() {
        for text in ["12345\n", "123456789\n"] {
            let pin = file(text);
            let fd = pin.as_raw_fd();
            let mut secrets = secrets(&format!("signet push a --pin-fd {fd}"));
            let failure = next(&mut secrets, &ask(What::Pin, 7, 1)).unwrap_err();
            assert_eq!(failure.code, "bad_pin");
        }
    }

    #[test]
    fn set_up_takes_the_pin_and_a_change_takes_the_new_one() {
        let (old, new) = (file("654321"), file("abcdef"));
        let (fd, new_fd) = (old.as_raw_fd(), new.as_raw_fd());
        let mut setup = secrets(&format!("signet card setup --pin-fd {fd}"));
        assert_eq!(
            next(&mut setup, &ask(What::NewPin, 7, 1)).unwrap(),
            Some("654321".into())
        );
        let rewind =
            |file: &tempfile::NamedTempFile| io::Seek::rewind(&mut file.as_file()).unwrap();
        rewind(&old);
        let mut change = secrets(&format!(
            "signet card pin --pin-fd {fd} --new-passphrase-fd {new_fd}"
        ));
        assert_eq!(
            next(&mut change, &ask(What::Pin, 7, 1)).unwrap(),
            Some("654321".into())
        );
        assert_eq!(
            next(&mut change, &ask(What::NewPin, 7, 1)).unwrap(),
            Some("abcdef".into())
        );
        rewind(&old);
        let mut key = secrets(&format!("signet key list --management-key-fd {fd}"));
        assert!(
            next(&mut key, &ask(What::ManagementKey, 7, 1))
                .unwrap()
                .is_some()
        );
    }
}
