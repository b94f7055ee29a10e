//! Waiting for work: by signal and by the clock.

use std::time::Duration;

use tokio::sync::Notify;

use super::state::Moment;
use crate::world::clock::Clock;

pub(crate) fn moment(clock: &dyn Clock) -> Moment {
    Moment { wall: clock.now(), monotonic: clock.monotonic() }
}

/// Resolves once `next_due` says that something is due. It is asked again after each signal of `changed`.
pub(crate) async fn until_due(
    clock: &dyn Clock,
    changed: &Notify,
    next_due: impl Fn(Moment) -> Option<Duration> + Send,
) {
    loop {
        let mut signal = std::pin::pin!(changed.notified());
        // Listens from here on: a change between the question and the wait is not missed.
        signal.as_mut().enable();
        let asked = moment(clock);
        match next_due(asked) {
            Some(Duration::ZERO) => return,
            Some(left) => {
                let sleep = clock.sleep(left);
                // The clock may have passed the time before the sleep began.
                if clock.monotonic() >= asked.monotonic.saturating_add(left) {
                    return;
                }
                tokio::select! {
                    () = signal => {}
                    () = sleep => {}
                }
            }
            None => signal.await,
        }
    }
}
