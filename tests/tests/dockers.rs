//! What is Docker's is used as docker uses it: contexts, its key directory, its keys.

use std::fs;
use std::path::Path;

use serde_json::Value;
use signet_tests::lab::{KEYRING_PASSPHRASE, REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Cli, Home, Lab, Output, Run};

const GUN: &str = "registry.example.com/acme/app";

fn docker(lab: &Lab, config: &Path, args: &[&str]) -> Output {
    lab.docker_trusted(Cli::Debian13, config)
        .current_dir(config)
        .args(args)
        .run()
}

fn sign(home: &Home, gun: &str, more: &[&str]) -> Output {
    home.unattended()
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["sign", &format!("{gun}:v1@{DIGEST}"), "--size", SIZE])
        .args(more)
        .run()
}

fn state<'a>(keys: &'a [Value], role: &str) -> Option<&'a str> {
    keys.iter().find(|key| key["role"] == role)?["state"].as_str()
}

#[test]
fn the_engine_is_found_by_dockers_contexts() {
    let lab = Lab::start();
    let home = lab.home();
    let host = format!("host={}", lab.docker_host());
    lab.docker(Cli::Debian13, home.docker_config())
        .env_remove("DOCKER_HOST")
        .args(["context", "create", "lab", "--docker", &host])
        .run()
        .ok();
    let image = lab.import_image("acme/app:v1");
    let push = |context: Option<&str>| {
        let mut command = home.unattended();
        command.env_remove("DOCKER_HOST").args(["push", &image]);
        if let Some(context) = context {
            command.env("DOCKER_CONTEXT", context);
        }
        command.run()
    };
    push(Some("nowhere")).exits(2).says("nowhere");
    push(Some("lab")).ok();
    lab.docker(Cli::Debian13, home.docker_config())
        .env_remove("DOCKER_HOST")
        .args(["context", "use", "lab"])
        .run()
        .ok();
    push(None).ok();
    // The variable wins over the context, as it does for docker.
    home.unattended()
        .env("DOCKER_HOST", "unix:///nonexistent.sock")
        .args(["push", &image])
        .run()
        .exits(1)
        .says("/nonexistent.sock");
    lab.everybody_pulls(&image);
}

#[test]
fn an_image_without_a_tag_is_the_latest() {
    let lab = Lab::start();
    let home = lab.home();
    let image = lab.import_image("acme/app:latest");
    let name = lab.image("acme/app");
    home.unattended().args(["push", &name]).run().ok();
    lab.everybody_pulls(&image);
    home.signet().args(["verify", &name]).run().ok();
    // A digest cannot be pushed.
    home.unattended()
        .args(["push", &format!("{name}@{DIGEST}")])
        .run()
        .exits(2);
}

#[test]
fn dockers_directory_is_read_anew_each_time() {
    let lab = Lab::builder().build();
    let home = lab.home();
    let config = home.docker_config();
    assert_eq!(home.keys(), Vec::<Value>::new());
    docker(&lab, config, &["trust", "key", "generate", "alice"]).ok();
    assert_eq!(state(&home.keys(), "alice"), Some("new"));

    home.signet()
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--no-input", "key", "generate", "--role", "bob"])
        .args(["--store", "docker"])
        .run()
        .ok();
    assert_eq!(state(&home.keys(), "bob"), Some("enrolled"));
    for path in files(&config.join("trust/private")).into_keys() {
        fs::remove_file(path).expect("the configuration is ours");
    }
    let keys = home.keys();
    assert_eq!(state(&keys, "bob"), Some("gone"));
    assert_eq!(state(&keys, "alice"), None);
}

#[test]
fn a_root_key_of_dockers_is_not_taken_for_a_new_repository_unasked() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    let config = home.docker_config();
    docker(&lab, config, &["trust", "key", "generate", "alice"]).ok();
    docker(
        &lab,
        config,
        &["trust", "signer", "add", "--key", "alice.pub", "alice", GUN],
    )
    .ok();
    let theirs = home.key_id("root");

    sign(&home, "registry.example.com/acme/new", &[]).ok();
    let roots: Vec<Value> = home
        .keys()
        .into_iter()
        .filter(|key| key["role"] == "root")
        .collect();
    assert_eq!(roots.len(), 2, "{roots:#?}");
    for root in &roots {
        let (store, state) = if root["id"] == theirs.as_str() {
            ("docker", "new")
        } else {
            ("file", "enrolled")
        };
        assert_eq!(
            (&root["store"], &root["state"]),
            (&store.into(), &state.into())
        );
    }
}

#[test]
fn another_docker_directory_than_the_agents_is_an_error_where_it_matters() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    sign(&home, GUN, &[]).ok();
    let other = lab.client_config();
    let with_other = |args: &[&str]| {
        home.unattended()
            .env("DOCKER_CONFIG", &other)
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            )
            .args(args)
            .run()
    };
    let refused = with_other(&["key", "generate", "--role", "bob", "--store", "docker"]);
    assert_ne!(refused.code(), Some(0), "{}", refused.text());
    let refused = refused.says(&other.display().to_string());
    refused.says(&home.docker_config().display().to_string());
    // The native keys have nothing to do with it.
    let image = format!("{GUN}:v2@{DIGEST}");
    with_other(&["sign", &image, "--size", SIZE]).ok();
}

#[test]
fn a_signers_key_of_signets_is_loaded_and_used_by_docker() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    home.unattended()
        .args(["key", "generate", "--role", "alice"])
        .run()
        .ok();
    let dir = home.user_home();
    let (public, private) = (dir.join("alice.pub"), dir.join("alice.pem"));
    home.signet()
        .args(["key", "export", "--public", "--output"])
        .arg(&public)
        .arg(home.key_id("alice"))
        .run()
        .ok();
    home.with_descriptors(&[(3, KEYRING_PASSPHRASE), (4, REPOSITORY_PASSPHRASE)])
        .args(["key", "export", "--format", "docker", "--output"])
        .arg(&private)
        .args(["--passphrase-fd", "keyring:3", "--new-passphrase-fd", "4"])
        .arg(home.key_id("alice"))
        .run()
        .ok();

    // Somebody else's repository, to which alice is added with the public key.
    let owner = lab.client_config();
    let public = public.to_str().expect("it is text");
    docker(
        &lab,
        &owner,
        &["trust", "signer", "add", "--key", public, "alice", GUN],
    )
    .ok();
    sign(&home, GUN, &[]).ok();

    // And alice goes on with docker.
    let hers = lab.client_config();
    let private = private.to_str().expect("it is text");
    docker(
        &lab,
        &hers,
        &["trust", "key", "load", "--name", "alice", private],
    )
    .ok();
    let id = home.key_id("alice");
    assert!(
        hers.join("trust/private")
            .join(format!("{id}.key"))
            .is_file()
    );
    docker(
        &lab,
        &hers,
        &["trust", "revoke", "--yes", &format!("{GUN}:v1")],
    )
    .ok();
    home.signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .exits(3);
}
