//! What `make install` gives a host for cards: every file where its reader looks for it, in a form
//! that the reader takes, as far as its tools are here to say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use signet_tests::lab::command::clean;
use signet_tests::{Lab, Run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of an installation below `dir`, by the prefix that they are installed for.
fn install(dir: &Path, prefix: &str) -> BTreeSet<String> {
    let mut make = clean("make");
    make.current_dir(root())
        .args(["--no-print-directory", "install-system"])
        .arg(format!("DESTDIR={}", dir.display()))
        .arg(format!("PREFIX={prefix}"))
        .run()
        .ok();
    let mut find = clean("find");
    let found = find.arg(dir).args(["-type", "f", "-printf", "/%P\n"]);
    let listed = found.run().ok().stdout;
    listed.lines().map(str::to_owned).collect()
}

/// Lines that say something: no comments, nothing empty.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn every_file_is_where_its_reader_looks() {
    let lab = Lab::builder().build();
    let below = |name: &str| {
        let dir = lab.dir().join(name);
        fs::create_dir(&dir).expect("the lab's directory is ours");
        dir
    };
    let files = install(&below("usr"), "/usr");
    let wanted = [
        "/usr/lib/systemd/user/signetd.service",
        "/usr/lib/systemd/user/signetd.socket",
        "/usr/lib/sysusers.d/signet.conf",
        "/usr/lib/udev/rules.d/93-signet-yubikey.rules",
        "/usr/share/polkit-1/rules.d/50-signet-pcsc.rules",
    ];
    assert_eq!(files, wanted.map(str::to_owned).into());
    // polkit does not look below /usr/local before version 124.
    let files = install(&below("local"), "/usr/local");
    assert!(
        files.contains("/etc/polkit-1/rules.d/50-signet-pcsc.rules"),
        "{files:?}"
    );
    assert!(files.contains("/usr/local/lib/udev/rules.d/93-signet-yubikey.rules"));
}

#[test]
fn the_units_name_the_program_and_the_socket_that_the_command_looks_for() {
    let lab = Lab::builder().build();
    install(lab.dir(), "/opt/signet");
    let units = lab.dir().join("opt/signet/lib/systemd/user");
    let read = |name: &str| fs::read_to_string(units.join(name)).expect("it is installed");
    let service = read("signetd.service");
    assert!(
        service.contains("\nExecStart=/opt/signet/bin/signetd\n"),
        "{service}"
    );
    assert!(!service.contains("@bindir@"), "{service}");
    // `Type=notify` is kept by `signetd`, whose socket is this one.
    let socket = read("signetd.socket");
    for line in [
        "ListenStream=%t/signet/agent.sock",
        "SocketMode=0600",
        "DirectoryMode=0700",
    ] {
        assert!(lines(&socket).contains(&line), "no {line} in {socket}");
    }
    for text in [&service, &socket] {
        for line in lines(text) {
            let is_section = line.starts_with('[') && line.ends_with(']');
            assert!(is_section || line.contains('='), "{line}");
        }
    }
    // systemd's own opinion, where it can be asked: it needs a runtime directory to work in.
    let program = lab.dir().join("opt/signet/bin/signetd");
    fs::create_dir_all(program.parent().expect("bin")).expect("ours");
    fs::write(&program, "#!/bin/sh\n").expect("ours");
    let mut chmod = Command::new("chmod");
    chmod.arg("755").arg(&program).run().ok();
    let Ok(verify) = Command::new("systemd-analyze")
        .args(["--user", "--man=no", "verify"])
        .arg(units.join("signetd.socket"))
        .env("XDG_RUNTIME_DIR", lab.dir())
        .output()
    else {
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    for line in said.lines().filter(|line| line.contains("signetd.")) {
        // The program is at home below the lab's directory only.
        let is_ours = line.contains("is not executable") || line.contains("Failed to create");
        assert!(is_ours, "{said}");
    }
}

#[test]
fn the_udev_rule_is_made_of_keys_and_operators_that_udev_knows() {
    let text =
        fs::read_to_string(root().join("udev/93-signet-yubikey.rules")).expect("it is there");
    let mut labels = BTreeSet::new();
    let mut jumps = BTreeSet::new();
    for line in lines(&text) {
        for part in line.split(", ") {
            let at = part
                .find(['=', '!'])
                .unwrap_or_else(|| panic!("no operator: {part}"));
            let (key, rest) = part.split_at(at);
            let quote = rest.find('"').unwrap_or_else(|| panic!("no value: {part}"));
            let (operator, value) = rest.split_at(quote);
            let value = value.trim_matches('"');
            assert!(!value.contains('"') && rest.ends_with('"'), "{part}");
            // Of udev(7): what a rule compares, and what it sets.
            let name = key.split('{').next().unwrap_or(key);
            let fits = match name {
                "ACTION" | "SUBSYSTEM" | "ENV" | "TEST" => matches!(operator, "==" | "!="),
                // Compared, or written to.
                "ATTR" => matches!(operator, "==" | "!=" | "="),
                "GOTO" => jumps.insert(value.to_owned()) | (operator == "="),
                "LABEL" => labels.insert(value.to_owned()) | (operator == "="),
                _ => false,
            };
            assert!(fits, "{part}");
        }
    }
    assert_eq!(labels, jumps, "every jump ends somewhere");
    // It takes back what libccid's rule does, so it must be read after that.
    let ours = "93-signet-yubikey.rules";
    assert!(ours > "92-libccid.rules");
    // Every line has its reason above it.
    for block in text.split("\n\n").filter(|block| !lines(block).is_empty()) {
        assert!(
            block.starts_with('#') || block.starts_with("LABEL"),
            "{block}"
        );
    }
}

#[test]
fn the_polkit_rule_lets_in_the_group_that_sysusers_makes_and_decides_nothing_else() {
    let lab = Lab::builder().build();
    let rule = root().join("udev/50-signet-pcsc.rules");
    let text = fs::read_to_string(&rule).expect("it is there");
    let group = fs::read_to_string(root().join("udev/signet.conf")).expect("it is there");
    assert_eq!(lines(&group), ["g signet -"]);
    assert!(text.contains(r#"subject.isInGroup("signet")"#), "{text}");
    for (open, close) in [('(', ')'), ('{', '}')] {
        assert_eq!(text.matches(open).count(), text.matches(close).count());
    }
    // polkit's own interpreter cannot be asked; any other will do for this much JavaScript.
    let script = format!(
        "let rule; const polkit = {{ addRule: f => rule = f, Result: {{ YES: 'yes', NOT_HANDLED: null }} }};\n\
         {text}\n\
         const member = {{ isInGroup: name => name === 'signet' }}, other = {{ isInGroup: () => false }};\n\
         const pcsc = 'org.debian.pcsc-lite.access_pcsc', card = 'org.debian.pcsc-lite.access_card';\n\
         console.log(JSON.stringify([[pcsc, member], [card, member], [pcsc, other], ['org.x', member]]\n\
           .map(([id, who]) => rule({{ id }}, who))));"
    );
    let file = lab.dir().join("rule.js");
    fs::write(&file, script).expect("ours");
    if let Ok(output) = clean("node").arg(&file).output() {
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), r#"["yes","yes",null,null]"#);
    }
    if let Ok(dry) = Command::new("systemd-sysusers")
        .args(["--dry-run", "--root"])
        .arg(lab.dir())
        .arg(root().join("udev/signet.conf"))
        .output()
    {
        let said = String::from_utf8_lossy(&dry.stderr);
        assert!(dry.status.success() && said.contains("'signet'"), "{said}");
    }
}
