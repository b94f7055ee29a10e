//! `router check`
