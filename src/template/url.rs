//! URLs: every `{{ }}` is percent-encoded as one segment or value.

/// A whole URL, or a path for a destination.
#[derive(Debug)]
pub struct UrlTemplate;
