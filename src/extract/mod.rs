//! Extractions: JSONPath, header, query, … → typed values, as the route language words them. Pure.

pub mod jsonpath;
pub mod types;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::template::context::Context;
use crate::template::{Template, shorten};
use jsonpath::JsonPath;
use types::Type;

/// One extraction, checked and compiled.
#[derive(Debug)]
pub struct Extraction {
    pub from: From,
    pub type_: Option<Type>,
    pub required: bool,
    pub default: Option<Json>,
    pub one_of: Option<Vec<Json>>,
    pub pattern: Option<Pattern>,
    pub map: Option<BTreeMap<String, Json>>,
    /// Maps every element; implies `all`.
    pub each: Option<Vec<(String, Extraction)>>,
    /// Every hit, as a list; without it the first.
    pub all: bool,
    /// strftime format, `unix` or `unix_ms`, of a `timestamp`.
    pub format: Option<String>,
    /// Zone of a `timestamp` that names none; UTC without it.
    pub zone: Option<jiff::tz::TimeZone>,
}

impl Extraction {
    /// The value at `from` as it is.
    pub fn plain(from: From) -> Self {
        Self {
            from,
            type_: None,
            required: false,
            default: None,
            one_of: None,
            pattern: None,
            map: None,
            each: None,
            all: false,
            format: None,
            zone: None,
        }
    }

    /// `None`: absent, and neither required nor given a default.
    pub fn apply(&self, input: &Input<'_>) -> Result<Option<Json>, ExtractFault> {
        let place = self.from.place();
        let found = self.found(input)?;
        let value = match (found, &self.each) {
            (Found::Absent, _) => None,
            (Found::One(value), None) => Some(self.take(&value, &place)?),
            (Found::One(value), Some(each)) => match value.as_array() {
                Some(items) => Some(self.map_each(items.iter(), each, input, &place)?),
                None => Some(self.map_each(std::iter::once(&*value), each, input, &place)?),
            },
            (Found::Many(hits), Some(each)) => {
                Some(self.map_each(hits.into_iter(), each, input, &place)?)
            }
            (Found::Many(hits), None) => {
                let taken = hits.into_iter().enumerate().map(|(at, hit)| match hit {
                    Json::Null => Ok(Json::Null),
                    hit => self.take(hit, &format!("{place} (hit {})", at + 1)),
                });
                Some(Json::Array(taken.collect::<Result<_, _>>()?))
            }
        };
        match (value, &self.default) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(default)) => Ok(Some(default.clone())),
            (None, None) if self.required => {
                let message = format!("required, but {place} has no value");
                Err(ExtractFault { cause: "missing_field", path: place, message })
            }
            (None, None) => Ok(None),
        }
    }

    fn found<'a>(&self, input: &Input<'a>) -> Result<Found<'a>, ExtractFault> {
        let text = |pairs: &[(String, String)], name: &str, same: fn(&str, &str) -> bool| {
            let mut values = pairs.iter().filter(|(key, _)| same(key, name));
            let first = values.next().map(|(_, value)| Json::from(value.as_str()));
            match first {
                None => Found::Absent,
                Some(first) if self.all => {
                    let rest = values.map(|(_, value)| Json::from(value.as_str()));
                    Found::One(Cow::Owned(std::iter::once(first).chain(rest).collect()))
                }
                Some(first) => Found::One(Cow::Owned(first)),
            }
        };
        Ok(match &self.from {
            From::Path(path) => {
                let hits = path.hits(input.payload);
                let many = self.all || (self.each.is_some() && path.may_hit_many());
                if many {
                    match hits.iter().all(|hit| hit.is_null()) {
                        // Hits that are all null are as absent as none at all.
                        true => Found::Absent,
                        false => Found::Many(hits),
                    }
                } else {
                    match hits.into_iter().next() {
                        None | Some(Json::Null) => Found::Absent,
                        Some(hit) => Found::One(Cow::Borrowed(hit)),
                    }
                }
            }
            From::Header(name) => text(input.envelope_headers, name, str::eq_ignore_ascii_case),
            From::Query(name) => text(input.query, name, str::eq),
            From::PathPart(name) => text(input.path, name, str::eq),
            From::Form(name) => {
                let form = input.form.unwrap_or(input.payload);
                match form.as_object().and_then(|form| form.get(name)) {
                    None | Some(Json::Null) => Found::Absent,
                    Some(Json::Array(items)) if !self.all && self.each.is_none() => items
                        .first()
                        .map_or(Found::Absent, |first| Found::One(Cow::Borrowed(first))),
                    Some(value) => Found::One(Cow::Borrowed(value)),
                }
            }
            From::Value(template) => match template.render(input.context) {
                Ok(None | Some(Json::Null)) => Found::Absent,
                Ok(Some(value)) => Found::One(Cow::Owned(value)),
                Err(error) => {
                    let message = error.to_string();
                    return Err(ExtractFault {
                        cause: "template",
                        path: self.from.place(),
                        message,
                    });
                }
            },
        })
    }

    fn map_each<'a>(
        &self,
        items: impl Iterator<Item = &'a Json>,
        each: &[(String, Extraction)],
        input: &Input<'_>,
        place: &str,
    ) -> Result<Json, ExtractFault> {
        let mut out = Vec::new();
        for (at, item) in items.enumerate() {
            let inner = Input { payload: item, ..*input };
            let mut members = Map::new();
            for (name, extraction) in each {
                let value = extraction.apply(&inner).map_err(|fault| ExtractFault {
                    cause: fault.cause,
                    path: format!("{place}, element {}, {}", at + 1, fault.path),
                    message: format!("element {} of {place}, `{name}`: {}", at + 1, fault.message),
                })?;
                members.insert(name.clone(), value.unwrap_or(Json::Null));
            }
            out.push(Json::Object(members));
        }
        Ok(Json::Array(out))
    }

    /// `type`, then `match`, `map` and `one_of`. A list that `all` gathered outside the payload is taken one by one.
    fn take(&self, value: &Json, place: &str) -> Result<Json, ExtractFault> {
        if let (Json::Array(items), true, false) =
            (value, self.all, matches!(self.from, From::Path(_)))
        {
            return items.iter().map(|item| self.take_one(item, place)).collect();
        }
        self.take_one(value, place)
    }

    fn take_one(&self, value: &Json, place: &str) -> Result<Json, ExtractFault> {
        let found = || shorten(&value.to_string());
        let fault = |cause, message| ExtractFault { cause, path: place.to_owned(), message };
        let mut taken = match self.type_ {
            None => value.clone(),
            Some(type_) => {
                let taken = type_.take(value, self.format.as_deref(), self.zone.as_ref());
                taken.ok_or_else(|| {
                    let message = format!("{place} must be {}, found {}", type_.as_str(), found());
                    fault("wrong_type", message)
                })?
            }
        };
        if let Some(pattern) = &self.pattern {
            let captured = types::scalar_text(&taken).and_then(|text| pattern.value(&text));
            taken = captured.map(Json::from).ok_or_else(|| {
                let message = format!("{place} must match `{}`, found {}", pattern.text, found());
                fault("no_match", message)
            })?;
        }
        if let Some(map) = &self.map {
            let mapped = types::scalar_text(&taken).and_then(|code| map.get(&code));
            taken = match (mapped, &self.default) {
                (Some(mapped), _) => mapped.clone(),
                (None, Some(default)) => default.clone(),
                (None, None) => {
                    let message = format!("missing mapping for {} at {place}", found());
                    return Err(fault("missing_mapping", message));
                }
            };
        }
        if let Some(allowed) = &self.one_of
            && !allowed.iter().any(|one| same(one, &taken))
        {
            let allowed: Vec<_> = allowed.iter().map(Json::to_string).collect();
            let allowed = shorten(&allowed.join(", "));
            let message = format!("{place} must be one of {allowed}, found {}", found());
            return Err(fault("not_one_of", message));
        }
        Ok(taken)
    }
}

/// Numbers are the same by value: with exact texts, `1.0` and `1` would differ.
fn same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(a), Json::Number(b)) => {
            a == b || (a.as_i64().is_none() || b.as_i64().is_none()) && a.as_f64() == b.as_f64()
        }
        _ => one == other,
    }
}

enum Found<'a> {
    Absent,
    One(Cow<'a, Json>),
    Many(Vec<&'a Json>),
}

#[derive(Debug)]
pub enum From {
    Path(JsonPath),
    Header(String),
    Query(String),
    Form(String),
    PathPart(String),
    Value(Template),
}

impl From {
    /// Where it looks, for messages.
    pub fn place(&self) -> String {
        match self {
            From::Path(path) => path.text.clone(),
            From::Header(name) => format!("header {name}"),
            From::Query(name) => format!("query parameter {name}"),
            From::Form(name) => format!("form field {name}"),
            From::PathPart(name) => format!("path part {name}"),
            From::Value(template) => format!("value `{}`", shorten(template.text())),
        }
    }
}

/// `match`: an anchored regex; with one capture group the group is the value.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub regex: regex::Regex,
    pub text: String,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        const SIZE_MAX: usize = 1 << 20;
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(SIZE_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
                _ => match regex::Regex::new(text) {
                    Err(error) => error.to_string(),
                    Ok(_) => "the pattern cannot be anchored".to_owned(),
                },
            })?;
        if regex.captures_len() > 2 {
            return Err("the pattern has more than one capture group; write `(?:...)`".to_owned());
        }
        Ok(Self { regex, text: text.to_owned() })
    }

    fn value(&self, text: &str) -> Option<String> {
        let captures = self.regex.captures(text)?;
        let value = if captures.len() == 2 { captures.get(1)? } else { captures.get(0)? };
        Some(value.as_str().to_owned())
    }
}

/// What extractions read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub payload: &'a Json,
    pub envelope_headers: &'a [(String, String)],
    pub query: &'a [(String, String)],
    pub path: &'a [(String, String)],
    pub form: Option<&'a Json>,
    pub context: &'a Context,
}

/// Why an extraction did not yield: for review, never retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExtractFault {
    /// `missing_field`, `wrong_type`, `not_one_of`, `no_match`, `missing_mapping`, `template`
    pub cause: &'static str,
    /// Where it looked: `$.customer.email`, `header X-Topic`.
    pub path: String,
    pub message: String,
}

/// A fault with its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {fault}")]
pub struct FieldFault {
    pub field: String,
    pub fault: ExtractFault,
}

/// The route's fields for one event; an absent one is `null`.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    pub fields: Map<String, Json>,
}

pub fn map_fields(
    fields: &[(String, Extraction)],
    input: &Input<'_>,
) -> Result<Mapped, FieldFault> {
    let mut mapped = Mapped::default();
    for (name, extraction) in fields {
        let value =
            extraction.apply(input).map_err(|fault| FieldFault { field: name.clone(), fault })?;
        mapped.fields.insert(name.clone(), value.unwrap_or(Json::Null));
    }
    Ok(mapped)
}

#[cfg(test)]
mod tests;
