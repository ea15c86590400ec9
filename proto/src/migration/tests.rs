use proptest::prelude::*;

use super::*;

const ID: &str = "00112233445566778899aabbccddeeff";
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn key(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn receipt() -> Receipt {
    Receipt {
        signet: Receipt::KIND.to_owned(),
        format: FORMAT,
        id: ID.to_owned(),
        host: "new".to_owned(),
        package: key('a'),
        proofs: vec![Proof {
            key: key('1'),
            signature: "00ff".to_owned(),
        }],
        checkpoint: Some("{}".to_owned()),
    }
}

fn head() -> Head {
    Head {
        format: FORMAT,
        id: ID.to_owned(),
        nonce: key('5'),
        host: "old".to_owned(),
        docker: key('9'),
        keys: vec![Key {
            id: key('1'),
            role: "root".to_owned(),
            gun: String::new(),
            label: "main".to_owned(),
            store: "file".to_owned(),
        }],
    }
}

#[test]
fn an_offer_is_one_line_and_reads_back() {
    let offer = Offer {
        id: ID.to_owned(),
        recipient: RECIPIENT.to_owned(),
        host: "new-host.example".to_owned(),
    };
    let line = offer.to_string();
    assert_eq!(
        line,
        format!("signet-offer-1 {ID} {RECIPIENT} new-host.example")
    );
    assert_eq!(Offer::parse(&line), Ok(offer.clone()));
    assert_eq!(Offer::parse(&format!("{line}\n")), Ok(offer));
    assert_eq!(kind(line.as_bytes()), Some(Kind::Offer));
}

#[test]
fn a_damaged_or_newer_offer_is_told_apart() {
    let newer = format!("signet-offer-2 {ID} {RECIPIENT} new");
    assert_eq!(Offer::parse(&newer), Err(BadMessage::Newer(2)));
    let cut = format!("signet-offer-1 {ID} {}", &RECIPIENT[..60]);
    assert!(matches!(Offer::parse(&cut), Err(BadMessage::Syntax(_))));
    let upper = format!("signet-offer-1 {ID} {} new", RECIPIENT.to_uppercase());
    assert!(matches!(Offer::parse(&upper), Err(BadMessage::Syntax(_))));
    assert_eq!(
        Offer::parse(RECIPIENT),
        Err(BadMessage::Kind { expected: "offer" })
    );
}

#[test]
fn what_is_written_reads_back_and_says_what_it_is() {
    let receipt = receipt();
    assert_eq!(Receipt::parse(&receipt.to_json()), Ok(receipt.clone()));
    assert_eq!(kind(&receipt.to_json()), Some(Kind::Receipt));
    assert_eq!(
        Note::parse(&receipt.to_json()),
        Err(BadMessage::Kind {
            expected: "closing note"
        })
    );
    let note = Note {
        signet: Note::KIND.to_owned(),
        format: FORMAT,
        id: ID.to_owned(),
        host: "old".to_owned(),
        retired: vec![key('1'), key('2')],
        mac: key('3'),
    };
    assert_eq!(Note::parse(&note.to_json()), Ok(note.clone()));
    assert_eq!(kind(&note.to_json()), Some(Kind::Note));
    assert_eq!(Head::parse(&head().to_json()), Ok(head()));
    assert_eq!(
        kind(b"age-encryption.org/v1\n-> X25519"),
        Some(Kind::Package)
    );
    assert_eq!(kind(b"{}"), None);
}

#[test]
fn a_nonce_is_32_bytes_and_never_a_document() {
    for nonce in [
        "",
        "{\"signed\":{\"_type\":\"Targets\"}}",
        &"0".repeat(63),
        &"G".repeat(64),
    ] {
        let bad = Head {
            nonce: nonce.to_owned(),
            ..head()
        };
        let refused = Head::parse(&bad.to_json()).unwrap_err().to_string();
        assert_eq!(refused, "it is damaged: its nonce is not 32 bytes in hex");
    }
}

#[test]
fn a_key_named_twice_is_refused() {
    let mut twice = receipt();
    twice.proofs.push(twice.proofs[0].clone());
    let refused = Receipt::parse(&twice.to_json()).unwrap_err().to_string();
    assert_eq!(refused, "it is damaged: it names a key twice");
}

#[test]
fn a_newer_format_is_told_before_its_members() {
    let json = br#"{"signet":"receipt","format":2,"more":true}"#;
    assert_eq!(Receipt::parse(json), Err(BadMessage::Newer(2)));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = kind(&bytes);
        let _ = Head::parse(&bytes);
        let _ = Receipt::parse(&bytes);
        let _ = Note::parse(&bytes);
        let _ = Offer::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_offer_is_refused_or_another_offer(at in 0_usize..120, to in any::<char>()) {
        let line = format!("signet-offer-1 {ID} {RECIPIENT} new");
        let mut chars: Vec<char> = line.chars().collect();
        let at = at % chars.len();
        chars[at] = to;
        let changed: String = chars.into_iter().collect();
        if let Ok(offer) = Offer::parse(&changed) {
            prop_assert_eq!(offer.to_string(), changed.trim());
        }
    }
}
