//! Randomness from one seed: ids, jitter and salts are repeatable in a test.

use std::sync::Mutex;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

pub trait Random: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);

    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Uniform in `0.0..1.0`.
    fn unit(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A UUID of version 7 (RFC 9562) for `now`.
    fn uuid_v7(&self, now: Timestamp) -> Uuid {
        let mut bytes = [0; 10];
        self.fill(&mut bytes);
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }
}

/// A cryptographic generator with a seed.
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    pub fn from_os() -> Self {
        Self(Mutex::new(rand::make_rng()))
    }

    pub fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().expect("no holder of this lock can panic").fill(bytes);
    }
}
