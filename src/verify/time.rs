//! Signed times: reading them and judging their distance from now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::scheme::{Rejection, TimeUnit};

pub(super) fn read(text: &str, unit: TimeUnit) -> Option<Timestamp> {
    // Only digits: a sign, blanks or a fraction would be a second spelling of one signed time.
    let number = || {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i64>().ok()).flatten()
    };
    match unit {
        TimeUnit::UnixSeconds => Timestamp::from_second(number()?).ok(),
        TimeUnit::UnixMillis => Timestamp::from_millisecond(number()?).ok(),
        TimeUnit::Rfc3339 => text.parse().ok(),
        TimeUnit::HttpDate => {
            let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
            text.ends_with(" GMT").then(|| zoned.timestamp())
        }
    }
}

pub(super) fn write(time: Timestamp, unit: TimeUnit) -> String {
    match unit {
        TimeUnit::UnixSeconds => time.as_second().to_string(),
        TimeUnit::UnixMillis => time.as_millisecond().to_string(),
        TimeUnit::Rfc3339 => time.to_string(),
        TimeUnit::HttpDate => time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    }
}

/// Exactly the tolerance away is still near enough.
pub(super) fn judge(
    signed_at: Timestamp,
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), Rejection> {
    let tolerance = SignedDuration::try_from(tolerance).unwrap_or(SignedDuration::MAX);
    let age = now.duration_since(signed_at);
    if age > tolerance {
        Err(Rejection::StaleTimestamp)
    } else if age < -tolerance {
        Err(Rejection::FutureTimestamp)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_spelling_only() {
        let check = |text, unit, expected: Option<i64>| {
            assert_eq!(read(text, unit).map(Timestamp::as_second), expected, "{text:?}");
        };
        check("1614265330", TimeUnit::UnixSeconds, Some(1_614_265_330));
        check("1614265330000", TimeUnit::UnixMillis, Some(1_614_265_330));
        check("2021-02-25T15:02:10.123456789Z", TimeUnit::Rfc3339, Some(1_614_265_330));
        for text in ["", "+1", "-1", " 1", "1 ", "1.0", "0x1", "1e9", "99999999999999999999999"] {
            check(text, TimeUnit::UnixSeconds, None);
            check(text, TimeUnit::UnixMillis, None);
        }
        check("9223372036854775807", TimeUnit::UnixSeconds, None);
        check("yesterday", TimeUnit::Rfc3339, None);
        check("Thu, 25 Feb 2021 15:02:10 GMT", TimeUnit::HttpDate, Some(1_614_265_330));
        for text in
            ["Thu, 25 Feb 2021 15:02:10 +0000", "1614265330", "", "Fri, 25 Feb 2021 15:02:10 GMT"]
        {
            check(text, TimeUnit::HttpDate, None);
        }
        let time = Timestamp::from_second(1_614_265_330).unwrap();
        assert_eq!(write(time, TimeUnit::HttpDate), "Thu, 25 Feb 2021 15:02:10 GMT");
    }

    #[test]
    fn both_ends_of_the_tolerance() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let check = |signed_at: i64, expected| {
            let signed_at = Timestamp::from_second(signed_at).unwrap();
            assert_eq!(judge(signed_at, now, Duration::from_secs(300)), expected, "{signed_at}");
        };
        check(1_000_000, Ok(()));
        check(999_700, Ok(()));
        check(1_000_300, Ok(()));
        check(999_699, Err(Rejection::StaleTimestamp));
        check(1_000_301, Err(Rejection::FutureTimestamp));
    }
}
