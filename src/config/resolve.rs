//! References → values: reads the environment and the secrets' files once, before a port is bound.

use std::io;
use std::path::Path;

use crate::config::{Resolved, RouteSet};
use crate::diag::Diagnostic;

/// Where secrets and variables come from.
pub trait Environment {
    fn var(&self, name: &str) -> Option<String>;
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Environment for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Reads what `set` names. Each variable that is not set and each file that cannot be read is a diagnostic.
pub fn resolve(set: &RouteSet, environment: &dyn Environment) -> (Resolved, Vec<Diagnostic>) {
    let _ = (set, environment);
    todo!()
}
