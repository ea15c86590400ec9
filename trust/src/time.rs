//! Times as Notary's documents write them.

use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z. The time is always an argument in this crate.
pub type UnixTime = i64;

/// The `expires` member: RFC 3339, kept as it was written so that a document re-encodes to the
/// same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    text: String,
    at: UnixTime,
}

/// Text that is not an RFC 3339 time with a zone, or lies outside the years 0 to 9999.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time")]
pub struct BadTime(pub String);

impl Expiry {
    /// Reads the text of a document.
    ///
    /// # Errors
    ///
    /// When it is not RFC 3339 with a zone.
    pub fn parse(text: &str) -> Result<Self, BadTime> {
        let bad = || BadTime(text.chars().take(64).collect());
        if !is_rfc3339(text.as_bytes()) {
            return Err(bad());
        }
        let at = text
            .parse::<jiff::Timestamp>()
            .map_err(|_| bad())?
            .as_second();
        if !(EARLIEST..=LATEST).contains(&at) {
            return Err(bad());
        }
        Ok(Self {
            text: text.to_owned(),
            at,
        })
    }

    /// A time in UTC with `Z` and no fraction, as our writer always makes it. Times outside the
    /// years 0 to 9999, which the text cannot hold, become the nearest that it can.
    #[must_use]
    pub fn at(at: UnixTime) -> Self {
        let at = at.clamp(EARLIEST, LATEST);
        let text = jiff::Timestamp::from_second(at)
            .expect("the years 0 to 9999 lie within jiff's range")
            .to_string();
        Self { text, at }
    }

    /// The instant.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        self.at
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `now` is past it.
    #[must_use]
    pub fn is_past(&self, now: UnixTime) -> bool {
        self.at < now
    }
}

impl Expiry {
    /// Whether it ends within six calendar months of `now`, from when on the Go client re-signs a
    /// root (notary `client/helpers.go`, `nearExpiry`: `AddDate(0, 6, 0)`).
    #[must_use]
    pub fn is_near(&self, now: UnixTime) -> bool {
        let now = now.clamp(EARLIEST, LATEST - lifetime::ROOT);
        let then = jiff::Timestamp::from_second(now).ok().and_then(|now| {
            let now = jiff::tz::Offset::UTC.to_datetime(now);
            // As Go has it, the day after the 30th of June is the 31st of June.
            let month = now
                .first_of_month()
                .checked_add(jiff::Span::new().months(6))
                .ok()?;
            let then = month
                .checked_add(jiff::Span::new().days(now.day() - 1))
                .ok()?;
            jiff::tz::Offset::UTC.to_timestamp(then).ok()
        });
        then.is_some_and(|then| self.at < then.as_second())
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Default lifetimes at each signing, in seconds (notary `tuf/data/types.go`, `NotaryDefaultExpiries`).
pub mod lifetime {
    use super::UnixTime;

    const DAY: UnixTime = 24 * 60 * 60;
    /// Ten years of 365 days.
    pub const ROOT: UnixTime = 10 * 365 * DAY;
    /// Three years of 365 days; targets and every delegation.
    pub const TARGETS: UnixTime = 3 * 365 * DAY;
    /// Three years of 365 days.
    pub const SNAPSHOT: UnixTime = 3 * 365 * DAY;
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±hh:mm)` with the digits in range, as Go's `time.RFC3339Nano`
/// reads it. Jiff alone would take more: a space for the `T`, a leap second, a bracketed zone.
fn is_rfc3339(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let shape = date_time
        .iter()
        .zip(b"0000-00-00T00:00:00")
        .all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            _ => byte == wanted,
        });
    if !shape || date_time[17] > b'5' {
        return false;
    }
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if digits == 0 || digits > 9 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let number = |a: &u8, b: &u8| {
                (a.is_ascii_digit() && b.is_ascii_digit()).then(|| (a - b'0') * 10 + (b - b'0'))
            };
            number(h1, h2).is_some_and(|hours| hours < 24)
                && number(m1, m2).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    }
}

/// 0000-01-01T00:00:00Z
const EARLIEST: UnixTime = -62_167_219_200;
/// 9999-12-30T22:00:00Z: the last second that jiff's `Timestamp` holds in every zone.
const LATEST: UnixTime = 253_402_207_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read_and_kept_as_text() {
        for (text, at) in [
            ("2036-11-18T16:32:13.429278842Z", 2_110_638_733),
            ("2029-11-20T22:20:06.901543015+05:30", 1_889_887_806),
            ("2026-11-21T00:00:00Z", 1_795_219_200),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
            ("1969-12-31T23:59:59.5Z", 0),
        ] {
            let expiry = Expiry::parse(text).unwrap();
            assert_eq!((expiry.as_str(), expiry.unix()), (text, at));
        }
    }

    #[test]
    fn other_spellings_of_a_time_are_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T00:00:00",
            "2026-11-21 00:00:00Z",
            "2026-11-21t00:00:00z",
            "2026-11-21T00:00:60Z",
            "2026-11-21T00:00:00.Z",
            "2026-11-21T00:00:00,5Z",
            "2026-11-21T00:00:00.1234567890Z",
            "2026-11-21T00:00:00+24:00",
            "2026-11-21T00:00:00+0100",
            "2026-11-21T00:00:00Z[UTC]",
            "2026-02-30T00:00:00Z",
            "+02026-11-21T00:00:00Z",
        ] {
            assert!(Expiry::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn near_means_within_six_calendar_months() {
        let at = |text| Expiry::parse(text).unwrap();
        let now = at("2026-08-31T12:00:00Z").unix();
        assert!(at("2026-08-30T12:00:00Z").is_near(now));
        // Go adds months to the number of the month: the 31st of February is the 3rd of March.
        assert!(at("2027-03-03T11:59:59Z").is_near(now));
        assert!(!at("2027-03-03T12:00:00Z").is_near(now));
        assert!(!at("2036-08-31T12:00:00Z").is_near(now));
    }

    #[test]
    fn our_times_have_no_fraction_and_read_back() {
        for at in [i64::MIN, EARLIEST, -1, 0, 1_795_219_200, LATEST, i64::MAX] {
            let expiry = Expiry::at(at);
            assert!(expiry.as_str().ends_with('Z') && !expiry.as_str().contains('.'));
            assert_eq!(Expiry::parse(expiry.as_str()), Ok(expiry));
        }
        assert_eq!(Expiry::at(1_795_219_200).as_str(), "2026-11-21T00:00:00Z");
    }
}
