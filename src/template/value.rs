//! JSON ↔ template values. Numbers keep their exact text as long as nothing computes with them: objects and lists
//! remember the number behind each value that a float cannot hold.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use serde_json::{Map, Number, Value as Json};

/// Objects up to this size are searched from front to back.
const LINEAR_MAX: usize = 8;
/// Values nest at most this deep, as deep as serde_json reads them.
const DEPTH_MAX: usize = 128;
/// Bytes of one rendered value or text.
pub(super) const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// A number that a float may not spell as it came. Data gives a float of it to those who compute, and itself to those
/// who only show it, so that no operator ever meets it.
#[derive(Debug)]
struct Decimal {
    number: Number,
    float: f64,
}

impl Object for Decimal {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.float != 0.0
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.number.as_str())
    }
}

pub(super) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => from_number(number),
        Json::Array(items) => {
            Value::from_object(DataList { items: items.iter().map(from_json).collect() })
        }
        Json::Object(members) => {
            object(members.iter().map(|(key, value)| (Arc::from(key.as_str()), from_json(value))))
        }
    }
}

fn from_number(number: &Number) -> Value {
    let text = number.as_str();
    match text.parse::<i128>() {
        // `-0` is the one integer text that a number does not give back.
        Ok(integer) if text != "-0" => Value::from(integer),
        Ok(_) | Err(_) => {
            let float = text.parse().unwrap_or(f64::NAN);
            Value::from_object(Decimal { number: number.clone(), float })
        }
    }
}

/// An object of these members.
pub(super) fn object(entries: impl Iterator<Item = (Arc<str>, Value)>) -> Value {
    let entries: Vec<_> = entries.collect();
    let index = (entries.len() > LINEAR_MAX)
        .then(|| entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect());
    Value::from_object(DataMap { entries, index, any_case: false })
}

/// An object whose members are found whatever the case of their names; where two differ in case alone, the first
/// counts.
pub(super) fn any_case(json: &Json) -> Value {
    let Json::Object(members) = json else { return from_json(json) };
    let mut entries: Vec<(Arc<str>, Value)> = Vec::with_capacity(members.len());
    let mut index = HashMap::with_capacity(members.len());
    for (name, value) in members {
        let name: Arc<str> = Arc::from(name.to_ascii_lowercase());
        if let Entry::Vacant(free) = index.entry(name.clone()) {
            free.insert(entries.len());
            entries.push((name, from_json(value)));
        }
    }
    Value::from_object(DataMap { entries, index: Some(index), any_case: true })
}

/// The member or element, exact; nothing there is `none`.
pub(super) fn member(value: &Value, key: &PathKey) -> Value {
    let found = match key {
        PathKey::Name(name) => match value.downcast_object_ref::<DataMap>() {
            Some(map) => map.get(name).cloned(),
            None => value.get_attr(name).ok(),
        },
        PathKey::Index(at) => match value.downcast_object_ref::<DataList>() {
            Some(list) => list.at(*at).cloned(),
            None => value.get_item(&Value::from(*at)).ok(),
        },
    };
    found.filter(|value| !value.is_undefined()).unwrap_or_else(|| Value::from(()))
}

pub(super) fn is_data_list(value: &Value) -> bool {
    value.downcast_object_ref::<DataList>().is_some()
}

/// A value to compute with.
pub(super) fn plain(value: &Value) -> Value {
    match value.downcast_object_ref::<Decimal>() {
        Some(decimal) => Value::from(decimal.float),
        None if value.is_undefined() => Value::from(()),
        None => value.clone(),
    }
}

/// No list and no object.
pub(super) fn is_scalar(value: &Value) -> bool {
    value.as_object().is_none() || value.downcast_object_ref::<Decimal>().is_some()
}

/// The elements of a list of data, exact; anything else as it is.
pub(super) fn items(value: &Value) -> Value {
    match value.downcast_object_ref::<DataList>() {
        Some(list) => Value::from(list.items.clone()),
        None => value.clone(),
    }
}

/// One step of `payload.lines[0].sku`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathKey {
    Name(String),
    Index(i64),
}

/// An object in its own order; a missing key is `none`.
#[derive(Debug)]
pub(super) struct DataMap {
    entries: Vec<(Arc<str>, Value)>,
    index: Option<HashMap<Arc<str>, usize>>,
    /// Names are in lower case and asked for in any.
    any_case: bool,
}

impl DataMap {
    fn get(&self, name: &str) -> Option<&Value> {
        let folded = self.any_case.then(|| name.to_ascii_lowercase());
        let name = folded.as_deref().unwrap_or(name);
        let at = match &self.index {
            Some(index) => *index.get(name)?,
            None => self.entries.iter().position(|(key, _)| **key == *name)?,
        };
        self.entries.get(at).map(|(_, value)| value)
    }
}

impl Object for DataMap {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        // Absent stays undefined here, so that `in` and comparisons see the true members; the compiler turns it into
        // `none` where it is read.
        self.get(key).map(plain)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }
}

#[derive(Debug)]
pub(super) struct DataList {
    items: Vec<Value>,
}

impl DataList {
    fn at(&self, at: i64) -> Option<&Value> {
        let at = if at < 0 { at.checked_add(i64::try_from(self.items.len()).ok()?)? } else { at };
        self.items.get(usize::try_from(at).ok()?)
    }
}

impl Object for DataList {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).map(plain)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// The JSON of a value, exact where nothing was computed.
pub(super) fn to_json(value: &Value) -> Result<Json, String> {
    let mut left = OUTPUT_BYTES_MAX;
    convert(value, 0, &mut left)
}

fn convert(value: &Value, depth: usize, left: &mut usize) -> Result<Json, String> {
    if depth > DEPTH_MAX {
        return Err(format!("a value is nested deeper than {DEPTH_MAX} levels"));
    }
    spend(left, 16)?;
    if let Some(decimal) = value.downcast_object_ref::<Decimal>() {
        spend(left, decimal.number.as_str().len())?;
        return Ok(Json::Number(decimal.number.clone()));
    }
    if let Some(map) = value.downcast_object_ref::<DataMap>() {
        let mut out = Map::with_capacity(map.entries.len());
        for (key, member) in &map.entries {
            spend(left, key.len())?;
            out.insert(key.to_string(), convert(member, depth + 1, left)?);
        }
        return Ok(Json::Object(out));
    }
    if let Some(list) = value.downcast_object_ref::<DataList>() {
        let items = list.items.iter().map(|item| convert(item, depth + 1, left));
        return items.collect::<Result<_, _>>().map(Json::Array);
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Json::Null),
        ValueKind::Bool => Ok(Json::Bool(value.is_true())),
        ValueKind::Number => number_to_json(value),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            spend(left, text.len())?;
            Ok(Json::from(text))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| short(&error))?;
            let items = items.checked().map(|item| match item {
                Ok(item) => convert(&item, depth + 1, left),
                Err(error) => Err(short(&error)),
            });
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        ValueKind::Map => {
            let mut out = Map::new();
            for key in value.try_iter().map_err(|error| short(&error))? {
                let member = value.get_item(&key).map_err(|error| short(&error))?;
                let name = match key.as_str() {
                    Some(name) => name.to_owned(),
                    None => text_of(&to_json(&key)?)?,
                };
                spend(left, name.len())?;
                out.insert(name, convert(&member, depth + 1, left)?);
            }
            Ok(Json::Object(out))
        }
        ValueKind::Invalid => Err(match value.get_attr("x") {
            Err(error) => short(&error),
            Ok(_) => "the value is invalid".to_owned(),
        }),
        _ => Err(format!("{} has no JSON form", value.kind())),
    }
}

fn spend(left: &mut usize, bytes: usize) -> Result<(), String> {
    *left = left
        .checked_sub(bytes)
        .ok_or_else(|| format!("the value is larger than {} MiB", OUTPUT_BYTES_MAX >> 20))?;
    Ok(())
}

fn number_to_json(value: &Value) -> Result<Json, String> {
    if value.is_integer() {
        if let Ok(integer) = i64::try_from(value.clone()) {
            return Ok(Json::from(integer));
        }
        let text = value.to_string();
        return text
            .parse::<Number>()
            .map(Json::Number)
            .map_err(|_| format!("{text} has no JSON form"));
    }
    let float = f64::try_from(value.clone()).map_err(|error| short(&error))?;
    Number::from_f64(float).map(Json::Number).ok_or_else(|| "not a finite number".to_owned())
}

/// The JSON spelling inside a text; `none` has none.
pub(super) fn text_of(json: &Json) -> Result<String, String> {
    match json {
        Json::Null => Err("the value is none; give it a default with `| default(...)`".to_owned()),
        Json::String(text) => Ok(text.clone()),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => Ok(json.to_string()),
    }
}

/// What minijinja says, without its own decoration.
pub(super) fn short(error: &minijinja::Error) -> String {
    let what = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    match std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<minijinja::Error>())
    {
        Some(cause) => format!("{what}: {}", cause.detail().unwrap_or_default()),
        None => what,
    }
}
