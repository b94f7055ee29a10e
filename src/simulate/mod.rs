//! The world around a router that a test or the demo owns: the downstream that it calls, and the provider that calls it.
//! Both speak HTTP over loopback sockets, so what they show holds for the real thing.

pub mod downstream;
pub mod provider;
pub mod stand_in;
