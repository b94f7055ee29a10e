//! `router demo`
