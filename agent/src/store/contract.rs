//! What every store promises, as one suite of tests that each store runs: see [`contract`].
//!
//! A store of files and a card promise the same where a promise is about keys, questions and
//! signatures. Where it is about a file, [`contract`] names the card's own test beside it. Where the
//! promise is kept in another way, the test says how, by [`Bench::is_card`]: a card has one PIN for
//! all its keys, tells no role and no repository, and lets no key out.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use signet_trust::{Algorithm, KeyId, PrivateKey, keyfile::KeyFile};

use super::{
    KeyStore, NewKey, Purpose, StoreError, StoredKey,
    atomic::fault,
    hold::{Clock, Now},
};
use crate::{
    key::Secret,
    presence::{Given, NoSecret, Presence, RequestId, SecretName, SecretRequest, SessionId},
};

/// A person who knows the passphrases, or answers as told; every question is written down.
pub(super) struct Person {
    /// Answers given before the right one.
    pub(super) first: Vec<Result<&'static str, NoSecret>>,
    /// Knows nothing: every question that `first` does not answer finds nobody there.
    pub(super) absent: bool,
    pub(super) asked: Vec<SecretRequest>,
    pub(super) accepted: Vec<(SecretName, u32)>,
    pub(super) request: RequestId,
    pub(super) session: Option<SessionId>,
    pub(super) may_use_held: bool,
    /// Instead of the passphrases below, for a change.
    pub(super) new: Option<&'static str>,
}

pub(super) const KEYRING: &str = "keyring passphrase";
pub(super) const ROOT: &str = "root passphrase";
pub(super) const OF_KEY: &str = "passphrase of a key";
pub(super) const PIN: &str = "482915";

/// Whoever sits at terminal `session` and makes his `request`-th request.
pub(super) fn person(session: i32, request: u64) -> Person {
    Person {
        first: Vec::new(),
        absent: false,
        asked: Vec::new(),
        accepted: Vec::new(),
        request: RequestId(request),
        session: Some(SessionId(session)),
        may_use_held: true,
        new: None,
    }
}

/// Nobody.
pub(super) fn nobody(request: u64) -> Person {
    Person {
        absent: true,
        ..person(0, request)
    }
}

impl Presence for Person {
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret> {
        let answer = if !self.first.is_empty() {
            self.first.remove(0)
        } else if self.absent {
            Err(NoSecret::Unavailable)
        } else {
            Ok(match (&ask.name, self.new) {
                (_, Some(new)) if ask.new_secret => new,
                (SecretName::Keyring, _) => KEYRING,
                (SecretName::Root, _) => ROOT,
                (SecretName::Key(_) | SecretName::Export, _) => OF_KEY,
                (SecretName::Pin(_), _) => PIN,
                (SecretName::Puk(_) | SecretName::ManagementKey(_), _) => "not known here",
            })
        };
        self.asked.push(ask);
        answer.map(|text| Given {
            secret: Secret::copy_of(text.as_bytes()),
            grade: 3,
        })
    }

    fn request(&self) -> RequestId {
        self.request
    }

    fn session(&self) -> Option<SessionId> {
        self.session
    }

    fn may_use_held(&self) -> bool {
        self.may_use_held
    }

    fn accepted(&mut self, name: &SecretName, grade: u32) {
        self.accepted.push((name.clone(), grade));
    }
}

/// A clock that a test moves.
#[derive(Clone, Default)]
pub(super) struct Hands(Arc<Mutex<Duration>>);

impl Hands {
    pub(super) fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    pub(super) fn clock(&self) -> Clock {
        let time = self.0.clone();
        Box::new(move || {
            let passed = *time.lock().unwrap();
            Now {
                boot: passed,
                wall: SystemTime::UNIX_EPOCH + passed,
            }
        })
    }
}

pub(super) fn targets() -> NewKey {
    NewKey {
        role: "targets".to_owned(),
        gun: Some("reg.example/app".to_owned()),
    }
}

pub(super) fn root() -> NewKey {
    NewKey {
        role: "root".to_owned(),
        gun: None,
    }
}

/// Opens a store in a directory, with this clock.
pub(super) type Opener = fn(&Path, Clock) -> Box<dyn KeyStore>;

pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) hands: Hands,
    pub(super) store: Box<dyn KeyStore>,
    opener: Opener,
}

impl Bench {
    pub(super) fn new(opener: Opener) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hands = Hands::default();
        let store = opener(dir.path(), hands.clock());
        Self {
            dir,
            hands,
            store,
            opener,
        }
    }

    /// As after a restart of the agent.
    pub(super) fn reopen(&mut self) {
        self.store = (self.opener)(self.dir.path(), self.hands.clock());
    }

    /// Whether the store is a card: it keeps nothing in the directory, and a key's role and
    /// repository are the index's.
    fn is_card(&self) -> bool {
        self.store.name() == "piv"
    }

    /// What the store says of a key's authority is what it was told; a card may say nothing.
    #[track_caller]
    fn says(&self, stored: &StoredKey, new: &NewKey) {
        let told = (Some(&new.role), new.gun.as_ref());
        let silent = self.is_card() && (stored.role.as_ref(), &stored.gun) == (None, &None);
        let root = self.is_card() && new.role == "root";
        assert!(
            silent || (stored.role.as_ref(), stored.gun.as_ref()) == told || root,
            "{stored:?} of {new:?}"
        );
    }

    /// What is kept of a key: its file, or what the card tells of its slot.
    fn kept(&mut self, key: &StoredKey) -> Vec<u8> {
        if !self.is_card() {
            return fs::read(&key.path).unwrap();
        }
        let keys = self.store.list().unwrap().keys;
        let same: Vec<_> = keys.iter().filter(|other| other.id == key.id).collect();
        format!("{same:?}").into_bytes()
    }

    fn generate(&mut self, new: &NewKey) -> StoredKey {
        let mut person = person(1, 1);
        let key = self
            .store
            .generate(Algorithm::P256, new, &mut person)
            .unwrap();
        self.store.end_request(RequestId(1));
        key
    }
}

/// Runs a test for each promise of the module.
///
/// Three are about files, and on a card about something else, which the card's own tests look at
/// (`store/piv/tests.rs` and below it):
///
/// * `a_file_under_another_name_does_not_sign`: a slot that holds another key than the one it is
///   known for signs nothing that is let out
///   (`keys_without_a_certificate_are_found_by_attestation_or_by_the_index_on_old_firmware`);
/// * `a_truncated_file_is_an_error_that_names_it`: answers that are cut off or make no sense name
///   the card (`a_foreign_card_and_nonsense_are_named_and_never_panic`);
/// * `a_new_passphrase_is_not_empty`: a key on a card has no passphrase; what a new PIN must be is
///   looked at when the card is set up
///   (`what_a_touch_types_is_told_from_a_pin_and_from_what_is_merely_too_long`).
macro_rules! contract {
    ($opener:expr; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                $crate::store::contract::$test($opener);
            }
        )*
    };
    ($opener:expr) => {
        $crate::store::contract::contract! { $opener;
            an_absent_directory_is_an_empty_store_and_nobody_is_asked
            a_key_of_every_algorithm_signs_after_a_restart
            an_unknown_key_is_not_found_and_nobody_is_asked
            with_nobody_there_it_is_locked_and_nothing_is_written
            three_wrong_answers_end_it_and_each_is_told
            a_second_answer_may_be_right
            who_cancels_is_not_asked_again
            a_typed_secret_is_held_for_its_session_and_time
            a_held_secret_is_not_used_where_it_may_not_be
            a_root_key_is_opened_for_one_request
            importing_a_key_again_changes_nothing
            an_exported_copy_opens_in_docker_format
            a_removed_key_is_gone
            a_file_under_another_name_does_not_sign
            a_truncated_file_is_an_error_that_names_it
            a_new_passphrase_is_not_empty
            who_comes_again_with_the_answer_is_not_asked_another_question
            roles_and_guns_that_a_header_cannot_hold_are_refused
            generation_killed_anywhere_leaves_a_whole_key_or_none
        }
    };
}
pub(super) use contract;

pub(super) fn an_absent_directory_is_an_empty_store_and_nobody_is_asked(opener: Opener) {
    let mut bench = Bench::new(opener);
    let listing = bench.store.list().unwrap();
    assert!(listing.keys.is_empty() && listing.problems.is_empty());
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 0);
}

pub(super) fn a_key_of_every_algorithm_signs_after_a_restart(opener: Opener) {
    let mut bench = Bench::new(opener);
    for algorithm in [
        Algorithm::P256,
        Algorithm::P384,
        Algorithm::Ed25519,
        Algorithm::Rsa(2048),
    ] {
        for new in [
            targets(),
            root(),
            NewKey {
                role: "alice".to_owned(),
                gun: None,
            },
        ] {
            let made = bench
                .store
                .generate(algorithm, &new, &mut person(1, 1))
                .unwrap();
            bench.says(&made, &new);
            let public = made.public.unwrap();
            assert_eq!(public.id(), made.id);
            bench.reopen();
            for purpose in [Purpose::Document, Purpose::Certificate] {
                let signature = bench
                    .store
                    .sign(&made.id, purpose, b"message", &mut person(1, 2))
                    .unwrap();
                if purpose == Purpose::Document {
                    public
                        .verify(public.method(), b"message", &signature)
                        .unwrap();
                }
            }
            let opened = bench.store.open(&made.id, &mut person(1, 2)).unwrap();
            bench.says(&opened, &new);
            assert_eq!(opened.public, Some(public));
        }
    }
    assert_eq!(bench.store.list().unwrap().keys.len(), 12);
}

pub(super) fn an_unknown_key_is_not_found_and_nobody_is_asked(opener: Opener) {
    let mut bench = Bench::new(opener);
    bench.generate(&targets());
    let mut person = person(1, 2);
    let error = bench
        .store
        .sign(&KeyId([7; 32]), Purpose::Document, b"m", &mut person);
    assert!(matches!(error, Err(StoreError::NotFound(_))), "{error:?}");
    assert!(person.asked.is_empty());
}

/// A card says which of its secrets is wanted.
fn is_locked(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Locked { .. } | StoreError::Card(super::piv::CardFault::Wanted { .. })
    )
}

pub(super) fn with_nobody_there_it_is_locked_and_nothing_is_written(opener: Opener) {
    let mut bench = Bench::new(opener);
    let error = bench
        .store
        .generate(Algorithm::P256, &targets(), &mut nobody(1))
        .unwrap_err();
    assert!(is_locked(&error), "{error:?}");
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 0);
    let key = bench.generate(&targets());
    bench.reopen();
    let error = bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut nobody(2))
        .unwrap_err();
    assert!(is_locked(&error), "{error:?}");
}

pub(super) fn three_wrong_answers_end_it_and_each_is_told(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    bench.reopen();
    let mut person = person(1, 2);
    person.first = vec![Ok("wrong"); 4];
    let error = bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap_err();
    assert!(is_wrong(&error), "{error:?}");
    let left: Vec<u32> = person.asked.iter().map(|ask| ask.attempts_left).collect();
    assert_eq!(left, [3, 2, 1]);
    assert!(person.asked[0].refused.is_empty());
    let why = match bench.is_card() {
        // So short that the card was not even asked, which costs no try.
        true => "6 to 8 characters",
        false => "wrong passphrase",
    };
    assert!(person.asked[1].refused.contains(why));
    assert!(person.accepted.is_empty());
    // A source that has no other answer: the wrong one is what is reported.
    let mut source = nobody(3);
    source.first = vec![Ok("wrong")];
    let error = bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut source)
        .unwrap_err();
    assert!(is_wrong(&error), "{error:?}");
}

/// A card says what was wrong with it.
fn is_wrong(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::WrongPassphrase { .. } | StoreError::Card(super::piv::CardFault::BadPin { .. })
    )
}

pub(super) fn a_second_answer_may_be_right(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    bench.reopen();
    let mut person = person(1, 2);
    person.first = vec![Ok("wrong")];
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap();
    assert_eq!(person.asked.len(), 2);
    assert_eq!(person.accepted.last().unwrap().1, 3);
}

pub(super) fn who_cancels_is_not_asked_again(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    bench.reopen();
    for stop in [NoSecret::Cancelled, NoSecret::Gone] {
        let mut person = person(1, 2);
        person.first = vec![Err(stop)];
        let error = bench
            .store
            .sign(&key.id, Purpose::Document, b"m", &mut person)
            .unwrap_err();
        assert!(
            matches!(error, StoreError::NoSecret(why) if why == stop),
            "{error:?}"
        );
        assert_eq!(person.asked.len(), 1);
    }
}

pub(super) fn a_typed_secret_is_held_for_its_session_and_time(opener: Opener) {
    let minute = Duration::from_secs(60);
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    bench.reopen();
    assert_eq!(bench.store.expire(), None);
    let sign = |bench: &mut Bench, session, request| {
        let mut person = person(session, request);
        bench
            .store
            .sign(&key.id, Purpose::Document, b"m", &mut person)
            .unwrap();
        bench.store.end_request(RequestId(request));
        assert_eq!(person.accepted.len(), 1);
        assert_eq!(person.accepted[0].1 == 0, person.asked.is_empty());
        person.asked.len()
    };
    assert_eq!(sign(&mut bench, 1, 2), 1, "asked at first");
    assert_eq!(sign(&mut bench, 1, 3), 0, "held for the session");
    assert_eq!(sign(&mut bench, 2, 4), 1, "another terminal is asked");
    bench.hands.pass(14 * minute);
    assert_eq!(sign(&mut bench, 1, 5), 0, "using it");
    assert_eq!(bench.store.expire(), Some(minute));
    bench.hands.pass(minute);
    assert_eq!(sign(&mut bench, 1, 6), 1, "does not prolong it");
    bench.hands.pass(16 * minute);
    assert_eq!(bench.store.expire(), None);
    assert_eq!(sign(&mut bench, 1, 7), 1);
    bench.store.lock();
    assert_eq!(sign(&mut bench, 1, 8), 1, "locked");
    // Without a session to hold it for, it is the request's.
    bench.store.lock();
    let mut person = Person {
        session: None,
        ..person(0, 9)
    };
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap();
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person)
        .unwrap();
    assert_eq!(person.asked.len(), 1);
    bench.store.end_request(RequestId(9));
    assert_eq!(bench.store.expire(), None);
}

pub(super) fn a_held_secret_is_not_used_where_it_may_not_be(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    let mut fresh = Person {
        may_use_held: false,
        ..person(1, 2)
    };
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut fresh)
        .unwrap();
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut fresh)
        .unwrap();
    assert_eq!(fresh.asked.len(), 1, "once for the request");
    assert!(fresh.accepted.iter().all(|(_, grade)| *grade == 3));
    bench.store.end_request(RequestId(2));
    // What was given for such a request is held for nobody.
    bench.store.lock();
    let mut fresh = Person {
        may_use_held: false,
        ..person(1, 3)
    };
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut fresh)
        .unwrap();
    bench.store.end_request(RequestId(3));
    assert_eq!(bench.store.expire(), None);
}

pub(super) fn a_root_key_is_opened_for_one_request(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&root());
    bench.store.lock();
    for request in 2..4 {
        // A card has one PIN for all its keys; that a held one does not count for a root key is said
        // by whoever asks for the signature.
        let mut person = Person {
            may_use_held: !bench.is_card(),
            ..person(1, request)
        };
        bench.store.hint(
            &key.id,
            super::Hint {
                role: "root".to_owned(),
                ..Default::default()
            },
        );
        bench
            .store
            .sign(&key.id, Purpose::Certificate, b"m", &mut person)
            .unwrap();
        bench
            .store
            .sign(&key.id, Purpose::Document, b"m", &mut person)
            .unwrap();
        assert_eq!(person.asked.len(), 1);
        assert!(person.accepted.iter().all(|(_, grade)| *grade == 3));
        bench.store.end_request(RequestId(request));
        assert_eq!(bench.store.expire(), None, "nothing is held");
    }
}

pub(super) fn importing_a_key_again_changes_nothing(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let made = bench
        .store
        .import(&key, &targets(), &mut person(1, 1))
        .unwrap();
    assert_eq!(made.id, key.id());
    let bytes = bench.kept(&made);
    let again = bench
        .store
        .import(&key, &targets(), &mut person(1, 2))
        .unwrap();
    assert_eq!(again.path, made.path);
    assert_eq!(bench.kept(&made), bytes);
    for other in [
        root(),
        NewKey {
            gun: Some("reg.example/other".to_owned()),
            ..targets()
        },
    ] {
        let error = bench
            .store
            .import(&key, &other, &mut person(1, 2))
            .unwrap_err();
        assert!(matches!(&error, StoreError::Exists { .. }), "{error:?}");
        assert_eq!(bench.kept(&made), bytes);
    }
}

pub(super) fn an_exported_copy_opens_in_docker_format(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    let passphrase = Secret::copy_of(b"of the copy");
    let exported = bench.store.export(&key.id, &passphrase, &mut person(1, 2));
    if bench.is_card() {
        // A copy that is none is refused, and nobody is asked for anything.
        let error = exported.unwrap_err();
        assert!(error.to_string().contains("never leaves it"), "{error}");
        return;
    }
    let pem = exported.unwrap();
    let file = KeyFile::parse(&pem).unwrap();
    assert!(file.is_encrypted());
    assert_eq!(
        (file.role.as_deref(), file.gun.as_deref()),
        (Some("targets"), Some("reg.example/app"))
    );
    assert_eq!(file.open(Some(b"of the copy")).unwrap().id(), key.id);
    let error = bench
        .store
        .export(&key.id, &Secret::copy_of(b""), &mut person(1, 2))
        .unwrap_err();
    assert!(
        matches!(error, StoreError::BadPassphrase { .. }),
        "{error:?}"
    );
}

pub(super) fn a_removed_key_is_gone(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    let unknown = bench.store.remove(&KeyId([7; 32]));
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    if bench.is_card() {
        // Only the PIN lets a card delete a key, and nobody is asked here: it says so, and the key
        // stays whole.
        let error = bench.store.remove(&key.id).unwrap_err();
        assert!(matches!(error, StoreError::Unsupported(_)), "{error:?}");
        bench
            .store
            .sign(&key.id, Purpose::Document, b"m", &mut person(1, 2))
            .unwrap();
        return;
    }
    bench.store.remove(&key.id).unwrap();
    assert!(!key.path.exists());
    assert!(bench.store.list().unwrap().keys.is_empty());
    let gone = bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person(1, 2));
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
    assert!(matches!(
        bench.store.remove(&key.id),
        Err(StoreError::NotFound(_))
    ));
}

pub(super) fn a_file_under_another_name_does_not_sign(opener: Opener) {
    let mut bench = Bench::new(opener);
    let (one, two) = (bench.generate(&targets()), bench.generate(&targets()));
    fs::copy(&one.path, &two.path).unwrap();
    let error = bench
        .store
        .sign(&two.id, Purpose::Document, b"m", &mut person(1, 2))
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::WrongId { path, found } if *path == two.path && *found == one.id),
        "{error:?}"
    );
    bench
        .store
        .sign(&one.id, Purpose::Document, b"m", &mut person(1, 2))
        .unwrap();
}

pub(super) fn a_truncated_file_is_an_error_that_names_it(opener: Opener) {
    let mut bench = Bench::new(opener);
    let key = bench.generate(&targets());
    let whole = fs::read(&key.path).unwrap();
    for len in [0, 1, whole.len() / 2, whole.len() - 40] {
        fs::write(&key.path, &whole[..len]).unwrap();
        let error = bench
            .store
            .sign(&key.id, Purpose::Document, b"m", &mut person(1, 2));
        let error = error.unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { path, .. } if *path == key.path),
            "{len}: {error:?}"
        );
        bench.store.list().unwrap();
    }
    fs::write(&key.path, &whole).unwrap();
    bench
        .store
        .sign(&key.id, Purpose::Document, b"m", &mut person(1, 2))
        .unwrap();
}

pub(super) fn a_new_passphrase_is_not_empty(opener: Opener) {
    let mut bench = Bench::new(opener);
    let mut person = Person {
        new: Some(""),
        ..person(1, 1)
    };
    let error = bench
        .store
        .generate(Algorithm::P256, &targets(), &mut person)
        .unwrap_err();
    assert!(
        matches!(error, StoreError::BadPassphrase { .. }),
        "{error:?}"
    );
    assert_eq!(person.asked[1].refused, "it is empty");
    assert!(person.asked.iter().all(|ask| ask.new_secret));
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 0);
}

/// Whoever has no answer at first, notes the question, and comes again with the answer.
struct Later {
    answers: Vec<(SecretName, bool)>,
    wanted: Option<(SecretName, bool)>,
}

impl Presence for Later {
    fn secret(&mut self, ask: SecretRequest) -> Result<Given, NoSecret> {
        let question = (ask.name, ask.new_secret);
        if self.answers.contains(&question) {
            let secret: &[u8] = match question.0 {
                SecretName::Pin(_) => PIN.as_bytes(),
                _ => b"chosen",
            };
            return Ok(Given {
                secret: Secret::copy_of(secret),
                grade: 3,
            });
        }
        self.wanted = Some(question);
        Err(NoSecret::Unavailable)
    }

    fn request(&self) -> RequestId {
        RequestId(1)
    }

    fn session(&self) -> Option<SessionId> {
        None
    }

    fn accepted(&mut self, _name: &SecretName, _grade: u32) {}
}

pub(super) fn who_comes_again_with_the_answer_is_not_asked_another_question(opener: Opener) {
    let mut bench = Bench::new(opener);
    let mut later = Later {
        answers: Vec::new(),
        wanted: None,
    };
    let made = loop {
        match bench
            .store
            .generate(Algorithm::P256, &targets(), &mut later)
        {
            Ok(made) => break made,
            Err(error) => {
                let Some(question) = later.wanted.take() else {
                    panic!("{error}")
                };
                later.answers.push(question);
                assert!(later.answers.len() <= 2, "each keyring's, or the key's");
            }
        }
    };
    bench
        .store
        .sign(&made.id, Purpose::Document, b"m", &mut later)
        .unwrap();
    assert_eq!(bench.store.list().unwrap().keys.len(), 1);
    // The next key of the same request is another key.
    let next = bench
        .store
        .generate(Algorithm::P256, &targets(), &mut later);
    assert!(next.is_err() || next.unwrap().id != made.id);
}

pub(super) fn roles_and_guns_that_a_header_cannot_hold_are_refused(opener: Opener) {
    let mut bench = Bench::new(opener);
    let bad = [
        ("targets", None),
        ("", None),
        ("ali\nce", None),
        ("targets", Some("a\nrole: root")),
        ("targets", Some("")),
    ];
    for (role, gun) in bad {
        let new = NewKey {
            role: role.to_owned(),
            gun: gun.map(str::to_owned),
        };
        let error = bench
            .store
            .generate(Algorithm::P256, &new, &mut person(1, 1))
            .unwrap_err();
        assert!(matches!(error, StoreError::Unsupported(_)), "{error:?}");
    }
}

pub(super) fn generation_killed_anywhere_leaves_a_whole_key_or_none(opener: Opener) {
    for point in 0.. {
        let mut bench = Bench::new(opener);
        fault::die_after(point);
        let made = bench
            .store
            .generate(Algorithm::P256, &targets(), &mut person(1, 1));
        let died = fault::revive();
        bench.reopen();
        let listing = bench.store.list().unwrap();
        assert!(
            listing.problems.is_empty(),
            "{point}: {:?}",
            listing.problems
        );
        for key in &listing.keys {
            bench
                .store
                .sign(&key.id, Purpose::Document, b"m", &mut person(1, 2))
                .unwrap();
        }
        // The next run works.
        let next = bench
            .store
            .generate(Algorithm::P256, &targets(), &mut person(1, 3))
            .unwrap();
        bench
            .store
            .sign(&next.id, Purpose::Document, b"m", &mut person(1, 3))
            .unwrap();
        assert_no_leftovers(bench.dir.path());
        if !died {
            made.unwrap();
            return;
        }
    }
}

/// No temporary or half-made file below `dir`.
pub(super) fn assert_no_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_leftovers(&path);
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            !name.ends_with(".tmp") && !name.ends_with(".pair"),
            "{}",
            path.display()
        );
    }
}
