//! Backups that any K of N shares open.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A home with one key, in Docker's format, which needs no scrypt.
fn with_one_key(lab: &Lab) -> Home {
    let home = lab.home();
    let generate = ["key", "generate", "--role", "alice", "--store", "docker"];
    signet(&home, "", &generate).ok();
    home
}

/// A backup to five shares, of which three open it.
fn shared(lab: &Lab, home: &Home) -> (PathBuf, Vec<PathBuf>) {
    let file = lab.fresh_dir("b").join("keys.age");
    let create = [
        "--json",
        "backup",
        "create",
        "--shares",
        "3/5",
        "-o",
        text(&file),
    ];
    let created = signet(home, "", &create).ok().json();
    let shares = created["shares"].as_array().expect("shares");
    let shares = shares
        .iter()
        .map(|name| PathBuf::from(name.as_str().expect("a name")));
    (file, shares.collect())
}

fn with<'a>(command: &[&'a str], shares: &[&'a Path], file: &'a Path) -> Vec<&'a str> {
    let mut args = command.to_vec();
    for share in shares {
        args.extend(["--share", text(share)]);
    }
    args.push(text(file));
    args
}

#[test]
fn any_three_of_five_shares_open_a_backup_and_what_is_no_share_of_it_is_named() {
    let lab = Lab::builder().build();
    let home = with_one_key(&lab);
    let (file, shares) = shared(&lab, &home);
    let share = |number: usize| shares[number - 1].as_path();
    assert_eq!(shares.len(), 5);
    for share in &shares {
        let mode = fs::metadata(share)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", share.display());
    }
    let verify = |shares: &[&Path]| signet(&home, "", &with(&["backup", "verify"], shares, &file));
    verify(&[share(5), share(1), share(3)])
        .ok()
        .says("all 1 keys");
    let two = verify(&[share(2), share(4)]).exits(5);
    two.says("3 shares are needed, and 2 of those given can be used");
    verify(&[]).exits(5).says("--share FILE");

    // One with words of another share: each line of them is sound.
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("words:"));
        lines.map(ToOwned::to_owned).collect()
    };
    let read = |path: &Path| fs::read_to_string(path).expect("it is text");
    let bad = lab.fresh_dir("s").join("bad");
    let mixed = read(share(2)).replace(&words(&read(share(2)))[1], &words(&read(share(4)))[1]);
    write(&bad, mixed.as_bytes());
    let wrong = verify(&[share(1), &bad, share(3)]).exits(5);
    wrong.says(&format!("{}: it is damaged", text(&bad)));
    let enough = verify(&[share(1), &bad, share(3), share(4)]).ok();
    enough.says(&format!("{}: it is damaged", text(&bad)));
    // A word that is none, and half a file.
    let typo = read(share(2)).replacen("words: ", "words: signet", 1);
    write(&bad, typo.as_bytes());
    verify(&[share(1), &bad, share(3)])
        .exits(5)
        .says("a word in it is none of the list");
    write(&bad, &read(share(2)).as_bytes()[..600]);
    verify(&[share(1), &bad, share(3)])
        .exits(5)
        .says(&format!("{}: it is no share", text(&bad)));

    // One of another backup of the same host.
    let (other, strangers) = shared(&lab, &home);
    let foreign = verify(&[share(1), &strangers[1], share(3)]).exits(5);
    foreign.says(&format!("{}: it is of another set", text(&strangers[1])));
    // Three good ones, of the wrong backup.
    let three: Vec<&Path> = strangers.iter().take(3).map(PathBuf::as_path).collect();
    verify(&three).exits(5).says("not encrypted to any");

    // On an empty machine; show needs no agent.
    let new = lab.home();
    let some = [share(4), share(2), share(5)];
    signet(&new, "", &with(&["backup", "show"], &some, &file))
        .ok()
        .says("alice");
    assert_eq!(new.agent_pid(), None);
    signet(&new, "", &with(&["-y", "restore"], &some[..2], &file)).exits(5);
    assert!(state(&new).is_empty());
    signet(&new, "", &with(&["-y", "restore"], &some, &file)).ok();
    assert_eq!(new.key_id("alice"), home.key_id("alice"));
    assert!(other.exists());
}

#[test]
fn a_backup_that_cannot_be_written_leaves_no_shares() {
    let lab = Lab::builder().build();
    let home = with_one_key(&lab);
    let dir = lab.fresh_dir("b");
    let file = dir.join("keys.age");
    write(&dir.join("keys.age.share-4"), b"somebody's");
    let create = ["backup", "create", "--shares", "3/5", "-o", text(&file)];
    signet(&home, "", &create)
        .exits(1)
        .says("keys.age.share-4 exists already");
    assert_eq!(files(&dir).len(), 1);
    for wrong in ["1/3", "4/3", "2/17", "five"] {
        let create = ["backup", "create", "--shares", wrong, "-o", text(&file)];
        signet(&home, "", &create).exits(2).says("3/5");
    }
    let both = [
        "backup",
        "create",
        "--shares",
        "2/3",
        "-r",
        "age1x",
        "-o",
        text(&file),
    ];
    signet(&home, "", &both).exits(2);
}
