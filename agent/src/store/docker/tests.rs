//! What is particular to Docker's directory; the rest is the contract of all stores.

use std::os::unix::fs::symlink;

use super::*;
use crate::store::{
    atomic::fault,
    contract::{Hands, OF_KEY, Opener, Person, contract, nobody, person, root, targets},
};

fn opener() -> Opener {
    |dir, clock| {
        Box::new(DockerStore {
            clock,
            ..DockerStore::open(&dir.join("docker"))
        })
    }
}

contract!(opener());

fn store(dir: &Path) -> DockerStore {
    DockerStore {
        clock: Hands::default().clock(),
        ..DockerStore::open(dir)
    }
}

#[test]
fn a_key_file_is_what_docker_writes() {
    let dir = tempfile::tempdir().unwrap();
    let key = store(dir.path())
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    assert_eq!(
        key.path,
        dir.path().join(format!("trust/private/{}.key", key.id))
    );
    let text = fs::read_to_string(&key.path).unwrap();
    assert!(text.starts_with(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\ngun: reg.example/app\nrole: targets\n\n"
    ));
    assert_eq!(
        KeyFile::parse(text.as_bytes())
            .unwrap()
            .open(Some(OF_KEY.as_bytes()))
            .unwrap()
            .id(),
        key.id
    );
}

#[test]
fn the_question_names_role_and_gun_as_the_file_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let key = store
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    store.lock();
    store.hint(
        &key.id,
        Hint {
            label: "release".to_owned(),
            ..Hint::default()
        },
    );
    let mut person = person(1, 2);
    store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap();
    let ask = &person.asked[0];
    assert_eq!(
        (&ask.name, &ask.role[..], &ask.gun[..], &ask.label[..]),
        (
            &SecretName::Key(key.id),
            "targets",
            "reg.example/app",
            "release"
        )
    );
}

#[test]
fn what_docker_would_not_load_is_a_problem_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let key = store
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    let private = dir.path().join("trust/private");
    let id = KeyId([1; 32]);
    for below in ["root_keys", "tuf_keys/docker.io/library/x", "mine"] {
        fs::create_dir_all(private.join(below)).unwrap();
        fs::copy(&key.path, private.join(below).join(format!("{id}.key"))).unwrap();
    }
    symlink(&key.path, private.join(format!("{id}.key"))).unwrap();
    fs::copy(&key.path, private.join("backup.key")).unwrap();
    fs::write(private.join("README"), b"no key").unwrap();
    fs::write(
        private.join(format!("{}.key", KeyId([2; 32]))),
        b"no key either",
    )
    .unwrap();
    let listing = store.list().unwrap();
    let problems = listing.problems.join("\n");
    assert_eq!(listing.problems.len(), 5, "{problems}");
    for words in ["before 0.4", "sub-directory", "symbolic link", "not named"] {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    assert_eq!(listing.keys.len(), 2);
    let bad = listing
        .keys
        .iter()
        .find(|key| key.id == KeyId([2; 32]))
        .unwrap();
    assert!(bad.problem.is_some());
    assert!(
        listing
            .keys
            .iter()
            .any(|listed| listed.id == key.id && listed.problem.is_none())
    );
}

#[test]
fn a_key_replaced_by_docker_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let key = store
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    let mut theirs = self::store(dir.path());
    let mut change = Person {
        new: Some("changed by notary"),
        ..person(1, 2)
    };
    theirs.change_passphrase(&key.id, &mut change).unwrap();
    let error = store
        .sign(&key.id, Purpose::Document, b"m", &mut nobody(1))
        .unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    let mut person = person(1, 3);
    person.first = vec![Ok(OF_KEY), Ok("changed by notary")];
    store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap();
    assert!(
        person.asked[1].refused.contains("damaged"),
        "the format cannot tell"
    );
    // Deleted by docker: gone for us as well.
    fs::remove_file(&key.path).unwrap();
    let gone = store.sign(&key.id, Purpose::Document, b"m", &mut person);
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
}

#[test]
fn a_changed_passphrase_keeps_headers_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    for new in [
        targets(),
        root(),
        NewKey {
            role: "alice".to_owned(),
            gun: None,
        },
    ] {
        let key = store
            .generate(Algorithm::P256, &new, &mut person(1, 1))
            .unwrap();
        let before = fs::read_to_string(&key.path).unwrap();
        let mut change = Person {
            new: Some("another"),
            ..person(1, 1)
        };
        store.change_passphrase(&key.id, &mut change).unwrap();
        let questions: Vec<bool> = change.asked.iter().map(|ask| ask.new_secret).collect();
        assert_eq!(
            questions,
            [false, true],
            "the old one is asked for though it was just given"
        );
        let after = fs::read_to_string(&key.path).unwrap();
        assert_ne!(before, after);
        let head = |text: &str| text.split("\n\n").next().unwrap().to_owned();
        assert_eq!(head(&before), head(&after));
        let file = KeyFile::parse(after.as_bytes()).unwrap();
        assert_eq!(file.open(Some(b"another")).unwrap().id(), key.id);
        assert!(file.open(Some(OF_KEY.as_bytes())).is_err());
    }
}

#[test]
fn a_passphrase_change_killed_anywhere_leaves_a_key_that_opens() {
    for point in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path());
        let key = store
            .generate(Algorithm::P256, &targets(), &mut person(1, 1))
            .unwrap();
        fault::die_after(point);
        let mut change = Person {
            new: Some("another"),
            ..person(1, 1)
        };
        let changed = store.change_passphrase(&key.id, &mut change);
        let died = fault::revive();
        let mut either = nobody(2);
        either.first = vec![Ok(OF_KEY), Ok("another")];
        self::store(dir.path())
            .sign(&key.id, Purpose::Document, b"m", &mut either)
            .unwrap();
        if !died {
            changed.unwrap();
            return;
        }
    }
}

#[test]
fn a_file_of_several_keys_is_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let key = store
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    let twice = fs::read(&key.path).unwrap().repeat(2);
    fs::write(&key.path, &twice).unwrap();
    let error = store
        .change_passphrase(&key.id, &mut person(1, 1))
        .unwrap_err();
    assert!(error.to_string().contains("holds 2 keys"), "{error}");
    assert_eq!(fs::read(&key.path).unwrap(), twice);
    store
        .sign(&key.id, Purpose::Document, b"m", &mut person(1, 1))
        .unwrap();
}

#[test]
fn an_encrypted_file_is_handed_out_as_it_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let key = store
        .generate(Algorithm::P256, &targets(), &mut person(1, 1))
        .unwrap();
    assert_eq!(
        store.verbatim(&key.id).unwrap(),
        Some(fs::read(&key.path).unwrap())
    );
    let plain = PrivateKey::generate(Algorithm::P256).unwrap();
    let pem = signet_trust::keyfile::write_plain(&plain, "root", None);
    fs::write(store.path(&plain.id()), pem.as_bytes()).unwrap();
    assert_eq!(store.verbatim(&plain.id()).unwrap(), None);
    // Docker can read it as well; nobody is asked.
    store
        .sign(&plain.id(), Purpose::Document, b"m", &mut nobody(2))
        .unwrap();
}

#[test]
fn keys_written_by_docker_and_notary_open_by_their_names() {
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../trust/tests/fixtures/keys/docker-trust"
    );
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("trust/private");
    fs::create_dir_all(&private).unwrap();
    for entry in fs::read_dir(fixtures).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), private.join(entry.file_name())).unwrap();
    }
    let mut store = store(dir.path());
    let listing = store.list().unwrap();
    assert!(listing.problems.is_empty());
    assert_eq!(listing.keys.len(), 3);
    for key in listing.keys {
        let mut person = nobody(1);
        let root = key.role.as_deref() == Some("root");
        person.first = vec![Ok(if root { "rootpass123" } else { "repopass123" })];
        store
            .sign(&key.id, Purpose::Document, b"m", &mut person)
            .unwrap();
    }
}
