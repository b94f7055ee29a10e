//! The names and values that templates of one delivery read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::value::{self, PathKey};
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
    values: Vec<(&'static str, Value)>,
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
        let mut data = match (root, value) {
            ("headers", _) => value::any_case(value),
            ("response", Json::Object(members)) => {
                value::object(members.iter().map(|(name, json)| {
                    let of = if name == "headers" { value::any_case } else { value::from_json };
                    (Arc::from(name.as_str()), of(json))
                }))
            }
            _ => value::from_json(value),
        };
        if STRICT_ROOTS.contains(&root) {
            data = Value::from_object(Strict { root, members: data });
        }
        let roots = Arc::make_mut(&mut self.roots);
        match roots.values.iter_mut().find(|(name, _)| *name == root) {
            Some((_, old)) => *old = data,
            None => roots.values.push((root, data)),
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
        let found = self.lookup(root, &[PathKey::Name(key.to_owned())]).ok()?;
        found.as_str().map(str::to_owned)
    }

    pub(super) fn is_redacted(&self) -> bool {
        self.roots.redacted
    }

    /// For minijinja.
    pub(super) fn value(&self) -> Value {
        Value::from_dyn_object(self.roots.clone())
    }

    /// The value at a path, exact; missing data is `none`.
    pub(super) fn lookup(&self, root: &str, keys: &[PathKey]) -> Result<Value, String> {
        let found = self.roots.root(root).ok_or_else(|| format!("`{root}` is not known here"))?;
        keys.iter().try_fold(found, |value, key| step(&value, key))
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
    fn root(&self, name: &str) -> Option<Value> {
        if name == "secrets" {
            let secrets = Secrets { values: self.secrets.clone(), redacted: self.redacted };
            return Some(Value::from_object(secrets));
        }
        self.values.iter().find(|(root, _)| *root == name).map(|(_, value)| value.clone())
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
            _ => self.root(key),
        }
    }
}

/// One step of a path: a missing name is an error, missing data is `none`.
pub(super) fn step(value: &Value, key: &PathKey) -> Result<Value, String> {
    match (value.downcast_object_ref::<Strict>(), key) {
        (Some(strict), PathKey::Name(name)) if !strict.has(name) => {
            Err(format!("`{}` has no `{name}`", strict.root))
        }
        (Some(strict), _) => Ok(value::member(&strict.members, key)),
        (None, _) => Ok(value::member(value, key)),
    }
}

/// Roots whose members are names: reading one that does not exist is an error, also where only rendering finds out.
const STRICT_ROOTS: [&str; 5] = ["fields", "steps", "env", "event", "delivery"];

#[derive(Debug)]
struct Strict {
    root: &'static str,
    members: Value,
}

impl Strict {
    fn has(&self, name: &str) -> bool {
        self.members.get_attr(name).is_ok_and(|value| !value.is_undefined())
    }
}

impl Object for Strict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match self.members.get_attr(key) {
            Ok(value) if !value.is_undefined() => Some(value),
            Ok(_) | Err(_) => Some(unknown(self.root, key)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.members.try_iter() {
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
