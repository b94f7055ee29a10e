//! What a person sees for each code: a fixture and its rendered output, at least one a code. Reviewing a snapshot is
//! reviewing the user's experience.
//!
//! A fixture is `routes/a.yaml` of a configuration; a line `#--- NAME` starts another file of it. Variables of the
//! environment are not set.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use router::cli::check::load;
use router::config::resolve::{Environment, resolve};
use router::diag::code::Code;
use router::diag::{Diagnostic, human, sort};
use router::files::Location;

struct Nothing;

impl Environment for Nothing {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The fixture's files in a folder of their own.
fn unpack(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut name = "routes/a.yaml";
    let mut text = String::new();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for line in fixture.split_inclusive('\n') {
        match line.strip_prefix("#--- ") {
            Some(next) => {
                if !text.is_empty() {
                    write(name, &text);
                }
                (name, text) = (next.trim(), String::new());
            }
            None => text.push_str(line),
        }
    }
    write(name, &text);
    folder
}

/// Everything that `check --env` says of the fixture, with paths as from inside the folder.
fn check(fixture: &str) -> (Vec<Diagnostic>, String) {
    let folder = unpack(fixture);
    let mut loaded = load(&Location::Folder(folder.path().to_owned()));
    if let Some(set) = &loaded.set {
        let (_, more) = resolve(set, &Nothing);
        loaded.diagnostics.extend(more);
        sort(&loaded.files, &mut loaded.diagnostics);
    }
    let real = folder.path().canonicalize().unwrap().display().to_string();
    loaded.files.root = PathBuf::new();
    let mut shown =
        human::render(&loaded.files, &loaded.diagnostics, false).replace(&real, "/conf");
    shown += &human::summary(&loaded.diagnostics).unwrap_or_default();
    (loaded.diagnostics, shown)
}

#[test]
fn each_code_is_shown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut fixtures: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.ends_with("ok.yaml"))
        .collect();
    fixtures.sort();
    let mut seen = BTreeSet::new();
    for path in fixtures {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (diagnostics, shown) = check(&fs::read_to_string(&path).unwrap());
        let code = Code::find(name.split('-').next().unwrap())
            .expect("a fixture's name starts with its code");
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.code == code),
            "{name} shows no {}:\n{shown}",
            code.as_str()
        );
        seen.insert(code);
        insta::with_settings!({ snapshot_path => "diagnostics", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, shown);
        });
    }
    let missing: Vec<_> =
        Code::ALL.iter().filter(|code| !seen.contains(code)).map(|code| code.as_str()).collect();
    assert!(missing.is_empty(), "no fixture in tests/diagnostics shows {missing:?}");
}

/// `router` run in `folder`: exit code, stdout, stderr.
fn router(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn fixture(name: &str) -> tempfile::TempDir {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/diagnostics")
        .join(name)
        .with_extension("yaml");
    unpack(&fs::read_to_string(path).unwrap())
}

#[test]
fn exit_codes() {
    let check = |name: &str, arguments: &[&str], code: i32, says: &str| {
        let folder = fixture(name);
        let (exit, out, err) = router(folder.path(), arguments);
        assert_eq!(exit, code, "{name} {arguments:?}: {out}{err}");
        assert!(
            format!("{out}{err}").contains(says),
            "{name} {arguments:?} does not say {says:?}: {out}{err}"
        );
    };
    check("ok", &["check"], 0, "ok: 1 route, 1 source");
    check("ok", &["check", "--strict"], 0, "ok: 1 route, 1 source");
    check("ok", &["check", "--env"], 1, "SHOPIFY_SECRET");
    check("ok", &["check", "routes/a.yaml"], 0, "ok");
    check("R042-literal-secret", &["check"], 0, "1 warning in 1 file");
    check("R042-literal-secret", &["check", "--strict"], 1, "1 warning in 1 file");
    check(
        "R042-literal-secret",
        &["check", "--strict", "--allow", "R042"],
        0,
        "ok: 1 route, 1 source",
    );
    check("R012-unknown-key", &["check"], 1, "routes/a.yaml:");
    check("R012-unknown-key", &["check", "none.yaml"], 2, "there is no file or folder `none.yaml`");
    check("R012-unknown-key", &["check", "-C", "none"], 2, "there is no folder `none`");
    check("R012-unknown-key", &["check", "--format", "sarif"], 2, "not built yet");
    check("R012-unknown-key", &["check", "--fix"], 2, "`--fix` is not built yet");
    check("R012-unknown-key", &["chekc"], 2, "check");
    check("R004-no-routes", &["check"], 1, "no routes in");
}

#[test]
fn json_is_one_object() {
    let folder = fixture("R012-unknown-key");
    let (exit, out, _) = router(folder.path(), &["check", "--format", "json"]);
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exit, 1);
    assert_eq!(object["diagnostics"][0]["file"], "routes/a.yaml");
    assert!(object["errors"].as_u64().unwrap() > 0);
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let folder = fixture("R012-unknown-key");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
        .arg("check")
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
