//! The main job over real sockets and a real process.

mod support;
