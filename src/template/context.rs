//! The names and values that templates of one delivery read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::value::{Cell, PathKey};
use crate::secret::SecretValue;

/// Cheap to clone: values are converted once and shared.
#[derive(Clone, Debug)]
pub struct Context {
    roots: Arc<Roots>,
}

/// Names under which `now()` and `uuid()` find their values; no template can write them.
pub(super) const NOW: &str = "%now";
pub(super) const UUID: &str = "%uuid";

#[derive(Clone, Debug)]
struct Roots {
    values: Vec<(&'static str, Cell)>,
    secrets: Arc<BTreeMap<String, SecretValue>>,
    redacted: bool,
    now: Timestamp,
    uuid_seed: Arc<str>,
}

impl Context {
    /// `now()` gives `now`; `uuid()` is a function of `uuid_seed`.
    pub fn new(now: Timestamp, uuid_seed: &str) -> Self {
        Self {
            roots: Arc::new(Roots {
                values: Vec::new(),
                secrets: Arc::default(),
                redacted: false,
                now,
                uuid_seed: uuid_seed.into(),
            }),
        }
    }

    /// The same names with another `uuid()`: one per delivery, step and element.
    pub fn with_uuid_seed(&self, uuid_seed: &str) -> Self {
        let mut context = self.clone();
        Arc::make_mut(&mut context.roots).uuid_seed = uuid_seed.into();
        context
    }

    /// Headers, of the event and of a response, are found in any case.
    pub fn set(&mut self, root: &'static str, value: &Json) {
        let mut cell = match (root, value) {
            ("headers", _) => Cell::any_case(value),
            ("response", Json::Object(members)) => {
                Cell::object(members.iter().map(|(name, json)| {
                    let any_case = name == "headers";
                    let cell = if any_case { Cell::any_case(json) } else { Cell::from_json(json) };
                    (Arc::from(name.as_str()), cell)
                }))
            }
            _ => Cell::from_json(value),
        };
        if STRICT_ROOTS.contains(&root) {
            cell = Value::from_object(Strict { root, members: cell }).into();
        }
        let roots = Arc::make_mut(&mut self.roots);
        match roots.values.iter_mut().find(|(name, _)| *name == root) {
            Some((_, old)) => *old = cell,
            None => roots.values.push((root, cell)),
        }
    }

    /// Readable as `secrets.NAME`.
    pub fn set_secret(&mut self, name: &str, value: SecretValue) {
        let roots = Arc::make_mut(&mut self.roots);
        Arc::make_mut(&mut roots.secrets).insert(name.to_owned(), value);
    }

    /// The same with every secret as `[secret NAME]`.
    pub fn redacted(&self) -> Self {
        let mut context = self.clone();
        Arc::make_mut(&mut context.roots).redacted = true;
        context
    }

    /// A text beneath a root, where there is one.
    pub(crate) fn text(&self, root: &str, key: &str) -> Option<String> {
        let cell = self.lookup(root, &[PathKey::Name(key.to_owned())]).ok()?;
        cell.value.as_str().map(str::to_owned)
    }

    pub(super) fn is_redacted(&self) -> bool {
        self.roots.redacted
    }

    /// For minijinja.
    pub(super) fn value(&self) -> Value {
        Value::from_dyn_object(self.roots.clone())
    }

    /// The value at a path, exact; missing data is `none`.
    pub(super) fn lookup(&self, root: &str, keys: &[PathKey]) -> Result<Cell, String> {
        let Some(mut cell) = self.roots.root(root) else {
            return Err(format!("`{root}` is not known here"));
        };
        for key in keys {
            let strict = match (cell.value.downcast_object_ref::<Strict>(), key) {
                (Some(strict), PathKey::Name(name)) => Some((strict, name)),
                _ => None,
            };
            cell = match strict {
                Some((strict, name)) if !strict.has(name) => {
                    return Err(format!("`{}` has no `{name}`", strict.root));
                }
                Some((strict, _)) => strict.members.member(key),
                None => cell.member(key),
            };
        }
        Ok(cell)
    }

    /// `text` without the value of any secret.
    pub(super) fn without_secrets(&self, mut text: String) -> String {
        for (name, value) in self.roots.secrets.iter() {
            if !value.expose().is_empty() && text.contains(value.expose()) {
                text = text.replace(value.expose(), &format!("[secret {name}]"));
            }
        }
        text
    }
}

impl Roots {
    fn root(&self, name: &str) -> Option<Cell> {
        if name == "secrets" {
            let secrets = Secrets { values: self.secrets.clone(), redacted: self.redacted };
            return Some(Value::from_object(secrets).into());
        }
        self.values.iter().find(|(root, _)| *root == name).map(|(_, cell)| cell.clone())
    }
}

impl Object for Roots {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            NOW => Some(Value::from(self.now.to_string())),
            UUID => {
                let digest = Sha256::digest(self.uuid_seed.as_bytes());
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest[..16]);
                Some(Value::from(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()))
            }
            _ => self.root(key).map(|cell| cell.value),
        }
    }
}

/// Roots whose members are names: reading one that does not exist is an error, also where only rendering finds out.
const STRICT_ROOTS: [&str; 5] = ["fields", "steps", "env", "event", "delivery"];

#[derive(Debug)]
struct Strict {
    root: &'static str,
    members: Cell,
}

impl Strict {
    fn has(&self, name: &str) -> bool {
        self.members.value.get_attr(name).is_ok_and(|value| !value.is_undefined())
    }
}

impl Object for Strict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match self.members.value.get_attr(key) {
            Ok(value) if !value.is_undefined() => Some(value),
            Ok(_) | Err(_) => Some(unknown(self.root, key)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.members.value.try_iter() {
            Ok(keys) => Enumerator::Values(keys.collect()),
            Err(_) => Enumerator::Empty,
        }
    }
}

struct Secrets {
    values: Arc<BTreeMap<String, SecretValue>>,
    redacted: bool,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secrets]")
    }
}

impl Object for Secrets {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        Some(match self.values.get(key) {
            Some(_) if self.redacted => Value::from(format!("[secret {key}]")),
            Some(value) => Value::from(value.expose()),
            None => unknown("secrets", key),
        })
    }
}

fn unknown(root: &str, key: &str) -> Value {
    Value::from(Error::new(ErrorKind::UndefinedError, format!("`{root}` has no `{key}`")))
}
