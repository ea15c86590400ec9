//! A publisher signs on push, and everybody else accepts the result.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use signet_tests::lab::command::clean;
use signet_tests::steps::{DIGEST, SIZE};
use signet_tests::{Cli, Fault, Home, Lab, Run};

/// Puts an image into the engine and pushes it unsigned.
fn push_unsigned(lab: &Lab, name: &str) -> String {
    let image = lab.import_image(name);
    plain_push(lab, &image);
    image
}

fn plain_push(lab: &Lab, image: &str) {
    lab.docker(Cli::Debian12, &lab.client_config())
        .args(["push", image])
        .run()
        .ok();
}

fn push(home: &Home, image: &str) -> Command {
    let mut command = home.unattended();
    command.args(["push", image]);
    command
}

/// The command that an error names as the way out: from `signet` to the closing backtick.
fn command_in(fix: &str) -> &str {
    let start = fix.find("signet ").expect("the fix names a command");
    fix[start..].split(['`', '\n']).next().expect("one piece")
}

/// Runs a line as a user would paste it into a shell.
fn run_as_pasted(home: &Home, line: &str) -> Command {
    let signet = home.unattended();
    let program = Path::new(signet.get_program());
    let dir = program.parent().expect("it is in a directory").display();
    let mut shell = clean("sh");
    for (name, value) in signet.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.env("PATH", format!("{dir}:/usr/bin:/bin"));
    shell.current_dir(home.user_home()).args(["-c", line]);
    shell
}

#[test]
fn from_an_empty_home_everybody_pulls_what_an_unattended_push_signed() {
    let lab = Lab::start();
    let home = lab.home();
    let signed = lab.import_image("acme/app:v1");
    let unsigned = push_unsigned(&lab, "acme/app:unsigned");

    let first = push(&home, &signed).run().ok();
    assert!(
        home.path().join("keyring.age").is_file(),
        "{}",
        first.text()
    );
    assert!(home.path().join("root.age").is_file(), "{}", first.text());
    lab.everybody_pulls(&signed);
    lab.nobody_pulls(&unsigned);

    // The second push finds the trust that the first one made.
    let second = lab.import_image("acme/app:v2");
    push(&home, &second).run().ok();
    assert_eq!(home.keys().len(), 2, "{:#?}", home.keys());
    lab.everybody_pulls(&second);
    lab.everybody_pulls(&signed);
    lab.nobody_pulls(&unsigned);
}

#[test]
fn a_push_says_as_json_what_it_pushed_and_signed() {
    let lab = Lab::start();
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    let said = push(&home, &image).arg("--json").run().ok().json();
    assert_eq!(said["v"], 1);
    assert_eq!(
        said["digest"].as_str(),
        lab.registry_digest(&image).as_deref()
    );
    let verified = home.signet().args(["verify", "--json", &image]).run().ok();
    assert_eq!(verified.json()["digest"], said["digest"]);
}

#[test]
fn the_digest_signed_is_the_pushs_own_when_somebody_moves_the_tag() {
    let lab = Arc::new(Lab::start());
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    // The trust of the repository exists, so that what follows is only the signing of a push.
    push(&home, &lab.import_image("acme/app:first")).run().ok();

    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let moved = Arc::new(AtomicBool::new(false));
    let mover = {
        let (lab, image, moved) = (Arc::clone(&lab), image.clone(), Arc::clone(&moved));
        move |_: &_| {
            // Not before our push has arrived; it is signed after this returns.
            if lab.registry_digest(&image).is_some() && !moved.swap(true, Ordering::SeqCst) {
                lab.import_image_as(&image);
                plain_push(&lab, &image);
            }
        }
    };
    proxy.on("*", Fault::Call(Arc::new(mover)));
    let said = push(&home, &image)
        .args(["--json", "--server", &proxy.url()])
        .run()
        .ok();
    assert!(moved.load(Ordering::SeqCst), "nobody moved the tag");

    let theirs = lab.registry_digest(&image).expect("the tag is there");
    let ours = said.json()["digest"].as_str().expect("a digest").to_owned();
    assert_ne!(ours, theirs, "the other push won the tag");
    let verified = home.signet().args(["verify", "--json", &image]).run().ok();
    assert_eq!(verified.json()["digest"], Value::String(ours));
    verified.says(&theirs);
}

#[test]
fn an_image_out_but_not_signed_ends_in_8_with_the_command_that_finishes_the_job() {
    let lab = Lab::start();
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    let proxy = lab.proxy(lab.trust_server());
    lab.trust_host(home.docker_config(), proxy.host());
    let through_the_proxy = |command: &mut Command| {
        command
            .env("DOCKER_CONTENT_TRUST_SERVER", proxy.url())
            .run()
    };

    proxy.on("POST *", Fault::Status(500, r#"{"errors":[]}"#));
    let failed = through_the_proxy(push(&home, &image).arg("--json")).exits(8);
    let error: Value = serde_json::from_str(failed.stderr.lines().last().unwrap_or_default())
        .unwrap_or_else(|err| panic!("no JSON ({err}): {}", failed.text()));
    let error = &error["error"];
    assert_eq!(error["exit"], 8);
    let missing = error["missing"].as_array().expect("what is missing");
    assert_eq!(missing.len(), 1, "{error:#}");
    for member in ["what", "reason"] {
        assert!(missing[0][member].is_string(), "{error:#}");
    }
    assert_eq!(missing[0]["exit"], 1);
    let digest = lab.registry_digest(&image).expect("the image is out");
    let line = command_in(error["fix"].as_str().expect("a fix")).to_owned();
    assert!(line.contains(&digest), "{line} does not name {digest}");
    home.signet().args(["verify", &image]).run().exits(3);

    proxy.behave();
    through_the_proxy(&mut run_as_pasted(&home, &line)).ok();
    lab.everybody_pulls(&image);

    // Where the repository has trust already, nothing more is asked for.
    let second = lab.import_image("acme/app:v2");
    proxy.on_next(1, "POST *", Fault::Drop);
    let failed = through_the_proxy(&mut push(&home, &second)).exits(8);
    let line = command_in(&failed.stderr).to_owned();
    through_the_proxy(&mut run_as_pasted(&home, &line)).ok();
    lab.everybody_pulls(&second);
}

#[test]
fn a_trust_server_that_is_away_leaves_the_push_unsigned_and_says_so() {
    let lab = Lab::builder().engine().registry().build();
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    push(&home, &image)
        // Nobody listens on port 1.
        .args(["--server", "https://127.0.0.1:1"])
        .run()
        .exits(8)
        .says("https://127.0.0.1:1")
        .says("signet sign");
    assert!(lab.registry_digest(&image).is_some(), "the image is out");
}

#[test]
fn a_wrong_passphrase_leaves_the_push_unsigned_and_the_right_one_finishes_it() {
    let lab = Lab::start();
    let home = lab.home();
    push(&home, &lab.import_image("acme/app:v1")).run().ok();
    home.signet().arg("lock").run().ok();
    let image = lab.import_image("acme/app:v2");
    let file = home.user_home().join("wrong");
    fs::write(&file, "not the passphrase\n").expect("the home is ours");

    let failed = push(&home, &image)
        .env("SIGNET_PASSPHRASE_FILE", &file)
        .run()
        .exits(8)
        .says("passphrase");
    lab.nobody_pulls(&image);
    run_as_pasted(&home, command_in(&failed.stderr)).run().ok();
    lab.everybody_pulls(&image);
}

#[test]
fn a_digest_and_a_size_need_no_registry() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    // Nobody listens on port 1.
    let image = "127.0.0.1:1/acme/app:v1";
    home.signs(image);
    let verified = home.signet().args(["verify", image]).run().ok();
    assert!(verified.stdout.contains(DIGEST), "{}", verified.text());
    let rows = lab.notary_list(lab.trust_server(), "127.0.0.1:1/acme/app");
    let digest = DIGEST.trim_start_matches("sha256:");
    assert_eq!(rows, [["v1", digest, SIZE, "targets"].map(str::to_owned)]);

    // Without the size the registry must be asked.
    home.unattended()
        .args(["sign", "127.0.0.1:1/acme/app:v2"])
        .run()
        .exits(1)
        .says("127.0.0.1:1");
}

#[test]
fn what_the_registry_has_already_is_signed_in_place() {
    let lab = Lab::start();
    let home = lab.home();
    let image = push_unsigned(&lab, "acme/app:v1");
    let digest = lab.registry_digest(&image).expect("it is there");
    home.unattended()
        .args(["sign", &image])
        .run()
        .ok()
        .says(&digest);
    lab.everybody_pulls(&image);

    // A tag that the registry does not have cannot be resolved, and nothing is signed.
    home.unattended()
        .args(["sign", &lab.image("acme/app:nowhere")])
        .run()
        .exits(1)
        .says("nowhere");
}

#[test]
fn the_trust_servers_certificate_is_checked_unless_the_registry_is_on_loopback() {
    let lab = Lab::builder().notary().build();
    let image = format!("registry.example.com/acme/app:v1@{DIGEST}");
    let home = lab.home();
    let sign = |home: &Home| {
        home.unattended()
            .args(["sign", &image, "--size", SIZE])
            .run()
    };
    let ours = home.docker_config().join("tls");
    let aside = home.docker_config().join("aside");
    fs::rename(&ours, &aside).expect("the configuration is ours");
    sign(&home).exits(1).says("certificate");
    assert!(
        !home.path().join("keyring.age").exists(),
        "no key was made for it"
    );
    fs::rename(&aside, &ours).expect("the configuration is ours");
    sign(&home).ok();
}

#[test]
fn a_revoked_tag_is_pulled_by_nobody_and_the_others_by_everybody() {
    let lab = Lab::start();
    let home = lab.home();
    let [v1, v2, v3] = ["v1", "v2", "v3"].map(|tag| lab.import_image(&format!("acme/app:{tag}")));
    for image in [&v1, &v2, &v3] {
        push(&home, image).run().ok();
    }
    let revoke =
        |name: &str, args: &[&str]| home.unattended().arg("revoke").args(args).arg(name).run();
    revoke(&v1, &[]).ok();
    lab.nobody_pulls(&v1);
    lab.everybody_pulls(&v2);
    // Again: there is nothing to revoke.
    let again = revoke(&v1, &[]);
    assert_ne!(again.code(), Some(0), "{}", again.text());

    // All of them is a question, and nobody is there to answer.
    let all = lab.image("acme/app");
    revoke(&all, &[]).exits(5);
    lab.everybody_pulls(&v3);
    revoke(&all, &["--yes"]).ok();
    lab.nobody_pulls(&v2);
    lab.nobody_pulls(&v3);
    home.signet()
        .args(["verify", &v2])
        .run()
        .exits(3)
        .says("No trust data for v2");
}

#[test]
fn verify_tells_what_docker_pull_would_take() {
    let lab = Lab::start();
    let publisher = lab.home();
    let signed = lab.import_image("acme/app:v1");
    push(&publisher, &signed).run().ok();
    let unsigned = push_unsigned(&lab, "acme/app:unsigned");
    let elsewhere = push_unsigned(&lab, "acme/other:v1");

    let home = lab.home();
    let verify = |args: &[&str]| home.signet().arg("verify").args(args).run();
    // Nothing known, and nothing accepted.
    verify(&["--no-first-use", &signed]).exits(3);
    let digest = lab.registry_digest(&signed).expect("it is there");
    let first = verify(&[&signed]).ok();
    assert!(first.stdout.contains(&digest), "{}", first.text());
    assert!(
        first.stderr.contains("first"),
        "first contact is announced: {}",
        first.stderr
    );
    let second = verify(&["--no-first-use", &signed]).ok();
    assert!(!second.stderr.contains("first"), "once: {}", second.stderr);

    verify(&[&unsigned])
        .exits(3)
        .says("No trust data for unsigned");
    verify(&[&elsewhere]).exits(3);
    verify(&["--signer", "alice", &signed])
        .exits(3)
        .says("alice");
    verify(&["not an image"]).exits(2);

    // The tag is moved: what is signed is still what is signed, and that is said.
    lab.import_image_as(&signed);
    plain_push(&lab, &signed);
    let theirs = lab.registry_digest(&signed).expect("it is there");
    let moved = verify(&[&signed]).ok();
    assert!(moved.stdout.contains(&digest), "{}", moved.text());
    assert!(moved.stderr.contains(&theirs), "{}", moved.text());
}

#[test]
fn verify_pull_takes_the_signed_digest_and_tags_it() {
    let lab = Lab::start();
    let publisher = lab.home();
    let image = lab.import_image("acme/app:v1");
    push(&publisher, &image).run().ok();
    let digest = lab.registry_digest(&image).expect("it is there");
    // The registry's tag points elsewhere, and the engine has neither.
    lab.import_image_as(&image);
    plain_push(&lab, &image);
    lab.forget_image(&image);

    let home = lab.home();
    home.signet().args(["verify", "--pull", &image]).run().ok();
    let config = lab.client_config();
    let digests = lab
        .docker(Cli::Debian12, &config)
        .args(["image", "inspect", "--format", "{{.RepoDigests}}", &image])
        .run()
        .ok();
    assert!(digests.stdout.contains(&digest), "{}", digests.stdout);

    let unsigned = push_unsigned(&lab, "acme/app:unsigned");
    lab.forget_image(&unsigned);
    home.signet()
        .args(["verify", "--pull", &unsigned])
        .run()
        .exits(3);
    lab.docker(Cli::Debian12, &config)
        .args(["image", "inspect", &unsigned])
        .run()
        .exits(1);
}

#[test]
fn a_push_that_the_registry_refuses_signs_nothing() {
    let lab = Lab::builder()
        .engine()
        .registry_with_basic_auth()
        .notary()
        .build();
    let home = lab.home();
    let image = lab.import_image("acme/app:v1");
    push(&home, &image).run().exits(1);
    assert!(home.log()["entries"].as_array().is_none_or(Vec::is_empty));
    home.signet().args(["verify", &image]).run().exits(3);

    // An image that the engine does not have is not pushed at all.
    push(&home, &lab.image("acme/nothing:v1")).run().exits(1);
}

#[test]
fn the_keyrings_passphrases_may_differ() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let file = home.user_home().join("root-passphrase");
    fs::write(&file, "a root passphrase of its own\n").expect("the home is ours");
    let image = format!("registry.example.com/acme/app:v1@{DIGEST}");
    home.unattended()
        .env("SIGNET_ROOT_PASSPHRASE_FILE", &file)
        .args(["sign", &image, "--size", SIZE])
        .run()
        .ok();
    // The keyring's does not open the root keyring, so a second repository needs the other file.
    let other = format!("registry.example.com/acme/other:v1@{DIGEST}");
    let sign = |command: &mut Command| command.args(["sign", &other, "--size", SIZE]).run();
    sign(&mut home.unattended()).exits(5);
    sign(home.unattended().env("SIGNET_ROOT_PASSPHRASE_FILE", &file)).ok();
    // One root key serves both.
    let _root = home.key_id("root");
}
