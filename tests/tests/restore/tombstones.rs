//! Keys that were removed or moved away stay away until they are revived.

use signet_agent::ledger::{Ledger, NewEntry};
use signet_trust::KeyId;

use super::*;

/// Has the ledger say that a key was moved to another host, as a finished migration does.
fn retire(home: &Home, id: &str, to: &str) {
    home.signet().args(["agent", "stop"]).run().ok();
    let mut ledger = Ledger::open(&home.path()).expect("the agent has closed it");
    let id: KeyId = id.parse().expect("an ID");
    let entry = NewEntry {
        kind: "retire",
        time: 1_790_000_000,
        key: Some(id),
        outcome: "done".to_owned(),
        ..NewEntry::default()
    };
    ledger.retire(&[(id, entry)], to).expect("it is written");
}

#[test]
fn a_removed_key_comes_back_from_a_backup_only_by_a_revival() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = backup(&lab, &home);
    let (root, targets) = (home.key_id("root"), home.key_id("targets"));
    signet(&home, "", &["-y", "key", "remove", "main"]).ok();
    let before = state(&home);
    restore(&home, &["-y"], &file)
        .exits(8)
        .says("it was removed here; --revive brings it back");
    assert_eq!(state(&home), before);
    let plan = restore(&home, &["--json", "--dry-run"], &file)
        .exits(8)
        .json();
    let of = |id: &str| {
        let keys = plan["keys"].as_array().expect("keys");
        keys.iter()
            .find(|key| key["id"] == id)
            .expect("it is in it")
            .clone()
    };
    assert_eq!(
        (&of(&root)["action"], &of(&root)["here"]),
        (&"tombstoned".into(), &"removed".into())
    );
    assert_eq!(of(&targets)["action"], "same");
    restore(&home, &["-y", "--revive"], &file).ok();
    assert_eq!(home.key_id("root"), root);
    let (_, grade, summary) = logged(&home)
        .into_iter()
        .rfind(|(kind, _, summary)| kind == "restore" && summary.contains("revived"))
        .expect("a revival is logged");
    assert_eq!(
        (grade, summary.contains("was removed")),
        (3, true),
        "{summary}"
    );
}

#[test]
fn whoever_removes_a_key_is_told_whether_a_rehearsed_backup_holds_it() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let ask = || signet(&home, "", &["key", "remove", "main"]).exits(5);
    ask().says("No rehearsed backup holds it");
    let file = backup(&lab, &home);
    ask().says("No rehearsed backup holds it");
    let identity = identity_of(&file);
    let verify = ["backup", "verify", "-i", text(&identity), text(&file)];
    signet(&home, "", &verify).ok();
    ask().says("A rehearsed backup holds it.");
    assert!(home.keys().iter().any(|key| key["label"] == "main"));
}

#[test]
fn a_key_that_moved_away_is_refused_wherever_it_turns_up_until_it_is_revived() {
    let lab = Lab::builder().build();
    let home = with_keys(&lab);
    let file = backup(&lab, &home);
    let alice = home.key_id("alice");
    let native = home.key_id("targets");
    let private = home
        .docker_config()
        .join(format!("trust/private/{alice}.key"));
    let pem = fs::read(&private).expect("it is there");
    let exported = lab.fresh_dir("e").join("alice.pem");
    write(&exported, &pem);
    retire(&home, &alice, "newhost");
    fs::remove_file(&private).expect("the lab is ours");
    assert!(home.keys().iter().all(|key| key["id"] != alice.as_str()));

    // Put back as a file: listed as what it is.
    write(&private, &pem);
    let shown = signet(&home, "", &["--json", "key", "show", &alice])
        .ok()
        .json();
    assert_eq!(shown["state"], "retired");
    let problem = shown["problem"].as_str().expect("why");
    assert!(
        problem.contains("moved to newhost") && problem.contains("key revive"),
        "{problem}"
    );
    fs::remove_file(&private).expect("the lab is ours");
    signet(&home, "", &["key", "import", text(&exported)])
        .exits(4)
        .says("moved to newhost");
    restore(&home, &["-y"], &file)
        .exits(8)
        .says("it was moved to newhost here");

    // A yes is not enough; the passphrase of the key is.
    write(&private, &pem);
    home.signet()
        .args(["-y", "--no-input", "key", "revive", &alice])
        .run()
        .exits(5);
    assert_ne!(home.key_id_state(&alice), "enrolled");
    signet(&home, "", &["key", "revive", &alice[..10]])
        .ok()
        .says("revived");
    assert_eq!(home.key_id_state(&alice), "enrolled");
    let (_, grade, summary) = logged(&home)
        .into_iter()
        .rfind(|(kind, ..)| kind == "revive")
        .expect("it is logged");
    assert_eq!((grade, summary.as_str()), (3, "was moved to newhost"));

    // Without its file, by the keyring's passphrase; the backup then brings the file.
    retire(&home, &native, "newhost");
    fs::remove_file(home.path().join(format!("keys/{native}.age"))).expect("the lab is ours");
    home.signet()
        .args(["-y", "--no-input", "key", "revive", &native])
        .run()
        .exits(5);
    signet(&home, "", &["key", "revive", "targets@reg.example.com/app"])
        .ok()
        .says("its file is not here");
    restore(&home, &["-y"], &file).ok();
    assert_eq!(home.key_id("targets"), native);
    signet(&home, "", &["key", "revive", &native])
        .exits(2)
        .says("nothing to revive");
}

#[test]
fn tombstones_travel_with_a_backup_and_keep_no_key_that_is_enrolled_here() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let full = backup(&lab, &old);
    let alice = old.key_id("alice");
    retire(&old, &alice, "newhost");
    fs::remove_file(
        old.docker_config()
            .join(format!("trust/private/{alice}.key")),
    )
    .expect("ours");
    let later = backup(&lab, &old);

    let new = lab.home();
    let restored = restore(&new, &["-y", "--json"], &later).ok().json();
    let stone = &restored["tombstones"][0];
    assert_eq!(
        (&stone["id"], &stone["action"]),
        (&alice.as_str().into(), &"recorded".into())
    );
    assert_eq!(stone["detail"], "newhost");
    // The older backup has the key itself.
    restore(&new, &["-y"], &full)
        .exits(8)
        .says("moved to newhost");
    restore(&new, &["-y", "--revive"], &full).ok();
    assert_eq!(new.keys().len(), 3);
    // From now on it is enrolled here: the tombstone of the archive is only told.
    let again = restore(&new, &["-y", "--json"], &later).ok().json();
    assert_eq!(
        (&again["tombstones"][0]["action"], &again["changed"]),
        (&"here".into(), &false.into())
    );
    assert_eq!(new.keys().len(), 3);
}

#[test]
fn a_label_of_a_backup_is_marked_until_somebody_here_confirms_it() {
    let lab = Lab::builder().build();
    let old = with_keys(&lab);
    let file = backup(&lab, &old);
    let new = lab.home();
    restore(&new, &["-y"], &file).ok();
    let claimed = || {
        let shown = signet(&new, "", &["--json", "key", "show", "main"])
            .ok()
            .json();
        shown["label_claimed"].clone()
    };
    assert_eq!(claimed(), true);
    signet(&new, "", &["key", "list"])
        .ok()
        .says("main (from a backup)");
    signet(&new, "", &["key", "label", "main", "main"]).ok();
    assert_eq!(claimed(), false);
    assert!(
        !signet(&new, "", &["key", "list"])
            .ok()
            .stdout
            .contains("from a backup")
    );
}

/// The state of a key, empty if it is not here.
trait KeyState {
    fn key_id_state(&self, id: &str) -> String;
}

impl KeyState for Home {
    fn key_id_state(&self, id: &str) -> String {
        let keys = self.keys();
        let key = keys.iter().find(|key| key["id"] == id);
        key.and_then(|key| key["state"].as_str())
            .unwrap_or_default()
            .to_owned()
    }
}
