use super::*;

fn key(key_type: KeyType, base64: &str) -> PublicKey {
    PublicKey::new(key_type, STANDARD.decode(base64).unwrap())
}

#[test]
fn key_ids_are_those_of_notary() {
    // From documents of a notary server with local keys.
    for (key_type, public, id) in [
        (
            KeyType::Ed25519,
            "PYOmwj5BwU/BSzY6X2JMTpRv11FE+TOFht7oujlIXw0=",
            "06f4871e081f6ce8d53b8acec9c17a3dafc51d00933423fd9178885d747dfbec",
        ),
        (
            KeyType::Ecdsa,
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeajh8F6QLk/48IHcteMQ0ABIekaTPUfB3lCGqxHrire9Au9y\
             fugKoVizEEGPotWieDspx+0ADGlxroUQLLMQTA==",
            "46b1421459d235d7b6938b780a028f5b89aca87685890b4cf05e28c8015400c5",
        ),
    ] {
        let key = key(key_type, public);
        assert_eq!(key.id().to_string(), id);
        assert_eq!(key.canonical_id(), Ok(key.id()));
        assert_eq!(id.parse(), Ok(key.id()));
    }
}

#[test]
fn a_curve_that_is_not_computed_with_has_an_id_all_the_same() {
    // SPKI of P-521 and P-224 with a made-up point: only the header is read.
    for (oid, len, name) in [
        (&b"\x06\x05\x2b\x81\x04\x00\x23"[..], 133, "the curve P-521"),
        (&b"\x06\x05\x2b\x81\x04\x00\x21"[..], 57, "the curve P-224"),
    ] {
        use crate::cert::der_write::{BIT_STRING, SEQUENCE, tlv};
        let algorithm = tlv(SEQUENCE, &[b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", oid]);
        let point = vec![4; len];
        let public = tlv(SEQUENCE, &[&algorithm, &tlv(BIT_STRING, &[&[0], &point])]);
        let key = PublicKey::new(KeyType::Ecdsa, public);
        assert_eq!(key.algorithm(), Err(KeyError::Unsupported(name.to_owned())));
        assert!(key.canonical_id().is_ok());
    }
}

#[test]
fn public_parts_that_are_no_keys_are_faults_and_never_panics() {
    for key_type in [
        KeyType::Ecdsa,
        KeyType::EcdsaX509,
        KeyType::Ed25519,
        KeyType::Rsa,
        KeyType::RsaX509,
    ] {
        for public in [
            &b""[..],
            b"0",
            b"\x30\x80",
            b"-----BEGIN CERTIFICATE-----\nAAAA=",
        ] {
            let key = PublicKey::new(key_type, public.to_vec());
            assert!(key.algorithm().is_err());
            assert!(key.verify(key.method(), b"x", &[0; 64]).is_err());
        }
    }
}

#[test]
fn names_go_both_ways() {
    for name in ["ecdsa", "ecdsa-x509", "ed25519", "rsa", "rsa-x509"] {
        assert_eq!(KeyType::from_name(name).map(KeyType::as_str), Some(name));
    }
    assert_eq!(KeyType::from_name("ECDSA"), None);
    for name in ["ecdsa", "eddsa", "rsapss", "rsapkcs1v15"] {
        assert_eq!(Method::from_name(name).map(Method::as_str), Some(name));
        assert_eq!(
            Method::from_name(&name.to_uppercase()).map(Method::as_str),
            Some(name)
        );
    }
    for name in ["p256", "p384", "ed25519", "rsa2048", "rsa3072", "rsa4096"] {
        assert_eq!(
            Algorithm::from_name(name).map(Algorithm::name).as_deref(),
            Some(name)
        );
    }
    assert_eq!(Algorithm::from_name("rsa1024"), None);
}

#[test]
fn key_ids_are_lower_case_hex_only() {
    let id = "06f4871e081f6ce8d53b8acec9c17a3dafc51d00933423fd9178885d747dfbec";
    assert!(id.parse::<KeyId>().is_ok());
    assert!(id.to_uppercase().parse::<KeyId>().is_err());
    assert!(id[1..].parse::<KeyId>().is_err());
}
