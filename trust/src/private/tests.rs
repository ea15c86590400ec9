use aws_lc_rs::signature::{ECDSA_P384_SHA256_ASN1, UnparsedPublicKey};
use p256::ecdsa::signature::Verifier;

use super::*;
use crate::key::Method;

const ALL: [Algorithm; 4] = [
    Algorithm::P256,
    Algorithm::P384,
    Algorithm::Rsa(2048),
    Algorithm::Ed25519,
];

#[test]
fn a_generated_key_signs_what_its_public_half_verifies() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        assert_eq!(key.public().algorithm(), Ok(algorithm));
        let signature = key.sign(b"message").unwrap();
        let method = key.public().method();
        assert_eq!(key.public().verify(method, b"message", &signature), Ok(()));
        assert_eq!(
            key.public().verify(method, b"massage", &signature),
            Err(KeyError::BadSignature)
        );
        let mut broken = signature.clone();
        broken[5] ^= 1;
        assert_eq!(
            key.public().verify(method, b"message", &broken),
            Err(KeyError::BadSignature)
        );
        for other in [Method::Ecdsa, Method::Eddsa, Method::RsaPkcs1v15] {
            if other != method {
                assert!(key.public().verify(other, b"message", &signature).is_err());
            }
        }
    }
}

#[test]
fn material_makes_the_same_key_again() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let material = Zeroizing::new(key.expose_material().to_vec());
        let again = PrivateKey::from_material(algorithm, material).unwrap();
        assert_eq!(again.id(), key.id());
    }
}

#[test]
fn material_of_another_key_does_not_sign() {
    for algorithm in ALL {
        let (key, other) = (
            PrivateKey::generate(algorithm).unwrap(),
            PrivateKey::generate(algorithm).unwrap(),
        );
        assert!(sign_with(algorithm, key.expose_material(), other.public(), b"x").is_err());
        assert!(sign_with(algorithm, &[0; 32], key.public(), b"x").is_err());
        assert!(sign_with(algorithm, &[], key.public(), b"x").is_err());
    }
}

#[test]
fn material_that_is_no_key_is_refused() {
    for algorithm in ALL {
        for bytes in [
            vec![],
            vec![0; 32],
            vec![0xff; 32],
            vec![0xff; 48],
            vec![0x30; 100],
        ] {
            if algorithm == Algorithm::Ed25519 && bytes.len() == 32 {
                continue;
            }
            assert!(PrivateKey::from_material(algorithm, Zeroizing::new(bytes)).is_err());
        }
    }
    let key = PrivateKey::generate(Algorithm::Rsa(2048)).unwrap();
    let material = Zeroizing::new(key.expose_material().to_vec());
    assert!(PrivateKey::from_material(Algorithm::Rsa(3072), material).is_err());
}

#[test]
fn p256_agrees_with_another_implementation() {
    let key = PrivateKey::generate(Algorithm::P256).unwrap();
    let Spki::P256(point) = key.public().spki().unwrap() else {
        panic!("P-256 expected")
    };
    let theirs = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
    let signature = p256::ecdsa::Signature::from_slice(&key.sign(b"message").unwrap()).unwrap();
    assert!(theirs.verify(b"message", &signature).is_ok());
}

#[test]
fn p384_over_sha256_agrees_with_another_implementation() {
    let key = PrivateKey::generate(Algorithm::P384).unwrap();
    let Spki::P384(point) = key.public().spki().unwrap() else {
        panic!("P-384 expected")
    };
    let signature = p384::ecdsa::Signature::from_slice(&key.sign(b"message").unwrap()).unwrap();
    let theirs = UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, point);
    assert!(
        theirs
            .verify(b"message", signature.to_der().as_bytes())
            .is_ok()
    );
}

#[test]
fn a_certificate_is_signed_with_pkcs1_by_rsa_only() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let method = match algorithm {
            Algorithm::Rsa(_) => Method::RsaPkcs1v15,
            _ => key.public().method(),
        };
        let signature = key.sign_certificate(b"body").unwrap();
        assert_eq!(key.public().verify(method, b"body", &signature), Ok(()));
    }
}

#[test]
fn debug_shows_no_material() {
    let key =
        PrivateKey::from_material(Algorithm::Ed25519, Zeroizing::new(vec![0x41; 32])).unwrap();
    let shown = format!("{key:?}");
    assert!(shown.contains(&key.id().to_string()));
    assert!(!shown.contains("41414141") && !shown.contains("65, 65"));
}
