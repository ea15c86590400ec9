//! Bytes that the two binaries read: a server's error, a client's request.

/// See [`super::fuzz_error_body`].
pub(super) fn error_body(data: &[u8]) {
    let text = signet_cli::read_error_body(data);
    assert!(text.len() < 8192, "{} bytes of message", text.len());
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

/// See [`super::fuzz_grpc_request`].
pub(super) fn sign_request(data: &[u8]) {
    if let Some(refusal) = signet_agent::read_request(data) {
        assert!(refusal.len() < 8192, "{} bytes of refusal", refusal.len());
    }
}

/// See [`super::fuzz_archive`].
pub(super) fn archive(data: &[u8]) {
    use signet_proto::archive::{MAX_PATH, MAX_TOTAL, Member, read};

    let mut total = 0;
    let take = |member: Member| {
        assert!(member.path.len() <= MAX_PATH && !member.path.starts_with('/'));
        assert!(
            member
                .path
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
        );
        total += member.data.len() as u64;
    };
    // What is refused may have given some members before.
    let _ = read(data, |_| Some(MAX_TOTAL), take);
    assert!(total <= MAX_TOTAL);
}

/// See [`super::fuzz_manifest`].
pub(super) fn manifest(data: &[u8]) {
    use signet_proto::archive::Manifest;

    if let Ok(manifest) = Manifest::parse(data) {
        let again = Manifest::parse(&manifest.to_json());
        assert!(again.expect("what was read is written readably") == manifest);
    }
    let _ = signet_agent::backup::read_state(data);
}

/// See [`super::fuzz_card`].
pub(super) fn card(data: &[u8]) {
    signet_agent::read_answer(data);
}

/// A share of a backup's key; what is read is written and read again, and combines with nothing.
pub(super) fn shares(data: &[u8]) {
    use signet_cli::shares::{Given, combine, file::parse};

    let Ok(given) = parse(data) else { return };
    if let Given::Whole(share) = &given {
        for again in [share.to_text(), share.to_code()] {
            match parse(again.as_bytes()) {
                Ok(Given::Whole(again)) => assert!(again.to_code() == share.to_code()),
                other => panic!("what was read is written readably: {other:?}"),
            }
        }
    }
    let once = combine(vec![("once".to_owned(), Ok(given))]);
    assert!(once.is_err(), "no share opens anything alone");
}

/// See [`super::fuzz_offer`].
pub(super) fn offer(data: &[u8]) {
    use signet_proto::migration::{Kind, Offer, kind};

    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(offer) = Offer::parse(text) else {
        return;
    };
    let line = offer.to_string();
    assert_eq!(line, text.trim());
    assert_eq!(kind(line.as_bytes()), Some(Kind::Offer));
}

/// See [`super::fuzz_receipt`].
pub(super) fn receipt(data: &[u8]) {
    use signet_proto::migration::{Head, Kind, Note, Receipt, kind};

    if let Ok(receipt) = Receipt::parse(data) {
        let again = receipt.to_json();
        assert_eq!(kind(&again), Some(Kind::Receipt));
        assert!(Receipt::parse(&again).is_ok_and(|again| again == receipt));
    }
    if let Ok(note) = Note::parse(data) {
        let again = note.to_json();
        assert_eq!(kind(&again), Some(Kind::Note));
        assert!(Note::parse(&again).is_ok_and(|again| again == note));
    }
    if let Ok(head) = Head::parse(data) {
        assert!(Head::parse(&head.to_json()).is_ok_and(|again| again == head));
    }
}
