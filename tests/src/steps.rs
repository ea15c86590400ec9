//! Steps that many tests take.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use crate::lab::command::{Output, Run as _, clean};
use crate::{Cli, Home, Lab};

/// A digest that no registry has heard of.
pub const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The size that goes with [`DIGEST`].
pub const SIZE: &str = "528";

impl Lab {
    /// Pulls with content trust on, by a client that has never seen anything.
    #[must_use]
    pub fn pull_as_newcomer(&self, cli: Cli, image: &str) -> Output {
        self.docker_trusted(cli, &self.client_config())
            .args(["pull", image])
            .run()
    }

    /// Has every Docker CLI pull an image with content trust on, each as a newcomer.
    ///
    /// # Panics
    /// When one refuses.
    #[track_caller]
    pub fn everybody_pulls(&self, image: &str) {
        for cli in Cli::all() {
            self.pull_as_newcomer(cli, image).ok().says("Tagging");
        }
    }

    /// Has every Docker CLI refuse to pull an image with content trust on, each as a newcomer.
    ///
    /// # Panics
    /// When one pulls it.
    #[track_caller]
    pub fn nobody_pulls(&self, image: &str) {
        let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        for cli in Cli::all() {
            self.pull_as_newcomer(cli, image)
                .exits(1)
                .says(&format!("No valid trust data for {tag}"));
        }
    }

    /// What a Docker CLI's `trust inspect` says, as JSON.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn docker_trust_inspect(&self, cli: Cli, name: &str) -> serde_json::Value {
        self.docker(cli, &self.client_config())
            .args(["trust", "inspect", name])
            .run()
            .ok()
            .json()
    }

    /// What `notary list` says, as (tag, digest in hex, size, role), sorted.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn notary_list(&self, url: &str, gun: &str) -> Vec<[String; 4]> {
        let list = self
            .notary_at(url, &self.fresh_dir("n"))
            .args(["list", gun])
            .run()
            .ok();
        let mut rows: Vec<[String; 4]> = list
            .stdout
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .filter_map(|row: Vec<String>| <[String; 4]>::try_from(row).ok())
            .filter(|row| row[1].len() == 64)
            .collect();
        rows.sort();
        rows
    }

    /// The digest that the registry has for a tag now, if any: `image` is `HOST:PORT/NAME:TAG`.
    ///
    /// # Panics
    /// When the registry does not answer.
    #[must_use]
    pub fn registry_digest(&self, image: &str) -> Option<String> {
        let (host, rest) = image.split_once('/').expect("a full name");
        let (name, tag) = rest.rsplit_once(':').expect("a tag");
        let answer = clean("curl")
            .args(["--silent", "--show-error", "--head", "--cacert"])
            .arg(self.certs().ca())
            .args([
                "-H",
                "Accept: application/vnd.docker.distribution.manifest.v2+json",
            ])
            .arg(format!("https://{host}/v2/{name}/manifests/{tag}"))
            .run()
            .ok();
        answer
            .stdout
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("docker-content-digest"))
            .map(|(_, digest)| digest.trim().to_owned())
    }

    /// Stores credentials in a Docker configuration, as a user would.
    ///
    /// # Panics
    /// When the registry does not take them.
    pub fn log_in(&self, config: &Path, host: &str, user: &str, password: &str) {
        self.docker(Cli::Debian12, config)
            .args(["login", "-u", user, "-p", password, host])
            .run()
            .ok();
    }
}

impl Home {
    /// As [`Home::unattended`], without the passphrase file: secrets come from descriptors.
    /// `secrets` are (descriptor, first line); the flags that name them are the caller's.
    ///
    /// # Panics
    /// When a file of the home cannot be written.
    #[must_use]
    pub fn with_descriptors(&self, secrets: &[(u8, &str)]) -> Command {
        let mut script = String::new();
        for (fd, secret) in secrets {
            let file = self.user_home().join(format!("secret{fd}"));
            fs::write(&file, format!("{secret}\n")).expect("the home is ours");
            script += &format!("exec {fd}<'{}'; ", file.display());
        }
        // Program and environment are this home's, as `signet` would have them.
        let signet = self.signet();
        let mut command = clean("bash");
        command
            .arg("-c")
            .arg(script + "exec \"$@\"")
            .arg("bash")
            .arg(signet.get_program())
            .args(signet.get_args())
            .arg("--no-input");
        for (name, value) in signet.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(dir) = signet.get_current_dir() {
            command.current_dir(dir);
        }
        command
    }

    /// Signs a tag with a digest of its own, without engine and registry, unattended.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn signs(&self, image: &str) {
        self.unattended()
            .args(["sign", &format!("{image}@{DIGEST}"), "--size", SIZE])
            .run()
            .ok();
    }

    /// The log, as `log show --json` has it.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    #[track_caller]
    pub fn log(&self) -> serde_json::Value {
        self.signet()
            .args(["log", "show", "--json"])
            .run()
            .ok()
            .json()
    }

    /// The keys, as `key list --json` has them.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    #[track_caller]
    pub fn keys(&self) -> Vec<serde_json::Value> {
        let list = self
            .signet()
            .args(["key", "list", "--json"])
            .run()
            .ok()
            .json();
        list["keys"].as_array().expect("a list of keys").clone()
    }

    /// The ID of the one key with this role.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn key_id(&self, role: &str) -> String {
        let keys = self.keys();
        let ids: Vec<&str> = keys
            .iter()
            .filter(|key| key["role"] == role)
            .filter_map(|key| key["id"].as_str())
            .collect();
        match ids[..] {
            [id] => id.to_owned(),
            _ => panic!("not one {role} key: {keys:#?}"),
        }
    }
}

/// Every file below a directory, with its content.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let kind = entry.file_type().expect("it is there");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let content = fs::read(entry.path()).expect("it is ours");
            found.insert(entry.path(), content);
        }
    }
    found
}

/// Whether a process has ended, though nobody may have asked for its exit code yet: fields 1 to 3
/// of `/proc/PID/stat` (proc(5)).
#[must_use]
pub fn has_ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The second field is the program's name, in parentheses, and may hold anything.
    stat.ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('Z')))
        .unwrap_or(true)
}

/// Writes a program that others can run.
///
/// # Panics
/// When it cannot be written.
pub fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("the directory is ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// Heading and shell blocks of each section of a guide in `docs/guides`.
///
/// # Panics
/// When there is no such guide.
#[must_use]
pub fn sections(guide: &str) -> Vec<(String, Vec<String>)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/guides")
        .join(guide);
    let guide = fs::read_to_string(file).expect("the guide is there");
    let sections = guide.split("\n## ").skip(1);
    sections
        .map(|section| {
            let (heading, text) = section.split_once('\n').expect("a heading ends");
            let blocks = text.split("```sh\n").skip(1);
            let blocks = blocks.map(|block| block.split("```").next().unwrap_or(block).to_owned());
            (heading.to_owned(), blocks.collect())
        })
        .collect()
}
