//! A keyring: an age X25519 identity in a file encrypted with a passphrase (scrypt).
//!
//! The file is what `age -d -i keyring.age` takes as an identity file. It holds one identity, or,
//! while a rotation is under way, the new one and the old one, in this order: so that at every
//! instant the one file opens every key, and nothing has to be found beside it. Keys are encrypted
//! to the first identity. Its recipient is computed when needed and never leaves this module's
//! callers: who does not have the passphrase cannot make a key file that opens.

use std::{
    io::{Read, Write},
    iter,
    path::Path,
    sync::{Mutex, PoisonError},
};

use age::{DecryptError, Decryptor, Encryptor, Identity, scrypt, x25519};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{
    key::Secret,
    presence::SecretName,
    store::{StoreError, ask::Rejected},
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// `keyring.age`: repository and signer keys.
    Repository,
    /// `root.age`: root keys.
    Root,
}

impl Ring {
    /// The keyring that keys of this role are encrypted to.
    #[must_use]
    pub fn of_role(role: &str) -> Self {
        if role == "root" {
            Self::Root
        } else {
            Self::Repository
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Repository => Self::Root,
            Self::Root => Self::Repository,
        }
    }

    /// What its passphrase is called when it is asked for.
    #[must_use]
    pub fn secret_name(self) -> SecretName {
        match self {
            Self::Repository => SecretName::Keyring,
            Self::Root => SecretName::Root,
        }
    }

    /// `keyring.age` or `root.age`.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Repository => "keyring.age",
            Self::Root => "root.age",
        }
    }
}

/// log2 of scrypt's N as written: about a second and 256 MiB (rules: 18).
const WORK_FACTOR: u8 = if cfg!(any(test, feature = "weak-kdf-for-tests")) {
    10
} else {
    18
};
/// As read: four times that. A larger one is an attack on our memory.
const MAX_WORK_FACTOR: u8 = 20;
/// Two identities need about 500 bytes; a keyring file with comments somewhat more.
pub(super) const MAX_KEYRING: usize = 16 * 1024;
/// One, or two during a rotation.
const MAX_IDENTITIES: usize = 2;

/// One derivation at a time in the whole process: each takes a core and 256 MiB.
static DERIVATION: Mutex<()> = Mutex::new(());

/// An opened keyring.
#[derive(Debug)]
pub(super) struct OpenKeyring {
    /// `AGE-SECRET-KEY-1…` lines.
    text: Secret,
}

/// What became of decrypting a key file.
pub(super) enum Decrypted {
    /// The plaintext.
    Plain(Zeroizing<Vec<u8>>),
    /// It is encrypted to another keyring.
    NotOurs,
    /// It is no age file, or its content was changed.
    Damaged(String),
}

impl OpenKeyring {
    /// A new keyring with a new identity.
    pub(super) fn generate() -> Self {
        Self::from_identities(&[x25519::Identity::generate()])
    }

    /// The same keyring at the start of a rotation: a new identity before the current one.
    pub(super) fn with_new_identity(&self) -> Self {
        let [current, ..] = &self.identities()[..] else {
            unreachable!("never empty")
        };
        Self::from_identities(&[x25519::Identity::generate(), current.clone()])
    }

    /// The same keyring at the end of a rotation.
    pub(super) fn without_old_identity(&self) -> Self {
        Self::from_identities(&self.identities()[..1])
    }

    /// Whether a rotation has begun and not ended.
    pub(super) fn is_rotating(&self) -> bool {
        self.identities().len() > 1
    }

    /// Whether both hold the same identities.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.text.same_as(&other.text)
    }

    fn from_identities(identities: &[x25519::Identity]) -> Self {
        // Each line has 74 characters and a newline: no reallocation leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(80 * identities.len()));
        for identity in identities {
            text.push_str(identity.to_string().expose_secret());
            text.push('\n');
        }
        Self {
            text: Secret::copy_of(text.as_bytes()),
        }
    }

    /// Takes the plaintext of a keyring file, which may have comments as `age-keygen` writes them.
    fn parse(plain: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(plain).map_err(|_| "it does not hold text")?;
        let mut identities = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if identities.len() == MAX_IDENTITIES {
                return Err("it holds more than two identities");
            }
            identities.push(
                line.parse::<x25519::Identity>()
                    .map_err(|_| "it holds no X25519 identity")?,
            );
        }
        if identities.is_empty() {
            return Err("it holds no identity");
        }
        Ok(Self::from_identities(&identities))
    }

    /// The identity that keys are encrypted to, as its line of text.
    pub(super) fn first_identity(&self) -> &[u8] {
        let text = self.text.expose();
        let end = text.iter().position(|byte| *byte == b'\n');
        &text[..end.unwrap_or(text.len())]
    }

    fn identities(&self) -> Vec<x25519::Identity> {
        let text = std::str::from_utf8(self.text.expose()).expect("written by from_identities");
        text.lines()
            .map(|line| line.parse().expect("written by from_identities"))
            .collect()
    }

    /// Opens a keyring file with its passphrase.
    ///
    /// # Errors
    ///
    /// [`Rejected::Wrong`], or [`StoreError::Damaged`] naming `path`.
    pub(super) fn open(path: &Path, file: &[u8], passphrase: &Secret) -> Result<Self, Rejected> {
        let damaged = |why: &str| StoreError::Damaged {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        let Ok(passphrase) = std::str::from_utf8(passphrase.expose()) else {
            return Err(Rejected::Wrong);
        };
        let decryptor = Decryptor::new_buffered(file).map_err(|_| damaged("it is no age file"))?;
        if !decryptor.is_scrypt() {
            return Err(damaged("it is not encrypted with a passphrase").into());
        }
        let one_at_a_time = DERIVATION.lock().unwrap_or_else(PoisonError::into_inner);
        let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let reader = decryptor.decrypt(iter::once(&identity as &dyn Identity));
        drop(one_at_a_time);
        let reader = reader.map_err(|error| match error {
            DecryptError::DecryptionFailed => Rejected::Wrong,
            DecryptError::ExcessiveWork { required, .. } => damaged(&format!(
                "its scrypt work factor is {required}, and {MAX_WORK_FACTOR} is the most accepted"
            ))
            .into(),
            _ => damaged("its header was changed").into(),
        })?;
        let plain = read_all(reader, file.len()).map_err(|_| damaged("its content was changed"))?;
        Ok(Self::parse(&plain).map_err(damaged)?)
    }

    /// The keyring file: this keyring encrypted with `passphrase`.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadPassphrase`] when it is not UTF-8, which [`ask_new`] does not let pass.
    ///
    /// [`ask_new`]: crate::store::ask::ask_new
    pub(super) fn seal(&self, ring: Ring, passphrase: &Secret) -> Result<Vec<u8>, StoreError> {
        let bad = |why| StoreError::BadPassphrase {
            what: crate::store::ask::what(&ring.secret_name()),
            why,
        };
        let passphrase =
            std::str::from_utf8(passphrase.expose()).map_err(|_| bad("it is not UTF-8"))?;
        let _one_at_a_time = DERIVATION.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
        recipient.set_work_factor(WORK_FACTOR);
        encrypt(&recipient, self.text.expose()).ok_or_else(|| bad("encryption failed"))
    }

    /// Encrypts a key to this keyring.
    pub(super) fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let recipient = self.identities()[0].to_public();
        encrypt(&recipient, plain).expect("an X25519 recipient wraps, and memory takes it")
    }

    /// Decrypts a key file; with `current_only`, not by the old identity of a rotation.
    pub(super) fn decrypt(&self, file: &[u8], current_only: bool) -> Decrypted {
        let identities = self.identities();
        let count = if current_only { 1 } else { identities.len() };
        let decryptor = match Decryptor::new_buffered(file) {
            Ok(decryptor) if decryptor.is_scrypt() => {
                return Decrypted::Damaged("it is encrypted with a passphrase".to_owned());
            }
            Ok(decryptor) => decryptor,
            Err(_) => return Decrypted::Damaged("it is no age file".to_owned()),
        };
        let identities = identities
            .iter()
            .take(count)
            .map(|identity| identity as &dyn Identity);
        match decryptor.decrypt(identities) {
            Ok(reader) => match read_all(reader, file.len()) {
                Ok(plain) => Decrypted::Plain(plain),
                Err(_) => Decrypted::Damaged("its content was changed".to_owned()),
            },
            Err(DecryptError::NoMatchingKeys) => Decrypted::NotOurs,
            Err(_) => Decrypted::Damaged("its header was changed".to_owned()),
        }
    }
}

fn encrypt(recipient: &dyn age::Recipient, plain: &[u8]) -> Option<Vec<u8>> {
    let encryptor = Encryptor::with_recipients(iter::once(recipient)).ok()?;
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).ok()?;
    writer.write_all(plain).ok()?;
    writer.finish().ok()?;
    Some(file)
}

/// The whole plaintext, which is never longer than the file, in a buffer that does not grow.
fn read_all(mut reader: impl Read, limit: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(vec![0; limit]);
    let mut filled = 0;
    while filled < limit {
        match reader.read(&mut plain[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    plain.truncate(filled);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::copy_of(text.as_bytes())
    }

    #[test]
    fn a_sealed_keyring_opens_with_its_passphrase_only() {
        let keyring = OpenKeyring::generate();
        let file = keyring.seal(Ring::Root, &secret("open sesame")).unwrap();
        let path = Path::new("root.age");
        let opened = OpenKeyring::open(path, &file, &secret("open sesame")).unwrap();
        assert!(opened.text.same_as(&keyring.text));
        assert!(matches!(
            OpenKeyring::open(path, &file, &secret("open barley")),
            Err(Rejected::Wrong)
        ));
    }

    #[test]
    fn a_damaged_keyring_is_not_taken_for_a_wrong_passphrase() {
        let file = OpenKeyring::generate()
            .seal(Ring::Root, &secret("p"))
            .unwrap();
        let path = Path::new("root.age");
        let mut last = file.clone();
        *last.last_mut().unwrap() ^= 1;
        for bad in [&file[..0], &file[..20], &file[..file.len() - 1], &last] {
            assert!(matches!(
                OpenKeyring::open(path, bad, &secret("p")),
                Err(Rejected::Failed(StoreError::Damaged { .. }))
            ));
        }
    }

    #[test]
    fn a_work_factor_beyond_the_limit_is_refused_without_the_work() {
        let mut recipient = scrypt::Recipient::new(SecretString::from("p".to_owned()));
        recipient.set_work_factor(2);
        let file = encrypt(&recipient, b"x").unwrap();
        let header = String::from_utf8_lossy(&file[..80])
            .replace(" 2\n", " 21\n")
            .into_bytes();
        let file = [&header[..], &file[80..]].concat();
        let Err(Rejected::Failed(error)) =
            OpenKeyring::open(Path::new("root.age"), &file, &secret("p"))
        else {
            panic!("opened")
        };
        assert!(error.to_string().contains("work factor is 21"), "{error}");
    }

    #[test]
    fn a_rotating_keyring_opens_both_old_and_new_keys() {
        let old = OpenKeyring::generate();
        let both = old.with_new_identity();
        assert!(both.is_rotating() && !old.is_rotating());
        let new = both.without_old_identity();
        let of_old = old.encrypt(b"key");
        let of_both = both.encrypt(b"key");
        assert!(matches!(both.decrypt(&of_old, false), Decrypted::Plain(_)));
        assert!(matches!(both.decrypt(&of_old, true), Decrypted::NotOurs));
        assert!(matches!(new.decrypt(&of_old, false), Decrypted::NotOurs));
        assert!(matches!(new.decrypt(&of_both, false), Decrypted::Plain(_)));
    }
}
