//! `router providers show`, read as somebody would who sets a source up.

use std::fs;
use std::process::Command;

const TEAM: &str = r#"# Our warehouse signs the body and shows the number of the site.
provider: warehouse
title: The warehouse
strength: signed
config:
  site: { about: "the number of the site, at the foot of its delivery notes" }
  region: { about: where the warehouse stands, default: north }
verify:
  all_of:
    - hmac: sha512
      secret_encoding: hex
      signed: "{config.site}.{config.region}.{body}"
      signature: { header: X-Signature, encoding: base64 }
    - token: { json: $.auth.token }
handshake:
  - when: { method: GET, query: { ask: true }, header: { X-Old: false } }
    verify: false
    respond: { headers: { X-Answer: "{query.ask}" } }
event:
  id: { hash: [ $.order, { header: X-Part } ] }
respond: { status: 202, unverified: 403 }
methods: [PUT]
"#;

const CAPTURES: &str = r#"provider: tasks
verify:
  hmac: sha256
  signature: { header: X-Hook-Signature }
handshake:
  when: { header: { X-Hook-Secret: true } }
  verify: false
  capture_secret: { header: X-Hook-Secret }
  respond: { headers: { X-Hook-Secret: "{header.X-Hook-Secret}" } }
"#;

fn show(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("providers")).expect("a folder");
    fs::write(folder.path().join("providers/warehouse.yaml"), TEAM).expect("a file");
    fs::write(folder.path().join("providers/tasks.yaml"), CAPTURES).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_router"))
        .args(["providers", "show"])
        .args(args)
        .current_dir(folder.path())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn what_is_said_of_a_provider() {
    for name in ["stripe", "slack", "sendgrid", "discord", "trello", "gitlab", "warehouse", "tasks"]
    {
        insta::assert_snapshot!(name, show(&[name]));
    }
}

#[test]
fn the_yaml_alone_and_a_form_for_machines() {
    assert_eq!(show(&["warehouse", "--yaml"]), TEAM);
    let yaml = show(&["stripe", "--yaml"]);
    assert_eq!(yaml, include_str!("../src/providers/stripe.yaml"));
    insta::assert_snapshot!("warehouse_json", show(&["warehouse", "--json"]));
}
