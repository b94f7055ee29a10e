//! For machines: `router check --format json`.
