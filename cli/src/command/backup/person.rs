//! The person, as age's plugins and SSH keys ask for something.

use age::Callbacks;
use secrecy::SecretString;

use crate::ui::{Asked, Ui, terminal, text::escape};

/// Whoever sits at the terminal, for plugins and SSH keys.
#[derive(Clone)]
pub(super) struct Person {
    ui: Ui,
}

impl Person {
    pub(super) fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone() }
    }
}

impl Callbacks for Person {
    fn display_message(&self, message: &str) {
        self.ui.say(escape(message));
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        if !self.ui.may_ask() {
            return None;
        }
        let no = no
            .map(|no| format!(", no: {}", escape(no)))
            .unwrap_or_default();
        let question = format!("{} (yes: {}{no})", escape(message), escape(yes));
        match terminal::confirm(&question) {
            Asked::Answer(yes) => Some(yes),
            _ => None,
        }
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        if !self.ui.may_ask() {
            return None;
        }
        match terminal::line(&format!("{}: ", escape(description))) {
            Asked::Answer(line) => Some(line),
            _ => None,
        }
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        if !self.ui.may_ask() {
            return None;
        }
        match terminal::secret(&format!("{}: ", escape(description))) {
            Asked::Answer(secret) => {
                let text = std::str::from_utf8(&secret).ok()?;
                Some(SecretString::from(text.to_owned()))
            }
            _ => None,
        }
    }
}
