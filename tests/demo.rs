//! `router demo --once` as a new user meets it, and a port that is taken.

mod support;

use std::net::TcpListener;
use std::process::{Command, Output};

use support::Folder;

fn router(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_router")).args(arguments).output().expect("the router starts")
}

#[test]
fn the_demo_does_everything_once_and_ends_by_itself() {
    let output = router(&["demo", "--once"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let count = |what: &str| -> u32 {
        let line = shown.lines().find(|line| line.trim_start().starts_with(what));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no count of {what} in:\n{shown}"))
    };
    assert_eq!(count("events sent") * 3, count("webhooks received"));
    assert_eq!(count("events sent") * 2, count("duplicates refused"));
    assert_eq!(count("actions done twice"), 0);
    assert_eq!(count("actions lost"), 0);
    assert!(count("retries") > 0 && count("calls made") > count("actions done"), "{shown}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let folder = Folder::new(
        "",
        &[(
            "routes/a.yaml",
            "route: a\nsource: { path: /a, verify: { none: a test }, event: { id: $.id } }\n\
             steps: [{ name: b, call: { get: \"http://127.0.0.1:9/\" } }]\n",
        )],
    );
    folder.write(
        "router.yaml",
        &format!("listen: {address}\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: ./data\n"),
    );
    let output = router(&["-C", folder.path().to_str().expect("UTF-8"), "serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}
