//! The types that an extraction may ask for, and how a JSON value takes each of them.

use jiff::tz::TimeZone;
use serde_json::{Number, Value as Json};

use crate::template::time;

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Takes text, numbers and booleans.
    String,
    /// Takes integral numbers and digit strings.
    Integer,
    /// Exact text.
    Decimal,
    Number,
    /// Takes true and false, their text, 1 and 0.
    Boolean,
    /// RFC 3339 text in UTC.
    Timestamp,
    /// Any value.
    Json,
}

impl Type {
    pub fn as_str(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Integer => "integer",
            Type::Decimal => "decimal",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::Timestamp => "timestamp",
            Type::Json => "json",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|type_| type_.as_str() == text)
    }

    pub const ALL: [Type; 7] = [
        Type::String,
        Type::Integer,
        Type::Decimal,
        Type::Number,
        Type::Boolean,
        Type::Timestamp,
        Type::Json,
    ];

    /// The value as this type; `None` where it cannot be one.
    pub fn take(self, value: &Json, format: Option<&str>, zone: Option<&TimeZone>) -> Option<Json> {
        match self {
            Type::Json => Some(value.clone()),
            Type::String => match value {
                Json::String(_) => Some(value.clone()),
                Json::Number(number) => Some(Json::from(number.as_str())),
                Json::Bool(flag) => Some(Json::from(flag.to_string())),
                Json::Null | Json::Array(_) | Json::Object(_) => None,
            },
            Type::Integer => match value {
                Json::Number(number) => integer(number.as_str()),
                Json::String(text) => integer_text(text),
                Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
            },
            Type::Decimal => {
                let text = number_text(value)?;
                let digits = text.strip_prefix('-').unwrap_or(text);
                let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
                let all_digits =
                    |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
                // A number such as 1e3 is a decimal too; its text stays as it was written.
                let exponent = matches!(value, Json::Number(_));
                ((all_digits(whole) && all_digits(fraction)) || exponent).then(|| Json::from(text))
            }
            Type::Number => match value {
                Json::Number(_) => Some(value.clone()),
                Json::String(text) => text.trim().parse::<Number>().ok().map(Json::Number),
                Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
            },
            Type::Boolean => match value {
                Json::Bool(_) => Some(value.clone()),
                Json::String(_) | Json::Number(_) => match scalar_text(value)?.as_str() {
                    "true" | "1" => Some(Json::Bool(true)),
                    "false" | "0" => Some(Json::Bool(false)),
                    _ => None,
                },
                Json::Null | Json::Array(_) | Json::Object(_) => None,
            },
            Type::Timestamp => time::read(value, format, zone).map(|at| Json::from(at.to_string())),
        }
    }
}

/// Text, number or boolean as text.
pub(crate) fn scalar_text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.as_str().to_owned()),
        Json::Bool(flag) => Some(flag.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn number_text(value: &Json) -> Option<&str> {
    match value {
        Json::Number(number) => Some(number.as_str()),
        Json::String(text) => Some(text.trim()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn integer_text(text: &str) -> Option<Json> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let trimmed = digits.trim_start_matches('0');
    let digits = if trimmed.is_empty() { "0" } else { trimmed };
    let sign = if text.starts_with('-') && digits != "0" { "-" } else { "" };
    format!("{sign}{digits}").parse::<Number>().ok().map(Json::Number)
}

/// `1001`, `1001.0` and `1.5e1` are integral; exact for any length.
fn integer(text: &str) -> Option<Json> {
    const EXPONENT_MAX: i32 = 40;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let zeros = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|b| b == b'0') {
        return integer_text("0");
    }
    if zeros > EXPONENT_MAX {
        return None;
    }
    match usize::try_from(zeros) {
        Ok(zeros) => integer_text(&format!("{sign}{digits}{}", "0".repeat(zeros))),
        Err(_) => {
            let drop = usize::try_from(zeros.unsigned_abs()).ok()?;
            let keep = digits.len().checked_sub(drop)?;
            let (kept, dropped) = digits.split_at_checked(keep)?;
            dropped.bytes().all(|b| b == b'0').then(|| integer_text(&format!("{sign}{kept}")))?
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(type_: Type, value: &str, expected: &str) {
        let value: Json = serde_json::from_str(value).unwrap();
        let taken = type_.take(&value, None, None).map_or("-".to_owned(), |json| json.to_string());
        assert_eq!(taken, expected, "{type_:?} {value}");
    }

    #[test]
    fn types_take_what_the_language_says() {
        check(Type::String, "1001", "\"1001\"");
        check(Type::String, "19.90", "\"19.90\"");
        check(Type::String, "true", "\"true\"");
        check(Type::String, "[]", "-");
        check(Type::Integer, "1001", "1001");
        check(Type::Integer, "1001.0", "1001");
        check(Type::Integer, "1e3", "1000");
        check(Type::Integer, "1.5", "-");
        check(Type::Integer, "\"007\"", "7");
        check(Type::Integer, "\"7.0\"", "-");
        check(Type::Integer, "true", "-");
        check(Type::Integer, "123456789012345678901234567890", "123456789012345678901234567890");
        check(Type::Integer, "1e400000000", "-");
        check(Type::Decimal, "19.90", "\"19.90\"");
        check(Type::Decimal, "\"19.90\"", "\"19.90\"");
        check(Type::Decimal, "\"abc\"", "-");
        check(Type::Number, "\"19.90\"", "19.90");
        check(Type::Number, "\"x\"", "-");
        check(Type::Boolean, "1", "true");
        check(Type::Boolean, "\"false\"", "false");
        check(Type::Boolean, "\"yes\"", "-");
        check(Type::Timestamp, "1700000000", "\"2023-11-14T22:13:20Z\"");
        check(Type::Timestamp, "1700000000123", "\"2023-11-14T22:13:20.123Z\"");
        check(Type::Timestamp, "\"2023-11-14T23:13:20+01:00\"", "\"2023-11-14T22:13:20Z\"");
        check(Type::Timestamp, "\"Tue, 14 Nov 2023 22:13:20 GMT\"", "\"2023-11-14T22:13:20Z\"");
        check(Type::Timestamp, "\"2023-11-14 22:13:20\"", "\"2023-11-14T22:13:20Z\"");
        check(Type::Timestamp, "\"soon\"", "-");
        check(Type::Timestamp, "1e999", "-");
    }

    #[test]
    fn formats_and_zones() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = time::read(&json!("14/11/2023 22:13"), Some("%d/%m/%Y %H:%M"), Some(&zone));
        assert_eq!(at.unwrap().to_string(), "2023-11-14T20:13:00Z");
    }
}
