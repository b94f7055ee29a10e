//! Did you mean …?

/// The one of `known` that `written` most likely means; `None` if none is near.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = written.chars().count().div_ceil(3).max(1);
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            let name_lower = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&lower, &name_lower);
            // `retries` for `retry`, `key` for `idempotency_key`: the one holds the other whole.
            let within = lower.len() >= 3
                && (name_lower.contains(&lower) || lower.contains(&name_lower) && name.len() >= 3);
            (name, distance, within)
        })
        .filter(|(name, distance, within)| {
            // Half of the letters wrong is another word: `some` does not mean `none`.
            let longest = name.chars().count().max(written.chars().count());
            (*distance <= bound && (distance * 2 < longest || *distance < 2)) || *within
        })
        .min_by_key(|(name, distance, _)| (*distance, *name))
        .map(|(name, _, _)| name)
}

/// "did you mean `steps`?", for a diagnostic's help.
pub fn help<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Option<&str>) {
        let known = ["steps", "source", "fields", "retry", "idempotency_key", "on", "when"];
        assert_eq!(nearest(written, known), expected, "{written}");
    }

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        check("setps", Some("steps"));
        check("step", Some("steps"));
        check("Steps", Some("steps"));
        check("retries", Some("retry"));
        check("idempotency", Some("idempotency_key"));
        check("no", Some("on"));
        check("colour", None);
        check("", None);
    }
}
