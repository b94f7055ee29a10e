//! The seams at the bottom: time, randomness, tasks, network and disk. Everything that is not a function of its inputs
//! enters through here, so a test or the simulator can own it. Nothing above reads a clock or draws a number otherwise.

pub mod clock;
pub mod disk;
pub mod random;
pub mod spawn;
pub mod transport;

use std::sync::Arc;

use clock::Clock;
use random::Random;
use spawn::Spawn;

/// What every running part needs. Transport and disk are given only to the rooms that use them.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub spawn: Arc<dyn Spawn>,
}

impl World {
    /// The machine's own clock, the operating system's randomness, tokio's tasks.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(clock::SystemClock::start()),
            random: Arc::new(random::SeededRandom::from_os()),
            spawn: Arc::new(spawn::TokioSpawn),
        }
    }
}
