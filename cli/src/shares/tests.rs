use proptest::prelude::*;

use super::{
    file::{MAX_FILE, parse},
    *,
};

fn set(needed: u8, total: u8) -> (String, Vec<Share>) {
    let (identity, shares) = split(Threshold::new(needed, total).unwrap()).unwrap();
    (identity.to_public().to_string(), shares)
}

fn read(texts: &[(&str, &str)]) -> Vec<(String, Result<Given, ShareError>)> {
    let each = texts.iter();
    each.map(|(name, text)| ((*name).to_owned(), parse(text.as_bytes())))
        .collect()
}

#[test]
fn any_three_of_five_give_the_identity_and_two_do_not() {
    let (recipient, shares) = set(3, 5);
    let texts: Vec<_> = shares.iter().map(Share::to_text).collect();
    for (a, b, c) in [(0, 1, 2), (4, 2, 0), (1, 3, 4)] {
        let given = [("a", &**texts[a]), ("b", &**texts[b]), ("c", &**texts[c])];
        let combined = combine(read(&given)).unwrap();
        assert_eq!(combined.identity.to_public().to_string(), recipient);
        assert!(combined.left_out.is_empty());
    }
    let two = combine(read(&[("a", &texts[0]), ("b", &texts[1])]));
    let (why, _) = two.unwrap_err();
    assert_eq!(why, ShareError::TooFew { needed: 3, good: 2 });
}

#[test]
fn a_damaged_or_foreign_share_is_named_and_not_combined() {
    let (recipient, shares) = set(3, 5);
    let (_, strangers) = set(3, 5);
    let texts: Vec<_> = shares.iter().map(Share::to_text).collect();
    let stranger = strangers[4].to_text();
    // Words of another share, of the same set: each line is sound by itself.
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("words:"));
        lines.map(ToOwned::to_owned).collect()
    };
    let damaged = texts[1].replace(&words(&texts[1])[2], &words(&texts[3])[2]);
    let bad = [("one", &**texts[0]), ("two", &damaged), ("six", &stranger)];
    let (why, left_out) = combine(read(&bad)).unwrap_err();
    assert_eq!(why, ShareError::TooFew { needed: 3, good: 1 });
    let names: Vec<&str> = left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["two", "six"]);
    assert_eq!(left_out[0].1, ShareError::Damaged(2));
    assert!(matches!(left_out[1].1, ShareError::Foreign { .. }));

    let enough = [
        bad[0],
        bad[1],
        bad[2],
        ("three", &**texts[2]),
        ("four", &**texts[3]),
    ];
    let combined = combine(read(&enough)).unwrap();
    assert_eq!(combined.identity.to_public().to_string(), recipient);
    assert_eq!(combined.left_out.len(), 2);
}

#[test]
fn the_same_share_twice_counts_once() {
    let (_, shares) = set(2, 3);
    let text = shares[0].to_text();
    let (why, left_out) = combine(read(&[("a", &text), ("b", &text)])).unwrap_err();
    assert_eq!(why, ShareError::TooFew { needed: 2, good: 1 });
    assert_eq!(left_out, [("b".to_owned(), ShareError::Duplicate(1))]);
}

#[test]
fn a_scanned_code_and_words_copied_by_hand_are_shares() {
    let (recipient, shares) = set(3, 4);
    let text = shares[0].to_text();
    let code = shares[1].to_code();
    let copied = shares[2].to_text();
    let copied: Vec<String> = copied
        .lines()
        .filter(|line| line.starts_with("words:") || line.starts_with("share:"))
        .map(str::to_ascii_uppercase)
        .map(|line| {
            line.replacen("WORDS", "words", 1)
                .replacen("SHARE", "share", 1)
        })
        .collect();
    let copied = copied.join("\r\n\r\n");
    let given = [("file", &**text), ("code", &**code), ("words", &*copied)];
    let combined = combine(read(&given)).unwrap();
    assert_eq!(combined.identity.to_public().to_string(), recipient);
    let (_, left_out) = combine(read(&given[2..])).unwrap_err();
    assert_eq!(left_out, [("words".to_owned(), ShareError::WordsAlone)]);
    assert!(code.len() < 700 && text.len() as u64 * 4 < MAX_FILE);
}

#[test]
fn shares_that_were_made_to_agree_give_nothing_but_the_recipient() {
    let (_, shares) = set(2, 2);
    let (other, _) = set(2, 2);
    // Whoever forges every share of a set can claim any recipient, but not be it.
    let forged: Vec<Share> = shares
        .into_iter()
        .map(|share| Share {
            set: Arc::new(Set {
                recipient: other.clone(),
                ..(*share.set).clone()
            }),
            index: share.index,
            secret: share.secret,
        })
        .collect();
    let forged = forged
        .into_iter()
        .map(|share| ("x".to_owned(), Ok(Given::Whole(share))));
    let (why, _) = combine(forged.collect()).unwrap_err();
    assert_eq!(why, ShareError::Mismatch(other));
}

#[test]
fn only_thresholds_that_make_sense_are_taken() {
    assert_eq!(
        Threshold::parse("3/5").map(|t| t.to_string()),
        Ok("3 of 5".to_owned())
    );
    assert!(Threshold::parse("2/2").is_ok() && Threshold::parse("16/16").is_ok());
    for wrong in ["1/3", "0/0", "4/3", "2/17", "3", "a/b", "-1/5", "2/3/4", ""] {
        assert_eq!(
            Threshold::parse(wrong),
            Err(ShareError::Threshold),
            "{wrong}"
        );
    }
}

proptest! {
    #[test]
    fn a_changed_file_is_the_same_share_or_none(at in 0_usize..2000, bit in 0_u8..8) {
        let (_, shares) = set(2, 2);
        let text = shares[0].to_text();
        let mut changed = text.as_bytes().to_vec();
        let at = at % changed.len();
        changed[at] ^= 1 << bit;
        if let Ok(Given::Whole(share)) = parse(&changed) {
            // What its digest does not cover makes it one of another set.
            if share.set.holds(share.index, &share.secret) {
                prop_assert_eq!(share.index, 1);
                prop_assert!(share.secret == shares[0].secret);
            }
        }
    }
}
