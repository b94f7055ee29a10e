//! One file per command; the only place that prints.

pub mod check;
pub mod demo;
pub mod events;
pub mod send;
pub mod serve;
pub mod try_route;
