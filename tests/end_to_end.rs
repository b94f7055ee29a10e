//! The main job over real sockets and a real process: what a sender gets, what the downstream sees, what an operator reads.
#![expect(
    clippy::disallowed_methods,
    reason = "a test bounds its waits for a real process by the real clock"
)]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use router::simulate::downstream::{Downstream, Keys, Reply};
use router::world::clock::SystemClock;
use serde_json::{Value as Json, json};
use support::provider::{Notification, now, stripe_signature};
use support::{Folder, PATIENCE, Router, client};

const SECRET: &str = "whsec_current";
const OLD_SECRET: &str = "whsec_previous";
const ENV: &[(&str, &str)] = &[("STRIPE_SECRET", SECRET), ("STRIPE_SECRET_OLD", OLD_SECRET)];

/// A paid order makes one shipment and one receipt.
const ORDERS: &str = r#"
route: orders
source:
  path: /hooks/orders
  verify: { provider: stripe, secret: [ { env: STRIPE_SECRET }, { env: STRIPE_SECRET_OLD } ] }
fields:
  order: { from: $.data.order, type: integer, required: true }
  amount: { from: $.data.amount, type: decimal }
steps:
  - name: create_shipment
    call: { to: shop, post: /shipments, json: { reference: "{{ fields.order }}", amount: "{{ fields.amount }}" } }
    idempotency_key: "ship-{{ fields.order }}"
    save: { shipment_id: $.id }
  - name: receipt
    call: { to: shop, post: /receipts, json: { text: "Parcel {{ steps.create_shipment.shipment_id }}" } }
retry: { first: 20ms, max: 200ms, attempts: 5 }
timeout: 2s
"#;

async fn downstream() -> Downstream {
    let downstream =
        Downstream::start(Arc::new(SystemClock::start())).await.expect("a port on loopback");
    downstream.always(Method::POST, "/shipments", |_| Reply::json(201, &json!({ "id": "shp_1" })));
    downstream
}

fn folder(downstream: &Downstream, route: &str) -> Folder {
    let address = downstream.address();
    Folder::new(
        &format!(
            "egress: {{ allow: [ \"{address}\" ] }}\n\
             destinations: {{ shop: {{ url: \"http://{address}\", idempotency: {{ header: Idempotency-Key }} }} }}"
        ),
        &[("routes/route.yaml", route)],
    )
}

fn order(event: &str, order: u64) -> Notification {
    Notification::new(SECRET, order_body(event, order))
}

fn order_body(event: &str, order: u64) -> String {
    format!(
        r#"{{"id":"{event}","type":"invoice.paid","created":{},"data":{{"order":{order},"amount":19.90}}}}"#,
        now()
    )
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

fn step<'a>(event: &'a Json, name: &str) -> &'a Json {
    let steps = event["deliveries"][0]["steps"].as_array().expect("steps");
    steps
        .iter()
        .find(|step| step["name"] == name)
        .unwrap_or_else(|| panic!("no step {name} in {event:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signed_webhook_becomes_one_finished_action_and_nothing_else_gets_in() {
    let downstream = downstream().await;
    let router = Router::start(&folder(&downstream, ORDERS), ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let send = async |body: &str, signature: &str| {
        let answer = client
            .post(&url)
            .header("stripe-signature", signature)
            .body(body.to_owned())
            .send()
            .await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };

    let good = order("evt_1", 1001);
    assert_eq!(good.send(&client, &url).await.expect("an answer"), 200);
    let event = router.event_when("evt_1", "succeeded").await;
    assert_eq!(event["eventType"], "invoice.paid");
    assert_eq!(event["source"], "orders");
    assert_eq!(step(&event, "create_shipment")["saved"], json!({ "shipment_id": "shp_1" }));
    assert_eq!(step(&event, "create_shipment")["idempotencyKey"], "ship-1001");

    // The downstream got native types, the exact amount, the saved value, the keys and the correlation id.
    let requests = downstream.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, r#"{"reference":1001,"amount":"19.90"}"#);
    assert_eq!(requests[0].key(), Some("ship-1001"));
    assert_eq!(requests[1].json(), json!({ "text": "Parcel shp_1" }));
    assert!(requests[1].key().is_some_and(|key| !key.is_empty()));
    assert_eq!(requests[0].header("x-correlation-id"), event["correlationId"].as_str());

    // A resend: the same answer, nothing caused.
    for _ in 0..3 {
        assert_eq!(good.send(&client, &url).await.expect("an answer"), 200);
    }
    // The previous secret still verifies.
    let body = order_body("evt_2", 1002);
    assert_eq!(send(&body, &stripe_signature(OLD_SECRET, &body, now())).await.0, 200);
    router.event_when("evt_2", "succeeded").await;
    assert_eq!(router.event("evt_1").await.expect("it is there")["duplicates"], 3);
    assert_eq!(downstream.requests().len(), 4);

    // Nothing unproven gets in; the answer says nothing.
    let body = order_body("evt_bad", 1003);
    let right = stripe_signature(SECRET, &body, now());
    let tampered = body.replace("1003", "9999");
    for (what, body, signature) in [
        ("tampered", tampered.as_str(), right.clone()),
        ("wrong secret", &body, stripe_signature("whsec_other", &body, now())),
        ("stale", &body, stripe_signature(SECRET, &body, now() - 3600)),
        ("future", &body, stripe_signature(SECRET, &body, now() + 3600)),
        ("empty", &body, String::new()),
        ("malformed", &body, "t=abc,v1=zz".to_owned()),
    ] {
        assert_eq!(send(body, &signature).await, (401, String::new()), "{what}");
    }
    let unsigned = client.post(&url).body(body.clone()).send().await.expect("an answer");
    assert_eq!(unsigned.status(), 401);
    assert!(router.event("evt_bad").await.is_none());

    let huge = format!("{{\"id\":\"evt_huge\",\"pad\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(send(&huge, &stripe_signature(SECRET, &huge, now())).await.0, 413);
    let get = client.get(&url).send().await.expect("an answer");
    assert_eq!(
        (get.status().as_u16(), get.headers()["allow"].to_str().expect("text")),
        (405, "POST")
    );
    assert_eq!(client.post(router.url("/nothing")).send().await.expect("an answer").status(), 404);

    let metrics = router.metrics().await;
    let rejected: Vec<&str> = metrics.lines().filter(|line| line.contains("rejected")).collect();
    assert!(rejected.iter().any(|line| line.contains("wrong_signature")), "{rejected:?}");
    assert!(rejected.iter().any(|line| line.contains("stale_timestamp")), "{rejected:?}");

    let (status, log) = router.stop();
    assert!(status.success(), "{log:?}");
    let log = log.join("\n");
    for secret in [SECRET, OLD_SECRET] {
        assert!(!log.contains(secret), "a secret stands in the log");
    }
    let finished = log
        .lines()
        .find(|line| line.contains("evt_1") && line.contains("succeeded"))
        .expect("a line");
    for field in ["eventId", "eventType", "route", "status", "attempt", "result", "correlationId"] {
        assert!(finished.contains(&format!("\"{field}\"")), "{field} is missing in {finished}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_senders_of_one_event_at_once_make_one_event() {
    let downstream = downstream().await;
    let router = Router::start(&folder(&downstream, ORDERS), ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let event = order("evt_same", 7);
    let sends = (0..64).map(|_| {
        let (client, url, event) = (client.clone(), url.clone(), event.clone());
        tokio::spawn(async move { event.send(&client, &url).await })
    });
    for send in sends.collect::<Vec<_>>() {
        assert_eq!(send.await.expect("no panic").expect("an answer"), 200);
    }
    let seen = router.event_when("evt_same", "succeeded").await;
    assert_eq!(seen["duplicates"], 63);
    assert_eq!(downstream.requests_to(&Method::POST, "/shipments").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_of_one_order_at_once_make_one_shipment_where_the_downstream_ignores_keys() {
    let downstream = downstream().await;
    downstream.keys(Keys::Ignored);
    let router = Router::start(&folder(&downstream, ORDERS), ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let (first, second) = (order("evt_a", 5), order("evt_b", 5));
    let (a, b) = tokio::join!(first.send(&client, &url), second.send(&client, &url));
    assert_eq!((a.expect("an answer"), b.expect("an answer")), (200, 200));

    let events = [
        router.event_when("evt_a", "succeeded").await,
        router.event_when("evt_b", "succeeded").await,
    ];
    let mut states: Vec<&str> = events
        .iter()
        .map(|event| step(event, "create_shipment")["status"].as_str().expect("text"))
        .collect();
    states.sort_unstable();
    assert_eq!(states, ["already_done", "succeeded"]);
    for event in &events {
        assert_eq!(step(event, "create_shipment")["saved"], json!({ "shipment_id": "shp_1" }));
    }
    assert_eq!(downstream.requests_to(&Method::POST, "/shipments").len(), 1);
    assert_eq!(downstream.requests_to(&Method::POST, "/receipts").len(), 2);
}

/// The downstream does the work but its answer is lost; the provider resends three times; the process is killed and
/// started again in between: one shipment, one receipt, one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_resends_and_a_kill_still_make_one_shipment() {
    let downstream = downstream().await;
    downstream.script(Method::POST, "/shipments", [Reply::WorkThenDie, Reply::WorkThenHang]);
    let folder = folder(&downstream, ORDERS);
    let event = order("evt_lost", 42);
    let client = client();

    let router = Router::start(&folder, ENV);
    assert_eq!(event.send(&client, &router.url("/hooks/orders")).await.expect("an answer"), 200);
    // The first attempt did the work and lost its answer; the second is under way when the power goes.
    within("the second attempt", downstream.wait_for(2)).await;
    assert_eq!(event.send(&client, &router.url("/hooks/orders")).await.expect("an answer"), 200);
    router.kill();

    let router = Router::start(&folder, ENV);
    for _ in 0..2 {
        assert_eq!(
            event.send(&client, &router.url("/hooks/orders")).await.expect("an answer"),
            200
        );
    }
    let seen = router.event_when("evt_lost", "succeeded").await;
    let attempts = step(&seen, "create_shipment")["attempts"].as_array().expect("attempts").clone();
    let outcomes: Vec<&str> =
        attempts.iter().map(|attempt| attempt["outcome"].as_str().expect("text")).collect();
    assert_eq!(outcomes, ["sent_no_answer", "sent_no_answer", "answered"], "{seen:#}");

    let shipments = downstream.requests_to(&Method::POST, "/shipments");
    assert_eq!(shipments.len(), 3);
    assert!(shipments.iter().all(|request| request.key() == Some("ship-42")));
    let done =
        |path: &str| downstream.actions().iter().filter(|action| action.path == path).count();
    assert_eq!((done("/shipments"), done("/receipts")), (1, 1));
    assert_eq!(downstream.requests_to(&Method::POST, "/receipts").len(), 1);

    // Once more after the end: still nothing.
    router.kill();
    let router = Router::start(&folder, ENV);
    assert_eq!(event.send(&client, &router.url("/hooks/orders")).await.expect("an answer"), 200);
    assert_eq!(
        router.event("evt_lost").await.expect("it is there")["processing"]["status"],
        "succeeded"
    );
    assert_eq!(downstream.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_succeed_goes_to_review_with_its_reason_and_comes_back_by_replay() {
    let downstream = downstream().await;
    let folder = folder(&downstream, ORDERS);
    let router = Router::start(&folder, ENV);
    let (client, url) = (client(), router.url("/hooks/orders"));
    let send = async |event: &str, data: &str| {
        let body = format!(r#"{{"id":"{event}","type":"t","created":{},"data":{data}}}"#, now());
        assert_eq!(
            Notification::new(SECRET, body).send(&client, &url).await.expect("an answer"),
            200
        );
    };
    let reason = |event: &Json| event["deliveries"][0]["reason"].to_string();

    send("evt_missing", "{}").await;
    let missing = router.event_when("evt_missing", "failed").await;
    assert!(
        reason(&missing).contains("order") && reason(&missing).contains("$.data.order"),
        "{missing:#}"
    );

    send("evt_type", r#"{"order":"twelve"}"#).await;
    let wrong = router.event_when("evt_type", "failed").await;
    assert!(reason(&wrong).contains("order") && reason(&wrong).contains("twelve"), "{wrong:#}");
    assert_eq!(downstream.requests().len(), 0);

    downstream.script(
        Method::POST,
        "/shipments",
        [Reply::json(422, &json!({ "error": "unknown sku" }))],
    );
    send("evt_422", r#"{"order":1}"#).await;
    let refused = router.event_when("evt_422", "failed").await;
    assert!(reason(&refused).contains("422"), "{refused:#}");
    assert_eq!(step(&refused, "create_shipment")["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(step(&refused, "receipt")["status"], "not_run");

    downstream.script(Method::POST, "/shipments", vec![Reply::status(503); 5]);
    send("evt_503", r#"{"order":2}"#).await;
    let exhausted = router.event_when("evt_503", "failed").await;
    assert_eq!(
        step(&exhausted, "create_shipment")["attempts"].as_array().map(Vec::len),
        Some(5),
        "{exhausted:#}"
    );

    downstream.script(Method::POST, "/shipments", [Reply::too_many(1)]);
    send("evt_429", r#"{"order":3}"#).await;
    router.event_when("evt_429", "succeeded").await;
    let tries: Vec<_> = downstream
        .requests()
        .into_iter()
        .filter(|request| request.key() == Some("ship-3"))
        .collect();
    let wait = tries[1].at.duration_since(tries[0].at);
    assert!(wait.as_secs_f64() >= 0.99, "Retry-After: 1 was not obeyed: {wait:?}");

    // The cause is mended; the operator puts the event back.
    let replay = client
        .post(format!("http://{}/api/v1/events/evt_422/replay", router.admin))
        .header("content-type", "application/json")
        .body("{}")
        .send()
        .await
        .expect("an answer");
    assert!(replay.status().is_success(), "{:?}", replay.text().await);
    let replayed = router.event_when("evt_422", "succeeded").await;
    assert_eq!(step(&replayed, "create_shipment")["attempts"].as_array().map(Vec::len), Some(2));
}

/// The route is mended and the router restarted: what was queued goes on by the revision that it started with, what is
/// replayed takes the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_keeps_its_revision_until_it_is_replayed() {
    let downstream = downstream().await;
    let folder = folder(&downstream, ORDERS);
    let client = client();
    let router = Router::start(&folder, ENV);
    downstream.script(Method::POST, "/shipments", [Reply::status(422), Reply::WorkThenHang]);
    let url = router.url("/hooks/orders");
    assert_eq!(order("evt_review", 1).send(&client, &url).await.expect("an answer"), 200);
    router.event_when("evt_review", "failed").await;
    assert_eq!(order("evt_flight", 2).send(&client, &url).await.expect("an answer"), 200);
    within("the call in flight", downstream.wait_for(2)).await;
    router.kill();

    folder.write("routes/route.yaml", &ORDERS.replace("post: /receipts", "post: /notes"));
    let router = Router::start(&folder, ENV);
    router.event_when("evt_flight", "succeeded").await;
    assert_eq!(downstream.requests_to(&Method::POST, "/receipts").len(), 1);
    assert_eq!(downstream.requests_to(&Method::POST, "/notes").len(), 0);

    let replay = client
        .post(format!("http://{}/api/v1/events/evt_review/replay", router.admin))
        .header("content-type", "application/json")
        .body(r#"{"note":"receipts moved"}"#)
        .send()
        .await
        .expect("an answer");
    assert!(replay.status().is_success(), "{:?}", replay.text().await);
    router.event_when("evt_review", "succeeded").await;
    assert_eq!(downstream.requests_to(&Method::POST, "/notes").len(), 1);
    assert_eq!(downstream.requests_to(&Method::POST, "/receipts").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_never_runs() {
    let downstream = downstream().await;
    let folder = folder(&downstream, &ORDERS.replace("fields.order }}\"", "fields.ordre }}\""));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
        .args(["-C", folder.path().to_str().expect("UTF-8"), "serve"])
        .envs(ENV.iter().copied())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("ordre") && said.contains("routes/route.yaml") && said.contains("order"),
        "{said}"
    );
    assert!(!folder.store().exists(), "a refused configuration touched the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_router_on_the_same_folder_is_refused() {
    let downstream = downstream().await;
    let folder = folder(&downstream, ORDERS);
    let _first = Router::start(&folder, ENV);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
        .args(["-C", folder.path().to_str().expect("UTF-8"), "serve"])
        .envs(ENV.iter().copied())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("data") && said.contains("another"), "{said}");
}

/// SIGTERM: the call in flight is finished and recorded, nothing is repeated afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_finishes_what_is_in_flight() {
    let downstream = downstream().await;
    let slow = Duration::from_millis(500);
    downstream.always(Method::POST, "/receipts", move |_| {
        Reply::Answer(router::simulate::downstream::Answer::new(200, "{}").after(slow))
    });
    let folder = folder(&downstream, ORDERS);
    let client = client();
    let router = Router::start(&folder, ENV);
    assert_eq!(
        order("evt_stop", 9).send(&client, &router.url("/hooks/orders")).await.expect("an answer"),
        200
    );
    within("the slow call", downstream.wait_for(2)).await;
    let (status, log) = router.stop();
    assert!(status.success(), "{log:?}");

    let router = Router::start(&folder, ENV);
    router.event_when("evt_stop", "succeeded").await;
    let log = log.join("\n");
    assert_eq!(downstream.requests().len(), 2, "a finished call was repeated\n{log}");
}
