//! `router events`
