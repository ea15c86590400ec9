//! Many who sign one repository at once.

use std::process::{Child, Stdio};

use signet_tests::lab::{KEYRING_PASSPHRASE, REPOSITORY_PASSPHRASE};
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Home, Lab, Run};

const GUN: &str = "registry.example.com/acme/app";

/// A second home with the targets key of the first: exported there, imported here.
fn with_the_key_of(lab: &Lab, first: &Home) -> Home {
    let file = first.user_home().join("targets.pem");
    first
        .with_descriptors(&[(3, KEYRING_PASSPHRASE), (4, REPOSITORY_PASSPHRASE)])
        .args(["key", "export", "--format", "docker", "--output"])
        .arg(&file)
        .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
        .arg(format!("targets@{GUN}"))
        .run()
        .ok();
    let second = lab.home();
    second
        .unattended()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["key", "import"])
        .arg(&file)
        .run()
        .ok();
    second
}

#[test]
fn twenty_at_once_from_two_homes_lose_no_tag_that_was_reported_signed() {
    let lab = Lab::builder().notary().build();
    let first = lab.home();
    first.signs(&format!("{GUN}:first"));
    let second = with_the_key_of(&lab, &first);
    for home in [&first, &second] {
        // Held for the agent, so that twenty derivations do not queue before the signing does.
        home.unattended()
            .args(["unlock", "--for", "10m"])
            .run()
            .ok();
    }

    let running: Vec<(String, Child)> = (0..20)
        .map(|number| {
            let home = if number % 2 == 0 { &first } else { &second };
            let tag = format!("t{number}");
            let child = home
                .signet()
                .args(["--no-input", "sign", &format!("{GUN}:{tag}@{DIGEST}")])
                .args(["--size", SIZE])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("signet runs");
            (tag, child)
        })
        .collect();
    let ended: Vec<(String, std::process::Output)> = running
        .into_iter()
        .map(|(tag, child)| (tag, child.wait_with_output().expect("it is our child")))
        .collect();

    let published: Vec<String> = lab
        .notary_list(lab.trust_server(), GUN)
        .into_iter()
        .map(|[tag, ..]| tag)
        .collect();
    let mut signed = 0;
    for (tag, output) in &ended {
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {
                signed += 1;
                assert!(
                    published.contains(tag),
                    "{tag} was reported signed: {stderr}"
                );
            }
            Some(1) => assert!(stderr.contains(GUN), "{tag}: no clear error: {stderr}"),
            other => panic!("{tag} ended with {other:?}: {stderr}"),
        }
    }
    assert!(
        published.contains(&"first".to_owned()),
        "what was there is still there"
    );
    // Runs of one home queue, so only the two homes race: nobody gives up against one other.
    assert_eq!(signed, 20, "{ended:#?}");
    // What both agents have recorded fits what is published: each can go on.
    first.signs(&format!("{GUN}:last-of-the-first"));
    second.signs(&format!("{GUN}:last-of-the-second"));
    assert_eq!(lab.notary_list(lab.trust_server(), GUN).len(), 23);
}

#[test]
fn twenty_agents_started_at_once_are_one() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let running: Vec<Child> = (0..20)
        .map(|_| {
            home.signet()
                .args(["agent", "start"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("signet runs")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("it is our child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
    }
    assert_eq!(agents_of(&home).len(), 1);
    home.signet().args(["agent", "stop"]).run().ok();
    assert_eq!(agents_of(&home), Vec::<u32>::new());
}

/// The processes whose program is `signetd` and whose home is this one. They are undumpable, but
/// ours when we are root; else the socket's peer is all that can be told.
fn agents_of(home: &Home) -> Vec<u32> {
    let wanted = format!("SIGNET_HOME={}", home.path().display());
    let mut found: Vec<u32> = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            name.trim() == "signetd"
                && environ
                    .split(|byte| *byte == 0)
                    .any(|var| var == wanted.as_bytes())
        })
        .collect();
    if let Some(pid) = home.agent_pid() {
        found.extend(u32::try_from(pid.as_raw_nonzero().get()));
    }
    found.sort_unstable();
    found.dedup();
    found
}
