use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn archive(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 1_795_219_200).unwrap();
    for member in members {
        writer.add(&member.path, &member.data).unwrap();
    }
    writer.finish().unwrap()
}

fn all(bytes: &[u8]) -> Result<Vec<Member>, ArchiveError> {
    let mut members = Vec::new();
    let take = |member| members.push(member);
    read(Cursor::new(bytes), |_| Some(MAX_MEMBER), take)?;
    Ok(members)
}

fn member(path: &str, data: &[u8]) -> Member {
    Member {
        path: path.to_owned(),
        data: data.to_vec(),
    }
}

/// A tar with one entry, written without any of the writer's care.
fn crafted(path: &[u8], kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[test]
fn the_same_members_give_the_same_bytes_and_come_out_again() {
    let id = "ab".repeat(32);
    let members = [
        member(path::MANIFEST, b"{}"),
        member(&path::docker(&id), b"key"),
        member(path::RECOVER, b"#!/bin/sh\n"),
        member(&path::native(&id), b"age"),
    ];
    let bytes = archive(&members);
    assert_eq!(bytes, archive(&members));
    assert_eq!(all(&bytes).unwrap(), members);
}

#[test]
fn a_path_that_leaves_the_archive_ends_the_reading() {
    for path in [
        &b"../a"[..],
        b"/etc/passwd",
        b"a/../../b",
        b"a\x1bb",
        b"a\\b",
        b"\xff",
    ] {
        let tar = crafted(path, EntryType::Regular, 1, b"x");
        assert!(
            matches!(all(&tar), Err(ArchiveError::Escapes(_))),
            "{path:?}"
        );
    }
}

#[test]
fn links_devices_and_pipes_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::GNULongLink,
    ] {
        let tar = crafted(b"a.key", kind, 0, b"");
        assert!(all(&tar).is_err(), "{kind:?}");
    }
}

#[test]
fn a_second_member_of_one_name_is_refused_however_it_is_spelt() {
    let one = crafted(b"a", EntryType::Regular, 0, b"");
    let mut two = one[..512].to_vec();
    two.extend(crafted(b"./a", EntryType::Regular, 0, b""));
    assert!(matches!(all(&two), Err(ArchiveError::Duplicate(path)) if path == "a"));
}

#[test]
fn a_member_that_claims_to_be_enormous_is_not_read() {
    let tar = crafted(b"a", EntryType::Regular, 1 << 32, b"x");
    assert!(matches!(all(&tar), Err(ArchiveError::TooMuch(_))));
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut tar = crafted(b"a", EntryType::Regular, 1 << 30, b"");
    tar.truncate(512);
    gzip.write_all(&tar).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..600 {
        gzip.write_all(&zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    // Passed over, it still counts.
    let error = read(Cursor::new(&bomb), |_| None, |_| {}).unwrap_err();
    assert!(error.to_string().contains("512 MiB"), "{error}");
}

#[test]
fn what_comes_after_the_end_is_refused() {
    let mut bytes = archive(&[member("a", b"x")]);
    bytes.push(0);
    assert!(matches!(all(&bytes), Err(ArchiveError::TooMuch(_))));
}

#[test]
fn long_names_of_gnu_and_pax_are_read() {
    let long = format!("home/{}/.docker/trust/private/a.key", "u".repeat(120));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_cksum();
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    assert_eq!(all(&tar).unwrap(), [member(&long, b"x")]);

    let record = format!("path={long}\n");
    let pax = format!("{} {record}", record.len() + 4);
    let mut tar = crafted(b"x", EntryType::XHeader, pax.len() as u64, pax.as_bytes());
    tar.truncate(tar.len() - 1024);
    tar.extend(crafted(b"short", EntryType::Regular, 1, b"y"));
    assert_eq!(all(&tar).unwrap(), [member(&long, b"y")]);
}

fn manifest() -> Manifest {
    Manifest {
        format: manifest::FORMAT,
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        host: "here".to_owned(),
        created: 1_795_219_200,
        signet: "0.1.0".to_owned(),
        keys: vec![manifest::Key {
            id: "ab".repeat(32),
            store: "docker".to_owned(),
            file: path::docker(&"ab".repeat(32)),
            sha256: digest(b"key"),
            ..manifest::Key::default()
        }],
        files: vec![manifest::File {
            path: path::RECOVER.to_owned(),
            sha256: digest(b"#!"),
        }],
        log: None,
        notes: Vec::new(),
    }
}

#[test]
fn a_manifest_names_every_member_and_no_other() {
    let manifest = manifest();
    let key = member(&path::docker(&"ab".repeat(32)), b"key");
    let script = member(path::RECOVER, b"#!");
    manifest.check(&[key.clone(), script.clone()]).unwrap();
    let missing = manifest.check(std::slice::from_ref(&key));
    assert!(matches!(missing, Err(BadManifest::Missing(_))));
    let other = member(path::STATE, b"{}");
    let extra = manifest.check(&[key.clone(), script, other]);
    assert!(matches!(extra, Err(BadManifest::Extra(_))));
    let changed = manifest.check(&[key, member(path::RECOVER, b"##")]);
    assert!(matches!(changed, Err(BadManifest::Digest(_))));
}

#[test]
fn a_newer_format_is_said_and_an_unknown_member_refused() {
    let json = manifest().to_json();
    assert_eq!(Manifest::parse(&json).unwrap(), manifest());
    let text = String::from_utf8(json).unwrap();
    let newer = text.replace("\"format\":1", "\"format\":2");
    let newer = Manifest::parse(newer.as_bytes());
    assert!(matches!(newer, Err(BadManifest::Newer(2))));
    let odd = text.replace("\"host\"", "\"more\":1,\"host\"");
    let odd = Manifest::parse(odd.as_bytes());
    assert!(matches!(odd, Err(BadManifest::Syntax(_))));
}

#[test]
fn a_manifest_that_names_a_key_by_another_file_or_twice_is_refused() {
    let mut bad = manifest();
    bad.keys[0].file = path::docker(&"cd".repeat(32));
    assert!(Manifest::parse(&bad.to_json()).is_err());
    let mut bad = manifest();
    bad.keys.push(bad.keys[0].clone());
    assert!(Manifest::parse(&bad.to_json()).is_err());
}

proptest! {
    #[test]
    fn any_members_come_out_as_they_went_in(
        files in prop::collection::btree_map(
            "[a-z]{1,12}/[a-z0-9]{1,64}",
            prop::collection::vec(any::<u8>(), 0..2000),
            0..8,
        )
    ) {
        let members: Vec<Member> = files
            .into_iter()
            .map(|(path, data)| Member { path, data })
            .collect();
        prop_assert_eq!(all(&archive(&members)).unwrap(), members);
    }

    #[test]
    fn a_changed_byte_is_noticed_or_harmless(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let members = [member("a/b", &[7; 700]), member("c", b"x")];
        let mut bytes = archive(&members);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = all(&bytes) {
            prop_assert_eq!(&read[..], &members[..]);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = all(&bytes);
    }
}
