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

/// A template value and, for a decimal, the exact number that it came from.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) exact: Option<Number>,
}

impl Cell {
    pub(super) fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Value::from(()).into(),
            Json::Bool(flag) => Value::from(*flag).into(),
            Json::String(text) => Value::from(text.as_str()).into(),
            Json::Number(number) => from_number(number),
            Json::Array(items) => {
                let items = items.iter().map(Cell::from_json).collect();
                Value::from_object(DataList { items }).into()
            }
            Json::Object(members) => {
                let entries: Vec<(Arc<str>, Cell)> = members
                    .iter()
                    .map(|(key, value)| (Arc::from(key.as_str()), Cell::from_json(value)))
                    .collect();
                let index = (entries.len() > LINEAR_MAX).then(|| {
                    entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect()
                });
                Value::from_object(DataMap { entries, index, any_case: false }).into()
            }
        }
    }

    /// An object whose members are found whatever the case of their names; where two differ in case alone, the first
    /// counts.
    pub(super) fn any_case(json: &Json) -> Self {
        let Json::Object(members) = json else { return Self::from_json(json) };
        let mut entries: Vec<(Arc<str>, Cell)> = Vec::with_capacity(members.len());
        let mut index = HashMap::with_capacity(members.len());
        for (name, value) in members {
            let name: Arc<str> = Arc::from(name.to_ascii_lowercase());
            if let Entry::Vacant(free) = index.entry(name.clone()) {
                free.insert(entries.len());
                entries.push((name, Cell::from_json(value)));
            }
        }
        Value::from_object(DataMap { entries, index: Some(index), any_case: true }).into()
    }

    /// The members by name, as an object; some of them not made of JSON.
    pub(super) fn object(entries: impl IntoIterator<Item = (Arc<str>, Cell)>) -> Self {
        let entries = entries.into_iter().collect();
        Value::from_object(DataMap { entries, index: None, any_case: false }).into()
    }

    /// The member or element, without passing through a float.
    pub(super) fn member(&self, key: &PathKey) -> Cell {
        let found = match key {
            PathKey::Name(name) => match self.value.downcast_object_ref::<DataMap>() {
                Some(map) => map.get(name).cloned(),
                None => self.value.get_attr(name).ok().map(Cell::from),
            },
            PathKey::Index(at) => match self.value.downcast_object_ref::<DataList>() {
                Some(list) => list.at(*at).cloned(),
                None => self.value.get_item(&Value::from(*at)).ok().map(Cell::from),
            },
        };
        match found {
            Some(cell) if !cell.value.is_undefined() => cell,
            Some(_) | None => Value::from(()).into(),
        }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self { value, exact: None }
    }
}

/// One step of `payload.lines[0].sku`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathKey {
    Name(String),
    Index(i64),
}

fn from_number(number: &Number) -> Cell {
    let text = number.as_str();
    if let Ok(integer) = text.parse::<i128>() {
        // `-0` is the one integer text that a number does not give back.
        let exact = (text == "-0").then(|| number.clone());
        return Cell { value: Value::from(integer), exact };
    }
    let value = text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from);
    Cell { value, exact: Some(number.clone()) }
}

/// An object in its own order; a missing key is `none`.
#[derive(Debug)]
pub(super) struct DataMap {
    entries: Vec<(Arc<str>, Cell)>,
    index: Option<HashMap<Arc<str>, usize>>,
    /// Names are in lower case and asked for in any.
    any_case: bool,
}

impl DataMap {
    fn get(&self, name: &str) -> Option<&Cell> {
        let folded = self.any_case.then(|| name.to_ascii_lowercase());
        let name = folded.as_deref().unwrap_or(name);
        let at = match &self.index {
            Some(index) => *index.get(name)?,
            None => self.entries.iter().position(|(key, _)| **key == *name)?,
        };
        self.entries.get(at).map(|(_, cell)| cell)
    }
}

impl Object for DataMap {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        // Absent stays undefined here, so that `in` and comparisons see the true members; the compiler turns it into
        // `none` where it is read.
        self.get(key).map(|cell| cell.value.clone())
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
    items: Vec<Cell>,
}

impl DataList {
    fn at(&self, at: i64) -> Option<&Cell> {
        let at = if at < 0 { at.checked_add(i64::try_from(self.items.len()).ok()?)? } else { at };
        self.items.get(usize::try_from(at).ok()?)
    }
}

impl Object for DataList {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).map(|cell| cell.value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// The JSON of a cell, exact where nothing was computed.
pub(super) fn to_json(cell: &Cell) -> Result<Json, String> {
    let mut left = OUTPUT_BYTES_MAX;
    convert(cell, 0, &mut left)
}

fn convert(cell: &Cell, depth: usize, left: &mut usize) -> Result<Json, String> {
    if depth > DEPTH_MAX {
        return Err(format!("a value is nested deeper than {DEPTH_MAX} levels"));
    }
    spend(left, 16)?;
    if let Some(number) = &cell.exact {
        return Ok(Json::Number(number.clone()));
    }
    let value = &cell.value;
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
                Ok(item) => convert(&item.into(), depth + 1, left),
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
                    None => text_of(&to_json(&key.into())?)?,
                };
                spend(left, name.len())?;
                out.insert(name, convert(&member.into(), depth + 1, left)?);
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
