//! The names and values that templates of one delivery read.

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::secret::SecretValue;

/// Cheap to clone: values are converted once and shared.
#[derive(Clone, Debug)]
pub struct Context;

impl Context {
    /// `now()` gives `now`; `uuid()` is a function of `uuid_seed`.
    pub fn new(now: Timestamp, uuid_seed: &str) -> Self {
        let _ = (now, uuid_seed);
        todo!()
    }

    /// The same names with another `uuid()`: one per delivery, step and element.
    pub fn with_uuid_seed(&self, uuid_seed: &str) -> Self {
        let _ = uuid_seed;
        todo!()
    }

    pub fn set(&mut self, root: &'static str, value: &Json) {
        let _ = (root, value);
        todo!()
    }

    /// Readable as `secrets.NAME`.
    pub fn set_secret(&mut self, name: &str, value: SecretValue) {
        let _ = (name, value);
        todo!()
    }

    /// The same with every secret as `[secret NAME]`.
    pub fn redacted(&self) -> Self {
        todo!()
    }
}
