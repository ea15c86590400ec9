//! Share files: written beside a backup, and read where one is opened.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use age::{Recipient, x25519};
use zeroize::Zeroizing;

use super::create::Temporary;
use crate::{
    failure::{Failure, exit},
    shares::{self, Combined, Given, Share, ShareError, Threshold, file::MAX_FILE},
    ui::{Ui, text::escape},
};

/// A backup's shares, before they are files.
pub(super) struct Shared {
    recipient: x25519::Recipient,
    threshold: Threshold,
    files: Vec<(PathBuf, Share)>,
}

impl Shared {
    /// Splits a new key for the backup that is to be called `backup`.
    pub(super) fn new(threshold: Threshold, backup: &Path) -> Result<Self, Failure> {
        let name = |index: usize| {
            let mut name = backup.as_os_str().to_owned();
            name.push(format!(".share-{index}"));
            PathBuf::from(name)
        };
        let names: Vec<PathBuf> = (1..=usize::from(threshold.total())).map(name).collect();
        if let Some(taken) = names.iter().find(|name| fs::symlink_metadata(name).is_ok()) {
            return Err(super::create::exists(taken));
        }
        let split = shares::split(threshold);
        let (identity, made) = split.map_err(|error| failed(&error.to_string()))?;
        Ok(Self {
            recipient: identity.to_public(),
            threshold,
            files: names.into_iter().zip(made).collect(),
        })
    }

    /// Whom the backup is encrypted to.
    pub(super) fn recipient(&self) -> Box<dyn Recipient + Send> {
        Box::new(self.recipient.clone())
    }

    /// The files, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(name, _)| name.as_path())
    }

    /// How many open the backup.
    pub(super) const fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The key, as the last of the shares give it: what is written is what opens.
    pub(super) fn combined(&self) -> Result<x25519::Identity, Failure> {
        let needed = usize::from(self.threshold.needed());
        let read = |(name, share): &(PathBuf, Share)| {
            let text = share.to_text();
            (shown(name), shares::file::parse(text.as_bytes()))
        };
        let last = self.files.iter().rev().take(needed).map(read);
        let combined = shares::combine(last.collect());
        let combined = combined.map_err(|(error, _)| failed(&error.to_string()))?;
        Ok(combined.identity)
    }

    /// Writes every file (0600), each whole and on disk, or none.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Failure> {
        let written = self.files.iter().try_for_each(|(name, share)| {
            let write = || -> io::Result<()> {
                let temp = Temporary::new(dir)?;
                temp.file().write_all(share.to_text().as_bytes())?;
                temp.file().sync_all()?;
                temp.keep(name)
            };
            write().map_err(|error| Failure::file("write", name, error))
        });
        if written.is_err() {
            self.remove();
        }
        written
    }

    /// Removes them again: there is no backup that they open.
    pub(super) fn remove(&self) {
        for name in self.names() {
            // One that stays opens nothing.
            let _ = fs::remove_file(name);
        }
    }
}

fn failed(why: &str) -> Failure {
    Failure::new(exit::FAILED, "shares", why)
}

fn shown(file: &Path) -> String {
    escape(&file.display().to_string())
}

fn read(file: &Path) -> Result<Result<Given, ShareError>, Failure> {
    let unread = |error| Failure::file("read", file, error);
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    let input = File::open(file).map_err(unread)?;
    input
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(unread)?;
    Ok(shares::file::parse(&content))
}

/// The key that the given shares give; those that cannot be used are named.
///
/// # Errors
///
/// Exit 5 when too few can be used, naming each that cannot and why.
pub(super) fn combine(files: &[PathBuf], ui: &Ui) -> Result<x25519::Identity, Failure> {
    let given = files
        .iter()
        .map(|file| Ok((shown(file), read(file)?)))
        .collect::<Result<_, Failure>>()?;
    let named = |(file, why): &(String, ShareError)| format!("{file}: {why}");
    match shares::combine(given) {
        Ok(Combined { identity, left_out }) => {
            for one in &left_out {
                ui.warn(format_args!("{}; left out", named(one)));
            }
            Ok(identity)
        }
        Err((error, left_out)) => {
            let why: Vec<String> = left_out.iter().map(named).collect();
            let message = match why.as_slice() {
                [] => error.to_string(),
                why => format!("{error}: {}", why.join("; ")),
            };
            Err(Failure::new(exit::LOCKED, "shares", message)
                .fix("give more of its shares: --share FILE, once for each"))
        }
    }
}
