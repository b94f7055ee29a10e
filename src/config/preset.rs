//! The provider presets: YAML data, embedded. Nothing here or elsewhere in Rust knows what a provider does.

/// The built-in presets: (name, YAML), by name.
pub const BUILT_IN: &[(&str, &str)] = &[];
