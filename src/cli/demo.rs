//! `router demo`: everything at once on one machine. A real router with the repository's own routes, its journal in a
//! temporary folder, stands between a provider that sends everything several times and a downstream that fails on
//! purpose; then it is counted what was done.

mod cast;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;

use super::running::Running;
use super::serve::{self, StopSignals};
use super::{Global, out, sample};
use crate::files::Location;
use crate::simulate::downstream::Downstream;
use crate::simulate::provider::{Notification, Provider};
use crate::store::Store;
use crate::verify::Keys;
use crate::world::World;
use crate::world::clock::timeout;
use cast::Webhook;
use report::Report;

/// Different events of each kind.
const EVENTS_EACH: u32 = 4;
/// How often each event is sent.
const SENDS_EACH: u32 = 3;
/// The demo needs a few seconds; what is not done by then is lost.
const LIMIT: Duration = Duration::from_secs(60);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// How often the store is asked whether the last outcome is written down.
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// End after the report instead of leaving the router up
    #[arg(long)]
    pub once: bool,
    /// Show the router's log
    #[arg(short, long)]
    pub verbose: bool,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.verbose {
        global.start_log();
    }
    let mut stop = StopSignals::listen()?;
    let world = World::real();
    let folder = Folder::new(&world)?;
    let downstream = cast::downstream(&world).await.context("cannot start the downstream")?;
    cast::write_configuration(&folder.0, downstream.address())?;
    let location = Location::Folder(folder.0.clone());
    let Some(live) = serve::load(&location, &cast::StandIns) else {
        bail!("the demo's own configuration has errors");
    };
    let running = Running::start(live, world.clone()).await?;

    let webhooks = cast::webhooks(EVENTS_EACH)?;
    out(&format!(
        "A shop, a payment service and a code host send {} webhooks, each {SENDS_EACH} times.\n\
         The APIs behind the router answer 503 at times, hang once, and once die after doing the work.\n\n",
        webhooks.len()
    ));
    let start = world.clock.monotonic();
    let received = tokio::select! {
        received = send(&running, &webhooks, &world) => received?,
        () = stop.next() => return end(running, ExitCode::from(130)).await,
    };
    tokio::select! {
        finished = timeout(&*world.clock, LIMIT, finish(&running, &downstream, &webhooks, &world)) => {
            if finished.is_none() {
                out("Not everything was finished in time.\n\n");
            }
        }
        () = stop.next() => return end(running, ExitCode::from(130)).await,
    }
    let took = world.clock.monotonic().saturating_sub(start);
    let report = Report::of(&*running.store, &downstream, &webhooks, received).await?;
    out(&report.text(took));
    let code = ExitCode::from(u8::from(!report.is_right()));
    if !args.once {
        out(&cast::invitation(&running, &folder.0, &report));
        stop.next().await;
    }
    end(running, code).await
}

async fn end(running: Running, code: ExitCode) -> anyhow::Result<ExitCode> {
    running.shutdown(SHUTDOWN_LIMIT).await?;
    Ok(code)
}

/// Sends every webhook several times, all at once, each until it is accepted. Answers how many were.
async fn send(running: &Running, webhooks: &[Webhook], world: &World) -> anyhow::Result<u32> {
    let live = running.live();
    let sends = webhooks.iter().map(|webhook| {
        let (live, clock) = (Arc::clone(&live), world.clock.clone());
        async move {
            let route =
                live.set.routes.get(&webhook.route.into()).context("a route of the demo")?;
            let source = live.set.sources.get(&route.source).context("a source of the demo")?;
            let url: url::Url = format!("http://{}{}", running.ingress, source.path).parse()?;
            let notification = Notification {
                method: http::Method::POST,
                path: Vec::new(),
                headers: sample::usual_headers(route, source, &webhook.body, &webhook.id)?,
                body: webhook.body.clone(),
                id: webhook.id.clone(),
            };
            let provider = Provider {
                scheme: &source.verify.scheme,
                keys: Keys::of(&live.resolved.vault),
                body: source.body.as_ref(),
                public_url: url.clone(),
                to: url,
                clock,
            };
            for _ in 0..SENDS_EACH {
                let accepted =
                    provider.send_until_accepted(&notification, 10, Duration::from_millis(100));
                accepted.await.map_err(anyhow::Error::msg)?;
            }
            Ok::<_, anyhow::Error>(SENDS_EACH)
        }
    });
    join_all(sends).await.into_iter().sum()
}

/// Resolves once every action was done and every delivery has written its end down.
async fn finish(running: &Running, downstream: &Downstream, webhooks: &[Webhook], world: &World) {
    let wanted = webhooks.iter().map(|webhook| webhook.actions.len()).sum::<usize>();
    downstream.wait_until(|downstream| downstream.actions().len() >= wanted).await;
    loop {
        let summary = running.store.summary().await;
        if summary.queued + summary.processing == 0 {
            return;
        }
        world.clock.sleep(ASK_EVERY).await;
    }
}

/// A folder that goes away with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new(world: &World) -> anyhow::Result<Self> {
        let name = format!("router-demo-{}", world.random.uuid_v7(world.clock.now()));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind it does no harm: it lies in the folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
