//! The filters beyond MiniJinja's own. Pure: no I/O, no clock.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::tz::TimeZone;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::environment::argument_text;
use super::lower::{FIRST, LAST};
use super::shorten;
use super::value::{OUTPUT_BYTES_MAX, PathKey, is_data_list, member, text_of, to_json};

pub(super) fn add(env: &mut Environment<'static>) {
    env.add_filter("urlencode", |value: &Value| {
        Ok::<_, Error>(super::url::encode(&argument_text(value)?))
    });
    env.add_filter("tojson", |value: &Value| {
        to_json(value).map(|json| json.to_string()).map_err(refuse)
    });
    env.add_filter("string", |value: &Value| argument_text(value));
    env.add_filter("b64encode", |value: &Value| {
        Ok::<_, Error>(STANDARD.encode(argument_text(value)?))
    });
    env.add_filter("b64decode", b64decode);
    env.add_filter("join", join);
    env.add_filter(FIRST, |state: &mut State, value: &Value| end(state, value, 0, "first"));
    env.add_filter(LAST, |state: &mut State, value: &Value| end(state, value, -1, "last"));
    env.add_filter("sha256", |value: &Value| {
        Ok::<_, Error>(hex::encode(Sha256::digest(argument_text(value)?)))
    });
    env.add_filter("hmac_sha256", |value: &Value, key: &Value| {
        let key = argument_text(key)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())
            .map_err(|_| refuse("the key has an unusable length"))?;
        mac.update(argument_text(value)?.as_bytes());
        Ok::<_, Error>(hex::encode(mac.finalize().into_bytes()))
    });
    env.add_filter("timestamp", timestamp);
    env.add_filter("minor_units", |value: &Value, digits: u32| {
        minor_units(&argument_text(value)?, digits).map(Value::from).map_err(refuse)
    });
    env.add_filter("money", |value: &Value, digits: u32| {
        money(&argument_text(value)?, digits).map_err(refuse)
    });
    env.add_filter("slug", |value: &Value| Ok::<_, Error>(slug(&argument_text(value)?)));
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// Of data the exact element; of what the engine made, what the engine says, at its price.
fn end(state: &mut State, value: &Value, at: i64, engine: &str) -> Result<Value, Error> {
    if is_data_list(value) {
        return Ok(member(value, &PathKey::Index(at)));
    }
    state.apply_filter(engine, std::slice::from_ref(value))
}

/// The texts of a list, as JSON spells them; `none` has none.
fn join(value: &Value, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let texts = match to_json(value).map_err(refuse)? {
        Json::Array(items) => items.iter().map(text_of).collect::<Result<Vec<_>, _>>(),
        Json::Null => return Err(refuse("the value is none, not a list")),
        Json::String(text) => Ok(text.chars().map(String::from).collect()),
        other => return Err(refuse(format!("{} is not a list", shorten(&other.to_string())))),
    };
    let texts = texts.map_err(refuse)?;
    let bytes =
        texts.iter().map(String::len).sum::<usize>() + separator.len().saturating_mul(texts.len());
    if bytes > OUTPUT_BYTES_MAX {
        return Err(refuse("the text is too large"));
    }
    Ok(texts.join(&separator))
}

/// Standard or URL-safe alphabet, padded or not; the result must be text.
fn b64decode(value: &Value) -> Result<String, Error> {
    let text = argument_text(value)?;
    let text: String = text
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse("the text is not base64"))?;
    String::from_utf8(bytes).map_err(|_| refuse("the decoded bytes are not UTF-8 text"))
}

/// `timestamp('%Y-%m-%d', zone='Europe/Berlin')`; without a format RFC 3339 in the zone.
fn timestamp(value: &Value, format: Option<String>, kwargs: Kwargs) -> Result<String, Error> {
    let format = match kwargs.get::<Option<String>>("format")? {
        Some(named) => Some(named),
        None => format,
    };
    let zone = kwargs.get::<Option<String>>("zone")?.unwrap_or_else(|| "UTC".to_owned());
    kwargs.assert_all_used()?;
    let zone =
        TimeZone::get(&zone).map_err(|_| refuse(format!("there is no time zone `{zone}`")))?;
    let json = to_json(value).map_err(refuse)?;
    let at = super::time::read(&json, None, None)
        .ok_or_else(|| refuse("the value is not a time (RFC 3339, RFC 2822, Unix s or ms)"))?;
    let zoned = at.to_zoned_datetime(zone);
    match format {
        Some(format) => jiff::fmt::strtime::format(&format, &zoned)
            .map_err(|error| refuse(format!("the format `{format}` cannot be used: {error}"))),
        None => Ok(zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()),
    }
}

const DIGITS_MAX: u32 = 18;

/// `"19.99"` with 2 digits is 1999: exact, and an error where a digit would be lost.
fn minor_units(text: &str, digits: u32) -> Result<i128, String> {
    if digits > DIGITS_MAX {
        return Err(format!("at most {DIGITS_MAX} digits"));
    }
    let bad = || "the value is not a decimal number".to_owned();
    let (sign, rest) = match text.trim().strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim()),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = digits as usize;
    if fraction.len() > digits {
        return Err(format!("the value has more than {digits} decimal places"));
    }
    let text = format!("{whole}{fraction:0<digits$}");
    text.parse::<i128>().map(|units| sign * units).map_err(|_| "the value is too large".to_owned())
}

/// 1999 with 2 digits is `"19.99"`.
fn money(text: &str, digits: u32) -> Result<String, String> {
    if digits > DIGITS_MAX {
        return Err(format!("at most {DIGITS_MAX} digits"));
    }
    let units: i128 = text
        .trim()
        .parse()
        .map_err(|_| "the value is not a whole number of minor units".to_owned())?;
    let sign = if units < 0 { "-" } else { "" };
    let base = 10u128.pow(digits);
    let units = units.unsigned_abs();
    if digits == 0 {
        return Ok(format!("{sign}{units}"));
    }
    let width = digits as usize;
    Ok(format!("{sign}{}.{:0width$}", units / base, units % base))
}

/// Lower case letters and digits of any script, joined by single hyphens.
fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact() {
        for (text, digits, expected) in [
            ("19.99", 2, Ok(1999)),
            ("19.9", 2, Ok(1990)),
            ("-0.01", 2, Ok(-1)),
            ("1001", 0, Ok(1001)),
            ("19.990", 2, Ok(1999)),
        ] {
            assert_eq!(minor_units(text, digits), expected, "{text}");
        }
        for (text, digits) in
            [("19.999", 2), ("", 2), (".5", 2), ("1e3", 2), ("1.2.3", 2), ("1", 99)]
        {
            assert!(minor_units(text, digits).is_err(), "{text}");
        }
        assert_eq!(money("1999", 2).unwrap(), "19.99");
        assert_eq!(money("-5", 2).unwrap(), "-0.05");
        assert_eq!(money("5", 0).unwrap(), "5");
        assert!(money("1.5", 2).is_err());
    }

    #[test]
    fn slugs() {
        assert_eq!(slug("  Hello, World! Ünï "), "hello-world-ünï");
    }
}
