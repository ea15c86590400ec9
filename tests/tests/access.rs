//! Registries and trust servers that ask who is there.

use std::fs;
use std::path::{Path, PathBuf};

use signet_tests::lab::{BASIC_PASSWORD, BASIC_USER};
use signet_tests::steps::{DIGEST, SIZE, write_script};
use signet_tests::{Auth, Cli, Lab, Output, Proxy, Run};

fn bearer(refresh_token: Option<&str>) -> Auth {
    Auth::Bearer {
        user: BASIC_USER.into(),
        password: BASIC_PASSWORD.into(),
        refresh_token: refresh_token.map(str::to_owned),
        anonymous_pull: true,
    }
}

fn basic() -> Auth {
    Auth::Basic {
        user: BASIC_USER.into(),
        password: BASIC_PASSWORD.into(),
    }
}

/// A registry and a trust server, each behind a proxy that asks.
struct Guarded {
    lab: Lab,
    registry: Proxy,
    trust: Proxy,
    image: String,
}

impl Guarded {
    fn start(auth: &Auth) -> Self {
        let lab = Lab::start();
        let (registry, trust) = (lab.proxy(lab.registry()), lab.proxy(lab.trust_server()));
        for proxy in [&registry, &trust] {
            proxy.ask_for(auth.clone());
        }
        let image = format!("{}/acme/app:v1", registry.host());
        lab.import_image_as(&image);
        Self {
            lab,
            registry,
            trust,
            image,
        }
    }

    fn config(&self) -> PathBuf {
        let config = self.lab.client_config();
        self.lab.trust_host(&config, self.trust.host());
        self.lab.trust_host(&config, self.registry.host());
        config
    }

    fn signet(&self, config: &Path, args: &[&str]) -> Output {
        self.lab
            .home_with(config)
            .unattended()
            .env("DOCKER_CONTENT_TRUST_SERVER", self.trust.url())
            .args(args)
            .run()
    }

    /// What a logged-in user sees, and then one who is not.
    fn push_and_verify(&self, config: &Path) {
        let image = self.image.as_str();
        self.signet(config, &["push", image]).ok();
        self.signet(config, &["verify", image]).ok();
        self.lab
            .docker_trusted(Cli::Debian13, config)
            .env("DOCKER_CONTENT_TRUST_SERVER", self.trust.url())
            .args(["pull", image])
            .run()
            .ok();
    }
}

#[test]
fn tokens_are_fetched_with_the_password_that_docker_stored() {
    let guarded = Guarded::start(&bearer(None));
    let config = guarded.config();
    let lab = &guarded.lab;
    lab.log_in(&config, guarded.registry.host(), BASIC_USER, BASIC_PASSWORD);
    guarded.push_and_verify(&config);

    // As docker asks: the trust server's scope is the whole name, with push and pull.
    let gun = guarded.image.trim_end_matches(":v1");
    let scope = format!("repository:{gun}:");
    let asked = guarded.trust.requests().into_iter().any(|seen| {
        let query = percent_decoded(&seen.query);
        seen.path == "/lab/token"
            && query.contains(&scope)
            && query.contains("push")
            && query.contains("service=")
    });
    assert!(asked, "{:?}", guarded.trust.requests());

    // A newcomer without credentials reads, and may not write.
    let newcomer = guarded.config();
    guarded.signet(&newcomer, &["verify", &guarded.image]).ok();
    let sign = format!("{gun}:v9@{DIGEST}");
    guarded
        .signet(&newcomer, &["sign", &sign, "--size", SIZE])
        .exits(1)
        .says(guarded.trust.host());
    // Tokens that the server has forgotten are fetched again.
    guarded.trust.forget_tokens();
    guarded.registry.forget_tokens();
    guarded.signet(&config, &["verify", &guarded.image]).ok();
}

#[test]
fn an_identity_token_is_exchanged_for_access() {
    let guarded = Guarded::start(&bearer(Some("the-identity-token")));
    let config = guarded.config();
    let host = guarded.registry.host();
    let auths = format!(
        r#"{{"auths":{{"{host}":{{"auth":"{}","identitytoken":"the-identity-token"}}}}}}"#,
        // `<token>:`, as docker writes it beside an identity token.
        "PHRva2VuPjo="
    );
    fs::write(config.join("config.json"), auths).expect("the configuration is ours");
    guarded.push_and_verify(&config);
    let refreshed = guarded.trust.requests().into_iter().any(|seen| {
        seen.path == "/lab/token"
            && seen.method == "POST"
            && String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token")
    });
    assert!(refreshed, "{:?}", guarded.trust.requests());
}

#[test]
fn basic_authentication_is_answered_from_a_credential_helper() {
    let guarded = Guarded::start(&basic());
    let config = guarded.config();
    let host = guarded.registry.host();
    let bin = guarded.lab.fresh_dir("bin");
    write_script(
        &bin.join("docker-credential-lab"),
        &format!(
            "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r server\n\
             echo \"$server\" >>'{log}'\n[ \"$server\" = '{host}' ] || {{\n\
             echo 'credentials not found in native keychain'; exit 1; }}\n\
             echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{BASIC_USER}\",\"Secret\":\"{BASIC_PASSWORD}\"}}'\n",
            log = bin.join("asked").display()
        ),
    );
    let json = format!(r#"{{"credHelpers":{{"{host}":"lab"}}}}"#);
    fs::write(config.join("config.json"), json).expect("the configuration is ours");
    let signet = |args: &[&str]| {
        guarded
            .lab
            .home_with(&config)
            .unattended()
            .env("DOCKER_CONTENT_TRUST_SERVER", guarded.trust.url())
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .args(args)
            .run()
    };
    signet(&["push", &guarded.image]).ok();
    signet(&["verify", &guarded.image]).ok();
    let asked = fs::read_to_string(bin.join("asked")).expect("the helper was asked");
    assert!(asked.lines().all(|line| line == host), "{asked}");

    // A helper that is not there is named.
    let json = format!(r#"{{"credHelpers":{{"{host}":"missing"}}}}"#);
    fs::write(config.join("config.json"), json).expect("the configuration is ours");
    signet(&["push", &guarded.image])
        .exits(1)
        .says("docker-credential-missing");
}

#[test]
fn a_wrong_password_is_an_error_that_says_where() {
    let guarded = Guarded::start(&basic());
    let config = guarded.config();
    let host = guarded.registry.host().to_owned();
    let auths = format!(
        // `lab:wrong`
        r#"{{"auths":{{"{host}":{{"auth":"bGFiOndyb25n"}}}}}}"#
    );
    fs::write(config.join("config.json"), auths).expect("the configuration is ours");
    guarded
        .signet(&config, &["verify", &guarded.image])
        .exits(1)
        .says(guarded.trust.host());
    let sign = format!("{}@{DIGEST}", guarded.image);
    guarded
        .signet(&config, &["sign", &sign, "--size", SIZE])
        .exits(1);
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
