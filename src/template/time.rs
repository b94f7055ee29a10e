//! Times as senders write them. Pure: no clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use serde_json::Value as Json;

/// RFC 3339, RFC 2822, Unix seconds or milliseconds, or as `format` says; without a zone in it, in `zone` or UTC.
pub(crate) fn read(
    value: &Json,
    format: Option<&str>,
    zone: Option<&TimeZone>,
) -> Option<Timestamp> {
    let text = number_text(value)?;
    let zone = zone.cloned().unwrap_or(TimeZone::UTC);
    let local =
        |at: DateTime| at.to_zoned_datetime(zone.clone()).ok().map(|zoned| zoned.timestamp());
    match format {
        Some("unix") => unix(text, 1_000_000_000),
        Some("unix_ms") => unix(text, 1_000_000),
        Some(format) => {
            let broken = strtime::parse(format, text).ok()?;
            match broken.to_timestamp() {
                Ok(at) => Some(at),
                Err(_) => match broken.to_datetime() {
                    Ok(at) => local(at),
                    Err(_) => local(broken.to_date().ok()?.at(0, 0, 0, 0)),
                },
            }
        }
        None => {
            if text.bytes().all(|b| {
                b.is_ascii_digit() || b == b'.' || b == b'-' || b == b'e' || b == b'E' || b == b'+'
            }) && let Ok(number) = text.parse::<f64>()
            {
                // Seconds of today have ten digits; eleven digits of seconds are the year 5138.
                let scale = if number.abs() < 1e11 { 1_000_000_000 } else { 1_000_000 };
                return unix(text, scale);
            }
            text.parse::<Timestamp>()
                .ok()
                .or_else(|| rfc2822::parse(text).ok().map(|zoned| zoned.timestamp()))
                .or_else(|| local(text.parse::<DateTime>().ok()?))
        }
    }
}

fn unix(text: &str, nanoseconds_each: i128) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let units: i128 = whole.parse().ok()?;
    let mut nanoseconds = units.checked_mul(nanoseconds_each)?;
    let mut each = nanoseconds_each;
    for digit in fraction.chars() {
        each /= 10;
        let part = i128::from(digit.to_digit(10)?) * each;
        nanoseconds += if whole.starts_with('-') { -part } else { part };
    }
    Timestamp::from_nanosecond(nanoseconds).ok()
}

fn number_text(value: &Json) -> Option<&str> {
    match value {
        Json::Number(number) => Some(number.as_str()),
        Json::String(text) => Some(text.trim()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}
