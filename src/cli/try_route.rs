//! `router try`
