//! `signet backup create`.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use age::Decryptor;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, open},
    io::Errno,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use signet_proto::{
    archive::{Manifest, Member, Writer, path},
    v1::{CreateBackup, backup_start::What},
};

use super::{
    manifest_json, missing, passphrases,
    sealed::{Lock, Opens, bad, is_same, with_identities, with_passphrase},
    shared::Shared,
};
use crate::{
    Context,
    agent::archive::archive,
    args::BackupCreateArgs,
    failure::{Failure, exit},
    ui::{blocking, text::escape},
};

/// Writes a backup.
pub(crate) async fn run(args: BackupCreateArgs, ctx: &mut Context) -> Result<(), Failure> {
    let host = host();
    // Before anything is asked: a passphrase chosen for nothing is annoying.
    let file = args.output.clone().unwrap_or_else(|| default_name(&host));
    if fs::symlink_metadata(&file).is_ok() {
        return Err(exists(&file));
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    if !dir.is_dir() {
        return Err(Failure::usage(format!("{} is no directory", dir.display())));
    }
    let shared = args.shares.map(|threshold| Shared::new(threshold, &file));
    let shared = shared.transpose()?;
    let lock = match &shared {
        Some(shared) => Lock::Recipients(vec![shared.recipient()]),
        None => Lock::new(&args.recipient, ctx).await?,
    };
    let create = CreateBackup {
        include: args
            .include
            .iter()
            .map(|what| what.as_str().to_owned())
            .collect(),
        host,
    };
    let archived = archive(ctx, What::Create(create), None).await?;
    let manifest = archived
        .members
        .first()
        .filter(|first| first.path == path::MANIFEST);
    let manifest = manifest.and_then(|manifest| Manifest::parse(&manifest.data).ok());
    let Some(manifest) = manifest else {
        return Err(
            Failure::new(exit::NO_AGENT, "agent_version", "the agent made no archive")
                .fix("it is of another version: `signet agent stop`, then run the command again"),
        );
    };
    let (at, created) = (file.clone(), manifest.created);
    let members = archived.members;
    let write = move || {
        write(&at, &dir, &lock, shared.as_ref(), &members, created)?;
        Ok::<_, Failure>(shared)
    };
    let shared = blocking(write).await?;
    let shares: Vec<String> = shared
        .iter()
        .flat_map(Shared::names)
        .map(|name| name.display().to_string())
        .collect();

    let packed = manifest
        .keys
        .iter()
        .filter(|key| !key.file.is_empty())
        .count();
    let proved = manifest.keys.iter().filter(|key| key.proved).count();
    let missing = missing(&archived.done.keys);
    if ctx.ui.is_json() {
        let mut object = manifest_json(&manifest);
        object["v"] = json!(1);
        object["file"] = json!(file);
        object["log_entry"] = json!(archived.done.log_entry);
        object["shares"] = json!(shares);
        if !missing.is_empty() {
            object["missing"] = json!(missing);
        }
        ctx.ui.json(&object);
    } else {
        ctx.ui.data(file.display());
        ctx.ui.say(format_args!(
            "{packed} keys are in it, {proved} of them opened and proved; their private keys are as \
             encrypted as they were"
        ));
        for key in manifest.keys.iter().filter(|key| !key.cards.is_empty()) {
            let card = &key.cards[0];
            ctx.ui.warn(format_args!(
                "the private key {} is on YubiKey {} alone and NOT in the backup",
                super::named(&key.role, &key.gun, &key.label, &key.id),
                card.serial
            ));
        }
        for note in &manifest.notes {
            ctx.ui.warn(escape(note));
        }
        let needed = passphrases(&manifest);
        if !needed.is_empty() {
            ctx.ui
                .say("a restore will need, besides the backup's own, these passphrases:");
            for one in needed {
                ctx.ui.say(format_args!("  {one}"));
            }
        }
        let mut with = String::new();
        if let Some(shared) = &shared {
            let threshold = shared.threshold();
            ctx.ui.say(format_args!(
                "any {threshold} shares open it; keep each in another place, as a file or printed:"
            ));
            for share in &shares {
                ctx.ui.data(share);
            }
            let needed = usize::from(threshold.needed());
            for share in shares.iter().take(needed) {
                with += &format!(" --share {share}");
            }
        }
        ctx.ui.say(format_args!(
            "rehearse it: signet backup verify {}{with}",
            file.display()
        ));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let failed = missing.len();
    Err(Failure::new(
        exit::PARTIAL,
        "partial",
        format!(
            "{} was written, but {failed} of its keys were not proved",
            file.display()
        ),
    )
    .fix("give their passphrases (--passphrase-fd, SIGNET_PASSPHRASE_FILE …) and make another")
    .missing(missing))
}

pub(super) fn exists(file: &Path) -> Failure {
    Failure::new(
        exit::FAILED,
        "file_exists",
        format!("{} exists already", file.display()),
    )
    .fix("choose another name with -o; nothing is ever overwritten")
}

/// A new file, whole and on disk, or none.
fn write(
    file: &Path,
    dir: &Path,
    lock: &Lock,
    shared: Option<&Shared>,
    members: &[Member],
    created: i64,
) -> Result<(), Failure> {
    let failed = |error| Failure::file("write", file, error);
    let temp = Temporary::new(dir).map_err(failed)?;
    let out = Hashing {
        out: io::BufWriter::new(temp.file()),
        hash: Sha256::new(),
    };
    let time = u64::try_from(created).unwrap_or(0);
    let sealed = lock.seal(out, |out| {
        let mut writer = Writer::new(out, time)?;
        for member in members {
            writer.add(&member.path, &member.data)?;
        }
        writer.finish()?;
        Ok(())
    });
    let Hashing { mut out, hash } = sealed.map_err(failed)?;
    out.flush().map_err(failed)?;
    drop(out);
    let written: [u8; 32] = hash.finalize().into();
    temp.file().sync_all().map_err(failed)?;

    // Read back: what is on the disk is what was meant.
    let mut hash = Sha256::new();
    let mut again = temp.file();
    again.rewind().map_err(failed)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match again.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let read: [u8; 32] = hash.finalize().into();
    if read != written {
        return Err(bad(file, &"what was read back is not what was written"));
    }
    if let Lock::Passphrase(passphrase) = lock {
        again.rewind().map_err(failed)?;
        let open = |take: &mut dyn FnMut(_)| with_passphrase(again, file, passphrase, take);
        if !is_same(members, open)? {
            return Err(bad(file, &"it does not open to what was packed"));
        }
    }
    if let Some(shared) = shared {
        again.rewind().map_err(failed)?;
        let opens: Opens = Box::new(shared.combined()?);
        let decryptor = Decryptor::new_buffered(io::BufReader::new(again));
        let decryptor = decryptor.map_err(|error| bad(file, &error))?;
        let open = |take: &mut dyn FnMut(_)| with_identities(decryptor, file, &[opens], take);
        if !is_same(members, open)? {
            return Err(bad(file, &"its shares do not open it to what was packed"));
        }
        shared.write(dir)?;
    }
    let kept = temp.keep(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => failed(error),
    });
    if kept.is_err()
        && let Some(shared) = shared
    {
        shared.remove();
    }
    kept?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

/// A file that gets its name only when it is whole.
pub(super) enum Temporary {
    /// Without any name: whoever is killed leaves nothing (`O_TMPFILE`, open(2)).
    Nameless(File),
    /// Where the file system has no such files.
    Named(tempfile::NamedTempFile),
}

impl Temporary {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match open(dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self::Nameless(file.into())),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let mut named = tempfile::Builder::new();
                named.prefix(".signet-").tempfile_in(dir).map(Self::Named)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Named(named) => named.as_file(),
        }
    }

    /// Gives it its name, which nobody has.
    pub(super) fn keep(self, name: &Path) -> io::Result<()> {
        match self {
            Self::Nameless(file) => {
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                Ok(linkat(CWD, own, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
            }
            Self::Named(named) => named
                .persist_noclobber(name)
                .map(drop)
                .map_err(|error| error.error),
        }
    }
}

/// Hashes what it passes on.
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The name of this machine, as far as a file name can hold it.
fn host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let safe = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c));
    let safe: String = safe.take(64).collect();
    let safe = safe.trim_start_matches('.');
    if safe.is_empty() {
        "host".to_owned()
    } else {
        safe.to_owned()
    }
}

/// `signet-HOST-DATE.tar.gz.age`; a second one of a day has the time, too.
fn default_name(host: &str) -> PathBuf {
    let now = jiff::Zoned::now();
    let by_day = PathBuf::from(format!(
        "signet-{host}-{}.tar.gz.age",
        now.strftime("%Y-%m-%d")
    ));
    if fs::symlink_metadata(&by_day).is_err() {
        return by_day;
    }
    PathBuf::from(format!(
        "signet-{host}-{}.tar.gz.age",
        now.strftime("%Y-%m-%d-%H%M%S")
    ))
}
