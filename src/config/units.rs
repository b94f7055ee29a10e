//! Durations and sizes as the language writes them. The error is what to say about the text.

use std::time::Duration;

/// A century: past it a number is a slip of the hand, and sums of times stay far from overflow.
const DURATION_MAX_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Whole numbers with `ms s m h d w`, each unit once and from great to small: `10s`, `1h30m`. A day has 24 hours.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 6] = [
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    const HELP: &str =
        "write whole numbers with `ms`, `s`, `m`, `h`, `d` or `w`, such as `10s` or `1h30m`";
    let text = text.replace('_', "");
    let mut rest = text.as_str();
    let mut total_ms = 0u64;
    let mut next_unit = 0;
    if rest.is_empty() {
        return Err(HELP.to_owned());
    }
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).ok_or(HELP)?;
        let (digits, after) = rest.split_at(digits_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let count: u64 = digits.parse().map_err(|_| HELP)?;
        let position = UNITS.iter().position(|(name, _)| *name == unit).ok_or(HELP)?;
        if position < next_unit {
            return Err("write each unit once, the greatest first, such as `1h30m`".to_owned());
        }
        next_unit = position + 1;
        total_ms = count
            .checked_mul(UNITS[position].1)
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|total| *total <= DURATION_MAX_MS)
            .ok_or("write less than a hundred years")?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Bytes: `512KB` (1000s), `1MiB` (1024s), or a bare number.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    const HELP: &str = "write a whole number of bytes, or with `KB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`, such as `512KB` or `1MiB`";
    let text = text.replace('_', "");
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = unit.trim_start();
    let count: u64 = digits.parse().map_err(|_| HELP)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(HELP)?;
    count.checked_mul(*factor).ok_or_else(|| HELP.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        fn check(text: &str, expected_ms: Option<u64>) {
            assert_eq!(duration(text).ok(), expected_ms.map(Duration::from_millis), "{text}");
        }
        check("10s", Some(10_000));
        check("1h30m", Some(5_400_000));
        check("1m500ms", Some(60_500));
        check("1w2d", Some(777_600_000));
        check("1_000ms", Some(1000));
        check("0s", Some(0));
        check("30m1h", None);
        check("1s1s", None);
        check("10", None);
        check("1.5h", None);
        check("s", None);
        check("", None);
        check("10 s", None);
        check("-1s", None);
        check("99999999999999999999s", None);
        check("36501d", None);
    }

    #[test]
    fn sizes() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        check("1MiB", Some(1 << 20));
        check("512KB", Some(512_000));
        check("25 MB", Some(25_000_000));
        check("1_024", Some(1024));
        check("7B", Some(7));
        check("1TB", None);
        check("", None);
        check("1.5MiB", None);
        check("99999999999GiB", None);
    }
}
