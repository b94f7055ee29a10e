//! What an event may be searched by: mapped fields enter, search terms leave. Pure.

use serde_json::{Map, Value as Json};

use crate::extract::types::scalar_text;
use crate::store::{TERMS_MAX, Term};

/// Longer values are texts to be read, not names to be found by.
const VALUE_BYTES_MAX: usize = 256;

/// At most [`TERMS_MAX`] distinct ones, in the order of the fields. Elements of lists come last: one long list must not
/// crowd the other fields out.
pub(super) fn terms_of(fields: &Map<String, Json>) -> Vec<Term> {
    let scalars = fields.iter().filter(|(_, value)| !value.is_array());
    let elements = fields.iter().flat_map(|(name, value)| {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let plain = !items.iter().any(|item| item.is_array() || item.is_object());
        items.iter().filter(move |_| plain).map(move |item| (name, item))
    });
    let mut terms: Vec<Term> = Vec::new();
    for (name, value) in scalars.chain(elements) {
        let value = scalar_text(value);
        let Some(value) = value.filter(|text| (1..=VALUE_BYTES_MAX).contains(&text.len())) else {
            continue;
        };
        let term = Term { field: name.clone(), value };
        if !terms.contains(&term) {
            terms.push(term);
        }
        if terms.len() == TERMS_MAX {
            break;
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &str, expected: &[&str]) {
        let fields = serde_json::from_str(fields).unwrap();
        let terms = terms_of(&fields).into_iter();
        let shown: Vec<String> =
            terms.map(|term| format!("{}={}", term.field, term.value)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn scalars_and_lists_of_scalars_become_terms() {
        check(r#"{"a":"x y","n":1.10,"b":true,"z":0}"#, &["a=x y", "n=1.10", "b=true", "z=0"]);
        check(r#"{"a":"","b":null,"o":{"k":1},"m":[1,{"k":2}],"l":[[1]]}"#, &[]);
        check(r#"{"l":["x",null,"",2,"x"],"a":"last"}"#, &["a=last", "l=x", "l=2"]);
        let (fits, long) = ("x".repeat(256), "x".repeat(257));
        check(&format!(r#"{{"a":"{fits}","b":"{long}"}}"#), &[&format!("a={fits}")]);
    }

    #[test]
    fn a_long_list_leaves_the_other_fields_their_room() {
        let list: Vec<u32> = (0..100).collect();
        let fields = serde_json::json!({ "list": list, "id": "7" });
        let terms = terms_of(fields.as_object().unwrap());
        assert_eq!(terms.len(), TERMS_MAX);
        assert_eq!(terms[0], Term { field: "id".into(), value: "7".into() });
        assert_eq!(terms[15], Term { field: "list".into(), value: "14".into() });
    }
}
