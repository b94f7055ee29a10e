//! Who plays in the demo: the routes, their configuration, the webhooks, and the downstream with its failures.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value as Json, json};

use super::Report;
use crate::cli::running::Running;
use crate::config::resolve::Environment;
use crate::simulate::downstream::{Downstream, Reply};
use crate::world::World;

const CONFIGURATION: &str = include_str!("../../../router.yaml");

/// The routes of `routes/`, each with a sample and with the calls that one event is to make.
const ROUTES: &[Played] = &[
    Played {
        name: "store-orders",
        text: include_str!("../../../routes/store-orders.yaml"),
        payload: include_str!("../../../examples/payloads/store-orders.json"),
        ids: &["/id"],
        reference: "/id",
        calls: &["/fulfilment/v1/shipments", "/mail/v1/messages"],
    },
    Played {
        name: "paid-invoices",
        text: include_str!("../../../routes/paid-invoices.yaml"),
        payload: include_str!("../../../examples/payloads/paid-invoices.json"),
        ids: &["/id", "/data/object/id"],
        reference: "/data/object/id",
        calls: &["/books/v1/entries", "/chat/v1/messages"],
    },
    Played {
        name: "new-issues",
        text: include_str!("../../../routes/new-issues.yaml"),
        payload: include_str!("../../../examples/payloads/new-issues.json"),
        ids: &["/issue/id", "/issue/number"],
        reference: "/issue/id",
        calls: &["/tracker/v1/tickets"],
    },
];

/// The demo is in a hurry.
const RETRY: &str = "\nretry: { first: 50ms, max: 400ms }\n";
const TIMEOUT: &str = "500ms";
/// Everybody's secret, on this machine only. It reads as text, hexadecimal and base64 alike.
const SECRET: &str = "00112233445566778899aabbccddeeff";

/// An environment in which every secret is the same.
pub(super) struct StandIns;

impl Environment for StandIns {
    fn var(&self, _name: &str) -> Option<String> {
        Some(SECRET.to_owned())
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Ok(SECRET.to_owned())
    }
}

struct Played {
    name: &'static str,
    text: &'static str,
    payload: &'static str,
    /// What differs from event to event.
    ids: &'static [&'static str],
    /// What the calls of an event carry as `reference`.
    reference: &'static str,
    calls: &'static [&'static str],
}

/// One event as its provider sends it.
pub(super) struct Webhook {
    pub(super) route: &'static str,
    pub(super) body: Bytes,
    /// What it is called where a header says so.
    pub(super) id: String,
    /// Path and reference of every call that it is to cause, exactly once each.
    pub(super) actions: Vec<(String, String)>,
}

/// `each` different events for every route.
pub(super) fn webhooks(each: u32) -> anyhow::Result<Vec<Webhook>> {
    let mut webhooks = Vec::new();
    for number in 1..=each {
        for played in ROUTES {
            webhooks.push(played.webhook(number).context(played.name)?);
        }
    }
    Ok(webhooks)
}

impl Played {
    fn webhook(&self, number: u32) -> anyhow::Result<Webhook> {
        let mut payload: Json = serde_json::from_str(self.payload)?;
        for id in self.ids {
            let id = payload.pointer_mut(id).context("an id of the sample")?;
            *id = match id.as_u64() {
                Some(known) => json!(known + u64::from(number)),
                None => json!(format!("{}{number}", text(id))),
            };
        }
        let reference = text(payload.pointer(self.reference).context("a reference")?);
        Ok(Webhook {
            route: self.name,
            body: Bytes::from(payload.to_string()),
            id: format!("{}-{number}", self.name),
            actions: self
                .calls
                .iter()
                .map(|path| ((*path).to_owned(), reference.clone()))
                .collect(),
        })
    }
}

/// A number or text as a call carries it in a text.
pub(super) fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Answers 201 with an id, but not at once and not always.
pub(super) async fn downstream(world: &World) -> io::Result<Downstream> {
    let downstream = Downstream::start(world.clock.clone()).await?;
    for (path, prefix) in [
        ("/fulfilment/v1/shipments", "shp"),
        ("/mail/v1/messages", "msg"),
        ("/books/v1/entries", "ent"),
        ("/chat/v1/messages", "chat"),
        ("/tracker/v1/tickets", "tkt"),
    ] {
        downstream.always(Method::POST, path, move |request| {
            Reply::json(201, &json!({ "id": format!("{prefix}_{}", request.number) }))
        });
    }
    let busy = || Reply::status(503);
    downstream.script(
        Method::POST,
        "/fulfilment/v1/shipments",
        [Reply::WorkThenDie, busy(), busy()],
    );
    downstream.script(Method::POST, "/books/v1/entries", [busy(), Reply::Hang]);
    downstream.script(Method::POST, "/mail/v1/messages", [busy(), busy()]);
    downstream.script(Method::POST, "/tracker/v1/tickets", [busy()]);
    Ok(downstream)
}

/// Writes the repository's routes and a `router.yaml` whose destinations all lead to `downstream`.
pub(super) fn write_configuration(folder: &Path, downstream: SocketAddr) -> anyhow::Result<()> {
    let ours: Json = serde_yaml::from_str(CONFIGURATION)?;
    let mut destinations = ours["destinations"].as_object().cloned().unwrap_or_default();
    for (name, destination) in &mut destinations {
        destination["url"] = format!("http://{downstream}/{name}").into();
        destination["timeout"] = TIMEOUT.into();
    }
    let mut server = Map::new();
    server.insert("listen".into(), "127.0.0.1:0".into());
    server.insert("admin".into(), json!({ "listen": "127.0.0.1:0" }));
    server.insert("store".into(), "./data".into());
    server.insert("limits".into(), json!({ "min_free_disk": "16MiB" }));
    server.insert("egress".into(), json!({ "allow": [downstream.to_string()] }));
    server.insert("destinations".into(), destinations.into());
    fs::write(folder.join("router.yaml"), serde_yaml::to_string(&server)?)?;
    fs::create_dir(folder.join("routes"))?;
    fs::create_dir(folder.join("payloads"))?;
    for played in ROUTES {
        let text = format!("{}{RETRY}", played.text);
        fs::write(folder.join("routes").join(played.name).with_extension("yaml"), text)?;
        let payload = folder.join("payloads").join(played.name).with_extension("json");
        fs::write(payload, played.payload)?;
    }
    Ok(())
}

/// What to try while the demo's router is up.
pub(super) fn invitation(running: &Running, folder: &Path, report: &Report) -> String {
    let (admin, ingress) = (running.admin, running.ingress);
    let folder = folder.display();
    let router = std::env::current_exe().unwrap_or_else(|_| "router".into());
    let router = router.display();
    let event = report.event_id();
    format!(
        "\nThe router is still up. In another terminal:\n\n  \
         curl http://{admin}/api/v1/events/{event}\n  \
         curl http://{admin}/metrics\n  \
         curl -i http://{ingress}/hooks/store -d '{{}}'      # unsigned: 401, nothing is stored\n  \
         SHOPIFY_WEBHOOK_SECRET={SECRET} \\\n    \
         {router} -C {folder} send store-orders --to http://{ingress}/hooks/store --duplicate 2\n\n\
         Ctrl-C ends it.\n"
    )
}
