//! One text for all spellings of a JSON value: keys sorted, numbers by value, no blanks (in the spirit of RFC 8785,
//! without its loss of large numbers). What hashes and comparisons of bodies stand on.

use serde_json::Value as Json;

/// The canonical text of `value` less the values of `left_out`, which point into it.
pub fn canonical(value: &Json, left_out: &[&Json]) -> String {
    let mut places: Vec<*const Json> =
        left_out.iter().map(|out| std::ptr::from_ref(*out)).collect();
    places.sort_unstable();
    let mut text = String::new();
    write(value, &places, &mut text);
    text
}

fn write(value: &Json, left_out: &[*const Json], text: &mut String) {
    let stays = |value: &Json| left_out.binary_search(&std::ptr::from_ref(value)).is_err();
    match value {
        Json::Null => text.push_str("null"),
        Json::Bool(true) => text.push_str("true"),
        Json::Bool(false) => text.push_str("false"),
        Json::Number(number) => text.push_str(&decimal(&number.to_string())),
        Json::String(string) => quote(string, text),
        Json::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().filter(|item| stays(item)).enumerate() {
                separate(place, text);
                write(item, left_out, text);
            }
            text.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(_, value)| stays(value)).collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (place, (name, value)) in members.into_iter().enumerate() {
                separate(place, text);
                quote(name, text);
                text.push(':');
                write(value, left_out, text);
            }
            text.push('}');
        }
    }
}

fn separate(place: usize, text: &mut String) {
    if place > 0 {
        text.push(',');
    }
}

fn quote(string: &str, text: &mut String) {
    text.push_str(&Json::from(string).to_string());
}

/// `1`, `1.0`, `10e-1` → `1e0`: significant digits without zeros at either end, and a power of ten. Exact for numbers of
/// any length. An exponent beyond 64 bits stays as it was written.
fn decimal(number: &str) -> String {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let shift = exponent
        .parse::<i64>()
        .ok()
        .zip(i64::try_from(zeros).ok())
        .zip(i64::try_from(fraction.len()).ok())
        .and_then(|((exponent, zeros), fraction)| exponent.checked_add(zeros - fraction));
    match shift {
        Some(shift) => format!("{sign}{significant}e{shift}"),
        None => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn spellings_of_one_value_are_one_text() {
        let check = |left: &str, right: &str, same: bool| {
            let (left, right) = (canonical(&parse(left), &[]), canonical(&parse(right), &[]));
            assert_eq!(left == right, same, "{left} {right}");
        };
        check(r#"{"b":1,"a":[1, 2]}"#, "{ \"a\":[1,2],\"b\":1 }", true);
        check("[1.0, 10e-1, 0.1E1]", "[1,1,1]", true);
        check("100", "1e2", true);
        check("-0.0", "0", true);
        check(r#""\u00e9\/""#, r#""é/""#, true);
        check("[1,2]", "[2,1]", false);
        check("12345678901234567890.01", "12345678901234567890.02", false);
        check("-1", "1", false);
        check("10", "1", false);
        check(r#""1""#, "1", false);
        check("null", "[]", false);
        check("1e99999999999999999999", "1e99999999999999999999", true);
    }

    #[test]
    fn what_is_left_out_is_gone_and_its_equal_elsewhere_stays() {
        let value = parse(r#"{"a":{"try":1},"b":1,"c":[1,2]}"#);
        let check = |pointers: &[&str], expected: &str| {
            let out: Vec<&Json> = pointers.iter().map(|at| value.pointer(at).unwrap()).collect();
            assert_eq!(canonical(&value, &out), expected);
        };
        check(&[], r#"{"a":{"try":1e0},"b":1e0,"c":[1e0,2e0]}"#);
        check(&["/a/try"], r#"{"a":{},"b":1e0,"c":[1e0,2e0]}"#);
        check(&["/c/0", "/b"], r#"{"a":{"try":1e0},"c":[2e0]}"#);
    }

    proptest! {
        #[test]
        fn any_number_keeps_its_value(number in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
            let again = canonical(&parse(&canonical(&parse(&number), &[])), &[]);
            prop_assert_eq!(canonical(&parse(&number), &[]), again);
        }
    }
}
