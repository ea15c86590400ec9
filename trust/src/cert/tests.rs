use super::*;
use crate::private::PrivateKey;

const NOW: UnixTime = 1_795_219_200;

fn gun(name: &str) -> Gun {
    name.parse().unwrap()
}

fn certificate(key: &PrivateKey, name: &str) -> PublicKey {
    let template = template(&gun(name), key.public(), [0x81; 16], NOW).unwrap();
    let signature = key.sign_certificate(&template.to_be_signed).unwrap();
    template.finish(key.public(), &signature).unwrap()
}

#[test]
fn our_certificate_is_read_back_as_readers_see_it() {
    for algorithm in [Algorithm::P256, Algorithm::P384, Algorithm::Rsa(2048)] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let listed = certificate(&key, "docker.io/library/vec1");
        let read = Certificate::from_pem(listed.public()).unwrap();
        assert_eq!(
            read,
            Certificate {
                common_name: "docker.io/library/vec1".to_owned(),
                not_before: NOW,
                not_after: NOW + 3650 * 24 * 60 * 60,
                is_ca: false,
                is_sha1: false,
                other_leaves: false,
                public: key.public().clone(),
            }
        );
        assert_eq!(read.check(&gun("docker.io/library/vec1"), NOW), Ok(()));
        assert_eq!(listed.canonical_id(), Ok(key.id()));
        assert_ne!(listed.id(), key.id());
        assert_eq!(listed.algorithm(), Ok(algorithm));
    }
}

#[test]
fn the_template_is_go_s_byte_for_byte() {
    // The certificate of `docker.io/library/vecl`, made by notary 0.7.0.
    let theirs = "-----BEGIN CERTIFICATE-----\n\
        MIIBdTCCARygAwIBAgIRAJc3PFYWScaR6UaN5XsoRkcwCgYIKoZIzj0EAwIwITEf\n\
        MB0GA1UEAxMWZG9ja2VyLmlvL2xpYnJhcnkvdmVjbDAeFw0yNjExMjExNjM2MTha\n\
        Fw0zNjExMTgxNjM2MThaMCExHzAdBgNVBAMTFmRvY2tlci5pby9saWJyYXJ5L3Zl\n\
        Y2wwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ8AsXILqUDkJua2u3L6DxDGHPI\n\
        RLZfdy1OpITzl5nMc5QbRRJcnvu5zKERWXQW27TwGS6Y2XAxA6+pdcjfV4b5ozUw\n\
        MzAOBgNVHQ8BAf8EBAMCBaAwEwYDVR0lBAwwCgYIKwYBBQUHAwMwDAYDVR0TAQH/\n\
        BAIwADAKBggqhkjOPQQDAgNHADBEAiAjDjxoHqef3bYftu4260Gu6bgvWU5lIdld\n\
        Rztne3ztWwIgR4WwJ0iGWwoOFzpYVxDj/TpRB/LyXZNf+avQTPMmyDg=\n\
        -----END CERTIFICATE-----\n";
    let read = Certificate::from_pem(theirs.as_bytes()).unwrap();
    let serial = hex::decode("97373c561649c691e9468de57b284647")
        .unwrap()
        .try_into()
        .unwrap();
    let ours = template(
        &gun("docker.io/library/vecl"),
        &read.public,
        serial,
        read.not_before,
    );
    let der = pem_certificates(theirs.as_bytes()).unwrap().remove(0);
    let to_be_signed = ours.unwrap().to_be_signed;
    assert_eq!(
        hex::encode(&to_be_signed),
        hex::encode(&der[4..4 + to_be_signed.len()])
    );

    // The signature that the Go client made, as documents encode it.
    let found = X509::from_der(&der).unwrap();
    let signature = p256::ecdsa::Signature::from_der(found.signature().raw_bytes()).unwrap();
    let signature = signature.to_bytes();
    let listed = Template { to_be_signed }
        .finish(&read.public, &signature)
        .unwrap();
    assert_eq!(listed.public(), theirs.as_bytes());
}

#[test]
fn a_certificate_with_another_signature_is_not_finished() {
    let (key, other) = (
        PrivateKey::generate(Algorithm::P256).unwrap(),
        PrivateKey::generate(Algorithm::P256).unwrap(),
    );
    let template = template(&gun("a"), key.public(), [1; 16], NOW).unwrap();
    let signature = other.sign_certificate(&template.to_be_signed).unwrap();
    assert_eq!(
        template.finish(key.public(), &signature),
        Err(KeyError::BadSignature)
    );
}

#[test]
fn an_ed25519_key_cannot_be_a_root_key() {
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    assert!(template(&gun("a"), key.public(), [1; 16], NOW).is_err());
}

#[test]
fn names_that_are_not_printable_strings_are_utf8_ones() {
    assert!(name("127.0.0.1:5000/acme/app").contains(&PRINTABLE_STRING));
    assert_eq!(name("a_b")[11], UTF8_STRING);
}

#[test]
fn times_from_2050_on_are_generalized() {
    assert_eq!(time(2_524_607_999), b"\x17\x0d491231235959Z");
    assert_eq!(time(2_524_608_000), b"\x18\x0f20500101000000Z");
}

#[test]
fn a_certificate_stands_for_its_name_and_time_only() {
    let key = PrivateKey::generate(Algorithm::P256).unwrap();
    let good = Certificate::from_pem(certificate(&key, "reg:5000/a/b").public()).unwrap();
    let day = 24 * 60 * 60;
    let here = gun("reg:5000/a/b");
    assert_eq!(good.check(&here, good.not_after), Ok(()));
    assert_eq!(
        good.check(&here, good.not_after + 1),
        Err(CertError::OutOfDate)
    );
    assert_eq!(good.check(&here, NOW - day), Ok(()));
    assert_eq!(good.check(&here, NOW - day - 1), Err(CertError::OutOfDate));
    assert_eq!(good.check_form(&here), Ok(()));
    for other in ["reg:5000/a/bc", "reg:5000/a", "reg/a/b"] {
        assert!(matches!(
            good.check(&gun(other), NOW),
            Err(CertError::OtherName { .. })
        ));
    }
    let wild = Certificate {
        common_name: "reg:5000/a*".to_owned(),
        ..good.clone()
    };
    assert_eq!(wild.check(&here, NOW), Ok(()));
    assert!(wild.check(&gun("reg:5000/b"), NOW).is_err());
    for bad in [
        Certificate {
            is_ca: true,
            ..good.clone()
        },
        Certificate {
            other_leaves: true,
            ..good.clone()
        },
        Certificate {
            is_sha1: true,
            ..good
        },
    ] {
        assert!(bad.check(&here, NOW).is_err());
    }
}

#[test]
fn a_bundle_with_two_leaves_is_told() {
    let key = PrivateKey::generate(Algorithm::P256).unwrap();
    let one = certificate(&key, "a").public().to_vec();
    let two = [one.clone(), one].concat();
    assert!(Certificate::from_pem(&two).unwrap().other_leaves);
}

#[test]
fn what_is_no_certificate_is_a_fault() {
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(Certificate::from_pem(pem.as_bytes()).is_err());
    }
    assert!(Certificate::from_pem(&vec![b' '; MAX_BUNDLE + 1]).is_err());
}
