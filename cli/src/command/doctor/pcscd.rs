//! The way to a card: pcscd, its drivers, and who may use it.

use std::{io, os::unix::net::UnixStream, path::PathBuf};

use super::{Finding, State, host::Host};

/// Where pcscd listens, unless `PCSCLITE_CSOCK_NAME` says otherwise (pcscd(8)).
const SOCKET: &str = "/run/pcscd/pcscd.comm";

/// Where the daemon may lie.
const PROGRAMS: [&str; 3] = ["usr/sbin/pcscd", "usr/bin/pcscd", "usr/libexec/pcscd"];

/// Where its drivers lie: Debian; Fedora and others.
const DRIVERS: [&str; 2] = ["usr/lib/pcsc/drivers", "usr/lib64/pcsc/drivers"];

/// Yubico's vendor number as `Info.plist` of a driver has it.
const YUBICO: &str = "<string>0x1050</string>";

/// The name before every polkit action of pcscd (org.debian.pcsc-lite.policy).
const ACTIONS: &str = "org.debian.pcsc-lite";

/// The group of our polkit rule (udev/50-signet-pcsc.rules).
const GROUP: &str = "signet";

/// A finding that is a failure where cards are used, and a note elsewhere.
fn unless_unused(wanted: bool, message: impl Into<String>) -> Finding {
    if wanted {
        return Finding::new("pcscd", State::Failed, message);
    }
    let message = message.into();
    Finding::new(
        "pcscd",
        State::Note,
        format!("{message} (needed for YubiKeys, and none is used here yet)"),
    )
}

/// Whether pcscd is installed, runs, and answers us.
pub(super) fn daemon(host: &Host, wanted: bool) -> Finding {
    let socket = host
        .variable("PCSCLITE_CSOCK_NAME")
        .map_or_else(|| host.path(SOCKET), PathBuf::from);
    let shown = socket.display().to_string();
    let Err(error) = UnixStream::connect(&socket) else {
        return Finding::new("pcscd", State::Ok, format!("pcscd listens at {shown}"));
    };
    let installed = PROGRAMS.iter().any(|program| host.exists(program));
    match error.kind() {
        io::ErrorKind::NotFound if !installed => unless_unused(wanted, "pcscd is not installed")
            .fix("sudo apt install pcscd (Fedora: sudo dnf install pcsc-lite)"),
        io::ErrorKind::NotFound => {
            unless_unused(wanted, "pcscd is installed, but nothing listens for it")
                .fix("sudo systemctl enable --now pcscd.socket")
        }
        io::ErrorKind::ConnectionRefused => unless_unused(
            wanted,
            format!("pcscd has gone and left its socket {shown} behind"),
        )
        .fix("sudo systemctl restart pcscd.socket"),
        io::ErrorKind::PermissionDenied => {
            unless_unused(wanted, format!("you may not open pcscd's socket {shown}"))
                .fix("sudo systemctl restart pcscd.socket; it makes the socket for everybody, and polkit decides")
        }
        _ => unless_unused(wanted, format!("pcscd does not answer at {shown}: {error}"))
            .fix("sudo systemctl restart pcscd.socket"),
    }
}

/// Whether exactly one driver takes YubiKeys.
pub(super) fn drivers(host: &Host, wanted: bool) -> Finding {
    let mut takers = Vec::new();
    let mut any = false;
    for dir in DRIVERS {
        for bundle in host.names(dir) {
            let path = format!("{dir}/{bundle}");
            any |= bundle.ends_with(".bundle");
            let list = host.read(format!("{path}/Contents/Info.plist"));
            if list.is_some_and(|list| list.to_ascii_lowercase().contains(YUBICO)) {
                takers.push(format!("/{path}"));
            }
        }
    }
    match takers.as_slice() {
        [only] => Finding::new(
            "drivers",
            State::Ok,
            format!("one driver takes YubiKeys: {only}"),
        ),
        [] if !any && !wanted => Finding::new("drivers", State::Ok, "no card drivers, and no card"),
        [] => Finding::new(
            "drivers",
            if wanted { State::Warning } else { State::Note },
            "no driver of pcscd takes YubiKeys",
        )
        .fix("sudo apt install libccid (Fedora: sudo dnf install pcsc-lite-ccid)"),
        several => Finding::new(
            "drivers",
            State::Warning,
            format!(
                "{} drivers take YubiKeys, and take them from each other: {}",
                several.len(),
                several.join(", ")
            ),
        )
        .fix(format!(
            "keep ifd-ccid.bundle; `dpkg -S {}` names the package of the other, to be removed",
            several
                .iter()
                .find(|path| !path.contains("ifd-ccid"))
                .unwrap_or(&several[0])
        )),
    }
}

/// Whether polkit lets us use pcscd: by default only whoever sits at the machine.
pub(super) fn polkit(host: &Host, wanted: bool, problems: &[String]) -> Finding {
    let fix = format!(
        "sudo usermod -aG {GROUP} $USER, with the rule 50-signet-pcsc.rules of `make install` in \
         /etc/polkit-1/rules.d; then log out and in again (`loginctl terminate-user $USER`)"
    );
    if let Some(problem) = problems.iter().find(|problem| is_refusal(problem)) {
        return Finding::new("polkit", State::Failed, problem.clone()).fix(fix);
    }
    let asked = host
        .names("usr/share/polkit-1/actions")
        .iter()
        .any(|name| name.starts_with(ACTIONS));
    if !asked {
        return Finding::new("polkit", State::Ok, "this pcscd asks polkit for nothing");
    }
    let ours = [
        "etc/polkit-1/rules.d",
        "usr/share/polkit-1/rules.d",
        "usr/local/share/polkit-1/rules.d",
    ]
    .into_iter()
    .flat_map(|dir| {
        let names = host.names(dir);
        names.into_iter().map(move |name| format!("{dir}/{name}"))
    })
    .any(|path| host.read(path).is_some_and(|rule| rule.contains(ACTIONS)));
    let member = host
        .read("etc/group")
        .and_then(|groups| gid_of(&groups, GROUP))
        .is_some_and(|gid| host.groups.contains(&gid));
    if ours && member {
        return Finding::new(
            "polkit",
            State::Ok,
            format!("a rule lets the group {GROUP} use pcscd, and you are in it"),
        );
    }
    let remote = host.variable("SSH_CONNECTION").is_some();
    let message = if remote {
        "this is an ssh login: polkit lets only those use pcscd who sit at the machine"
    } else {
        "polkit lets you use pcscd only while you sit at the machine: an ssh login or a lingering \
         unit would be refused"
    };
    let state = if remote && wanted {
        State::Warning
    } else {
        State::Note
    };
    Finding::new("polkit", state, message).fix(fix)
}

/// Whether a problem of the agent is that pcscd refused it.
pub(super) fn is_refusal(problem: &str) -> bool {
    let words = problem.to_lowercase();
    // The agent's words for SCARD_W_SECURITY_VIOLATION, and those of pcscd and polkit themselves.
    [
        "policy refuses",
        "polkit",
        "not authorized",
        "refused access",
        "access denied",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

fn gid_of(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, path::Path};

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn pcscd_is_missing_stopped_gone_or_there() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        assert_eq!(daemon(&host, false).state, State::Note);
        let finding = daemon(&host, true);
        assert_eq!(finding.state, State::Failed);
        assert!(finding.fix.unwrap().contains("apt install pcscd"));
        put(root.path(), "usr/sbin/pcscd", "");
        let fix = daemon(&host, true).fix.unwrap();
        assert!(fix.contains("enable --now pcscd.socket"), "{fix}");
        fs::create_dir_all(root.path().join("run/pcscd")).unwrap();
        let listener = UnixListener::bind(host.path(SOCKET)).unwrap();
        assert_eq!(daemon(&host, true).state, State::Ok);
        drop(listener);
        assert!(daemon(&host, true).message.contains("left its socket"));
    }

    #[test]
    fn two_drivers_for_one_card_are_named() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        assert_eq!(drivers(&host, false).state, State::Ok);
        assert_eq!(drivers(&host, true).state, State::Warning);
        let list = "<key>ifdVendorID</key><array><string>0x1050</string></array>";
        put(
            root.path(),
            "usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist",
            list,
        );
        assert_eq!(drivers(&host, true).state, State::Ok);
        put(
            root.path(),
            "usr/lib/pcsc/drivers/other.bundle/Contents/Info.plist",
            list,
        );
        let finding = drivers(&host, true);
        assert_eq!(finding.state, State::Warning);
        assert!(
            finding
                .fix
                .unwrap()
                .contains("dpkg -S /usr/lib/pcsc/drivers/other.bundle")
        );
    }

    #[test]
    fn polkit_lets_in_the_group_or_whoever_sits_here() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::at(root.path());
        assert_eq!(polkit(&host, true, &[]).state, State::Ok);
        let refused = ["this user may not use cards: the system's policy refuses".to_owned()];
        let finding = polkit(&host, true, &refused);
        assert_eq!(finding.state, State::Failed);
        assert!(finding.fix.unwrap().contains("usermod -aG signet"));
        put(
            root.path(),
            "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy",
            "",
        );
        assert_eq!(polkit(&host, true, &[]).state, State::Note);
        host.variables.push(("SSH_CONNECTION".into(), "1".into()));
        assert_eq!(polkit(&host, true, &[]).state, State::Warning);
        put(root.path(), "etc/group", "root:x:0:\nsignet:x:977:me\n");
        put(
            root.path(),
            "etc/polkit-1/rules.d/50-signet-pcsc.rules",
            include_str!("../../../../udev/50-signet-pcsc.rules"),
        );
        host.groups.push(977);
        assert_eq!(polkit(&host, true, &[]).state, State::Ok);
    }
}
