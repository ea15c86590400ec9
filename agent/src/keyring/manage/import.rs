//! Key files made elsewhere: opened with their own passphrase, taken into a store, enrolled.

use std::{path::PathBuf, sync::Arc};

use signet_proto::v1::{self, KeyDone, KeyRequest, key_request};
use signet_trust::{
    KeyId, PrivateKey,
    keyfile::{KeyFile, KeyFileError},
    payload::escape,
};
use zeroize::Zeroizing;

use super::{ATTEMPTS, indexed, notice, role_and_gun};
use crate::{
    keyring::{Fault, Keyring, Person, StoreName, creation::store_of, person::Work},
    ledger::NewEntry,
    presence::{SecretName, SecretRequest, UNKNOWN, stream::Stream},
    store::{KeyStore as _, NewKey, StoreError, docker::DockerStore, file::FileStore},
};

/// Largest key file taken.
const MAX_FILE: u64 = 64 * 1024;
/// Characters kept of where a file is said to come from.
const MAX_SOURCE: usize = 300;

impl Keyring {
    pub(super) async fn import_key(
        &self,
        import: v1::ImportKey,
        docker_dir: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<KeyRequest>,
    ) -> Result<KeyDone, Fault> {
        let cut: String = import.source.chars().take(MAX_SOURCE).collect();
        let source = match cut.as_str() {
            "" => "the key file".to_owned(),
            source => escape(source),
        };
        let failed = |error: KeyFileError| {
            Fault::from(StoreError::KeyFile {
                path: PathBuf::from(&source),
                source: error,
            })
        };
        let pem = receive(import.size, stream).await?;
        let file = KeyFile::parse(&pem).map_err(failed)?;
        let expected: Option<KeyId> = match import.expected_key_id.as_str() {
            "" => None,
            id => Some(
                id.parse()
                    .map_err(|error| Fault::Malformed(format!("{error}")))?,
            ),
        };
        // What the block says counts; what the caller says fills in.
        let role = file.role.clone().unwrap_or(import.role);
        let gun = file.gun.clone().unwrap_or(import.gun);
        let (role, gun) = role_and_gun(&role, &gun)?;
        let store = self.store_named(&import.store)?;
        if store == StoreName::Docker {
            self.same_docker_dir(docker_dir)?;
        }
        let label = self.free_label(&import.label, expected)?;
        person.about(vec![format!(
            "imports {source} into the store {}",
            store.as_str()
        )]);

        let key = match file.is_encrypted() {
            false => file.open(None).map_err(failed)?,
            true => {
                let ask = SecretRequest {
                    name: SecretName::Key(expected.unwrap_or(UNKNOWN)),
                    role: role.clone(),
                    gun: gun.clone().unwrap_or_default(),
                    label: label.clone(),
                    new_secret: false,
                    refused: String::new(),
                    attempts_left: ATTEMPTS,
                    card: None,
                };
                unlock(&file, ask, person, stream).await?.map_err(failed)?
            }
        };
        let id = key.id();
        if let Some(expected) = expected {
            KeyFile::check_id(&key, &expected).map_err(|found| {
                Fault::from(StoreError::WrongId {
                    path: PathBuf::from(&source),
                    found,
                })
            })?;
        }
        self.refuse_retired(id).await?;
        if let Some(enrolled) = self.index().get(&id)
            && store_of(enrolled) != store
        {
            let text = format!("key {id} is here already, in the store {}", enrolled.store);
            stream.send(notice(text)).await?;
            return Ok(KeyDone {
                unchanged: true,
                ..self.done(id, docker_dir).await?
            });
        }
        let facts = NewKey {
            role: role.clone(),
            gun: gun.clone(),
        };
        let key = Arc::new(key);
        let stored = match store {
            StoreName::File => {
                let work: Work<FileStore, _> =
                    Arc::new(move |store, presence| store.import(&key, &facts, presence));
                person.with(&self.file, stream, false, work).await?
            }
            StoreName::Docker => {
                let work: Work<DockerStore, _> =
                    Arc::new(move |store, presence| store.import(&key, &facts, presence));
                person.with(&self.docker, stream, false, work).await?
            }
            StoreName::Piv => {
                return Err(Fault::Usage(
                    "import it into the store `file`, then take it to cards with `signet key move`"
                        .to_owned(),
                ));
            }
        };
        if self.index().contains_key(&id) {
            return Ok(KeyDone {
                unchanged: true,
                ..self.done(id, docker_dir).await?
            });
        }
        let entry = indexed(&stored, role, gun, label, store)?;
        let log = NewEntry {
            summary: format!("from {source}, into the store {}", store.as_str()),
            ..self.entry_of("import", &entry, person)
        };
        self.enrol(entry, log).await?;
        self.done(id, docker_dir).await
    }
}

/// Asks for the file's passphrase, some times.
async fn unlock(
    file: &KeyFile,
    mut ask: SecretRequest,
    person: &mut Person<'_>,
    stream: &mut Stream<KeyRequest>,
) -> Result<Result<PrivateKey, KeyFileError>, Fault> {
    while let Some((given, _)) = person.ask(stream, &ask).await? {
        match crate::keyring::base::compute(usize::MAX, || file.open(Some(given.secret.expose()))) {
            Err(KeyFileError::WrongPassphrase) => {
                ask.refused = KeyFileError::WrongPassphrase.to_string();
                ask.attempts_left -= 1;
                if ask.attempts_left == 0 {
                    break;
                }
            }
            opened => return Ok(opened),
        }
    }
    let what = format!(
        "the key file of {}",
        super::super::sign::words(Some(&ask.role), Some(&ask.gun))
    );
    Err(Fault::from(if ask.refused.is_empty() {
        StoreError::Locked { what }
    } else {
        StoreError::WrongPassphrase {
            what,
            or_damaged: true,
        }
    }))
}

async fn receive(size: u64, stream: &mut Stream<KeyRequest>) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if size > MAX_FILE {
        return Err(Fault::TooLarge {
            size,
            limit: MAX_FILE,
        });
    }
    let size = usize::try_from(size).expect("bounded above");
    // Reserved once: growing would leave copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(size));
    while pem.len() < size {
        let message = stream.next().await?.and_then(|request| request.message);
        let Some(key_request::Message::Chunk(chunk)) = message else {
            return Err(Fault::Malformed(
                "the key file was cut before all of it had come".into(),
            ));
        };
        let data = Zeroizing::new(chunk.data);
        if data.is_empty() || data.len() > size - pem.len() {
            return Err(Fault::Malformed(
                "a chunk that goes beyond the key file".to_owned(),
            ));
        }
        pem.extend_from_slice(&data);
    }
    Ok(pem)
}
