//! Bodies: JSON trees, forms, texts, or the event's own body.

#[derive(Debug)]
pub enum BodyTemplate {
    None,
}
