use super::*;
use crate::{key::Method, verify::Raw};

const NOW: UnixTime = 1_795_219_200;

fn targets(text: &str) -> Result<Targets, DocumentError> {
    Targets::from_value(&json::parse(text.as_bytes()).unwrap())
}

const PLAIN: &str = r#"{"_type":"Targets","delegations":{"keys":{},"roles":[]},"expires":"2029-11-20T16:35:26Z","targets":{"latest":{"hashes":{"sha256":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},"length":528}},"version":3}"#;

#[test]
fn a_fresh_targets_file_is_what_go_writes() {
    assert_eq!(
        String::from_utf8(Targets::empty(1, NOW).canonical()).unwrap(),
        "{\"_type\":\"Targets\",\"delegations\":{\"keys\":{},\"roles\":[]},\
         \"expires\":\"2029-11-20T00:00:00Z\",\"targets\":{},\"version\":1}"
    );
}

#[test]
fn a_tag_of_docker_s_is_its_digest_and_size() {
    let read = targets(PLAIN).unwrap();
    let digest = std::array::from_fn(|index| u8::try_from(index).unwrap());
    assert_eq!(
        read.targets.get("latest").unwrap(),
        Target::of_manifest(digest, 528)
    );
    assert_eq!(
        read.targets.get("latest").unwrap().hashes.sha256(),
        Some(digest)
    );
    assert_eq!(read.canonical(), PLAIN.as_bytes());
    let Document::Targets(again) = Document::from_canonical(PLAIN.as_bytes()).unwrap() else {
        panic!("it is a targets file")
    };
    assert_eq!(again, read);
}

#[test]
fn forms_that_go_writes_come_back_as_they_were() {
    let key = format!("\"{}\"", "ab".repeat(32));
    for delegations in [
        r#"{"keys":{},"roles":null}"#.to_owned(),
        r#"{"keys":{},"roles":[{"keyids":null,"name":"targets/a","threshold":1}]}"#.to_owned(),
        format!(
            r#"{{"keys":{{}},"roles":[{{"keyids":[{key}],"name":"targets/a","paths":["","v"],"threshold":2}}]}}"#
        ),
    ] {
        let text = PLAIN.replace(r#"{"keys":{},"roles":[]}"#, &delegations);
        assert_eq!(targets(&text).unwrap().canonical(), text.as_bytes());
        assert!(Document::from_canonical(text.as_bytes()).is_ok());
    }
    for custom in [r#"{"a":[1,-2,null,true],"b":"c<&"}"#, "null", "\"x\"", "7"] {
        let text = PLAIN.replace(r#"{"hashes""#, &format!(r#"{{"custom":{custom},"hashes""#));
        assert_eq!(targets(&text).unwrap().canonical(), text.as_bytes());
    }
    let two = PLAIN.replace(r#""sha256":"#, r#""md5":"AAAA","sha256":"#);
    assert_eq!(targets(&two).unwrap().canonical(), two.as_bytes());
}

#[test]
fn forms_that_go_takes_are_read_and_are_not_canonical() {
    for (from, to) in [
        (r#""delegations":{"keys":{},"roles":[]},"#, ""),
        (r#"{"keys":{},"roles":[]}"#, "null"),
        (r#""keys":{}"#, r#""keys":null"#),
        (
            r#""roles":[]"#,
            r#""roles":[{"keyids":[],"name":"targets/a","paths":[],"threshold":1}]"#,
        ),
        ("{\"_type\":\"Targets\",", "{ \"_type\" : \"Targets\" ,"),
        ("\"version\":3}", "\"version\":3}\n"),
    ] {
        let text = PLAIN.replace(from, to);
        assert_ne!(text, PLAIN);
        assert!(targets(&text).is_ok(), "{text}");
        assert_eq!(
            Document::from_canonical(text.as_bytes()),
            Err(DocumentError::NotCanonical)
        );
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (from, to, message) in [
        (
            "\"Targets\"",
            "\"targets\"",
            "expected type Targets, not \"targets\"",
        ),
        (",\"version\":3", "", "signed.version: it is missing"),
        (
            "3}",
            "0}",
            "signed.version: it is not a number from 1 to 2147483647",
        ),
        (
            "3}",
            "2147483648}",
            "signed.version: it is not a number from 1 to 2147483647",
        ),
        (
            "3}",
            "\"3\"}",
            "signed.version: it is not a number from 1 to 2147483647",
        ),
        ("3}", "3,\"x\":1}", "signed.x: an unknown member"),
        (
            "528}",
            "528,\"x\\ny\":1}",
            "signed.targets.latest.x\\ny: an unknown member",
        ),
        ("528", "-1", "signed.targets.latest.length: it is negative"),
        (
            "\"length\":528",
            "\"length\":null",
            "signed.targets.latest.length: it is missing",
        ),
        (
            "AAEC",
            "A*EC",
            "signed.targets.latest.hashes.sha256: it is not base64",
        ),
        (
            "26Z\"",
            "26\"",
            "signed.expires: \"2029-11-20T16:35:26\" is not an RFC 3339 time",
        ),
        (
            "\"roles\":[]",
            "\"roles\":[{\"keyids\":[],\"name\":\"targets\",\"threshold\":1}]",
            "signed.delegations.roles.targets: a base role cannot be delegated",
        ),
        (
            "\"roles\":[]",
            "\"roles\":[{\"keyids\":[\"ab\"],\"name\":\"targets/a\",\"threshold\":1}]",
            "signed.delegations.roles.targets/a.keyids: it is not a key ID (64 lower-case hex digits)",
        ),
        (
            "\"roles\":[]",
            "\"roles\":[{\"keyids\":[],\"name\":\"targets/a\",\"threshold\":0}]",
            "signed.delegations.roles.targets/a.threshold: it is not a number from 1 to 2147483647",
        ),
    ] {
        let text = PLAIN.replacen(from, to, 1);
        assert_ne!(text, PLAIN, "{from}");
        assert_eq!(targets(&text).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_role_listed_twice_is_refused() {
    let role = r#"{"keyids":[],"name":"targets/a","threshold":1}"#;
    let text = PLAIN.replace("\"roles\":[]", &format!("\"roles\":[{role},{role}]"));
    assert_eq!(
        targets(&text).unwrap_err().to_string(),
        "signed.delegations.roles.targets/a: the role is listed twice"
    );
}

#[test]
fn a_root_has_its_four_roles_and_their_keys() {
    let id = "ab".repeat(32);
    let key =
        format!(r#""{id}":{{"keytype":"ed25519","keyval":{{"private":null,"public":"AAAA"}}}}"#);
    let role = |name: &str| format!(r#""{name}":{{"keyids":["{id}"],"threshold":1}}"#);
    let names = ["root", "snapshot", "targets", "timestamp"];
    let roles = |names: &[&str]| {
        names
            .iter()
            .map(|name| role(name))
            .collect::<Vec<_>>()
            .join(",")
    };
    let root = |keys: &str, roles: &str| {
        let text = format!(
            r#"{{"_type":"Root","consistent_snapshot":false,"expires":"2036-01-01T00:00:00Z","keys":{{{keys}}},"roles":{{{roles}}},"version":1}}"#
        );
        Root::from_value(&json::parse(text.as_bytes()).unwrap()).map(|root| {
            assert_eq!(root.canonical(), text.as_bytes());
        })
    };
    assert_eq!(root(&key, &roles(&names)), Ok(()));
    assert!(root("", &roles(&names)).is_err());
    for left_out in 0..4 {
        let mut some = names.to_vec();
        some.remove(left_out);
        assert!(root(&key, &roles(&some)).is_err());
    }
    assert!(root(&key, &[roles(&names), role("targets/a")].join(",")).is_err());
    assert!(root(&key.replace("null", "\"AAAA\""), &roles(&names)).is_err());
    assert!(root(&key.replace("ed25519", "dsa"), &roles(&names)).is_err());
}

#[test]
fn snapshot_and_timestamp_need_the_hashes_that_readers_follow() {
    let file = FileMeta::of(b"file");
    let meta = |roles: &[&str]| {
        roles
            .iter()
            .map(|r| (r.parse().unwrap(), file.clone()))
            .collect()
    };
    let snapshot = |meta| {
        let snapshot = Snapshot {
            expires: Expiry::at(NOW),
            meta,
            version: 1,
        };
        Document::from_canonical(&snapshot.canonical())
    };
    assert!(snapshot(meta(&["root", "targets", "targets/z", "targets/a"])).is_ok());
    assert!(snapshot(meta(&["root", "targets/a"])).is_err());
    assert!(snapshot(meta(&["targets"])).is_err());
    let timestamp = |meta| {
        let timestamp = Timestamp {
            expires: Expiry::at(NOW),
            meta,
            version: 1,
        };
        Document::from_canonical(&timestamp.canonical())
    };
    assert!(timestamp(meta(&["snapshot"])).is_ok());
    assert!(timestamp(meta(&["root"])).is_err());
}

#[test]
fn roles_sort_by_their_names_in_a_snapshot() {
    let meta = ["targets/b", "root", "targets", "snapshot", "targets/a"]
        .map(|role| (role.parse().unwrap(), FileMeta::of(b"")));
    let snapshot = Snapshot {
        expires: Expiry::at(NOW),
        meta: meta.into(),
        version: 1,
    };
    let text = String::from_utf8(snapshot.canonical()).unwrap();
    let at = |name: &str| text.find(&format!("\"{name}\":{{\"hashes\"")).unwrap();
    let order = ["root", "snapshot", "targets", "targets/a", "targets/b"].map(at);
    assert!(order.is_sorted(), "{text}");
}

#[test]
fn the_envelope_is_go_s() {
    let signature = Signature {
        key_id: KeyId([0xab; 32]),
        method: Method::Eddsa,
        bytes: vec![1; 3],
    };
    let wire = to_wire(b"{\"a\":\"<&>\"}", &[signature.clone(), signature]);
    let id = "ab".repeat(32);
    assert_eq!(
        String::from_utf8(wire).unwrap(),
        format!(
            r#"{{"signed":{{"a":"\u003c\u0026\u003e"}},"signatures":[{{"keyid":"{id}","method":"eddsa","sig":"AQEB"}},{{"keyid":"{id}","method":"eddsa","sig":"AQEB"}}]}}"#
        )
    );
    assert_eq!(to_wire(b"{}", &[]), b"{\"signed\":{},\"signatures\":[]}");
}

#[test]
fn a_file_is_read_whatever_its_layout_and_signed_bytes_do_not_depend_on_it() {
    let id = "ab".repeat(32);
    let wire = format!(
        " {{\"signatures\" : [ {{\"sig\":\"AQEB\",\"method\":\"EDDSA\",\"keyid\":\"{id}\",\"x\":1}},\n\
         {{\"keyid\":\"no id\",\"method\":\"eddsa\",\"sig\":\"\"}},\
         {{\"keyid\":\"{id}\",\"method\":\"unheard of\",\"sig\":\"\"}}],\
         \"signed\": {} }}\n",
        PLAIN
            .replace(':', " : ")
            .replace("T16 : 35 : 26", "T16:35:26")
    );
    let raw = Raw::<Targets>::parse(wire.into_bytes(), 1 << 20).unwrap();
    assert_eq!(raw.canonical(), PLAIN.as_bytes());
    assert_eq!(raw.signatures().len(), 1);
}

#[test]
fn files_that_are_none_are_faults() {
    for wire in [
        "",
        "<html></html>",
        "[]",
        "{}",
        "{\"signed\":null,\"signatures\":[]}",
        "{\"signed\":{},\"signatures\":{}}",
        "{\"signed\":{},\"signatures\":[{\"keyid\":\"a\",\"method\":\"b\",\"sig\":\"*\"}]}",
        "{\"signed\":{},\"signatures\":[1]}",
    ] {
        assert!(
            Raw::<Targets>::parse(wire.as_bytes().to_vec(), 1 << 20).is_err(),
            "{wire}"
        );
    }
    let error = Raw::<Targets>::parse(vec![b' '; 11], 10).unwrap_err();
    assert_eq!(
        error,
        DocumentError::TooLarge {
            size: 11,
            limit: 10
        }
    );
    assert_eq!(error.to_string(), "11 bytes, more than the limit of 10");
}

#[test]
fn hashes_are_a_map() {
    let hashes = Hashes::from([
        ("sha512".to_owned(), vec![2; 64]),
        ("md5".to_owned(), vec![]),
        ("sha256".to_owned(), vec![1; 32]),
    ]);
    let names: Vec<_> = hashes
        .iter()
        .map(|(name, digest)| (name, digest.len()))
        .collect();
    assert_eq!(names, [("md5", 0), ("sha256", 32), ("sha512", 64)]);
    assert_eq!(hashes.sha256(), Some([1; 32]));
    assert_eq!(hashes.get("sha1"), None);
    assert!(Hashes::default().is_empty() && !hashes.is_empty());
    assert_eq!(Hashes::of_sha256([1; 32]).sha256(), Some([1; 32]));
}

/// What came of reading a file, its signed bytes whichever way they are known.
fn read_as<T: Body>(
    wire: &[u8],
    read: impl Fn(&[u8]) -> Result<Read<T>, DocumentError>,
) -> Result<(T, Vec<u8>, Vec<Signature>), DocumentError> {
    read(wire).map(|read| {
        let canonical = match read.canonical {
            Ok(place) => wire[place].to_vec(),
            Err(bytes) => bytes,
        };
        (read.body, canonical, read.signatures)
    })
}

#[test]
fn a_file_reads_the_same_with_its_tags_one_by_one_and_as_a_tree() {
    let signature = Signature {
        key_id: KeyId([1; 32]),
        method: Method::Ecdsa,
        bytes: vec![2; 64],
    };
    let wire = String::from_utf8(to_wire(PLAIN.as_bytes(), &[signature])).unwrap();
    let latest = &PLAIN[PLAIN.find("\"latest\"").unwrap()..PLAIN.find("},\"version\"").unwrap()];
    let edits = [
        ("", ""),
        ("{\"signed\"", "{ \"signed\""),
        ("{\"_type\"", "{ \"_type\""),
        ("\"latest\"", "\"la\\u0074est\""),
        ("\"latest\"", "\"a\\u003cb\""),
        ("\"latest\"", "\"a\\\"b\\\\\""),
        ("\"latest\"", "\"a\\/b\""),
        ("\"latest\"", "\"a\u{2028}b\""),
        ("{\"hashes\"", "{\"custom\":{\"a\":[1,null]},\"hashes\""),
        ("{\"hashes\"", "{\"custom\":{\"b\":1,\"a\":2},\"hashes\""),
        ("{\"hashes\"", "{\"custom\":{\"a\":1,\"a\":2},\"hashes\""),
        ("{\"hashes\"", "{\"unknown\":0,\"hashes\""),
        ("\"length\":528", "\"length\":528,\"length\":528"),
        ("\"length\":528", "\"length\":-528"),
        ("\"length\":528", "\"length\": 528"),
        ("\"length\":528", "\"length\":0528"),
        (latest, ""),
        (latest, &format!("{latest},{latest}")),
        (
            latest,
            &format!("{latest},{}", latest.replace("latest", "a")),
        ),
        (
            latest,
            &format!("{latest},{}", latest.replace("latest", "z")),
        ),
        (latest, &format!("{latest},")),
        (&format!("{{{latest}}}"), "null"),
        (&format!("{{{latest}}}"), "[]"),
        (&format!("\"targets\":{{{latest}}},"), ""),
        ("\"version\":3", "\"targets\":{},\"version\":3"),
        ("\"version\":3", "\"version\":3,\"a\":{}"),
        ("{\"keys\":{},\"roles\":[]}", "null"),
        ("{\"keys\":{},\"roles\":[]}", "{\"roles\":[],\"keys\":{}}"),
        ("\"signatures\"", "\"targets\":{},\"signatures\""),
        ("\"signatures\"", "\"signed\":{},\"signatures\""),
        ("\"signatures\":[", "\"signatures\": ["),
        ("]}", "]} "),
        ("]}", "]}]"),
        ("Targets", "Root"),
    ];
    for (old, new) in edits {
        let edited = wire.replacen(old, new, 1);
        let file = edited.as_bytes();
        let expected = read_as::<Targets>(file, read::tree);
        assert_eq!(read_as::<Targets>(file, file_of), expected, "{edited}");
        assert_eq!(
            read_as::<Snapshot>(file, file_of),
            read_as::<Snapshot>(file, read::tree),
            "{edited}"
        );
        if let Ok((_, canonical, _)) = expected {
            let by_tree = read::any(&json::parse(&canonical).unwrap(), None).unwrap();
            let document = Document::from_canonical(&canonical);
            match by_tree.canonical() == canonical {
                true => assert_eq!(document, Ok(by_tree), "{edited}"),
                false => assert_eq!(document, Err(DocumentError::NotCanonical), "{edited}"),
            }
        }
    }
}

fn file_of<T: Body>(wire: &[u8]) -> Result<Read<T>, DocumentError> {
    file(wire)
}

#[test]
fn signed_bytes_are_found_in_the_file_and_not_copied() {
    let wire = to_wire(PLAIN.as_bytes(), &[]);
    let read = file::<Targets>(&wire).unwrap();
    assert_eq!(read.canonical, Ok(10..10 + PLAIN.len()));
    let wire = to_wire(PLAIN.replace("latest", "a<b").as_bytes(), &[]);
    let read = file::<Targets>(&wire).unwrap();
    assert!(read.canonical.is_err());
}
