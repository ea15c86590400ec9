//! Members of an archive on the stream, bounded, and the keys among them.

use std::collections::BTreeMap;

use signet_proto::{
    MAX_CHUNK,
    archive::{self, Manifest, path},
    v1::{ArchiveMember, BackupEvent, BackupRequest, backup_event::Event, backup_request::Message},
};
use signet_trust::{KeyId, payload::escape};
use zeroize::Zeroizing;

use crate::{
    keyring::{Fault, StoreName},
    presence::stream::Stream,
};

/// Files of an archive by their paths; ciphertext, wiped all the same where a key file is not
/// encrypted.
pub(in crate::keyring) type Members = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Hands out a member, in pieces.
pub(in crate::keyring) async fn send_member(
    path: &str,
    data: &[u8],
    stream: &mut Stream<BackupRequest>,
) -> Result<(), Fault> {
    let mut rest = data;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(MAX_CHUNK));
        rest = after;
        let member = ArchiveMember {
            path: path.to_owned(),
            data: piece.to_vec(),
            more: !rest.is_empty(),
        };
        stream
            .send(BackupEvent {
                event: Some(Event::Member(member)),
            })
            .await?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Takes the members of an archive, bounded, known by name, each once.
pub(super) async fn receive(stream: &mut Stream<BackupRequest>) -> Result<Members, Fault> {
    let mut members = Members::new();
    let mut total = 0_u64;
    let mut open: Option<(String, Zeroizing<Vec<u8>>)> = None;
    loop {
        let message = stream.next().await?.and_then(|request| request.message);
        let piece = match message {
            Some(Message::Member(piece)) => piece,
            Some(Message::End(_)) if open.is_none() => return Ok(members),
            _ => {
                return Err(Fault::Malformed(
                    "the archive was cut before all of it had come".to_owned(),
                ));
            }
        };
        let data = Zeroizing::new(piece.data);
        let (path, mut file) = match open.take() {
            Some((path, file)) if path == piece.path => (path, file),
            Some((path, _)) => {
                return Err(Fault::Malformed(format!("{} is not whole", escape(&path))));
            }
            None => (piece.path, Zeroizing::new(Vec::new())),
        };
        let Some(limit) = archive::size_limit(&path) else {
            let path = escape(&path);
            return Err(Fault::Archive(format!(
                "{path:?} is nothing that it may hold"
            )));
        };
        total += data.len() as u64;
        if (file.len() + data.len()) as u64 > limit || total > archive::MAX_TOTAL {
            return Err(Fault::Archive(format!("{path} is larger than it may be")));
        }
        if file.is_empty() {
            file = data;
        } else {
            file.extend_from_slice(&data);
        }
        if piece.more {
            open = Some((path, file));
        } else if members.contains_key(&path) {
            return Err(Fault::Archive(format!("it holds {path} twice")));
        } else if members.len() == archive::MAX_MEMBERS {
            return Err(Fault::Archive("it holds too many files".to_owned()));
        } else {
            members.insert(path, file);
        }
    }
}

/// Takes one file that is no archive of ours, as the member of that name.
pub(in crate::keyring) async fn receive_one(
    path: &str,
    limit: usize,
    stream: &mut Stream<BackupRequest>,
) -> Result<Vec<u8>, Fault> {
    let cut = || Fault::Malformed(format!("the {path} was cut before all of it had come"));
    let mut file = Vec::new();
    loop {
        let message = stream.next().await?.and_then(|request| request.message);
        let Some(Message::Member(piece)) = message else {
            return Err(cut());
        };
        if piece.path != path {
            return Err(cut());
        }
        if file.len() + piece.data.len() > limit {
            return Err(Fault::Archive(format!(
                "the {path} is larger than any real one"
            )));
        }
        file.extend_from_slice(&piece.data);
        if !piece.more {
            break;
        }
    }
    match stream.next().await?.and_then(|request| request.message) {
        Some(Message::End(_)) => Ok(file),
        _ => Err(cut()),
    }
}

/// A key that an archive holds.
pub(super) struct Candidate<'a> {
    pub(super) id: KeyId,
    /// Where it came from.
    pub(super) store: StoreName,
    pub(super) file: &'a [u8],
    /// Claimed by the manifest; the key's own file counts.
    pub(super) role: String,
    pub(super) gun: String,
    pub(super) label: String,
    pub(super) certificates: Vec<KeyId>,
}

/// What came: the manifest, if the archive is one of ours, and the keys in it.
pub(super) fn candidates(
    members: &Members,
) -> Result<(Option<Manifest>, Vec<Candidate<'_>>), Fault> {
    let bad = |error: archive::BadManifest| Fault::Archive(error.to_string());
    let key = |path: &str| {
        let id: KeyId = archive::key_of(path)?.parse().ok()?;
        let store = match path.starts_with("signet/") {
            true => StoreName::File,
            false => StoreName::Docker,
        };
        Some((id, store))
    };
    let Some(json) = members.get(path::MANIFEST) else {
        // Docker's own files: each says for itself what it is.
        let found = members.iter().filter_map(|(path, file)| {
            let (id, store) = key(path)?;
            Some(Candidate {
                id,
                store,
                file,
                role: String::new(),
                gun: String::new(),
                label: String::new(),
                certificates: Vec::new(),
            })
        });
        return Ok((None, found.collect()));
    };
    let manifest = Manifest::parse(json).map_err(bad)?;
    let mut found = Vec::new();
    for entry in manifest.keys.iter().filter(|key| !key.file.is_empty()) {
        let missing = || bad(archive::BadManifest::Missing(entry.file.clone()));
        let file = members.get(&entry.file).ok_or_else(missing)?;
        if archive::digest(file) != entry.sha256 {
            return Err(bad(archive::BadManifest::Digest(entry.file.clone())));
        }
        let (id, store) = key(&entry.file).ok_or_else(missing)?;
        found.push(Candidate {
            id,
            store,
            file,
            role: entry.role.clone(),
            gun: entry.gun.clone(),
            label: entry.label.clone(),
            certificates: entry
                .certificates
                .iter()
                .filter_map(|id| id.parse().ok())
                .collect(),
        });
    }
    for file in &manifest.files {
        let Some(data) = members.get(&file.path) else {
            // The command leaves out what no restore needs.
            continue;
        };
        if archive::digest(data) != file.sha256 {
            return Err(bad(archive::BadManifest::Digest(file.path.clone())));
        }
    }
    Ok((Some(manifest), found))
}
