//! Repositories and keys go to and fro between docker, notary and Signet, and nothing is
//! converted on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use signet_tests::lab::{REPOSITORY_PASSPHRASE, ROOT_PASSPHRASE};
use signet_tests::steps::{DIGEST, SIZE, files};
use signet_tests::{Cli, Home, Lab, Output, Run};

/// A repository that has a name, and no registry behind it.
const GUN: &str = "registry.example.com/acme/app";

/// Signs `TAG` of [`GUN`] with keys in Docker's format: their passphrases are in the environment,
/// as docker's users have them, and there is none for a keyring.
fn sign_with_dockers_keys(home: &Home, tag: &str) -> Output {
    home.signet()
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args([
            "--no-input",
            "sign",
            &format!("{GUN}:{tag}@{DIGEST}"),
            "--size",
            SIZE,
        ])
        .run()
}

fn push_with_dockers_keys(home: &Home, image: &str) -> Output {
    home.signet()
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--no-input", "push", image])
        .run()
}

/// Has `notary` sign and publish a tag, its files in this trust directory.
fn notary_signs(lab: &Lab, trust: &Path, tag: &str, more: &[&str]) -> Output {
    let digest = DIGEST.trim_start_matches("sha256:");
    lab.notary(trust)
        .args(["addhash", GUN, tag, SIZE, "--sha256", digest, "--publish"])
        .args(more)
        .run()
}

/// Tags and roles, as a client that has never been here sees them.
fn tags(lab: &Lab) -> Vec<(String, String)> {
    lab.notary_list(lab.trust_server(), GUN)
        .into_iter()
        .map(|[tag, _, _, role]| (tag, role))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(tag, role)| ((*tag).to_owned(), (*role).to_owned()))
        .collect()
}

fn private(config: &Path) -> PathBuf {
    config.join("trust/private")
}

fn trust(config: &Path) -> PathBuf {
    config.join("trust")
}

#[test]
fn a_repository_of_dockers_is_continued_by_signet_and_then_by_docker() {
    let lab = Lab::start();
    for (number, cli) in Cli::BOTH.into_iter().enumerate() {
        let config = lab.client_config();
        let home = lab.home_with(&config);
        let images =
            ["v1", "v2", "v3"].map(|tag| lab.import_image(&format!("acme/app{number}:{tag}")));
        let docker_pushes = |image: &str| {
            lab.docker_trusted(cli, &config)
                .args(["push", image])
                .run()
                .ok()
                .says("Successfully signed");
        };
        docker_pushes(&images[0]);
        let before = files(&private(&config));
        push_with_dockers_keys(&home, &images[1]).ok();
        assert_eq!(
            files(&private(&config)),
            before,
            "the key files are as they were"
        );
        assert!(
            !home.path().join("keyring.age").exists(),
            "no keyring was needed"
        );
        docker_pushes(&images[2]);
        for image in &images {
            lab.everybody_pulls(image);
            home.signet().args(["verify", image]).run().ok();
        }
    }
}

#[test]
fn a_repository_of_signets_in_dockers_directory_is_continued_by_docker_and_notary() {
    let lab = Lab::start();
    let config = lab.client_config();
    let home = lab.home_with(&config);
    let image = lab.import_image("acme/app:v1");
    home.signet()
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["--no-input", "push", "--store", "docker", &image])
        .run()
        .ok();
    let keys = files(&private(&config));
    assert_eq!(keys.len(), 2, "{:?}", keys.keys());
    for path in keys.keys() {
        let mode = fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }

    // The targets key opens for docker, and the root key for notary.
    let second = lab.import_image("acme/app:v2");
    lab.docker_trusted(Cli::Debian12, &config)
        .args(["push", &second])
        .run()
        .ok()
        .says("Successfully signed");
    lab.notary(&trust(&config))
        .args(["key", "rotate", &lab.image("acme/app"), "targets"])
        .run()
        .ok();
    lab.everybody_pulls(&image);
    lab.everybody_pulls(&second);

    // And Signet goes on with the key that notary made.
    let third = lab.import_image("acme/app:v3");
    push_with_dockers_keys(&home, &third).ok();
    lab.everybody_pulls(&third);
}

#[test]
fn a_repository_of_notarys_with_its_own_snapshot_key_is_continued_by_signet_and_then_by_notary() {
    let lab = Lab::builder().notary().build();
    let config = lab.client_config();
    let trust = trust(&config);
    let home = lab.home_with(&config);
    lab.notary(&trust).args(["init", GUN]).run().ok();
    notary_signs(&lab, &trust, "v1", &[]).ok();
    let before = files(&private(&config));
    assert_eq!(
        before.len(),
        3,
        "root, targets and snapshot: {:?}",
        before.keys()
    );

    sign_with_dockers_keys(&home, "v2").ok();
    sign_with_dockers_keys(&home, "v3").ok();
    assert_eq!(
        files(&private(&config)),
        before,
        "the key files are as they were"
    );
    notary_signs(&lab, &trust, "v4", &[]).ok();
    let targets = ["v1", "v2", "v3", "v4"].map(|tag| (tag, "targets"));
    assert_eq!(tags(&lab), pairs(&targets));

    // Handed over to the server, as docker has it, the same keys go on.
    lab.notary(&trust)
        .args(["key", "rotate", GUN, "snapshot", "--server-managed"])
        .run()
        .ok();
    sign_with_dockers_keys(&home, "v5").ok();
    assert_eq!(tags(&lab).len(), 5);
}

/// A repository with the signer alice, made by docker: her key and all the others are in the
/// Docker configuration that is returned.
fn repository_with_alice(lab: &Lab, cli: Cli) -> PathBuf {
    let config = lab.client_config();
    let docker = |args: &[&str]| {
        lab.docker_trusted(cli, &config)
            .current_dir(&config)
            .args(args)
            .run()
            .ok()
    };
    docker(&["trust", "key", "generate", "alice"]);
    docker(&["trust", "signer", "add", "--key", "alice.pub", "alice", GUN]);
    config
}

fn tags_of(lab: &Lab, role: &str) -> Vec<String> {
    let trust = lab.fresh_dir("n");
    let list = lab
        .notary(&trust)
        .args(["list", GUN, "--roles", role])
        .run()
        .ok();
    let tags = list.stdout.lines().filter(|line| line.contains(role));
    tags.filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn with_signers_signet_signs_into_every_role_it_has_a_key_for() {
    for cli in Cli::BOTH {
        let lab = Lab::builder().notary().build();
        let config = repository_with_alice(&lab, cli);
        let home = lab.home_with(&config);
        sign_with_dockers_keys(&home, "v1").ok();
        for role in ["targets/releases", "targets/alice"] {
            assert_eq!(tags_of(&lab, role), ["v1"], "{role}");
        }
        let inspect = lab.docker_trust_inspect(cli, GUN);
        let tag = &inspect[0]["SignedTags"][0];
        assert_eq!(tag["SignedTag"], "v1", "{inspect:#}");
        assert_eq!(tag["Signers"][0], "alice", "{inspect:#}");

        // Docker goes on from there.
        lab.docker_trusted(cli, &config)
            .args(["trust", "sign", &format!("{GUN}:v1")])
            .run()
            .ok()
            .says("alice");
        sign_with_dockers_keys(&home, "v2").ok();

        let verify = |args: &[&str], tag: &str| {
            let image = format!("{GUN}:{tag}");
            home.signet().arg("verify").args(args).arg(image).run()
        };
        verify(&[], "v1").ok().says("alice");
        verify(&["--signer", "alice"], "v1").ok();
        verify(&["--signer", "bob"], "v1").exits(3).says("bob");

        home.signet()
            .env(
                "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
                REPOSITORY_PASSPHRASE,
            )
            .args(["--no-input", "revoke", &format!("{GUN}:v1")])
            .run()
            .ok();
        verify(&[], "v1").exits(3);
        verify(&[], "v2").ok();
    }
}

#[test]
fn a_signer_signs_with_nothing_but_her_own_key() {
    let lab = Lab::builder().notary().build();
    let owner = repository_with_alice(&lab, Cli::Debian13);
    let config = lab.client_config();
    fs::create_dir_all(private(&config)).expect("the configuration is ours");
    let mut hers = files(&private(&owner));
    hers.retain(|_, content| String::from_utf8_lossy(content).contains("role: alice"));
    assert_eq!(hers.len(), 1);
    let mut id = String::new();
    for (path, content) in hers {
        let name = path.file_name().expect("a file");
        id = path
            .with_extension("")
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        fs::write(private(&config).join(name), content).expect("the configuration is ours");
    }
    let home = lab.home_with(&config);
    sign_with_dockers_keys(&home, "v1").ok();
    assert_eq!(tags_of(&lab, "targets/alice"), ["v1"]);

    // Somebody with no key of this repository is told which key it takes.
    let stranger = lab.home();
    sign_with_dockers_keys(&stranger, "v2").exits(1).says(&id);
    assert_eq!(tags_of(&lab, "targets/alice"), ["v1"]);
}

#[test]
fn keys_of_docker_and_notary_move_into_the_native_store_and_sign_from_there() {
    let lab = Lab::builder().notary().build();
    let theirs = lab.client_config();
    lab.notary(&trust(&theirs)).args(["init", GUN]).run().ok();
    notary_signs(&lab, &trust(&theirs), "v1", &[]).ok();

    let home = lab.home();
    let before = files(&private(&theirs));
    home.unattended()
        .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE)
        .env(
            "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE",
            REPOSITORY_PASSPHRASE,
        )
        .args(["key", "import"])
        .arg(private(&theirs))
        .run()
        .ok();
    assert_eq!(
        files(&private(&theirs)),
        before,
        "the source is left as it was"
    );
    assert_eq!(home.keys().len(), 3);
    home.signs(&format!("{GUN}:v2"));
    assert_eq!(tags(&lab), pairs(&[("v1", "targets"), ("v2", "targets")]));
}

#[test]
fn native_keys_that_signet_exports_are_opened_by_notary() {
    let lab = Lab::builder().notary().build();
    let home = lab.home();
    home.signs(&format!("{GUN}:v1"));

    let config = lab.client_config();
    for (role, passphrase) in [
        ("targets", REPOSITORY_PASSPHRASE),
        ("root", ROOT_PASSPHRASE),
    ] {
        let file = home.user_home().join(format!("{role}.pem"));
        let keyring = if role == "root" {
            "root:3"
        } else {
            "keyring:3"
        };
        home.with_descriptors(&[(3, signet_tests::lab::KEYRING_PASSPHRASE), (4, passphrase)])
            .args(["key", "export", "--format", "docker", "--output"])
            .arg(&file)
            .args(["--passphrase-fd", keyring, "--new-passphrase-fd", "4"])
            .arg(home.key_id(role))
            .run()
            .ok();
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        lab.notary(&trust(&config))
            .args(["key", "import"])
            .arg(&file)
            .run()
            .ok();
        let id = home.key_id(role);
        assert!(
            private(&config).join(format!("{id}.key")).is_file(),
            "{id} is imported"
        );
    }
    // Both sign: the targets key a tag, the root key a new root.
    notary_signs(&lab, &trust(&config), "v2", &[]).ok();
    lab.notary(&trust(&config))
        .args(["key", "rotate", GUN, "targets"])
        .run()
        .ok();
    assert_eq!(tags(&lab).len(), 2);
    // The key that was replaced signs no more.
    home.unattended()
        .args(["sign", &format!("{GUN}:v3@{DIGEST}"), "--size", SIZE])
        .run()
        .exits(1);
}

#[test]
fn inspect_prints_what_docker_prints() {
    let lab = Lab::builder().notary().build();
    let config = repository_with_alice(&lab, Cli::Debian12);
    let home = lab.home_with(&config);
    for tag in ["v1", "v2", "v10"] {
        sign_with_dockers_keys(&home, tag).ok();
    }
    // One tag that only the repository's own key has signed, and one that only alice has.
    notary_signs(&lab, &trust(&config), "admin", &["--roles", "targets"]).ok();
    notary_signs(&lab, &trust(&config), "hers", &["--roles", "targets/alice"]).ok();
    for cli in Cli::all() {
        for name in [GUN.to_owned(), format!("{GUN}:v2"), format!("{GUN}:admin")] {
            let theirs = lab.docker_trust_inspect(cli, &name);
            let ours = home.signet().args(["inspect", "--json", &name]).run().ok();
            assert_eq!(ours.json(), theirs, "{name}, {cli:?}");
        }
    }
    // And notary lists the same digests.
    let ours = home.signet().args(["inspect", "--json", GUN]).run().ok();
    let ours = ours.json();
    let listed = lab.notary_list(lab.trust_server(), GUN);
    for tag in ours[0]["SignedTags"].as_array().expect("tags") {
        let same = |row: &&[String; 4]| tag["SignedTag"] == row[0].as_str();
        let row = listed.iter().find(same).expect("notary lists it");
        assert_eq!(tag["Digest"], row[1].as_str(), "{listed:?}");
    }
    let text = home.signet().args(["inspect", GUN]).run().ok().stdout;
    for word in ["v1", "v2", "v10", "admin", "alice", "Repo Admin"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let unknown = "registry.example.com/acme/unknown";
    home.signet().args(["inspect", unknown]).run().exits(3);
}

#[test]
fn a_trust_server_with_ed25519_keys_is_as_good() {
    let lab = Lab::builder().local_notary().build();
    let home = lab.home();
    let url = lab.local_trust_server();
    for tag in ["v1", "v2"] {
        home.unattended()
            .args(["sign", &format!("{GUN}:{tag}@{DIGEST}"), "--size", SIZE])
            .args(["--server", url])
            .run()
            .ok();
    }
    let rows = lab.notary_list(url, GUN);
    assert_eq!(rows.len(), 2, "{rows:?}");
    let newcomer = lab.home();
    let inspect = newcomer
        .signet()
        .args(["inspect", "--json", GUN, "--server", url])
        .run()
        .ok();
    let theirs = lab
        .docker(Cli::Debian13, &lab.client_config())
        .env("DOCKER_CONTENT_TRUST_SERVER", url)
        .args(["trust", "inspect", GUN])
        .run()
        .ok();
    assert_eq!(inspect.json(), theirs.json());
}

#[test]
fn a_repository_pinned_by_docker_stays_pinned() {
    let lab = Lab::builder().notary().build();
    let config = repository_with_alice(&lab, Cli::Debian12);
    sign_with_dockers_keys(&lab.home_with(&config), "v1").ok();
    // Docker has seen the repository; Signet shares the cache, and needs no first use.
    let seen = lab.client_config();
    lab.docker(Cli::Debian12, &seen)
        .args(["trust", "inspect", GUN])
        .run()
        .ok();
    let cache = seen.join("trust/tuf");
    let root = cache.join(GUN).join("metadata/root.json");
    let before = fs::read(&root).expect("docker has cached it");
    let home = lab.home_with(&seen);
    let verify = || {
        home.signet()
            .args(["verify", "--no-first-use", &format!("{GUN}:v1")])
            .run()
    };
    verify().ok();
    assert_eq!(fs::read(&root).expect("it is there"), before);

    // What Signet caches, docker reads: the very bytes of the server.
    let other = lab.client_config();
    lab.home_with(&other)
        .signet()
        .args(["verify", &format!("{GUN}:v1")])
        .run()
        .ok();
    let names = |dir: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let root = dir.join("trust/tuf").join(GUN).join("metadata");
        files(&root)
            .into_iter()
            .map(|(path, content)| {
                let name = path.strip_prefix(&root).expect("it is below");
                (name.to_path_buf(), content)
            })
            .collect()
    };
    assert_eq!(names(&other), names(&seen));

    // Made again under the same name: docker refuses it, and so does Signet.
    lab.notary(&lab.fresh_dir("n"))
        .args(["delete", GUN, "--remote"])
        .run()
        .ok();
    let again = repository_with_alice(&lab, Cli::Debian12);
    sign_with_dockers_keys(&lab.home_with(&again), "v1").ok();
    verify().exits(3);
}
