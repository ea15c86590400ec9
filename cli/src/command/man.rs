//! `signet man DIR` (hidden; packagers call it): a page for `signet` and for each of its verbs.

use std::fs;

use clap::CommandFactory as _;

use crate::{
    args::{Cli, ManArgs},
    failure::Failure,
    ui::Ui,
};

/// Writes `signet.1`, `signet-push.1`, `signet-key-list.1` …
pub(crate) fn run(args: &ManArgs, ui: &Ui) -> Result<(), Failure> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    pages(&root, "signet", args, ui)
}

fn pages(command: &clap::Command, name: &str, args: &ManArgs, ui: &Ui) -> Result<(), Failure> {
    let path = args.dir.join(format!("{name}.1"));
    let failed = |error| Failure::file("write", &path, error);
    let page = clap_mangen::Man::new(command.clone())
        .title(name)
        .manual("Signet");
    let mut text = Vec::new();
    page.render(&mut text).map_err(failed)?;
    fs::write(&path, text).map_err(failed)?;
    ui.say(path.display());
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb, &format!("{name}-{}", verb.get_name()), args, ui)?;
    }
    Ok(())
}
