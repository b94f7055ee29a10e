//! Kills and failed writes on a real process. Power cuts and full disks are in `power.rs`.
#![expect(
    clippy::disallowed_methods,
    reason = "a test bounds its waits for a real process by the real clock"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use router::simulate::downstream::{Downstream, Keys, Reply};
use router::world::clock::SystemClock;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::{Value as Json, json};
use support::provider::{Notification, now};
use support::{Folder, PATIENCE, Router, client};
use tokio::sync::mpsc;

const SECRET: &str = "whsec_crash";
const ENV: &[(&str, &str)] = &[("STRIPE_SECRET", SECRET)];
const ROUTE: &str = r#"
route: orders
source:
  path: /hooks/orders
  verify: { provider: stripe, secret: { env: STRIPE_SECRET } }
steps:
  - name: ship
    call: { to: shop, post: /ship, json: { order: "{{ event.id }}" } }
    save: { id: $.id }
  - name: mail
    call: { to: shop, post: /mail, json: { order: "{{ event.id }}", parcel: "{{ steps.ship.id }}" } }
retry: { first: 20ms, max: 200ms }
"#;

fn folder(downstream: &Downstream, server: &str) -> Folder {
    let address = downstream.address();
    let server = format!(
        "egress: {{ allow: [ \"{address}\" ] }}\n\
         destinations: {{ shop: {{ url: \"http://{address}\", idempotency: {{ header: Idempotency-Key }} }} }}\n{server}"
    );
    Folder::new(&server, &[("routes/orders.yaml", ROUTE)])
}

fn notification(id: &str, pad: usize) -> Notification {
    let body = format!(
        r#"{{"id":"{id}","type":"order.paid","created":{},"pad":"{}"}}"#,
        now(),
        "x".repeat(pad)
    );
    Notification::new(SECRET, body)
}

/// The events that the API shows as succeeded now.
async fn succeeded(router: &Router) -> Vec<String> {
    let (client, mut ids, mut cursor) = (client(), Vec::new(), None::<String>);
    loop {
        let mut url = format!("http://{}/api/v1/events?status=succeeded&limit=200", router.admin);
        if let Some(cursor) = &cursor {
            url += &format!("&cursor={cursor}");
        }
        let answer =
            client.get(url).send().await.expect("an answer").bytes().await.expect("a body");
        let page: Json = serde_json::from_slice(&answer).expect("JSON");
        let events = page["events"].as_array().unwrap_or_else(|| panic!("a list in {page}"));
        ids.extend(events.iter().map(|event| event["eventId"].as_str().expect("an id").to_owned()));
        match &page["next"] {
            Json::Null => return ids,
            next => cursor = Some(next.as_str().map_or_else(|| next.to_string(), str::to_owned)),
        }
    }
}

/// Calls per (path, order) that the downstream has seen.
fn calls(downstream: &Downstream) -> BTreeMap<(String, String), usize> {
    let mut calls = BTreeMap::new();
    for request in downstream.requests() {
        let order = request.json()["order"].as_str().expect("an order").to_owned();
        *calls.entry((request.path, order)).or_default() += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_25_random_moments_nothing_acknowledged_is_lost_and_nothing_finished_runs_again()
{
    const SEED: u64 = 25;
    let mut random = StdRng::seed_from_u64(SEED);
    let downstream = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    downstream.keys(Keys::Ignored);
    downstream.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    let folder = folder(&downstream, "");
    let next = Arc::new(AtomicU64::new(0));
    let mut acknowledged = Vec::new();
    // What was shown as finished, with the calls seen for it at that moment: they must never grow.
    let mut finished: BTreeMap<(String, String), usize> = BTreeMap::new();

    for _ in 0..25 {
        let router = Router::start(&folder, ENV);
        let url = router.url("/hooks/orders");
        let (acks, mut acked) = mpsc::unbounded_channel();
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let (url, acks, next, client) =
                    (url.clone(), acks.clone(), Arc::clone(&next), client());
                tokio::spawn(async move {
                    loop {
                        let id = format!("evt_{}", next.fetch_add(1, Ordering::Relaxed));
                        match notification(&id, 200).send(&client, &url).await {
                            Ok(200) => drop(acks.send(id)),
                            Ok(status) => panic!("{id} was answered {status}"),
                            // The process is gone: so is this sender.
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        drop(acks);

        // The moment: after a random number of acknowledgements.
        for _ in 0..random.random_range(1..60) {
            acknowledged.push(acked.recv().await.expect("senders live until the kill"));
        }
        for id in succeeded(&router).await {
            for path in ["/ship", "/mail"] {
                finished.entry((path.to_owned(), id.clone())).or_insert(0);
            }
        }
        // Counted after they were shown: what is shown as finished is recorded, so no later call is for it.
        let seen = calls(&downstream);
        for (call, count) in &mut finished {
            if *count == 0 {
                *count = seen[call];
            }
        }
        router.kill();
        for sender in senders {
            sender.await.expect("no sender saw anything but 200 or a dead process");
        }
        while let Some(id) = acked.recv().await {
            acknowledged.push(id);
        }
    }

    let router = Router::start(&folder, ENV);
    for id in &acknowledged {
        router.event_when(id, "succeeded").await;
    }
    let seen = calls(&downstream);
    for id in &acknowledged {
        for path in ["/ship", "/mail"] {
            assert!(
                seen.contains_key(&(path.to_owned(), id.clone())),
                "{id} was acknowledged but {path} never came"
            );
        }
    }
    for (call, count) in &finished {
        assert_eq!(seen[call], *count, "{call:?} was finished and ran again (seed {SEED})");
    }
    assert!(!finished.is_empty(), "no kill found anything finished: this run shows nothing");
    // Every attempt of one step carried one key.
    let mut keys: BTreeMap<(String, String), String> = BTreeMap::new();
    for request in downstream.requests() {
        let key = request.key().expect("a key").to_owned();
        let order = request.json()["order"].as_str().expect("an order").to_owned();
        let first = keys.entry((request.path.clone(), order)).or_insert_with(|| key.clone());
        assert_eq!(*first, key);
    }
    println!(
        "{} acknowledged over 25 kills, {} calls, {} steps watched",
        acknowledged.len(),
        downstream.requests().len(),
        finished.len()
    );
}

/// An append that fails ends the writer for good: the process says why and ends with a code of its own, and the next
/// start has all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_write_ends_the_process_with_its_own_code() {
    let downstream = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    downstream.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    let folder = folder(&downstream, "");
    let router = Router::start(&folder, ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let pid = i32::try_from(router.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    let unlimited = rustix::process::getrlimit(Resource::Fsize);
    // Below where the active segment is written by the first few events.
    let limit = Rlimit { current: Some(16_384), maximum: unlimited.maximum };
    rustix::process::prlimit(Some(pid), Resource::Fsize, limit).expect("it is our child");

    let mut acknowledged = Vec::new();
    for number in 0..1000 {
        let id = format!("evt_{number}");
        match notification(&id, 4000).send(&client, &url).await {
            Ok(200) => acknowledged.push(id),
            Ok(503) | Err(_) => break,
            Ok(other) => panic!("{id} was answered {other}"),
        }
    }
    let (status, log) = router.wait();
    assert_eq!(status.code(), Some(70), "{log:#?}");
    assert!(
        log.iter().any(|line| line.contains("\"ERROR\"") && line.contains("journal")),
        "{log:#?}"
    );
    assert!(acknowledged.len() < 10, "the limit did not bite");

    let router = Router::start(&folder, ENV);
    for id in &acknowledged {
        router.event_when(id, "succeeded").await;
    }
}

/// Who cannot wait for the calls in flight says so a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_slow_stop_at_once() {
    let downstream = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    downstream.always(Method::POST, "/ship", |_| Reply::Hang);
    let folder = folder(&downstream, "");
    let router = Router::start(&folder, ENV);
    let sent = notification("evt_slow", 10).send(&client(), &router.url("/hooks/orders")).await;
    assert_eq!(sent.expect("an answer"), 200);
    tokio::time::timeout(PATIENCE, downstream.wait_for(1)).await.expect("the call leaves");
    router.signal(Signal::TERM);
    router.wait_for_log("stopping").await;
    router.signal(Signal::TERM);
    let (status, log) = router.wait();
    assert_eq!(status.code(), Some(130), "{log:#?}");

    // The interrupted call is found and made again, with the same key.
    downstream.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    let router = Router::start(&folder, ENV);
    router.event_when("evt_slow", "succeeded").await;
    let ships = downstream.requests_to(&Method::POST, "/ship");
    assert_eq!(ships.len(), 2);
    assert_eq!(ships[0].key(), ships[1].key());
}

/// One 2xx stands for all events of a POST: a kill right behind it loses none of them, and a resend brings none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_split_post_a_kill_after_its_2xx_loses_no_event() {
    const EVENTS: usize = 150;
    const SPLIT: &str = r#"
route: batches
source:
  path: /hooks/batches
  verify: { provider: stripe, secret: { env: STRIPE_SECRET } }
  event: { split: "$.events[*]" }
steps:
  - name: ship
    call: { to: shop, post: /ship, json: { order: "{{ payload.id }}" } }
retry: { first: 20ms, max: 200ms }
"#;
    let downstream = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    downstream.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    let folder = folder(&downstream, "");
    folder.write("routes/batches.yaml", SPLIT);
    let ids: Vec<String> = (0..EVENTS).map(|number| format!("part_{number}")).collect();
    let events: Vec<Json> = ids.iter().map(|id| json!({ "id": id, "type": "paid" })).collect();
    let batch = Notification::new(SECRET, json!({ "events": events }).to_string());

    let router = Router::start(&folder, ENV);
    let url = router.url("/hooks/batches");
    assert_eq!(batch.send(&client(), &url).await.ok(), Some(200));
    router.kill();

    let router = Router::start(&folder, ENV);
    assert_eq!(batch.send(&client(), &router.url("/hooks/batches")).await.ok(), Some(200));
    for id in &ids {
        let event = router.event_when(id, "succeeded").await;
        assert_eq!(event["duplicates"], 1, "{event:#}");
    }
    let metrics = router.metrics().await;
    assert!(metrics.contains(&format!("router_events_stored {EVENTS}\n")), "{metrics}");
}
