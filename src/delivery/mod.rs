//! A delivery, its steps and their attempts as plain data, and what an outcome makes of them. Pure: no clock, no I/O;
//! time and randomness are arguments.

pub mod decide;
pub mod key;
pub mod outcome;
pub mod policy;
pub mod state;
