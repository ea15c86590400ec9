//! What is particular to the native store; the rest is the contract of all stores.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use super::*;
use crate::presence::{SecretName, SessionId};
use crate::store::{
    atomic::fault,
    contract::{
        KEYRING, Opener, Person, ROOT, assert_no_leftovers, contract, nobody, person, root, targets,
    },
};

fn opener() -> Opener {
    |dir, clock| {
        Box::new(FileStore {
            clock,
            ..FileStore::open(dir).unwrap()
        })
    }
}

contract!(opener());

fn store(dir: &Path) -> FileStore {
    FileStore::open(dir).unwrap()
}

/// A home with a root key and two targets keys.
fn home() -> (tempfile::TempDir, Vec<KeyId>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let ids = [root(), targets(), targets()]
        .iter()
        .map(|new| {
            store
                .generate(Algorithm::P256, new, &mut person(1, 1))
                .unwrap()
                .id
        })
        .collect();
    (dir, ids)
}

fn names(person: &Person) -> Vec<SecretName> {
    person.asked.iter().map(|ask| ask.name.clone()).collect()
}

#[test]
fn both_keyrings_are_made_with_the_first_key_of_either_kind() {
    for new in [root(), targets()] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path());
        let mut first = person(1, 1);
        store.generate(Algorithm::P256, &new, &mut first).unwrap();
        assert_eq!(names(&first), [SecretName::Keyring, SecretName::Root]);
        assert!(first.asked.iter().all(|ask| ask.new_secret));
        let status = store.status();
        assert!(status.repository && status.root && !status.same_passphrase);
        let mut second = person(1, 2);
        store
            .generate(Algorithm::P256, &root(), &mut second)
            .unwrap();
        assert_eq!(names(&second), [SecretName::Root]);
    }
}

#[test]
fn a_keyring_that_is_missing_beside_keys_is_never_made_anew() {
    for ring in [Ring::Repository, Ring::Root] {
        let (dir, _) = home();
        fs::remove_file(dir.path().join(ring.file_name())).unwrap();
        let mut store = store(dir.path());
        for new in [root(), targets()] {
            let error = store
                .generate(Algorithm::P256, &new, &mut person(1, 1))
                .unwrap_err();
            assert!(
                matches!(&error, StoreError::KeyringMissing { path }
                    if path.ends_with(ring.file_name())),
                "{error:?}"
            );
        }
        assert!(!dir.path().join(ring.file_name()).exists());
        assert_eq!(store.list().unwrap().problems.len(), 1);
    }
}

#[test]
fn a_missing_root_keyring_does_not_keep_targets_keys_from_signing() {
    let (dir, ids) = home();
    fs::remove_file(dir.path().join("root.age")).unwrap();
    store(dir.path())
        .sign(&ids[1], Purpose::Document, b"m", &mut person(1, 1))
        .unwrap();
}

#[test]
fn unlock_opens_the_repository_keyring_for_all_sessions_and_its_time() {
    let (dir, ids) = home();
    let hands = crate::store::contract::Hands::default();
    let mut store = FileStore {
        clock: hands.clock(),
        ..store(dir.path())
    };
    let minute = Duration::from_secs(60);
    let mut person = person(1, 1);
    let until = store.unlock(5 * minute, Scope::All, &mut person).unwrap();
    assert_eq!(names(&person), [SecretName::Keyring]);
    assert_eq!(store.status().held, [(Scope::All, until)]);
    store.end_request(RequestId(1));
    let mut other = nobody(2);
    other.session = None;
    store
        .sign(&ids[1], Purpose::Document, b"m", &mut other)
        .unwrap();
    assert_eq!(other.accepted, [(SecretName::Keyring, 0)]);
    // Root keys stay closed.
    store.hint(
        &ids[0],
        Hint {
            role: "root".to_owned(),
            ..Hint::default()
        },
    );
    let error = store
        .sign(&ids[0], Purpose::Document, b"m", &mut other)
        .unwrap_err();
    assert!(matches!(error, StoreError::Locked { ref what } if what == "the root keyring"));
    hands.pass(5 * minute);
    let error = store
        .sign(&ids[1], Purpose::Document, b"m", &mut other)
        .unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }));
    assert_eq!(store.expire(), None);
    assert!(store.opened.is_empty() && store.held.is_none());
    // For one session.
    store
        .unlock(minute, Scope::Session(SessionId(1)), &mut person)
        .unwrap();
    store.end_request(RequestId(1));
    assert!(
        store
            .sign(&ids[1], Purpose::Document, b"m", &mut other)
            .is_err()
    );
}

#[test]
fn there_is_nothing_to_unlock_in_an_empty_home() {
    let dir = tempfile::tempdir().unwrap();
    let mut person = person(1, 1);
    let error = store(dir.path())
        .unlock(DEFAULT_HOLD, Scope::All, &mut person)
        .unwrap_err();
    assert!(matches!(error, StoreError::Unsupported(_)));
    assert!(person.asked.is_empty());
}

#[test]
fn a_key_without_a_hint_is_found_by_whichever_keyring_opens_it() {
    let (dir, ids) = home();
    let mut store = store(dir.path());
    let mut person = person(1, 1);
    store
        .sign(&ids[0], Purpose::Document, b"m", &mut person)
        .unwrap();
    assert_eq!(names(&person), [SecretName::Keyring, SecretName::Root]);
    // From now on it is known.
    store.lock();
    let mut again = crate::store::contract::person(1, 2);
    store
        .sign(&ids[0], Purpose::Document, b"m", &mut again)
        .unwrap();
    assert_eq!(names(&again), [SecretName::Root]);
}

#[test]
fn the_role_inside_decides_which_keyring_may_hold_a_key() {
    let (dir, _) = home();
    let mut store = store(dir.path());
    let mut person = person(1, 1);
    let key = PrivateKey::generate(Algorithm::P256).unwrap();
    // A root key that was encrypted to the repository keyring by somebody who could open it.
    let keyring = store.keyring(Ring::Repository, &mut person).unwrap();
    let plain = write_plain(&key, "root", None);
    store
        .layout
        .add_key(&key.id(), &keyring.encrypt(plain.as_bytes()))
        .unwrap();
    let error = store
        .sign(&key.id(), Purpose::Document, b"m", &mut person)
        .unwrap_err();
    assert!(error.to_string().contains("keyring.age"), "{error}");
    assert!(matches!(error, StoreError::Damaged { .. }));
}

#[test]
fn a_planted_file_encrypted_to_another_identity_does_not_open() {
    let (dir, ids) = home();
    let mut store = store(dir.path());
    let plain = write_plain(
        &PrivateKey::generate(Algorithm::P256).unwrap(),
        "targets",
        Some("a"),
    );
    let file = OpenKeyring::generate().encrypt(plain.as_bytes());
    fs::write(store.layout.key(&ids[1]), file).unwrap();
    let error = store
        .sign(&ids[1], Purpose::Document, b"m", &mut person(1, 1))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("encrypted to no keyring of this home"),
        "{error}"
    );
}

#[test]
fn a_new_passphrase_opens_the_same_keys_and_the_old_one_does_not() {
    let (dir, ids) = home();
    let mut store = store(dir.path());
    let mut change = Person {
        new: Some("new one"),
        ..person(1, 1)
    };
    store
        .change_keyring_passphrase(Ring::Repository, &mut change)
        .unwrap();
    assert_eq!(
        change
            .asked
            .iter()
            .map(|ask| ask.new_secret)
            .collect::<Vec<_>>(),
        [false, true]
    );
    let mut store = self::store(dir.path());
    let mut old = nobody(2);
    old.first = vec![Ok(KEYRING)];
    assert!(
        store
            .sign(&ids[1], Purpose::Document, b"m", &mut old)
            .is_err()
    );
    let mut new = nobody(3);
    new.first = vec![Ok("new one")];
    store
        .sign(&ids[1], Purpose::Document, b"m", &mut new)
        .unwrap();
    assert!(!store.status().same_passphrase);
    // Made equal, it is known; made different, that is known as well.
    let mut change = Person {
        new: Some("new one"),
        ..person(1, 4)
    };
    store
        .change_keyring_passphrase(Ring::Root, &mut change)
        .unwrap();
    assert!(store.status().same_passphrase);
    let mut change = Person {
        new: Some(ROOT),
        ..person(1, 5)
    };
    change.first = vec![Ok("new one")];
    store
        .change_keyring_passphrase(Ring::Root, &mut change)
        .unwrap();
    assert!(!store.status().same_passphrase);
}

#[test]
fn a_rotation_encrypts_every_key_of_its_kind_anew() {
    let (dir, ids) = home();
    let mut store = store(dir.path());
    let before: Vec<_> = ids
        .iter()
        .map(|id| store.layout.read_key(id).unwrap())
        .collect();
    let old = store.keyring(Ring::Repository, &mut person(1, 1)).unwrap();
    assert_eq!(
        store
            .rotate_keyring(Ring::Repository, &mut person(1, 2))
            .unwrap(),
        2
    );
    let after: Vec<_> = ids
        .iter()
        .map(|id| store.layout.read_key(id).unwrap())
        .collect();
    assert!(before[0] == after[0] && before[1] != after[1] && before[2] != after[2]);
    assert!(matches!(old.decrypt(&after[1], false), Decrypted::NotOurs));
    // What was held before is the new keyring now.
    let mut held = nobody(3);
    held.session = Some(SessionId(1));
    store
        .sign(&ids[1], Purpose::Document, b"m", &mut held)
        .unwrap();
    assert_eq!(
        store.rotate_keyring(Ring::Root, &mut person(1, 4)).unwrap(),
        1
    );
    let mut store = self::store(dir.path());
    for id in &ids {
        store
            .sign(id, Purpose::Document, b"m", &mut person(1, 5))
            .unwrap();
    }
}

#[test]
fn a_rotation_killed_anywhere_leaves_every_key_readable_and_is_finished_later() {
    for point in 0.. {
        let (dir, ids) = home();
        fault::die_after(point);
        let rotated = store(dir.path()).rotate_keyring(Ring::Repository, &mut person(1, 1));
        let died = fault::revive();
        // With nothing but the passphrase and age's own rules: one keyring file, every key.
        let mut store = store(dir.path());
        let file = store.layout.read_keyring(Ring::Repository).unwrap();
        let passphrase = Secret::copy_of(KEYRING.as_bytes());
        let keyring = OpenKeyring::open(dir.path(), &file, &passphrase).unwrap();
        for id in &ids[1..] {
            let file = store.layout.read_key(id).unwrap();
            assert!(
                matches!(keyring.decrypt(&file, false), Decrypted::Plain(_)),
                "{point}"
            );
        }
        // Killed again while it is finished, then finished.
        fault::die_after(2);
        let _ = store.sign(&ids[1], Purpose::Document, b"m", &mut person(1, 2));
        fault::revive();
        let mut store = self::store(dir.path());
        for id in &ids {
            store
                .sign(id, Purpose::Document, b"m", &mut person(1, 3))
                .unwrap();
        }
        let file = store.layout.read_keyring(Ring::Repository).unwrap();
        let keyring = OpenKeyring::open(dir.path(), &file, &passphrase).unwrap();
        assert!(!keyring.is_rotating(), "{point}");
        assert_no_leftovers(dir.path());
        if !died {
            assert_eq!(rotated.unwrap(), 2);
            return;
        }
    }
}

#[test]
fn a_key_that_cannot_be_decrypted_keeps_the_old_identity_alive() {
    let (dir, ids) = home();
    let mut store = store(dir.path());
    let path = store.layout.key(&ids[2]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = store
        .rotate_keyring(Ring::Repository, &mut person(1, 1))
        .unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { path: named, .. } if *named == path));
    // Put back from a backup, which was encrypted to the old identity.
    fs::write(&path, &whole).unwrap();
    for id in &ids[1..] {
        store
            .sign(id, Purpose::Document, b"m", &mut person(1, 2))
            .unwrap();
    }
    assert_eq!(
        store
            .rotate_keyring(Ring::Repository, &mut person(1, 3))
            .unwrap(),
        2
    );
}

#[test]
fn a_passphrase_change_killed_anywhere_leaves_one_that_opens() {
    for point in 0.. {
        let (dir, ids) = home();
        fault::die_after(point);
        let mut change = Person {
            new: Some("new one"),
            ..person(1, 1)
        };
        let changed = store(dir.path()).change_keyring_passphrase(Ring::Repository, &mut change);
        let died = fault::revive();
        let mut either = nobody(2);
        either.first = vec![Ok(KEYRING), Ok("new one")];
        let mut store = store(dir.path());
        store
            .sign(&ids[1], Purpose::Document, b"m", &mut either)
            .unwrap();
        assert_no_leftovers(dir.path());
        if !died {
            changed.unwrap();
            return;
        }
    }
}

#[test]
fn the_age_command_recovers_keys_without_us() {
    let (dir, ids) = home();
    for (ring, passphrase, id) in [("root.age", ROOT, ids[0]), ("keyring.age", KEYRING, ids[1])] {
        // age reads passphrases from a terminal only: `script` gives it one.
        let command = format!("age -d -i {ring} -o {id}.pem keys/{id}.age");
        let started = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut age) = started else { return };
        writeln!(age.stdin.take().unwrap(), "{passphrase}").unwrap();
        let output = age.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("not found") {
            return;
        }
        assert!(output.status.success(), "{said}");
        let pem = fs::read(dir.path().join(format!("{id}.pem"))).unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(KeyFile::parse(&pem).unwrap().open(None).unwrap().id(), id);
    }
}

#[test]
fn files_that_are_no_keys_are_listed_as_problems() {
    let (dir, ids) = home();
    fs::write(dir.path().join("keys/notes.txt"), b"x").unwrap();
    fs::create_dir(dir.path().join(format!("keys/{}.age", KeyId([1; 32])))).unwrap();
    let listing = store(dir.path()).list().unwrap();
    assert_eq!(listing.keys.len(), ids.len());
    assert_eq!(listing.problems.len(), 2, "{:?}", listing.problems);
}
