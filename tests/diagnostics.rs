//! What a person sees for each code: a fixture and its rendered output, at least one a code. Reviewing a snapshot is
//! reviewing the user's experience.
//!
//! A fixture is `routes/a.yaml` of a configuration; a line `#--- NAME` starts another file of it. Every variable of the
//! environment is set, but for the fixtures of R040; no file of a secret can be read.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use router::cli::check::load;
use router::config::resolve::{Environment, resolve};
use router::config::shape::{Mapping, Shape, provider, route, server, source};
use router::diag::code::Code;
use router::diag::{Diagnostic, human, sort};
use router::files::Location;

struct Stand {
    set: bool,
}

impl Environment for Stand {
    fn var(&self, _name: &str) -> Option<String> {
        self.set.then(|| "value".to_owned())
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
fn check(fixture: &str, environment: bool) -> (Vec<Diagnostic>, String) {
    let folder = unpack(fixture);
    let mut loaded = load(&Location::Folder(folder.path().to_owned()));
    if let Some(set) = &loaded.set {
        let (_, more) = resolve(set, &Stand { set: environment });
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
        let (diagnostics, shown) =
            check(&fs::read_to_string(&path).unwrap(), !name.starts_with("R040"));
        let code = Code::find(name.split('-').next().unwrap())
            .expect("a fixture's name starts with its code");
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.code == code),
            "{name} shows no {}:\n{shown}",
            code.as_str()
        );
        for diagnostic in &diagnostics {
            assert!(diagnostic.help.is_some() || code == Code::UnreadableFile, "no help: {shown}");
        }
        seen.insert(code);
        insta::with_settings!({ snapshot_path => "diagnostics", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, shown);
        });
    }
    let missing: Vec<_> =
        Code::ALL.iter().filter(|code| !seen.contains(code)).map(|code| code.as_str()).collect();
    assert!(missing.is_empty(), "no fixture in tests/diagnostics shows {missing:?}");
}

/// `docs/codes.md`: of each code a file that shows it and what is said of it, which names the way out.
#[test]
fn the_page_of_codes_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut fixtures: Vec<_> = fs::read_dir(root.join("tests/diagnostics"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    fixtures.sort();
    let mut page = "# What `router check` says\n\n\
        A code is stable. An error keeps a configuration from running; a warning that is meant is let through by\n\
        `--allow CODE`, and counts as an error under `--strict`. Each code here with a configuration that shows it and what\n\
        `check --env` says of that; a line `#--- NAME` starts another file. These examples are tests.\n"
        .to_owned();
    for code in Code::ALL {
        let fixture = fixtures
            .iter()
            .filter(|path| !path.ends_with("R016-every-key.yaml"))
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(&format!("{}-", code.as_str()))
            })
            .unwrap();
        let text = fs::read_to_string(fixture).unwrap();
        let (_, shown) = check(&text, *code != Code::UnsetVariable);
        page += &format!(
            "\n## {} {}\n\n```yaml\n{}\n```\n\n```text\n{}\n```\n",
            code.as_str(),
            code.name(),
            text.trim_end(),
            shown.trim_end()
        );
    }
    let path = root.join("docs/codes.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/codes.md is stale: run `UPDATE_DOCS=1 cargo test --test diagnostics` and look at the change"
    );
}

/// The keys and words of the tables that are not built, by name.
fn later(shape: &Shape, seen: &mut BTreeSet<&'static str>, found: &mut BTreeSet<&'static str>) {
    match shape {
        Shape::Mapping(mapping) => later_keys(mapping, seen, found),
        Shape::List(item) | Shape::Many(item) => later(item, seen, found),
        Shape::Names(names) if seen.insert(names.what) => later(&names.value, seen, found),
        Shape::Any(alternatives) => {
            alternatives.iter().for_each(|shape| later(shape, seen, found));
        }
        Shape::Word(words) => {
            found.extend(words.iter().filter(|word| !word.built).map(|word| word.text));
        }
        _ => {}
    }
}

fn later_keys(
    mapping: &'static Mapping,
    seen: &mut BTreeSet<&'static str>,
    found: &mut BTreeSet<&'static str>,
) {
    if seen.insert(mapping.name) {
        for key in mapping.keys {
            if !key.built {
                found.insert(key.name);
            }
            later(&key.shape, seen, found);
        }
    }
}

/// Nothing of the language is parsed and ignored: what is not built is an error at its own place.
#[test]
fn every_key_that_is_not_built_says_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/R016-every-key.yaml");
    let (diagnostics, shown) = check(&fs::read_to_string(path).unwrap(), true);
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    for table in [&route::ROUTE, &source::SOURCE_FILE, &server::CONFIG, &provider::PROVIDER] {
        later_keys(table, &mut seen, &mut found);
    }
    assert!(found.len() > 20, "the walk over the tables found only {found:?}");
    let missing: Vec<_> = found
        .iter()
        .filter(|name| {
            !diagnostics.iter().any(|it| {
                it.code == Code::NotBuiltYet && it.message.starts_with(&format!("`{name}` "))
            })
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not in the fixture:\n{shown}");
}

/// A key that the tables take is read by a rule.
#[test]
fn every_key_that_is_built_is_read() {
    fn keys(shape: &Shape, seen: &mut BTreeSet<&'static str>, found: &mut BTreeSet<&'static str>) {
        match shape {
            Shape::Mapping(mapping) if seen.insert(mapping.name) => {
                for key in mapping.keys.iter().filter(|key| key.built) {
                    found.insert(key.name);
                    keys(&key.shape, seen, found);
                }
            }
            Shape::List(item) | Shape::Many(item) => keys(item, seen, found),
            Shape::Names(names) if seen.insert(names.what) => keys(&names.value, seen, found),
            Shape::Any(alternatives) => {
                alternatives.iter().for_each(|shape| keys(shape, seen, found));
            }
            _ => {}
        }
    }
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    for table in [&route::ROUTE, &source::SOURCE_FILE, &server::CONFIG, &provider::PROVIDER] {
        keys(&Shape::Mapping(table), &mut seen, &mut found);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rules = fs::read_to_string(folder.join("cli/providers.rs")).unwrap();
    for file in fs::read_dir(folder.join("config/check")).unwrap() {
        let path = file.unwrap().path();
        if !path.ends_with("tests.rs") {
            rules += &fs::read_to_string(path).unwrap();
        }
    }
    let unread: Vec<_> =
        found.iter().filter(|name| !rules.contains(&format!("\"{name}\""))).collect();
    assert!(unread.is_empty(), "no rule reads {unread:?}");
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
    check(
        "R012-unknown-key",
        &["check", "--format", "xml"],
        2,
        "human, json, sarif, github, junit",
    );
    for format in ["sarif", "github", "junit"] {
        let arguments = ["check", "--format", format];
        check("R012-unknown-key", &arguments, 1, "unknown-key");
        check("ok", &arguments, 0, "ok: 1 route, 1 source");
        check("R042-literal-secret", &arguments, 0, "1 warning in 1 file");
        check("R042-literal-secret", &[&arguments[..], &["--strict"]].concat(), 1, "1 warning");
        check("ok", &[&arguments[..], &["none.yaml"]].concat(), 2, "there is no file or folder");
    }
    check("R012-unknown-key", &["check", "--fix"], 2, "`--fix` is not built yet");
    check("R012-unknown-key", &["chekc"], 2, "check");
    check("R004-no-routes", &["check"], 1, "no routes in");
}

#[test]
fn providers_and_schemas() {
    let folder = fixture("ok");
    let run = |arguments: &[&str], code: i32, says: &str| {
        let (exit, out, err) = router(folder.path(), arguments);
        assert_eq!(exit, code, "{arguments:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(says), "{arguments:?}: {out}{err}");
        out
    };
    let list = run(&["providers", "list"], 0, "stripe");
    assert!(list.lines().count() >= 7, "{list}");
    let json = run(&["providers", "list", "--json"], 0, "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json.as_array().unwrap().iter().any(|it| it["name"] == "shopify"), "{json}");
    let found = run(&["providers", "list", "HUB"], 0, "github");
    assert!(found.lines().all(|line| line.to_lowercase().contains("hub")), "{found}");
    run(&["providers", "list", "nobody-at-all"], 1, "`router providers list` prints all");
    run(&["providers", "show", "stripe"], 0, "provider: stripe");
    run(&["providers", "show", "strpe"], 1, "did you mean `stripe`?");
    run(&["providers", "show", "nobody-at-all"], 1, "`router providers list`");
    run(&["providers"], 2, "list");
    for kind in ["route", "source", "config", "provider"] {
        let schema: serde_json::Value =
            serde_json::from_str(&run(&["schema", kind], 0, "")).unwrap();
        assert_eq!(schema["type"], "object", "{kind}");
    }
    run(&["schema", "rout"], 2, "route");
    run(&["schema"], 2, "route");
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

/// Forges and their CI know paths from the root of the repository, wherever the command runs and whatever it is given.
#[test]
fn paths_of_reports_start_at_the_repository() {
    let text = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics").join(name);
        fs::read_to_string(path).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("eu 1/routes/a.yaml", text("R012-unknown-key.yaml")),
        ("eu 1/routes/b.yaml", text("ok.yaml").replace("orders", "refunds")),
        ("us/routes/a.yaml", text("ok.yaml")),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    // As in a second work tree, where `.git` is a file.
    fs::write(folder.path().join(".git"), "gitdir: elsewhere").unwrap();
    let run = |inside: &str, arguments: &[&str]| {
        let (exit, out, err) =
            router(&folder.path().join(inside), &[&["check", "--format"], arguments].concat());
        assert_eq!(exit, 1, "{arguments:?}: {out}{err}");
        out
    };
    let file = "eu 1/routes/a.yaml";
    for (inside, arguments) in [
        ("eu 1", &[][..]),
        ("eu 1/routes", &["a.yaml"]),
        ("", &["-C", "eu 1"]),
        ("", &["eu 1/routes/a.yaml"]),
        ("us", &["../eu 1"]),
    ] {
        let github = run(inside, &[&["github"], arguments].concat());
        let commands: Vec<_> = github.lines().collect();
        assert!(!commands.is_empty());
        for command in commands {
            assert!(command.starts_with(&format!("::error file={file},line=")), "{command}");
        }
        let sarif = run(inside, &[&["sarif"], arguments].concat());
        let sarif: serde_json::Value = serde_json::from_str(&sarif).unwrap();
        let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "eu%201/routes/a.yaml");
        let junit = run(inside, &[&["junit"], arguments].concat());
        assert!(junit.contains(&format!("name=\"{file}\"")), "{junit}");
        // What was not asked for was not looked at.
        let named = arguments.iter().any(|argument| argument.ends_with("a.yaml"));
        assert_eq!(junit.contains("b.yaml\" file=\"eu 1/routes/b.yaml\"/>"), !named, "{junit}");
    }
    let both = run("", &["github", "eu 1", "us"]);
    assert!(both.starts_with("::error file=eu 1/routes/a.yaml,"), "{both}");
    let (exit, _, err) = router(folder.path(), &["check", "--format", "sarif", "eu 1", "us"]);
    assert_eq!(exit, 2);
    assert!(err.contains("one log, so it takes one configuration"), "{err}");
    // Without a repository the configuration is all there is.
    fs::remove_file(folder.path().join(".git")).unwrap();
    let alone = run("", &["github", "-C", "eu 1"]);
    assert!(alone.starts_with("::error file=routes/a.yaml,"), "{alone}");
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
