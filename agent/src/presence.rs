//! The person: asked for secrets by the stores, and for consent by the path of a request.
//!
//! What an answer is worth is its grade: 1 yes on the caller's stream, 2 yes on an attending
//! terminal, 3 a passphrase given for this request, 4 a touch. So far the caller's own stream is
//! the only channel.

pub mod prepared;
pub mod stream;

use signet_trust::KeyId;

use crate::key::Secret;

/// Which secret is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// Opens `keyring.age`.
    Keyring,
    /// Opens `root.age`.
    Root,
    /// Opens one Docker-format key or an imported file.
    Key(KeyId),
    /// Encrypts an exported copy.
    Export,
}

/// A question for a secret.
#[derive(Clone, Debug)]
pub struct SecretRequest {
    /// Which.
    pub name: SecretName,
    /// Role of the key, for the words and for picking a variable; empty for keyrings.
    pub role: String,
    /// GUN of the key, empty if none.
    pub gun: String,
    /// Label of the key, empty if none.
    pub label: String,
    /// A new secret is being chosen.
    pub new_secret: bool,
    /// Why the last answer did not do; empty at first.
    pub refused: String,
    /// Answers that may still be given, this one included.
    pub attempts_left: u32,
}

/// Why there is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The person said stop.
    #[error("the person cancelled")]
    Cancelled,
    /// The caller went away.
    #[error("the caller went away")]
    Gone,
    /// Nobody there to ask, or no source holds it.
    #[error("nobody is there to answer")]
    Unavailable,
}

/// Stands for the ID of an imported file that nobody has named; a prompt shows none.
pub const UNKNOWN: KeyId = KeyId([0; 32]);

/// Whether a person typed a secret: only then it is held for the terminal session. What came from
/// a descriptor, file or variable is given anew by whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// On a terminal.
    Yes,
    /// By descriptor, file or variable.
    No,
}

/// An answer, with what it is worth.
#[derive(Debug)]
pub struct Given {
    /// The secret.
    pub secret: Secret,
    /// Typed, or given by descriptor, file or variable, for this request: grade 3.
    pub grade: u32,
}

/// Kernel session id of the caller's terminal session; secrets typed for a request are held for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub i32);

/// One request, for secrets that live only as long as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// The person holding the key, as seen from a store. The agent's own implementation
/// ([`prepared::Prepared`]) never blocks: what it has not been given yet is unavailable, the store
/// ends without having changed anything, and is called again with the answer.
pub trait Presence: Send {
    /// Asks for a passphrase.
    ///
    /// # Errors
    ///
    /// When nobody answers.
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret>;

    /// Which request this is.
    fn request(&self) -> RequestId;

    /// The caller's terminal session, if the kernel told.
    fn session(&self) -> Option<SessionId>;

    /// Held (unlocked) secrets may be used. False for root keys by rule, and for forwarded callers.
    fn may_use_held(&self) -> bool {
        true
    }

    /// Tells the presence that the secret of this name was accepted with this grade (0: held).
    fn accepted(&mut self, name: &SecretName, grade: u32);
}
