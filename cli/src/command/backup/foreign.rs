//! Docker's keys as its documentation taught to keep them: a tarball, a copy of the directory, an
//! export bundle of notary's. They become members of an archive in Docker's flat layout.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use signet_proto::archive::{self, MAX_MEMBER, Member, path};
use signet_trust::keyfile::KeyFile;

use super::sealed::{Kind, bad, kind};
use crate::{
    command::key::import::source::{self, Block},
    failure::{Failure, Missing},
    ui::blocking,
};

/// Keys, and what was passed over.
#[derive(Default)]
pub(crate) struct Foreign {
    /// Key files by their paths in an archive.
    pub(crate) members: Vec<Member>,
    /// Files that hold no usable key.
    pub(crate) missing: Vec<Missing>,
    /// What was left out for a reason that is no error.
    pub(crate) notes: Vec<String>,
}

/// Reads a tarball, a directory or a bundle.
///
/// # Errors
///
/// Exit 1, naming what is wrong.
pub(crate) async fn read(file: &Path) -> Result<Foreign, Failure> {
    let file = file.to_owned();
    blocking(move || {
        if !file.is_dir()
            && kind(&file).map_err(|error| Failure::file("read", &file, error))? == Kind::Tar
        {
            return tarball(&file);
        }
        let found = source::find(std::slice::from_ref(&file));
        let mut foreign = Foreign {
            notes: found.notes,
            ..Foreign::default()
        };
        for (source, failure) in found.failures {
            foreign.missing.push(failure.as_missing(source));
        }
        for block in found.blocks {
            foreign.take(block)?;
        }
        Ok(foreign)
    })
    .await
}

fn tarball(file: &Path) -> Result<Foreign, Failure> {
    let input = File::open(file).map_err(|error| Failure::file("read", file, error))?;
    let wanted = |path: &str| {
        let key = path.ends_with(".key") && !path.contains("trusted_certificates/");
        key.then_some(MAX_MEMBER)
    };
    let mut members = Vec::new();
    let read = archive::read(BufReader::new(input), wanted, |member| members.push(member));
    read.map_err(|error| bad(file, &error))?;
    let mut foreign = Foreign::default();
    for member in members {
        let shown = format!("{} in {}", member.path, file.display());
        match source::blocks(&member.data, &PathBuf::from(&member.path)) {
            Ok(blocks) => {
                for block in blocks {
                    foreign.take(block)?;
                }
            }
            Err(error) => {
                let failure = bad(file, &error);
                foreign.missing.push(Missing {
                    what: shown,
                    reason: error.to_string(),
                    exit: failure.exit,
                });
            }
        }
    }
    Ok(foreign)
}

impl Foreign {
    /// A key block in Docker's flat layout: by its ID, with what an old name said in its headers.
    fn take(&mut self, block: Block) -> Result<(), Failure> {
        let wrong = |reason: String| Missing {
            what: block.source.clone(),
            reason,
            exit: crate::failure::exit::FAILED,
        };
        let mut file = match KeyFile::parse(&block.pem) {
            Ok(file) => file,
            Err(error) => {
                self.missing.push(wrong(error.to_string()));
                return Ok(());
            }
        };
        let id = match &block.expected_id {
            Some(id) => id.clone(),
            // In clear: then the key itself says who it is.
            None => match file.open(None) {
                Ok(key) => key.id().to_string(),
                Err(_) => {
                    let reason = "neither its name nor a path header says which key it is";
                    self.missing.push(wrong(reason.to_owned()));
                    return Ok(());
                }
            },
        };
        let changed = block.role.is_some() || block.gun.is_some() || file.path.is_some();
        let data = if changed {
            file.path = None;
            file.role = block.role.clone().or(file.role.take());
            file.gun = block.gun.clone().or(file.gun.take());
            file.to_pem().as_bytes().to_vec()
        } else {
            block.whole.to_vec()
        };
        let path = path::docker(&id);
        if let Some(known) = self.members.iter().find(|member| member.path == path) {
            // The same key once more, as in a directory that was copied into itself.
            if known.data != data {
                self.missing.push(wrong(format!(
                    "key {id} is there twice, in different files"
                )));
            }
            return Ok(());
        }
        self.members.push(Member { path, data });
        Ok(())
    }
}
