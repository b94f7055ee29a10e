//! Templates and conditions: compiled at load, strict, native types, bounded. The only place that knows minijinja.

#[derive(Debug)]
pub struct Template;

#[derive(Debug)]
pub struct Condition;

pub mod body;
pub mod url;
