use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;
use signet_trust::{
    Algorithm, PrivateKey,
    guard::{RoleState, Standing},
};

use super::*;

fn entry(kind: &'static str) -> NewEntry {
    NewEntry {
        kind,
        time: 1_800_000_000,
        gun: "reg.example/app".to_owned(),
        role: "targets".to_owned(),
        version: 2,
        key: Some(KeyId([3; 32])),
        payload: Some([4; 32]),
        summary: "adds 1.0".to_owned(),
        caller: "pid 1, /usr/bin/signet".to_owned(),
        grade: 3,
        rule: String::new(),
        outcome: "released".to_owned(),
        facts: r#"{"caller":{"pid":1}}"#.to_owned(),
    }
}

fn gun(name: &str) -> Gun {
    name.parse().unwrap()
}

fn open(dir: &tempfile::TempDir) -> Ledger {
    Ledger::open(dir.path()).unwrap()
}

fn home() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    (dir, ledger)
}

/// A state in which `targets` was signed at `version`.
fn signed(version: u32) -> State {
    let mark = Mark {
        version,
        hash: [version as u8; 32],
    };
    let role = RoleState {
        seen: Some(Mark {
            version: version - 1,
            hash: [0; 32],
        }),
        signed: Some((mark, Standing::Released)),
        published: None,
    };
    State {
        timestamp: Some(version),
        roles: [(RoleName::Targets, role)].into(),
    }
}

fn pass(lineage: u8, version: u32) -> Pass {
    Pass {
        lineage: Lineage([lineage; 32]),
        state: signed(version),
        new_lineage: false,
        superseded_lineages: Vec::new(),
        supersedes: Vec::new(),
        overrides: Vec::new(),
    }
}

fn release(ledger: &Ledger, name: &str, version: u32) -> Release {
    Release {
        gun: gun(name),
        decided_on: ledger.history(&gun(name)).unwrap(),
        pass: pass(1, version),
        root_wire: None,
        entries: vec![entry("sign")],
    }
}

fn sign(ledger: &mut Ledger, name: &str, version: u32) -> Result<Vec<u64>, LedgerError> {
    let release = release(ledger, name, version);
    ledger.release_many(vec![release]).remove(0)
}

/// What somebody does to the file who does not mind the triggers.
fn tamper(dir: &tempfile::TempDir, sql: &str) -> usize {
    let db = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    db.execute_batch("DROP TRIGGER log_is_never_changed; DROP TRIGGER log_is_never_shortened;")
        .unwrap();
    db.execute(sql, []).unwrap()
}

#[test]
fn a_new_ledger_is_private_and_empty() {
    let (dir, mut ledger) = home();
    assert_eq!(ledger.head().unwrap(), (0, [0; 32]));
    assert_eq!(ledger.verify_chain().unwrap(), 0);
    ledger.append(&entry("unlock")).unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn entries_are_read_as_they_were_written() {
    let (dir, mut ledger) = home();
    assert_eq!(ledger.append(&entry("sign")).unwrap(), 1);
    let bare = NewEntry {
        kind: "lock",
        ..NewEntry::default()
    };
    assert_eq!(ledger.append(&bare).unwrap(), 2);
    let head = ledger.head().unwrap();
    drop(ledger);
    let ledger = open(&dir);
    assert_eq!(ledger.head().unwrap(), head);
    assert_eq!(ledger.verify_chain().unwrap(), 2);
    let entries = ledger.entries(1, 10).unwrap();
    assert_eq!(
        format!("{:?}", entries[0].entry),
        format!("{:?}", entry("sign"))
    );
    assert_eq!(format!("{:?}", entries[1].entry), format!("{bare:?}"));
    assert_eq!((entries[1].number, entries[1].hash), head);
    assert_eq!(ledger.entries(2, 10).unwrap().len(), 1);
    assert_eq!(ledger.entries(0, 1).unwrap()[0].number, 1);
}

#[test]
fn texts_beyond_the_limits_are_cut_at_a_character() {
    let (_dir, mut ledger) = home();
    let long = NewEntry {
        summary: "é".repeat(100_000),
        ..entry("sign")
    };
    ledger.append(&long).unwrap();
    let summary = &ledger.entries(1, 1).unwrap()[0].entry.summary;
    assert_eq!(summary.len(), 64 * 1024);
    ledger.verify_chain().unwrap();
}

#[test]
fn the_log_is_neither_changed_nor_shortened() {
    let (_dir, mut ledger) = home();
    ledger.append(&entry("sign")).unwrap();
    for sql in ["UPDATE log SET outcome = 'x'", "DELETE FROM log"] {
        let error = ledger.db.execute(sql, []).unwrap_err();
        assert!(error.to_string().contains("the log is never"), "{error}");
    }
}

#[test]
fn an_entry_that_is_missing_or_moved_is_named() {
    for (sql, number) in [
        ("DELETE FROM log WHERE number = 1", 1),
        ("DELETE FROM log WHERE number = 2", 2),
        ("UPDATE log SET number = 9 WHERE number = 3", 3),
    ] {
        let (dir, mut ledger) = home();
        for _ in 0..3 {
            ledger.append(&entry("sign")).unwrap();
        }
        drop(ledger);
        tamper(&dir, sql);
        let error = Ledger::open(dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("entry {number} is missing")),
            "{error}"
        );
        assert!(matches!(error, LedgerError::Damaged { path, .. } if path.ends_with(FILE_NAME)));
    }
}

#[test]
fn the_start_checks_the_newest_entries_and_verification_all() {
    let (dir, mut ledger) = home();
    for _ in 0..CHECKED_AT_START + 10 {
        ledger.append(&entry("sign")).unwrap();
    }
    drop(ledger);
    tamper(&dir, "UPDATE log SET outcome = 'failed' WHERE number = 5");
    let error = open(&dir).verify_chain().unwrap_err();
    assert!(error.to_string().contains("entry 5"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_changed_in_an_entry_breaks_the_chain(
        texts in prop::collection::vec("[a-z ]{0,8}", 2..8),
        which in any::<prop::sample::Index>(),
        column in 0..13usize,
        byte in any::<u8>(),
    ) {
        let (dir, mut ledger) = home();
        for text in &texts {
            let text = text.clone();
            ledger.append(&NewEntry {
                gun: text.clone(), summary: text.clone(), caller: text.clone(), rule: text,
                ..entry("sign")
            }).unwrap();
        }
        drop(ledger);
        let number = which.index(texts.len()) + 1;
        let sql = match column {
            0 => format!("UPDATE log SET time = time + 1 + {byte} WHERE number = {number}"),
            1 => format!("UPDATE log SET version = version + 1 + {byte} WHERE number = {number}"),
            2 => format!("UPDATE log SET grade = grade + 1 + {byte} WHERE number = {number}"),
            3 => format!("UPDATE log SET key = NULL WHERE number = {number}"),
            4 => format!("UPDATE log SET payload = zeroblob(32) WHERE number = {number}"),
            5 => format!("UPDATE log SET hash = zeroblob(32) WHERE number = {number}"),
            // From one text to the next: the encoding keeps them apart.
            6 => format!("UPDATE log SET summary = summary || 'x' WHERE number = {number}"),
            7 => format!("UPDATE log SET gun = gun || ' ', role = substr(role, 2) WHERE number = {number}"),
            8 => format!("UPDATE log SET caller = caller || rule || 'y', rule = '' WHERE number = {number}"),
            9 => format!("UPDATE log SET kind = 'lock' WHERE number = {number}"),
            10 => format!("UPDATE log SET outcome = 'refused' WHERE number = {number}"),
            11 => format!("UPDATE log SET key = payload, payload = key WHERE number = {number}"),
            _ => format!("UPDATE log SET role = 'root' WHERE number = {number}"),
        };
        prop_assert_eq!(tamper(&dir, &sql), 1);
        let damaged = matches!(Ledger::open(dir.path()), Err(LedgerError::Damaged { .. }));
        prop_assert!(damaged);
    }

    /// A crash keeps a prefix of the write-ahead log. Whatever the prefix: state and log agree.
    #[test]
    fn a_log_cut_anywhere_holds_whole_releases(cut in any::<prop::sample::Index>(), count in 1..12u32) {
        let (dir, mut ledger) = home();
        for version in 1..=count {
            sign(&mut ledger, "a/b", version).unwrap();
        }
        let after = tempfile::tempdir().unwrap();
        let wal = format!("{FILE_NAME}-wal");
        fs::copy(dir.path().join(FILE_NAME), after.path().join(FILE_NAME)).unwrap();
        let bytes = fs::read(dir.path().join(&wal)).unwrap();
        fs::write(after.path().join(&wal), &bytes[..cut.index(bytes.len() + 1)]).unwrap();
        let mut ledger = open(&after);
        let whole = ledger.head().unwrap().0;
        prop_assert!(whole <= u64::from(count));
        prop_assert_eq!(ledger.verify_chain().unwrap(), whole);
        let history = ledger.history(&gun("a/b")).unwrap();
        let state = history.collections.get(&Lineage([1; 32])).cloned();
        prop_assert_eq!(state, (whole > 0).then(|| signed(whole as u32)));
        sign(&mut ledger, "a/b", count + 1).unwrap();
    }
}

#[test]
fn a_release_writes_state_and_entries_and_numbers_them() {
    let (dir, mut ledger) = home();
    let name = gun("reg.example/app");
    let mut first = release(&ledger, name.as_str(), 1);
    first.entries.push(entry("certificate"));
    first.root_wire = Some(b"root".to_vec());
    assert_eq!(ledger.release_many(vec![first]).remove(0).unwrap(), [1, 2]);
    assert_eq!(sign(&mut ledger, name.as_str(), 2).unwrap(), [3]);
    drop(ledger);
    let ledger = open(&dir);
    let history = ledger.history(&name).unwrap();
    assert_eq!(history.collections[&Lineage([1; 32])], signed(2));
    let roots = ledger.roots(&name).unwrap();
    assert_eq!(
        (roots[0].lineage, &roots[0].wire[..]),
        (Lineage([1; 32]), &b"root"[..])
    );
    assert_eq!(ledger.guns().unwrap(), [name]);
    assert_eq!(ledger.history(&gun("other")).unwrap(), History::default());
}

#[test]
fn a_release_decided_on_another_history_writes_nothing() {
    let (_dir, mut ledger) = home();
    let stale = release(&ledger, "a", 1);
    sign(&mut ledger, "a", 1).unwrap();
    let head = ledger.head().unwrap();
    let moved = ledger.release_many(vec![stale]).remove(0).unwrap_err();
    assert!(matches!(moved, LedgerError::Moved(name) if name == gun("a")));
    assert_eq!(ledger.head().unwrap(), head);
    sign(&mut ledger, "a", 2).unwrap();
}

#[test]
fn releases_of_a_group_stand_or_fall_by_themselves() {
    let (_dir, mut ledger) = home();
    let (a, b) = (release(&ledger, "a", 1), release(&ledger, "b", 1));
    let again = a.clone();
    let mut next = a.clone();
    next.decided_on
        .collections
        .insert(Lineage([1; 32]), signed(1));
    next.pass = pass(1, 2);
    let results = ledger.release_many(vec![a, again, b, next]);
    assert_eq!(*results[0].as_ref().unwrap(), [1]);
    assert!(matches!(results[1], Err(LedgerError::Moved(_))));
    assert_eq!(*results[2].as_ref().unwrap(), [2]);
    assert_eq!(*results[3].as_ref().unwrap(), [3]);
    assert_eq!(
        ledger.history(&gun("a")).unwrap().collections[&Lineage([1; 32])],
        signed(2)
    );
    assert_eq!(ledger.verify_chain().unwrap(), 3);
}

#[test]
fn a_superseded_lineage_is_dropped_with_its_state() {
    let (dir, mut ledger) = home();
    sign(&mut ledger, "a", 1).unwrap();
    let mut next = release(&ledger, "a", 1);
    next.pass.lineage = Lineage([2; 32]);
    next.pass.superseded_lineages = vec![Lineage([1; 32])];
    ledger.release_many(vec![next]).remove(0).unwrap();
    let lineages = |ledger: &Ledger| -> Vec<Lineage> {
        ledger
            .history(&gun("a"))
            .unwrap()
            .collections
            .into_keys()
            .collect()
    };
    assert_eq!(lineages(&ledger), [Lineage([2; 32])]);
    drop(ledger);
    assert_eq!(lineages(&open(&dir)), [Lineage([2; 32])]);
}

#[test]
fn a_role_that_left_the_state_leaves_the_file() {
    let (dir, mut ledger) = home();
    sign(&mut ledger, "a", 1).unwrap();
    let mut next = release(&ledger, "a", 1);
    next.pass.state = State {
        timestamp: None,
        roles: Default::default(),
    };
    ledger.release_many(vec![next]).remove(0).unwrap();
    drop(ledger);
    let history = open(&dir).history(&gun("a")).unwrap();
    assert_eq!(history.collections[&Lineage([1; 32])], State::default());
}

#[test]
fn a_report_marks_what_arrived_and_logs_what_did_not() {
    let (dir, mut ledger) = home();
    sign(&mut ledger, "a", 1).unwrap();
    let lineage = Lineage([1; 32]);
    let marks = [(
        RoleName::Targets,
        Mark {
            version: 1,
            hash: [1; 32],
        },
    )];
    ledger
        .report(&gun("a"), lineage, &marks, false, &entry("publish"))
        .unwrap();
    assert_eq!(
        ledger.history(&gun("a")).unwrap().collections[&lineage],
        signed(1)
    );
    ledger
        .report(&gun("a"), lineage, &marks, true, &entry("publish"))
        .unwrap();
    drop(ledger);
    let ledger = open(&dir);
    let state = &ledger.history(&gun("a")).unwrap().collections[&lineage];
    let role = &state.roles[&RoleName::Targets];
    assert_eq!(role.signed.unwrap().1, Standing::Published);
    assert_eq!(role.published, Some(1));
    assert_eq!(ledger.head().unwrap().0, 3);
    // A collection that is not recorded: the report is.
    let mut ledger = ledger;
    ledger
        .report(&gun("other"), lineage, &marks, true, &entry("publish"))
        .unwrap();
    assert_eq!(ledger.history(&gun("other")).unwrap(), History::default());
}

#[test]
fn what_was_seen_is_remembered_and_not_written_twice() {
    let (_dir, mut ledger) = home();
    let lineage = Lineage([1; 32]);
    ledger
        .observe(&gun("a"), lineage, Some(b"1.root"), &signed(1))
        .unwrap();
    ledger
        .observe(&gun("a"), lineage, Some(b"2.root"), &signed(2))
        .unwrap();
    assert_eq!(ledger.roots(&gun("a")).unwrap()[0].wire, b"2.root");
    let changes = ledger.db.total_changes();
    ledger
        .observe(&gun("a"), lineage, None, &signed(2))
        .unwrap();
    assert_eq!(ledger.db.total_changes(), changes);
    ledger
        .observe(&gun("a"), lineage, None, &signed(3))
        .unwrap();
    assert_eq!(
        ledger.history(&gun("a")).unwrap().collections[&lineage],
        signed(3)
    );
    assert_eq!(ledger.roots(&gun("a")).unwrap()[0].wire, b"2.root");
}

#[test]
fn what_another_writer_changed_is_seen_before_anything_is_released() {
    let (dir, mut ledger) = home();
    sign(&mut ledger, "a", 1).unwrap();
    let decided = release(&ledger, "a", 2);
    let mut other = open(&dir);
    sign(&mut other, "a", 5).unwrap();
    let moved = ledger.release_many(vec![decided]).remove(0);
    assert!(matches!(moved, Err(LedgerError::Moved(_))), "{moved:?}");
    assert_eq!(
        ledger.history(&gun("a")).unwrap().collections[&Lineage([1; 32])],
        signed(5)
    );
    assert_eq!(ledger.append(&entry("lock")).unwrap(), 3);
    assert_eq!(ledger.verify_chain().unwrap(), 3);
}

fn key(label: &str) -> IndexEntry {
    let key = PrivateKey::generate(Algorithm::P256).unwrap();
    IndexEntry {
        id: key.id(),
        role: "targets".to_owned(),
        gun: Some("a".to_owned()),
        label: label.to_owned(),
        store: "file".to_owned(),
        public: key.public().clone(),
        enrolled_at: 1,
        certificates: vec![KeyId([8; 32]), KeyId([9; 32])],
        used_opaque: true,
        places: Vec::new(),
        label_claimed: false,
    }
}

#[test]
fn an_enrolled_key_is_in_the_index_until_it_is_removed() {
    let (dir, mut ledger) = home();
    let (one, two) = (
        key("one"),
        IndexEntry {
            gun: None,
            ..key("")
        },
    );
    ledger.enrol(&one, &entry("generate")).unwrap();
    ledger.enrol(&two, &entry("import")).unwrap();
    let renamed = IndexEntry {
        label: "uno".to_owned(),
        ..one.clone()
    };
    assert_eq!(ledger.enrol(&renamed, &entry("label")).unwrap(), 3);
    drop(ledger);
    let mut ledger = open(&dir);
    let mut wanted = [renamed, two.clone()];
    wanted.sort_by_key(|key| key.id);
    assert_eq!(
        format!("{:?}", ledger.index().unwrap()),
        format!("{wanted:?}")
    );
    assert!(ledger.tombstone(&two.id).unwrap().is_none());
    ledger.remove(&two.id, &entry("remove")).unwrap();
    assert_eq!(ledger.index().unwrap().len(), 1);
    let left = ledger.tombstone(&two.id).unwrap().unwrap();
    assert_eq!(
        (left.id, &left.reason[..], left.public),
        (two.id, "removed", two.public.clone())
    );
    ledger.enrol(&two, &entry("import")).unwrap();
    assert!(ledger.tombstone(&two.id).unwrap().is_none());
}

#[test]
fn a_label_belongs_to_one_key() {
    let (_dir, mut ledger) = home();
    let (one, two) = (key("mine"), key("mine"));
    ledger.enrol(&one, &entry("generate")).unwrap();
    let error = ledger.enrol(&two, &entry("generate")).unwrap_err();
    assert!(matches!(error, LedgerError::LabelTaken { id, .. } if id == one.id));
    assert_eq!(ledger.head().unwrap().0, 1);
    // No label is no label.
    ledger.enrol(&key(""), &entry("generate")).unwrap();
    ledger.enrol(&key(""), &entry("generate")).unwrap();
}

#[test]
fn a_full_disk_releases_nothing_and_the_ledger_goes_on() {
    let (dir, mut ledger) = home();
    sign(&mut ledger, "a", 1).unwrap();
    let pages: i64 = ledger
        .db
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    ledger
        .db
        .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
    let mut version = 2;
    let error = loop {
        let mut big = release(&ledger, "a", version);
        big.entries[0].summary = "x".repeat(60_000);
        let also = release(&ledger, "b", 1);
        let mut results = ledger.release_many(vec![big, also]);
        if let Err(error) = results.remove(0) {
            assert!(
                matches!(results.remove(0), Err(LedgerError::Sqlite(_))),
                "all or none"
            );
            break error;
        }
        version += 1;
    };
    assert!(matches!(error, LedgerError::Sqlite(_)), "{error:?}");
    assert!(error.fix().unwrap().contains("full disk"));
    let lineage = Lineage([1; 32]);
    assert_eq!(
        ledger.history(&gun("a")).unwrap().collections[&lineage],
        signed(version - 1)
    );
    ledger
        .db
        .query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))
        .unwrap();
    sign(&mut ledger, "a", version).unwrap();
    drop(ledger);
    assert_eq!(open(&dir).verify_chain().unwrap(), u64::from(version));
}

#[test]
fn a_file_that_is_no_ledger_is_named_with_what_to_do() {
    for content in [
        &b"this is no database, whatever its name says, and long enough to see it"[..],
        &[0; 5000],
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), content).unwrap();
        let error = Ledger::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, LedgerError::Damaged { path, .. } if path.ends_with(FILE_NAME)),
            "{error:?}"
        );
        assert!(error.fix().unwrap().contains("backup"));
    }
    let dir = tempfile::tempdir().unwrap();
    symlink("/nowhere", dir.path().join(FILE_NAME)).unwrap();
    assert!(matches!(
        Ledger::open(dir.path()),
        Err(LedgerError::Io { .. })
    ));
}

#[test]
fn a_broken_page_is_damage() {
    let (dir, mut ledger) = home();
    for _ in 0..200 {
        ledger
            .append(&NewEntry {
                summary: "x".repeat(500),
                ..entry("sign")
            })
            .unwrap();
    }
    drop(ledger);
    let path = dir.path().join(FILE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[len - 8192..].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let error = Ledger::open(dir.path())
        .and_then(|ledger| ledger.verify_chain())
        .unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (dir, ledger) = home();
    ledger.db.pragma_update(None, "user_version", 99).unwrap();
    drop(ledger);
    let error = Ledger::open(dir.path()).unwrap_err();
    let of_the_ledger = matches!(error, LedgerError::Newer { found: 99, known } if known < 99);
    assert!(of_the_ledger, "{error:?}");
}

#[test]
fn a_file_that_others_could_read_is_closed_to_them() {
    let (dir, ledger) = home();
    drop(ledger);
    let path = dir.path().join(FILE_NAME);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&dir));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
