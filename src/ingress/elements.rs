//! Where the elements of a JSON body stand in it: an event of a split POST keeps its own bytes as they came, not as somebody
//! would write them again.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;

use crate::extract::jsonpath::JsonPath;

/// The values that `path` hits, in document order; a place that it hits twice counts once.
pub(super) fn hits<'a>(path: &JsonPath, payload: &'a Json) -> Vec<&'a Json> {
    let mut seen = std::collections::BTreeSet::new();
    let mut hits = path.hits(payload);
    hits.retain(|hit| seen.insert(std::ptr::from_ref(*hit)));
    hits
}

/// Where each of `elements`, which point into `payload`, stands in `body`, which reads as `payload`.
pub(super) fn places(body: &[u8], payload: &Json, elements: &[&Json]) -> Vec<Range<usize>> {
    let wanted =
        elements.iter().enumerate().map(|(number, it)| (std::ptr::from_ref(*it), number)).collect();
    let mut walk = Walk { body, at: 0, wanted, places: vec![0..0; elements.len()] };
    walk.value(Some(payload));
    walk.places
}

/// Goes through text and values side by side. The text is known to be JSON, which is what bounds its depth, too.
struct Walk<'b> {
    body: &'b [u8],
    at: usize,
    wanted: BTreeMap<*const Json, usize>,
    places: Vec<Range<usize>>,
}

impl Walk<'_> {
    /// `value` is what stands here: none where it lost to a later member of the same name. Of a name that stands twice the
    /// later one is also the later one to say where it stands.
    fn value(&mut self, value: Option<&Json>) {
        self.blanks();
        let start = self.at;
        match self.here() {
            Some(b'{') => self.members(value),
            Some(b'[') => self.items(value),
            Some(b'"') => self.string(),
            Some(_) | None => {
                self.at += 1;
                while self.here().is_some_and(|byte| !b",]} \t\r\n".contains(&byte)) {
                    self.at += 1;
                }
            }
        }
        if let Some(number) = value.and_then(|value| self.wanted.get(&std::ptr::from_ref(value))) {
            self.places[*number] = start..self.at;
        }
    }

    fn members(&mut self, object: Option<&Json>) {
        self.at += 1;
        loop {
            self.blanks();
            match self.here() {
                Some(b'"') => {
                    let start = self.at;
                    self.string();
                    let name = self.body.get(start..self.at).unwrap_or_default();
                    let name: Option<String> = serde_json::from_slice(name).ok();
                    self.blanks();
                    // The colon.
                    self.at += 1;
                    self.value(name.and_then(|name| object?.as_object()?.get(&name)));
                }
                Some(b',') => self.at += 1,
                Some(_) | None => break,
            }
        }
        self.at += 1;
    }

    fn items(&mut self, list: Option<&Json>) {
        self.at += 1;
        let mut index = 0;
        loop {
            self.blanks();
            match self.here() {
                Some(b']') | None => break,
                Some(b',') => self.at += 1,
                Some(_) => {
                    self.value(list.and_then(|list| list.as_array()?.get(index)));
                    index += 1;
                }
            }
        }
        self.at += 1;
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.here() {
            self.at += match byte {
                b'\\' => 2,
                _ => 1,
            };
            if byte == b'"' {
                break;
            }
        }
    }

    fn blanks(&mut self) {
        while self.here().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    fn here(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(path: &str, body: &str) -> Vec<String> {
        let payload: Json = serde_json::from_str(body).unwrap();
        let (path, _) = JsonPath::parse(path).unwrap();
        let hits = hits(&path, &payload);
        places(body.as_bytes(), &payload, &hits)
            .into_iter()
            .map(|place| body.get(place).unwrap().to_owned())
            .collect()
    }

    #[test]
    fn elements_stand_as_they_came() {
        let check = |path: &str, body: &str, expected: &[&str]| {
            assert_eq!(texts(path, body), expected, "{path} in {body}");
        };
        check("$[*]", "[1.50, \"a\" ,null,true]", &["1.50", "\"a\"", "null", "true"]);
        check("$[*]", " [ ] ", &[]);
        check("$.e[*]", "{}", &[]);
        check("$.e[*]", r#"{"e":{"b": 1,"a" :[ 2 ]}}"#, &["1", "[ 2 ]"]);
        check(
            "$.e[*]",
            r#"{"x":[{"e":1}],"e":[{"b" : 1, "a":"]\"}"},[]]}"#,
            &[r#"{"b" : 1, "a":"]\"}"}"#, "[]"],
        );
        check("$.e[?@.a == 2]", "{\"e\":[{\"a\":1},\n{\"a\": 2}]}", &["{\"a\": 2}"]);
        check("$.v[*].c[*]", r#"{"v":[{"c":[1,2]},{},{"c":[3]}]}"#, &["1", "2", "3"]);
        // Of a name that stands twice the last value counts, also where it is shorter or of another kind.
        check("$.e[*]", r#"{"e":[1,2,3],"e":[4]}"#, &["4"]);
        check("$.e[*]", r#"{"e":[4],"e":[1,2]}"#, &["1", "2"]);
        check("$.e.x[*]", r#"{"e":{"x":[9]},"\u0065":{"x":[ 8 ]}}"#, &["8"]);
        // A place counts once.
        check("$['a','b','a']", r#"{"a":1,"b":1}"#, &["1", "1"]);
        check("$..a", r#"{"a":{"a":[ ]}}"#, &[r#"{"a":[ ]}"#, "[ ]"]);
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "[\\PC\"\\\\{}\\[\\],: ]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                proptest::collection::vec(("[a-c\"\\\\]{0,2}", inner), 0..5)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_stands_there_reads_as_the_element(value in json(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let payload: Json = serde_json::from_str(&text).unwrap();
            for path in ["$[*]", "$[*][*]", "$..*"] {
                let (path, _) = JsonPath::parse(path).unwrap();
                let hits = hits(&path, &payload);
                for (place, hit) in places(text.as_bytes(), &payload, &hits).into_iter().zip(&hits) {
                    let read: Json = serde_json::from_str(text.get(place).unwrap()).unwrap();
                    prop_assert_eq!(&read, *hit);
                }
            }
        }
    }
}
