//! Keyrings that are there already.

use std::fs;
use std::io::Write as _;
use std::iter;
use std::os::unix::fs::PermissionsExt as _;

use age::secrecy::{ExposeSecret as _, SecretString};
use age::{Encryptor, scrypt, x25519};

use crate::Home;
use crate::lab::KEYRING_PASSPHRASE;
use crate::lab::command::Run as _;

/// log2 of scrypt's N: a millisecond instead of the second that the agent's own take. Tests of
/// other things open keyrings again and again.
const WORK_FACTOR: u8 = 10;

impl Home {
    /// Puts both keyrings into an empty home, with the passphrase of [`Home::passphrase_file`].
    ///
    /// # Panics
    /// When the home cannot be written.
    pub fn has_keyrings(&self) {
        for name in ["keyring.age", "root.age"] {
            let path = self.path().join(name);
            fs::write(&path, sealed(KEYRING_PASSPHRASE)).expect("the home is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        }
    }

    /// Unlocks the keyring of repository keys.
    ///
    /// # Panics
    /// When that fails.
    pub fn unlocks(&self) {
        self.unattended().arg("unlock").run().ok();
    }
}

/// A keyring file with a new identity.
fn sealed(passphrase: &str) -> Vec<u8> {
    let identity = x25519::Identity::generate();
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(WORK_FACTOR);
    let recipient: &dyn age::Recipient = &recipient;
    let encryptor = Encryptor::with_recipients(iter::once(recipient)).expect("one recipient");
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).expect("memory takes it");
    writeln!(writer, "{}", identity.to_string().expose_secret()).expect("memory takes it");
    writer.finish().expect("memory takes it");
    file
}
