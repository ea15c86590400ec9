//! A key whose file has been opened: what it can do, and what the two stores do with it alike.

use std::path::Path;

use signet_trust::{
    Algorithm, KeyId, Method, PrivateKey, PublicKey,
    keyfile::{KeyFileError, Nonces, write_encrypted},
    private::{sign_certificate_with, sign_with},
};
use zeroize::Zeroizing;

use super::{NewKey, Purpose, Signs, StoreError, StoredKey};
use crate::key::Secret;

/// Key material in locked memory, with its public facts.
#[derive(Debug)]
pub(super) struct Opened {
    id: KeyId,
    algorithm: Algorithm,
    material: Secret,
    pub(super) public: PublicKey,
    pub(super) role: String,
    pub(super) gun: Option<String>,
}

impl Opened {
    pub(super) fn new(key: &PrivateKey, role: String, gun: Option<String>) -> Self {
        Self {
            id: key.id(),
            algorithm: key.algorithm(),
            material: Secret::copy_of(key.expose_material()),
            public: key.public().clone(),
            role,
            gun,
        }
    }

    /// Whether it is of this algorithm, for this role and GUN.
    pub(super) fn is(&self, algorithm: Algorithm, new: &NewKey) -> bool {
        self.algorithm == algorithm && self.role == new.role && self.gun == new.gun
    }

    /// The key itself, for writing it to a file.
    pub(super) fn private(&self) -> Result<PrivateKey, StoreError> {
        let material = Zeroizing::new(self.material.expose().to_vec());
        PrivateKey::from_material(self.algorithm, material)
            .map_err(|_| StoreError::Unverified(self.public.id()))
    }

    /// Signs and verifies: no signature that does not verify leaves a store.
    pub(super) fn sign(
        &self,
        id: &KeyId,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let material = self.material.expose();
        let (signature, method) = match purpose {
            Purpose::Document => (
                sign_with(self.algorithm, material, &self.public, message),
                self.public.method(),
            ),
            Purpose::Certificate => (
                sign_certificate_with(self.algorithm, material, &self.public, message),
                match self.algorithm {
                    Algorithm::Rsa(_) => Method::RsaPkcs1v15,
                    _ => self.public.method(),
                },
            ),
        };
        let signature = signature.map_err(|_| StoreError::Unverified(*id))?;
        self.public
            .verify(method, message, &signature)
            .map_err(|_| StoreError::Unverified(*id))?;
        Ok(signature)
    }
}

impl Signs for Opened {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Result<Vec<u8>, StoreError> {
        Self::sign(self, &self.id, purpose, message)
    }

    fn role(&self) -> Option<&str> {
        Some(self.role.as_str()).filter(|role| !role.is_empty())
    }

    fn gun(&self) -> Option<&str> {
        self.gun.as_deref()
    }
}

/// A Docker-format copy under `passphrase`, which must not be empty: Go would write the key in
/// clear then.
pub(super) fn export(key: &Opened, passphrase: &Secret) -> Result<Vec<u8>, StoreError> {
    docker_file(
        &key.private()?,
        &key.role,
        key.gun.as_deref(),
        passphrase,
        "the exported copy",
    )
}

/// Docker's format with fresh salt and IV.
pub(super) fn docker_file(
    key: &PrivateKey,
    role: &str,
    gun: Option<&str>,
    passphrase: &Secret,
    what: &str,
) -> Result<Vec<u8>, StoreError> {
    let bad = |why| StoreError::BadPassphrase {
        what: what.to_owned(),
        why,
    };
    if passphrase.expose().is_empty() {
        return Err(bad("it is empty"));
    }
    let mut nonces = Nonces {
        salt: [0; 8],
        iv: [0; 16],
    };
    getrandom::fill(&mut nonces.salt)
        .and_then(|()| getrandom::fill(&mut nonces.iv))
        .map_err(|_| bad("the system has no randomness for its salt"))?;
    let file = write_encrypted(key, role, gun, passphrase.expose(), nonces);
    Ok(file.as_bytes().to_vec())
}

/// What a key file's error means for a stored key.
pub(super) fn file_error(path: &Path, error: KeyFileError) -> StoreError {
    match error {
        KeyFileError::Damaged(why) => StoreError::Damaged {
            path: path.to_owned(),
            why: why.to_owned(),
        },
        KeyFileError::NoKey => StoreError::Damaged {
            path: path.to_owned(),
            why: "no private key in it".to_owned(),
        },
        source => StoreError::KeyFile {
            path: path.to_owned(),
            source,
        },
    }
}

/// Refuses facts that a PEM header cannot carry, and roles that lack or have a GUN wrongly.
pub(super) fn check_new(new: &NewKey) -> Result<(), StoreError> {
    let unfit = |text: &str| {
        text.is_empty()
            || text.len() > MAX_HEADER
            || text.trim() != text
            || text.chars().any(char::is_control)
            || text.contains(": ")
    };
    let refuse = |why: String| Err(StoreError::Unsupported(why));
    if unfit(&new.role) {
        return refuse(format!("{:?} cannot be the role of a key", new.role));
    }
    match (&new.role[..], &new.gun) {
        ("targets" | "snapshot", None) => refuse(format!(
            "a {} key belongs to a repository: give its GUN",
            new.role
        )),
        (_, Some(gun)) if unfit(gun) => refuse(format!("{gun:?} cannot be the GUN of a key")),
        _ => Ok(()),
    }
}

/// A GUN has at most 255 bytes, a role as well.
const MAX_HEADER: usize = 255;

impl StoredKey {
    /// An import of a key that is here: fine under the same role and GUN.
    pub(super) fn unless_other(self, new: &NewKey) -> Result<Self, StoreError> {
        let has_gun = matches!(&new.role[..], "targets" | "snapshot" | "timestamp");
        let gun = new.gun.as_ref().filter(|_| has_gun);
        if self.role.as_deref() == Some(&new.role) && self.gun.as_ref() == gun {
            return Ok(self);
        }
        let role = match (&self.role, &self.gun) {
            (Some(role), Some(gun)) => format!("{role} of {gun}"),
            (Some(role), None) => role.clone(),
            (None, _) => "a key without a role".to_owned(),
        };
        Err(StoreError::Exists { id: self.id, role })
    }
}
