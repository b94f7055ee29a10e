//! Secrets: references as the configuration names them, and the values behind them. Values are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// Where a secret comes from, as a route or `router.yaml` writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretRef {
    /// `{ env: NAME }`
    Env(String),
    /// `{ file: PATH }`: absolute, or relative to the configuration file that names it (resolved by the loader).
    File(PathBuf),
    /// `{ literal: "..." }`: for demos and tests.
    Literal(Arc<str>),
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env {name}"),
            SecretRef::File(path) => write!(f, "file {}", path.display()),
            SecretRef::Literal(_) => f.write_str("literal [redacted]"),
        }
    }
}

/// The value of a secret. Wiped from memory when the last copy goes; `Debug` prints nothing of it.
#[derive(Clone, Debug)]
pub struct SecretValue(Arc<SecretString>);

impl SecretValue {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(SecretString::from(text.into())))
    }

    /// The secret itself, for a MAC, a comparison or a request; the store takes one that a handshake brought. Never for a log
    /// or an error.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The values of all secrets that a configuration names, read once when it is loaded.
#[derive(Clone, Debug, Default)]
pub struct Vault {
    values: BTreeMap<SecretRef, SecretValue>,
    forms: Vec<SecretValue>,
}

impl Vault {
    pub fn insert(&mut self, reference: SecretRef, value: SecretValue) {
        self.values.insert(reference, value);
    }

    /// The value, where [`crate::config::resolve`] found one. A running router has one for every reference of its set.
    pub fn get(&self, reference: &SecretRef) -> Option<&SecretValue> {
        self.values.get(reference)
    }

    /// Another form in which a secret leaves, such as the base64 of `Authorization: Basic`: as secret as the value.
    pub fn insert_form(&mut self, form: SecretValue) {
        self.forms.push(form);
    }

    /// Everything that must not be shown; longer texts that hold a secret come before it.
    pub fn values(&self) -> impl Iterator<Item = &SecretValue> {
        self.forms.iter().chain(self.values.values())
    }
}
