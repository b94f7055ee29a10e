//! Wall time, monotonic time, and waiting for it.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

pub trait Clock: Send + Sync + 'static {
    /// Wall time. It may jump in either direction.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment before the start. It never goes back.
    fn monotonic(&self) -> Duration;
    /// Resolves once `monotonic` has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// `future`'s output, or `None` when `limit` passes first (the future is dropped then).
pub async fn timeout<F: Future>(
    clock: &dyn Clock,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(limit) => None,
    }
}

/// The machine's clock.
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the real clock"
    )]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the real clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that waits on the real clock"
    )]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until it is told to advance; for tests and the simulator.
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
    advanced: watch::Sender<Duration>,
}

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self {
            state: Mutex::new((now, Duration::ZERO)),
            advanced: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Moves wall and monotonic time forward and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().expect("no holder of this lock can panic");
        state.0 += by;
        state.1 += by;
        self.advanced.send_replace(state.1);
    }

    /// Moves wall time alone, as an operator or a time server does.
    pub fn jump_to(&self, now: Timestamp) {
        self.state.lock().expect("no holder of this lock can panic").0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().expect("no holder of this lock can panic").0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().expect("no holder of this lock can panic").1
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let until = self.monotonic() + duration;
        let mut advanced = self.advanced.subscribe();
        Box::pin(async move {
            // A closed channel means that the clock is gone: its time never comes.
            if advanced.wait_for(|now| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
