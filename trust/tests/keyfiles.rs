//! Key files of notary, docker and OpenSSL: each opens to the key that it should, and what notary
//! wrote is written again to the same bytes.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use signet_trust::{
    Algorithm, KeyId, KeyType, PrivateKey,
    keyfile::{
        KeyFile, KeyFileError, Nonces, parse_public_pem, write_bundle, write_encrypted, write_plain,
    },
};

const P256: &str = "d03c6cc5472cdf701208db919ed63663bf8a12fb57351d79c31a1c77057a5740";
const P384: &str = "10deb8ac87a1f5c1bc3d034c4851622cdac6687a2ab6c7a45b60ed7773daaf33";
const RSA: &str = "0bafa90d032c0c8cb03302315060706bc3ed36d5c5c80f2afe060e781aa524db";
const ED25519: &str = "b9fe8d4b54e73abb584e2015aaa447047e53282f491dcc70c40d2474d3096a21";
const ROOT: &str = "873cf6188180eca5ea1a42e7031178dd971eef6272508ec7c58c7acf06d794f7";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keys")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn file(name: &str) -> KeyFile {
    KeyFile::parse(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn open(name: &str, passphrase: Option<&str>) -> PrivateKey {
    let opened = file(name).open(passphrase.map(str::as_bytes));
    opened.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refusal(name: &str, passphrase: Option<&str>) -> KeyFileError {
    match file(name).open(passphrase.map(str::as_bytes)) {
        Ok(key) => panic!("{name} opened: {key:?}"),
        Err(error) => error,
    }
}

/// The content of the first block.
fn der(pem: &str) -> Vec<u8> {
    let body = pem.split("-----").nth(2).unwrap();
    let body = body.rsplit_once("\n\n").map_or(body, |(_, body)| body);
    STANDARD.decode(body.replace('\n', "")).unwrap()
}

/// Salt and IV of an encrypted file, found behind the identifiers of PBKDF2 and AES-256-CBC.
fn nonces(pem: &str) -> Nonces {
    let der = der(pem);
    let behind = |oid: &str, skip: usize, length: usize| {
        let oid = hex::decode(oid).unwrap();
        let at = der
            .windows(oid.len())
            .position(|window| window == oid)
            .unwrap();
        der[at + oid.len() + skip..][..length].to_vec()
    };
    Nonces {
        salt: behind("2a864886f70d01050c", 4, 8).try_into().unwrap(),
        iv: behind("60864801650304012a", 2, 16).try_into().unwrap(),
    }
}

/// File, role header, GUN header, passphrase, key ID: everything that notary and docker wrote.
const WRITTEN_BY_GO: &[(&str, &str, Option<&str>, &str, &str)] = &[
    ("root-ecdsa-p256.key", "root", None, "rootpass123", ROOT),
    (
        "targets-ecdsa-p256-with-gun.key",
        "targets",
        Some("docker.io/library/vec1"),
        "targetspass123",
        "993a3d026288d6c12ee82952b3662894aaf52939c81e9da521c4c5170360d2a0",
    ),
    (
        "generate-output-targets-key.pem",
        "targets",
        None,
        "delegpass123",
        "a2ae70d6b771ef71a589d97cc3aaeb8ffb9bb91308301f5be2b1e6d2a6036f23",
    ),
    (
        "imported-targets-p256.key",
        "targets",
        Some("docker.io/library/x"),
        "targetspass123",
        P256,
    ),
    ("imported-p384-bob.key", "bob", None, "delegpass123", P384),
    (
        "imported-rsa2048-alice.key",
        "alice",
        None,
        "delegpass123",
        RSA,
    ),
    (
        "imported-ed25519-edd.key",
        "edd",
        None,
        "delegpass123",
        ED25519,
    ),
    (
        "docker-trust/867752e19fe51b655ab1ce3008638bbe2ad1602eec6991ab06a4e7dc4bf2f41b.key",
        "alice",
        None,
        "repopass123",
        "867752e19fe51b655ab1ce3008638bbe2ad1602eec6991ab06a4e7dc4bf2f41b",
    ),
    (
        "docker-trust/9826fa7737910af80a9559ee4cfdc89b457f25b556913c00fee08d626d1636f8.key",
        "root",
        None,
        "rootpass123",
        "9826fa7737910af80a9559ee4cfdc89b457f25b556913c00fee08d626d1636f8",
    ),
    (
        "docker-trust/d7e2b831eeba7ce13721a0b9372e1a44e0cfe03ad9a5cede3301384ebb8fb20b.key",
        "targets",
        Some("127.0.0.1:5000/acme/app"),
        "repopass123",
        "d7e2b831eeba7ce13721a0b9372e1a44e0cfe03ad9a5cede3301384ebb8fb20b",
    ),
];

#[test]
fn what_go_wrote_opens_to_the_key_of_its_name() {
    for (name, role, gun, passphrase, id) in WRITTEN_BY_GO {
        let file = file(name);
        assert!(file.is_encrypted() && file.declared_prf_is_sha1(), "{name}");
        assert_eq!(
            (file.role.as_deref(), file.gun.as_deref()),
            (Some(*role), *gun),
            "{name}"
        );
        let key = open(name, Some(passphrase));
        let id: KeyId = id.parse().unwrap();
        assert_eq!(KeyFile::check_id(&key, &id), Ok(()), "{name}");
        let signature = key.sign(b"message").unwrap();
        key.public()
            .verify(key.public().method(), b"message", &signature)
            .unwrap();
    }
}

#[test]
fn what_go_wrote_is_written_again_byte_for_byte() {
    for (name, role, gun, passphrase, _) in WRITTEN_BY_GO {
        let text = String::from_utf8(bytes(name)).unwrap();
        let key = open(name, Some(passphrase));
        let again = write_encrypted(&key, role, *gun, passphrase.as_bytes(), nonces(&text));
        assert_eq!(again.as_str(), text, "{name}");
        assert_eq!(file(name).to_pem().as_str(), text, "{name}");
    }
}

#[test]
fn keys_of_other_tools_open_too() {
    let passphrase = Some("targetspass123");
    for (name, passphrase, id) in [
        ("import-src-sec1-p256.pem", None, P256),
        ("import-src-sec1-p384.pem", None, P384),
        ("import-src-rsa2048-pkcs8.pem", None, RSA),
        ("import-src-ed25519-legacy.pem", None, ED25519),
        ("openssl-pkcs8-p256.pem", None, P256),
        ("openssl-pkcs8-p384.pem", None, P384),
        ("openssl-pkcs1-rsa2048.pem", None, RSA),
        ("legacy-dekinfo-aes256cbc.pem", passphrase, P256),
        ("openssl-dekinfo-aes128-p256.pem", passphrase, P256),
        ("openssl-dekinfo-aes192-p256.pem", passphrase, P256),
        ("openssl-dekinfo-des3-p256.pem", passphrase, P256),
        ("openssl-dekinfo-aes256-rsa2048.pem", passphrase, RSA),
    ] {
        assert_eq!(file(name).is_encrypted(), passphrase.is_some(), "{name}");
        assert_eq!(open(name, passphrase).id().to_string(), id, "{name}");
    }
    assert_eq!(
        open("openssl-ecparam-p256.pem", None).algorithm(),
        Algorithm::P256
    );
}

#[test]
fn an_ed25519_key_of_openssl_gets_its_public_half() {
    let key = open("openssl-rfc8410-ed25519.pem", None);
    let public = parse_public_pem(&bytes("openssl-rfc8410-ed25519.pub")).unwrap();
    assert_eq!(public.key, *key.public());
}

#[test]
fn a_file_that_docker_can_never_open_opens_here_and_says_so() {
    // The name that was put into its header by hand is another key's: only the content counts.
    let claimed = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    for (name, sha1) in [
        ("accept-pbkdf2-hmacsha1.pem", true),
        ("reject-pbkdf2-hmacsha256.pem", false),
    ] {
        let file = file(name);
        assert_eq!(file.declared_prf_is_sha1(), sha1, "{name}");
        assert_eq!(file.path.as_deref(), Some(claimed), "{name}");
        let key = open(name, Some("targetspass123"));
        assert_eq!(key.id().to_string(), P256, "{name}");
        assert_eq!(
            KeyFile::check_id(&key, &claimed.parse().unwrap()),
            Err(key.id())
        );
    }
}

#[test]
fn a_wrong_passphrase_is_no_damage() {
    for (name, ..) in WRITTEN_BY_GO {
        assert_eq!(
            refusal(name, Some("wrong")),
            KeyFileError::WrongPassphrase,
            "{name}"
        );
        assert_eq!(
            refusal(name, Some("")),
            KeyFileError::WrongPassphrase,
            "{name}"
        );
        assert_eq!(refusal(name, None), KeyFileError::NeedsPassphrase, "{name}");
    }
    for name in [
        "legacy-dekinfo-aes256cbc.pem",
        "openssl-dekinfo-des3-p256.pem",
    ] {
        assert_eq!(
            refusal(name, Some("wrong")),
            KeyFileError::WrongPassphrase,
            "{name}"
        );
        assert_eq!(refusal(name, None), KeyFileError::NeedsPassphrase, "{name}");
    }
}

#[test]
fn encryptions_that_are_not_read_are_named_before_a_passphrase_is_asked() {
    for name in [
        "openssl-scrypt-p256.pem",
        "openssl-pbes1-p256.pem",
        "openssl-pbes2-aes128-p256.pem",
    ] {
        assert!(
            matches!(refusal(name, None), KeyFileError::UnsupportedEncryption(_)),
            "{name}"
        );
    }
}

#[test]
fn keys_that_are_not_computed_with_are_named() {
    for name in ["openssl-p521.pem", "openssh-ed25519.pem"] {
        assert!(
            matches!(refusal(name, None), KeyFileError::Key(_)),
            "{name}"
        );
    }
}

#[test]
fn a_bundle_holds_each_key_under_its_path() {
    let text = bytes("export-bundle.pem");
    let files = KeyFile::parse_all(&text).unwrap();
    assert_eq!(files.len(), 4);
    let mut named = Vec::new();
    for file in &files {
        let id: KeyId = file.path.as_deref().unwrap().parse().unwrap();
        let passphrase = if file.role.as_deref() == Some("targets") {
            "targetspass123"
        } else {
            "delegpass123"
        };
        let key = file.open(Some(passphrase.as_bytes())).unwrap();
        assert_eq!(KeyFile::check_id(&key, &id), Ok(()));
        named.push((id, file));
    }
    assert_eq!(write_bundle(&named).as_bytes(), text);
}

#[test]
fn a_bundle_of_our_files_has_the_path_between_gun_and_role() {
    let file = file("imported-targets-p256.key");
    let bundle = write_bundle(&[(P256.parse().unwrap(), &file)]);
    let wanted = format!(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\ngun: docker.io/library/x\npath: {P256}\nrole: targets\n\n"
    );
    assert!(bundle.starts_with(&wanted), "{}", bundle.as_str());
}

#[test]
fn only_base_roles_below_root_keep_their_gun() {
    let key = open("import-src-sec1-p256.pem", None);
    for (role, keeps) in [
        ("root", false),
        ("targets", true),
        ("snapshot", true),
        ("timestamp", true),
        ("alice", false),
        ("targets/alice", false),
        ("", false),
    ] {
        let file = KeyFile::parse(write_plain(&key, role, Some("reg/a")).as_bytes()).unwrap();
        assert_eq!(file.gun.is_some(), keeps, "{role}");
        assert_eq!(file.role.as_deref().unwrap_or_default(), role);
        assert_eq!(file.open(None).unwrap().id(), key.id());
    }
}

#[test]
fn docker_and_openssl_public_keys_are_read() {
    let alice = parse_public_pem(&bytes("docker-trust/alice.pub")).unwrap();
    assert_eq!(alice.role.as_deref(), Some("alice"));
    let id = "867752e19fe51b655ab1ce3008638bbe2ad1602eec6991ab06a4e7dc4bf2f41b";
    assert_eq!(alice.key.id().to_string(), id);

    let bare = parse_public_pem(&bytes("e.pub")).unwrap();
    assert_eq!(
        (bare.key.id().to_string().as_str(), bare.role),
        (P256, None)
    );

    let certificate = parse_public_pem(&bytes("e.crt")).unwrap().key;
    assert_eq!(certificate.key_type(), KeyType::EcdsaX509);
    let id = "666995a32114b9202cbabfa92d1c923c58e6534e0929597244dd578cd09c7e35";
    assert_eq!(certificate.id().to_string(), id);
    assert_eq!(certificate.canonical_id().unwrap().to_string(), P256);

    assert_eq!(
        parse_public_pem(&bytes("import-src-sec1-p256.pem")),
        Err(KeyFileError::NoKey)
    );
}

#[test]
fn what_is_no_key_file_says_what_is_wrong() {
    let parse = |text: &[u8]| KeyFile::parse(text).map(|_| ()).unwrap_err();
    assert_eq!(parse(b""), KeyFileError::Damaged("it is empty"));
    assert_eq!(parse(b"hello\n"), KeyFileError::NoKey);
    assert_eq!(parse(&bytes("e.crt")), KeyFileError::NoKey);
    assert!(matches!(
        parse(&[0xff, 0xfe, 0x00]),
        KeyFileError::Damaged(_)
    ));
    assert_eq!(parse(&vec![b'a'; 70_000]), KeyFileError::TooLarge(70_000));
}

#[test]
fn a_cut_file_never_opens() {
    let text = bytes("root-ecdsa-p256.key");
    for length in 0..text.len() - 1 {
        let opened =
            KeyFile::parse(&text[..length]).and_then(|file| file.open(Some(b"rootpass123")));
        assert!(opened.is_err(), "{length} bytes");
    }
}

/// A PBES2 file whose DER was changed.
fn hostile(change: impl FnOnce(&mut Vec<u8>)) -> KeyFileError {
    let text = String::from_utf8(bytes("root-ecdsa-p256.key")).unwrap();
    let mut der = der(&text);
    change(&mut der);
    let body = STANDARD.encode(&der);
    let text = format!(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n"
    );
    match KeyFile::parse(text.as_bytes()).and_then(|file| file.open(Some(b"rootpass123"))) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[test]
fn rounds_that_would_take_hours_are_refused() {
    // 02 02 08 00 stands for 2048; as many bytes, but negative or zero.
    let rounds = |bytes: [u8; 4]| {
        hostile(|der| {
            let at = der
                .windows(4)
                .position(|window| window == [2, 2, 8, 0])
                .unwrap();
            der[at..at + 4].copy_from_slice(&bytes);
        })
    };
    assert!(matches!(
        rounds([2, 2, 0xff, 0xff]),
        KeyFileError::Damaged(_)
    ));
    assert!(matches!(rounds([2, 2, 0, 1]), KeyFileError::Damaged(_)));
    // Four bytes instead of two, lengths raised above it: 2^31-1 rounds.
    let many = hostile(|der| {
        let at = der
            .windows(4)
            .position(|window| window == [2, 2, 8, 0])
            .unwrap();
        der.splice(at..at + 4, [2, 4, 0x7f, 0xff, 0xff, 0xff]);
        for length in [2, 4, 17, 19, 32] {
            der[length] += 2;
        }
    });
    assert!(matches!(many, KeyFileError::Damaged(_)), "{many:?}");
}

#[test]
fn a_ciphertext_of_no_whole_blocks_is_damaged() {
    let cut = hostile(|der| {
        der.truncate(der.len() - 1);
        der[2] -= 1;
        let at = der.len() - 160;
        assert_eq!(der[at], 160);
        der[at] -= 1;
    });
    assert_eq!(
        cut,
        KeyFileError::Damaged("its ciphertext is not made of whole blocks")
    );
}

#[test]
fn a_private_half_that_was_changed_is_noticed() {
    let text = String::from_utf8(bytes("import-src-sec1-p256.pem")).unwrap();
    let mut der = der(&text);
    der[20] ^= 1;
    let body = STANDARD.encode(&der);
    let text = format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n");
    let opened = KeyFile::parse(text.as_bytes())
        .unwrap()
        .open(None)
        .map(|_| ());
    let why = "its public half does not belong to its private half";
    assert_eq!(opened, Err(KeyFileError::Damaged(why)));
}

fn some_key() -> impl Strategy<Value = PrivateKey> {
    let seed = proptest::array::uniform32(1u8..);
    (seed, any::<bool>()).prop_filter_map("no scalar of the curve", |(seed, edwards)| {
        let algorithm = if edwards {
            Algorithm::Ed25519
        } else {
            Algorithm::P256
        };
        PrivateKey::from_material(algorithm, seed.to_vec().into()).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_key_comes_back_with_its_passphrase_and_only_with_it(
        key in some_key(),
        passphrase in ".{1,40}",
        other in ".{1,40}",
        salt: [u8; 8],
        iv: [u8; 16],
        role in "[a-z][a-z0-9_-]{0,20}",
    ) {
        let text = write_encrypted(&key, &role, None, passphrase.as_bytes(), Nonces { salt, iv });
        let file = KeyFile::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(file.role.as_deref(), Some(role.as_str()));
        prop_assert_eq!(file.open(Some(passphrase.as_bytes())).unwrap().id(), key.id());
        if other != passphrase {
            prop_assert_eq!(
                file.open(Some(other.as_bytes())).map(|key| key.id()),
                Err(KeyFileError::WrongPassphrase)
            );
        }
        prop_assert!(file.to_pem() == text);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        label in "(ENCRYPTED |EC |RSA |ED25519 |)PRIVATE KEY",
    ) {
        let body = STANDARD.encode(&bytes);
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        if let Ok(file) = KeyFile::parse(text.as_bytes()) {
            let _ = file.open(Some(b"passphrase"));
        }
        let _ = KeyFile::parse_all(&bytes);
        let _ = parse_public_pem(text.replace("PRIVATE", "PUBLIC").as_bytes());
    }
}
