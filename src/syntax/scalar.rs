//! A plain scalar's text → null, true, false, a number or text, by the core schema of YAML 1.2.

/// What an unquoted scalar is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    /// As JSON spells it.
    Number(String),
    /// `.inf`, `.nan` and whole numbers past 128 bits: no JSON carries them.
    NoJson,
    Text,
}

pub(super) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", text.trim_start_matches('-')),
        Some(b'+') => ("", text.trim_start_matches('+')),
        _ => ("", text),
    };
    // Two signs are text.
    if text.len() - digits.len() > 1 {
        return Plain::Text;
    }
    match digits {
        ".inf" | ".Inf" | ".INF" => return Plain::NoJson,
        ".nan" | ".NaN" | ".NAN" if digits.len() == text.len() => return Plain::NoJson,
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            let signed = digits.len() != text.len();
            if signed || rest.is_empty() || !rest.chars().all(|digit| digit.is_digit(radix)) {
                return Plain::Text;
            }
            return match u128::from_str_radix(rest, radix) {
                Ok(value) => Plain::Number(value.to_string()),
                Err(_) => Plain::NoJson,
            };
        }
    }
    decimal(digits).map_or(Plain::Text, |number| Plain::Number(format!("{sign}{number}")))
}

/// `1_000`, `1.50`, `.5`, `5.`, `1e3` → JSON's spelling, digits kept.
fn decimal(text: &str) -> Option<String> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, Some(text.get(at + 1..)?)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole_digits = grouped(whole)?;
    let fraction_ok =
        fraction.is_none_or(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    if !fraction_ok || whole.is_empty() && fraction.unwrap_or("").is_empty() {
        return None;
    }
    let mut number = match whole_digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    if let Some(digits) = fraction.filter(|digits| !digits.is_empty()) {
        number.push('.');
        number.push_str(digits);
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        number.push('e');
        number.push_str(exponent);
    }
    Some(number)
}

/// Digits in which single `_` stand between digits.
fn grouped(text: &str) -> Option<String> {
    let groups_ok = text.is_empty()
        || text
            .split('_')
            .all(|group| !group.is_empty() && group.bytes().all(|digit| digit.is_ascii_digit()));
    groups_ok.then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Plain) {
        assert_eq!(resolve(text), expected, "{text}");
    }

    fn number(text: &str, expected: &str) {
        check(text, Plain::Number(expected.to_owned()));
        assert!(serde_json::from_str::<serde_json::Number>(expected).is_ok(), "{expected}");
    }

    #[test]
    fn core_schema() {
        for text in [
            "yes", "no", "on", "off", "y", "1_", "_1", "1__0", "1.2.3", "1e", "e1", "-", "+", ".",
            "--1", "-0x1",
        ] {
            check(text, Plain::Text);
        }
        for text in ["12:30", "2026-11-23", "0b1", "1 2", "tRue", "0x", "0xg", "-.nan", "1.2_3"] {
            check(text, Plain::Text);
        }
        check("~", Plain::Null);
        check("TRUE", Plain::Bool(true));
        check("False", Plain::Bool(false));
        check(".inf", Plain::NoJson);
        check("-.INF", Plain::NoJson);
        number("1_000_000", "1000000");
        number("-12", "-12");
        number("+12", "12");
        number("007", "7");
        number("0", "0");
        number("-0", "-0");
        number("1.10", "1.10");
        number(".5", "0.5");
        number("5.", "5");
        number("1e3", "1e3");
        number("1.5E-7", "1.5e-7");
        number("0x1F", "31");
        number("0o17", "15");
        number("123456789012345678901234567890.123", "123456789012345678901234567890.123");
    }
}
