//! The types that an extraction may ask for, and how a JSON value takes each of them.

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    String,
    Integer,
    /// Exact text.
    Decimal,
    Number,
    Boolean,
    /// RFC 3339 text in UTC.
    Timestamp,
    /// Any value.
    Json,
}
