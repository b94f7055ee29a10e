//! The elements of a JSON body that each prove themselves (`for_each`).

use serde_json::Value as Json;

use super::scheme::Step;

/// How many elements are looked at; a body with more verifies as little as one with none.
const ELEMENTS_MAX: usize = 100_000;

/// What stands at `path`; none at all where one of them is missing on the way, so that no element goes unproved.
pub(super) fn hits<'a>(path: &[Step], json: &'a Json) -> Vec<&'a Json> {
    let mut found = vec![json];
    for step in path {
        let mut next = Vec::new();
        for value in found {
            match (step, value) {
                (Step::Member(name), value) => match value.get(name) {
                    Some(member) => next.push(member),
                    None => return Vec::new(),
                },
                (Step::Each, Json::Array(items)) => next.extend(items),
                (Step::Each, _) => return Vec::new(),
            }
        }
        if next.len() > ELEMENTS_MAX {
            return Vec::new();
        }
        found = next;
    }
    found
}

/// Changes each element at `path`.
pub(super) fn change<E>(
    path: &[Step],
    json: &mut Json,
    change: &mut dyn FnMut(&mut Json) -> Result<(), E>,
) -> Result<(), E> {
    let Some((step, rest)) = path.split_first() else { return change(json) };
    match (step, json) {
        (Step::Member(name), json) => match json.get_mut(name) {
            Some(member) => self::change(rest, member, change),
            None => Ok(()),
        },
        (Step::Each, Json::Array(items)) => {
            items.iter_mut().try_for_each(|item| self::change(rest, item, change))
        }
        (Step::Each, _) => Ok(()),
    }
}

/// `$.a[*].b` → the steps; `None` for any other path.
pub fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for segment in path.strip_prefix('$')?.split('.').enumerate() {
        let (number, mut rest) = segment;
        let end = rest.find('[').unwrap_or(rest.len());
        let (name, brackets) = rest.split_at_checked(end)?;
        match (number, name.is_empty()) {
            (0, true) => {}
            (0, false) | (_, true) => return None,
            (_, false) => {
                let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                if !name.chars().all(plain) {
                    return None;
                }
                steps.push(Step::Member(name.to_owned()));
            }
        }
        rest = brackets;
        while let Some(after) = rest.strip_prefix("[*]") {
            steps.push(Step::Each);
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let member = |name: &str| Step::Member(name.to_owned());
        assert_eq!(steps("$.a[*].b"), Some(vec![member("a"), Step::Each, member("b")]));
        assert_eq!(steps("$[*]"), Some(vec![Step::Each]));
        assert_eq!(steps("$"), Some(Vec::new()));
        for path in ["", "a", "$a", "$.", "$..a", "$.a[0]", "$.a[?@.b]", "$.a[*", "$.a b"] {
            assert_eq!(steps(path), None, "{path}");
        }
    }

    #[test]
    fn an_element_without_its_place_leaves_none() {
        let path = steps("$.a[*].b").unwrap();
        assert_eq!(hits(&path, &json!({"a": [{"b": 1}, {"b": 2}]})), [&json!(1), &json!(2)]);
        for body in [json!({"a": [{"b": 1}, {}]}), json!({"a": {"b": 1}}), json!({}), json!([])] {
            assert_eq!(hits(&path, &body), Vec::<&Json>::new(), "{body}");
        }
    }
}
