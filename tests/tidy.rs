//! The rules of the house, read from the source: which room may import which, who alone knows a library, and how files are
//! named and opened.

#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that reads the source may stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the bottom to the top. A room imports from its own row and from those before it.
const LAYERS: &[&[&str]] = &[
    &["name", "world"],
    &["arming", "diag", "files", "secret", "body", "envelope", "telemetry"],
    &["template", "syntax"],
    &["extract", "verify", "delivery"],
    &["config"],
    &["render", "store", "call"],
    &["simulate", "admin", "ingress", "engine"],
    &["cli"],
];

/// Rooms that may import these and nothing else of the house.
const ONLY: &[(&str, &[&str])] = &[
    ("store", &["delivery", "body", "envelope", "name", "secret", "world", "telemetry"]),
    ("arming", &["name", "world"]),
    ("envelope", &["body", "name"]),
    ("body", &[]),
    ("telemetry", &["envelope", "name"]),
    ("world", &["name"]),
    ("name", &[]),
];

/// What only some rooms know. Printing is held by the lints `print_stdout` and `print_stderr`, the clock by
/// `disallowed_methods`.
const KNOWN_IN: &[(&str, &[&str])] = &[
    ("minijinja::", &["template"]),
    ("ring::signature", &["verify"]),
    ("x509_cert::", &["verify"]),
    ("webpki", &["verify"]),
    ("multer::", &["body"]),
    ("quick_xml::", &["body"]),
    ("jsonpath_rust::", &["extract"]),
    ("granit_parser::", &["syntax"]),
    ("annotate_snippets::", &["diag"]),
    ("clap::", &["cli", "main"]),
    ("reqwest::", &["call"]),
    ("axum::", &["admin"]),
    ("hyper::", &["ingress", "simulate"]),
    ("hyper_util::", &["ingress", "simulate"]),
    ("io::stdout", &["cli"]),
    ("::sled::", &["store"]),
];

/// What pure rooms do not do: files, sockets, tasks, clocks.
const PURE: &[&str] = &["body", "verify", "extract", "template", "render", "delivery"];
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::process",
    "std::env::",
    "tokio::",
    "SystemTime",
    "Instant::now",
];

const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

struct SourceFile {
    /// Relative to `src/`.
    name: String,
    text: String,
}

impl SourceFile {
    /// The first folder or file name under `src/`.
    fn room(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap()
    }

    /// The lines that run: no comments, no tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let whole = if self.name.ends_with("/tests.rs") { "" } else { self.text.as_str() };
        let tests = whole.find("#[cfg(test)]\nmod tests {").unwrap_or(whole.len());
        let lines = whole[..tests].lines().enumerate();
        lines
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<SourceFile> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        SourceFile { name, text: fs::read_to_string(&path).unwrap() }
    };
    paths.into_iter().map(read).collect()
}

/// The rooms that a line names by `crate::ROOM` or `crate::{ROOM…, ROOM…}`.
fn rooms_named(line: &str) -> BTreeSet<&str> {
    let mut rooms = BTreeSet::new();
    for part in line.split("crate::").skip(1) {
        let heads = match part.strip_prefix('{') {
            Some(group) => top_level(group),
            None => vec![part],
        };
        for head in heads {
            let end = head
                .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .unwrap_or(head.len());
            if end > 0 {
                rooms.insert(&head[..end]);
            }
        }
    }
    rooms
}

/// The entries of `a, b::{c, d}, e}` that stand at its own level.
fn top_level(group: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let mut entries = Vec::new();
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                entries.push(group[start..at].trim());
                return entries;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                entries.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    entries.push(group[start..].trim());
    entries
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_point_down() {
    let mut faults = Vec::new();
    for file in sources() {
        let room = file.room();
        let Some(own) = layer(room) else {
            if !["lib", "main"].contains(&room) {
                faults.push(format!(
                    "src/{}: `{room}` stands in no layer of tests/tidy.rs",
                    file.name
                ));
            }
            continue;
        };
        for (line, text) in file.code() {
            for named in rooms_named(text).into_iter().filter(|named| *named != room) {
                let at = format!("src/{}:{line}", file.name);
                match layer(named) {
                    None => {
                        faults.push(format!("{at}: `{named}` stands in no layer of tests/tidy.rs"))
                    }
                    Some(theirs) if theirs > own => {
                        faults.push(format!("{at}: `{room}` stands below `{named}`"))
                    }
                    Some(_) => {}
                }
                let only = ONLY.iter().find(|(only, _)| *only == room);
                if only.is_some_and(|(_, allowed)| !allowed.contains(&named)) {
                    faults.push(format!("{at}: `{room}` does not know `{named}`"));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn each_library_is_known_in_its_room_only() {
    let mut faults = Vec::new();
    for file in sources() {
        for (line, text) in file.code() {
            for (library, rooms) in KNOWN_IN {
                if names(text, library) && !rooms.contains(&file.room()) {
                    faults.push(format!(
                        "src/{}:{line}: only {rooms:?} may know `{library}`",
                        file.name
                    ));
                }
            }
            if PURE.contains(&file.room()) {
                let effects = EFFECTS.iter().filter(|effect| names(text, effect));
                faults.extend(effects.map(|effect| {
                    format!(
                        "src/{}:{line}: `{}` is pure and does not use `{effect}`",
                        file.name,
                        file.room()
                    )
                }));
            }
        }
    }
    report(faults);
}

/// Whether `line` holds `name` as a path of its own: `hyper::` is not in `hyper_util::` nor in `my_hyper::`.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

#[test]
fn files_open_with_what_they_are_and_are_named_for_it() {
    let mut faults = Vec::new();
    for file in sources() {
        let opening = file.text.lines().next().unwrap_or("");
        if opening.trim_start_matches("//!").trim().is_empty() || !opening.starts_with("//! ") {
            faults.push(format!(
                "src/{}: does not open with a `//!` that says what it is",
                file.name
            ));
        }
        let vague = file.name.trim_end_matches(".rs").split('/').find(|part| VAGUE.contains(part));
        if let Some(part) = vague {
            faults.push(format!("src/{}: `{part}` says nothing of what is inside", file.name));
        }
    }
    report(faults);
}

#[test]
fn the_reader_of_imports_reads() {
    let check = |line: &str, expected: &[&str]| {
        assert_eq!(rooms_named(line), expected.iter().copied().collect(), "{line}");
    };
    check("use crate::store::Claim;", &["store"]);
    check("use crate::{diag::{Span, code::Code}, files};", &["diag", "files"]);
    check("    let x: crate::name::Uid = crate::world::id();", &["name", "world"]);
    check("use std::fs;", &[]);
    assert!(names("use hyper::body;", "hyper::") && !names("use my_hyper::body;", "hyper::"));
}
