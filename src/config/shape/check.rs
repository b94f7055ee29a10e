//! A tree against a shape: unknown and missing keys, wrong kinds, words that do not exist, keys that are not built yet.
//! The rules read what passed here and are silent about what did not: one mistake, one message.

use regex::Regex;

use super::{Key, Mapping, Names, Shape, Word, pattern_in_words};
use crate::config::units;
use crate::diag::code::Code;
use crate::diag::{Diagnostic, suggest};
use crate::syntax::{Node, Pair, Value};

/// Whether `node` has the shape; what it lacks is added to `found`. `what` names the value in messages: "`steps`".
pub fn check(node: &Node, shape: &Shape, what: &str, found: &mut Vec<Diagnostic>) -> bool {
    let before = found.len();
    Walk { found }.value(node, shape, what);
    found.len() == before
}

/// Whether `node` has the shape, when nobody is to be told.
pub fn fits(node: &Node, shape: &Shape) -> bool {
    check(node, shape, "", &mut Vec::new())
}

struct Walk<'a> {
    found: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    fn value(&mut self, node: &Node, shape: &Shape, what: &str) {
        match *shape {
            Shape::Json => {}
            Shape::Text => {
                if node.as_text().is_none() {
                    self.wrong(node, shape, what);
                }
            }
            Shape::Pattern(pattern, words) => match node.as_text() {
                Some(text) if !matches(pattern, &text.text) => self.invalid(
                    node,
                    format!("{what} cannot be `{}`", text.text),
                    format!("use {words}"),
                ),
                Some(_) => {}
                None => self.wrong(node, shape, what),
            },
            Shape::Scalar => {
                if !matches!(node.value, Value::Text(_) | Value::Number(_) | Value::Bool(_)) {
                    self.wrong(node, shape, what);
                }
            }
            Shape::Condition => {
                if !matches!(node.value, Value::Text(_) | Value::Bool(_)) {
                    self.wrong(node, shape, what);
                }
            }
            Shape::JsonPath => match node.as_text() {
                Some(text) if text.text.starts_with('$') => {}
                Some(text) if text.text.starts_with("^$") => self.not_built(
                    node,
                    format!("`^$` in {what}, the whole body of a POST that was split,"),
                    format!(
                        "write a path into the element, which is the payload: `{}`",
                        text.text.trim_start_matches('^')
                    ),
                ),
                Some(text) => self.invalid(
                    node,
                    format!(
                        "{what} must be a JSONPath, and `{}` does not start with `$`",
                        text.text
                    ),
                    format!(
                        "write `$.{0}` for the key `{0}` of the payload",
                        text.text.trim_start_matches('.')
                    ),
                ),
                None => self.wrong(node, shape, what),
            },
            Shape::Bool => {
                if node.as_bool().is_none() {
                    self.wrong(node, shape, what);
                }
            }
            Shape::True => {
                if node.as_bool() != Some(true) {
                    self.wrong(node, shape, what);
                }
            }
            Shape::False => match node.as_bool() {
                Some(false) => {}
                // Without a help of its own: what the key is for says what to write.
                Some(true) => self.found.push(Diagnostic::new(
                    Code::InvalidValue,
                    node.span,
                    format!("{what} cannot be `true`"),
                )),
                None => self.wrong(node, shape, what),
            },
            Shape::Count(least, most) => match node.as_number().map(str::parse::<u64>) {
                Some(Ok(count)) if (least..=most).contains(&count) => {}
                Some(_) => self.invalid(
                    node,
                    format!("{what} cannot be `{}`", node.as_number().unwrap_or_default()),
                    format!("write a whole number from {least} to {most}"),
                ),
                None => self.wrong(node, shape, what),
            },
            Shape::Factor(least) => match node.as_number().map(str::parse::<f64>) {
                Some(Ok(factor)) if factor >= least && factor <= 1000.0 => {}
                Some(_) => self.invalid(
                    node,
                    format!("{what} cannot be `{}`", node.as_number().unwrap_or_default()),
                    format!("write a number from {least} to 1000"),
                ),
                None => self.wrong(node, shape, what),
            },
            Shape::Duration => match &node.value {
                Value::Text(text) => {
                    if let Err(help) = units::duration(&text.text) {
                        self.invalid(node, format!("`{}` is no duration", text.text), help);
                    }
                }
                Value::Number(number) => self.invalid(
                    node,
                    format!("the duration {number} has no unit"),
                    format!("write `{number}s` for seconds, `{number}m` for minutes"),
                ),
                Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                    self.wrong(node, shape, what);
                }
            },
            Shape::Size => match &node.value {
                Value::Text(crate::syntax::Text { text, .. }) | Value::Number(text) => {
                    if let Err(help) = units::size(text) {
                        self.invalid(node, format!("`{text}` is no size"), help);
                    }
                }
                Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                    self.wrong(node, shape, what);
                }
            },
            Shape::Word(words) => self.word(node, words, what),
            Shape::Status => {
                let text = match &node.value {
                    Value::Text(text) => &text.text,
                    Value::Number(number) => number,
                    Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                        return self.wrong(node, shape, what);
                    }
                };
                if status(text).is_none() {
                    self.invalid(
                        node,
                        format!("`{text}` is no status"),
                        "write a code from 100 to 599, or a class such as `2xx`".to_owned(),
                    );
                }
            }
            Shape::List(item) => match node.as_list() {
                Some(items) => items.iter().for_each(|node| self.value(node, item, &item_of(what))),
                None => self.wrong(node, shape, what),
            },
            Shape::Many(item) => match node.as_list() {
                Some(items) => items.iter().for_each(|node| self.value(node, item, &item_of(what))),
                None => self.value(node, item, what),
            },
            Shape::Names(names) => self.names(node, names, what),
            Shape::Mapping(mapping) => match node.as_map() {
                Some(pairs) => self.mapping(node, pairs, mapping),
                None => self.wrong(node, shape, what),
            },
            Shape::Any(alternatives) => {
                match alternatives.iter().find(|alternative| takes(alternative, node)) {
                    Some(alternative) => {
                        let before = self.found.len();
                        self.value(node, alternative, what);
                        // Of what may stand here the words are a part.
                        let part = format!("write {}", in_words(alternative));
                        for fault in self.found.iter_mut().skip(before) {
                            if fault.help.as_ref() == Some(&part) {
                                fault.help = Some(format!("write {}", in_words(shape)));
                            }
                        }
                    }
                    None => self.wrong(node, shape, what),
                }
            }
        }
    }

    fn mapping(&mut self, node: &Node, pairs: &[Pair], mapping: &Mapping) {
        let mut faulty = false;
        for pair in pairs {
            match mapping.keys.iter().find(|key| key.name == pair.key.text) {
                Some(key) if key.built => {
                    let before = self.found.len();
                    self.value(&pair.value, &key.shape, &format!("`{}`", key.name));
                    // Where the fault is the value itself, what the key is for says what to write.
                    for fault in self.found.iter_mut().skip(before) {
                        if fault.help.is_none() && fault.span == pair.value.span {
                            fault.help = Some(format!("`{}`: {}", key.name, key.doc));
                        }
                    }
                }
                Some(key) => {
                    faulty = true;
                    self.found.push(
                        Diagnostic::new(
                            Code::NotBuiltYet,
                            pair.key_span,
                            format!(
                                "`{}` is part of the language, but this version does not carry it out",
                                key.name
                            ),
                        )
                        .label("not built yet")
                        .help(format!("remove `{}`: it would have no effect", key.name)),
                    );
                }
                None => {
                    faulty = true;
                    self.unknown_key(pair, pairs, mapping);
                }
            }
        }
        for key in mapping.keys.iter().filter(|key| key.required) {
            if !pairs.iter().any(|pair| pair.key.text == key.name)
                && !self.misspelt(pairs, mapping, key)
            {
                self.found.push(
                    Diagnostic::new(
                        Code::MissingKey,
                        start_of(node, pairs),
                        format!("{} needs `{}`", mapping.name, key.name),
                    )
                    .help(format!("add `{}: …`. {}", key.name, key.doc)),
                );
            }
        }
        if mapping.one_of.is_empty() {
            return;
        }
        let chosen: Vec<&Pair> =
            pairs.iter().filter(|pair| mapping.one_of.contains(&pair.key.text.as_str())).collect();
        match chosen.as_slice() {
            [] if faulty => {}
            [] => self.found.push(
                Diagnostic::new(
                    Code::MissingKey,
                    start_of(node, pairs),
                    format!("{} needs one of {}", mapping.name, listed(mapping.one_of)),
                )
                .help("add the one that fits"),
            ),
            [_] => {}
            [first, second, ..] => self.found.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    second.key_span,
                    format!(
                        "{} takes one of {}, not `{}` and `{}`",
                        mapping.name,
                        listed(mapping.one_of),
                        first.key.text,
                        second.key.text
                    ),
                )
                .help(format!("remove `{}` or `{}`", first.key.text, second.key.text))
                .related(first.key_span, "the other is here"),
            ),
        }
    }

    /// Whether an unknown key of `pairs` was taken for `key` in its "did you mean": then it is not also missing.
    fn misspelt(&self, pairs: &[Pair], mapping: &Mapping, key: &Key) -> bool {
        pairs.iter().any(|pair| meant(pair, pairs, mapping) == Some(key.name))
    }

    fn unknown_key(&mut self, pair: &Pair, pairs: &[Pair], mapping: &Mapping) {
        let mut diagnostic = Diagnostic::new(
            Code::UnknownKey,
            pair.key_span,
            format!("{} has no key `{}`", mapping.name, pair.key.text),
        )
        .label("unknown key");
        diagnostic = match meant(pair, pairs, mapping) {
            Some(name) => {
                diagnostic.help(format!("did you mean `{name}`?")).fix(pair.key_span, name)
            }
            None => {
                let known: Vec<&str> =
                    mapping.keys.iter().filter(|key| key.built).map(|key| key.name).collect();
                diagnostic.help(format!("{} takes {}", mapping.name, listed(&known)))
            }
        };
        self.found.push(diagnostic);
    }

    fn names(&mut self, node: &Node, names: &Names, what: &str) {
        let Some(pairs) = node.as_map() else {
            return self.wrong(node, &Shape::Json, &format!("{what} must be a mapping"));
        };
        for pair in pairs {
            let name = &pair.key.text;
            if !names.pattern.is_empty() && !matches(names.pattern, name) {
                self.found.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        pair.key_span,
                        format!("{} cannot be called `{name}`", names.what),
                    )
                    .help(format!("use {}", pattern_in_words(names.pattern))),
                );
            }
            self.value(&pair.value, &names.value, &format!("`{name}`"));
        }
    }

    fn word(&mut self, node: &Node, words: &[Word], what: &str) {
        let Some(text) = node.as_text() else {
            return self.wrong(node, &Shape::Text, what);
        };
        let known: Vec<&str> =
            words.iter().filter(|word| word.built).map(|word| word.text).collect();
        match words.iter().find(|word| word.text == text.text) {
            Some(word) if word.built => {}
            Some(word) => self.not_built(
                node,
                format!("`{}` as {what}", word.text),
                format!("write {}", listed(&known)),
            ),
            None => {
                let near = suggest::nearest(&text.text, known.iter().copied());
                let mut diagnostic = Diagnostic::new(
                    Code::InvalidValue,
                    node.span,
                    format!("{what} cannot be `{}`", text.text),
                );
                diagnostic = match near {
                    Some(name) => {
                        diagnostic.help(format!("did you mean `{name}`?")).fix(node.span, name)
                    }
                    None => diagnostic.help(format!("write {}", listed(&known))),
                };
                self.found.push(diagnostic);
            }
        }
    }

    fn not_built(&mut self, node: &Node, what: String, help: String) {
        self.found.push(
            Diagnostic::new(
                Code::NotBuiltYet,
                node.span,
                format!("{what} is part of the language, but this version does not carry it out"),
            )
            .label("not built yet")
            .help(help),
        );
    }

    fn wrong(&mut self, node: &Node, shape: &Shape, what: &str) {
        let message = if node.is_null() && !matches!(shape, Shape::Json) {
            format!("{what} has no value: it must be {}", in_words(shape))
        } else if matches!(shape, Shape::Json) {
            format!("{what}, and this is {}", node.kind_name())
        } else {
            format!("{what} must be {}, and this is {}", in_words(shape), node.kind_name())
        };
        let mut diagnostic = Diagnostic::new(Code::WrongType, node.span, message);
        if let (Shape::Text, Value::Number(number)) = (shape, &node.value) {
            diagnostic = diagnostic.help(format!("write it in quotes: `\"{number}\"`"));
        }
        if let (Shape::Text, Value::Bool(value)) = (shape, &node.value) {
            diagnostic = diagnostic.help(format!("write it in quotes: `\"{value}\"`"));
        }
        self.found.push(diagnostic);
    }

    fn invalid(&mut self, node: &Node, message: String, help: String) {
        self.found.push(Diagnostic::new(Code::InvalidValue, node.span, message).help(help));
    }
}

/// The key that an unknown one was meant for: the nearest that is not there yet.
fn meant(pair: &Pair, pairs: &[Pair], mapping: &Mapping) -> Option<&'static str> {
    if mapping.keys.iter().any(|key| key.name == pair.key.text) {
        return None;
    }
    let free = mapping
        .keys
        .iter()
        .filter(|key| key.built && !pairs.iter().any(|pair| pair.key.text == key.name))
        .map(|key| key.name);
    suggest::nearest(&pair.key.text, free)
}

/// The first key of a mapping: pointing at the whole of it would mark half the file.
fn start_of(node: &Node, pairs: &[Pair]) -> crate::diag::Span {
    pairs.first().map_or(node.span, |pair| pair.key_span)
}

fn item_of(what: &str) -> String {
    format!("an item of {what}")
}

/// `a`, `b` or `c`
pub fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `200`, or `2xx` as its class.
pub fn status(text: &str) -> Option<crate::config::StatusMatch> {
    use crate::config::StatusMatch;
    if let Some(class) = text.strip_suffix("xx").or(text.strip_suffix("XX")) {
        return class.parse().ok().filter(|class| (1..=5).contains(class)).map(StatusMatch::Class);
    }
    text.parse().ok().filter(|code| (100..=599).contains(code)).map(StatusMatch::Code)
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).expect("the patterns of the tables are tested").is_match(text)
}

/// Whether this kind of node is what the shape is about, so that its faults are the ones to report.
fn takes(shape: &Shape, node: &Node) -> bool {
    match shape {
        Shape::Text | Shape::Pattern(..) | Shape::JsonPath | Shape::Word(_) => {
            node.as_text().is_some()
        }
        Shape::Scalar | Shape::Status => {
            matches!(node.value, Value::Text(_) | Value::Number(_) | Value::Bool(_))
        }
        Shape::Condition => matches!(node.value, Value::Text(_) | Value::Bool(_)),
        Shape::Duration | Shape::Size => matches!(node.value, Value::Text(_) | Value::Number(_)),
        Shape::Bool | Shape::True | Shape::False => node.as_bool().is_some(),
        Shape::Count(..) | Shape::Factor(_) => node.as_number().is_some(),
        Shape::Json => true,
        Shape::List(_) => node.as_list().is_some(),
        Shape::Many(item) => node.as_list().is_some() || takes(item, node),
        Shape::Names(_) | Shape::Mapping(_) => node.as_map().is_some(),
        Shape::Any(alternatives) => alternatives.iter().any(|shape| takes(shape, node)),
    }
}

/// "text", "a list of durations": what has to be written.
pub fn in_words(shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::Pattern(..) => "text".to_owned(),
        Shape::Scalar => "text or a number".to_owned(),
        Shape::Condition => "a condition".to_owned(),
        Shape::JsonPath => "a JSONPath".to_owned(),
        Shape::Bool => "`true` or `false`".to_owned(),
        Shape::True => "`true`".to_owned(),
        Shape::False => "`false`".to_owned(),
        Shape::Count(..) => "a whole number".to_owned(),
        Shape::Factor(_) => "a number".to_owned(),
        Shape::Duration => "a duration such as `10s`".to_owned(),
        Shape::Size => "a size such as `1MiB`".to_owned(),
        Shape::Word(words) => {
            let known: Vec<&str> =
                words.iter().filter(|word| word.built).map(|word| word.text).collect();
            listed(&known)
        }
        Shape::Status => "a status".to_owned(),
        Shape::Json => "anything".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        Shape::Many(item) => format!("{} or a list", in_words(item)),
        Shape::Names(_) => "a mapping".to_owned(),
        Shape::Mapping(mapping) => format!("a mapping ({})", mapping.name.replace('`', "")),
        Shape::Any(alternatives) => {
            alternatives.iter().map(in_words).collect::<Vec<_>>().join(" or ")
        }
    }
}

/// Whether templates can read it by this name.
pub fn is_snake(name: &str) -> bool {
    matches(super::SNAKE_PATTERN, name)
}
