//! The retry schedule: exponential with full jitter, bounded in number and in time, Retry-After obeyed.

use std::time::Duration;

/// `retry`, merged: step over route over destination over built-in.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// No attempt starts later than this after the step's first one.
    pub within: Duration,
    pub attempts: u32,
    pub first: Duration,
    pub factor: f64,
    pub max: Duration,
    pub jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Uniform between nothing and the step's delay.
    Full,
    None,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(24 * 3600),
            attempts: 100,
            first: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(3600),
            jitter: Jitter::Full,
        }
    }
}
