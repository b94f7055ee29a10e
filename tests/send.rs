//! `router send` as its user runs it, against a router in a process of its own: handshakes and their answers, and proofs that
//! are wrong wherever they stand.

mod support;

use std::process::Command;

use support::{Folder, Router};

const ED25519: &str = include_str!("../src/simulate/stand_in/ed25519.pem");
const ED25519_PUBLIC: &str = include_str!("../src/simulate/stand_in/ed25519.pub.pem");
const RSA: &str = include_str!("../src/simulate/stand_in/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../src/simulate/stand_in/rsa.pub.pem");

const STEPS: &str =
    "steps: [ { name: tell, call: { post: \"http://127.0.0.1:9/\" }, repeat: ok } ]\n";

/// A route on `/NAME`; `source` are further keys of its source.
fn route(name: &str, source: &str) -> (String, String) {
    let text = format!("route: {name}\nsource:\n  path: /{name}\n{source}\n{STEPS}");
    (format!("routes/{name}.yaml"), text)
}

struct Rig {
    folder: Folder,
    router: Router,
}

/// The router runs with `TEST_SECRET=hush`.
fn rig(files: &[(String, String)]) -> Rig {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let folder = Folder::new("", &files);
    folder.write("ed25519.pem", ED25519);
    folder.write("ed25519.pub.pem", ED25519_PUBLIC);
    folder.write("rsa.pem", RSA);
    folder.write("rsa.pub.pem", RSA_PUBLIC);
    let router = Router::start(&folder, &[("TEST_SECRET", "hush")]);
    Rig { folder, router }
}

impl Rig {
    /// `router send NAME …` with another secret than the router's, perhaps: the exit code and all that it says.
    fn send_by(&self, secret: &str, name: &str, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_router"))
            .current_dir(self.folder.path())
            .args(["send", name, "--to", &self.router.url(&format!("/{name}"))])
            .args(args)
            .env("TEST_SECRET", secret)
            .output()
            .expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), out + &String::from_utf8_lossy(&output.stderr))
    }

    fn send(&self, name: &str, args: &[&str]) -> (Option<i32>, String) {
        self.send_by("hush", name, args)
    }

    #[track_caller]
    fn done(&self, name: &str, args: &[&str], says: &[&str]) {
        self.ends(Some(0), name, args, says);
    }

    #[track_caller]
    fn ends(&self, expected: Option<i32>, name: &str, args: &[&str], says: &[&str]) {
        let (code, said) = self.send(name, args);
        assert_eq!(code, expected, "{name} {args:?}: {said}");
        for text in says {
            assert!(said.contains(text), "{name} {args:?}: no `{text}` in: {said}");
        }
    }
}

fn preset(name: &str) -> (String, String) {
    route(
        name,
        &format!(
            "  verify: {{ provider: {name}, secret: {{ env: TEST_SECRET }} }}\n  event: {{ id: $.id }}"
        ),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_of_presets_are_made_and_their_answers_judged() {
    let discord = "  verify: { provider: discord, secret: { file: ../ed25519.pub.pem } }";
    let rig = rig(&[
        preset("slack"),
        preset("x-twitter"),
        preset("zoom"),
        preset("trello"),
        preset("github"),
        route("discord", discord),
    ]);
    let ok = ["as expected", "with a proof of the sender", "200 OK"];
    rig.done("slack", &["--handshake"], &ok);
    rig.done("zoom", &["--handshake"], &["as expected", "encryptedToken", "application/json"]);
    rig.done(
        "x-twitter",
        &["--handshake"],
        &["as expected", "GET /x-twitter?crc_token=", "without a proof", "sha256="],
    );
    rig.done("trello", &["--handshake", "0"], &["HEAD /trello", "as expected"]);
    let key = ["--handshake", "--key", "ed25519.pem"];
    rig.done("discord", &key, &["handshake 0", "204 No Content", "handshake 1", "{\"type\":1}"]);

    // What the user gives is what is asked.
    rig.folder.write("c.json", r#"{"type":"url_verification","challenge":"mine"}"#);
    rig.done("slack", &["--handshake", "--payload", "c.json"], &["   mine\n"]);
    rig.done("x-twitter", &["--handshake", "--query", "crc_token=abc"], &["crc_token=abc"]);
    rig.folder.write("c.json", r#"{"type":"event_callback"}"#);
    let other = ["--handshake", "--payload", "c.json"];
    rig.ends(Some(1), "slack", &other, &["$.type", "not what the handshake wants", "--payload"]);

    rig.ends(Some(1), "github", &["--handshake"], &["`github` answers no handshake"]);
    rig.ends(Some(1), "slack", &["--handshake", "3"], &["no handshake 3", "it has one, number 0"]);
    rig.ends(Some(1), "discord", &["--handshake"], &["--key test.pem"]);

    // Another secret: the provider would not be believed, and its own answer is not what it must be.
    let (code, said) = rig.send_by("other", "slack", &["--handshake"]);
    assert!(code == Some(1) && said.contains("the same secrets"), "{said}");
    let (code, said) = rig.send_by("other", "x-twitter", &["--handshake"]);
    assert!(code == Some(1) && said.contains("the body must be"), "{said}");

    let refused = ["401 Unauthorized", "with a wrong proof"];
    rig.done("slack", &["--handshake", "--bad-signature"], &refused);
    rig.done("discord", &["--handshake", "--bad-signature"], &refused);
    let none = ["--handshake", "--bad-signature"];
    rig.ends(Some(1), "x-twitter", &none, &["leave --bad-signature out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_of_a_source_itself_are_made() {
    let own = r#"  verify: { token: { header: X-Token }, secret: { env: TEST_SECRET } }
  event: { id: $.id }
  handshake:
    - when: { method: OPTIONS, header: { WebHook-Request-Origin: true } }
      verify: false
      respond: { status: 204, headers: { WebHook-Allowed-Origin: "{header.WebHook-Request-Origin}" } }
    - when: { method: GET, query: { code: { match: "[A-F]{3}-[0-9]{4}" } } }
      respond: { body: "{query.code}" }
    - when: { form: { kind: ask, at: { match: "[0-9]{10}" } }, content_type: application/x-www-form-urlencoded }
      respond: { body: { seen: "{form.at}" } }
    - when: { form: { kind: ask, other: true } }"#;
    let hooks = r#"  verify: { hmac: sha256, secret: { captured: true }, signature: { header: X-Hook-Signature } }
  handshake:
    when: { header: { X-Hook-Secret: true } }
    verify: false
    capture_secret: { header: X-Hook-Secret }
    respond: { headers: { X-Hook-Secret: "{header.X-Hook-Secret}" } }
  event: { id: $.id }"#;
    let confirms = r#"  verify: { token: { query: t }, secret: { env: TEST_SECRET } }
  handshake:
    when: { json: { $.Type: SubscriptionConfirmation } }
    confirm: { get: { json: $.SubscribeURL }, host: "127\\.0\\.0\\.1" }
  event: { id: $.id }"#;
    let rig = rig(&[route("own", own), route("hooks", hooks), route("confirms", confirms)]);
    let says = ["OPTIONS /own", "204 No Content", "webhook-allowed-origin: ", "as expected"];
    rig.done("own", &["--handshake", "0"], &says);
    let says = ["nothing that is made up", "--query code=VALUE"];
    rig.ends(Some(1), "own", &["--handshake", "1"], &says);
    rig.done("own", &["--handshake", "1", "--query", "code=ABC-1234"], &["   ABC-1234\n"]);
    let wrong = ["--handshake", "1", "--query", "code=abc"];
    rig.ends(Some(1), "own", &wrong, &["the query parameter code", "give another"]);
    rig.done("own", &["--handshake", "2"], &["POST /own", "seen", "as expected"]);
    let form = ["--handshake", "3", "--bad-signature"];
    rig.done("own", &form, &["401"]);

    let says = ["a made-up secret, ", "401", "router sources arm hooks"];
    rig.ends(Some(1), "hooks", &["--handshake"], &says);
    let armed = Command::new(env!("CARGO_BIN_EXE_router"))
        .args(["sources", "arm", "hooks"])
        .env("ROUTER_URL", format!("http://{}", rig.router.admin))
        .output()
        .expect("it starts");
    assert!(armed.status.success(), "{armed:?}");
    rig.folder.write("secret.txt", "brought-by-hand\n");
    let key = ["--handshake", "--key", "secret.txt"];
    let (code, said) = rig.send("hooks", &key);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("[the secret]") && !said.contains("brought-by-hand"), "{said}");
    rig.folder.write("e.json", "{\"id\":\"e1\"}");
    let event = ["--payload", "e.json", "--key", "secret.txt"];
    rig.done("hooks", &event, &["200 OK"]);
    rig.done("hooks", &["--payload", "e.json", "--bad-signature"], &["401"]);

    let says = ["for the provider to give", "would GET", "--payload FILE"];
    rig.ends(Some(1), "confirms", &["--handshake"], &says);
    rig.folder.write(
        "c.json",
        r#"{"Type":"SubscriptionConfirmation","SubscribeURL":"https://evil.example/"}"#,
    );
    let says = ["not the provider's", "400 Bad Request", "as expected"];
    rig.done("confirms", &["--handshake", "--payload", "c.json"], &says);
    rig.folder.write(
        "c.json",
        r#"{"Type":"SubscriptionConfirmation","SubscribeURL":"http://127.0.0.1:9/none"}"#,
    );
    let says = ["will GET http://127.0.0.1:9/none", "503", "could not GET"];
    rig.ends(Some(1), "confirms", &["--handshake", "--payload", "c.json"], &says);
}

/// Each request is taken with a right proof and refused with a wrong one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_proof_is_refused_wherever_it_stands() {
    let secret = "secret: { env: TEST_SECRET }";
    let verify = |name: &str, verify: &str| {
        route(
            name,
            &format!(
                "  verify: {{ {verify} }}\n  event: {{ id: {{ hash: body }} }}\n  on_malformed: review"
            ),
        )
    };
    let schemes = [
        ("header", format!("hmac: sha256, {secret}, signature: {{ header: X-Sig }}")),
        ("query", format!("hmac: sha256, {secret}, signature: {{ query: sig }}")),
        ("token-query", format!("token: {{ query: token }}, {secret}")),
        ("bearer", format!("token: {{ bearer: true }}, {secret}")),
        ("basic", format!("token: {{ basic: user }}, {secret}")),
        ("json", format!("hmac: sha512, signed: \"{{json:$.id}}\", {secret}, signature: {{ json: $.proof.signature, encoding: base64 }}")),
        ("token-json", format!("token: {{ json: $.auth.token }}, {secret}")),
        ("each", format!("for_each: \"$.events[*]\", hmac: sha256, signed: \"{{json:$.n}}\", {secret}, signature: {{ json: $.signature }}")),
        ("jwt", format!("jwt: {{ header: X-Jwt, prefix: \"JWT \", algorithms: HS256, required: [ exp ] }}, {secret}")),
        ("jwt-json", format!("jwt: {{ json: $.token, algorithms: HS256 }}, {secret}")),
        ("jwt-body", format!("jwt: {{ body: true, algorithms: HS256 }}, {secret}")),
        ("detached", format!("jwt: {{ detached: X-Jws, algorithms: HS512 }}, {secret}")),
        ("either", format!("any_of: [ {{ token: {{ header: X-Token }} }}, {{ hmac: sha256, signature: {{ header: X-Sig }} }} ], {secret}")),
        ("both", format!("all_of: [ {{ token: {{ header: X-Token }} }}, {{ hmac: sha256, signature: {{ header: X-Sig }} }} ], {secret}")),
        ("config", "require: { header: { X-Account: \"{config.account}\" } }, none: the account is the proof, config: { account: { env: TEST_SECRET } }".to_owned()),
    ];
    let forms = [
        (
            "form",
            format!(
                "hmac: sha256, signed: \"{{form.id}}\", {secret}, signature: {{ form: signature }}"
            ),
        ),
        ("token-form", format!("token: {{ form: token }}, {secret}")),
    ];
    let keys = [
        (
            "ed25519",
            "ed25519: true, secret: { file: ../ed25519.pub.pem }, signature: { header: X-Sig }",
            "ed25519.pem",
        ),
        (
            "rsa",
            "rsa: sha256, secret: { file: ../rsa.pub.pem }, signature: { header: X-Sig, encoding: base64 }",
            "rsa.pem",
        ),
        (
            "jwt-rsa",
            "jwt: { bearer: true, algorithms: RS256 }, secret: { file: ../rsa.pub.pem }",
            "rsa.pem",
        ),
    ];
    let teapot = route(
        "other-answer",
        &format!(
            "  verify: {{ token: {{ header: X-Token }}, {secret} }}\n  event: {{ id: $.id }}\n  respond: {{ unverified: 403 }}"
        ),
    );
    let mut files: Vec<_> =
        schemes.iter().chain(&forms).map(|(name, it)| verify(name, it)).collect();
    files.extend(keys.iter().map(|(name, it, _)| verify(name, it)));
    files.push(verify("rsa-sha1", "rsa: sha1, secret: { file: ../rsa.pub.pem }, signature: { header: X-Sig, encoding: base64 }"));
    files.push(teapot);
    files.push(route("open", "  verify: { none: a test }\n  event: { id: $.id }"));
    let rig = rig(&files);
    rig.folder.write("p.json", r#"{"id":"p1","events":[{"n":1},{"n":2}]}"#);
    rig.folder.write("form.txt", "id=f1&more=1");

    let both = |name: &str, payload: &str, key: Option<&str>| {
        let payload = ["--payload", payload];
        let key: Vec<&str> = key.map(|key| vec!["--key", key]).unwrap_or_default();
        let form = ["--header", "content-type: application/x-www-form-urlencoded"];
        let form = if payload[1] == "form.txt" { &form[..] } else { &[] };
        let args = [&payload[..], &key, form].concat();
        rig.done(name, &args, &["200 OK"]);
        let args = [&payload[..], &["--bad-signature"], form].concat();
        rig.done(name, &args, &["401 Unauthorized"]);
    };
    for (name, _) in &schemes {
        both(name, "p.json", None);
    }
    for (name, _) in &forms {
        both(name, "form.txt", None);
    }
    for (name, _, key) in keys {
        both(name, "p.json", Some(key));
    }
    let bad = ["--payload", "p.json", "--bad-signature"];
    // With SHA-1 nothing is signed here, and a wrong signature needs no key.
    rig.done("rsa-sha1", &bad, &["401 Unauthorized"]);
    rig.done("other-answer", &bad, &["403 Forbidden"]);
    rig.ends(Some(1), "open", &bad, &["nothing in the request proves the sender"]);
    // What proves nothing here is what was found to be wrong there, and not something else.
    let metrics = rig.router.metrics().await;
    for (name, _) in schemes.iter().chain(&forms) {
        let reason = metrics.lines().any(|line| {
            line.contains(&format!("source=\"{name}\""))
                && ["wrong_signature", "wrong_token", "wrong_value"]
                    .iter()
                    .any(|it| line.contains(it))
        });
        assert!(reason, "{name}: {metrics}");
    }
}
