//! `router serve`
//!
//! Once both listeners accept, it logs one line `listening` with the fields `ingress` and `admin` (the addresses bound).
//! `tests/support` reads that line.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Global;
use super::running::{Broken, Running};
use crate::config::resolve::{Environment, Process, resolve};
use crate::config::{Live, check::Loaded};
use crate::diag::{Severity, sort};
use crate::files::Location;
use crate::world::World;

/// Calls and requests in flight may take this long after the signal to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// The store is dead; no other end of this process has this code.
const EXIT_STORE_DEAD: u8 = 70;
/// As a shell says of a process that Ctrl-C ended.
const EXIT_AT_ONCE: i32 = 130;
/// SIGXFSZ, which Linux numbers 25 on all but one architecture.
const FILE_TOO_LARGE: i32 = 25;

#[derive(clap::Args, Debug)]
pub struct Args {}

pub async fn run(Args {}: Args, global: &Global) -> anyhow::Result<ExitCode> {
    global.start_log();
    let mut stop = StopSignals::listen()?;
    // A file-size limit is then an error of the write, which the store answers with 503, and not the end of the process.
    let _handled = signal(SignalKind::from_raw(FILE_TOO_LARGE))?;
    let Some(live) = load(&global.location(), &Process) else { return Ok(ExitCode::from(1)) };

    let mut running = tokio::select! {
        running = Running::start(live, World::real()) => running?,
        // Nothing was promised to anybody yet; reading a long journal need not be waited for.
        () = stop.next() => std::process::exit(EXIT_AT_ONCE),
    };
    tracing::info!(ingress = %running.ingress, admin = %running.admin, "listening");
    tokio::select! {
        () = stop.next() => {}
        broken = running.broken() => return Ok(give_up(&broken)),
    }
    tracing::info!("stopping: no new requests; finishing what is in flight");
    tokio::select! {
        ended = running.shutdown(SHUTDOWN_LIMIT) => ended?,
        () = stop.next() => {
            tracing::warn!("stopped at once; what was in flight is taken up at the next start");
            std::process::exit(EXIT_AT_ONCE);
        }
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The configuration at `location`, checked as `check --env` does, or `None` after saying what is wrong with it.
pub(super) fn load(location: &Location, environment: &dyn Environment) -> Option<Live> {
    let Loaded { files, set, mut diagnostics } = super::check::load(location);
    let mut resolved = None;
    if let Some(set) = &set {
        let (found, missing) = resolve(set, environment);
        resolved = Some(found);
        diagnostics.extend(missing);
        sort(&files, &mut diagnostics);
    }
    super::check::complain(&files, &diagnostics);
    let refused = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match (set, resolved) {
        (Some(set), Some(resolved)) if !refused => Some(Live { set, resolved }),
        _ => None,
    }
}

fn give_up(broken: &Broken) -> ExitCode {
    match broken {
        Broken::Store(why) => {
            tracing::error!(
                why = %crate::telemetry::log::field(why),
                "the store is dead; nothing more is acknowledged. Start the router again: it recovers what was acknowledged"
            );
            ExitCode::from(EXIT_STORE_DEAD)
        }
        Broken::Part(why) => {
            tracing::error!(why = %crate::telemetry::log::field(why), "the router cannot go on");
            ExitCode::from(1)
        }
    }
}

/// SIGTERM and SIGINT.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
