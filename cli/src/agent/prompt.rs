//! Answers to the agent's questions.
//!
//! A secret comes from a descriptor, a file, a variable, or the person at the terminal, in this
//! order; a question that wants a yes comes from `--yes` or the person. Nobody is asked with
//! `--no-input`: then the summary goes to stderr, and what no source holds is unavailable.

pub(crate) mod pin;

use signet_proto::v1::{
    self, NeedConfirm, NeedPassphrase, answer::Answer as Given, need_passphrase::What, prompt::Ask,
    secret::Source,
};

use crate::{
    Context,
    failure::Failure,
    ui::{
        Asked, blocking,
        terminal::{self, Typed},
        text::{escape, short_id},
    },
};

/// Fewest characters of a new secret that is typed.
pub(crate) const MIN_TYPED: usize = 8;

/// Answers one prompt.
///
/// # Errors
///
/// Exit 5 when a source of secrets was given that cannot be read.
pub(crate) async fn answer(ctx: &mut Context, prompt: v1::Prompt) -> Result<v1::Answer, Failure> {
    let yes = ctx.globals.yes;
    answer_with(ctx, prompt, yes).await
}

/// As [`answer`]; with `yes` the person has said yes already, in this command.
///
/// # Errors
///
/// As [`answer`].
pub(crate) async fn answer_with(
    ctx: &mut Context,
    prompt: v1::Prompt,
    yes: bool,
) -> Result<v1::Answer, Failure> {
    if let Some(relay) = ctx.relay.clone() {
        return relay.ask(prompt).await;
    }
    let given = match prompt.ask {
        Some(Ask::Passphrase(ask)) => passphrase(ctx, &ask).await?,
        Some(Ask::Confirm(ask)) => confirm(ctx, &ask, yes || ctx.globals.yes).await,
        Some(Ask::Pin(ask)) => pin::answer(ctx, &ask).await?,
        // A kind of question that a later agent knows.
        None => Given::Unavailable(v1::Unavailable {}),
    };
    Ok(v1::Answer {
        grant_seconds: 0,
        prompt_id: prompt.id,
        answer: Some(given),
    })
}

async fn passphrase(ctx: &mut Context, ask: &NeedPassphrase) -> Result<Given, Failure> {
    let refused = escape(&ask.refused);
    if !refused.is_empty()
        && let Some(source) = ctx.secrets.last_source(ask)
    {
        ctx.ui.warn(format_args!(
            "the passphrase from {source} was refused: {refused}"
        ));
    }
    if let Some((secret, source)) = ctx.secrets.next(ask).await? {
        ctx.tell(&ask.summary);
        return Ok(secret_of(&secret, source));
    }
    if !ctx.ui.may_ask() {
        ctx.tell(&ask.summary);
        return Ok(Given::Unavailable(v1::Unavailable {}));
    }
    let mut ask = ask.clone();
    if ctx.told == ask.summary {
        ask.summary.clear();
    } else {
        ctx.told.clone_from(&ask.summary);
    }
    Ok(match blocking(move || typed(&ask)).await {
        Asked::Answer(secret) => secret_of(&secret, Source::Typed),
        Asked::Cancelled => Given::Cancelled(v1::Cancelled {}),
        Asked::NoTerminal => Given::Unavailable(v1::Unavailable {}),
    })
}

fn secret_of(secret: &[u8], source: Source) -> Given {
    // The copy lives until it has left through the socket.
    Given::Secret(v1::Secret {
        value: secret.to_vec(),
        source: source.into(),
    })
}

/// Asks the person; a new secret twice.
fn typed(ask: &NeedPassphrase) -> Asked<Typed> {
    // The summary was shown with the first question.
    let lines: Vec<String> = if ask.refused.is_empty() {
        ask.summary.iter().map(|line| escape(line)).collect()
    } else {
        vec![match ask.attempts_left {
            0 => format!("{}.", escape(&ask.refused)),
            1 => format!("{}. One more try.", escape(&ask.refused)),
            left => format!("{}. {left} more tries.", escape(&ask.refused)),
        }]
    };
    terminal::show(&lines);
    let what = called(ask);
    if !ask.new_secret {
        return terminal::secret(&format!("Passphrase of {what}: "));
    }
    loop {
        let first = match terminal::secret(&format!("New passphrase for {what}: ")) {
            Asked::Answer(secret) => secret,
            other => return other,
        };
        if String::from_utf8_lossy(&first).chars().count() < MIN_TYPED {
            terminal::show(&[format!("It must have at least {MIN_TYPED} characters.")]);
            continue;
        }
        match terminal::secret("The same once more: ") {
            Asked::Answer(second) if *second == *first => return Asked::Answer(first),
            Asked::Answer(_) => {
                terminal::show(&["The two are not the same.".to_owned()]);
            }
            other => return other,
        }
    }
}

/// What a secret opens, as a person calls it.
pub(crate) fn called(ask: &NeedPassphrase) -> String {
    match ask.what() {
        What::Unspecified | What::Keyring => "the keyring".into(),
        What::Root => "the root keyring".into(),
        What::Export if ask.key_id.is_empty() => "the exported copy".into(),
        What::Export => format!("the exported copy of key {}", short_id(&ask.key_id)),
        What::Key => {
            let mut facts: Vec<String> = [&ask.label, &ask.role, &ask.gun]
                .into_iter()
                .filter(|fact| !fact.is_empty())
                .map(|fact| escape(fact))
                .collect();
            if !ask.key_id.is_empty() {
                facts.insert(0, short_id(&ask.key_id).to_owned());
            }
            if facts.is_empty() {
                "the key".into()
            } else {
                format!("key {}", facts.join(", "))
            }
        }
    }
}

async fn confirm(ctx: &mut Context, ask: &NeedConfirm, yes: bool) -> Given {
    // An override is never answered by --yes.
    if yes && ask.rule.is_empty() {
        ctx.tell(&ask.summary);
        return Given::Yes(true);
    }
    if !ctx.ui.may_ask() {
        ctx.tell(&ask.summary);
        return Given::Unavailable(v1::Unavailable {});
    }
    let lines: Vec<String> = ask.summary.iter().map(|line| escape(line)).collect();
    let question = escape(&ask.question);
    ctx.told.clone_from(&ask.summary);
    let asked = blocking(move || {
        if !lines.is_empty() {
            terminal::show(&lines);
        }
        terminal::confirm(&question)
    });
    match asked.await {
        Asked::Answer(yes) => Given::Yes(yes),
        Asked::Cancelled => Given::Cancelled(v1::Cancelled {}),
        Asked::NoTerminal => Given::Unavailable(v1::Unavailable {}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(what: What, key_id: &str, label: &str) -> NeedPassphrase {
        NeedPassphrase {
            what: what.into(),
            key_id: key_id.into(),
            role: "targets".into(),
            gun: "reg/app".into(),
            label: label.into(),
            ..NeedPassphrase::default()
        }
    }

    #[test]
    fn a_prompt_says_which_key_it_is_about() {
        let id = "ab".repeat(32);
        assert_eq!(
            called(&ask(What::Key, &id, "mine")),
            "key ababababab, mine, targets, reg/app"
        );
        assert_eq!(called(&ask(What::Keyring, "", "")), "the keyring");
        assert_eq!(called(&ask(What::Root, "", "")), "the root keyring");
    }

    #[test]
    fn a_label_cannot_move_the_cursor() {
        assert!(!called(&ask(What::Key, "", "a\x1b[2J\u{202e}b")).contains(['\x1b', '\u{202e}']));
    }
}
