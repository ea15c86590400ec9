//! signet: signs on push, verifies before pull, and carries keys between hosts.
//!
//! ```text
//! main → command/* → collection → net, docker        what a verb does, and whom it talks to
//!           │            └──→ trust                   pure: edits and verifies documents
//!           └──→ agent ──→ proto                      keys and signatures live behind the socket
//!        context: ui · args · secrets · home          given to every command
//! ```
//!
//! The command never sees a private key. It reads images, registries and trust servers, edits
//! documents, and asks the agent to sign them; the agent asks the person through it.
#![forbid(unsafe_code)]

mod agent;
mod args;
mod collection;
mod command;
mod context;
mod docker;
mod failure;
mod harden;
mod home;
mod image;
mod net;
mod new_file;
#[cfg(test)]
mod schema;
mod secrets;
#[doc(hidden)]
pub mod shares;
mod ui;

#[doc(hidden)]
pub use net::error::read_error_body;

pub(crate) use context::Context;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::Parser as _;

use args::{Cli, Command, Globals};
use failure::{Failure, exit};
use ui::Ui;

/// Runs the command line of this process.
#[must_use]
pub fn main_from_env() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    harden::process();
    if command::plugin::is_plugin(args.first().map_or(OsStr::new(""), |name| name)) {
        args = match command::plugin::arguments(args, &Ui::new(&Globals::default())) {
            command::plugin::Call::Metadata => return ExitCode::SUCCESS,
            command::plugin::Call::Command(args) => args,
            command::plugin::Call::Unusable(failure) => {
                return end(&Ui::new(&Globals::default()), Err(failure));
            }
        };
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&args, &error),
    };
    let ui = Ui::new(&cli.globals);
    let result = run(cli, &ui, &args);
    end(&ui, result)
}

fn run(cli: Cli, ui: &Ui, args: &[OsString]) -> Result<(), Failure> {
    // These need no home and no runtime.
    match &cli.command {
        Command::Completions(args) => return command::completions::run(args, ui),
        Command::Man(args) => return command::man::run(args, ui),
        _ => {}
    }
    if let Some(name) = command::reserved(&cli.command) {
        return Err(Failure::new(
            exit::USAGE,
            "not_in_this_release",
            format!("`signet {name}` is not in this release"),
        ));
    }
    let mut context = Context::new(&cli, ui.clone(), command_line(args))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::FAILED, "runtime", format!("cannot start: {error}")))?;
    let half_done = context.half_done();
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => {
                Err(half_done.take().unwrap_or_else(Failure::interrupted))
            }
            result = command::run(cli.command, &mut context) => result,
        }
    });
    // A thread may still wait at the terminal; it must not keep the process.
    runtime.shutdown_background();
    result
}

/// Returns at SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn end(ui: &Ui, result: Result<(), Failure>) -> ExitCode {
    ui::terminal::restore();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// Prints help and versions as clap would, and usage errors in the form that was asked for.
fn usage(args: &[OsString], error: &clap::Error) -> ExitCode {
    if error.use_stderr() && args.iter().any(|arg| arg == "--json") {
        let ui = Ui::new(&Globals {
            json: true,
            ..Globals::default()
        });
        return end(&ui, Err(usage_failure(error)));
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
}

/// A usage error in our own form.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let message = match error.kind() {
        // clap prints the whole help for this.
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command is given",
        // The first paragraph is the error, the rest is usage.
        _ => text.split("\n\n").next().unwrap_or(&text),
    };
    let message = message
        .strip_prefix("error: ")
        .unwrap_or(message)
        .trim_end();
    Failure::usage(message)
        .fix("`signet --help` lists the commands, `signet COMMAND --help` their flags")
}

/// The command line as one shows it: the program by its name, control characters escaped.
fn command_line(args: &[OsString]) -> String {
    let mut words = args.iter().map(|arg| arg.to_string_lossy());
    let program = words.next().unwrap_or_default();
    let name = Path::new(&*program)
        .file_name()
        .map_or("signet".into(), OsStr::to_string_lossy);
    let mut line: String = name.into_owned();
    for word in words {
        line.push(' ');
        line.extend(word.chars().flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        }));
    }
    // Bounded: the agent shows it in prompts and keeps it in its log.
    if line.len() > 512 {
        let end = (0..=509)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_error(line: &str) -> Failure {
        usage_failure(&Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn usage_errors_say_what_is_wrong_in_one_paragraph() {
        for (line, message) in [
            ("signet pusch a", "unrecognized subcommand 'pusch'"),
            ("signet key", "no command is given"),
            (
                "signet push a --sizes 3",
                "unexpected argument '--sizes' found",
            ),
            (
                "signet push a --passphrase-fd x",
                "invalid value 'x' for '--passphrase-fd <[WHAT:]N>': \"x\" is no descriptor number",
            ),
            (
                "signet unlock --for 2h",
                "invalid value '2h' for '--for <DURATION>': must be between one second and one hour",
            ),
            (
                "signet key generate --role root --store pkcs11:x",
                "invalid value 'pkcs11:x' for '--store <STORE>': PKCS#11 tokens are not in this release",
            ),
        ] {
            let failure = usage_error(line);
            assert_eq!(
                (failure.exit, failure.message.as_str()),
                (2, message),
                "{line}"
            );
            schema::assert_fits("Errors", &failure.to_json());
        }
    }

    #[test]
    fn a_command_line_is_shown_by_its_program_bounded_and_harmless() {
        let line =
            |words: &[&str]| command_line(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(
            line(&["/usr/bin/signet", "push", "a\x1b[2Jb"]),
            "signet push a\\u{1b}[2Jb"
        );
        assert!(line(&["signet", &"é".repeat(600)]).len() <= 512);
    }
}
