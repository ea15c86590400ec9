//! Changing what opens the keys: a keyring's passphrase, or its identity.
//!
//! A new passphrase wraps the same identity, so keys stay as they are (and old copies of the
//! keyring file still open them with the old passphrase). A rotation makes a new identity, in an
//! order that leaves every key readable at every instant:
//!
//! 1. the keyring file is replaced by one that holds the new identity and the old one;
//! 2. every key that the old identity opens is encrypted to the new one, file by file;
//! 3. the keyring file is replaced by one that holds the new identity only.
//!
//! A run killed after step 1 leaves a keyring with two identities, which opens old and new keys
//! alike; whoever opens it next with its passphrase goes on with step 2.

use std::sync::Arc;

use super::{
    FileStore,
    keyring::{Decrypted, OpenKeyring, Ring},
};
use crate::{
    key::Secret,
    presence::Presence,
    store::{StoreError, ask},
};

impl FileStore {
    /// Asks for a keyring's passphrase and for a new one, and wraps the same identity with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when there is no such keyring; otherwise as
    /// [`KeyStore::sign`](crate::store::KeyStore::sign).
    pub fn change_keyring_passphrase(
        &mut self,
        ring: Ring,
        presence: &mut dyn Presence,
    ) -> Result<(), StoreError> {
        self.check_keyring(ring)?;
        let (keyring, _) = self.ask_keyring(ring, presence)?;
        let new = ask::ask_new(presence, ask::plain(ring.secret_name()))?;
        self.replace_keyring(ring, &keyring, &new.secret)?;
        let other = ring.other();
        let same = self.layout.has(other)
            && self.layout.read_keyring(other).is_ok_and(|file| {
                OpenKeyring::open(&self.layout.keyring(other), &file, &new.secret).is_ok()
            });
        self.layout.mark_same_passphrase(same);
        Ok(())
    }

    /// Asks for a keyring's passphrase, makes a new identity for it and encrypts every key of that
    /// kind anew; how many there are. Finishes a rotation that was interrupted instead of beginning
    /// another.
    ///
    /// # Errors
    ///
    /// As [`FileStore::change_keyring_passphrase`]; [`StoreError::Damaged`] for a key that cannot
    /// be decrypted: then the old identity stays in the keyring, and the next rotation goes on.
    pub fn rotate_keyring(
        &mut self,
        ring: Ring,
        presence: &mut dyn Presence,
    ) -> Result<u32, StoreError> {
        self.check_keyring(ring)?;
        let file = self.layout.read_keyring(ring)?;
        let path = self.layout.keyring(ring);
        let (mut keyring, given) = ask::ask(
            presence,
            ask::plain(ring.secret_name()),
            false,
            &self.throttle,
            |secret| OpenKeyring::open(&path, &file, secret),
        )?;
        if !keyring.is_rotating() {
            keyring = keyring.with_new_identity();
            self.replace_keyring(ring, &keyring, &given.secret)?;
        }
        let keyring = Arc::new(keyring);
        // Keys encrypted anew must open with what is held, also if the rest fails.
        self.install(ring, &keyring);
        let (keyring, count) = self.encrypt_anew(ring, &keyring, &given.secret)?;
        self.install(ring, &Arc::new(keyring));
        Ok(count)
    }

    /// Steps 2 and 3 for a keyring that was just opened, if a killed run left them to do. A failure
    /// is no reason not to sign: the keyring as it is opens every key.
    pub(super) fn finish_rotation(
        &self,
        ring: Ring,
        keyring: OpenKeyring,
        passphrase: &Secret,
    ) -> OpenKeyring {
        if !keyring.is_rotating() {
            return keyring;
        }
        match self.encrypt_anew(ring, &keyring, passphrase) {
            Ok((keyring, count)) => {
                tracing::info!(keyring = ring.file_name(), count, "finished a rotation");
                keyring
            }
            Err(error) => {
                tracing::warn!(keyring = ring.file_name(), %error, "a rotation is unfinished");
                keyring
            }
        }
    }

    fn check_keyring(&self, ring: Ring) -> Result<(), StoreError> {
        if self.layout.has(ring) {
            return Ok(());
        }
        if self.layout.key_files()?.ids.is_empty() {
            return Err(StoreError::Unsupported(format!(
                "there is no {}; it is made with the first key of the file store",
                ring.file_name()
            )));
        }
        Err(StoreError::KeyringMissing {
            path: self.layout.keyring(ring),
        })
    }

    fn encrypt_anew(
        &self,
        ring: Ring,
        keyring: &OpenKeyring,
        passphrase: &Secret,
    ) -> Result<(OpenKeyring, u32), StoreError> {
        let mut count = 0;
        for id in self.layout.key_files()?.ids {
            let damaged = |why| StoreError::Damaged {
                path: self.layout.key(&id),
                why,
            };
            let file = self.layout.read_key(&id)?;
            match keyring.decrypt(&file, true) {
                Decrypted::Plain(_) => {
                    count += 1;
                    continue;
                }
                Decrypted::NotOurs => {}
                Decrypted::Damaged(why) => return Err(damaged(why)),
            }
            match keyring.decrypt(&file, false) {
                Decrypted::Plain(plain) => {
                    let anew = keyring.encrypt(&plain);
                    let same = matches!(
                        keyring.decrypt(&anew, true), Decrypted::Plain(again) if again == plain
                    );
                    assert!(same, "age decrypts what it encrypted");
                    self.layout.replace_key(&id, &anew)?;
                    count += 1;
                }
                // A key of the other keyring.
                Decrypted::NotOurs => {}
                Decrypted::Damaged(why) => return Err(damaged(why)),
            }
        }
        let current = keyring.without_old_identity();
        self.replace_keyring(ring, &current, passphrase)?;
        Ok((current, count))
    }

    /// Replaces a keyring file by one that was seen to open.
    fn replace_keyring(
        &self,
        ring: Ring,
        keyring: &OpenKeyring,
        passphrase: &Secret,
    ) -> Result<(), StoreError> {
        let file = keyring.seal(ring, passphrase)?;
        let opens = OpenKeyring::open(&self.layout.keyring(ring), &file, passphrase);
        assert!(
            opens.is_ok_and(|again| again.is_same(keyring)),
            "age opens what it sealed"
        );
        self.layout.replace_keyring(ring, &file)
    }

    /// Puts a keyring in the place of its predecessor wherever that is held.
    fn install(&mut self, ring: Ring, keyring: &Arc<OpenKeyring>) {
        if let (Ring::Repository, Some(held)) = (ring, &mut self.held) {
            held.keyring = keyring.clone();
        }
        for request in self.requests.values_mut() {
            if let Some(open) = request.slot(ring) {
                open.keyring = keyring.clone();
            }
        }
    }
}
