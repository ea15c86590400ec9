//! Hostile and unlucky restores: what is said, and the key directories exactly as before.

use std::io::{BufReader, Read as _, Write as _};
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use age::{Decryptor, Encryptor, Identity, Recipient, x25519};
use serde_json::json;
use signet_proto::archive::{self, Manifest, Member, path};

use super::*;

/// A file system in memory, mounted for one test.
struct Mounted(PathBuf);

impl Mounted {
    fn at(dir: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "none", text(&dir)],
        );
        Self(dir)
    }

    fn remount(&self, options: &str) {
        run(
            "mount",
            &["-o", &format!("remount,{options}"), text(&self.0)],
        );
    }

    /// Leaves no room at all; the file that takes it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).expect("there is some room");
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["--lazy", text(&self.0)])
            .status();
    }
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).status().expect(program);
    assert!(done.success(), "{program} {args:?}");
}

/// A backup that anybody can have made: what is in one of ours, changed.
struct Forger {
    identity: x25519::Identity,
    key: PathBuf,
    members: Vec<Member>,
}

impl Forger {
    fn new(lab: &Lab, home: &Home) -> Self {
        let file = backup(lab, home);
        let key = identity_of(&file);
        let identity: x25519::Identity = fs::read_to_string(&key)
            .expect("it is text")
            .parse()
            .expect("an identity");
        let opened = Decryptor::new_buffered(BufReader::new(fs::File::open(&file).expect("ours")));
        let identities = std::iter::once(&identity as &dyn Identity);
        let reader = opened.expect("age's").decrypt(identities).expect("ours");
        let mut members = Vec::new();
        let take = |member| members.push(member);
        archive::read(BufReader::new(reader), archive::size_limit, take).expect("ours");
        Self {
            identity,
            key,
            members,
        }
    }

    /// The archive with some members changed, and a manifest that names them as they are now.
    fn forge(&self, lab: &Lab, change: impl FnOnce(&mut Vec<Member>, &mut Manifest)) -> PathBuf {
        let mut members = self.members.clone();
        let mut manifest = Manifest::parse(&members[0].data).expect("ours");
        change(&mut members, &mut manifest);
        for member in &members {
            let digest = archive::digest(&member.data);
            let file = manifest
                .files
                .iter_mut()
                .find(|file| file.path == member.path);
            let key = manifest.keys.iter_mut().find(|key| key.file == member.path);
            if let Some(file) = file {
                file.sha256 = digest;
            } else if let Some(key) = key {
                key.sha256 = digest;
            }
        }
        members[0].data = manifest.to_json();
        let mut tar = archive::Writer::new(Vec::new(), 0).expect("memory");
        for member in &members {
            tar.add(&member.path, &member.data).expect("memory");
        }
        self.seal(lab, &tar.finish().expect("memory"))
    }

    fn seal(&self, lab: &Lab, tar: &[u8]) -> PathBuf {
        let recipient = self.identity.to_public();
        let recipients = std::iter::once(&recipient as &dyn Recipient);
        let sealed = Encryptor::with_recipients(recipients).expect("one");
        let mut sealed = sealed.wrap_output(Vec::new()).expect("memory");
        sealed.write_all(tar).expect("memory");
        let file = lab.fresh_dir("f").join("forged.age");
        write(&file, &sealed.finish().expect("memory"));
        file
    }

    /// What must be refused: exit code and words, and nothing is changed.
    fn refused(&self, home: &Home, file: &Path, exit: i32, says: &str) {
        let before = state(home);
        let restore = ["-y", "restore", "-i", text(&self.key), text(file)];
        signet(home, "", &restore).exits(exit).says(says);
        assert_eq!(state(home), before, "the key directories are as before");
    }
}

fn of<'a>(members: &'a mut [Member], path: &str) -> &'a mut Member {
    let found = members.iter_mut().find(|member| member.path == path);
    found.unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn a_full_disk_or_a_read_only_directory_changes_nothing_and_says_so() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let file = backup(&lab, &old);
    let restores = |home: &Home| restore(home, &["-y"], &file);
    let refused = |home: &Home, says: &str| {
        let before = state(home);
        restores(home).exits(1).says(says);
        assert_eq!(state(home), before, "the key directories are as before");
        home.signet().args(["agent", "stop"]).run().ok();
    };

    // The home is full: not even the journal can be written.
    let full = lab.home();
    let disk = Mounted::at(full.path(), "4m");
    full.signet().arg("status").run().ok();
    let filler = disk.fill();
    refused(&full, "No space left on device");
    fs::remove_file(filler).expect("ours");
    restores(&full).ok();
    assert_eq!(full.keys().len(), 3);
    full.signet().args(["agent", "stop"]).run().ok();

    // Docker's directory is full, then read-only: what went into the home goes again.
    let other = lab.home();
    let docker = other.docker_config().join("trust");
    fs::create_dir_all(&docker).expect("ours");
    let disk = Mounted::at(docker, "1m");
    let filler = disk.fill();
    refused(&other, "No space left on device");
    fs::remove_file(filler).expect("ours");
    disk.remount("ro");
    refused(&other, "Read-only file system");
    disk.remount("rw");
    restores(&other).ok();
    assert_eq!(other.keys().len(), 3);
    other.signet().args(["agent", "stop"]).run().ok();
}

#[test]
fn what_an_archive_was_made_to_do_is_refused() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let forger = Forger::new(&lab, &old);
    let home = lab.home();

    let newer = forger.forge(&lab, |_, manifest| manifest.format = 2);
    forger.refused(&home, &newer, 1, "the archive is of format 2");
    let twice = forger.forge(&lab, |_, manifest| {
        let key = manifest.keys[0].clone();
        manifest.keys.push(key);
    });
    forger.refused(&home, &twice, 1, "it names a key twice");
    let missing = forger.forge(&lab, |members, _| {
        members.retain(|member| archive::key_of(&member.path).is_none());
    });
    forger.refused(
        &home,
        &missing,
        1,
        "is in the manifest, but not in the archive",
    );
    let extra = forger.forge(&lab, |members, _| {
        let id = "ab".repeat(32);
        members.push(Member {
            path: path::native(&id),
            data: b"x".to_vec(),
        });
    });
    forger.refused(
        &home,
        &extra,
        1,
        "is in the archive, but not in its manifest",
    );

    // One key under the ID of another: it is left out by name.
    let (root, targets) = (old.key_id("root"), old.key_id("targets"));
    let swapped = forger.forge(&lab, |members, _| {
        let one = of(members, &path::native(&root)).data.clone();
        of(members, &path::native(&targets)).data = one;
    });
    let restore = ["-y", "restore", "-i", text(&forger.key), text(&swapped)];
    signet(&home, "", &restore)
        .exits(8)
        .says(&format!("holds key {root}, not the key that its name says"));
    let kept = home.keys();
    assert!(
        kept.iter().all(|key| key["id"] != targets.as_str()),
        "{kept:#?}"
    );

    // A path that leaves the archive, and a link.
    for (name, what) in [
        ("../../etc/x", "does not stay inside"),
        ("signet/agent.toml", "a link"),
    ] {
        let mut tar = Vec::new();
        let script = "import sys, tarfile, io\n\
            t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|gz')\n\
            i = tarfile.TarInfo(sys.argv[1])\n\
            i.type = tarfile.SYMTYPE if sys.argv[2] == 'a link' else tarfile.REGTYPE\n\
            i.linkname = '/etc/passwd'\n\
            t.addfile(i, io.BytesIO())\n\
            t.close()\n";
        let mut python = Command::new("python3");
        let mut child = python
            .args(["-c", script, name, what])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3");
        let out = child.stdout.as_mut().expect("piped");
        out.read_to_end(&mut tar).expect("it writes");
        assert!(child.wait().expect("it ends").success());
        forger.refused(&home, &forger.seal(&lab, &tar), 1, what);
    }
}

#[test]
fn an_archive_neither_widens_the_policy_nor_poisons_the_guard() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let config = old.user_home().join(".config/signet");
    fs::create_dir_all(&config).expect("ours");
    write(&config.join("agent.toml"), b"unlock = \"5m\"\n");
    old.signet().args(["agent", "stop"]).run().ok();
    let forger = Forger::new(&lab, &old);
    let home = lab.home();
    let config = home.user_home().join(".config/signet");
    fs::create_dir_all(&config).expect("ours");
    let mine = b"# mine\nunlock = \"2m\"\n";
    write(&config.join("agent.toml"), mine);

    // Versions that no document has, a hash that is none, a member that nobody knows.
    let lineage = "11".repeat(32);
    let role = |version: u64, hash: &str| {
        json!({"collections": [{
            "gun": "reg.example.com/app", "lineage": lineage, "timestamp": null, "root": null,
            "roles": {"targets": {
                "seen": {"version": version, "hash": hash}, "signed": null,
                "arrived": false, "published": null
            }}
        }]})
    };
    let hash = "22".repeat(32);
    for (bad, says) in [
        (role(4_294_967_295, &hash), "4294967295 is no version"),
        (role(0, &hash), "0 is no version"),
        (role(7, "22"), "a hash is none"),
        (
            json!({"collections": [], "policy": "allow"}),
            "unknown field",
        ),
        (
            json!({"collections": [], "tombstones": [{
                "id": "33".repeat(32), "reason": "retired", "detail": "", "role": "root",
                "gun": null, "label": "", "store": "file", "key_type": "ecdsa",
                "public": "00", "time": 0
            }]}),
            "the public key of another key",
        ),
    ] {
        let forged = forger.forge(&lab, |members, _| {
            of(members, path::STATE).data = bad.to_string().into_bytes();
        });
        forger.refused(&home, &forged, 1, says);
    }

    // Settings come beside those in force, with the difference shown.
    let wide = forger.forge(&lab, |members, _| {
        of(members, path::POLICY).data = b"unlock = \"60m\"\n".to_vec();
        of(members, path::STATE).data = role(7, &hash).to_string().into_bytes();
    });
    let restore = ["-y", "restore", "-i", text(&forger.key), text(&wide)];
    signet(&home, "", &restore)
        .ok()
        .says("not in force")
        .says("- unlock = \"2m\"")
        .says("+ unlock = \"60m\"")
        .says("guard: targets of reg.example.com/app rises to version 7, as the backup claims");
    assert_eq!(
        fs::read(config.join("agent.toml")).ok().as_deref(),
        Some(&mine[..])
    );
    let beside = fs::read_to_string(config.join("agent.toml.restored")).expect("it is there");
    assert_eq!(beside, "unlock = \"60m\"\n");
}

#[test]
fn a_backup_to_somebody_else_does_not_open() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let forger = Forger::new(&lab, &old);
    let mine = forger.forge(&lab, |_, _| {});
    let stranger = Forger {
        identity: x25519::Identity::generate(),
        key: lab.fresh_dir("k").join("key.txt"),
        members: Vec::new(),
    };
    let secret = stranger.identity.to_string();
    write(&stranger.key, secret.expose_secret().as_bytes());
    let home = lab.home();
    stranger.refused(&home, &mine, 5, "not encrypted to any of these identities");
    signet(&home, "", &["-y", "restore", text(&mine)])
        .exits(5)
        .says("--identity FILE, or shares of its key");
    assert!(state(&home).is_empty());
}
