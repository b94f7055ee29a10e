//! `router send`
