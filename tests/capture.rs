//! A secret that a provider's handshake brings, over real sockets and a real process: taken while an operator waits for
//! it, there after a kill, gone when it is dropped, and never shown.

mod support;

use std::process::{Command, Output};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value as Json;
use sha2::Sha256;
use support::{Folder, Router, client};

const SECRET: &str = "a9f3c1e5b7d2-hook-secret";

const TASKS: &str = r#"
route: tasks
source:
  path: /hooks/{team}
  verify: { hmac: sha256, secret: { captured: true }, signature: { header: X-Hook-Signature } }
  handshake:
    - when: { header: { X-Hook-Secret: true } }
      verify: false
      capture_secret: { header: X-Hook-Secret }
      respond: { status: 204, headers: { X-Hook-Secret: "{header.X-Hook-Secret}" } }
  event: { id: $.id }
fields: { id: $.id }
steps:
  - name: note
    call: { post: "http://127.0.0.1:9/notes", json: { id: "{{ fields.id }}" } }
    repeat: ok
"#;

const ENV: &[(&str, &str)] = &[];

/// The command line, as an operator would use it beside the running router.
fn sources(router: &Router, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_router"))
        .arg("sources")
        .args(args)
        .env("ROUTER_URL", format!("http://{}", router.admin))
        .env_remove("ROUTER_TOKEN")
        .output()
        .expect("the router starts")
}

fn done(router: &Router, args: &[&str]) -> String {
    let output = sources(router, args);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(SECRET), "{said}");
    said
}

/// Status, and the secret as the answer gives it back.
async fn handshake(router: &Router, secret: &str) -> (u16, Option<String>) {
    let asked = client().post(router.url("/hooks/blue")).header("x-hook-secret", secret);
    let answer = asked.send().await.expect("an answer");
    let echoed = answer.headers().get("x-hook-secret").map(|it| it.to_str().expect("text").into());
    (answer.status().as_u16(), echoed)
}

/// An event that the provider signs with `secret`.
async fn event(router: &Router, team: &str, secret: &str, id: &str) -> u16 {
    let body = format!(r#"{{"id":"{id}"}}"#);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length of key");
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let asked = client().post(router.url(&format!("/hooks/{team}")));
    let asked = asked.header("x-hook-signature", signature).body(body);
    asked.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_comes_in_a_handshake_outlives_a_kill_and_goes_when_it_is_dropped() {
    let folder = Folder::new("", &[("routes/tasks.yaml", TASKS)]);
    let router = Router::start(&folder, ENV);
    assert_eq!(handshake(&router, SECRET).await, (401, None));
    router.wait_for_log("not_armed").await;
    assert_eq!(event(&router, "blue", SECRET, "e1").await, 401);
    router.wait_for_log("no_secret_captured").await;

    let said = done(&router, &["arm", "tasks", "--for", "5m"]);
    assert!(
        said.contains("make the webhook at the provider now") && said.contains("/hooks/{team}")
    );
    // For another part of the path nothing is taken.
    done(&router, &["arm", "tasks", "--path", "team=red"]);
    assert_eq!(handshake(&router, SECRET).await, (401, None));
    done(&router, &["arm", "tasks", "--path", "team=blue"]);
    assert_eq!(handshake(&router, SECRET).await, (204, Some(SECRET.to_owned())));
    assert_eq!(handshake(&router, "another").await, (401, None));
    assert_eq!(event(&router, "blue", SECRET, "e1").await, 200);
    let listed = done(&router, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let tasks = &listed["sources"][0];
    let id = tasks["secrets"][0]["id"].as_str().expect("an id").to_owned();
    let revealed = sources(&router, &["reveal", "tasks", &id]);
    assert_eq!(String::from_utf8(revealed.stdout).expect("UTF-8").trim(), SECRET);
    // It is of this part of the path alone.
    assert_eq!(event(&router, "red", SECRET, "e1").await, 401);
    let metrics = router.metrics().await;
    for line in [
        r#"router_secrets_captured_total{source="tasks"} 1"#,
        r#"router_requests_rejected_total{source="tasks",reason="not_armed"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // It is armed, and the process ends: the next one waits for nothing.
    done(&router, &["arm", "tasks"]);
    let mut log = router.kill();

    let router = Router::start(&folder, ENV);
    assert_eq!(handshake(&router, "another").await.0, 401);
    assert_eq!(event(&router, "blue", SECRET, "e2").await, 200);
    assert_eq!(event(&router, "blue", "another", "e3").await, 401);
    let listed = done(&router, &["list"]);
    assert!(listed.contains("team=blue") && listed.contains("local"), "{listed}");
    let listed: Json = serde_json::from_str(&done(&router, &["list", "--json"])).expect("JSON");
    let secrets = listed["sources"][0]["secrets"].as_array().expect("a list");
    assert_eq!(secrets.len(), 1, "{listed:#}");
    let id = secrets[0]["id"].as_str().expect("an id");

    let unknown = sources(&router, &["drop", "tasks", "019"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no captured secret `019`"));
    let said = done(&router, &["drop", "tasks", id]);
    assert!(said.contains("is gone"), "{said}");
    assert_eq!(event(&router, "blue", SECRET, "e4").await, 401);
    log.extend(router.kill());

    let router = Router::start(&folder, ENV);
    assert!(!done(&router, &["list"]).contains("team=blue"));
    assert_eq!(event(&router, "blue", SECRET, "e5").await, 401);
    log.extend(router.kill());
    let log = log.join("\n");
    assert!(log.contains("secret_captured") && log.contains("drop_secret"), "{log}");
    assert!(!log.contains(SECRET), "a secret was logged");
}
