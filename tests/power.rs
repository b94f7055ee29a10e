//! Power cuts and disks that will not take any more, on real file systems under a real process.
#![cfg(target_os = "linux")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test bounds its waits for a real process by the real clock"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use router::simulate::downstream::{Answer, Downstream, Keys, Reply};
use router::world::clock::{Clock, ManualClock, SystemClock};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::{Value as Json, json};
use support::provider::{Notification, now};
use support::volume::{self, Volume};
use support::{Folder, PATIENCE, Router, client, refused};
use tokio::sync::mpsc;

const SECRET: &str = "whsec_power";
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
retry: { first: 50ms, max: 400ms }
timeout: 2m
"#;

fn folder(downstream: &Downstream) -> Folder {
    let address = downstream.address();
    let server = format!(
        "limits: {{ min_free_disk: 1MiB }}\n\
         egress: {{ allow: [ \"{address}\" ] }}\n\
         destinations: {{ shop: {{ url: \"http://{address}\", idempotency: {{ header: Idempotency-Key }}, timeout: 2m }} }}"
    );
    Folder::new(&server, &[("routes/orders.yaml", ROUTE)])
}

async fn shop() -> Downstream {
    let shop = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    shop.keys(Keys::Ignored);
    shop.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    shop
}

/// The same bytes for the same arguments, so that a resend is one.
fn notification(id: &str, pad: usize) -> Notification {
    let pad = "x".repeat(pad);
    Notification::new(SECRET, format!(r#"{{"id":"{id}","type":"order.paid","pad":"{pad}"}}"#))
}

/// The number of what is made up here; its notification follows from it.
type Order = usize;

fn event_id(order: Order) -> String {
    format!("evt_{order}")
}

fn order_of(event_id: &str) -> Order {
    let number = event_id.strip_prefix("evt_").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{event_id} was never sent"))
}

fn notification_of(order: Order) -> Notification {
    notification(&event_id(order), order * 37 % 3000)
}

/// A call by what it is for: the path and the order.
type Call = (String, Order);

/// Every call that came, with the key that it carried.
fn calls(shop: &Downstream) -> Vec<(Call, String)> {
    let requests = shop.requests().into_iter();
    let calls = requests.map(|request| {
        let order = order_of(request.json()["order"].as_str().expect("an order"));
        let key = request.key().expect("a key").to_owned();
        ((request.path, order), key)
    });
    calls.collect()
}

/// A page of the API's list, and where the next one begins.
async fn page(
    router: &Router,
    client: &reqwest::Client,
    cursor: &str,
) -> (Vec<(Order, String)>, Option<String>) {
    let url = format!("http://{}/api/v1/events?limit=500{cursor}", router.admin);
    let page = client.get(url).send().await.expect("an answer").bytes().await;
    let page: Json = serde_json::from_slice(&page.expect("a body")).expect("JSON");
    let events = page["events"].as_array().unwrap_or_else(|| panic!("a list in {page}"));
    let row = |event: &Json| {
        let id = event["eventId"].as_str().expect("an id");
        let status = event["processing"]["status"].as_str().expect("a status");
        (order_of(id), status.to_owned())
    };
    let next = page["next"].as_str().map(|next| format!("&cursor={next}"));
    (events.iter().map(row).collect(), next)
}

/// Every event that the API lists, with its status.
async fn listed(router: &Router, client: &reqwest::Client) -> Vec<(Order, String)> {
    let (mut rows, mut next) = page(router, client, "").await;
    while let Some(cursor) = next {
        let (further, then) = page(router, client, &cursor).await;
        rows.extend(further);
        next = then;
    }
    rows
}

/// When the attempts of a step began that succeeded.
fn successes(event: &Json, step: &str) -> Vec<Timestamp> {
    let steps = event["deliveries"][0]["steps"].as_array().expect("steps");
    let step = steps.iter().find(|found| found["name"] == step).expect("the step is there");
    let attempts = step["attempts"].as_array().expect("attempts").iter();
    attempts
        .filter(|attempt| attempt["status"].as_u64().is_some_and(|status| status < 300))
        .map(|attempt| attempt["at"].as_str().and_then(|at| at.parse().ok()).expect("a time"))
        .collect()
}

/// `/readyz`: whether it is ready, and what it says.
async fn ready(router: &Router, client: &reqwest::Client) -> (bool, String) {
    let answer = client.get(format!("http://{}/readyz", router.admin)).send().await;
    let answer = answer.expect("an answer");
    (answer.status() == 200, answer.text().await.expect("text"))
}

/// Asks again, without a pause, until it is ready.
async fn until_ready(router: &Router, client: &reqwest::Client) {
    let asked = async { while !ready(router, client).await.0 {} };
    let waited = tokio::time::timeout(PATIENCE, asked).await;
    waited.expect("it becomes ready by itself");
}

const RUNS: usize = 3;
const CUTS: usize = 10;
const VOLUME_BYTES: u64 = 128 << 20;
/// Of the disk that the volume stands on.
const DISK_BYTES: u64 = 192 << 20;

/// What has to outlive a power cut, since somebody was told or has seen it.
#[derive(Clone, Default)]
struct Known {
    /// In order.
    acknowledged: Vec<Order>,
    /// Calls whose outcome is recorded: the event was shown as succeeded, or the next step's call had come.
    done: BTreeSet<Call>,
    /// Keys that calls carried.
    keys: BTreeMap<Call, String>,
}

/// The power went.
struct Cut {
    number: usize,
    /// What the device held.
    volume: Volume,
    /// Before that moment.
    known: Known,
}

/// What each run begins on is what the last cut before it left: cuts follow upon recoveries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_30_power_cuts_all_that_was_acknowledged_is_there_once_and_nothing_done_is_done_again()
 {
    if !volume::can_mount("power cuts") {
        return;
    }
    let seed = std::env::var("POWER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(now);
    println!("POWER_SEED={seed} repeats these moments");
    let mut random = StdRng::seed_from_u64(seed);
    let next = Arc::new(AtomicUsize::new(0));
    let mut known = Known::default();
    let mut volume = Volume::new(VOLUME_BYTES);
    let mut at_work = 0;
    for run in 0..RUNS {
        let began = Instant::now();
        let cuts = cuts_under_load(&volume, run * CUTS, known, &next, &mut random).await;
        let made = began.elapsed();
        for cut in &cuts {
            at_work += cut.check(next.load(Ordering::Relaxed), &mut random).await;
        }
        println!(
            "run {run}: {} acknowledged, cuts made in {made:?}, checked in {:?}",
            cuts.last().expect("there are some").known.acknowledged.len(),
            began.elapsed() - made
        );
        let last = cuts.into_iter().last().expect("there are some");
        (volume, known) = (last.volume, last.known);
    }
    assert!(at_work > 0, "no cut found anything at work: this run shows nothing");
    println!("{at_work} deliveries were at work at the cuts and went on");
}

/// Runs a router on `volume` under load, and takes the power away again and again at random numbers of acknowledgements.
async fn cuts_under_load(
    volume: &Volume,
    first: usize,
    mut known: Known,
    next: &Arc<AtomicUsize>,
    random: &mut StdRng,
) -> Vec<Cut> {
    let shop = shop().await;
    // Some mails fail three times: their deliveries stand half done meanwhile.
    let failed = Mutex::new(BTreeMap::new());
    shop.always(Method::POST, "/mail", move |request| {
        let order = order_of(request.json()["order"].as_str().expect("an order"));
        let mut failed = failed.lock().expect("no holder of this lock can panic");
        let times: &mut usize = failed.entry(order).or_default();
        if order.is_multiple_of(7) && *times < 3 {
            *times += 1;
            return Reply::status(503);
        }
        Reply::json(200, &json!({}))
    });
    let folder = folder(&shop);
    let disk = Volume::new(DISK_BYTES);
    let router = Router::start_by(volume.router_on(&disk, &folder.store()), &folder, ENV);
    let url = router.url("/hooks/orders");
    let client = client();
    let over = Arc::new(AtomicBool::new(false));
    let (acks, mut acked) = mpsc::unbounded_channel();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (url, acks, next, client, over) =
                (url.clone(), acks.clone(), Arc::clone(next), client.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let order = next.fetch_add(1, Ordering::Relaxed);
                    match notification_of(order).send(&client, &url).await {
                        Ok(200) => drop(acks.send(order)),
                        other => panic!("{order} was answered {other:?}"),
                    }
                }
            })
        })
        .collect();
    drop(acks);

    let mut cuts = Vec::new();
    for number in first..first + CUTS {
        for _ in 0..random.random_range(1..120) {
            known.acknowledged.push(acked.recv().await.expect("senders live until the end"));
        }
        let (newest, _) = page(&router, &client, "").await;
        for (order, _) in newest.iter().filter(|(_, status)| status == "succeeded") {
            known.done.extend(["/ship", "/mail"].map(|path| (path.to_owned(), *order)));
        }
        // From here on nothing more gets onto the device, and the router goes on. So whatever it says until the disk moves
        // again, too, is durable already, or it lies.
        let stopped = disk.stop(router.pid());
        let volume = stopped.copy();
        for ((path, order), key) in calls(&shop) {
            if path == "/mail" {
                known.done.insert(("/ship".to_owned(), order));
            }
            known.keys.insert((path, order), key);
        }
        while let Ok(order) = acked.try_recv() {
            known.acknowledged.push(order);
        }
        drop(stopped);
        cuts.push(Cut { number, volume, known: known.clone() });
    }
    over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no sender saw anything but 200");
    }
    router.kill();
    cuts
}

impl Cut {
    /// Starts a router on what the cut left, with a downstream of its own, and looks for everything. Answers how many
    /// deliveries were at work.
    async fn check(&self, sent: usize, random: &mut StdRng) -> usize {
        let Self { number, volume, known: Known { acknowledged, done, keys } } = self;
        let shop = shop().await;
        let folder = folder(&shop);
        let restarted = SystemClock::start().now();
        let router = Router::start_by(volume.router(&folder.store(), "rw"), &folder, ENV);
        let client = client();

        let rows = listed(&router, &client).await;
        let orders: BTreeSet<Order> = rows.iter().map(|(order, _)| *order).collect();
        assert_eq!(orders.len(), rows.len(), "cut {number}: an event is there twice");
        let lost: Vec<_> = acknowledged.iter().filter(|&order| !orders.contains(order)).collect();
        assert!(lost.is_empty(), "cut {number}: acknowledged, and lost: {lost:?}");
        let strange: Vec<_> = orders.iter().filter(|order| **order >= sent).collect();
        assert!(strange.is_empty(), "cut {number}: there, and never sent: {strange:?}");

        // The newest are the ones at risk.
        let (older, newest) = acknowledged.split_at(acknowledged.len().saturating_sub(20));
        let mut sample = newest.to_vec();
        for _ in 0..30.min(older.len()) {
            sample.push(older[random.random_range(0..older.len())]);
        }
        for order in sample {
            let id = event_id(order);
            // A doubled one would be answered 409 here.
            let before = router.event(&id).await.expect("it is listed");
            let sent = notification_of(order).send(&client, &router.url("/hooks/orders")).await;
            assert_eq!(sent.expect("an answer"), 200, "cut {number}: {id} sent again");
            let after = router.event(&id).await.expect("it is listed");
            assert_eq!(after["uid"], before["uid"], "cut {number}: {id}");
            let duplicates = before["duplicates"].as_u64().expect("a count");
            assert_eq!(after["duplicates"], duplicates + 1, "cut {number}: {id} is no duplicate");
        }

        for (order, _) in rows.iter().filter(|(_, status)| status != "succeeded") {
            router.event_when(&event_id(*order), "succeeded").await;
        }
        let all = listed(&router, &client).await;
        assert_eq!(all.len(), rows.len(), "cut {number}: a resend made a new event");
        for (order, status) in &all {
            assert_eq!(status, "succeeded", "cut {number}: {order}");
        }
        let mut seen = BTreeSet::new();
        for (call, key) in calls(&shop) {
            assert!(!done.contains(&call), "cut {number}: {call:?} was done, and came again");
            let before = keys.get(&call).unwrap_or(&key);
            assert_eq!(*before, key, "cut {number}: {call:?} has another key");
            assert!(seen.insert(call.clone()), "cut {number}: {call:?} came twice");
            let (path, order) = call;
            let event = router.event(&event_id(order)).await.expect("it is listed");
            let succeeded = successes(&event, path.trim_start_matches('/'));
            assert!(
                succeeded.len() == 1 && succeeded[0] >= restarted,
                "cut {number}: {path} of {order} came, and had succeeded: {event:#}"
            );
        }
        let at_work: BTreeSet<Order> = seen.into_iter().map(|(_, order)| order).collect();
        if random.random_bool(0.5) {
            router.kill();
        } else {
            let (status, log) = router.stop();
            assert!(status.success(), "cut {number}: {log:#?}");
        }
        volume.released().await;
        at_work.len()
    }
}

/// On ext4 where this machine lets the test mount it, else on memory, which any user may mount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_events_records_outcomes_and_recovers_by_itself() {
    // The answer to the slow event waits for this clock.
    let clock = Arc::new(ManualClock::at("2026-11-24T00:00:00Z".parse().expect("a time")));
    let shop = Downstream::start(clock.clone()).await.expect("a port");
    shop.always(Method::POST, "/ship", |request| {
        let answer = Answer::new(201, r#"{"id":"shp"}"#);
        Reply::Answer(match request.json()["order"] == "evt_slow" {
            true => answer.after(Duration::from_secs(1)),
            false => answer,
        })
    });
    let folder = folder(&shop);
    let small = volume::can_mount("a full ext4").then(|| Volume::new(128 << 20));
    let command = match &small {
        Some(volume) => volume.router(&folder.store(), "rw"),
        None if can_mount_memory() => in_memory(&folder.store()),
        None => {
            assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a small volume");
            return;
        }
    };
    let router = Router::start_by(command, &folder, ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let sent = notification("evt_slow", 10).send(&client, &url).await;
    assert_eq!(sent.expect("an answer"), 200);
    tokio::time::timeout(PATIENCE, shop.wait_for(1)).await.expect("its call leaves");

    // Somebody else fills the volume; removing that file later makes room.
    let ballast = Path::new("/proc").join(router.pid().to_string()).join("root");
    let ballast = ballast.join(folder.store().strip_prefix("/").expect("absolute")).join("ballast");
    fill(&ballast);
    let mut acknowledged = Vec::new();
    let refused = tokio::time::timeout(PATIENCE, async {
        for number in 0.. {
            let id = format!("evt_{number}");
            let Notification { body, signature } = notification(&id, 500_000);
            let sent =
                client.post(&url).header("stripe-signature", signature).body(body).send().await;
            let answer = sent.expect("an answer");
            match answer.status().as_u16() {
                200 => acknowledged.push(id),
                503 => {
                    assert!(answer.headers().contains_key("retry-after"));
                    return id;
                }
                other => panic!("{id} was answered {other}"),
            }
        }
        unreachable!("the loop has no other end")
    });
    let refused = refused.await.expect("a full disk is noticed");
    assert!(acknowledged.len() > 5, "it was refused before the disk was full");
    assert!(router.event(&refused).await.is_none(), "a refused event is there");
    let (is_ready, why) = ready(&router, &client).await;
    assert!(!is_ready && why.contains("is full"), "{why}");

    // What was acknowledged is carried out although the disk is full, and what a call answers now is recorded.
    for id in &acknowledged {
        router.event_when(id, "succeeded").await;
    }
    clock.advance(Duration::from_secs(1));
    let slow = router.event_when("evt_slow", "succeeded").await;
    assert_eq!(slow["processing"]["attempts"], 2, "one of each step: {slow:#?}");
    assert!(!ready(&router, &client).await.0, "nobody made room");

    fs::remove_file(&ballast).expect("it was made above");
    until_ready(&router, &client).await;
    let again = notification(&refused, 500_000).send(&client, &url).await;
    assert_eq!(again.expect("an answer"), 200);
    router.event_when(&refused, "succeeded").await;
    let (status, log) = router.stop();
    assert!(status.success(), "{log:?}");
}

/// A limit of file sizes stops the next segment half-way, with a signal whose default is to end the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_size_limit_refuses_new_events_with_the_reason_until_it_is_raised() {
    fn limited() -> Command {
        let mut command = Command::new("sh");
        // Blocks of 512 bytes.
        command.args(["-c", r#"ulimit -S -f 2048 && exec "$0" "$@""#]);
        command.arg(env!("CARGO_BIN_EXE_router"));
        command
    }
    let shop = shop().await;
    let folder = folder(&shop);
    // Not even the first segment can be made: nothing would work.
    let (status, said) = refused(limited(), &folder, ENV);
    assert_eq!(status.code(), Some(1), "{status}: {said}");
    let store = folder.store();
    assert!(
        said.contains(store.to_str().expect("UTF-8")) && said.contains("File too large"),
        "{said}"
    );

    // Each start uses one prepared segment up, until none is left that was made without the limit.
    let (client, mut accepted) = (client(), Vec::new());
    let (status, log) = Router::start(&folder, ENV).stop();
    assert!(status.success(), "{log:#?}");
    let (router, why) = loop {
        let router = Router::start_by(limited(), &folder, ENV);
        let (is_ready, why) = ready(&router, &client).await;
        if !is_ready {
            break (router, why);
        }
        assert!(accepted.len() < 10, "the limit does not bite");
        let id = format!("evt_{}", accepted.len());
        let sent = notification(&id, 10).send(&client, &router.url("/hooks/orders")).await;
        assert_eq!(sent.expect("an answer"), 200);
        accepted.push(id);
        let (status, log) = router.stop();
        assert!(status.success(), "{log:#?}");
    };
    assert!(why.contains("File too large"), "{why}");
    assert!(!accepted.is_empty(), "prepared segments were not used");
    let url = router.url("/hooks/orders");
    let Notification { body, signature } = notification("evt_refused", 10);
    let answer = client.post(&url).header("stripe-signature", signature).body(body).send().await;
    let answer = answer.expect("the process lives");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    for id in &accepted {
        router.event_when(id, "succeeded").await;
    }

    let pid = i32::try_from(router.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    let limit = Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(pid), Resource::Fsize, limit).expect("it is our child");
    until_ready(&router, &client).await;
    let again = notification("evt_refused", 10).send(&client, &url).await;
    assert_eq!(again.expect("an answer"), 200);
    router.event_when("evt_refused", "succeeded").await;
    let (status, log) = router.stop();
    assert!(status.success(), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_router_on_a_folder_goes_away_and_the_first_is_undisturbed() {
    let shop = shop().await;
    let folder = folder(&shop);
    let router = Router::start(&folder, ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let first = notification("evt_first", 10).send(&client, &url).await;
    assert_eq!(first.expect("an answer"), 200);
    let began = Instant::now();
    let (status, said) = refused(Command::new(env!("CARGO_BIN_EXE_router")), &folder, ENV);
    // It waits for nothing; a loaded machine may.
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(status.code(), Some(1), "{said}");
    let store = folder.store();
    let wanted = [store.to_str().expect("UTF-8"), "in use by another router", "store: "];
    assert!(wanted.iter().all(|part| said.contains(part)), "{said}");
    // Not even the index of the first one was touched.
    assert!(!store.join("sled.damaged").exists());

    assert!(ready(&router, &client).await.0);
    let second = notification("evt_second", 10).send(&client, &url).await;
    assert_eq!(second.expect("an answer"), 200);
    for id in ["evt_first", "evt_second"] {
        router.event_when(id, "succeeded").await;
    }
    assert_eq!(shop.requests().len(), 4, "each step was called once");
    let (status, log) = router.stop();
    assert!(status.success(), "{log:#?}");
}

/// What a start says that cannot write to its data folder.
fn check_unwritable(command: Command, folder: &Folder) {
    let (status, said) = refused(command, folder, ENV);
    assert_eq!(status.code(), Some(1), "{status}: {said}");
    let store = folder.store();
    assert!(said.contains(store.to_str().expect("UTF-8")), "the folder is not named: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1, "one line says why: {said}");
    let causes = ["Read-only file system", "Permission denied"];
    assert!(causes.iter().any(|cause| errors[0].contains(cause)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_volume_ends_the_start_with_its_name() {
    if !volume::can_mount("a read-only volume") {
        return;
    }
    let shop = shop().await;
    let folder = folder(&shop);
    let small = Volume::new(64 << 20);
    check_unwritable(small.router(&folder.store(), "ro"), &folder);
    // With a store on it, too: it is there to be read, but nothing could be promised.
    small.released().await;
    let router = Router::start_by(small.router(&folder.store(), "rw"), &folder, ENV);
    let url = router.url("/hooks/orders");
    let sent = notification("evt_1", 10).send(&client(), &url).await;
    assert_eq!(sent.expect("an answer"), 200);
    let (status, log) = router.stop();
    assert!(status.success(), "{log:#?}");
    small.released().await;
    check_unwritable(small.router(&folder.store(), "ro"), &folder);
    small.released().await;
    let router = Router::start_by(small.router(&folder.store(), "rw"), &folder, ENV);
    router.event_when("evt_1", "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_permission_ends_the_start_with_its_name() {
    let shop = shop().await;
    let folder = folder(&shop);
    fs::create_dir(folder.store()).expect("the folder is writable");
    for mode in [0o000, 0o500] {
        fs::set_permissions(folder.store(), Permissions::from_mode(mode)).expect("it is ours");
        check_unwritable(without_override(), &folder);
    }
    let (_, said) = refused(without_override(), &folder, ENV);
    assert!(said.contains("chown -R"), "{said}");
    fs::set_permissions(folder.store(), Permissions::from_mode(0o700)).expect("it is ours");
    let (status, log) = Router::start_by(without_override(), &folder, ENV).stop();
    assert!(status.success(), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_somebody_else_on_the_volume_is_left_alone() {
    let shop = shop().await;
    let folder = folder(&shop);
    let foreign = folder.store().join("lost+found");
    fs::create_dir_all(&foreign).expect("the folder is writable");
    fs::set_permissions(&foreign, Permissions::from_mode(0o000)).expect("it is ours");
    let (status, log) = Router::start_by(without_override(), &folder, ENV).stop();
    assert!(status.success(), "{log:#?}");
}

/// The router, bound by permissions even where root runs it.
fn without_override() -> Command {
    let router = env!("CARGO_BIN_EXE_router");
    if !rustix::process::geteuid().is_root() {
        return Command::new(router);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search", router]);
    command
}

/// The router with memory mounted on `point`, where only it sees it.
fn in_memory(point: &Path) -> Command {
    fs::create_dir_all(point).expect("the folder is writable");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=128m tmpfs \"$0\" && exec \"$@\"");
    command.arg(point).arg(env!("CARGO_BIN_EXE_router"));
    command
}

fn can_mount_memory() -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(folder.path());
    command.status().is_ok_and(|status| status.success())
}

/// Writes until no byte fits.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("the volume is seen through the process");
    let mut block = vec![1; 1 << 20];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && block.len() > 1 => {
                block.truncate(block.len() / 2);
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
            Err(error) => panic!("cannot fill the volume: {error}"),
        }
    }
}
