//! Backup, restore and doctor on real processes and folders.
#![expect(
    clippy::disallowed_methods,
    reason = "a test bounds its waits for a real process by the real clock"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use router::simulate::downstream::{Downstream, Keys, Reply};
use router::world::clock::SystemClock;
use serde_json::{Value as Json, json};
use support::provider::{Notification, now};
use support::{Folder, PATIENCE, Router, client, refused};
use tokio::sync::mpsc;

const SECRET: &str = "whsec_backup";
const ENV: &[(&str, &str)] = &[("STRIPE_SECRET", SECRET)];
const ROUTE: &str = r#"
route: orders
source:
  path: /hooks/orders
  verify: { provider: stripe, secret: { env: STRIPE_SECRET } }
steps:
  - name: ship
    call: { to: shop, post: /ship, json: { order: "{{ event.id }}" } }
retry: { first: 20ms, max: 200ms }
"#;

async fn shop() -> Downstream {
    let shop = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    shop.keys(Keys::Ignored);
    shop.always(Method::POST, "/ship", |_| Reply::json(201, &json!({ "id": "shp" })));
    shop
}

fn folder(shop: &Downstream) -> Folder {
    let address = shop.address();
    let server = format!(
        "limits: {{ min_free_disk: 1MiB }}\n\
         egress: {{ allow: [ \"{address}\" ] }}\n\
         destinations: {{ shop: {{ url: \"http://{address}\", idempotency: {{ header: Idempotency-Key }} }} }}"
    );
    Folder::new(&server, &[("routes/orders.yaml", ROUTE)])
}

fn notification(id: &str) -> Notification {
    let body = format!(r#"{{"id":"{id}","type":"order.paid","created":{}}}"#, now());
    Notification::new(SECRET, body)
}

async fn send(router: &Router, id: &str) {
    let sent = notification(id).send(&client(), &router.url("/hooks/orders")).await;
    assert_eq!(sent.expect("an answer"), 200);
}

/// Runs the binary on `folder`, not `serve`.
fn run(folder: &Folder, args: &[&str], url: Option<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_router"));
    command.arg("-C").arg(folder.path()).args(args).env_remove("ROUTER_TOKEN");
    match url {
        Some(url) => command.env("ROUTER_URL", url),
        None => command.env_remove("ROUTER_URL"),
    };
    command.output().expect("the router starts")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn fails(output: &Output, because: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    assert!(said(output).contains(because), "{}", said(output));
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A store of several segments, at rest, with these events in it: each start begins a segment.
async fn several_segments(folder: &Folder, starts: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for start in 0..starts {
        let router = Router::start(folder, ENV);
        for number in 0..5 {
            let id = format!("evt_{start}_{number}");
            send(&router, &id).await;
            router.event_when(&id, "succeeded").await;
            ids.push(id);
        }
        let (status, log) = router.stop();
        assert!(status.success(), "{log:#?}");
    }
    ids
}

fn manifest(backup: &Path) -> Json {
    serde_json::from_slice(&fs::read(backup.join("backup.json")).expect("a backup")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_router_holds_all_that_was_acknowledged_before_it() {
    let shop = shop().await;
    let first = folder(&shop);
    let mut known = several_segments(&first, 3).await;
    let router = Router::start(&first, ENV);
    let url = router.url("/hooks/orders");
    let (acks, mut acked) = mpsc::unbounded_channel();
    let next = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (url, acks, next, client) =
                (url.clone(), acks.clone(), Arc::clone(&next), client());
            tokio::spawn(async move {
                loop {
                    let id = format!("evt_{}", next.fetch_add(1, Ordering::Relaxed));
                    match notification(&id).send(&client, &url).await {
                        Ok(200) => drop(acks.send(id)),
                        Ok(status) => panic!("{id} was answered {status}"),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    for _ in 0..100 {
        let ack = tokio::time::timeout(PATIENCE, acked.recv()).await;
        known.push(ack.expect("it accepts").expect("a sender lives"));
    }

    let place = tempfile::tempdir().expect("a temporary folder");
    let backup = place.path().join("backup");
    let admin = format!("http://{}", router.admin);
    let take = || {
        let (admin, backup) = (admin.clone(), text(&backup));
        tokio::task::block_in_place(|| run(&first, &["backup", &backup], Some(admin)))
    };
    succeeds(&take());
    let files = manifest(&backup)["files"].as_array().expect("files").len();
    assert!(files >= 5, "the key, three full segments, and one that is written");
    // Only what is new: the segment that is being written.
    while let Ok(id) = acked.try_recv() {
        known.push(id);
    }
    let again = succeeds(&take());
    assert!(again.contains("; 1 copied, 1 removed"), "{again}");
    let modes = [(backup.clone(), 0o700), (backup.join("backup.json"), 0o600)];
    for (path, mode) in modes {
        let found = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }

    // Beside the router it looks, and repairs nothing.
    let doctor = run(&first, &["doctor"], None);
    assert!(said(&doctor).contains("a router holds the folder"), "{}", said(&doctor));
    assert!(doctor.status.success(), "{}", said(&doctor));
    fails(&run(&first, &["doctor", "--repair"], None), "stop it before a repair");
    fails(&run(&first, &["restore", &text(&backup)], None), "a router holds the data folder");
    drop(router);
    for sender in senders {
        sender.await.expect("no sender failed");
    }

    let second = folder(&shop);
    let restored = succeeds(&run(&second, &["restore", &text(&backup)], None));
    assert!(restored.contains("may run again, with the same idempotency keys"), "{restored}");
    let key = fs::metadata(second.store().join("key")).expect("it is there").permissions().mode();
    assert_eq!(key & 0o777, 0o600);
    let router = Router::start(&second, ENV);
    for id in &known {
        assert!(
            router.event(id).await.is_some(),
            "{id} was acknowledged, and is not in the backup"
        );
    }
    let (status, log) = router.stop();
    assert!(status.success(), "{log:#?}");
    let clean = succeeds(&run(&second, &["doctor"], None));
    assert!(clean.contains("nothing is wrong"), "{clean}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_at_rest_is_backed_up_from_its_folder_and_what_does_not_fit_is_refused() {
    let shop = shop().await;
    let first = folder(&shop);
    let known = several_segments(&first, 2).await;
    let place = tempfile::tempdir().expect("a temporary folder");
    let backup = place.path().join("backup");
    succeeds(&run(&first, &["backup", &text(&backup)], None));
    let again = succeeds(&run(&first, &["backup", &text(&backup)], None));
    assert!(again.contains("; 0 copied, 0 removed"), "{again}");

    // What an interrupted backup leaves is taken up.
    fs::write(backup.join("journal/0000000000000001.segment.part"), "half").expect("writable");
    succeeds(&run(&first, &["backup", &text(&backup)], None));
    assert!(!backup.join("journal/0000000000000001.segment.part").exists());

    let other = folder(&shop);
    several_segments(&other, 1).await;
    fails(&run(&other, &["backup", &text(&backup)], None), "holds a backup of another store");
    fails(&run(&other, &["restore", &text(&backup)], None), "holds a journal already");
    let foreign = place.path().join("foreign");
    fs::create_dir(&foreign).expect("writable");
    fs::write(foreign.join("letter.txt"), "dear").expect("writable");
    fails(&run(&first, &["backup", &text(&foreign)], None), "letter.txt");
    fails(&run(&first, &["restore", &text(&foreign)], None), "no finished backup");

    let second = folder(&shop);
    let stored = manifest(&backup)["files"][1]["stored"].as_str().expect("a name").to_owned();
    let damaged = backup.join(&stored);
    let whole = fs::read(&damaged).expect("it is there");
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).expect("writable");
    fails(&run(&second, &["restore", &text(&backup)], None), "nothing was restored");
    assert!(!second.store().join("journal").exists());
    fs::write(&damaged, whole).expect("writable");
    succeeds(&run(&second, &["restore", &text(&backup)], None));
    let router = Router::start(&second, ENV);
    for id in &known {
        router.event_when(id, "succeeded").await;
    }
}

fn segments(folder: &Folder) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder.store().join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_stops_the_start_and_the_doctor_repairs_it() {
    let shop = shop().await;
    let folder = folder(&shop);
    let known = several_segments(&folder, 3).await;
    assert!(succeeds(&run(&folder, &["doctor"], None)).contains("nothing is wrong"));
    let hurt = &segments(&folder)[1];
    let mut bytes = fs::read(hurt).expect("it is there");
    // In the body of an event, of which later facts tell.
    let at = bytes.windows(7).position(|window| window == b"evt_1_2").expect("the event");
    bytes[at] ^= 1;
    fs::write(hurt, &bytes).expect("writable");

    // The index still has a checkpoint beyond it; without it the start reads all.
    fs::remove_dir_all(folder.store().join("sled")).expect("ours");
    let router = Command::new(env!("CARGO_BIN_EXE_router"));
    let (status, why) = refused(router, &folder, ENV);
    assert_eq!(status.code(), Some(1));
    assert!(why.contains("router doctor --repair"), "{why}");

    let found = run(&folder, &["doctor", "--json"], None);
    assert_eq!(found.status.code(), Some(1));
    let report: Json = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!((&report["clean"], &report["findings"][0]["segment"]), (&json!(false), &json!(2)));
    assert_eq!(fs::read(hurt).expect("it is there"), bytes, "nothing was changed");
    fails(&run(&folder, &["doctor"], None), "0000000000000002.segment, offset");

    let repaired = succeeds(&run(&folder, &["doctor", "--repair"], None));
    assert!(repaired.contains("repaired; the router can start"), "{repaired}");
    let aside = folder.store().join("quarantine/0000000000000002.segment");
    assert_eq!(fs::read(&aside).expect("it is kept"), bytes);
    let report = fs::read(aside.with_extension("segment.report.json")).expect("a report");
    let report: Json = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["segment"], 2);
    assert!(succeeds(&run(&folder, &["doctor"], None)).contains("nothing is wrong"));
    assert!(succeeds(&run(&folder, &["doctor", "--repair"], None)).contains("nothing is wrong"));

    let router = Router::start(&folder, ENV);
    for id in known.iter().filter(|id| *id != "evt_1_2") {
        router.event_when(id, "succeeded").await;
    }
    assert!(router.event("evt_1_2").await.is_none());
    // Its sender sends it again.
    send(&router, "evt_1_2").await;
    router.event_when("evt_1_2", "succeeded").await;
}

#[tokio::test]
async fn the_commands_are_listed_and_wrong_use_is_told_apart() {
    let folder = folder(&shop().await);
    let help = succeeds(&run(&folder, &["--help"], None));
    for command in ["doctor", "backup", "restore"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert_eq!(run(&folder, &["doctor", "--mend"], None).status.code(), Some(2));
    assert_eq!(run(&folder, &["backup"], None).status.code(), Some(2));
    fails(
        &run(&folder, &["doctor", "--store", "/nowhere/at/all"], None),
        "there is no data folder",
    );
    let backup = text(&folder.path().join("backup"));
    fails(&run(&folder, &["backup", &backup], None), "there is no data folder");
    let nowhere = Some("http://127.0.0.1:9".to_owned());
    fails(&run(&folder, &["backup", &backup], nowhere), "no router answers");
}
