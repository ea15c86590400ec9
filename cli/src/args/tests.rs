use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn global_flags_stand_before_or_after_the_verb() {
    for line in [
        "signet --json --no-input -y --allow gap key list",
        "signet key list --json --no-input --yes --allow gap",
        "signet key --json list --no-input -y --allow gap",
    ] {
        let globals = parse(line).unwrap().globals;
        assert!(globals.json && globals.no_input && globals.yes, "{line}");
        assert_eq!(globals.allow, [Rule::Gap], "{line}");
    }
}

#[test]
fn repeatable_flags_add_up() {
    let line =
        "signet push a --allow gap --allow key --passphrase-fd root:3 --passphrase-fd keyring:4";
    let globals = parse(line).unwrap().globals;
    assert_eq!(globals.allow, [Rule::Gap, Rule::Key]);
    assert_eq!(globals.passphrase_fd.len(), 2);
}

#[test]
fn descriptors_may_say_what_they_are_for() {
    let spec = |text: &str| text.parse::<FdSpec>();
    assert_eq!(spec("3"), Ok(FdSpec { what: None, fd: 3 }));
    let key = spec("targets@reg.corp:5000/app:7").unwrap();
    assert_eq!(
        (key.what.as_deref(), key.fd),
        (Some("targets@reg.corp:5000/app"), 7)
    );
    for wrong in ["", "x", "-1", ":3", "root:", "root:x", "99999999999"] {
        assert!(spec(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn durations_have_a_unit_and_a_limit() {
    assert_eq!(parse_duration("15m"), Ok(900));
    assert_eq!(parse_duration("45"), Ok(45));
    assert_eq!(parse_duration("1h"), Ok(3600));
    for wrong in ["0s", "61m", "2h", "m", "", "-1", "1d", "99999999h"] {
        assert!(parse_duration(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_grant_is_for_this_terminal_or_for_digests() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let parse = |line: &str| parse(&format!("signet grant {line}"));
    for line in ["", "--here --for 1h", "list", "revoke 1f", "revoke --all"] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    parse(&format!(
        "--digest {digest} --digest {digest} --for 24h --gun reg/*"
    ))
    .unwrap();
    for line in [
        &*format!("--here --digest {digest}"),
        "--digest ab",
        "--for 2d",
        "--here list",
        "revoke",
        "revoke 1f --all",
        "revoke ..",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn later_names_take_any_arguments() {
    assert!(matches!(
        parse("signet signer add --to x").unwrap().command,
        Command::Signer(_)
    ));
    assert!(parse("signet repo rotate --key root app").is_ok());
}

#[test]
fn what_is_unknown_is_a_usage_error() {
    for line in [
        "signet pusch a",
        "signet push",
        "signet push a --store tape",
        "signet push a --store piv:1:9b",
        "signet push a --pin-fd work:3",
        "signet key move x",
        "signet key generate --role root --pin-policy sometimes",
        "signet card setup --pin-tries 5",
        "signet card setup --pin-tries 0 --puk-tries 3",
        "signet card forget",
        "signet card attest f9",
        "signet push a --allow everything",
        "signet",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn cards_are_named_by_their_serial() {
    for line in [
        "signet card setup 12345678 --label work --pin-tries 5 --puk-tries 5",
        "signet card pin --puk",
        "signet card puk 12345678",
        "signet card attest 9C --serial 12345678",
        "signet card forget 12345678",
        "signet card reset 12345678 --confirm 12345678",
        "signet key move root --store piv:1 --store piv:2:9c --no-backup --touch-policy always",
        "signet push a --store piv:1 --pin-fd 1:3 --pin-fd 2:4 --use-last-try",
        "signet doctor",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
