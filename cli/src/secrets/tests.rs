use std::io::Write as _;

use clap::Parser as _;

use super::*;
use crate::args::Cli;

fn secrets(line: &str, env: &[(&str, &str)]) -> Result<Secrets, Failure> {
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    Secrets::new(&cli.globals, &cli.command, |name| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| OsString::from(value))
    })
}

fn ask(what: What, role: &str) -> NeedPassphrase {
    NeedPassphrase {
        what: what.into(),
        role: role.into(),
        key_id: if what == What::Key {
            "ab".repeat(32)
        } else {
            String::new()
        },
        ..NeedPassphrase::default()
    }
}

fn again(mut ask: NeedPassphrase) -> NeedPassphrase {
    ask.refused = "wrong passphrase".into();
    ask
}

fn next(secrets: &mut Secrets, ask: &NeedPassphrase) -> Option<(String, Source)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (secret, source) = runtime.block_on(secrets.next(ask)).unwrap()?;
    Some((String::from_utf8(secret.to_vec()).unwrap(), source))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_first_line_counts() {
    for (text, line) in [("a b\nc", "a b"), ("a\r\n", "a"), ("a", "a"), ("\n", "")] {
        assert_eq!(*first_line(&mut text.as_bytes()).unwrap(), line.as_bytes());
    }
    assert!(first_line(&mut &vec![b'a'; 65_537][..]).is_err());
    assert_eq!(
        first_line(&mut &vec![b'a'; 65_536][..]).unwrap().len(),
        65_536
    );
}

#[test]
fn a_refused_secret_is_not_tried_again() {
    let held = file("from-file\n");
    let path = held.path().to_str().unwrap();
    let mut secrets = secrets("signet push a", &[("SIGNET_PASSPHRASE_FILE", path)]).unwrap();
    let keyring = ask(What::Keyring, "");
    assert_eq!(
        next(&mut secrets, &keyring),
        Some(("from-file".into(), Source::File))
    );
    // A second prompt of another request may be answered again…
    assert_eq!(
        next(&mut secrets, &keyring),
        Some(("from-file".into(), Source::File))
    );
    // …but not one that says the secret was wrong.
    assert_eq!(next(&mut secrets, &again(keyring.clone())), None);
    assert_eq!(next(&mut secrets, &keyring), None);
}

#[test]
fn what_one_file_refuses_may_open_the_next() {
    let env = [("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "of-some")];
    let mut secrets = secrets("signet key import x", &env).unwrap();
    let file = NeedPassphrase {
        key_id: String::new(),
        ..ask(What::Key, "targets")
    };
    assert!(next(&mut secrets, &file).is_some());
    assert!(next(&mut secrets, &again(file.clone())).is_none());
    secrets.next_file();
    assert!(next(&mut secrets, &file).is_some());
}

#[test]
fn after_a_refused_source_comes_the_next_in_order() {
    let held = file("from-descriptor\n");
    let env = [(
        "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
        "from-variable",
    )];
    let fd = std::os::fd::AsRawFd::as_raw_fd(&held);
    // Reading starts where the descriptor stands.
    io::Seek::rewind(&mut held.as_file()).unwrap();
    let line = format!("signet push a --passphrase-fd repository:{fd}");
    let mut secrets = secrets(&line, &env).unwrap();
    let key = ask(What::Key, "targets");
    assert_eq!(
        next(&mut secrets, &key),
        Some(("from-descriptor".into(), Source::Descriptor))
    );
    assert_eq!(
        next(&mut secrets, &again(key.clone())),
        Some(("from-variable".into(), Source::Variable))
    );
    assert_eq!(next(&mut secrets, &again(key)), None);
}

#[test]
fn docker_variables_go_by_role_and_only_to_dockers_keys() {
    let env = [
        ("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "for-root"),
        ("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "for-others"),
    ];
    let mut secrets = secrets("signet push a", &env).unwrap();
    assert_eq!(
        next(&mut secrets, &ask(What::Key, "root")).unwrap().0,
        "for-root"
    );
    for role in ["targets", "snapshot", "alice", ""] {
        assert_eq!(
            next(&mut secrets, &ask(What::Key, role)).unwrap().0,
            "for-others",
            "{role}"
        );
    }
    for what in [What::Keyring, What::Root, What::Export] {
        assert_eq!(next(&mut secrets, &ask(what, "")), None);
    }
}

#[test]
fn the_keyrings_file_stands_in_for_root_only_when_both_are_made() {
    let (keyring, root) = (file("k"), file("r"));
    let one = [("SIGNET_PASSPHRASE_FILE", keyring.path().to_str().unwrap())];
    let two = [
        one[0],
        ("SIGNET_ROOT_PASSPHRASE_FILE", root.path().to_str().unwrap()),
    ];
    let open = ask(What::Root, "");
    let make = NeedPassphrase {
        new_secret: true,
        ..open.clone()
    };

    let mut only_keyring = secrets("signet push a", &one).unwrap();
    assert_eq!(next(&mut only_keyring, &open), None);
    assert_eq!(next(&mut only_keyring, &make).unwrap().0, "k");

    let mut both = secrets("signet push a", &two).unwrap();
    assert_eq!(next(&mut both, &open).unwrap().0, "r");
    assert_eq!(next(&mut both, &make).unwrap().0, "r");
}

#[test]
fn a_changed_passphrase_never_comes_from_the_file_of_the_old_one() {
    let old = file("old");
    let env = [("SIGNET_PASSPHRASE_FILE", old.path().to_str().unwrap())];
    let mut secrets = secrets("signet keyring passphrase", &env).unwrap();
    let open = ask(What::Keyring, "");
    assert_eq!(next(&mut secrets, &open).unwrap().0, "old");
    assert_eq!(
        next(
            &mut secrets,
            &NeedPassphrase {
                new_secret: true,
                ..open
            }
        ),
        None
    );
}

#[test]
fn a_descriptor_without_a_purpose_is_refused_where_none_is_implied() {
    for line in [
        "signet push a",
        "signet key generate --role root",
        "signet key passphrase x",
    ] {
        let failure = secrets(&format!("{line} --passphrase-fd 3"), &[]).unwrap_err();
        assert_eq!(failure.exit, 2, "{line}");
    }
    for line in [
        "signet unlock",
        "signet keyring rotate",
        "signet key import x",
    ] {
        assert!(
            secrets(&format!("{line} --passphrase-fd 3"), &[]).is_ok(),
            "{line}"
        );
    }
}

#[test]
fn a_key_is_named_in_any_of_its_ways() {
    let mut key = ask(What::Key, "targets");
    key.gun = "reg.corp:5000/app".into();
    key.label = "mine".into();
    let id = "ab".repeat(32);
    for name in [
        id.as_str(),
        "abababa",
        "ABABABA",
        "mine",
        "targets@reg.corp:5000/app",
    ] {
        assert!(is_called(&key, name), "{name}");
    }
    for name in [
        "ababab",
        "min",
        "targets@reg.corp:5000",
        "root@reg.corp:5000/app",
        "",
    ] {
        assert!(!is_called(&key, name), "{name}");
    }
}

#[test]
fn an_unreadable_source_is_named() {
    let env = [("SIGNET_PASSPHRASE_FILE", "/nonexistent/pass")];
    let mut secrets = secrets("signet push a", &env).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let failure = runtime
        .block_on(secrets.next(&ask(What::Keyring, "")))
        .unwrap_err();
    assert_eq!(failure.exit, exit::LOCKED);
    assert!(
        failure
            .message
            .contains("/nonexistent/pass (SIGNET_PASSPHRASE_FILE)"),
        "{failure}"
    );
}

#[test]
fn what_stood_in_for_the_root_keyring_opens_it_for_the_rest_of_the_command() {
    let held = file("from-file\n");
    let path = held.path().to_str().unwrap();
    let mut secrets = secrets("signet key import a", &[("SIGNET_PASSPHRASE_FILE", path)]).unwrap();
    let open = ask(What::Root, "");
    assert_eq!(next(&mut secrets, &open), None);
    let mut made = open.clone();
    made.new_secret = true;
    let given = Some(("from-file".into(), Source::File));
    assert_eq!(next(&mut secrets, &made), given);
    assert_eq!(next(&mut secrets, &open), given);
}
