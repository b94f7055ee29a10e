//! The retry schedule: exponential with full jitter, bounded in number and in time, Retry-After obeyed. Times and a drawn
//! number enter, the next moment or the end leaves.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `retry`, merged: step over route over destination over built-in.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// No attempt starts later than this after the step's first one.
    pub within: Duration,
    pub attempts: u32,
    pub first: Duration,
    pub factor: f64,
    pub max: Duration,
    pub jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Uniform between nothing and the step's delay.
    Full,
    None,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(24 * 3600),
            attempts: 100,
            first: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(3600),
            jitter: Jitter::Full,
        }
    }
}

/// What the schedule says after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    After(Duration),
    AttemptsExhausted,
    TimeExhausted,
}

/// How late an attempt may start and still count in full towards `retry.for`. What is beyond it is time in which nobody
/// tried: the router was down, or the wall clock jumped ahead.
const LATENESS_MAX: SignedDuration = SignedDuration::from_hours(1);

impl Retry {
    /// What follows attempt number `made`. `elapsed` is the time from the first attempt's start to the last one's end,
    /// `unit` is drawn from `0.0..1.0`, and `retry_after` is what the other side asked for: it is a lower bound, and
    /// past what is left of `for` there is no sense in waiting for it.
    pub fn next(
        &self,
        made: u32,
        elapsed: Duration,
        unit: f64,
        retry_after: Option<Duration>,
    ) -> Next {
        if made >= self.attempts {
            return Next::AttemptsExhausted;
        }
        let drawn = match self.jitter {
            Jitter::Full => self.delay(made).mul_f64(unit.clamp(0.0, 1.0)),
            Jitter::None => self.delay(made),
        };
        let delay = drawn.max(retry_after.unwrap_or_default());
        match elapsed.checked_add(delay) {
            Some(start) if start <= self.within => Next::After(delay),
            _ => Next::TimeExhausted,
        }
    }

    /// The greatest delay after attempt number `made`: `first × factor^(made-1)`, at most `max`.
    fn delay(&self, made: u32) -> Duration {
        let exponent = i32::try_from(made.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        // Infinite and absurd products fall to `max` too.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max).min(self.max)
    }
}

/// The moment from which `retry.for` counts, as it stands when an attempt starts at `now`. An attempt far past its due
/// time moves it along, and one "before the first" starts it over: so neither an outage nor a clock that jumps ends the
/// retries. The number of attempts bounds them in any case.
pub fn counted_from(
    first_attempt_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let Some(first) = first_attempt_at else { return now };
    let late = due_at.map_or(SignedDuration::ZERO, |due| now.duration_since(due));
    let moved = match late > LATENESS_MAX {
        true => first.checked_add(late - LATENESS_MAX).unwrap_or(now),
        false => first,
    };
    moved.min(now)
}

/// The value of a `Retry-After` header: seconds, or an HTTP date (RFC 9110, 10.2.3). A date that has passed is zero.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "never": the bound of `for` answers that.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn steady() -> Retry {
        Retry {
            within: secs(100),
            attempts: 5,
            first: secs(1),
            factor: 2.0,
            max: secs(6),
            jitter: Jitter::None,
        }
    }

    fn check(made: u32, elapsed: u64, after: Option<u64>, expected: Next) {
        assert_eq!(steady().next(made, secs(elapsed), 0.5, after.map(secs)), expected);
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_end() {
        check(1, 0, None, Next::After(secs(1)));
        check(2, 1, None, Next::After(secs(2)));
        check(3, 3, None, Next::After(secs(4)));
        check(4, 7, None, Next::After(secs(6)));
        check(5, 13, None, Next::AttemptsExhausted);
    }

    #[test]
    fn retry_after_is_a_lower_bound_within_what_is_left() {
        check(1, 0, Some(30), Next::After(secs(30)));
        check(3, 0, Some(2), Next::After(secs(4)));
        check(1, 70, Some(30), Next::After(secs(30)));
        check(1, 71, Some(30), Next::TimeExhausted);
        check(1, 0, Some(u64::MAX), Next::TimeExhausted);
        check(1, 99, None, Next::After(secs(1)));
        check(1, 100, None, Next::TimeExhausted);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(secs(120))),
            (" 0 ", Some(secs(0))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(secs(30))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(secs(0))),
            ("99999999999999999999999", Some(secs(u64::from(u32::MAX)))),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }

    #[test]
    fn outages_and_clock_jumps_move_what_for_counts_from() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = at("2026-01-01T00:00:00Z");
        let due = at("2026-01-01T01:00:00Z");
        for (now, expected) in [
            ("2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T01:59:00Z", "2026-01-01T00:00:00Z"),
            // An hour late counts; the day beyond it does not.
            ("2026-01-02T02:00:00Z", "2026-01-02T00:00:00Z"),
            ("2027-01-01T02:00:00Z", "2027-01-01T00:00:00Z"),
            // Back before the first attempt: it starts over.
            ("2025-06-01T00:00:00Z", "2025-06-01T00:00:00Z"),
        ] {
            assert_eq!(counted_from(Some(first), Some(due), at(now)), at(expected), "{now}");
        }
        assert_eq!(counted_from(None, None, due), due);
    }

    proptest! {
        #[test]
        fn attempts_and_time_are_bounded(
            within in 0u64..1_000_000, attempts in 0u32..500, first in 0u64..10_000, factor in 0.0f64..100.0,
            max in 0u64..100_000, made in 0u32..1_000, elapsed in 0u64..2_000_000, unit in 0.0f64..1.0,
            after in proptest::option::of(any::<u64>()),
        ) {
            let retry = Retry { within: secs(within), attempts, first: secs(first), factor, max: secs(max), jitter: Jitter::Full };
            if let Next::After(delay) = retry.next(made, secs(elapsed), unit, after.map(secs)) {
                prop_assert!(made < attempts);
                prop_assert!(secs(elapsed) + delay <= retry.within);
                prop_assert!(delay >= after.map(secs).unwrap_or_default());
                prop_assert!(delay <= retry.max.max(after.map(secs).unwrap_or_default()));
            }
        }

        #[test]
        fn no_header_value_panics(value in "\\PC*") {
            let _any = retry_after(&value, Timestamp::UNIX_EPOCH);
        }
    }
}
