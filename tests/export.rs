//! `router export` and `router import` with real processes: out of a running router, into another and into a folder.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use http::Method;
use router::simulate::downstream::{Downstream, Reply};
use router::world::clock::SystemClock;
use serde_json::{Value as Json, json};
use support::{Folder, Router, client};

const ROUTE: &str = r#"
route: orders
source: { path: /in, verify: { none: test }, event: { id: $.id, type: $.type } }
fields: { order: $.order }
steps:
  - name: ship
    call: { to: shop, post: /ship, json: { order: "{{ fields.order }}" } }
    idempotency_key: "ship-{{ fields.order }}"
"#;

/// The downstream refuses the order 13 until it is told otherwise.
async fn downstream() -> Downstream {
    let downstream =
        Downstream::start(Arc::new(SystemClock::start())).await.expect("a port on loopback");
    downstream.always(Method::POST, "/ship", |request| match request.json()["order"] == 13 {
        true => Reply::json(422, &json!({})),
        false => Reply::json(201, &json!({ "id": 1 })),
    });
    downstream
}

fn folder(downstream: &Downstream) -> Folder {
    let address = downstream.address();
    Folder::new(
        &format!(
            "egress: {{ allow: [ \"{address}\" ] }}\ndestinations: {{ shop: {{ url: \"http://{address}\", idempotency: {{ header: Idempotency-Key }} }} }}"
        ),
        &[("routes/route.yaml", ROUTE)],
    )
}

async fn post(router: &Router, id: &str, order: u64) {
    let body = json!({ "id": id, "type": "paid", "order": order }).to_string();
    let request = client().post(router.url("/in")).header("content-type", "application/json");
    let answer = request.body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// Runs the command line; answers its code, stdout and stderr.
fn router(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_router"))
        .args(args)
        .env_remove("ROUTER_URL")
        .env_remove("ROUTER_TOKEN")
        .output()
        .expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn url(router: &Router) -> String {
    format!("http://{}", router.admin)
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_router_knew_another_goes_on_with() {
    let downstream = downstream().await;
    let first_folder = folder(&downstream);
    let first = Router::start(&first_folder, &[]);
    for (id, order) in [("evt_1", 1), ("evt_2", 13), ("evt_3", 3)] {
        post(&first, id, order).await;
    }
    post(&first, "evt_1", 1).await;
    for (id, status) in [("evt_1", "succeeded"), ("evt_2", "failed"), ("evt_3", "succeeded")] {
        first.event_when(id, status).await;
    }
    assert_eq!(downstream.requests().len(), 3);

    // The folder is held by the router, so the router is asked.
    let file = first_folder.path().join("all.jsonl");
    let config = ["-C", utf8(first_folder.path())];
    let through = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_router"))
            .args(config)
            .args(more)
            .env("ROUTER_URL", url(&first))
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (code, _, said) = through(&["export", "-o", utf8(&file)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("asking the router"), "{said}");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("text");
    let lines: Vec<Json> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["format"], &lines[0]["version"]), (&json!("router-export"), &json!(1)));
    assert_eq!(lines.iter().filter(|line| line["event"].is_object()).count(), 3);
    assert_eq!(lines.iter().filter(|line| line["revision"].is_object()).count(), 1);
    let (code, failed, said) = through(&["export", "--status", "failed", "--since", "1h"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(failed.contains("evt_2") && !failed.contains("evt_1"), "{failed}");

    // What is found by, at the router that has it.
    let list = |more: &[&str]| {
        let mut args = vec!["events", "list", "--json"];
        args.extend(more);
        let (code, listed, said) = through(&args);
        assert_eq!(code, Some(0), "{said}");
        let listed: Json = serde_json::from_str(&listed).expect("JSON");
        let ids = listed["events"].as_array().expect("a list").iter();
        ids.map(|event| event["eventId"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&["--route", "orders", "--field", "order=13"]), ["evt_2"]);
    assert_eq!(list(&["--cause", "status_422"]), ["evt_2"]);
    assert_eq!(list(&["--id", "evt_3"]), ["evt_3"]);
    assert!(list(&["--correlation-id", "none"]).is_empty());
    let (code, _, said) = through(&["events", "list", "--field", "order=13"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--route"), "{said}");
    let (code, causes, _) = through(&["events", "causes"]);
    assert!(
        code == Some(0) && causes.contains("orders") && causes.contains("status_422"),
        "{causes}"
    );

    // Into a running router.
    let second_folder = folder(&downstream);
    let second = Router::start(&second_folder, &[]);
    let (code, out, said) = router(&["import", utf8(&file), "--url", &url(&second)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("3 events"), "{out}");
    let (before, after) = (first.event("evt_1").await, second.event("evt_1").await);
    assert_eq!(before, after);
    let (code, out, _) = router(&["import", utf8(&file), "--url", &url(&second), "--json"]);
    assert_eq!(code, Some(0));
    let counts: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!(counts, json!({ "imported": 0, "skipped": { "known": 3 }, "others": 0 }));
    goes_on(&second, &downstream).await;
    second.stop();

    // Into a folder that no router has open, which need not be there yet.
    let third_folder = folder(&downstream);
    let config = ["-C", utf8(third_folder.path())];
    let (code, _, said) = router(&[config[0], config[1], "export"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no store in") && said.contains("--store"), "{said}");
    assert!(!third_folder.store().exists(), "whoever only looks makes nothing");
    let (code, out, said) = router(&[config[0], config[1], "import", utf8(&file)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("3 events"), "{out}");
    let (code, again, said) = router(&["export", "--store", utf8(&third_folder.store())]);
    assert_eq!(code, Some(0), "{said}");
    let events = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("{\"event\""));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(events(&again), events(&text));
    let third = Router::start(&third_folder, &[]);
    goes_on(&third, &downstream).await;
}

/// A resend is a duplicate, a held key stays held, what failed can be replayed.
async fn goes_on(router: &Router, downstream: &Downstream) {
    let before = downstream.requests().len();
    post(router, "evt_1", 1).await;
    let event = router.event_when("evt_1", "succeeded").await;
    assert_eq!(event["duplicates"], 2);
    post(router, "evt_9", 3).await;
    let event = router.event_when("evt_9", "succeeded").await;
    assert_eq!(event["deliveries"][0]["steps"][0]["status"], "already_done");
    assert_eq!(downstream.requests().len(), before, "nothing was called again");
    let (code, out, said) = self::router(&["events", "replay", "evt_2", "--url", &url(router)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("queued again"), "{out}");
    router.event_when("evt_2", "failed").await;
    while downstream.requests().len() == before {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_file_that_is_none_and_a_wrong_line_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("x.jsonl");
    let store = dir.path().join("data");
    let import = |text: &str| {
        std::fs::write(&file, text).expect("it is writable");
        router(&["import", utf8(&file), "--store", utf8(&store)])
    };
    let header = r#"{"format":"router-export","version":1,"journal":"0000000000000001","at":"2026-11-23T10:00:00Z","hashings":[]}"#;
    let revision = r#"{"revision":{"hash":"h1","text":"t"}}"#;
    for (text, why) in [
        ("", "is empty"),
        ("hello\n", "line 1"),
        (revision, "not the header"),
        (&header.replace("\"version\":1", "\"version\":9"), "newer router"),
    ] {
        let (code, _, said) = import(text);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(!store.exists(), "a wrong file made a store");
    }
    let (code, out, said) =
        import(&format!("{header}\n{revision}\n\n{{\"evnt\":{{}}}}\n{revision}\n"));
    assert_eq!(code, Some(1));
    assert!(out.starts_with("0 events and 1 other"), "{out}");
    assert!(said.contains("line 4") && said.contains("evnt"), "{said}");
    let (code, _, said) = import(&format!("{header}\n{revision}\n"));
    assert_eq!(code, Some(1), "a file that was cut is told");
    assert!(said.contains("only a part"), "{said}");
    let (code, _, _) = import(&format!("{header}\n{revision}\n{{\"end\":{{}}}}\n"));
    assert_eq!(code, Some(0));
    let (code, _, said) = router(&["export", "--store", utf8(&store), "--status", "done"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not `done`"), "{said}");
    let (code, out, _) = router(&["--help"]);
    assert!(code == Some(0) && out.contains("export") && out.contains("import"), "{out}");
    let (code, _, said) = router(&["import", utf8(&file), "--url", "http://127.0.0.1:9"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no router answers"), "{said}");
}
