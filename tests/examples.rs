//! Every example, and the repository's own configuration: it is clean under `check --strict`, and its samples run through
//! a real router, signed as their providers sign, to a downstream that counts.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use http::Method;
use router::cli::running::Running;
use router::cli::sample::usual_headers;
use router::config::resolve::{Environment, resolve};
use router::config::{Live, RouteSet};
use router::delivery::state::Status;
use router::diag::human;
use router::files::{Files, Location};
use router::simulate::downstream::{Downstream, Reply};
use router::simulate::provider::{Notification, Provider};
use router::store::{Budget, EventStatus, Query, Store};
use router::world::World;
use router::world::clock::timeout;
use serde_json::{Value as Json, json};

/// Reaching it is a failure, never a way to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one sample makes of the downstream: each call with a part of its body, in any order.
struct Case {
    folder: &'static str,
    /// The route, and the name of its file in `payloads/`.
    route: &'static str,
    calls: fn() -> Vec<(&'static str, Json)>,
}

const CASES: &[Case] = &[
    Case {
        folder: ".",
        route: "store-orders",
        calls: || {
            vec![
                (
                    "POST /fulfilment/v1/shipments",
                    json!({
                        "reference": "820982911946154508",
                        "lines": [{ "sku": "LAMP-BRASS", "quantity": 1 }, { "sku": "BULB-E14-2", "quantity": 2 }],
                    }),
                ),
                (
                    "POST /mail/v1/messages",
                    json!({
                        "to": "ada@example.com",
                        "subject": "Your order #1001",
                        "text": "Thank you! We received 84.70 EUR.\nYour parcel made_1 is on its way.\n",
                    }),
                ),
            ]
        },
    },
    Case {
        folder: ".",
        route: "paid-invoices",
        calls: || {
            vec![
                ("POST /books/v1/entries", json!({ "amount_minor": 4900, "currency": "EUR" })),
                (
                    "POST /chat/v1/messages",
                    json!({ "text": "Grace Hopper Ltd paid; booked as made_1." }),
                ),
            ]
        },
    },
    Case {
        folder: ".",
        route: "new-issues",
        calls: || {
            vec![(
                "POST /tracker/v1/tickets",
                json!({
                    "title": "octo-org/octo-shop#142: Checkout shows the wrong VAT for Norway",
                }),
            )]
        },
    },
    Case {
        folder: "examples/stripe-to-slack",
        route: "failed-payments",
        calls: || {
            let text = "Joan Clarke: 129.99 GBP failed (Your card has insufficient funds.)";
            vec![("POST /slack", json!({ "text": text }))]
        },
    },
    Case {
        folder: "examples/form-to-crm",
        route: "contact-form",
        calls: || {
            vec![
                (
                    "POST /crm/leads",
                    json!({
                        "email": "mary@example.com", "name": "Mary Somerville", "queue": "sales", "newsletter": true,
                    }),
                ),
                ("PUT /crm/lists/newsletter/members/made_1", json!({ "status": "subscribed" })),
            ]
        },
    },
    Case {
        folder: "examples/github-issues",
        route: "urgent-issues",
        calls: || {
            vec![(
                "POST /tracker/v1/tickets",
                json!({ "priority": 1, "labels": ["bug", "security"] }),
            )]
        },
    },
    Case {
        folder: "examples/internal-events",
        route: "new-users",
        calls: || {
            vec![
                (
                    "PUT /crm/contacts/usr_9f2c",
                    json!({ "plan": "team", "since": "2026-11-20T16:05:00.12Z" }),
                ),
                ("POST /archive/events", json!({ "type": "user.created" })),
            ]
        },
    },
];

#[test]
fn every_configuration_is_clean_and_every_sample_has_its_case() {
    let mut faults = Vec::new();
    for folder in configurations() {
        let (files, unread) = Files::read(&Location::Folder(root().join(&folder)));
        let mut loaded = router::config::check::load(files);
        loaded.diagnostics.extend(unread);
        if !loaded.diagnostics.is_empty() {
            faults.push(human::render(&loaded.files, &loaded.diagnostics, false));
        }
        let samples =
            if folder == "." { "examples/payloads".into() } else { format!("{folder}/payloads") };
        let samples: BTreeSet<String> = fs::read_dir(root().join(&samples))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let cases: BTreeSet<String> = CASES
            .iter()
            .filter(|case| case.folder == folder)
            .map(|case| case.route.to_owned())
            .collect();
        assert!(!samples.is_empty(), "{folder} has no sample");
        assert_eq!(samples, cases, "the samples of {folder} and the cases of this test");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The first YAML of the README is a whole route, and so it is a clean one.
#[test]
fn the_route_of_the_readme_is_clean() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").expect("the README shows a route");
    let (route, _) = rest.split_once("```").unwrap();
    let mut files = Files::new("");
    files.add("routes/store-orders.yaml", route);
    let loaded = router::config::check::load(files);
    let shown = human::render(&loaded.files, &loaded.diagnostics, false);
    assert!(loaded.set.is_some() && loaded.diagnostics.is_empty(), "{shown}");
}

/// The repository's own folder and those of `examples/` that hold routes.
fn configurations() -> Vec<String> {
    let mut found = vec![".".to_owned()];
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("routes").is_dir() {
            found.push(format!("examples/{}", path.file_name().unwrap().to_str().unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_does_its_work_once() {
    for case in CASES {
        check(case).await;
    }
}

/// Sends the sample twice and compares what arrived.
async fn check(case: &Case) {
    let world = World::real();
    let downstream = Downstream::start(world.clock.clone()).await.unwrap();
    let expected = (case.calls)();
    for (call, _) in &expected {
        let (method, path) = call.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        downstream.always(method, path, |request| {
            Reply::json(201, &json!({ "id": format!("made_{}", request.number) }))
        });
    }
    let folder = copy(case.folder, downstream.address());
    let (files, _) = Files::read(&Location::Folder(folder.path().to_owned()));
    let loaded = router::config::check::load(files);
    let shown = human::render(&loaded.files, &loaded.diagnostics, false);
    let set = loaded.set.unwrap_or_else(|| panic!("{}: {shown}", case.folder));
    let (resolved, missing) = resolve(&set, &StandIns);
    assert!(missing.is_empty(), "{}: {missing:?}", case.folder);
    let running = Running::start(Live { set, resolved }, world.clone()).await.unwrap();

    for _ in 0..2 {
        let status = send(case, &running, &world).await;
        assert!((200..300).contains(&status), "{} answered {status}", case.route);
    }
    let waited = timeout(&*world.clock, PATIENCE, async {
        downstream.wait_for(expected.len()).await;
        loop {
            let summary = running.store.summary().await;
            if summary.queued + summary.processing == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let waited = waited.await;
    let budget = Budget { rows_max: 10, examined_max: 100 };
    let page = running.store.list(Query::default(), None, budget).await.unwrap();
    assert!(waited.is_some(), "{}: {:#?}", case.route, page.events);
    assert_eq!(page.events.len(), 1, "{}: {:#?}", case.route, page.events);
    let event = running.store.event(page.events[0].uid).await.unwrap().unwrap();
    assert_eq!(page.events[0].status, EventStatus::Delivery(Status::Succeeded), "{event:#?}");
    assert_eq!(event.duplicates, 1);
    running.shutdown(PATIENCE).await.unwrap();

    let requests = downstream.requests();
    assert_eq!(requests.len(), expected.len(), "{}: {requests:#?}", case.route);
    for (call, part) in expected {
        let request =
            requests.iter().find(|request| format!("{} {}", request.method, request.path) == call);
        let request =
            request.unwrap_or_else(|| panic!("{}: no {call} in {requests:#?}", case.route));
        let body = request.json();
        for (name, value) in part.as_object().unwrap() {
            assert_eq!(&body[name], value, "{}: {name} of {call} in {body:#}", case.route);
        }
        assert!(request.header("x-correlation-id").is_some());
    }
}

async fn send(case: &Case, running: &Running, world: &World) -> u16 {
    let live = running.live();
    let set: &RouteSet = &live.set;
    let route = &set.routes[&case.route.into()];
    let source = &set.sources[&route.source];
    let body = sample(case);
    // One id for both sends, where a header carries it.
    let headers = usual_headers(route, source, &body, "sample-1").unwrap();
    let url: url::Url = format!("http://{}{}", running.ingress, source.path).parse().unwrap();
    let provider = Provider {
        scheme: &source.verify.scheme,
        keys: router::verify::Keys::of(&live.resolved.vault),
        body: source.body.as_ref(),
        public_url: url.clone(),
        to: url,
        clock: Arc::clone(&world.clock),
    };
    let notification = Notification {
        method: Method::POST,
        path: Vec::new(),
        headers,
        body: body.into(),
        id: "sample-1".to_owned(),
    };
    provider.send(&notification).await.unwrap().status
}

fn sample(case: &Case) -> Vec<u8> {
    let folder = if case.folder == "." {
        "examples/payloads".into()
    } else {
        format!("{}/payloads", case.folder)
    };
    let mut files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    fs::read(files.find(|path| path.file_stem().unwrap() == case.route).unwrap()).unwrap()
}

/// The configuration in a temporary folder, with its destinations on `downstream` under their names.
fn copy(folder: &str, downstream: SocketAddr) -> tempfile::TempDir {
    let from = root().join(folder);
    let to = tempfile::tempdir().unwrap();
    for part in ["routes", "sources"] {
        if from.join(part).is_dir() {
            fs::create_dir(to.path().join(part)).unwrap();
            for entry in fs::read_dir(from.join(part)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, to.path().join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let text = fs::read_to_string(from.join("router.yaml")).unwrap();
    let mut server: Json = serde_yaml::from_str(&text).unwrap();
    for (name, destination) in server["destinations"].as_object_mut().unwrap() {
        destination["url"] = format!("http://{downstream}/{name}").into();
    }
    server["listen"] = "127.0.0.1:0".into();
    server["admin"] = json!({ "listen": "127.0.0.1:0" });
    server["limits"] = json!({ "min_free_disk": "1MiB" });
    server["egress"] = json!({ "allow": [downstream.to_string()] });
    fs::write(to.path().join("router.yaml"), serde_yaml::to_string(&server).unwrap()).unwrap();
    to
}

fn root() -> PathBuf {
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

/// Reads as text, hexadecimal and base64 alike.
struct StandIns;

impl Environment for StandIns {
    fn var(&self, _name: &str) -> Option<String> {
        Some("00112233445566778899aabbccddeeff".to_owned())
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}
