//! Which sources may take a secret out of a handshake right now. An operator arms one for some minutes, the first capture
//! disarms it. It lives in memory alone: after a restart nothing is armed, so nobody's secret is taken that nobody waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::name::SourceName;
use crate::world::clock::Clock;

/// Longer than this nobody waits for a provider.
pub const ARMED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
pub const ARMED_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Shared by those who arm and those who capture.
pub struct Arming {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    armed: BTreeMap<SourceName, Armed>,
    /// Grows with every arming, so that what was taken is put back only where nobody decided anew meanwhile.
    count: u64,
}

struct Armed {
    number: u64,
    /// On the monotonic clock.
    until: Duration,
    by: Arc<str>,
    /// The parts of the path that it is for; others are open.
    path: Vec<(String, String)>,
    /// A capture is on its way to the store: another must not come in between.
    taken: bool,
}

/// The right to capture one secret. Dropped, the source is disarmed.
#[derive(Debug)]
#[must_use = "a source stays disarmed unless this is put back"]
pub struct Taken {
    source: SourceName,
    number: u64,
    by: Arc<str>,
}

impl Taken {
    /// Who armed the source.
    pub fn by(&self) -> &str {
        &self.by
    }
}

impl Arming {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// The next capture within `time`, at most [`ARMED_MAX`], whose path has these parts is taken. Whoever calls it knows that
    /// there is such a source: their number bounds what is kept.
    pub fn arm(&self, source: SourceName, path: Vec<(String, String)>, time: Duration, by: &str) {
        let until = self.clock.monotonic().saturating_add(time.min(ARMED_MAX));
        let mut state = self.state();
        state.count += 1;
        let armed = Armed { number: state.count, until, by: by.into(), path, taken: false };
        state.armed.insert(source, armed);
    }

    /// Answers whether it was armed.
    pub fn disarm(&self, source: &SourceName) -> bool {
        let now = self.clock.monotonic();
        self.state().armed.remove(source).is_some_and(|armed| armed.is_open(now))
    }

    /// How long the source stays armed. `None`: it is not.
    pub fn left(&self, source: &SourceName) -> Option<Duration> {
        let now = self.clock.monotonic();
        let state = self.state();
        let armed = state.armed.get(source).filter(|armed| armed.is_open(now))?;
        Some(armed.until.saturating_sub(now))
    }

    /// What came to these parts of the path would be taken.
    pub fn waits_for(&self, source: &SourceName, path: &[(String, String)]) -> bool {
        let now = self.clock.monotonic();
        self.state().armed.get(source).is_some_and(|armed| armed.is_open(now) && armed.is_for(path))
    }

    /// Disarms the source for whoever captures now. Of two who ask at once one gets it.
    pub fn take(&self, source: &SourceName, path: &[(String, String)]) -> Option<Taken> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let armed = state.armed.get_mut(source)?;
        if !(armed.is_open(now) && armed.is_for(path)) {
            return None;
        }
        armed.taken = true;
        Some(Taken { source: source.clone(), number: armed.number, by: armed.by.clone() })
    }

    /// Nothing was captured: the source is armed again for what is left of its time, unless an operator decided otherwise
    /// meanwhile.
    pub fn put_back(&self, taken: &Taken) {
        let mut state = self.state();
        if let Some(armed) = state.armed.get_mut(&taken.source)
            && armed.number == taken.number
        {
            armed.taken = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Armed {
    fn is_for(&self, path: &[(String, String)]) -> bool {
        self.path.iter().all(|part| path.contains(part))
    }

    fn is_open(&self, now: Duration) -> bool {
        !self.taken && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::clock::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn arming() -> (Arming, Arc<ManualClock>, SourceName) {
        let clock = Arc::new(ManualClock::at("2026-11-24T08:00:00Z".parse().unwrap()));
        (Arming::new(clock.clone()), clock, "tasks".into())
    }

    #[test]
    fn the_first_capture_disarms() {
        let (arming, _, tasks) = arming();
        assert!(arming.take(&tasks, &[]).is_none());
        arming.arm(tasks.clone(), Vec::new(), MINUTE, "ann");
        assert_eq!(arming.left(&tasks), Some(MINUTE));
        assert!(arming.take(&"others".into(), &[]).is_none());
        assert_eq!(arming.take(&tasks, &[]).unwrap().by(), "ann");
        assert!(arming.take(&tasks, &[]).is_none() && arming.left(&tasks).is_none());
        assert!(!arming.disarm(&tasks));
    }

    #[test]
    fn it_may_be_for_a_part_of_the_path_alone() {
        let (arming, _, tasks) = arming();
        let at = |team: &str| vec![("team".to_owned(), team.to_owned())];
        arming.arm(tasks.clone(), at("blue"), MINUTE, "ann");
        assert!(arming.waits_for(&tasks, &at("blue")) && !arming.waits_for(&tasks, &at("red")));
        assert!(arming.take(&tasks, &at("red")).is_none());
        assert!(arming.take(&tasks, &at("blue")).is_some());
        arming.arm(tasks.clone(), Vec::new(), MINUTE, "ann");
        assert!(arming.take(&tasks, &at("red")).is_some());
    }

    #[test]
    fn it_ends_by_the_monotonic_clock_and_after_a_day_at_most() {
        let (arming, clock, tasks) = arming();
        arming.arm(tasks.clone(), Vec::new(), MINUTE, "ann");
        clock.jump_to("2027-01-01T00:00:00Z".parse().unwrap());
        assert!(arming.left(&tasks).is_some());
        clock.advance(MINUTE);
        assert!(arming.take(&tasks, &[]).is_none() && arming.left(&tasks).is_none());
        arming.arm(tasks.clone(), Vec::new(), Duration::MAX, "ann");
        assert_eq!(arming.left(&tasks), Some(ARMED_MAX));
    }

    #[test]
    fn what_failed_is_armed_again_unless_somebody_decided_otherwise() {
        let (arming, clock, tasks) = arming();
        arming.arm(tasks.clone(), Vec::new(), 2 * MINUTE, "ann");
        let taken = arming.take(&tasks, &[]).unwrap();
        clock.advance(MINUTE);
        arming.put_back(&taken);
        assert_eq!(arming.left(&tasks), Some(MINUTE));

        let taken = arming.take(&tasks, &[]).unwrap();
        assert!(!arming.disarm(&tasks), "a capture is under way");
        arming.put_back(&taken);
        assert!(arming.left(&tasks).is_none());

        arming.arm(tasks.clone(), Vec::new(), MINUTE, "ann");
        let old = arming.take(&tasks, &[]).unwrap();
        arming.arm(tasks.clone(), Vec::new(), MINUTE, "bob");
        assert_eq!(arming.take(&tasks, &[]).unwrap().by(), "bob");
        arming.put_back(&old);
        assert!(arming.take(&tasks, &[]).is_none(), "an older right opens nothing");
    }
}
