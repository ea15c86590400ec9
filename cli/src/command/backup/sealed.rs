//! The age layer: who can open a backup, and with what it is opened.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Write},
    iter,
    path::Path,
    sync::Arc,
};

use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt};
use secrecy::SecretString;
use signet_proto::archive::{self, ArchiveError, Manifest, Member, path};
use zeroize::Zeroizing;

use super::{person::Person, shared};
use crate::{
    Context,
    args::OpenWithArgs,
    failure::{Failure, exit, io_words},
    secrets::Held,
    ui::{
        Asked, Ui, blocking,
        terminal::{self, Typed},
        text::escape,
    },
};

/// log2 of scrypt's N as written: about a second and 256 MiB, as for keyrings.
const WORK_FACTOR: u8 = 18;
/// As read: four times that. A larger one is an attack on our memory.
const MAX_WORK_FACTOR: u8 = 20;
/// Fewest characters of a new passphrase that is typed.
const MIN_TYPED: usize = 8;
/// Tries that a person gets.
const ATTEMPTS: u32 = 3;
/// Largest file of recipients or identities.
const MAX_LIST: u64 = 64 * 1024;
/// Most recipients of one backup.
const MAX_RECIPIENTS: usize = 64;
/// First line of an age file (age-encryption.org/v1).
const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// Who can open a backup.
pub(crate) enum Lock {
    /// Whoever knows this.
    Passphrase(Held),
    /// Whoever has one of the identities.
    Recipients(Vec<Box<dyn Recipient + Send>>),
}

impl Lock {
    /// The recipients of the command line, else a new passphrase.
    pub(crate) async fn new(recipients: &[String], ctx: &mut Context) -> Result<Self, Failure> {
        if recipients.is_empty() {
            return Ok(Self::Passphrase(new_passphrase(ctx).await?));
        }
        let mut found: Vec<Box<dyn Recipient + Send>> = Vec::new();
        let mut plugins = Vec::new();
        for text in recipients {
            for line in lines(text)? {
                add(&line, &mut found, &mut plugins)?;
            }
        }
        let plugins: Vec<age::plugin::Recipient> = plugins;
        let mut names: Vec<&str> = plugins.iter().map(age::plugin::Recipient::plugin).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let callbacks = Person::new(&ctx.ui);
            let plugin = age::plugin::RecipientPluginV1::new(name, &plugins, &[], callbacks);
            let plugin = plugin.map_err(|_| no_plugin(name))?;
            found.push(Box::new(plugin));
        }
        if found.len() > MAX_RECIPIENTS {
            return Err(Failure::usage("more than 64 recipients"));
        }
        Ok(Self::Recipients(found))
    }

    /// Encrypts what `fill` writes.
    pub(crate) fn seal<W: Write>(
        &self,
        out: W,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<W> {
        let failed = |error: age::EncryptError| io::Error::other(error.to_string());
        let encryptor = match self {
            Self::Passphrase(passphrase) => {
                let text = std::str::from_utf8(passphrase)
                    .map_err(|_| io::Error::other("the passphrase is not UTF-8"))?;
                let mut recipient = scrypt::Recipient::new(SecretString::from(text.to_owned()));
                recipient.set_work_factor(WORK_FACTOR);
                Encryptor::with_recipients(iter::once(&recipient as &dyn Recipient))
                    .map_err(failed)?
            }
            Self::Recipients(recipients) => {
                let recipients = recipients
                    .iter()
                    .map(|recipient| &**recipient as &dyn Recipient);
                Encryptor::with_recipients(recipients).map_err(failed)?
            }
        };
        let mut writer = encryptor.wrap_output(out)?;
        fill(&mut writer)?;
        writer.finish()
    }
}

fn add(
    line: &str,
    found: &mut Vec<Box<dyn Recipient + Send>>,
    plugins: &mut Vec<age::plugin::Recipient>,
) -> Result<(), Failure> {
    if let Ok(recipient) = line.parse::<age::x25519::Recipient>() {
        found.push(Box::new(recipient));
    } else if let Ok(recipient) = line.parse::<age::plugin::Recipient>() {
        plugins.push(recipient);
    } else if let Ok(recipient) = line.parse::<age::ssh::Recipient>() {
        found.push(Box::new(recipient));
    } else {
        return Err(Failure::usage(format!("{:?} is no recipient", escape(line))).fix(
            "an age recipient (age1…), an SSH public key (ssh-ed25519 or ssh-rsa), or a file that \
             holds one on each line",
        ));
    }
    Ok(())
}

/// What `--recipient` names: itself, or the lines of a file.
fn lines(text: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(text);
    if text.starts_with("age1") || text.starts_with("ssh-") || !path.is_file() {
        return Ok(vec![text.to_owned()]);
    }
    let read = || -> io::Result<String> {
        let mut content = String::new();
        File::open(path)?
            .take(MAX_LIST)
            .read_to_string(&mut content)?;
        Ok(content)
    };
    let content = read().map_err(|error| Failure::file("read", path, error))?;
    let lines = content.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn no_plugin(name: &str) -> Failure {
    let name = escape(name);
    Failure::new(
        exit::FAILED,
        "age_plugin",
        format!("there is no age-plugin-{name} on the PATH"),
    )
    .fix(format!(
        "install age-plugin-{name}, or use another recipient"
    ))
}

async fn new_passphrase(ctx: &mut Context) -> Result<Held, Failure> {
    if let Some(given) = ctx.secrets.archive().await? {
        return Ok(given);
    }
    let nobody = || {
        Failure::new(
            exit::LOCKED,
            "locked",
            "a backup needs a passphrase or a recipient, and nobody is there to choose",
        )
        .fix("give --passphrase-fd N, or --recipient RECIPIENT")
    };
    if !ctx.ui.may_ask() {
        return Err(nobody());
    }
    let typed = blocking(|| {
        terminal::show(&[
            "Whoever has this backup and its passphrase can try the keys' own.".to_owned(),
        ]);
        loop {
            let first = match terminal::secret("New passphrase for the backup: ") {
                Asked::Answer(secret) => secret,
                other => return other,
            };
            if String::from_utf8_lossy(&first).chars().count() < MIN_TYPED {
                terminal::show(&[format!("It must have at least {MIN_TYPED} characters.")]);
                continue;
            }
            match terminal::secret("The same once more: ") {
                Asked::Answer(second) if *second == *first => return Asked::Answer(first),
                Asked::Answer(_) => {
                    terminal::show(&["The two are not the same.".to_owned()]);
                }
                other => return other,
            }
        }
    });
    match typed.await {
        Asked::Answer(secret) => Ok(Arc::new(secret)),
        Asked::Cancelled => Err(Failure::interrupted()),
        Asked::NoTerminal => Err(nobody()),
    }
}

/// What a file holds, as far as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An age file.
    Age,
    /// A tar, gzipped or not.
    Tar,
    /// Text: PEM, or nothing that is known.
    Other,
}

/// Looks at the first bytes of a file.
pub(crate) fn kind(file: &Path) -> io::Result<Kind> {
    let mut head = Vec::new();
    // "ustar" stands at offset 257 (POSIX.1-1988).
    File::open(file)?.take(512).read_to_end(&mut head)?;
    let tar = head.starts_with(&[0x1f, 0x8b]) || head.get(257..262) == Some(b"ustar");
    Ok(match (head.starts_with(MAGIC), tar) {
        (true, _) => Kind::Age,
        (false, true) => Kind::Tar,
        (false, false) => Kind::Other,
    })
}

/// Opens a backup and checks every digest in it.
///
/// # Errors
///
/// Exit 5 for a wrong passphrase or identity, exit 1 for what is damaged.
pub(crate) async fn open(
    file: &Path,
    with: &OpenWithArgs,
    ctx: &mut Context,
) -> Result<(Manifest, Vec<Member>), Failure> {
    let read = Failure::file;
    let kind = kind(file).map_err(|error| read("read", file, error))?;
    if kind != Kind::Age {
        return Err(Failure::new(
            exit::FAILED,
            "bad_archive",
            format!(
                "{} is no backup of Signet's: it is not encrypted with age",
                file.display()
            ),
        )
        .fix("`signet restore` reads tarballs, directories and bundles of Docker's keys, too"));
    }
    let at = file.to_owned();
    let header = move || Decryptor::new_buffered(BufReader::new(File::open(at)?));
    let decryptor = blocking(header)
        .await
        .map_err(|error| unreadable(file, error))?;
    if !decryptor.is_scrypt() {
        let opened = identified(with, &ctx.ui)?;
        let at = file.to_owned();
        let members = blocking(move || all(|take| with_identities(decryptor, &at, &opened, take)));
        return checked(file, members.await?);
    }
    if !with.identity.is_empty() || !with.share.is_empty() {
        return Err(Failure::usage(format!(
            "{} is encrypted with a passphrase, not to a recipient: leave out --identity and \
             --share",
            file.display()
        )));
    }
    let mut given = ctx.secrets.archive().await?;
    for attempt in 1..=ATTEMPTS {
        let unattended = given.is_some();
        let passphrase = match given.take() {
            Some(given) => given,
            None => Arc::new(typed(file, attempt, ctx).await?),
        };
        let at = file.to_owned();
        let opened = blocking(move || {
            let input = File::open(&at).map_err(|error| Failure::file("read", &at, error))?;
            all(|take| with_passphrase(input, &at, &passphrase, take))
        });
        match opened.await {
            Err(failure) if failure.code == WRONG && !unattended && attempt < ATTEMPTS => {}
            members => return checked(file, members?),
        }
    }
    unreachable!("the last attempt returns")
}

const WRONG: &str = "wrong_passphrase";

async fn typed(file: &Path, attempt: u32, ctx: &Context) -> Result<Typed, Failure> {
    let nobody = || {
        Failure::new(
            exit::LOCKED,
            "locked",
            format!(
                "{} needs its passphrase, and nobody is there to give it",
                file.display()
            ),
        )
        .fix("give it with --passphrase-fd N")
    };
    if !ctx.ui.may_ask() {
        return Err(nobody());
    }
    let question = format!("Passphrase of {}: ", escape(&file.display().to_string()));
    let asked = blocking(move || {
        if attempt > 1 {
            terminal::show(&["That is not its passphrase.".to_owned()]);
        }
        terminal::secret(&question)
    });
    match asked.await {
        Asked::Answer(secret) => Ok(secret),
        Asked::Cancelled => Err(Failure::interrupted()),
        Asked::NoTerminal => Err(nobody()),
    }
}

/// Opens and unpacks a backup with a passphrase.
pub(crate) fn with_passphrase(
    input: impl io::Read,
    file: &Path,
    passphrase: &Zeroizing<Vec<u8>>,
    take: &mut dyn FnMut(Member),
) -> Result<(), Failure> {
    let wrong = || {
        Failure::new(
            exit::LOCKED,
            WRONG,
            format!("that is not the passphrase of {}", file.display()),
        )
    };
    let text = std::str::from_utf8(passphrase).map_err(|_| wrong())?;
    let decryptor =
        Decryptor::new_buffered(BufReader::new(input)).map_err(|error| unreadable(file, error))?;
    let mut identity = scrypt::Identity::new(SecretString::from(text.to_owned()));
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    let reader = decryptor.decrypt(iter::once(&identity as &dyn Identity));
    let reader = reader.map_err(|error| match error {
        DecryptError::DecryptionFailed => wrong(),
        error => unreadable(file, error),
    })?;
    unpack(BufReader::new(reader), file, take)
}

/// The members that `open` hands out.
fn all(
    open: impl FnOnce(&mut dyn FnMut(Member)) -> Result<(), Failure>,
) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    open(&mut |member| members.push(member))?;
    Ok(members)
}

/// Whether `open` hands out exactly these members.
pub(super) fn is_same(
    members: &[Member],
    open: impl FnOnce(&mut dyn FnMut(Member)) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut wanted = members.iter();
    let mut same = true;
    open(&mut |member| same &= wanted.next() == Some(&member))?;
    Ok(same && wanted.next().is_none())
}

/// Opens and unpacks a backup with identities.
pub(super) fn with_identities<R: io::BufRead>(
    decryptor: Decryptor<R>,
    file: &Path,
    identities: &[Opens],
    take: &mut dyn FnMut(Member),
) -> Result<(), Failure> {
    let each = identities.iter();
    let reader = decryptor.decrypt(each.map(|identity| &**identity as &dyn Identity));
    let reader = reader.map_err(|error| unreadable(file, error))?;
    unpack(BufReader::new(reader), file, take)
}

/// What opens a backup.
pub(super) type Opens = Box<dyn Identity + Send + Sync>;

/// Identities from files, in age's or OpenSSH's format, and the one that shares give.
fn identified(with: &OpenWithArgs, ui: &Ui) -> Result<Vec<Opens>, Failure> {
    let files = &with.identity;
    if files.is_empty() && with.share.is_empty() {
        return Err(Failure::new(
            exit::LOCKED,
            "locked",
            "the backup is encrypted to a recipient, not with a passphrase",
        )
        .fix(
            "name the file of the identity, --identity FILE, or shares of its key, --share FILE",
        ));
    }
    let mut found: Vec<Opens> = Vec::new();
    if !with.share.is_empty() {
        found.push(Box::new(shared::combine(&with.share, ui)?));
    }
    for file in files {
        let unread = |error| Failure::file("read", file, error);
        let mut content = Zeroizing::new(Vec::new());
        let input = File::open(file).map_err(unread)?;
        input
            .take(MAX_LIST)
            .read_to_end(&mut content)
            .map_err(unread)?;
        if content.starts_with(b"-----BEGIN ") {
            let name = file.display().to_string();
            let key = age::ssh::Identity::from_buffer(&content[..], Some(name)).map_err(unread)?;
            if let age::ssh::Identity::Unsupported(_) = key {
                return Err(Failure::new(
                    exit::FAILED,
                    "identity",
                    format!(
                        "{} is an SSH key of a kind that age does not use",
                        file.display()
                    ),
                ));
            }
            found.push(Box::new(key.with_callbacks(Person::new(ui))));
            continue;
        }
        let list = age::IdentityFile::from_buffer(&content[..]).map_err(unread)?;
        let list = list.with_callbacks(Person::new(ui)).into_identities();
        found.extend(list.map_err(|error| {
            let why = error.to_string();
            Failure::new(
                exit::FAILED,
                "identity",
                format!("{}: {why}", file.display()),
            )
        })?);
    }
    Ok(found)
}

fn unreadable(file: &Path, error: DecryptError) -> Failure {
    let at = file.display();
    match error {
        DecryptError::NoMatchingKeys => Failure::new(
            exit::LOCKED,
            "wrong_identity",
            format!("{at} is not encrypted to any of these identities"),
        ),
        DecryptError::KeyDecryptionFailed => Failure::new(
            exit::LOCKED,
            "locked",
            "the SSH key was not opened by its passphrase".to_owned(),
        ),
        DecryptError::ExcessiveWork { required, .. } => bad(
            file,
            &format!(
                "its scrypt work factor is {required}, and {MAX_WORK_FACTOR} is the most accepted"
            ),
        ),
        DecryptError::Io(error) => bad(file, &io_words(&error)),
        DecryptError::PluginResolve(_) | DecryptError::Plugin(_) => Failure::new(
            exit::FAILED,
            "age_plugin",
            format!("an age plugin failed: {error}"),
        ),
        _ => bad(file, &"its header was changed"),
    }
}

/// What is wrong with a file that is no good.
pub(crate) fn bad(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        exit::FAILED,
        "bad_archive",
        format!(
            "{} is damaged or no backup: {}",
            file.display(),
            escape(&why.to_string())
        ),
    )
    .fix("nothing was changed; use another copy of it")
}

/// The members of one of our own archives.
fn unpack(
    input: impl io::BufRead,
    file: &Path,
    take: &mut dyn FnMut(Member),
) -> Result<(), Failure> {
    let unknown = std::cell::RefCell::new(None);
    let wanted = |path: &str| {
        let limit = archive::size_limit(path);
        if limit.is_none() {
            unknown.borrow_mut().get_or_insert_with(|| path.to_owned());
        }
        limit
    };
    let mut input = input;
    archive::read(&mut input, wanted, take).map_err(|error| match &error {
        // What age says of a changed chunk has no words.
        ArchiveError::Io(inner) => bad(file, &io_words(inner)),
        _ => bad(file, &error),
    })?;
    // To the end: age's last chunk says that there is no more.
    match input.fill_buf() {
        Ok([]) => {}
        Ok(_) => return Err(bad(file, &"something comes after its end")),
        Err(error) => return Err(bad(file, &io_words(&error))),
    }
    match unknown.into_inner() {
        Some(path) => Err(bad(
            file,
            &format!("it holds {path:?}, which no backup holds"),
        )),
        None => Ok(()),
    }
}

fn checked(file: &Path, members: Vec<Member>) -> Result<(Manifest, Vec<Member>), Failure> {
    let manifest = members.iter().find(|member| member.path == path::MANIFEST);
    let manifest = manifest.ok_or_else(|| bad(file, &"it holds no manifest.json"))?;
    let manifest = Manifest::parse(&manifest.data).map_err(|error| match error {
        archive::BadManifest::Newer(_) => Failure::new(
            exit::FAILED,
            "newer_archive",
            format!("{}: {error}", file.display()),
        )
        .fix("open it with the Signet that wrote it, or a newer one"),
        error => bad(file, &error),
    })?;
    manifest
        .check(&members)
        .map_err(|error| bad(file, &error))?;
    Ok((manifest, members))
}
