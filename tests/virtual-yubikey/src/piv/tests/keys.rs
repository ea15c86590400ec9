//! Keys: made, brought, used under their policies, attested, moved.

use ed25519_dalek::Verifier as _;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::*;

const DIGEST: [u8; 32] = [0x5a; 32];

fn ready(firmware: Firmware) -> Piv {
    let mut card = card(firmware);
    manage(&mut card);
    verify(&mut card, PIN).expect("it is the PIN");
    card
}

fn point(public: &[u8]) -> Vec<u8> {
    let (tag, point, rest) = split(public).expect("an element");
    assert_eq!((tag, rest), (0x86, &[][..]));
    point.to_vec()
}

fn verifies_p256(public: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(public)).expect("a point");
    let signature = p256::ecdsa::Signature::from_der(signature).expect("a signature");
    key.verify_prehash(digest, &signature).is_ok()
}

#[test]
fn every_algorithm_signs_what_its_public_key_verifies() {
    let mut card = ready(Firmware::V5_7);
    let public = generate(&mut card, 0x9a, 0x11, &[]).expect("P-256");
    let signature = sign(&mut card, 0x11, 0x9a, &DIGEST).expect("a signature");
    assert!(verifies_p256(&public, &DIGEST, &signature));

    let public = generate(&mut card, 0x9a, 0x14, &[]).expect("P-384");
    let signature = sign(&mut card, 0x14, 0x9a, &DIGEST).expect("a signature of a short digest");
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(&point(&public)).expect("a point");
    let signature = p384::ecdsa::Signature::from_der(&signature).expect("a signature");
    key.verify_prehash(&DIGEST, &signature)
        .expect("it verifies");

    let public = generate(&mut card, 0x9a, 0xe0, &[]).expect("Ed25519");
    let key: [u8; 32] = point(&public).try_into().expect("32 bytes");
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).expect("a point");
    for length in [0, 1, 255, 256, 1014, 3072] {
        let message = vec![3; length];
        let signature = sign(&mut card, 0xe0, 0x9a, &message).expect("a signature");
        let signature = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
        key.verify(&message, &signature)
            .expect("of the message itself");
    }
    assert_eq!(sign(&mut card, 0xe0, 0x9a, &[3; 3073]), Err(0x6a80));

    let public = generate(&mut card, 0x9a, 0x07, &[]).expect("RSA-2048");
    let elements = crate::tlv::all(&public).expect("elements");
    let modulus = find(&elements, 0x81).expect("a modulus");
    assert_eq!(
        (modulus.len(), find(&elements, 0x82)),
        (256, Some(&[1, 0, 1][..]))
    );
    let mut block = vec![0xff; 256];
    block[0] = 0;
    let signature = sign(&mut card, 0x07, 0x9a, &block).expect("a signature");
    let public = rsa::RsaPublicKey::new(
        rsa::BoxedUint::from_be_slice(modulus, 2048).expect("it fits"),
        rsa::BoxedUint::from(65537_u32),
    );
    let raised = rsa::hazmat::rsa_encrypt(
        &public.expect("a public key"),
        &rsa::BoxedUint::from_be_slice(&signature, 2048).expect("it fits"),
    );
    assert_eq!(
        raised.expect("it is below the modulus").to_be_bytes()[..],
        block
    );
    assert_eq!(sign(&mut card, 0x07, 0x9a, &DIGEST), Err(0x6a80));
}

#[test]
fn algorithms_come_with_the_firmware() {
    let mut card = ready(Firmware::V5_4);
    assert_eq!(generate(&mut card, 0x9a, 0xe0, &[]), Err(0x6a80));
    assert_eq!(generate(&mut card, 0x9a, 0x05, &[]), Err(0x6a80));
    assert_eq!(generate(&mut card, 0x9b, 0x11, &[]), Err(0x6a86));
    let _ = card.transmit(SELECT);
    assert_eq!(generate(&mut card, 0x9a, 0x11, &[]), Err(0x6982));
}

#[test]
fn a_key_of_another_algorithm_or_no_key_at_all_signs_nothing() {
    let mut card = ready(Firmware::V5_7);
    generate(&mut card, 0x9a, 0x11, &[]).expect("P-256");
    assert_eq!(sign(&mut card, 0x14, 0x9a, &DIGEST), Err(0x6a80));
    assert_eq!(sign(&mut card, 0x11, 0x9d, &DIGEST), Err(0x6a80));
    assert_eq!(sign(&mut card, 0x11, 0x9a, &[1; 33]), Err(0x6a80));
    assert_eq!(sign(&mut card, 0x11, 0xf9, &DIGEST), Err(0x6a80));
}

#[test]
fn two_sides_agree_on_a_secret() {
    let mut card = ready(Firmware::V5_4);
    for algorithm in [0x11, 0x14] {
        let one = point(&generate(&mut card, 0x9d, algorithm, &[]).expect("a key"));
        let other = point(&generate(&mut card, 0x9a, algorithm, &[]).expect("a key"));
        let mut agree = |place, point: &[u8]| {
            let template = [vec![0x82, 0], encode(0x85, point)].concat();
            let answer = send(&mut card, 0x87, algorithm, place, &encode(0x7c, &template));
            inner(&answer.expect("a secret"), 0x82)
        };
        assert_eq!(agree(0x9d, &other), agree(0x9a, &one));
    }
}

#[test]
fn pin_policies_ask_never_once_or_always() {
    let mut card = ready(Firmware::V5_4);
    for place in [0x9a, 0x9c, 0x9e] {
        generate(&mut card, place, 0x11, &[]).expect("a key");
    }
    let _ = card.transmit(SELECT);
    assert!(
        sign(&mut card, 0x11, 0x9e, &DIGEST).is_ok(),
        "9e asks never"
    );
    assert_eq!(sign(&mut card, 0x11, 0x9a, &DIGEST), Err(0x6982));
    verify(&mut card, PIN).expect("it is the PIN");
    for _ in 0..2 {
        assert!(sign(&mut card, 0x11, 0x9a, &DIGEST).is_ok(), "9a asks once");
    }
    assert_eq!(
        sign(&mut card, 0x11, 0x9c, &DIGEST),
        Err(0x6982),
        "a key was used since"
    );
    verify(&mut card, PIN).expect("it is the PIN");
    assert!(sign(&mut card, 0x11, 0x9c, &DIGEST).is_ok());
    assert_eq!(
        sign(&mut card, 0x11, 0x9c, &DIGEST),
        Err(0x6982),
        "9c asks always"
    );
    generate_with_policy_once(&mut card);
}

fn generate_with_policy_once(card: &mut Piv) {
    verify(card, PIN).expect("it is the PIN");
    manage(card);
    generate(card, 0x9c, 0x11, &[0xaa, 1, 2]).expect("a key");
    for _ in 0..2 {
        assert!(
            sign(card, 0x11, 0x9c, &DIGEST).is_ok(),
            "asked for when it was made"
        );
    }
    assert_eq!(generate(card, 0x9c, 0x11, &[0xaa, 1, 9]), Err(0x6a80));
}

#[test]
fn without_a_touch_no_signature_where_one_is_asked_for() {
    let mut card = touched(Firmware::V5_4, Finger::Absent);
    manage(&mut card);
    verify(&mut card, PIN).expect("it is the PIN");
    for (policy, answer) in [(1, true), (2, false), (3, false)] {
        generate(&mut card, 0x9a, 0x11, &[0xab, 1, policy]).expect("a key");
        assert_eq!(sign(&mut card, 0x11, 0x9a, &DIGEST).is_ok(), answer);
    }
    assert_eq!(sign(&mut card, 0x11, 0x9a, &DIGEST), Err(0x6982));
    assert_eq!(card.pin_tries(), 3);
}

#[test]
fn metadata_tells_algorithm_policies_origin_and_key() {
    let mut card = ready(Firmware::V5_7);
    let public = generate(&mut card, 0x82, 0x11, &[0xaa, 1, 3, 0xab, 1, 2]).expect("a key");
    let head = [1, 1, 0x11, 2, 2, 3, 2, 3, 1, 1];
    let told = send(&mut card, 0xf7, 0, 0x82, &[]);
    assert_eq!(told, Ok([&head[..], &encode(4, &public)].concat()));
    let management = send(&mut card, 0xf7, 0, 0x9b, &[]);
    assert_eq!(management, Ok(vec![1, 1, 0x0a, 2, 2, 0, 1, 5, 1, 1]));
    assert_eq!(send(&mut card, 0xf7, 0, 0x96, &[]), Err(0x6a88));
}

#[test]
fn a_key_made_elsewhere_is_taken_used_and_not_attested() {
    let mut card = ready(Firmware::V5_7);
    let key = p256::SecretKey::from_slice(&[0x11; 32]).expect("a scalar");
    let data = [encode(6, &[0x11; 32]), vec![0xaa, 1, 1]].concat();
    assert_eq!(send(&mut card, 0xfe, 0x11, 0x9c, &data), Ok(vec![]));
    let signature = sign(&mut card, 0x11, 0x9c, &DIGEST).expect("a signature");
    let public = PrivateKey::P256(key).public();
    assert!(verifies_p256(&public, &DIGEST, &signature));
    let told = send(&mut card, 0xf7, 0, 0x9c, &[]).expect("metadata");
    assert_eq!(told[..10], [1, 1, 0x11, 2, 2, 1, 1, 3, 1, 2]);
    assert_eq!(send(&mut card, 0xf9, 0x9c, 0, &[]), Err(0x6a80));
    assert_eq!(send(&mut card, 0xf9, 0x9a, 0, &[]), Err(0x6a88));
    assert_eq!(
        send(&mut card, 0xfe, 0x11, 0x9c, &encode(6, &[0; 32])),
        Err(0x6a80)
    );
}

#[test]
fn an_attestation_chains_to_the_root_and_says_what_the_key_is() {
    let mut card = ready(Firmware::V5_7);
    let public = generate(&mut card, 0x9c, 0x11, &[0xab, 1, 3]).expect("a key");
    let attestation = send(&mut card, 0xf9, 0x9c, 0, &[]).expect("an attestation");
    let object = send(&mut card, 0xcb, 0x3f, 0xff, &[0x5c, 3, 0x5f, 0xff, 1]);
    let intermediate = inner(&object.expect("slot F9 has a certificate"), 0x70);
    let read = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
    let chain = [
        read(&attestation),
        read(&intermediate),
        read(attest::root()),
    ];
    for pair in [&chain[0..2], &chain[1..3]] {
        let (certificate, issuer) = (&pair[0], &pair[1]);
        let body = certificate.tbs_certificate();
        assert_eq!(body.issuer(), issuer.tbs_certificate().subject());
        let key = issuer.tbs_certificate().subject_public_key_info();
        let key = tlv_point(key.subject_public_key.raw_bytes());
        let digest = Sha256::digest(body.to_der().expect("it was DER"));
        assert!(verifies_p256(
            &key,
            &digest,
            certificate.signature().raw_bytes()
        ));
    }
    let body = chain[0].tbs_certificate();
    assert_eq!(body.subject().to_string(), "CN=YubiKey PIV Attestation 9c");
    let key = body
        .subject_public_key_info()
        .subject_public_key
        .raw_bytes();
    assert_eq!(key, point(&public));
    let extensions = body.extensions().expect("there are extensions").iter();
    let said: Vec<(String, &[u8])> = extensions
        .map(|extension| {
            (
                extension.extn_id.to_string(),
                extension.extn_value.as_bytes(),
            )
        })
        .collect();
    let yubico = |number: u8| format!("1.3.6.1.4.1.41482.3.{number}");
    assert_eq!(
        said,
        [
            (yubico(3), &[5, 7, 1][..]),
            (yubico(7), &[2, 2, 3, 0xe9]),
            (yubico(8), &[3, 3]),
            (yubico(9), &[1]),
        ]
    );
}

fn tlv_point(point: &[u8]) -> Vec<u8> {
    encode(0x86, point)
}

#[test]
fn a_key_moves_to_a_free_slot_and_is_deleted() {
    let mut card = ready(Firmware::V5_7);
    generate(&mut card, 0x9a, 0x11, &[]).expect("a key");
    generate(&mut card, 0x9c, 0x11, &[]).expect("a key");
    assert_eq!(send(&mut card, 0xf6, 0x82, 0x9d, &[]), Err(0x6a88));
    assert_eq!(
        send(&mut card, 0xf6, 0x9c, 0x9a, &[]),
        Err(0x6985),
        "not over another"
    );
    assert_eq!(send(&mut card, 0xf6, 0x82, 0x9a, &[]), Ok(vec![]));
    assert_eq!(send(&mut card, 0xf7, 0, 0x9a, &[]), Err(0x6a88));
    assert!(sign(&mut card, 0x11, 0x82, &DIGEST).is_ok());
    assert_eq!(send(&mut card, 0xf6, 0xff, 0x82, &[]), Ok(vec![]));
    assert_eq!(send(&mut card, 0xf7, 0, 0x82, &[]), Err(0x6a88));
}
