//! What a template may read, what it does read, and what is wrong with it. Enters: names; leaves: faults with byte
//! ranges in the template's own text. Refuses to know: files, YAML, values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What may be read at this place. An empty set of members means that the root has none.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `event payload headers query path fields steps secrets env delivery idempotency_key response …`
    pub roots: BTreeSet<&'static str>,
    pub fields: BTreeSet<String>,
    /// Step → its saved names.
    pub steps: BTreeMap<String, BTreeSet<String>>,
    pub secrets: BTreeSet<String>,
    pub env: BTreeSet<String>,
}

/// What a template reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub roots: BTreeSet<String>,
    pub fields: BTreeSet<String>,
    /// Step and saved name (or `status`).
    pub steps: BTreeSet<(String, String)>,
    pub secrets: BTreeSet<String>,
    pub env: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It does not parse, or uses what templates here do not have.
    Syntax,
    /// A name, filter, test or function that does not exist.
    UnknownName,
    /// Warning: `| raw_url` puts text into a URL as it is.
    RawUrl,
}

/// One finding in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
    /// Bytes of the template's own text.
    pub range: Range<usize>,
    pub help: Option<String>,
}
