//! The tables of keys: what may stand where in a file, as data. From them come the errors of form, the JSON Schemas and
//! the reference; a key that is not in a table does not exist.

pub mod check;
mod handshake;
pub mod provider;
pub mod route;
pub mod server;
pub mod source;
pub mod verify;

/// A mapping with known keys.
#[derive(Debug)]
pub struct Mapping {
    /// What a message calls it: "a route", "a step".
    pub name: &'static str,
    pub keys: &'static [Key],
    /// Of each group exactly one key is there.
    pub one_of: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    /// One sentence, for the reference and the editor.
    pub doc: &'static str,
    pub required: bool,
    /// As a person would write it; empty where there is none.
    pub default: &'static str,
    /// Part of the language that this version does not carry out: an error, never ignored.
    pub built: bool,
}

/// A key that may be left out.
pub const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, doc, required: false, default: "", built: true }
}

/// A key of the language that this version does not carry out.
pub const fn later(name: &'static str) -> Key {
    Key { name, shape: Shape::Json, doc: "", required: false, default: "", built: false }
}

impl Key {
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }
}

/// What a value looks like. A shape decides form alone; what a text means (a path, a template, a name that has to exist)
/// is decided by the rules in `config::check`.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text; a number or true/false is not taken for it.
    Text,
    /// Text that matches a pattern; the second says it in words.
    Pattern(&'static str, &'static str),
    /// Text, a number, or true/false: a template's literal.
    Scalar,
    /// A scalar holding one MiniJinja condition.
    Condition,
    /// Text starting with `$`.
    JsonPath,
    Bool,
    /// Only `true`: the key's presence says it.
    True,
    /// Only `false`: what would be there is turned off.
    False,
    /// A whole number within bounds.
    Count(u64, u64),
    /// A number of at least this much.
    Factor(f64),
    Duration,
    Size,
    Word(&'static [Word]),
    /// `2xx` or a code.
    Status,
    Json,
    List(&'static Shape),
    /// One value, or a list of them.
    Many(&'static Shape),
    /// Free names to values; what a name is called, and its pattern (empty: any).
    Names(&'static Names),
    Mapping(&'static Mapping),
    /// The alternative whose kind of node is there.
    Any(&'static [Shape]),
}

#[derive(Debug)]
pub struct Names {
    /// "a field", "a step"
    pub what: &'static str,
    pub pattern: &'static str,
    pub value: Shape,
}

#[derive(Clone, Copy, Debug)]
pub struct Word {
    pub text: &'static str,
    pub doc: &'static str,
    pub built: bool,
}

pub const fn word(text: &'static str, doc: &'static str) -> Word {
    Word { text, doc, built: true }
}

pub const fn later_word(text: &'static str) -> Word {
    Word { text, doc: "", built: false }
}

/// Names of routes, sources, destinations.
pub const DASHED: Shape = Shape::Pattern(
    "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
    "lower-case letters, digits and `-`, at most 64, neither first nor last a `-`",
);

pub const DASHED_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$";

/// Names of steps, fields, saved values, secrets and variables: what templates can read.
pub const SNAKE_PATTERN: &str = "^[a-z_][a-z0-9_]{0,63}$";

pub const SNAKE: Shape = Shape::Pattern(
    SNAKE_PATTERN,
    "lower-case letters, digits and `_`, at most 64, not starting with a digit",
);

/// How a default or an error says a pattern in words.
pub fn pattern_in_words(pattern: &str) -> &'static str {
    match pattern {
        SNAKE_PATTERN => {
            "lower-case letters, digits and `_`, at most 64, not starting with a digit"
        }
        DASHED_PATTERN => {
            "lower-case letters, digits and `-`, at most 64, neither first nor last a `-`"
        }
        _ => "another form",
    }
}
