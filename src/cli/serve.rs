//! `router serve`
