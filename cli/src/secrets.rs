//! Passphrases that nobody has to type: from descriptors, files and variables.
//!
//! They are read by the command, never by the agent, and answer only prompts of the command's own
//! stream. Sources are tried in the order descriptor, file, variable; one that was refused for a
//! key is not tried again for that key. Of each source the first line counts, without its end.
//! PINs come from descriptors only, and by rules of their own: [`cards`].

pub(crate) mod cards;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    sync::Arc,
};

use signet_proto::v1::{NeedPassphrase, need_passphrase::What, secret::Source};
use zeroize::Zeroizing;

use crate::{
    args::{Command, FdSpec, Globals, KeyCommand, KeyringCommand},
    failure::{Failure, exit, io_words},
    ui,
};

/// Most bytes read from one source, 64 KiB: a passphrase is one line.
const MAX_SECRET: u64 = 64 * 1024;

/// Bytes of a secret, shared by the prompts that one source answers, wiped with the last of them.
pub(crate) type Held = Arc<Zeroizing<Vec<u8>>>;

/// Every source that this command was given.
pub(crate) struct Secrets {
    offers: Vec<Offer>,
    /// Descriptors are read once, even when two prompts use one.
    read: BTreeMap<i32, Held>,
    /// The offer that answered a question last.
    last: BTreeMap<Question, usize>,
    /// Offers that were refused, each for one question.
    refused: BTreeSet<(usize, Question)>,
    /// A second secret is always a new one: the files hold the old.
    changes_secret: bool,
    /// PINs and management keys, which only descriptors hold.
    cards: cards::CardSecrets,
    /// The keyring's passphrase became the root keyring's in this command, and so opens it.
    stood_in: bool,
}

/// One source, and which prompts it answers.
struct Offer {
    answers: Answers,
    from: From,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answers {
    Keyring,
    Root,
    /// Docker-format keys that are no root keys.
    Repository,
    /// Docker-format root keys.
    DockerRoot,
    /// The key of this name.
    Key(String),
    /// Whatever file `key import` or `key export` opens; the exported copy where nothing else is
    /// given for it.
    File,
    /// The archive of `backup` and `restore`.
    Archive,
    /// The second secret.
    New,
}

#[derive(Clone, Debug)]
enum From {
    Descriptor(i32),
    File {
        variable: &'static str,
        path: PathBuf,
    },
    Variable {
        name: &'static str,
        value: Held,
    },
}

/// What a prompt asks for, across its attempts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    what: i32,
    key_id: String,
    new: bool,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} sources)", self.offers.len())
    }
}

impl Secrets {
    /// Collects the sources; reads only the variables.
    ///
    /// # Errors
    ///
    /// Exit 2: a descriptor without its WHAT where none is implied.
    pub(crate) fn new(
        globals: &Globals,
        command: &Command,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let mut offers = Vec::new();
        for spec in &globals.passphrase_fd {
            for answers in meaning(spec, command)? {
                offers.push(Offer {
                    answers,
                    from: From::Descriptor(spec.fd),
                });
            }
        }
        if let Some(fd) = globals.new_passphrase_fd {
            // First: it alone is meant for the second secret.
            offers.insert(
                0,
                Offer {
                    answers: Answers::New,
                    from: From::Descriptor(fd),
                },
            );
        }
        let set = |name| env(name).filter(|value| !value.is_empty());
        for (variable, answers) in [
            ("SIGNET_PASSPHRASE_FILE", Answers::Keyring),
            ("SIGNET_ROOT_PASSPHRASE_FILE", Answers::Root),
        ] {
            if let Some(path) = set(variable) {
                let from = From::File {
                    variable,
                    path: path.into(),
                };
                offers.push(Offer { answers, from });
            }
        }
        for (name, answers) in [
            ("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", Answers::DockerRoot),
            (
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                Answers::Repository,
            ),
        ] {
            if let Some(value) = set(name) {
                let value = Arc::new(Zeroizing::new(value.into_vec()));
                offers.push(Offer {
                    answers,
                    from: From::Variable { name, value },
                });
            }
        }
        Ok(Self {
            offers,
            read: BTreeMap::new(),
            last: BTreeMap::new(),
            refused: BTreeSet::new(),
            changes_secret: changes_secret(command),
            cards: cards::CardSecrets::new(globals, command),
            stood_in: false,
        })
    }

    /// The next source that may answer `ask`, and what it holds.
    ///
    /// # Errors
    ///
    /// Exit 5 when a source is there but cannot be read, naming it.
    pub(crate) async fn next(
        &mut self,
        ask: &NeedPassphrase,
    ) -> Result<Option<(Held, Source)>, Failure> {
        let question = Question {
            what: ask.what,
            key_id: ask.key_id.clone(),
            new: ask.new_secret,
        };
        if !ask.refused.is_empty()
            && let Some(last) = self.last.remove(&question)
        {
            self.refused.insert((last, question.clone()));
        }
        let fitting = (0..self.offers.len()).find(|at| {
            self.answers(&self.offers[*at].answers, ask)
                && !self.refused.contains(&(*at, question.clone()))
        });
        let Some(at) = fitting else { return Ok(None) };
        self.last.insert(question, at);
        self.stood_in |= ask.what() == What::Root && self.offers[at].answers == Answers::Keyring;
        let (secret, source) = match self.offers[at].from.clone() {
            From::Descriptor(fd) => (self.descriptor(fd).await?, Source::Descriptor),
            From::File { variable, path } => {
                let named = format!("{} ({variable})", path.display());
                (
                    first_line_of(named, move || File::open(path)).await?,
                    Source::File,
                )
            }
            From::Variable { value, .. } => (value, Source::Variable),
        };
        Ok(Some((secret, source)))
    }

    /// The passphrase of the archive, if a descriptor holds it.
    ///
    /// # Errors
    ///
    /// Exit 5 when the descriptor cannot be read.
    pub(crate) async fn archive(&mut self) -> Result<Option<Held>, Failure> {
        let offer = self.offers.iter().find(|o| o.answers == Answers::Archive);
        match offer.map(|offer| offer.from.clone()) {
            Some(From::Descriptor(fd)) => self.descriptor(fd).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Forgets what was refused for files whose key is not known yet: the next file is another one.
    pub(crate) fn next_file(&mut self) {
        let of_file = |question: &Question| question.key_id.is_empty();
        self.last.retain(|question, _| !of_file(question));
        self.refused.retain(|(_, question)| !of_file(question));
    }

    /// Where the secret came from that answered `ask` last, for messages.
    pub(crate) fn last_source(&self, ask: &NeedPassphrase) -> Option<String> {
        let question = Question {
            what: ask.what,
            key_id: ask.key_id.clone(),
            new: ask.new_secret,
        };
        self.last
            .get(&question)
            .map(|at| match &self.offers[*at].from {
                From::Descriptor(fd) => format!("descriptor {fd}"),
                From::File { variable, path } => format!("{} ({variable})", path.display()),
                From::Variable { name, .. } => (*name).to_owned(),
            })
    }

    async fn descriptor(&mut self, fd: i32) -> Result<Held, Failure> {
        if let Some(read) = self.read.get(&fd) {
            return Ok(Arc::clone(read));
        }
        let secret = first_line_of(format!("descriptor {fd}"), move || duplicate(fd)).await?;
        self.read.insert(fd, Arc::clone(&secret));
        Ok(secret)
    }

    fn answers(&self, answers: &Answers, ask: &NeedPassphrase) -> bool {
        let what = ask.what();
        if self.changes_secret && ask.new_secret {
            return *answers == Answers::New;
        }
        match answers {
            Answers::Keyring => {
                // Stands in for the root keyring's when both are being made.
                let stands_in = (ask.new_secret || self.stood_in) && !self.has_root();
                what == What::Keyring || (what == What::Root && stands_in)
            }
            Answers::Root => what == What::Root,
            Answers::DockerRoot => what == What::Key && ask.role == "root",
            Answers::Repository => what == What::Key && ask.role != "root",
            Answers::Key(name) => what == What::Key && is_called(ask, name),
            Answers::File => {
                (what == What::Key && !ask.new_secret)
                    || (what == What::Export && !self.has(&Answers::New))
            }
            Answers::Archive => false,
            Answers::New => what == What::Export,
        }
    }

    fn has(&self, answers: &Answers) -> bool {
        self.offers.iter().any(|offer| offer.answers == *answers)
    }

    fn has_root(&self) -> bool {
        self.has(&Answers::Root)
    }
}

/// Whether the second secret of this command replaces the first.
const fn changes_secret(command: &Command) -> bool {
    match command {
        Command::Keyring(_) => true,
        Command::Key(args) => matches!(args.command, KeyCommand::Passphrase(_)),
        _ => false,
    }
}

/// Which prompts `--passphrase-fd` answers.
fn meaning(spec: &FdSpec, command: &Command) -> Result<Vec<Answers>, Failure> {
    let Some(what) = spec.what.as_deref() else {
        return match command {
            Command::Unlock(_) | Command::Grant(_) => Ok(vec![Answers::Keyring]),
            Command::Backup(_) | Command::Restore(_) => Ok(vec![Answers::Archive]),
            Command::Keyring(args) => {
                let (KeyringCommand::Passphrase(which) | KeyringCommand::Rotate(which)) =
                    &args.command;
                Ok(vec![if which.root {
                    Answers::Root
                } else {
                    Answers::Keyring
                }])
            }
            Command::Key(args) => match args.command {
                KeyCommand::Import(_) | KeyCommand::Export(_) => Ok(vec![Answers::File]),
                _ => Err(says_not_what(spec.fd)),
            },
            _ => Err(says_not_what(spec.fd)),
        };
    };
    match what {
        "keyring" => Ok(vec![Answers::Keyring]),
        "root" => Ok(vec![Answers::Root, Answers::DockerRoot]),
        "repository" => Ok(vec![Answers::Repository]),
        "archive" => Ok(vec![Answers::Archive]),
        key => Ok(vec![Answers::Key(key.to_owned())]),
    }
}

fn says_not_what(fd: i32) -> Failure {
    Failure::usage(format!(
        "--passphrase-fd {fd} does not say what the passphrase is for"
    ))
    .fix(format!(
        "--passphrase-fd keyring:{fd}, root:{fd}, repository:{fd} (keys in Docker's directory) \
             or KEY:{fd}"
    ))
}

/// Whether `name` (an ID, a prefix of at least 7 digits, a label, ROLE@GUN) is the key asked for.
fn is_called(ask: &NeedPassphrase, name: &str) -> bool {
    name == ask.key_id
        || (name.len() >= 7 && ask.key_id.starts_with(&name.to_ascii_lowercase()))
        || (!ask.label.is_empty() && name == ask.label)
        || name.split_once('@') == Some((ask.role.as_str(), ask.gun.as_str()))
}

/// A descriptor of our own for one that was inherited.
fn duplicate(fd: i32) -> io::Result<File> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let through_pidfd = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, fd, PidfdGetfdFlags::empty()));
    match through_pidfd {
        Ok(duplicate) => Ok(duplicate.into()),
        Err(rustix::io::Errno::BADF) => Err(io::Error::other("it is not open")),
        // Kernels before 5.6, and sandboxes: the same file, opened once more.
        Err(_) => File::open(format!("/proc/self/fd/{fd}")),
    }
}

/// Reads the first line of what `open` opens, off the runtime: a pipe may be slow.
async fn first_line_of(
    named: String,
    open: impl FnOnce() -> io::Result<File> + Send + 'static,
) -> Result<Held, Failure> {
    let line = ui::blocking(move || open().and_then(|mut file| first_line(&mut file))).await;
    let unusable = |why: &str| {
        Failure::new(
            exit::LOCKED,
            "secret_source",
            format!("no secret from {named}: {why}"),
        )
    };
    match line {
        Ok(line) if line.is_empty() => Err(unusable("its first line is empty")),
        Ok(line) => Ok(Arc::new(line)),
        Err(error) => Err(unusable(&io_words(&error))),
    }
}

/// The first line, at most 64 KiB, without `\n` or `\r\n`.
fn first_line(file: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Full size at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_SECRET as usize + 1]);
    let mut length = 0;
    let end = loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break length,
            Ok(count) => {
                if let Some(end) = bytes[length..length + count]
                    .iter()
                    .position(|b| *b == b'\n')
                {
                    break length + end;
                }
                length += count;
                if length > MAX_SECRET as usize {
                    return Err(io::Error::other("its first line is longer than 64 KiB"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Ok(Zeroizing::new(line.to_vec()))
}

#[cfg(test)]
mod tests;
