//! GnuPG's scdaemon, which takes a YubiKey for itself unless it is told not to.

use std::path::{Path, PathBuf};

use signet_proto::v1::ListCardsReply;

use super::{Finding, State, host::Host};

/// The two lines that make scdaemon share: PC/SC instead of its own USB driver, and no exclusive
/// access there (scdaemon(1)).
const LINES: [&str; 2] = ["disable-ccid", "pcsc-shared"];

/// Where the program may lie.
const PROGRAMS: [&str; 3] = [
    "usr/lib/gnupg/scdaemon",
    "usr/libexec/scdaemon",
    "usr/lib/gnupg2/scdaemon",
];

/// Whether scdaemon is in the way.
pub(super) fn scdaemon(host: &Host, wanted: bool, cards: &ListCardsReply) -> Finding {
    let config = config(host);
    let text = host.read(&config).unwrap_or_default();
    let missing: Vec<&str> = LINES
        .into_iter()
        .filter(|line| !text.lines().any(|have| have.trim() == *line))
        .collect();
    let running = running(host);
    let holds = cards
        .cards
        .iter()
        .map(|card| &card.problem)
        .chain(&cards.problems)
        .find(|problem| problem.contains("scdaemon"));
    let fix = fix(&config, &missing);
    if let Some(problem) = holds {
        return Finding::new("scdaemon", State::Failed, problem.clone()).fix(fix);
    }
    match running {
        Some(pid) if !missing.is_empty() => Finding::new(
            "scdaemon",
            State::Warning,
            format!("GnuPG's scdaemon (pid {pid}) runs, and takes a YubiKey for itself"),
        )
        .fix(fix),
        Some(pid) => Finding::new(
            "scdaemon",
            State::Ok,
            format!("scdaemon (pid {pid}) runs, and shares"),
        ),
        None if !missing.is_empty() && wanted && is_installed(host) => Finding::new(
            "scdaemon",
            State::Note,
            "GnuPG's scdaemon does not run; when gpg uses a card, it will take it for itself",
        )
        .fix(fix),
        None => Finding::new("scdaemon", State::Ok, "no scdaemon runs"),
    }
}

/// Its configuration: `$GNUPGHOME`, else `~/.gnupg`.
fn config(host: &Host) -> PathBuf {
    let home = host.variable("GNUPGHOME").map(PathBuf::from);
    let own = || Some(Path::new(host.variable("HOME")?).join(".gnupg"));
    home.or_else(own)
        .unwrap_or_else(|| PathBuf::from(".gnupg"))
        .join("scdaemon.conf")
}

fn fix(config: &Path, missing: &[&str]) -> String {
    let path = config.display();
    if missing.is_empty() {
        return "gpgconf --kill scdaemon; it starts again when gpg needs a card".into();
    }
    format!(
        "printf '{}\\n' >>{path} && gpgconf --kill scdaemon",
        missing.join("\\n")
    )
}

fn is_installed(host: &Host) -> bool {
    PROGRAMS.iter().any(|program| host.exists(program))
}

/// The process ID of an scdaemon.
fn running(host: &Host) -> Option<u32> {
    host.names("proc")
        .into_iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .find(|pid| {
            let name = host.read(format!("proc/{pid}/comm"));
            name.is_some_and(|name| name.trim_end() == "scdaemon")
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_running_scdaemon_is_told_the_very_lines_that_it_lacks() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let none = ListCardsReply::default();
        assert_eq!(scdaemon(&host, true, &none).state, State::Ok);
        put(root.path(), "usr/lib/gnupg/scdaemon", "");
        assert_eq!(scdaemon(&host, true, &none).state, State::Note);
        put(root.path(), "proc/4211/comm", "scdaemon\n");
        let finding = scdaemon(&host, true, &none);
        assert!(finding.message.contains("pid 4211"), "{finding:?}");
        assert_eq!(
            finding.fix.as_deref(),
            Some(
                "printf 'disable-ccid\\npcsc-shared\\n' >>/home/me/.gnupg/scdaemon.conf && \
                 gpgconf --kill scdaemon"
            )
        );
        put(
            root.path(),
            "home/me/.gnupg/scdaemon.conf",
            "disable-ccid\n",
        );
        let fix = scdaemon(&host, true, &none).fix.unwrap();
        assert!(fix.starts_with("printf 'pcsc-shared\\n'"), "{fix}");
        put(
            root.path(),
            "home/me/.gnupg/scdaemon.conf",
            "disable-ccid\n  pcsc-shared\n",
        );
        assert_eq!(scdaemon(&host, true, &none).state, State::Ok);
    }

    #[test]
    fn one_that_holds_the_card_has_failed_the_check() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let held = ListCardsReply {
            problems: vec!["the reader is used by scdaemon (pid 7)".into()],
            ..ListCardsReply::default()
        };
        assert_eq!(scdaemon(&host, true, &held).state, State::Failed);
    }
}
