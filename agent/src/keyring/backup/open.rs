//! Keys of an archive, opened in memory with what the person gives.

use std::{collections::HashMap, path::PathBuf};

use signet_proto::archive::path;
use signet_trust::{
    KeyId, PrivateKey,
    keyfile::{KeyFile, KeyFileError},
};

use crate::{
    key::Secret,
    keyring::{Fault, Person, base::compute},
    presence::{
        NoSecret, SecretName, SecretRequest,
        stream::{Carries, Stream},
    },
    service::status::failure,
    store::{
        StoreError,
        ask::{self, Rejected},
        file::{
            Ring,
            foreign::{ForeignKey, ForeignKeyring},
        },
    },
};

/// Tries that a person gets for one passphrase.
const ATTEMPTS: u32 = 3;
/// Passphrases of Docker's keys that are tried for the next one before anybody is asked: usually
/// all have the same, or one for root keys and one for the others.
const MAX_TRIED: usize = 4;

/// Why a key was not opened.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) reason: String,
    /// The exit code that this is worth: 5 where a passphrase would help.
    pub(super) exit: u32,
}

impl Problem {
    pub(super) fn new(fault: &Fault) -> Self {
        let failure = failure(fault);
        Self {
            reason: failure.message,
            exit: failure.exit,
        }
    }

    /// Whether a passphrase would help.
    pub(super) fn is_locked(&self) -> bool {
        self.exit == 5
    }
}

/// What became of a key; the outer error of those who return it ends the request.
pub(super) type Opening = Result<ForeignKey, Problem>;

/// Separates what is wrong with one key from what ends the request.
pub(super) fn of_key<T>(result: Result<T, Fault>) -> Result<Result<T, Problem>, Fault> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(
            fault @ (Fault::Gone
            | Fault::Stopping
            | Fault::Forwarded
            | Fault::Internal(_)
            | Fault::NobodyAnswered
            | Fault::NoSecret(NoSecret::Cancelled | NoSecret::Gone)),
        ) => Err(fault),
        Err(fault) => Ok(Err(Problem::new(&fault))),
    }
}

/// Opens the keys of one archive.
pub(super) struct Opener<'a> {
    repository: Option<&'a [u8]>,
    root: Option<&'a [u8]>,
    rings: HashMap<Ring, Result<ForeignKeyring, Problem>>,
    /// Passphrases that opened one of Docker's keys, the newest last.
    passphrases: Vec<Secret>,
}

impl<'a> Opener<'a> {
    /// For an archive with these keyring files.
    pub(super) fn new(repository: Option<&'a [u8]>, root: Option<&'a [u8]>) -> Self {
        Self {
            repository,
            root,
            rings: HashMap::new(),
            passphrases: Vec::new(),
        }
    }

    /// For what came with an archive.
    pub(super) fn of(members: &'a super::Members) -> Self {
        let file = |path| members.get(path).map(|file| file.as_slice());
        Self::new(file(path::KEYRING), file(path::ROOT))
    }

    /// Opens a keyring, once; why not.
    pub(super) async fn ring<M: Carries>(
        &mut self,
        ring: Ring,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Option<Problem>, Fault> {
        if !self.rings.contains_key(&ring) {
            let opened = of_key(self.open_ring(ring, person, stream).await)?;
            self.rings.insert(ring, opened);
        }
        Ok(self
            .rings
            .get(&ring)
            .and_then(|r| r.as_ref().err().cloned()))
    }

    /// Whether a keyring was opened.
    pub(super) fn is_open(&self, ring: Ring) -> bool {
        matches!(self.rings.get(&ring), Some(Ok(_)))
    }

    async fn open_ring<M: Carries>(
        &self,
        ring: Ring,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<ForeignKeyring, Fault> {
        let (file, member) = match ring {
            Ring::Repository => (self.repository, path::KEYRING),
            Ring::Root => (self.root, path::ROOT),
        };
        let file = file.ok_or_else(|| {
            Fault::Archive(format!(
                "it holds native keys, but not {member} that opens them"
            ))
        })?;
        let of_archive = PathBuf::from(format!("{} of the archive", ring.file_name()));
        let what = of_archive.display().to_string();
        let mut ask = SecretRequest {
            attempts_left: ATTEMPTS,
            ..ask::plain(ring.secret_name())
        };
        while let Some((given, _)) = person.ask(stream, &ask).await? {
            let open = || ForeignKeyring::open(ring, &of_archive, file, &given.secret);
            match compute(usize::MAX, open) {
                Ok(keyring) => return Ok(keyring),
                Err(Rejected::Failed(error)) => return Err(error.into()),
                Err(Rejected::Wrong) => {
                    ask.refused = "wrong passphrase".to_owned();
                    ask.attempts_left -= 1;
                    if ask.attempts_left == 0 {
                        break;
                    }
                }
            }
        }
        Err(locked(what, &ask, false))
    }

    /// Opens a native key; `role` is what the manifest claims, for the keyring to try first.
    pub(super) async fn native<M: Carries>(
        &mut self,
        file: &[u8],
        id: &KeyId,
        role: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Opening, Fault> {
        let shown = PathBuf::from(path::native(&id.to_string()));
        let first = Ring::of_role(role);
        for ring in [first, first.other()] {
            if let Some(problem) = self.ring(ring, person, stream).await? {
                return Ok(Err(problem));
            }
            let Some(Ok(keyring)) = self.rings.get(&ring) else {
                continue;
            };
            match keyring.key(&shown, file, id) {
                Ok(Some(key)) => return Ok(Ok(key)),
                Ok(None) => {}
                Err(error) => return Ok(Err(Problem::new(&error.into()))),
            }
        }
        let error = StoreError::Damaged {
            path: shown,
            why: "it is encrypted to no keyring of the archive".to_owned(),
        };
        Ok(Err(Problem::new(&error.into())))
    }

    /// Opens a key in Docker's format.
    pub(super) async fn docker<M: Carries>(
        &mut self,
        file: &[u8],
        id: &KeyId,
        label: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Opening, Fault> {
        of_key(self.open_docker(file, id, label, person, stream).await)
    }

    async fn open_docker<M: Carries>(
        &mut self,
        bytes: &[u8],
        id: &KeyId,
        label: &str,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<ForeignKey, Fault> {
        let shown = PathBuf::from(format!("{id}.key"));
        let failed = |source| {
            Fault::from(StoreError::KeyFile {
                path: shown.clone(),
                source,
            })
        };
        let file = KeyFile::parse(bytes).map_err(failed)?;
        let checked = |key: PrivateKey| match KeyFile::check_id(&key, id) {
            Ok(()) => Ok(ForeignKey {
                key,
                role: file.role.clone().unwrap_or_default(),
                gun: file.gun.clone(),
            }),
            Err(found) => Err(Fault::from(StoreError::WrongId {
                path: shown.clone(),
                found,
            })),
        };
        if !file.is_encrypted() {
            return checked(file.open(None).map_err(failed)?);
        }
        for passphrase in self.passphrases.iter().rev() {
            let open = || file.open(Some(passphrase.expose()));
            // What opens to another key was the wrong passphrase: the format has no other check.
            if let Ok(key) = compute(usize::MAX, open)
                && key.id() == *id
            {
                return checked(key);
            }
        }
        let mut ask = SecretRequest {
            role: file.role.clone().unwrap_or_default(),
            gun: file.gun.clone().unwrap_or_default(),
            label: label.to_owned(),
            attempts_left: ATTEMPTS,
            ..ask::plain(SecretName::Key(*id))
        };
        while let Some((given, _)) = person.ask(stream, &ask).await? {
            match compute(usize::MAX, || file.open(Some(given.secret.expose()))) {
                Err(KeyFileError::WrongPassphrase) => {
                    ask.refused = KeyFileError::WrongPassphrase.to_string();
                    ask.attempts_left -= 1;
                    if ask.attempts_left == 0 {
                        break;
                    }
                }
                Ok(key) => {
                    if self.passphrases.len() == MAX_TRIED {
                        self.passphrases.remove(0);
                    }
                    self.passphrases.push(given.secret);
                    return checked(key);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(locked(ask::what(&ask.name), &ask, true))
    }
}

fn locked(what: String, ask: &SecretRequest, or_damaged: bool) -> Fault {
    Fault::from(if ask.refused.is_empty() {
        StoreError::Locked { what }
    } else {
        StoreError::WrongPassphrase { what, or_damaged }
    })
}

/// What a key signs to show that it is there: built here, never received.
pub(in crate::keyring) fn proof(
    purpose: &str,
    archive: &str,
    id: &KeyId,
) -> Result<Vec<u8>, Fault> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| Fault::Internal("the system gives no randomness"))?;
    let nonce = hex::encode(nonce);
    Ok(format!("signet possession proof v1\n{purpose}\n{archive}\n{id}\n{nonce}\n").into_bytes())
}

/// Has an opened key make a proof, which is checked and dropped.
pub(super) fn prove(key: &PrivateKey, purpose: &str, archive: &str) -> Result<(), Fault> {
    let message = proof(purpose, archive, &key.id())?;
    let unverified = |_| Fault::from(StoreError::Unverified(key.id()));
    let signature = key.sign(&message).map_err(unverified)?;
    let public = key.public();
    public
        .verify(public.method(), &message, &signature)
        .map_err(unverified)
}
